package proxy

import (
	"bufio"
	"context"
	"errors"
	"io"
	"net"
	"os"

	"github.com/splitpod/splitpod/cmd/supervisor-network/internal/decide"
	"github.com/splitpod/splitpod/cmd/supervisor-network/internal/http1"
	"github.com/splitpod/splitpod/cmd/supervisor-network/internal/inject/placeholder"
	"github.com/splitpod/splitpod/cmd/supervisor-network/internal/inspect"
	"github.com/splitpod/splitpod/cmd/supervisor-network/internal/inspect/hold"
	"github.com/splitpod/splitpod/cmd/supervisor-network/internal/inspect/websocket"
	"github.com/splitpod/splitpod/cmd/supervisor-network/internal/listen"
	"github.com/splitpod/splitpod/cmd/supervisor-network/internal/policylocal"
	"github.com/splitpod/splitpod/cmd/supervisor-network/internal/record"
	"github.com/splitpod/splitpod/cmd/supervisor-network/internal/relay/exchange"
	"github.com/splitpod/splitpod/cmd/supervisor-network/internal/relay/origin"
	"github.com/splitpod/splitpod/cmd/supervisor-network/internal/relay/pool"
	"github.com/splitpod/splitpod/pkg/core"
)

// via is how this proxy names itself to origins, on requests that name a proxy.
const via = "1.1 splitpod"

// forward serves a connection of absolute-form requests. Each of them is a connection
// of its own to the policy.
func (p *Path) forward(ctx context.Context, ev *record.Entry, c *listen.Conn, who *core.Identity) {
	s := p.session(ctx, ev, c, nil, nil)
	s.who = who
	defer s.end()
	if s.serveAbsolute(ctx, c.Request) {
		s.run(ctx)
	}
}

// serve carries one request and says whether another one may follow.
func (s *session) serve(ctx context.Context, req *http1.Request) bool {
	s.first, s.ev = false, s.begin()
	defer s.ev.End()
	if !s.tunnel {
		return s.serveAbsolute(ctx, req)
	}
	in := s.incoming(req)
	defer in.body.Held.Release()
	if denial := s.p.renew(ctx, s.grant); denial != nil {
		s.answer(denied(core.StageRequest, denial), in)
		return false
	}
	permit := s.grant.permit
	var t http1.Target
	var err error
	if s.p.pathsCount(permit) {
		t, err = req.Origin(permit.Host(), permit.Port(), s.defaultPort, permit.EncodedSlash())
	} else {
		t, err = req.OriginVerbatim(permit.Host(), permit.Port(), s.defaultPort)
	}
	if err != nil {
		s.answer(s.unread(ctx, err), in)
		return false
	}
	s.ev.Allow(core.StageRequest, s.grant.permit.Rule(), s.grant.permit.Generation())
	return s.request(ctx, req, t, in)
}

// pathsCount reports whether something is decided by the path of a request: then it
// has one spelling, and otherwise it is nobody's business but the origin's.
func (p *Path) pathsCount(permit decide.Permit) bool {
	return permit.Read() || p.Vault.Current().Credentialed(permit.Host(), permit.Port())
}

// serveAbsolute is serve for a request in absolute form.
func (s *session) serveAbsolute(ctx context.Context, req *http1.Request) bool {
	in := s.incoming(req)
	defer in.body.Held.Release()
	t, err := req.Absolute()
	if err != nil {
		s.answer(s.unread(ctx, err), in)
		return false
	}
	s.ev.Event.Host, s.ev.Event.Port = t.Host, t.Port
	if t.Host == policylocal.Host && t.Port == policylocal.Port {
		s.answerLocal(ctx, req, t, in)
		return false
	}
	g, denial := s.p.ask(ctx, decide.Question{Who: s.who, Host: t.Host, Port: t.Port})
	s.grant = &g
	in.path, _ = redacted(t.Path, "")
	if denial != nil {
		s.answer(denied(core.StageForward, denial), in)
		return false
	}
	if g.permit.Inference() {
		s.answer(inTheClear(), in)
		return false
	}
	if s.p.pathsCount(g.permit) {
		t.Path, err = http1.CanonicalPath(t.Path, g.permit.EncodedSlash())
	}
	if err != nil {
		s.answer(s.unread(ctx, err), in)
		return false
	}
	ctx, entry, denial := s.p.enter(ctx, s.ev, core.StageForward, &g)
	if denial != nil {
		s.answer(denied(core.StageForward, denial), in)
		return false
	}
	defer entry.leave()
	s.entry = entry
	if s.destination != nil && !s.destination.Serves(g.permit) {
		s.destination.Close()
		s.destination = nil
	}
	if s.destination == nil {
		s.destination = s.p.Pool.Destination(g.permit, false)
	}
	return s.request(ctx, req, t, in)
}

