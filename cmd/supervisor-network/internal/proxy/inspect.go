package proxy

import (
	"bufio"
	"context"
	"crypto/tls"
	"errors"
	"math"
	"net"
	"slices"
	"time"

	"github.com/splitpod/splitpod/cmd/supervisor-network/internal/http1"
	"github.com/splitpod/splitpod/cmd/supervisor-network/internal/inspect/hello"
	"github.com/splitpod/splitpod/cmd/supervisor-network/internal/listen"
	"github.com/splitpod/splitpod/cmd/supervisor-network/internal/mint"
	"github.com/splitpod/splitpod/cmd/supervisor-network/internal/record"
	"github.com/splitpod/splitpod/cmd/supervisor-network/internal/relay"
	"github.com/splitpod/splitpod/cmd/supervisor-network/internal/relay/origin"
	"github.com/splitpod/splitpod/cmd/supervisor-network/internal/relay/pool"
	"github.com/splitpod/splitpod/pkg/core"
)

// protocols are what the workload may speak inside TLS, the newest first.
var protocols = []string{"h2", "http/1.1"}

// inspect serves a tunnel whose requests rules judge: it is TLS or HTTP, or it is
// refused in words the client's own protocol has. The destination is reached before
// the tunnel is said to be there, unless a connection to it waits already, so that a
// client reads at once what is wrong with it.
func (p *Path) inspect(ctx context.Context, ev *record.Entry, c *listen.Conn, g *grant, entry *liveEntry) {
	s := p.session(ctx, ev, c, g, entry)
	defer s.end()
	switch s.establish(ctx, c) {
	case hello.TLS:
		s.secure(ctx)
	case hello.HTTP1:
		s.plain(ctx)
	}
}

// establish opens the tunnel and sees what the client speaks: TLS, HTTP/1, or nothing
// that can be served, which is refused.
//
//go:noinline
func (s *session) establish(ctx context.Context, c *listen.Conn) hello.Kind {
	if refused := s.reach(ctx, c.Target().Port == 443); refused != nil {
		s.p.refuse(s.ev, c, refused)
		return hello.Other
	}
	if _, err := c.TCP.Write([]byte(established)); err != nil {
		s.ev.Fail(core.ReasonClientClosed, "the workload went away")
		return hello.Other
	}
	s.watch.Begin(s.p.HeadTimeout)
	switch kind, err := hello.Peek(s.client.R); {
	case kind == hello.TLS, kind == hello.HTTP1:
		return kind
	case kind == hello.Other && beginsRequest(s.client.R):
		return hello.HTTP1
	case s.client.R.Buffered() == 0 && !s.watch.Expired():
		if reason, detail := outcome(ctx, err); reason != "" {
			s.ev.Fail(reason, detail) // without a word
		}
	case !s.grant.permit.Read():
		s.refuse(uninspected(core.StageRequest))
	default:
		s.refuse(&refusal{status: 403, stage: core.StageRequest, reason: core.ReasonUnsupportedProtocol, detail: unsupported(kind)})
	}
	return hello.Other
}

// take serves a tunnel that no rule judges and that turned out to be TLS or HTTP.
func (p *Path) take(ctx context.Context, ev *record.Entry, c *listen.Conn, g *grant, entry *liveEntry, kind hello.Kind, t taken) {
	c.Replay(t.early)
	s := p.session(ctx, ev, c, g, entry)
	defer s.end()
	if kind == hello.HTTP1 {
		s.keep(t.up)
		s.plain(ctx)
		return
	}
	if speaksOtherThanHTTP(s.client.R, g.permit.Host()) {
		s.release()
		p.unread(entry)
		raw := relay.Tunnel{Client: c.TCP, Upstream: t.up, Early: c.Early(), Idle: p.Idle}
		c.Done() // an idle tunnel holds no buffer
		err := raw.Run(ctx)
		sent, received := raw.Moved()
		finish(ctx, ev, sent, received, err)
		return
	}
	s.keep(t.up)
	s.secure(ctx)
}

