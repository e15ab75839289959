// Package link is what both daemons do alike on the sockets of the local
// contract: authenticate the peer, agree on a revision, convert between the wire
// and core, deliver events, hand over descriptors.
//
// It answers the threats of a stranger on a socket (every connection is checked
// for the peer's uid before a byte is read), of a peer of another release (unknown
// values become the zero value, which denies) and of one that floods or stalls
// (messages are bounded). It does not decide who the peer should be; that is
// configuration.
//
// Sources: unix(7) for SO_PEERCRED and SCM_RIGHTS; api/supervisor/v1 for the
// messages.
package link
