// Package proxy is the way of a connection, from the head that listen read to the record
// of how it ended.
//
// It answers the threats of bytes that go where nobody decided they may, of a request that
// is carried otherwise than it was judged, and of one that leaves no trace: whatever version
// of HTTP a request comes in, one judge decides about it (judge.go), what the origin gets is
// written anew of what was judged, every way out leaves a record, and a policy that comes
// later judges all that is under way once more (live.go). What is right it does not know:
// that is decide's alone, and without its Permit nothing here can dial or put a credential
// in.
//
//	path, grant, live               the line itself, its permission, and how that ends
//	tunnel, inspect                 bytes that pass unread, and when they are looked into
//	session, carry, newer           requests of HTTP/1.1, one after the other
//	streams                         requests of HTTP/2, side by side
//	judge, refusal                  what both are, what rules say, and what the workload hears
//	upgrade, streamsocket, socket   WebSockets of both, and their messages
//	seal                            credentials in requests, messages and answers
//	infer, local                    what this daemon itself answers for
//
// Invariant: every connection and request leaves one record, and a refusal is recorded
// before it is answered.
package proxy

import (
	"context"
	"net"
	"time"

	"github.com/splitpod/splitpod/cmd/supervisor-network/internal/decide"
	"github.com/splitpod/splitpod/cmd/supervisor-network/internal/identify"
	"github.com/splitpod/splitpod/cmd/supervisor-network/internal/inference"
	"github.com/splitpod/splitpod/cmd/supervisor-network/internal/inject/placeholder"
	"github.com/splitpod/splitpod/cmd/supervisor-network/internal/inject/seal"
	"github.com/splitpod/splitpod/cmd/supervisor-network/internal/inspect/hold"
	"github.com/splitpod/splitpod/cmd/supervisor-network/internal/inspect/http2"
	"github.com/splitpod/splitpod/cmd/supervisor-network/internal/inspect/websocket"
	"github.com/splitpod/splitpod/cmd/supervisor-network/internal/listen"
	"github.com/splitpod/splitpod/cmd/supervisor-network/internal/mint"
	"github.com/splitpod/splitpod/cmd/supervisor-network/internal/observe"
	"github.com/splitpod/splitpod/cmd/supervisor-network/internal/policylocal"
	"github.com/splitpod/splitpod/cmd/supervisor-network/internal/record"
	"github.com/splitpod/splitpod/cmd/supervisor-network/internal/relay/h2"
	"github.com/splitpod/splitpod/cmd/supervisor-network/internal/relay/pool"
	"github.com/splitpod/splitpod/pkg/core"
)

// Path is the way of a connection, for the listeners of one process daemon
// instance. What it points to, it shares with others.
type Path struct {
	Identify       identify.Identifier
	Policy         *decide.Engine
	Dialer         Dialer
	Mint           *mint.Server
	Pool           *pool.Pool
	HTTP2          *h2.Pool
	Record         *record.Recorder
	Meter          *observe.Meter
	Live           *Live
	HeadTimeout    time.Duration
	Idle           time.Duration
	IgnoreIdentity bool
	Assemblies     *websocket.Assemblies
	Local          *policylocal.Server
	Inference      *inference.Router
	Vault          *seal.Vault
	Bodies         *hold.Bodies
	Places         *Places
	Windows        *http2.Windows
	Advise         bool            // tell refused agents how to propose a change
	Stopping       context.Context // ended when no new request is taken
}

// Dialer opens connections to what is permitted: a relay.Dialer.
type Dialer interface {
	Dial(context.Context, decide.Permit) (*net.TCPConn, error)
}

// Serve walks one connection down the line: a tunnel has one decision about where
// it may lead, and what is inspected in it one more for every request; a connection
// of absolute-form requests has both for each of them. Every way out leaves one
// record, and every refusal is recorded before it is answered.
func (p *Path) Serve(ctx context.Context, c *listen.Conn) {
	ev := p.Record.Begin(c.ID, c.Accepted)
	if rest := p.serve(ctx, ev, c); rest != nil {
		c.Later(func() {
			defer ev.End()
			rest()
		})
		return
	}
	ev.End()
}

// serve is Serve but for what it leaves of a tunnel that waits for bytes.
func (p *Path) serve(ctx context.Context, ev *record.Entry, c *listen.Conn) (rest func()) {
	ev.Event.Source = c.Tuple.Client

	if c.Err != nil { // listen could not make a request of it
		p.refuse(ev, c, malformed(core.StageListen, c.Err))
		return nil
	}
	who := p.who(ctx, ev, c)
	if c.Kind == listen.Forward {
		p.forward(ctx, ev, c, who)
		return nil
	}
	ctx, g, entry, inspected := p.admit(ctx, ev, c, who)
	if entry == nil {
		return nil
	}
	if !inspected {
		return p.tunnel(ctx, ev, c, g, entry)
	}
	defer entry.leave()
	p.inspect(ctx, ev, c, g, entry)
	return nil
}

// who identifies the program that connected.
func (p *Path) who(ctx context.Context, ev *record.Entry, c *listen.Conn) *core.Identity {
	who := &core.Identity{}
	if !p.IgnoreIdentity {
		*who = p.Identify.Peer(ctx, c.ID, c.Tuple)
		ev.Who(*who)
	}
	return who
}

// admit decides about a tunnel, makes one that is allowed known, and says whether it is
// looked into. entry is nil when it refused. It is not inlined, nor are others that end
// before a connection waits: what they need would lie on the stack of every one that does.
//
//go:noinline
func (p *Path) admit(outer context.Context, ev *record.Entry, c *listen.Conn, who *core.Identity) (ctx context.Context, _ *grant, entry *liveEntry, inspected bool) {
	ev.Event.Host, ev.Event.Port = c.Target().Host, c.Target().Port
	g, denial := p.ask(outer, decide.Question{Who: who, Host: c.Target().Host, Port: c.Target().Port})
	if denial == nil {
		ctx, entry, denial = p.enter(outer, ev, core.StageConnect, &g)
	}
	if denial != nil {
		p.refuse(ev, c, denied(core.StageConnect, denial))
		return nil, nil, nil, false
	}
	watched := p.Vault.Guarded(g.permit)
	if watched && g.permit.Opaque() {
		p.refuse(ev, c, uninspected(core.StageConnect))
		entry.leave()
		return nil, nil, nil, false
	}
	return ctx, &g, entry, watched || g.permit.Read()
}

// refuse records why a connection or its first request is not carried and answers it.
func (p *Path) refuse(ev *record.Entry, c *listen.Conn, r *refusal) {
	note(ev, r)
	c.Answer(r.status, r.body(&asked{id: c.ID, advise: p.Advise}))
}

// note records a refusal, or a failure of what was allowed.
func note(ev *record.Entry, r *refusal) {
	r.detail = placeholder.Redact(r.detail)
	if r.failed {
		ev.Fail(r.reason, r.detail)
		return
	}
	ev.Deny(r.stage, r.reason, r.detail)
}

func addressOf(c *net.TCPConn) string {
	return c.RemoteAddr().(*net.TCPAddr).AddrPort().Addr().Unmap().String()
}
