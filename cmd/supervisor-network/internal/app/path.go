package app

import (
	"context"
	"net"
	"time"

	"github.com/splitpod/splitpod/cmd/supervisor-network/internal/decide"
	"github.com/splitpod/splitpod/cmd/supervisor-network/internal/identify"
	"github.com/splitpod/splitpod/cmd/supervisor-network/internal/inject/placeholder"
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

// path is the way of a connection, for the listeners of one process daemon
// instance.
type path struct {
	identify       identify.Identifier
	policy         *decide.Engine
	dialer         dialer
	mint           *mint.Server
	pool           *pool.Pool
	http2          *h2.Pool
	record         *record.Recorder
	meter          *observe.Meter
	live           *live
	headTimeout    time.Duration
	idle           time.Duration
	ignoreIdentity bool
	assemblies     *websocket.Assemblies
	local          *policylocal.Server
	vault          *vault
	bodies         *hold.Bodies
	places         *places
	windows        *http2.Windows
	advise         bool            // tell refused agents how to propose a change
	stopping       context.Context // ended when no new request is taken
}

// dialer opens connections to what is permitted: a relay.Dialer.
type dialer interface {
	Dial(context.Context, decide.Permit) (*net.TCPConn, error)
}

// serve walks one connection down the line: a tunnel has one decision about where
// it may lead, and what is inspected in it one more for every request; a connection
// of absolute-form requests has both for each of them. Every way out leaves one
// record, and every refusal is recorded before it is answered.
func (p *path) serve(ctx context.Context, c *listen.Conn) {
	ev := p.record.Begin(c.ID, c.Accepted)
	defer ev.End()
	ev.Event.Source = c.Tuple.Client

	if c.Err != nil { // listen could not make a request of it
		p.refuse(ev, c, malformed(core.StageListen, c.Err))
		return
	}
	who := p.who(ctx, ev, c)
	if c.Kind == listen.Forward {
		p.forward(ctx, ev, c, who)
		return
	}
	ctx, g, entry, inspected := p.admit(ctx, ev, c, who)
	if entry == nil {
		return
	}
	defer entry.leave()
	if inspected {
		p.inspect(ctx, ev, c, g, entry)
	} else {
		p.tunnel(ctx, ev, c, g, entry)
	}
}

// who identifies the program that connected.
func (p *path) who(ctx context.Context, ev *record.Entry, c *listen.Conn) *core.Identity {
	who := &core.Identity{}
	if !p.ignoreIdentity {
		*who = p.identify.Peer(ctx, c.ID, c.Tuple)
		ev.Who(*who)
	}
	return who
}

// admit decides about a tunnel, makes one that is allowed known, and says whether it is
// looked into. entry is nil when it refused. It is not inlined, nor are others that end
// before a connection waits: what they need would lie on the stack of every one that does.
//
//go:noinline
func (p *path) admit(outer context.Context, ev *record.Entry, c *listen.Conn, who *core.Identity) (ctx context.Context, _ *grant, entry *liveEntry, inspected bool) {
	ev.Event.Host, ev.Event.Port = c.Target().Host, c.Target().Port
	g, denial := p.ask(outer, decide.Question{Who: who, Host: c.Target().Host, Port: c.Target().Port})
	if denial == nil {
		ctx, entry, denial = p.enter(outer, ev, core.StageConnect, &g)
	}
	if denial != nil {
		p.refuse(ev, c, denied(core.StageConnect, denial))
		return nil, nil, nil, false
	}
	watched := p.vault.guarded(g.permit)
	if watched && g.permit.Opaque() {
		p.refuse(ev, c, uninspected(core.StageConnect))
		entry.leave()
		return nil, nil, nil, false
	}
	return ctx, &g, entry, watched || g.permit.Inspected()
}

// refuse records why a connection or its first request is not carried and answers it.
func (p *path) refuse(ev *record.Entry, c *listen.Conn, r *refusal) {
	note(ev, r)
	c.Answer(r.status, r.body(&asked{id: c.ID}))
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