// speaksOtherThanHTTP reports whether a client names the protocols it speaks, and
// they are others. What cannot be read is left to the handshake to refuse, and so is a
// client that names another host, or hides one: its origin would serve it that host.
func speaksOtherThanHTTP(r *bufio.Reader, host string) bool {
	for n := 1; ; n = r.Buffered() + 1 {
		_, err := r.Peek(n)
		stream, _ := r.Peek(r.Buffered()) // it is buffered
		h, parseErr := hello.Parse(stream)
		switch {
		case errors.Is(parseErr, hello.ErrMore) && err == nil:
			continue
		case parseErr != nil:
			return false
		default:
			return len(h.Protocols) > 0 && h.Names(host) && !h.ECH && !slices.ContainsFunc(h.Protocols, func(a string) bool { return slices.Contains(protocols, a) })
		}
	}
}

// beginsRequest reports whether what r gives begins as a request with some method, for
// rules know more methods than a guess does. It reads as little as decides that.
func beginsRequest(r *bufio.Reader) bool {
	for n := 1; n <= http1.MaxMethodBytes+1; n++ {
		b, err := r.Peek(n)
		switch {
		case err != nil:
			return false
		case b[n-1] == ' ':
			return n > 1
		case b[n-1] != '-' && (b[n-1]|0x20 < 'a' || b[n-1]|0x20 > 'z'):
			return false
		}
	}
	return true // to be refused for its length
}

func unsupported(kind hello.Kind) string {
	if kind == hello.HTTP2 {
		return "HTTP/2 without TLS is not supported on an inspected endpoint; use TLS, or HTTP/1.1"
	}
	return "the endpoint's requests are inspected, and this is neither TLS nor HTTP/1.1; tls: skip carries other protocols"
}

// replayed is a connection whose first bytes were read already.
type replayed struct {
	*net.TCPConn
	from *listen.Conn // nil: all of them were read again
}

// Read gives the read buffer back as soon as it is empty: then it belongs to others.
func (c *replayed) Read(p []byte) (int, error) {
	if c.from == nil {
		return c.TCPConn.Read(p)
	}
	n, err := 0, error(nil)
	if r := c.from.Reader(); r.Buffered() > 0 {
		n, err = r.Read(p)
	}
	if c.from.Reader().Buffered() == 0 {
		c.from.Done()
		c.from = nil
	}
	if n == 0 && err == nil {
		return c.Read(p)
	}
	return n, err
}

// plain serves requests without TLS.
func (s *session) plain(ctx context.Context) {
	s.prepare(ctx, false)
	s.run(ctx)
}

// secure ends the client's TLS in the name of the tunnel's host and serves what is
// inside.
func (s *session) secure(ctx context.Context) {
	tc, protocol := s.handshake(ctx)
	switch {
	case tc == nil:
	case protocol == "h2":
		defer s.p.Windows.Leave()
		s.serveHTTP2(ctx, tc)
	case protocol == "http/1.1" || s.grant.permit.Read():
		s.run(ctx)
	case s.p.Vault.Guarded(s.grant.permit):
		s.demand(ctx)
	default:
		s.guess(ctx)
	}
}

// handshake ends the client's TLS, and returns the protocol that was agreed on; empty:
// the client named none. tc is nil when it failed, which is on record then. It is bounded
// by the session's watch, and by cut.
//
//go:noinline
func (s *session) handshake(ctx context.Context) (tc *tls.Conn, protocol string) {
	s.defaultPort = 443
	s.prepare(ctx, true)
	offered, entered := protocols, s.p.Windows.Enter()
	if !entered {
		offered = protocols[1:]
	}
	began := time.Now()
	tc, err := s.p.Mint.Handshake(ctx, &replayed{s.conn.TCP, s.conn}, s.grant.permit.Host(), offered)
	s.p.Meter.WorkloadHandshake(time.Since(began), err)
	if err == nil {
		protocol = tc.ConnectionState().NegotiatedProtocol
	}
	if entered && protocol != "h2" {
		s.p.Windows.Leave()
	}
	if err != nil {
		s.refuseTLS(ctx, err, entered)
		return nil, ""
	}
	s.within(tc)
	return tc, protocol
}

