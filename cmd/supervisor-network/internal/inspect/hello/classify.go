// Package hello reads the first bytes of a tunnel: which protocol they begin, and
// what a TLS ClientHello says.
//
// It answers the threat of a client that looks like something else because its first
// bytes come in small pieces: no answer is given before the bytes allow only one.
// And it answers that of a hello with two readings: names, protocols and versions
// are taken from a strict parse, whatever is doubled, hidden behind a zero or left
// over is an error. It does not end TLS and does not say what may pass.
//
// Invariant: the answer depends on the bytes, not on how they were cut; both
// functions are pure, nothing is consumed. What Parse accepts, crypto/tls reads the
// same way or refuses.
//
// Sources: RFC 8446 sections 4.1.2, 4.2 and 5.1; RFC 6066 section 3; RFC 7301
// section 3.1; RFC 9849 section 5; RFC 9113 section 3.4.
package hello

import (
	"bufio"
	"errors"
	"io"
	"strings"
)

// Kind is the protocol that a tunnel's first bytes begin.
type Kind uint8

// The kinds. Undecided is the zero value.
const (
	Undecided Kind = iota
	Other          // none of the others
	TLS            // a TLS record of a handshake
	HTTP1          // a request line with a usual method
	HTTP2          // the preface of HTTP/2 without TLS (h2c with prior knowledge)
)

// String is for records.
func (k Kind) String() string {
	switch k {
	case Other:
		return "other"
	case TLS:
		return "tls"
	case HTTP1:
		return "http/1"
	case HTTP2:
		return "h2c"
	default:
		return "undecided"
	}
}

// MaxPrefix is how many bytes decide about every Kind.
const MaxPrefix = 8

const preface = "PRI * HT" // of "PRI * HTTP/2.0"

// methods are those that policies know, with the space behind them.
var methods = [...]string{"GET ", "HEAD ", "POST ", "PUT ", "DELETE ", "PATCH ", "OPTIONS ", "CONNECT ", "TRACE "}

// Classify says what a tunnel that begins with prefix speaks. more is true with
// Undecided alone: then further bytes would decide, and none have to be thrown away.
// A tunnel that stays undecided, because its client waits or has closed, is to be
// treated as Other. No byte behind MaxPrefix changes an answer.
func Classify(prefix []byte) (kind Kind, more bool) {
	if begins, whole := startsTLS(prefix); whole {
		return TLS, false
	} else if begins {
		return Undecided, true
	}
	if begins, whole := starts(prefix, preface); whole {
		return HTTP2, false
	} else if begins {
		return Undecided, true
	}
	for _, m := range methods {
		if begins, whole := starts(prefix, m); whole {
			return HTTP1, false
		} else if begins {
			more = true // of several methods
		}
	}
	if more {
		return Undecided, true
	}
	return Other, false
}

// startsTLS: a record of type handshake and of a version up to 3.4.
func startsTLS(p []byte) (begins, whole bool) {
	if len(p) > 0 && p[0] != 0x16 || len(p) > 1 && p[1] != 3 || len(p) > 2 && p[2] > 4 {
		return false, false
	}
	return true, len(p) > 2
}

// starts says whether p could become, or is, something that starts with word.
func starts(p []byte, word string) (begins, whole bool) {
	if len(p) < len(word) {
		return strings.HasPrefix(word, string(p)), false
	}
	same := string(p[:len(word)]) == word
	return same, same
}

// Peek classifies what r will give, and leaves all of it there. It reads no further
// than it has to and waits as long as r does: give the connection a deadline. A
// client that closes before it is decided is Other; any other error is returned
// with Undecided, and a timeout may be followed by another Peek. r must buffer
// MaxPrefix bytes or more.
func Peek(r *bufio.Reader) (Kind, error) {
	for {
		have, _ := r.Peek(r.Buffered())
		if kind, more := Classify(have); !more {
			return kind, nil
		}
		switch _, err := r.Peek(len(have) + 1); {
		case errors.Is(err, io.EOF):
			return Other, nil
		case err != nil:
			return Undecided, err
		}
	}
}
