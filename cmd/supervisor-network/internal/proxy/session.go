package proxy

import (
	"bufio"
	"context"
	"crypto/tls"
	"errors"
	"io"
	"net"
	"os"
	"sync"
	"sync/atomic"
	"time"

	"github.com/splitpod/splitpod/cmd/supervisor-network/internal/http1"
	"github.com/splitpod/splitpod/cmd/supervisor-network/internal/listen"
	"github.com/splitpod/splitpod/cmd/supervisor-network/internal/record"
	"github.com/splitpod/splitpod/cmd/supervisor-network/internal/relay"
	"github.com/splitpod/splitpod/cmd/supervisor-network/internal/relay/exchange"
	"github.com/splitpod/splitpod/cmd/supervisor-network/internal/relay/pool"
	"github.com/splitpod/splitpod/pkg/core"
)

// session carries the HTTP/1.1 requests of one connection, one after the other: those
// inside a tunnel, or those in absolute form. It belongs to one goroutine, but for
// cut and drain.
type session struct {
	p      *Path
	conn   *listen.Conn
	stream net.Conn // the connection, or TLS inside it
	client exchange.Client
	watch  *relay.Watch

	grant  *grant     // of the tunnel, or of the present request
	entry  *liveEntry // the same
	tunnel bool
	// defaultPort is the scheme's, which authorities may leave out.
	defaultPort uint16
	destination *pool.Destination
	spare       spare

	scratch *scratch      // nil: there was no request yet
	ev      *record.Entry // of the present request
	first   bool          // ev is still the tunnel's
	further record.Entry  // of every request but the first
	who     *core.Identity

	origin  atomic.Pointer[pool.Conn]               // busy with an exchange
	newer   atomic.Pointer[context.CancelCauseFunc] // ends one with an origin of HTTP/2
	present atomic.Pointer[turn]                    // the present request; nil: none is under way
	secured atomic.Bool                             // stream is TLS
	waiting atomic.Bool                             // for a further request to begin: whoever takes it away decides
	drained chan struct{}                           // closed when a drain has taken waiting, and ended the wait
	once    sync.Once                               // closes drained
	ended   atomic.Bool                             // no further request
	lying   lying                                   // of answers; look's alone
	revoked atomic.Bool                             // not even a first one
	left    bool                                    // its client ended the wait for a request
	sockets context.Context                         // of the WebSockets on its streams; only in HTTP/2
	last    func() bool                             // ended, for exchanges
	undo    []func() bool
	uncut   func() bool // undoes what would cut it
}

// tunnelReaderBytes is the buffer of a TLS stream that carries requests; heads may be
// longer. That of its responses takes a head and what came with it of the body, so that
// they are one record; it is held during an exchange only.
const (
	tunnelReaderBytes = 4096
	tunnelWriterBytes = 8192
)

var (
	streamReaders = sync.Pool{New: func() any { return bufio.NewReaderSize(nil, tunnelReaderBytes) }}
	streamWriters = sync.Pool{New: func() any { return bufio.NewWriterSize(nil, tunnelWriterBytes) }}
)

// session begins on the plain connection. For a tunnel, ctx is the permitted
// connection's.
//
//go:noinline
func (p *Path) session(ctx context.Context, ev *record.Entry, c *listen.Conn, g *grant, entry *liveEntry) *session {
	s := &session{p: p, drained: make(chan struct{}), conn: c, stream: c.TCP, grant: g, entry: entry, tunnel: g != nil, defaultPort: 80, ev: ev, first: g != nil}
	s.last = s.ended.Load
	s.client = exchange.Client{R: c.Reader(), Interrupt: s.interrupt, Resume: s.resume}
	s.watch = relay.NewWatch(min(p.HeadTimeout/4, p.Idle/4, lookAtClient), s.late)
	s.watch.Each(s.look)
	s.watch.Begin(p.HeadTimeout)
	s.undo = append(s.undo, context.AfterFunc(p.Stopping, s.drain))
	s.undo = append(s.undo, context.AfterFunc(ctx, s.cut))
	return s
}

// within goes on inside TLS.
func (s *session) within(tc *tls.Conn) {
	s.stream = tc
	s.secured.Store(true)
	r := streamReaders.Get().(*bufio.Reader)
	r.Reset(tc)
	s.client.R = r
}

// release leaves the connection to what comes behind its last request.
func (s *session) release() {
	for _, undo := range s.undo {
		undo()
	}
	s.undo = nil
	if t := s.present.Load(); t != nil {
		t.leave()
	}
	s.watch.Stop()
}

