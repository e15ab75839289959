// Package hygiene takes secrets that an origin echoes back out of its responses, and
// puts their placeholders there.
//
// It answers the threat of a workload that learns a secret by asking an origin to
// repeat the request: an echo service, TRACE, a verbose error, a Location. It finds
// the value as it is, percent-encoded, escaped as JSON or HTML is by what most origins
// are made of, and inside base64, in header fields, in bodies, in messages of gRPC and of a WebSocket. Where the length of what
// is said must stay, because formats like protobuf state lengths inside, a value is
// covered with asterisks. Origins are asked for bodies without compression; what comes
// in gzip or deflate nevertheless is inflated as it is read, and stays so; a text in
// another coding, and a compressed message of gRPC, are refused. It does not answer an
// origin that means to tell: a value that is reversed, split over messages or written
// in another way passes, and so does one in a compressed file. Values shorter than
// MinBytes are not looked for; ordinary text contains them.
//
// Invariant: bytes that contain no value pass unchanged, but for a coding that is
// taken off, and are held back only as long as a value may begin with them.
//
// Sources: RFC 9110 sections 8.4.1 and 12.5.3, RFC 1950, RFC 1952, the gRPC project's
// PROTOCOL-HTTP2.md and PROTOCOL-WEB.md.
package hygiene

import (
	"bytes"
	"slices"
	"strings"

	"github.com/splitpod/splitpod/cmd/supervisor-network/internal/http1"
	"github.com/splitpod/splitpod/cmd/supervisor-network/internal/inject/credentials"
)

// Limits.
const (
	MinBytes = 8       // of a value that is looked for
	MaxBody  = 8 << 20 // of a body; what follows passes as it is
	// MaxSmall is how much of a text is cleaned of every value, like a head: what echo
	// services and errors say. A body that is known to be longer is not touched, so that
	// it keeps its length, unless a value is to be taken out of all bodies.
	MaxSmall = 64 << 10
)

// Filter looks for some values. Make it with New. Immutable, safe for concurrent
// use; a nil Filter finds nothing.
type Filter struct {
	// patterns, and those of them to look for in bodies too, both longest first. They
	// are behind a function so that nothing prints them.
	patterns func() (all, bodies []pattern)
}

// pattern is one way to write a value, and what is put there.
type pattern struct {
	text        []byte
	replacement []byte
}

// New makes a Filter for the values that went into a request. It is nil when there
// is nothing to look for.
func New(echoes []credentials.Echo) *Filter {
	var all, bodies []pattern
	for _, e := range echoes {
		value := e.Value.Expose()
		if len(value) < MinBytes {
			continue
		}
		for _, text := range forms(value) {
			p := pattern{[]byte(text), []byte(e.Placeholder)}
			all = append(all, p)
			if e.Bodies {
				bodies = append(bodies, p)
			}
		}
	}
	if all == nil {
		return nil
	}
	longest := func(a, b pattern) int { return len(b.text) - len(a.text) }
	slices.SortStableFunc(all, longest)
	slices.SortStableFunc(bodies, longest)
	return &Filter{func() ([]pattern, []pattern) { return all, bodies }}
}

// everywhere are the patterns for headers, inBodies those for bodies.
func (f *Filter) everywhere() []pattern { all, _ := f.patterns(); return all }

func (f *Filter) inBodies() []pattern {
	if f == nil {
		return nil
	}
	_, bodies := f.patterns()
	return bodies
}

// of are the patterns for the body of a response with these fields, and how much of
// it is looked at.
func (f *Filter) of(fields http1.Fields) ([]pattern, int) {
	if f == nil {
		return nil, 0
	}
	n, stated := http1.ContentLength(fields)
	switch {
	case stated && n > MaxSmall:
		return f.inBodies(), MaxBody
	case stated: // inflated it may be longer
		return f.everywhere(), MaxBody
	default:
		return f.unstated()
	}
}

// unstated is of for a text whose length nobody states.
func (f *Filter) unstated() ([]pattern, int) {
	switch {
	case f == nil:
		return nil, 0
	case len(f.inBodies()) > 0:
		return f.everywhere(), MaxBody
	default:
		return f.everywhere(), MaxSmall
	}
}

// Fields cleans response fields and says how many values it found. Without any it
// returns the same slice.
func (f *Filter) Fields(fields http1.Fields) (http1.Fields, int) {
	if f == nil {
		return fields, 0
	}
	out, count, patterns := fields, 0, f.everywhere()
	for i := range fields {
		if name := strings.ToLower(fields[i].Name); name == "content-length" || name == "transfer-encoding" {
			continue
		}
		value, n := replace([]byte(fields[i].Value), patterns)
		if n == 0 {
			continue
		}
		if count == 0 {
			out = slices.Clone(fields)
		}
		out[i].Value = string(value)
		count += n
	}
	return out, count
}

// Uncompressed makes a request ask for a response that can be looked into.
func (f *Filter) Uncompressed(fields http1.Fields) http1.Fields {
	if f == nil {
		return fields
	}
	return append(fields.Without("accept-encoding", "grpc-accept-encoding"), http1.Field{Name: "Accept-Encoding", Value: "identity"})
}

// replace replaces every pattern in data, at each place the longest.
func replace(data []byte, patterns []pattern) ([]byte, int) {
	out, rest, count := scan(data, patterns, false)
	if count == 0 {
		return data, 0
	}
	return append(out, rest...), count
}

// scan replaces patterns, or covers them, and returns what stands behind the last one
// separately.
func scan(data []byte, patterns []pattern, cover bool) (out, rest []byte, count int) {
	next := make([]int, len(patterns)) // where each is found next; -1: nowhere
	for i, p := range patterns {
		next[i] = bytes.Index(data, p.text)
	}
	done := 0
	for {
		best := -1
		for i := range patterns {
			if next[i] >= 0 && next[i] < done {
				if next[i] = bytes.Index(data[done:], patterns[i].text); next[i] >= 0 {
					next[i] += done
				}
			}
			if next[i] >= 0 && (best < 0 || next[i] < next[best]) {
				best = i
			}
		}
		if best < 0 {
			return out, data[done:], count
		}
		out = append(out, data[done:next[best]]...)
		if cover {
			out = append(out, bytes.Repeat([]byte{'*'}, len(patterns[best].text))...)
		} else {
			out = append(out, patterns[best].replacement...)
		}
		done = next[best] + len(patterns[best].text)
		count++
	}
}
