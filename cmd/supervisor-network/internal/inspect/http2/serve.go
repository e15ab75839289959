package http2

import (
	"context"
	"crypto/tls"
	"errors"
	"io"
	"log"
	"net"
	"net/http"
	"sync"
	"time"
)

// Handler answers one stream. It is called on a goroutine of its own, at most
// MaxStreams of them at a time, and has to call Deny or Respond once: a stream that
// nobody answered is reset. Its context ends with the stream.
type Handler func(ctx context.Context, s *Stream)

// Stats are what a connection carried.
type Stats struct {
	Streams int64 // the client began
	Handled int64 // came to the handler or were refused with an answer; net/http reset the others as malformed
	Flooded bool  // ended with ErrFlood
}

// The causes with which a stream's context ends.
var (
	ErrClosed = errors.New("http2: the client's connection has ended")
	ErrDrain  = errors.New("http2: the stream did not end while the connection was closed")
)

// Serve serves a connection on which h2 was negotiated until it ends, and closes it.
// When ctx ends the client is asked to start no stream, and those that run have
// Options.Drain to end. It returns when every handler has.
func Serve(ctx context.Context, conn *tls.Conn, o Options, handle Handler) Stats {
	o.defaults()
	base, cancel := context.WithCancelCause(context.WithoutCancel(ctx))
	s := &server{o: o, handle: handle, meter: newMeter(conn, time.Now())}
	closed := make(chan struct{})
	hs := s.http(base, func() { close(closed) })
	// Serve comes back when there is no second connection; the first goes on.
	_ = hs.Serve(&one{conn: s.meter})
	select {
	case <-closed:
	case <-ctx.Done():
		drain(hs, o.Drain, closed)
	}
	cancel(ErrClosed)
	s.wait()
	return Stats{Streams: s.meter.opened.Load(), Handled: s.meter.handled.Load(), Flooded: s.meter.err != nil}
}

// drain sends GOAWAY and waits; an ended context makes Shutdown do only the first.
func drain(hs *http.Server, limit time.Duration, closed <-chan struct{}) {
	now, cancel := context.WithCancel(context.Background())
	cancel()
	_ = hs.Shutdown(now)
	t := time.NewTimer(limit)
	defer t.Stop()
	select {
	case <-closed:
		return
	case <-t.C:
	}
	_ = hs.Close()
	<-closed
}

// server is one connection.
type server struct {
	o      Options
	handle Handler
	meter  *meter

	mu      sync.Mutex // guards ended against running.Wait
	ended   bool
	running sync.WaitGroup
}

// http configures the server under this one. The connection has its TLS behind it
// and is metered, so to net/http it is an unencrypted one that knows its TLS state.
func (s *server) http(base context.Context, closed func()) *http.Server {
	protocols := new(http.Protocols)
	protocols.SetUnencryptedHTTP2(true)
	return &http.Server{
		Handler:   s,
		Protocols: protocols,
		HTTP2: &http.HTTP2Config{
			MaxConcurrentStreams:          MaxStreams,
			MaxReadFrameSize:              maxFrame,
			MaxReceiveBufferPerConnection: connectionWindow,
			MaxReceiveBufferPerStream:     streamWindow,
			SendPingTimeout:               s.o.Ping,
			PingTimeout:                   s.o.Ping,
			WriteByteTimeout:              s.o.Stall,
		},
		// net/http adds room for the overhead of ten fields.
		MaxHeaderBytes:    MaxHeaderList - 320,
		ReadHeaderTimeout: prefaceTimeout, // only the preface
		IdleTimeout:       s.o.Idle,
		ErrorLog:          log.New(logger(s.o), "", 0),
		BaseContext:       func(net.Listener) context.Context { return base },
		ConnState: func(_ net.Conn, state http.ConnState) {
			if state == http.StateClosed {
				closed()
			}
		},
	}
}

// ServeHTTP implements http.Handler for one stream.
func (s *server) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	if !s.enter() {
		panic(http.ErrAbortHandler)
	}
	defer s.running.Done()
	s.meter.handled.Add(1)
	s.meter.credit(creditStream)
	path, query, err := s.o.check(r)
	st := newStream(s, w, r, path, query)
	defer st.end()
	if err != nil {
		st.refuse(err)
	} else {
		s.handle(st.ctx, st)
	}
	if !st.answered || st.reset {
		panic(http.ErrAbortHandler) // resets the stream
	}
}

// enter counts a handler, unless it came after the end.
func (s *server) enter() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.ended {
		return false
	}
	s.running.Add(1)
	return true
}

func (s *server) wait() {
	s.mu.Lock()
	s.ended = true
	s.mu.Unlock()
	s.running.Wait()
}

// one is a listener with one connection.
type one struct {
	conn net.Conn
}

func (l *one) Accept() (net.Conn, error) {
	if l.conn == nil {
		return nil, io.EOF
	}
	c := l.conn
	l.conn = nil
	return c, nil
}

func (l *one) Close() error   { return nil }
func (l *one) Addr() net.Addr { return &net.TCPAddr{} }

// lines gives net/http's complaints to a function.
type lines func(string)

func (f lines) Write(p []byte) (int, error) {
	f(string(p))
	return len(p), nil
}

func logger(o Options) io.Writer {
	if o.Log == nil {
		return io.Discard
	}
	return lines(o.Log)
}