// end gives everything back. The connection itself is closed by listen.
func (s *session) end() {
	s.release()
	s.spare.drop()
	if s.destination != nil {
		s.destination.Close()
	}
	if tc, ok := s.stream.(*tls.Conn); ok {
		if !s.left || relay.EndOf(s.conn.TCP) == relay.Open {
			_ = tc.Close() // says farewell first
		} // else nobody listens, or has all that was asked for
		s.client.R.Reset(nil)
		streamReaders.Put(s.client.R)
	}
}

var past = time.Unix(1, 0)

// Deadlines are those of the connection, also when TLS is inside it by now: other
// goroutines set them, and stream belongs to this session's.
func (s *session) interrupt() { _ = s.conn.TCP.SetReadDeadline(past) }
func (s *session) resume()    { _ = s.conn.TCP.SetReadDeadline(time.Time{}) }

// late ends a phase that was quiet for too long: reads fail, and a short answer still
// fits.
func (s *session) late() {
	s.interrupt()
	_ = s.conn.TCP.SetWriteDeadline(time.Now().Add(time.Second))
	if o := s.origin.Swap(nil); o != nil { // whose exchange knows by that
		_ = o.SetDeadline(past)
	}
	if end := s.newer.Swap(nil); end != nil {
		(*end)(errSilent)
	}
}

// cut ends what the policy, or the end of the daemon, no longer lets go on.
func (s *session) cut() {
	s.revoked.Store(true)
	s.ended.Store(true)
	s.late()
}

// underWay makes the present request one that ends when ctx does, and in a tunnel when
// a new policy forbids it alone.
func (s *session) underWay(ctx context.Context, in *incoming) context.Context {
	t := &turn{Context: ctx, session: s}
	in.turn = t
	s.present.Store(t)
	s.watch.Wake()
	if !s.tunnel { // otherwise the tunnel's end is seen by the session
		s.uncut = context.AfterFunc(ctx, func() { t.cut(context.Cause(ctx)) })
	}
	if s.grant.permit.Inspected() {
		s.entry.carries(in)
	}
	return t
}

// leave ends the present request and says whether the connection goes on: a request
// that was complete before a cut has not hurt it.
func (s *session) leave(goesOn bool) bool {
	s.entry.carries(nil)
	if s.uncut != nil {
		s.uncut()
		s.uncut = nil
	}
	if hurt := s.present.Swap(nil).end(); hurt && goesOn {
		_ = s.stream.SetDeadline(time.Time{})
	}
	return goesOn && !s.revoked.Load()
}

// lookAtClient is how often a client is looked at while its request is under way. It is
// not read from, so that its end does not show by itself while its origin is silent.
const lookAtClient = 2 * time.Second

// errClientGone ends a request that nobody waits for.
var errClientGone = errors.New("the client went away before the answer was complete")

// look gives the present request up when its client is gone, or does not read. One that
// has finished its side of a plain connection may still read, which shows only when there
// is something to send: its origin is waited for as a half-closed tunnel is. In TLS
// nobody closes half a connection. It reports whether there is a request to look after.
func (s *session) look() bool {
	t := s.present.Load()
	if t == nil {
		return false
	}
	switch relay.EndOf(s.conn.TCP) {
	case relay.Gone:
		t.cut(errClientGone)
	case relay.Finished:
		if s.secured.Load() || s.watch.Quiet() >= min(s.p.Idle, relay.HalfClosedIdle) {
			t.cut(errClientGone)
		}
	case relay.Open:
		limit := s.p.unreadFor()
		if s.lying.at(time.Now(), s.conn.TCP) >= limit && s.watch.Quiet() >= limit {
			t.cut(errUnread)
		}
	}
	return true
}

// drain lets the present request finish and takes no further one.
func (s *session) drain() {
	s.ended.Store(true)
	if s.waiting.CompareAndSwap(true, false) {
		s.interrupt()
		s.once.Do(func() { close(s.drained) })
	}
}

// onItsWay is how long a drain waits for a request that its client may have sent before
// it could know.
const onItsWay = 20 * time.Millisecond

// awaitRequest waits for the first byte of a request. One that comes in the moment of a
// drain is the last, and is served.
func (s *session) awaitRequest() error {
	if s.ended.Load() && !s.first { // the last response did not say so yet
		s.drain()
	}
	_, err := s.client.R.Peek(1)
	if s.first || s.waiting.CompareAndSwap(true, false) {
		return err
	}
	<-s.drained
	for missed := err != nil; missed; missed = errors.Is(err, os.ErrDeadlineExceeded) && relay.Readable(s.conn.TCP) {
		_ = s.conn.TCP.SetReadDeadline(time.Now().Add(onItsWay)) // which a busy machine may let pass before it reads
		_, err = s.client.R.Peek(1)
	}
	if s.resume(); s.revoked.Load() || s.watch.Expired() {
		s.interrupt() // as it was
	}
	return err
}

