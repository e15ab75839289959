package proxy

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net/http"
	"slices"
	"sync/atomic"
	"time"

	"github.com/splitpod/splitpod/cmd/supervisor-network/internal/http1"
	"github.com/splitpod/splitpod/cmd/supervisor-network/internal/inject/placeholder"
	"github.com/splitpod/splitpod/cmd/supervisor-network/internal/inspect"
	"github.com/splitpod/splitpod/cmd/supervisor-network/internal/inspect/hold"
	"github.com/splitpod/splitpod/cmd/supervisor-network/internal/inspect/http2"
	"github.com/splitpod/splitpod/cmd/supervisor-network/internal/record"
	"github.com/splitpod/splitpod/cmd/supervisor-network/internal/relay"
	"github.com/splitpod/splitpod/cmd/supervisor-network/internal/relay/exchange"
	"github.com/splitpod/splitpod/cmd/supervisor-network/internal/relay/h2"
	"github.com/splitpod/splitpod/cmd/supervisor-network/internal/relay/origin"
	"github.com/splitpod/splitpod/cmd/supervisor-network/internal/relay/pool"
	"github.com/splitpod/splitpod/pkg/core"
)

// serveHTTP2 serves the streams of one HTTP/2 connection, each judged and carried on
// its own. The connection's own record is for what ends it without a stream.
func (s *session) serveHTTP2(ctx context.Context, tc *tls.Conn) {
	s.release()
	s.offer(ctx)
	s.sockets = ctx
	stats := http2.Serve(ctx, tc, http2.Options{
		Host: s.grant.permit.Host(), Port: s.grant.permit.Port(), EncodedSlash: s.grant.permit.EncodedSlash(),
		Verbatim: !s.p.pathsCount(s.grant.permit),
		Head:     s.p.HeadTimeout, Idle: s.p.Idle, StreamIdle: s.p.Idle + s.p.Idle/2, Stall: s.p.unreadFor(), Stopping: s.p.Stopping.Done(), Refused: s.refusedStream, Windows: s.p.Windows,
	}, s.stream2)
	switch {
	case stats.Flooded:
		s.ev.Deny(core.StageRequest, core.ReasonBadRequest, "the HTTP/2 connection is used to make work, not to send requests")
	case stats.Crowded:
		s.ev.Deny(core.StageRequest, core.ReasonTooManyConnections, "there is no memory for one more large section of fields over HTTP/2")
	case stats.Refused > 0:
		s.ev.Deny(core.StageRequest, core.ReasonBadRequest, fmt.Sprintf("%d HTTP/2 streams were refused for their number or priority", stats.Refused))
	case stats.Streams > stats.Handled && stats.Broken:
		s.ev.Deny(core.StageRequest, core.ReasonBadRequest, "the connection was ended because its client broke the rules of HTTP/2")
	case stats.Streams > stats.Handled && s.p.Stopping.Err() == nil && ctx.Err() == nil:
		s.ev.Fail(core.ReasonClientClosed, fmt.Sprintf("%d HTTP/2 streams ended before anybody saw them", stats.Streams-stats.Handled))
	case stats.Handled > 0:
		s.ev.Drop() // its streams have left theirs
	default:
		s.nothing(ctx)
	}
}

// offer gives the connection that was opened for the tunnel to its first stream.
func (s *session) offer(ctx context.Context) {
	c, err := s.spare.take(ctx)
	if e, ok := errors.AsType[*origin.Error](err); ok && e.Kind == origin.NoProtocol {
		s.destination.HTTP2.Store(true)
	}
	if c != nil {
		c.Release()
	}
}

// beginStream opens the record of one stream.
func (s *session) beginStream(method string) *record.Entry {
	ev := s.p.Record.Begin(core.NewRequestID(), time.Now())
	ev.Event.Host, ev.Event.Port, ev.Event.Method = s.grant.permit.Host(), s.grant.permit.Port(), placeholder.Redact(method)
	ev.Event.Source = s.conn.Tuple.Client
	ev.Who(*s.grant.question.Who)
	return ev
}

// refusedStream records a stream that cannot be read in one way.
func (s *session) refusedStream(method string, status int, err error) string {
	ev := s.beginStream(method)
	defer ev.End()
	reason, detail := core.ReasonBadRequest, "the stream is malformed"
	if e, ok := errors.AsType[*http1.SyntaxError](err); ok {
		reason, detail = e.Reason, e.Detail
	}
	ev.Deny(core.StageRequest, reason, detail)
	return string(ev.Event.RequestID)
}

