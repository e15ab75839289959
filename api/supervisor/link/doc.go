// Package link is what both daemons do alike on the sockets of the local
// contract: accept, authenticate the peer, agree on a revision, convert between the
// wire and core, deliver events, hand over descriptors.
//
// It answers the threats of a stranger on a socket (every connection is checked
// for the peer's uid before a byte is read), of a peer of another release (unknown
// values become the zero value, which denies) and of one that floods or stalls
// (messages are bounded), and of a socket that somebody removes, or a second network daemon
// that takes its name (it is opened again, and a run directory is one's at a time). It does
// not decide who the peer should be; that is configuration.
//
// What is promised of events, whichever daemon is killed, whenever and however often:
// an event that an Outbox holds is sent again until it was acknowledged, and an Inbox
// made by OpenInbox hands each over at most once. It notes a batch, hands it over,
// notes that this has ended, and acknowledges. So a kill of the receiver costs at most
// the one batch of up to 256 events that was being handed over, which the next instance
// knows the size of (Inbox.Unsure); a kill of the producer costs what was not
// acknowledged. Either way the producer recorded the event before it sent it, and had
// written the record of a denial by then unless its log was not read. An end by SIGTERM
// costs nothing while the peer is there to acknowledge.
//
// Sources: unix(7) for SO_PEERCRED and SCM_RIGHTS; api/supervisor/v1 for the
// messages.
package link