// run serves one request after the other.
func (s *session) run(ctx context.Context) {
	for {
		req, refused := s.read(ctx)
		switch {
		case refused != nil:
			s.begin()
			s.refuse(refused)
			return
		case req == nil:
			if s.first {
				s.nothing(ctx)
			}
			return
		}
		if !s.serve(ctx, req) {
			return
		}
	}
}

// nothing records a connection that ended without a request.
func (s *session) nothing(ctx context.Context) {
	if reason, detail := outcome(ctx, context.Cause(ctx)); reason != "" {
		s.ev.Fail(reason, detail)
	} else if s.watch.Expired() {
		s.ev.Fail(core.ReasonIdle, "no request came")
	}
}

// read waits for a request head; neither result is set when the connection ended
// between two requests.
func (s *session) read(ctx context.Context) (*http1.Request, *refusal) {
	if s.scratch != nil {
		s.scratch.forget()
	}
	s.waiting.Store(!s.first) // a tunnel without a request yet may still have one
	if s.revoked.Load() || s.watch.Expired() {
		return nil, nil // a watch that expired does not look again
	}
	if !s.first {
		s.watch.Begin(s.p.Idle)
	}
	if err := s.awaitRequest(); err != nil {
		s.left = errors.Is(err, io.EOF)
		return nil, nil
	}
	if !s.first {
		s.ev = &s.further
		s.p.Record.BeginIn(s.ev, core.NewRequestID(), time.Now())
		s.ev.Event.Source = s.conn.Tuple.Client
	}
	s.watch.Begin(s.p.HeadTimeout)
	limit := http1.MaxTunnelHead
	if !s.tunnel {
		limit = http1.MaxRequestHead
	}
	head, err := http1.ReadHead(s.client.R, limit)
	if err != nil {
		return nil, s.unread(ctx, err)
	}
	req := &s.memory().request
	if err := req.Parse(head); err != nil {
		return nil, s.unread(ctx, err)
	}
	return req, nil
}

// memory is the session's scratch.
func (s *session) memory() *scratch {
	if s.scratch == nil {
		s.scratch = &scratch{}
	}
	return s.scratch
}

// unread is a request that cannot be read.
func (s *session) unread(ctx context.Context, err error) *refusal {
	if e, ok := errors.AsType[*http1.SyntaxError](err); ok {
		return malformed(core.StageRequest, e)
	}
	if errors.Is(err, os.ErrDeadlineExceeded) && s.revoked.Load() {
		return s.interrupted(ctx, err) // not for its being late
	}
	if errors.Is(err, os.ErrDeadlineExceeded) {
		return &refusal{status: 408, stage: core.StageRequest, reason: core.ReasonRequestTimeout, detail: "the request did not arrive in time"}
	}
	return &refusal{status: 400, stage: core.StageRequest, reason: core.ReasonClientClosed, detail: "the connection ended before the request did", failed: true}
}

// refuse records and answers; the connection ends with it. It is not inlined, because
// what it makes would lie on the stack of every connection that waits for a request.
//
//go:noinline
func (s *session) refuse(r *refusal) { s.answer(r, &incoming{}) }

// answer refuses a request that was read.
func (s *session) answer(r *refusal, in *incoming) {
	in.body.Held.Release()
	s.describe(in)
	note(s.ev, r)
	s.ev.End()
	s.ended.Store(true)
	_ = s.stream.SetDeadline(answerDeadline())
	if http1.Answer(s.stream, in.method, r.status, s.ev.Event.RequestID, r.body(s.asked(in)), r.fieldsOfHTTP1()...) != nil {
		return
	}
	if w, ok := s.stream.(interface{ CloseWrite() error }); !ok || w.CloseWrite() != nil {
		return
	}
	http1.Linger(s.conn.TCP)
}

// answerDeadline bounds the writing of a refusal.
func answerDeadline() time.Time { return time.Now().Add(5 * time.Second) }

func (s *session) asked(in *incoming) *asked {
	a := &asked{id: s.ev.Event.RequestID, method: in.method, path: in.path, protocol: string(in.endpoint.Protocol), advise: s.p.Advise}
	if s.grant != nil {
		a.host, a.port = s.grant.question.Host, s.grant.question.Port
		a.binary = s.grant.question.Who.Program.Path
	}
	return a
}

// describe notes what was asked for.
func (s *session) describe(in *incoming) {
	in.describe(s.ev)
}
