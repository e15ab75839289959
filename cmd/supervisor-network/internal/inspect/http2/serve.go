package http2

import (
	"context"
	"crypto/tls"
	"errors"
	"io"
	"log"
	"net/http"
	"sync"
	"time"

	"golang.org/x/net/http2"

	_ "github.com/splitpod/splitpod/cmd/supervisor-network/internal/inspect/http2/xconnect" // extended CONNECT is offered
)

//lint:file-ignore SA1019 net/http, which the deprecations lead to, takes no TLS connection with a meter on it

// Handler answers one stream. It is called on a goroutine of its own, at most
// MaxStreams of them at a time, and has to call Deny, Respond or Accept once: a stream
// that nobody answered is reset. Its context ends with the stream.
type Handler func(ctx context.Context, s *Stream)

// Stats are what a connection carried.
type Stats struct {
	Streams int64 // the client began
	Handled int64 // came to the handler or were refused with an answer
	Refused int64 // by the library, for their number or priority, without a word to anybody else; the rest ended before anybody saw them
	Flooded bool  // its frames were a flood
	Broken  bool  // it ended because its client broke the protocol
	Crowded bool  // it ended because there was no room for a section of fields
}

// ErrClosed is the cause with which the streams of a connection end that has.
var ErrClosed = errors.New("http2: the client's connection has ended")

// Serve serves a connection on which h2 was negotiated until it ends, and closes it.
// When Options.Stopping is closed the client is asked to start no stream, and those that
// run may end. When ctx ends their contexts end with its cause, and what has no answer
// yet may still be denied. It returns when every handler has.
func Serve(ctx context.Context, conn *tls.Conn, o Options, handle Handler) Stats {
	o.defaults()
	base, cancel := context.WithCancelCause(context.WithoutCancel(ctx))
	window, give := o.Windows.widen()
	defer give()
	s := &server{o: o, base: base, handle: handle, window: window, meter: newMeter(conn, time.Now()), asked: make(chan struct{})}
	hs := s.config()
	h2 := &http2.Server{}
	if err := http2.ConfigureServer(hs, h2); err != nil {
		panic("BUG: " + err.Error())
	}
	ended := make(chan struct{})
	drained := make(chan struct{})
	go func() {
		defer close(drained)
		s.drain(ctx, hs, ended, func() { cancel(context.Cause(ctx)) })
	}()
	h2.ServeConn(newHeads(s.meter, o.Windows, o.Head), &http2.ServeConnOpts{Context: base, BaseConfig: hs, Handler: s})
	close(ended)
	cancel(ErrClosed)
	<-drained
	s.wait()
	return Stats{Streams: s.meter.opened.Load(), Handled: s.meter.handled.Load(), Refused: s.meter.refused.Load(), Flooded: s.meter.flooded.Load(), Broken: s.meter.broken.Load(), Crowded: s.meter.crowded.Load()}
}

// drain sends GOAWAY when there shall be no further stream, ends those that run with ctx,
// and gives what they say to that a moment: a client that does not read delays nothing. A
// client that has not asked for anything is about to: some (curl) take GOAWAY for the
// failure of what they have not sent yet, and do not try again.
func (s *server) drain(ctx context.Context, hs *http.Server, ended <-chan struct{}, end func()) {
	select {
	case <-s.o.Stopping:
	case <-ctx.Done():
	case <-ended:
		return
	}
	first, cancel := context.WithTimeout(ctx, firstStream)
	defer cancel()
	select {
	case <-s.asked:
	case <-first.Done():
	case <-ended:
		return
	}
	cancel()
	_ = hs.Shutdown(first) // only sends GOAWAY, to an ended context
	select {
	case <-ctx.Done():
	case <-ended:
		return
	}
	end()
	last := time.NewTimer(lastAnswers)
	defer last.Stop()
	select {
	case <-ended:
	case <-last.C:
		_ = s.meter.NetConn().Close() // without the alert, which a client may not take
	}
}

// server is one connection.
type server struct {
	o      Options
	base   context.Context // of the streams; ends with the drain, or the connection
	handle Handler
	meter  *meter
	window int
	asked  chan struct{} // closed with the first stream that is handled

	mu      sync.Mutex // guards ended against running.Wait
	ended   bool
	running sync.WaitGroup
}

// config is what the server under this one is told.
func (s *server) config() *http.Server {
	return &http.Server{
		HTTP2: &http.HTTP2Config{
			MaxConcurrentStreams:          MaxStreams,
			MaxReadFrameSize:              maxFrame,
			MaxReceiveBufferPerConnection: s.window,
			MaxReceiveBufferPerStream:     streamWindow,
			SendPingTimeout:               s.o.Ping,
			PingTimeout:                   max(s.o.Ping, s.o.Stall), // who reads nothing for a while answers nothing
			WriteByteTimeout:              s.o.Stall,
			CountError:                    s.meter.fault,
		},
		MaxHeaderBytes: maxSection, // or clients would not send what is refused here
		IdleTimeout:    s.o.Idle,
		ErrorLog:       log.New(logger(s.o), "", 0),
	}
}

// ServeHTTP implements http.Handler for one stream.
func (s *server) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	if !s.enter() {
		panic(http.ErrAbortHandler)
	}
	defer s.running.Done()
	if s.meter.handled.Add(1) == 1 {
		close(s.asked)
	}
	path, query, err := s.o.check(r)
	st := newStream(s, w, r, path, query)
	defer st.end()
	if err != nil {
		st.refuse(err)
	} else {
		s.meter.credit(creditStream)
		s.handle(st.ctx, st)
	}
	if !st.answered || st.reset {
		panic(http.ErrAbortHandler) // resets the stream
	}
	st.drain()
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

// lines gives the library's complaints to a function.
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
