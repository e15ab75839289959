package proxy

import (
	"bufio"
	"context"
	"errors"
	"net/http"

	"github.com/splitpod/splitpod/cmd/supervisor-network/internal/http1"
	"github.com/splitpod/splitpod/cmd/supervisor-network/internal/inspect/http2"
	"github.com/splitpod/splitpod/cmd/supervisor-network/internal/inspect/websocket"
	"github.com/splitpod/splitpod/cmd/supervisor-network/internal/record"
	"github.com/splitpod/splitpod/cmd/supervisor-network/internal/relay"
	"github.com/splitpod/splitpod/cmd/supervisor-network/internal/relay/exchange"
	"github.com/splitpod/splitpod/cmd/supervisor-network/internal/relay/origin"
	"github.com/splitpod/splitpod/cmd/supervisor-network/internal/relay/pool"
	"github.com/splitpod/splitpod/pkg/core"
)

// WebSockets on a stream of HTTP/2 (RFC 8441). The handshake is judged as the GET that it
// would be in HTTP/1.1, and the origin gets that GET, on a connection of its own and with
// a key of ours: so one rule is about both forms, and no origin has to know the newer one.

// methodOf is the method of a stream's request as rules and origins know it.
func methodOf(st *http2.Stream) string {
	if st.Protocol == http2.ProtocolWebSocket {
		return http.MethodGet
	}
	return st.Method
}

// asks reads the handshake of a stream that asks for a WebSocket.
func (in *incoming) asks(st *http2.Stream) (malformed error) {
	if st.Protocol == http2.ProtocolWebSocket {
		in.handshake, malformed = websocket.ReadExtended(in.head.Fields)
	}
	return malformed
}

// socketContext is the context of a WebSocket on a stream, whose own is ctx. That a
// stream is over does not end it: reads and writes fail by themselves then, as on a
// connection that is gone, and what is on its way arrives.
func (s *session) socketContext(ctx context.Context) (out context.Context, done func()) {
	out, cancel := context.WithCancelCause(context.WithoutCancel(ctx))
	undo := []func() bool{
		context.AfterFunc(s.sockets, func() { cancel(context.Cause(s.sockets)) }),
		context.AfterFunc(ctx, func() {
			if cause := context.Cause(ctx); errors.Is(cause, errRevoked) || errors.Is(cause, errGated) {
				cancel(cause)
			}
		}),
	}
	return out, func() {
		for _, f := range undo {
			f()
		}
		cancel(nil)
	}
}

// socket2 carries a handshake that rules allow, and the WebSocket behind it. A refusal
// is for a client that was told nothing yet.
func (s *session) socket2(ctx context.Context, ev *record.Entry, g *grant, entry *liveEntry, st *http2.Stream, in *incoming) *refusal {
	parsed := in.parsed()
	offer := in.offered().Offer(parsed)
	in.add = offer.Fields()
	waiting, watch := s.patience(ctx, nil)
	defer watch.Stop()
	resp, switched, up, err := s.shake(waiting, g, st, in)
	watch.Stop()
	if err != nil {
		return s.unanswered(waiting, g, in, nil, err)
	}
	ev.Event.Address = up.Address
	if switched == nil {
		return s.declined(waiting, ev, st, in, resp)
	}
	ev.Event.Status = switched.Status
	noteAudit(ev, in)
	agreed, err := offer.Check(switched)
	if err != nil {
		up.Abort()
		refused := unreadable(err)
		refused.failed = true
		return refused
	}
	ev.Echoed(in.sealed.Echoed())
	client, err := st.Accept(headersOf(append(switched.Fields.EndToEnd().Without(websocket.Fields()...), agreed.Fields()...)))
	if err != nil {
		up.Abort()
		ev.Fail(core.ReasonClientClosed, "the workload went away")
		return nil
	}
	ctx, done := s.socketContext(ctx)
	defer done()
	k := &socket{p: s.p, ev: ev, grant: g, entry: entry, in: in, source: s.conn.Tuple.Client, secure: true,
		client: client, upstream: up.Stream(), deflate: agreed.Deflate}
	if parsed {
		k.messages(ctx, nil)
	} else {
		k.bytes(ctx, &relay.Pipe{Client: client, ClientReader: bufio.NewReaderSize(client, tunnelReaderBytes), Upstream: k.upstream, Idle: s.p.Idle})
	}
	return nil
}

// noteAudit notes what rules say against a request that is carried.
func noteAudit(ev *record.Entry, in *incoming) {
	if in.audited != "" {
		ev.Event.Detail = "would be denied: " + in.audited
	}
}

// declined passes the origin's own refusal on. A success that is no WebSocket is none:
// by its status the client would take it for one.
func (s *session) declined(ctx context.Context, ev *record.Entry, st *http2.Stream, in *incoming, resp *http.Response) *refusal {
	ev.Event.Status = resp.StatusCode
	noteAudit(ev, in)
	down := &counted{ReadCloser: resp.Body}
	resp.Body = down
	if refused := in.clean(resp); refused != nil {
		return refused
	}
	err := st.Respond(ctx, resp)
	ev.Event.BytesDn = down.n.Load()
	if errors.Is(err, http2.ErrStatus) {
		return &refusal{status: 502, stage: core.StageRequest, reason: core.ReasonUpstreamInvalid, detail: "the origin did not open the WebSocket", failed: true}
	}
	ev.Echoed(in.sealed.Echoed())
	if reason, detail := s.streamOutcome(ctx, err); reason != "" {
		ev.Fail(reason, detail)
	}
	return nil
}

// shake asks the origin for a WebSocket. It answers with resp, or it has switched and
// the connection is the caller's.
func (s *session) shake(ctx context.Context, g *grant, st *http2.Stream, in *incoming) (resp *http.Response, switched *http1.Response, up *pool.Conn, err error) {
	req := in.shakes(ctx, st)
	for again := true; ; again = false {
		up, err := s.fetch(ctx, g, !again, false)
		if e, ok := errors.AsType[*origin.Error](err); ok && e.Kind == origin.NoProtocol {
			s.destination.HTTP2.Store(true)
			return nil, nil, nil, noSockets()
		}
		if err != nil {
			return nil, nil, nil, err
		}
		anew, changed := s.resealed(ctx, g, st, in)
		if changed != nil {
			up.Close()
			return nil, nil, nil, changed
		}
		if anew {
			req = in.shakes(ctx, st)
		}
		resp, switched, unheard, err := exchange.Upgrade(ctx, up, req, in.add)
		if err == nil || !again || !unheard || !up.Reused || ctx.Err() != nil {
			if clean := cleaner(in.sealed); clean != nil && switched != nil {
				clean.Head(switched)
			}
			return resp, switched, up, err
		}
	}
}

// shakes is a sealed handshake as the request that the origin gets, without the fields that
// are added to it.
func (in *incoming) shakes(ctx context.Context, st *http2.Stream) *http.Request {
	req := st.ToOrigin(ctx)
	req.Method = in.head.Method
	for _, name := range websocket.Fields() {
		delete(req.Header, http.CanonicalHeaderKey(name))
	}
	delete(req.Header, "Te")
	return req
}

// noSockets is an origin that speaks nothing but HTTP/2.
func noSockets() *refusal {
	return &refusal{status: 502, stage: core.StageRequest, reason: core.ReasonUnsupportedProtocol,
		detail: "the origin speaks HTTP/2 only, in which WebSockets are not supported here", failed: true}
}