// refuseTLS records a handshake that failed; newer says that HTTP/2 was offered. There is
// no way to say more than the alert that was sent.
func (s *session) refuseTLS(ctx context.Context, err error, newer bool) {
	e, ok := errors.AsType[*mint.Error](err)
	if !ok {
		e = &mint.Error{Kind: mint.Internal, Detail: "the handshake failed"}
	}
	if e.Kind == mint.ALPN && !newer {
		s.ev.Deny(core.StageTLS, core.ReasonTooManyConnections, "there is no memory for one more connection of HTTP/2, and its client does not offer HTTP/1.1")
		return
	}
	switch e.Kind {
	case mint.Stopped:
		s.nothing(ctx)
	case mint.Untrusted, mint.Closed, mint.Timeout:
		s.ev.Fail(e.Reason(), e.Detail)
	default:
		s.ev.Deny(core.StageTLS, e.Reason(), e.Detail)
	}
}

// guess serves TLS whose client said nothing of its protocol, on an endpoint without
// rules: HTTP if it speaks first and that is HTTP, else bytes both ways.
func (s *session) guess(ctx context.Context) {
	up, err := s.get(ctx, true)
	if e, ok := errors.AsType[*origin.Error](err); ok && e.Kind == origin.NoProtocol {
		s.destination.HTTP2.Store(true)
		s.run(ctx) // what speaks HTTP/2 speaks nothing but HTTP
		return
	}
	if err != nil {
		s.nowhere(ctx, s.unreachable(ctx, err))
		return
	}
	pipe := &relay.Pipe{Client: s.stream, ClientReader: s.client.R, Upstream: up.Stream(), Idle: s.p.Idle,
		First: func(prefix []byte) (take, more bool) {
			kind, more := hello.Classify(prefix)
			return kind == hello.HTTP1, more
		}}
	s.watch.Begin(math.MaxInt64) // the pipe has its own
	s.p.unread(s.entry)
	err = pipe.Run(ctx)
	s.entry.uninspected.Store(false)
	if errors.Is(err, relay.ErrTaken) {
		s.spare.put(up)
		s.run(ctx)
		return
	}
	sent, received := pipe.Moved()
	finish(ctx, s.ev, sent, received, err)
}

// firstWord is how long a client is given to show its protocol when all there is to say
// is that its origin cannot be reached.
const firstWord = 2 * time.Second

// nowhere ends TLS that leads nowhere, whose client said nothing of its protocol. An
// answer that nobody asked for is an error to clients of HTTP and noise to any other:
// only a request gets one, of its own.
func (s *session) nowhere(ctx context.Context, r *refusal) {
	s.watch.Begin(min(s.p.HeadTimeout, firstWord))
	kind, _ := hello.Peek(s.client.R)
	if kind == hello.HTTP1 || kind == hello.Other && beginsRequest(s.client.R) {
		s.run(ctx)
		return
	}
	note(s.ev, r)
}

// spare is a connection to the origin that was opened before a request needed it; a
// TLS handshake on it may still run.
type spare struct {
	tcp     *net.TCPConn  // nothing was done with it yet
	pending chan struct{} // closed when conn or err is set; nil: nothing is pending
	conn    *pool.Conn
	err     error
}

// wrap begins to make a connection for requests of the plain one.
func (p *spare) wrap(ctx context.Context, d *pool.Destination) {
	tcp, pending := p.tcp, make(chan struct{})
	p.tcp, p.pending = nil, pending
	go func() {
		defer close(pending)
		p.conn, p.err = d.Wrap(ctx, tcp)
	}()
}

// put gives a connection back that was taken and not used.
func (p *spare) put(c *pool.Conn) {
	p.pending, p.conn, p.err = make(chan struct{}), c, nil
	close(p.pending)
}

// take waits for the connection; both results are nil when there is none.
func (p *spare) take(ctx context.Context) (*pool.Conn, error) {
	if p.pending == nil {
		return nil, nil
	}
	select {
	case <-p.pending:
	case <-ctx.Done():
		return nil, ctx.Err()
	}
	p.pending = nil
	return p.conn, p.err
}

// drop gives up what nobody took.
func (p *spare) drop() {
	if p.tcp != nil {
		p.tcp.Close()
	}
	if p.pending == nil {
		return
	}
	go func(pending chan struct{}) {
		<-pending
		if p.conn != nil {
			p.conn.Close()
		}
	}(p.pending)
}
