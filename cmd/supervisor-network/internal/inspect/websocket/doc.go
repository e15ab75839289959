// Package websocket checks WebSocket handshakes and relays a session frame by frame,
// so that every text message of the client is judged before the origin gets a byte
// of it.
//
// It answers the threats of a message that is hidden from its rule (split over
// fragments and control frames, compressed, wrongly masked, of a length that two
// readers take differently), of one that is made to exhaust the daemon (bombs, slow
// or endless fragments), and of a session that is cut where it should have been
// closed. It does not read binary messages, which pass only where the caller says
// so, nor what a control frame carries, and does not judge what a server says.
//
// Invariant: what reaches the origin is a prefix of well-formed frames with masks of
// this daemon, and every text message in it is what Judge let pass. A refused
// message leaves nothing behind. What reaches the client is what the server sent, cut
// only between frames, followed by at most one close frame of this side; with Clean,
// messages are what it returned, in frames of this side (RFC 6455 section 5.4).
//
// Compressed messages of the client are sent on uncompressed, which RFC 7692 section
// 6 allows at any time: the origin can read nothing else in them than was judged, and
// no session holds a compressor.
//
// Sources: RFC 6455 sections 4, 5, 7, 8; RFC 7692 sections 5 to 7; RFC 8441
// sections 4 and 5.
package websocket

import "time"

// Limits of a session.
const (
	MaxText      = 4 << 20  // bytes of a text message, compressed and inflated, where there is room
	MaxBinary    = 16 << 20 // bytes of one binary frame
	MaxFragments = 4096     // frames of a text message

	readWait     = 30 * time.Second // between two reads inside a frame or a text message
	assemblyWait = 2 * time.Minute  // from the first to the last byte of a text message
	writeWait    = 2 * time.Minute  // one write
	halfWait     = 10 * time.Second // between two reads when the other direction has ended
	lingerWait   = 5 * time.Second  // for the answers to our close frames
)
