package app

import (
	"context"
	"errors"
	"net"
	"time"

	"github.com/splitpod/splitpod/cmd/supervisor-network/internal/decide"
	"github.com/splitpod/splitpod/cmd/supervisor-network/internal/http1"
	"github.com/splitpod/splitpod/cmd/supervisor-network/internal/identify"
	"github.com/splitpod/splitpod/cmd/supervisor-network/internal/listen"
	"github.com/splitpod/splitpod/cmd/supervisor-network/internal/record"
	"github.com/splitpod/splitpod/cmd/supervisor-network/internal/relay"
	"github.com/splitpod/splitpod/cmd/supervisor-network/internal/relay/forward"
	"github.com/splitpod/splitpod/pkg/core"
)

// path is the way of a connection, for the listeners of one process daemon
// instance.
type path struct {
	identify       identify.Identifier
	policy         *decide.Engine
	dialer         *relay.Dialer
	record         *record.Recorder
	live           *live
	idle           time.Duration
	ignoreIdentity bool
}

// serve walks one connection down the line. Every way out leaves one record, and
// every refusal is recorded before it is answered.
func (p *path) serve(ctx context.Context, c *listen.Conn) {
	ev := p.record.Begin(c.ID, c.Accepted)
	defer ev.End()

	if c.Err != nil { // listen could not make a request of it
		p.refuse(ev, c, core.StageListen, c.Err.Status, c.Err.Reason, c.Err.Detail)
		return
	}
	stage := describe(ev, c)

	who := core.Identity{}
	if !p.ignoreIdentity {
		who = p.identify.Peer(ctx, c.ID, c.Tuple)
		ev.Who(who)
	}

	question := decide.Question{Who: &who, Host: c.Target().Host, Port: c.Target().Port}
	snap := p.policy.Current()
	permit, denial := snap.Connection(ctx, question)
	if denial != nil {
		p.refuse(ev, c, stage, 403, denial.Reason, denial.Detail)
		return
	}
	ev.Allow(stage, permit.Rule(), permit.Generation())

	ctx, done := p.live.add(ctx, question, permit)
	defer done()
	if p.policy.Current() != snap { // changed before live could know of us
		if again, denial := p.policy.Current().Connection(ctx, question); denial != nil || !again.SameTerms(permit) {
			p.refuse(ev, c, stage, 403, core.ReasonPolicyChanged, "the policy changed while the request was judged; try again")
			return
		}
	}

	up, err := p.dialer.Dial(ctx, permit)
	if err != nil {
		p.refuseDial(ctx, ev, c, stage, err)
		return
	}
	defer up.Close()
	ev.Event.Address = addressOf(up)

	if c.Kind == listen.Tunnel {
		p.tunnel(ctx, ev, c, up)
	} else {
		p.forward(ctx, ev, c, up)
	}
}

func addressOf(c *net.TCPConn) string {
	ap := c.RemoteAddr().(*net.TCPAddr).AddrPort()
	return ap.Addr().Unmap().String()
}

// established is the answer to a CONNECT.
const established = "HTTP/1.1 200 Connection Established\r\n\r\n"

// tunnel carries raw bytes both ways until both sides have finished.
func (p *path) tunnel(ctx context.Context, ev *record.Entry, c *listen.Conn, up *net.TCPConn) {
	if _, err := c.TCP.Write([]byte(established)); err != nil {
		ev.Fail(core.ReasonClientClosed, "the workload went away")
		return
	}
	t := relay.Tunnel{Client: c.TCP, Upstream: up, Early: c.Early(), Idle: p.idle}
	c.Done() // an idle tunnel holds no buffer
	err := t.Run(ctx)
	sent, received := t.Moved()
	ev.Event.BytesUp, ev.Event.BytesDn = uint64(sent), uint64(received)
	switch reason, detail := outcome(ctx, err); reason {
	case "":
	case core.ReasonClientClosed:
		ev.Event.Detail = detail // many programs end with a reset; the tunnel has no opinion
	default:
		ev.Fail(reason, detail)
	}
}

// forward carries one request and its response.
func (p *path) forward(ctx context.Context, ev *record.Entry, c *listen.Conn, up *net.TCPConn) {
	stats, err := forward.Do(ctx, forward.Exchange{
		Client: c.TCP, Reader: c.Reader(), Request: c.Request, Target: c.Target(), Upstream: up, Idle: p.idle,
	})
	ev.Event.BytesUp, ev.Event.BytesDn = uint64(stats.Up), uint64(stats.Down)
	reason, detail := outcome(ctx, err)
	if reason == "" {
		return
	}
	ev.Fail(reason, detail)
	if e, ok := errors.AsType[*http1.SyntaxError](err); ok && !stats.Answered {
		c.Answer(e.Status, http1.ErrorBody{Error: e.Reason, Detail: e.Detail, RequestID: string(c.ID)})
	}
}

// outcome says how an allowed connection ended; the empty reason is an ordinary
// end.
func outcome(ctx context.Context, err error) (core.Reason, string) {
	syntax, ok := errors.AsType[*http1.SyntaxError](err)
	switch {
	case err == nil:
		return "", ""
	case errors.Is(context.Cause(ctx), errRevoked):
		return core.ReasonPolicyChanged, errRevoked.Error()
	case ctx.Err() != nil:
		return core.ReasonShutdown, "the daemon is stopping"
	case errors.Is(err, relay.ErrIdle):
		return core.ReasonIdle, err.Error()
	case ok:
		return syntax.Reason, syntax.Detail
	default:
		return core.ReasonClientClosed, "the connection was cut by one of its ends"
	}
}

// describe notes what was asked for and names the stage that answers it.
func describe(ev *record.Entry, c *listen.Conn) core.Stage {
	t := c.Target()
	ev.Event.Host, ev.Event.Port = t.Host, t.Port
	if c.Kind == listen.Tunnel {
		return core.StageConnect
	}
	ev.Event.Method, ev.Event.Path = c.Request.Method, t.Path
	return core.StageForward
}

// refuse records a denial and answers it.
func (p *path) refuse(ev *record.Entry, c *listen.Conn, stage core.Stage, status int, reason core.Reason, detail string) {
	ev.Deny(stage, reason, detail)
	c.Answer(status, http1.ErrorBody{Error: reason, Detail: detail, RequestID: string(c.ID)})
}

// refuseDial answers a destination that is refused for its addresses with 403, and
// one that cannot be reached with 502 or 504: allowed, but failed.
func (p *path) refuseDial(ctx context.Context, ev *record.Entry, c *listen.Conn, stage core.Stage, err error) {
	if errors.Is(context.Cause(ctx), errRevoked) {
		p.refuse(ev, c, stage, 403, core.ReasonPolicyChanged, errRevoked.Error())
		return
	}
	reason, detail, status := core.ReasonInternal, "the connection could not be made", 502
	if e, ok := errors.AsType[*relay.Error](err); ok {
		reason, detail = e.Reason, e.Detail
	}
	switch reason {
	case core.ReasonSSRFDenied:
		p.refuse(ev, c, core.StageSSRF, 403, reason, detail)
		return
	case core.ReasonUpstreamTimeout:
		status = 504
	}
	ev.Fail(reason, detail)
	c.Answer(status, http1.ErrorBody{Error: reason, Detail: detail, RequestID: string(c.ID)})
}