// Places are what streams of HTTP/2 take, all connections together: each of them can cost
// what a connection of HTTP/1.1 costs, and one connection carries a hundred.
type Places struct {
	limit int64
	taken atomic.Int64
}

// NewPlaces makes Places for so many streams at one time.
func NewPlaces(limit int) *Places { return &Places{limit: int64(limit)} }

func (p *Places) take() bool {
	if p.taken.Add(1) > p.limit {
		p.taken.Add(-1)
		return false
	}
	return true
}

func (p *Places) give() { p.taken.Add(-1) }

// tooManyStreams is a stream for which there is no place.
func tooManyStreams() *refusal {
	return &refusal{status: 503, stage: core.StageRequest, reason: core.ReasonTooManyConnections,
		detail: "too many requests over HTTP/2 are under way; wait for some and try again"}
}

// stream2 judges and carries one stream. Streams run side by side: what they share of
// the session is not changed.
func (s *session) stream2(ctx context.Context, st *http2.Stream) {
	method := methodOf(st)
	ev := s.beginStream(method)
	defer ev.End()
	path, query := redacted(st.Path, st.Query)
	in := &incoming{method: placeholder.Redact(method), path: path, body: hold.Body{Held: hold.Holding{Of: s.p.Bodies}}, head: inspect.Head{
		Method: method, Query: query, Fields: http1.FieldsOf(st.Header), Body: st.Length != 0,
	}}
	defer in.body.Held.Release()
	if !s.p.Places.take() {
		s.deny2(ev, st, in, tooManyStreams())
		return
	}
	defer s.p.Places.give()
	if refused := s.serve2(ctx, ev, st, in); refused != nil {
		s.deny2(ev, st, in, refused)
	}
}

// deny2 records and answers a refusal.
func (s *session) deny2(ev *record.Entry, st *http2.Stream, in *incoming, r *refusal) {
	in.body.Held.Release()
	in.describe(ev)
	note(ev, r)
	ev.End()
	a := s.asked(in)
	a.id = ev.Event.RequestID
	_ = st.Deny(r.status, r.reason, r.detail, ev.Event.RequestID, r.body(a), fieldsOn(st, r)...) // a client that is gone needs no answer
}

// serve2 judges a stream and carries what is allowed, as it came or as a WebSocket. A
// refusal is for a client that was told nothing yet.
func (s *session) serve2(ctx context.Context, ev *record.Entry, st *http2.Stream, in *incoming) *refusal {
	g := *s.grant
	ctx, entry, refused := s.admit2(ctx, ev, &g, st, in)
	if refused != nil {
		return refused
	}
	defer entry.leave()
	if g.permit.Inference() {
		return s.inferStream(ctx, ev, st, in)
	}
	if refused := s.sealStream(ctx, ev, &g, st, in); refused != nil {
		return refused
	}
	if in.handshake != nil {
		return s.socket2(ctx, ev, &g, entry, st, in)
	}
	return s.carry2(ctx, ev, &g, st, in)
}

// admit2 judges a stream and makes one that is allowed known.
func (s *session) admit2(ctx context.Context, ev *record.Entry, g *grant, st *http2.Stream, in *incoming) (context.Context, *liveEntry, *refusal) {
	if denial := s.p.renew(ctx, g); denial != nil {
		return nil, nil, denied(core.StageRequest, denial)
	}
	judged := g.snap // enter may take a newer one, which has not judged the request
	malformed := in.asks(st)
	refused := s.p.judge(g, in, func(limit int) ([]byte, error) { return s.readStream(ctx, st, in, limit) })
	if refused == nil && malformed != nil {
		refused = unreadable(malformed)
	}
	if refused != nil {
		return nil, nil, refused
	}
	ctx, entry, denial := s.p.enter(ctx, ev, core.StageRequest, g)
	if denial != nil {
		return nil, nil, denied(core.StageRequest, denial)
	}
	in.describe(ev)
	entry.carries(in)
	if s.p.Policy.Current() != judged && !entry.allows(ctx, s.p.Policy.Current(), in) {
		entry.leave()
		return nil, nil, &refusal{status: 403, stage: core.StageRequest, reason: core.ReasonPolicyChanged, detail: revoked}
	}
	return ctx, entry, nil
}