// begin is the record of the present request.
func (s *session) begin() *record.Entry {
	if s.tunnel {
		s.ev.Event.Host, s.ev.Event.Port = s.grant.permit.Host(), s.grant.permit.Port()
		s.ev.Who(*s.grant.question.Who)
	} else {
		s.ev.Who(*s.who)
	}
	return s.ev
}

func (s *session) incoming(req *http1.Request) *incoming {
	in := &s.memory().in
	in.method, in.body.Held, in.head = placeholder.Redact(req.Method), hold.Holding{Of: s.p.Bodies}, headOf(req)
	return in
}

func headOf(req *http1.Request) inspect.Head {
	return inspect.Head{Method: req.Method, Fields: req.Fields, Body: req.Framing.Kind != http1.NoBody}
}

// request judges a request whose destination is granted, and carries it.
func (s *session) request(ctx context.Context, req *http1.Request, t http1.Target, in *incoming) bool {
	in.path, in.head.Query = redacted(t.Path, t.Query)
	var malformed error
	if websocket.Wanted(req.Fields) {
		in.handshake, malformed = websocket.Read(req)
	}
	if len(req.Trailer) > 0 {
		in.content = req.Content(s.client.R)
	}
	body := func(limit int) ([]byte, error) { return s.body(ctx, req, in, limit) }
	refused := s.p.judge(s.grant, in, body)
	if refused == nil && malformed != nil {
		refused = s.unread(ctx, malformed)
	}
	if refused != nil {
		s.answer(refused, in)
		return false
	}
	ctx = s.underWay(ctx, in)
	if s.grant.permit.Inspected() && s.p.Policy.Current() != s.grant.snap && !s.entry.allows(ctx, s.p.Policy.Current(), in) {
		s.answer(s.interrupted(ctx, errRevoked), in) // changed before it could be known of
		return s.leave(false)
	}
	s.describe(in)
	if s.grant.permit.Inference() {
		return s.leave(s.infer(ctx, req, t, in, body))
	}
	sent, refused := s.seal(ctx, req, &t, in, body)
	if refused != nil {
		s.answer(refused, in)
		return s.leave(false)
	}
	if in.handshake != nil {
		return s.leave(s.upgrade(ctx, sent, t, in))
	}
	return s.leave(s.carry(ctx, sent, t, in))
}

// continues tells a client to send the body it has announced.
const continues = "HTTP/1.1 100 Continue\r\n\r\n"

// body reads a request's whole body; a client that waits for leave to send it gets it.
func (s *session) body(ctx context.Context, req *http1.Request, in *incoming, limit int) ([]byte, error) {
	length := req.Framing.Length
	if req.Framing.Kind == http1.Chunked {
		length = -1
	}
	if length > int64(limit) {
		return nil, inspect.TooLarge(limit)
	}
	if req.Fields.Has("Expect", "100-continue") && s.client.R.Buffered() == 0 && req.Minor == 1 {
		if _, err := io.WriteString(s.stream, continues); err != nil {
			return nil, err
		}
	}
	if in.body.Unhurried {
		s.watch.Begin(s.p.Idle)
		defer s.watch.Begin(s.p.HeadTimeout)
	}
	content, err := in.body.Held.Read(s.content(req, in), length, limit)
	switch {
	case errors.Is(err, http1.ErrBody):
		return nil, &http1.SyntaxError{Status: 400, Reason: core.ReasonBadRequest, Detail: err.Error()}
	case errors.Is(err, os.ErrDeadlineExceeded) && (s.revoked.Load() || ctx.Err() != nil):
		return nil, s.interrupted(ctx, err) // the connection's end, or the request's alone
	case errors.Is(err, os.ErrDeadlineExceeded):
		return nil, &http1.SyntaxError{Status: 408, Reason: core.ReasonRequestTimeout, Detail: "the request body did not arrive in time"}
	default:
		return content, err
	}
}

// content is the body of a request that is read here.
func (s *session) content(req *http1.Request, in *incoming) *http1.BodyReader {
	if in.content != nil {
		return in.content
	}
	return http1.NewBodyReader(s.client.R, req.Framing)
}

