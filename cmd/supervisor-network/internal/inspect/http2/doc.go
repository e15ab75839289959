// Package http2 serves HTTP/2 to the workload inside a terminated tunnel, one checked
// stream at a time, and writes the origin's answers back.
//
// It answers the threats that HTTP/2 adds to those of http1: a stream for another
// host on a connection that was permitted for one, a stream that reads differently
// after translation to the origin, and a connection that is made expensive (resets,
// settings, pings, header blocks, windows that never open). It does not judge what a
// stream asks for, and it does not defend an origin from many well-formed streams.
//
// Invariant: a handler sees only streams with one method, one canonical path (unless
// Options.Verbatim) and the tunnel's own authority; every refusal and every cut has the form its client
// understands, which for gRPC is a status in the trailers.
//
// Framing, HPACK and flow control are golang.org/x/net/http2's, not net/http's own
// copy: only its ServeConn takes a TLS connection that has something between, which
// here are the meter and, on it, heads. Its names are deprecated since they lead to
// net/http in Go 1.27. What it lets through is closed here: check.go for fields, meter.go
// for floods, watch.go for peers that stop reading; and heads.go keeps from it what it
// would refuse without a word to us. Extended CONNECT (RFC 8441) is offered, for
// WebSockets alone: package xconnect says how the library is made to, duplex.go is
// what such a stream becomes.
//
// Sources: RFC 9113; RFC 7541; RFC 8441; the gRPC project's PROTOCOL-HTTP2.md,
// statuscodes.md and http-grpc-status-mapping.md; the token buckets are those of nghttp2.
package http2

import "time"

// Limits of one connection.
const (
	MaxStreams       = 100
	MaxHeaderList    = 16 << 10 // as RFC 9113 section 6.5.2 counts it
	maxFrame         = 16 << 10
	connectionWindow = 1 << 20
	narrowWindow     = 1<<16 - 1 // the least there is (RFC 9113 section 6.9.2)
	streamWindow     = 256 << 10
	drainTime        = time.Second     // for what a client sends on a WebSocket behind its end
	firstStream      = time.Second     // for what a client asks on a connection that drains already
	lastAnswers      = 6 * time.Second // for streams that have to end to be denied; a WebSocket waits 5 s to be closed
)

// Options are what a connection is served with. Host is required.
type Options struct {
	Host string // of the tunnel: lower-case, IPv6 without brackets
	Port uint16
	// EncodedSlash permits %2F in paths.
	EncodedSlash bool
	// Verbatim leaves paths as they were sent: nothing is decided by them.
	Verbatim bool

	Head       time.Duration // a large section of fields, from its first frame to its last, default 30 s
	Idle       time.Duration // a connection without streams, default 5 min
	StreamIdle time.Duration // a stream in which nothing moved, default 1 h
	Stall      time.Duration // a client that does not take what is sent, default 1 min
	Ping       time.Duration // silence after which the client is asked for life, which it shows within Stall, default 30 s

	// Stopping is closed when the client shall begin no further stream; nil: that is not
	// before it has to end those that run.
	Stopping <-chan struct{}

	// Windows bounds what all connections that share it may hold unread; nil: nobody
	// shares. The caller has entered it, and leaves it when Serve has returned.
	Windows *Windows

	// Refused is told every stream that was understood and refused before the
	// handler; the id it returns goes into the answer. Streams call it at the same
	// time. It may be nil.
	Refused func(method string, status int, err error) (requestID string)
	// Log is told what broke a connection, in words that hold bytes of the peer. It
	// may be nil.
	Log func(string)
}

func (o *Options) defaults() {
	for _, d := range []struct {
		field *time.Duration
		value time.Duration
	}{{&o.Head, 30 * time.Second}, {&o.Idle, 5 * time.Minute}, {&o.StreamIdle, time.Hour}, {&o.Stall, time.Minute}, {&o.Ping, 30 * time.Second}} {
		if *d.field <= 0 {
			*d.field = d.value
		}
	}
	if o.Refused == nil {
		o.Refused = func(string, int, error) string { return "" }
	}
}