// carry2 makes the exchange with the origin, and records how it went.
func (s *session) carry2(ctx context.Context, ev *record.Entry, g *grant, st *http2.Stream, in *incoming) *refusal {
	up := &counted{}
	ctx, up.watch = s.patience(ctx, up)
	defer up.watch.Stop()
	req := in.toOrigin(ctx, st, up)
	resp, err := s.p.roundTrip(ctx, s, g, in, st, req, up)
	up.watch.Stop()
	if err != nil {
		st.Lost(err)
		return s.unanswered(ctx, g, in, up, err)
	}
	down := &counted{ReadCloser: resp.Body}
	resp.Body = down
	resp.Request = req
	ev.Event.Status = resp.StatusCode
	noteAudit(ev, in)
	if refused := in.clean(resp); refused != nil {
		return refused
	}
	err = st.Respond(ctx, resp)
	ev.Event.BytesUp, ev.Event.BytesDn = up.n.Load(), down.n.Load()
	if errors.Is(err, http2.ErrStatus) {
		return &refusal{status: 502, stage: core.StageRequest, reason: core.ReasonUpstreamInvalid, detail: "the origin answered with a status that is none", failed: true}
	}
	ev.Echoed(in.sealed.Echoed())
	if caught := uninjected(in.sealed.Caught()); caught != nil {
		note(ev, caught)
		return nil
	}
	if reason, detail := s.streamOutcome(ctx, err); reason != "" {
		ev.Fail(reason, detail)
	}
	return nil
}

// fieldsOn are those of a refusal on a stream. Calls that wait until their server is there
// wait for a connection to it: this one leads nowhere, and goes away; the next one is
// refused for as long as it would lead nowhere.
func fieldsOn(st *http2.Stream, r *refusal) []http1.Field {
	fields := r.fields()
	if st.GRPC && r.reason == core.ReasonUpstreamUnreachable {
		fields = append(fields, http1.Field{Name: "Connection", Value: "close"}) // which the library takes for GOAWAY
	}
	return fields
}

// patience is a stream's wait for the head of a response, which ends when nothing moves
// for as long as a connection may be idle. up is its body; nil: it has none.
func (s *session) patience(ctx context.Context, up *counted) (context.Context, *relay.Watch) {
	ctx, quiet := context.WithCancelCause(ctx)
	watch := relay.NewWatch(s.p.Idle/4, func() {
		if up != nil && up.waits.Load() {
			quiet(errUnsent)
		} else {
			quiet(errSilent)
		}
	})
	watch.Begin(s.p.Idle)
	return ctx, watch
}

// unanswered is what a stream is told whose origin gave no response to pass on. up is
// its body; nil: it has none.
func (s *session) unanswered(ctx context.Context, g *grant, in *incoming, up *counted, err error) *refusal {
	if caught := uninjected(in.sealed.Caught()); caught != nil {
		return caught
	}
	if changed, ok := errors.AsType[*refusal](err); ok {
		return changed
	}
	switch {
	case errors.Is(context.Cause(ctx), errSilent):
		return silent()
	case errors.Is(context.Cause(ctx), errUnsent):
		return &refusal{status: 408, stage: core.StageRequest, reason: core.ReasonRequestTimeout, detail: errUnsent.Error(), failed: true}
	}
	if ctx.Err() != nil {
		return s.endedEarly(ctx, err)
	}
	if up != nil && up.failed.Load() { // a moment before its stream ends, or with a false length
		return &refusal{status: 400, stage: core.StageRequest, reason: core.ReasonClientClosed, detail: "the request's body is not what its head announced", failed: true}
	}
	return streamFailed(ctx, g.permit.Host(), err)
}

// endedEarly is a stream whose context ended before its answer began.
func (s *session) endedEarly(ctx context.Context, err error) *refusal {
	if errors.Is(context.Cause(ctx), errRevoked) {
		return undialled(ctx, core.StageRequest, err)
	}
	reason, detail := s.streamOutcome(ctx, err)
	return &refusal{status: 503, stage: core.StageRequest, reason: reason, detail: detail, failed: true}
}

// streamOutcome is outcome for a stream, which ends, too, when its client resets it or
// goes, and when nothing moves on it.
func (s *session) streamOutcome(ctx context.Context, err error) (core.Reason, string) {
	cause := context.Cause(ctx)
	switch {
	case cause == nil, errors.Is(cause, errRevoked), s.sockets.Err() != nil:
		return outcome(ctx, err)
	case errors.Is(cause, http2.ErrIdle), errors.Is(cause, http2.ErrStalled):
		return core.ReasonIdle, cause.Error()
	default:
		return core.ReasonClientClosed, "the stream was reset, or its connection has ended"
	}
}