// carry makes the exchange with the origin.
func (s *session) carry(ctx context.Context, req *http1.Request, t http1.Target, in *incoming) bool {
	s.watch.Begin(s.p.Idle)
	res, refused := s.exchange(ctx, req, t, in)
	return s.finish(res, refused, in)
}

// finish records how an exchange went and answers what failed before the client got
// an answer. It says whether another request may follow.
func (s *session) finish(res exchange.Result, refused *refusal, in *incoming) bool {
	if caught := uninjected(in.sealed.Caught()); caught != nil {
		refused = s.inPlace(caught)
	}
	s.ev.Event.BytesUp, s.ev.Event.BytesDn = uint64(res.Up), uint64(res.Down)
	s.ev.Event.Status = res.Status
	s.ev.Echoed(in.sealed.Echoed())
	noteAudit(s.ev, in)
	switch {
	case refused == nil:
		return res.ClientGoesOn
	case res.Answered:
		note(s.ev, refused)
		if res.Unframed || refused.reason == core.ReasonIdle { // or what nobody reads stays in the kernel
			_ = s.conn.TCP.SetLinger(0)
		}
		s.conn.TCP.Close() // before TLS could say farewell
		return false
	default:
		_ = s.stream.SetDeadline(answerDeadline())
		s.answer(refused, in)
		return false
	}
}

// exchange sends the request to the origin and passes the response on. A kept
// connection that its origin had just closed is replaced, if the request can be
// repeated, and so is the new one: a server that stops takes connections a little longer
// than it serves them.
func (s *session) exchange(ctx context.Context, req *http1.Request, t http1.Target, in *incoming) (exchange.Result, *refusal) {
	w := streamWriters.Get().(*bufio.Writer)
	w.Reset(s.stream)
	s.client.W = w
	defer func() {
		w.Reset(nil)
		streamWriters.Put(w)
	}()
	x := exchange.Exchange{Client: &s.client, Request: req, Target: t, DefaultPort: s.defaultPort,
		Content: in.body.Content, Read: in.body.Read, From: in.content, Upgrades: in.handshake != nil, Omit: in.omit, Add: in.add, Watch: s.watch, Last: s.last,
		Body: in.sealed.Between(), Clean: cleaner(in.sealed)}
	if in.body.Read {
		x.Omit = append(x.Omit, "expect")
	}
	if !s.tunnel {
		x.Via = via
	}
	if in.handshake == nil && s.destination.HTTP2.Load() {
		return s.overHTTP2(ctx, req, t, in)
	}
	o, err := s.get(ctx, !repeatable(req.Method))
	if e, ok := errors.AsType[*origin.Error](err); ok && e.Kind == origin.NoProtocol {
		s.destination.HTTP2.Store(true)
		return s.overHTTP2(ctx, req, t, in)
	}
	var sent attempts
	for attempt := 1; ; attempt++ {
		if err != nil {
			return exchange.Result{}, s.unreachable(ctx, err)
		}
		s.ev.Event.Address = o.Address
		s.origin.Store(o)
		if ctx.Err() != nil { // cut came before it could know of this connection
			o.Close()
			return exchange.Result{}, s.interrupted(ctx, ctx.Err())
		}
		if s.watch.Expired() { // so did late, which does not come again
			o.Close()
			return exchange.Result{}, &refusal{status: 504, stage: core.StageRequest, reason: core.ReasonUpstreamTimeout, detail: "the origin could not be reached in time", failed: true}
		}
		if changed := s.renewExchange(ctx, &x, in); changed != nil {
			o.Close()
			return exchange.Result{}, changed
		}
		o.Personal = o.Personal || personal(x.Request.Fields)
		x.Origin = o
		sent.attempt(attempt)
		res, err := exchange.Do(&x)
		if !s.origin.CompareAndSwap(o, nil) && err == nil && res.Switched == nil {
			res.OriginGoesOn = false // its deadline is past, or will be in a moment
		}
		switch {
		case err == nil && res.Switched != nil:
			res.Origin = o // the caller goes on with it
			return res, nil
		case err == nil && res.OriginGoesOn:
			s.giveBack(o)
			return res, nil
		case err == nil:
			o.Close()
			return res, nil
		}
		o.Abort()
		if !sent.again(attempt, o.Reused) || res.Heard || res.Answered || !repeatable(req.Method) || !in.body.Read && req.Framing.Kind != http1.NoBody || ctx.Err() != nil || s.watch.Expired() {
			return res, s.interrupted(ctx, err)
		}
		if o, err = s.destination.Open(ctx, s.grant.permit); err != nil {
			return res, s.unreachable(ctx, err)
		}
	}
}

