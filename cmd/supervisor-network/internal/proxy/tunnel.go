package proxy

import (
	"context"
	"errors"
	"net"

	"github.com/splitpod/splitpod/cmd/supervisor-network/internal/http1"
	"github.com/splitpod/splitpod/cmd/supervisor-network/internal/inspect/hello"
	"github.com/splitpod/splitpod/cmd/supervisor-network/internal/inspect/http2"
	"github.com/splitpod/splitpod/cmd/supervisor-network/internal/listen"
	"github.com/splitpod/splitpod/cmd/supervisor-network/internal/record"
	"github.com/splitpod/splitpod/cmd/supervisor-network/internal/relay"
	"github.com/splitpod/splitpod/pkg/core"
)

// established is the answer to a CONNECT.
const established = "HTTP/1.1 200 Connection Established\r\n\r\n"

// tunnel serves a connection whose requests no rule judges. Its bytes are carried as
// they are, unless it says tls: auto (the default) and the client speaks first, in
// TLS or HTTP: then the requests are read all the same, so that each names the host
// it was permitted for and leaves a record. One that is not even looked at is left for
// later: it may be idle for hours, and needs a fourth of the stack that dialled.
//
//go:noinline
func (p *Path) tunnel(ctx context.Context, ev *record.Entry, c *listen.Conn, g *grant, entry *liveEntry) (rest func()) {
	up := p.establish(ctx, ev, c, g)
	if up == nil {
		entry.leave()
		return nil
	}
	t := p.between(c, up)
	p.unread(entry)
	if g.permit.Opaque() {
		return func() {
			defer entry.leave()
			p.move(ctx, ev, t)
		}
	}
	defer entry.leave()
	kind := hello.Other
	t.First = func(prefix []byte) (take, more bool) {
		kind, more = hello.Classify(prefix)
		return kind == hello.TLS || kind == hello.HTTP1, more
	}
	if p.move(ctx, ev, t) {
		entry.uninspected.Store(false)
		p.take(ctx, ev, c, g, entry, kind, taken{early: t.Early, up: up}) // up may outlive it, in the pool
	}
	return nil
}

// establish dials and tells the client so; nil: it did not, and has said why.
//
//go:noinline
func (p *Path) establish(ctx context.Context, ev *record.Entry, c *listen.Conn, g *grant) *net.TCPConn {
	up, err := p.Dialer.Dial(ctx, g.permit)
	if err != nil {
		p.refuse(ev, c, undialled(ctx, core.StageConnect, err))
		return nil
	}
	ev.Event.Address = addressOf(up)
	if _, err := c.TCP.Write([]byte(established)); err != nil {
		up.Close()
		ev.Fail(core.ReasonClientClosed, "the workload went away")
		return nil
	}
	return up
}

// between is the tunnel of two connections. While it is idle it holds no buffer.
func (p *Path) between(c *listen.Conn, up *net.TCPConn) *relay.Tunnel {
	defer c.Done()
	return &relay.Tunnel{Client: c.TCP, Upstream: up, Early: c.Early(), Idle: p.Idle}
}

// move carries bytes until the tunnel ends, and records how it did, or until its client is
// to be listened to.
func (p *Path) move(ctx context.Context, ev *record.Entry, t *relay.Tunnel) (listen bool) {
	over := p.Meter.Tunnel()
	err := t.Run(ctx)
	over()
	if errors.Is(err, relay.ErrTaken) {
		return true
	}
	sent, received := t.Moved()
	finish(ctx, ev, sent, received, err)
	return false
}

// finish records how a tunnel ended.
func finish(ctx context.Context, ev *record.Entry, sent, received int64, err error) {
	ev.Event.BytesUp, ev.Event.BytesDn = uint64(sent), uint64(received)
	switch reason, detail := outcome(ctx, err); reason {
	case "":
	case core.ReasonClientClosed:
		ev.Event.Detail = detail // many programs end with a reset; the tunnel has no opinion
	default:
		ev.Fail(reason, detail)
	}
}

// outcome says how an allowed connection ended; the empty reason is an ordinary
// end.
func outcome(ctx context.Context, err error) (core.Reason, string) {
	syntax, ok := errors.AsType[*http1.SyntaxError](err)
	ended, crowded := errors.AsType[*http2.Revoked](err)
	switch {
	case err == nil:
		return "", ""
	case errors.Is(context.Cause(ctx), errRevoked):
		return core.ReasonPolicyChanged, revoked
	case errors.Is(context.Cause(ctx), errGated):
		return core.ReasonUninspectedCredentials, gated
	case errors.Is(context.Cause(ctx), errClientGone):
		return core.ReasonClientClosed, errClientGone.Error()
	case errors.Is(context.Cause(ctx), errUnread):
		return core.ReasonIdle, errUnread.Error()
	case ctx.Err() != nil:
		return core.ReasonShutdown, "the daemon is stopping"
	case errors.Is(err, relay.ErrIdle):
		return core.ReasonIdle, err.Error()
	case crowded:
		return ended.Reason, ended.Detail
	case ok:
		return syntax.Reason, syntax.Detail
	default:
		return core.ReasonClientClosed, "the connection was cut by one of its ends"
	}
}

// undialled is a destination that is refused for its addresses (403), or that cannot
// be reached (502, 503 or 504: allowed, but failed).
func undialled(ctx context.Context, stage core.Stage, err error) *refusal {
	switch reason, detail := outcome(ctx, context.Cause(ctx)); reason { // or it would be the destination's fault
	case "":
	case core.ReasonPolicyChanged:
		return &refusal{status: 403, stage: stage, reason: reason, detail: detail}
	case core.ReasonShutdown:
		return &refusal{status: 503, stage: stage, reason: reason, detail: detail, failed: true}
	default:
		return &refusal{status: 502, stage: stage, reason: reason, detail: detail, failed: true}
	}
	r := &refusal{status: 502, stage: stage, reason: core.ReasonInternal, detail: "the connection could not be made", failed: true}
	if e, ok := errors.AsType[*relay.Error](err); ok {
		r.reason, r.detail = e.Reason, e.Detail
	}
	switch r.reason {
	case core.ReasonSSRFDenied:
		r.status, r.stage, r.failed = 403, core.StageSSRF, false
	case core.ReasonUpstreamTimeout:
		r.status = 504
	case core.ReasonTooManyConnections:
		r.status = 503
	}
	return r
}

// taken is a tunnel that is looked into after it began raw.
type taken struct {
	early []byte // what was read of the client already
	up    *net.TCPConn
}