// errSilent and errUnsent end the wait for the head of a response, before the stream
// itself ends for want of movement: an answer still fits.
var (
	errSilent = errors.New("the origin did not answer in time")
	errUnsent = errors.New("the request body did not arrive in time")
)

// roundTrip sends a stream's request: in HTTP/2 where it needs that (gRPC) or the origin
// speaks nothing else, and where the origin speaks it, too, if it is a call of gRPC-web, or
// an upload that states no length or has trailers: in HTTP/1.1 that is chunks, which some
// origins refuse. Else it is HTTP/1.1, whose connections are many.
func (p *Path) roundTrip(ctx context.Context, s *session, g *grant, in *incoming, st *http2.Stream, req *http.Request, up *counted) (*http.Response, error) {
	req, changed := s.renewedStream(ctx, g, st, in, req, up)
	if changed != nil {
		return nil, changed
	}
	if st.GRPC && !st.Web || s.destination.HTTP2.Load() {
		return s.inHTTP2(ctx, g, in, st, req, up)
	}
	if (req.ContentLength < 0 || st.Web || len(req.Trailer) > 0) && !s.destination.Older.Load() && !authenticates(req) {
		resp, err := s.inHTTP2(ctx, g, in, st, req, up)
		switch {
		case !s.older(ctx, err):
			return resp, err
		case up.n.Load() > 0: // without its beginning it would be another one
			return nil, begun()
		}
		req = in.toOrigin(ctx, st, up) // with what goes in now
	}
	var sent attempts
	for attempt := 1; ; attempt++ {
		o, err := s.fetch(ctx, g, attempt > 1, !repeatable(req.Method))
		if e, ok := errors.AsType[*origin.Error](err); ok && e.Kind == origin.NoProtocol {
			s.destination.HTTP2.Store(true)
			return s.inHTTP2(ctx, g, in, st, req, up)
		}
		if err != nil {
			return nil, err
		}
		if req, changed = s.renewedStream(ctx, g, st, in, req, up); changed != nil {
			o.Close()
			return nil, changed
		}
		sent.attempt(attempt)
		o.Personal = authenticates(req)
		delete(req.Header, "Te") // browsers say it whether they read trailers or not
		resp, unheard, err := exchange.RoundTrip(ctx, o, req, informs(ctx, st, in))
		if err == nil || !unheard || !sent.again(attempt, o.Reused) || ctx.Err() != nil {
			return resp, err
		}
	}
}

// informs passes interim responses on, of which gRPC has none.
func informs(ctx context.Context, st *http2.Stream, in *incoming) func(int, http.Header) error {
	if st.GRPC {
		return nil
	}
	return func(status int, h http.Header) error { return st.Inform(ctx, status, in.sealed.Interim(h)) }
}

// begun is an upload that an origin of HTTP/2 gave back, in whose place there is none now.
func begun() *refusal {
	return &refusal{status: 502, stage: core.StageRequest, reason: core.ReasonUpstreamInvalid,
		detail: "the origin gave the upload back when a part of it had been sent, and speaks HTTP/2 no more; send it again", failed: true}
}

// authenticates reports whether a request authenticates the connection that carries it.
func authenticates(r *http.Request) bool {
	return slices.ContainsFunc(r.Header["Authorization"], pool.Personal)
}

// older reports whether err says that an origin may speak HTTP/1.1 only, and has it
// remembered. Some say it by a handshake that fails; of one that has spoken HTTP/2 that is
// no more than a restart. What the handshake was for has not been sent, but an attempt
// before it may have been.
func (s *session) older(ctx context.Context, err error) bool {
	if ctx.Err() != nil {
		return false
	}
	said := s.saysNoHTTP2(err)
	if e, ok := errors.AsType[*origin.Error](err); !said && !(ok && (e.Kind == origin.Closed || e.Kind == origin.Refused)) {
		return false
	}
	if said || !s.destination.Newer.Load() {
		s.destination.Older.Store(true)
	}
	return true
}

// saysNoHTTP2 reports whether err is an origin's refusal to speak HTTP/2. One that spoke
// nothing else is another one now, or is several: the next request asks it anew.
func (s *session) saysNoHTTP2(err error) bool {
	e, ok := errors.AsType[*origin.Error](err)
	if !errors.Is(err, h2.ErrNoHTTP2) && !(ok && e.Kind == origin.NoProtocol) {
		return false
	}
	s.destination.HTTP2.Store(false)
	return true
}