// renewExchange makes sure that an exchange is about the request as it may be sent now.
func (s *session) renewExchange(ctx context.Context, x *exchange.Exchange, in *incoming) *refusal {
	before := in.sealed
	req, t, changed := s.renewed(ctx, x.Request, x.Target, in)
	if changed != nil || in.sealed == before {
		return changed
	}
	s.watch.Begin(s.p.Idle) // as before, also if only now the body was read ahead
	x.Request, x.Target, x.Content = req, t, in.body.Content
	x.Body, x.Clean = in.sealed.Between(), cleaner(in.sealed)
	if in.body.Read && !x.Read {
		x.Read, x.Omit = true, append(x.Omit, "expect")
	}
	return nil
}

// repeatable reports whether a request may be sent a second time (RFC 9110 section
// 9.2.2).
func repeatable(method string) bool {
	switch method {
	case "GET", "HEAD", "OPTIONS", "PUT", "DELETE", "TRACE":
		return true
	default:
		return false
	}
}

// interrupted is an exchange that failed.
func (s *session) interrupted(ctx context.Context, err error) *refusal {
	reason, detail := outcome(ctx, err)
	r := &refusal{status: 502, stage: core.StageRequest, reason: reason, detail: detail, failed: true}
	switch e, ok := errors.AsType[*http1.SyntaxError](err); {
	case reason == core.ReasonPolicyChanged, errors.Is(err, errRevoked):
		r.reason, r.detail = core.ReasonPolicyChanged, revoked
		r.status, r.failed = 403, false
	case reason == core.ReasonShutdown:
		r.status = 503
	case ok:
		r.status = e.Status
	}
	return r
}

// unreachable is an origin to which there is no connection.
func (s *session) unreachable(ctx context.Context, err error) *refusal {
	if e, ok := errors.AsType[*origin.Error](err); ok && ctx.Err() == nil {
		r := &refusal{status: 502, stage: core.StageRequest, reason: e.Reason(), detail: e.Detail, failed: true}
		if r.reason == core.ReasonUpstreamTimeout {
			r.status = 504
		}
		return r
	}
	return undialled(ctx, core.StageRequest, err)
}

// reach makes sure that there is, or can be, a connection to the tunnel's origin.
func (s *session) reach(ctx context.Context, tls bool) *refusal {
	if s.grant.permit.Inference() {
		return nil
	}
	s.destination = s.p.Pool.Destination(s.grant.permit, tls)
	if s.destination.Waits() {
		return nil
	}
	tcp, err := s.p.Dialer.Dial(ctx, s.grant.permit)
	if err != nil {
		return undialled(ctx, core.StageConnect, err)
	}
	s.spare.tcp = tcp
	return nil
}

// keep takes a connection that the tunnel opened while it was raw.
func (s *session) keep(tcp *net.TCPConn) { s.spare.tcp = tcp }

// prepare turns the spare connection into one for requests, beside what the client
// does meanwhile.
func (s *session) prepare(ctx context.Context, tls bool) {
	if s.grant.permit.Inference() {
		return
	}
	if s.destination != nil && s.destination.TLS() != tls {
		s.destination.Close()
		s.destination = nil
	}
	if s.destination == nil {
		s.destination = s.p.Pool.Destination(s.grant.permit, tls)
	}
	if s.spare.tcp == nil {
		return
	}
	s.spare.wrap(ctx, s.destination)
}

// get takes a connection to the origin. The one that the tunnel was opened with may have
// ended by now: nobody waits for a client's first request for ever.
func (s *session) get(ctx context.Context, careful bool) (*pool.Conn, error) {
	c, err := s.spare.take(ctx)
	if c != nil && (c.Ended() || c.Personal && !c.Fit()) {
		c.Close()
		c = nil
	}
	if s.destination.Again(err) {
		err = nil
	}
	if c != nil || err != nil {
		return c, err
	}
	return s.destination.Get(ctx, s.grant.permit, careful)
}

// giveBack keeps a connection for the next request: for whoever makes one, or in a tunnel
// for this client alone.
func (s *session) giveBack(c *pool.Conn) {
	if !c.Personal || !s.tunnel {
		c.Release()
		return
	}
	c.Watch(nil)
	c.Reused = true
	s.spare.put(c)
}

// personal reports whether a request authenticates the connection that carries it.
func personal(fields http1.Fields) bool {
	for i := range fields {
		if fields[i].Is("Authorization") && pool.Personal(fields[i].Value) {
			return true
		}
	}
	return false
}
