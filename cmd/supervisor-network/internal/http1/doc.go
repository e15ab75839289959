// Package http1 is this daemon's own HTTP/1.1 grammar: message heads, framing and
// bodies, read from raw bytes and always written anew.
//
// It answers the threat of two readers that disagree about one message (request
// smuggling, header injection, hidden authority): whatever RFC 9112 leaves to
// leniency is refused, and nothing is forwarded as it was received. It does not
// judge what a message asks for.
//
// Invariant: a head that parses has exactly one reading; a body copier never takes
// a byte behind the message. Every limit is a constant here.
//
// Sources: RFC 9110 sections 5, 7.2, 7.6.1; RFC 9112 sections 2 to 7; RFC 3986
// section 3.2.
package http1

import (
	"fmt"

	"github.com/splitpod/splitpod/pkg/core"
)

// Limits of one message.
const (
	MaxMethodBytes  = 32
	MaxTargetBytes  = 4096
	MaxFields       = 200
	MaxTrailers     = 32    // that are announced
	MaxRequestHead  = 8192  // proxied request heads, terminator included
	MaxTunnelHead   = 16384 // request heads inside tunnels
	MaxResponseHead = 16384 // response heads
	maxChunkLine    = 8192  // chunk size with its extensions
	maxTrailerBytes = 8192
)

// SyntaxError is a message that is refused. Detail names the rule that is broken,
// never the bytes that break it.
type SyntaxError struct {
	Status int // HTTP status to answer with
	Reason core.Reason
	Detail string
}

// Error implements error.
func (e *SyntaxError) Error() string { return fmt.Sprintf("%s: %s", e.Reason, e.Detail) }

func bad(detail string) error {
	return &SyntaxError{Status: 400, Reason: core.ReasonBadRequest, Detail: detail}
}

func badTarget(detail string) error {
	return &SyntaxError{Status: 400, Reason: core.ReasonInvalidTarget, Detail: detail}
}

func mismatch() error {
	return &SyntaxError{Status: 403, Reason: core.ReasonAuthorityMismatch, Detail: "the request names another host than the tunnel it came through"}
}