// inHTTP2 sends a stream's request in HTTP/2, where it may wait for a place. What goes in
// is looked at behind that, and made anew while nothing was read of the body.
func (s *session) inHTTP2(ctx context.Context, g *grant, in *incoming, st *http2.Stream, req *http.Request, up *counted) (*http.Response, error) {
	for {
		resp, err := s.p.HTTP2.RoundTripWhile(ctx, g.permit, req, s.p.still(in), informs(ctx, st, in))
		if err == nil {
			s.destination.Newer.Store(true)
			return resp, nil
		}
		s.saysNoHTTP2(err)
		if _, changed := errors.AsType[*refusal](err); !changed || !in.body.Read && up.n.Load() > 0 {
			return resp, err
		}
		var gone *refusal
		if req, gone = s.renewedStream(ctx, g, st, in, req, up); gone != nil {
			return nil, gone
		}
	}
}

// fetch takes a connection to the origin. Where one had been closed while it was kept,
// the others may have been, too.
func (s *session) fetch(ctx context.Context, g *grant, fresh, careful bool) (*pool.Conn, error) {
	if fresh {
		return s.destination.Open(ctx, g.permit)
	}
	return s.destination.Get(ctx, g.permit, careful)
}

// readStream reads a stream's whole body, which takes no longer than a head does: a client
// that sends a byte now and then would make us hold the rest.
func (s *session) readStream(ctx context.Context, st *http2.Stream, in *incoming, limit int) ([]byte, error) {
	within := s.p.HeadTimeout
	if in.body.Unhurried {
		within = s.p.Idle
	}
	late := time.AfterFunc(within, func() { _ = st.Body.Close() })
	defer late.Stop()
	defer context.AfterFunc(ctx, func() { _ = st.Body.Close() })()
	content, err := in.body.Held.Read(st.Body, st.Length, limit)
	if err != nil && ctx.Err() != nil {
		return nil, s.endedEarly(ctx, err)
	}
	if err != nil && !late.Stop() {
		return nil, &http1.SyntaxError{Status: 408, Reason: core.ReasonRequestTimeout, Detail: "the request body did not arrive in time"}
	}
	return content, err
}

// streamFailed is a stream whose origin did not answer.
func streamFailed(ctx context.Context, host string, err error) *refusal {
	if errors.Is(context.Cause(ctx), errRevoked) {
		return &refusal{status: 403, stage: core.StageRequest, reason: core.ReasonPolicyChanged, detail: revoked}
	}
	if errors.Is(context.Cause(ctx), errClientGone) {
		return undialled(ctx, core.StageRequest, err)
	}
	r := &refusal{status: 502, stage: core.StageRequest, reason: core.ReasonUpstreamInvalid, detail: "the origin closed the connection without a complete response", failed: true}
	if ended, ok := errors.AsType[*http2.Revoked](err); ok {
		return &refusal{status: 503, stage: core.StageRequest, reason: ended.Reason, detail: ended.Detail, failed: true}
	}
	e, ok := errors.AsType[*origin.Error](err)
	if !ok {
		e = origin.Explain(host, err)
	}
	syntax, malformed := errors.AsType[*http1.SyntaxError](err)
	switch {
	case errors.Is(err, h2.ErrNoHTTP2):
		r.reason, r.detail = core.ReasonUnsupportedProtocol, "the request needs HTTP/2, which the origin does not speak"
	case e != nil:
		r.reason, r.detail = e.Reason(), e.Detail
		if r.reason == core.ReasonUpstreamTimeout {
			r.status = 504
		}
	case malformed:
		r.detail = "the origin's response is malformed: " + syntax.Detail
	default:
		if d := undialled(ctx, core.StageRequest, err); d.reason != core.ReasonInternal {
			return d
		}
	}
	return r
}

// counted counts what is read of a body. One that goes to an origin may be read still
// when its response is over.
type counted struct {
	io.ReadCloser
	n      atomic.Uint64
	watch  *relay.Watch // for which every byte counts; nil: none
	waits  atomic.Bool  // for the next byte
	closed atomic.Bool
	failed atomic.Bool // it ended by itself, and not with its last byte
}

func (c *counted) Read(p []byte) (int, error) {
	c.waits.Store(true)
	n, err := c.ReadCloser.Read(p)
	c.waits.Store(false)
	if c.n.Add(uint64(n)); n > 0 && c.watch != nil {
		c.watch.Mark()
	}
	if err != nil && !errors.Is(err, io.EOF) && !c.closed.Load() {
		c.failed.Store(true)
	}
	return n, err
}

func (c *counted) Close() error {
	c.closed.Store(true)
	return c.ReadCloser.Close()
}
