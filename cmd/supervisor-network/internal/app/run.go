package app

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"

	"golang.org/x/sync/errgroup"

	"github.com/splitpod/splitpod/api/supervisor/link"
	"github.com/splitpod/splitpod/cmd/supervisor-network/internal/advisor"
	"github.com/splitpod/splitpod/cmd/supervisor-network/internal/control"
	"github.com/splitpod/splitpod/cmd/supervisor-network/internal/identify"
	"github.com/splitpod/splitpod/cmd/supervisor-network/internal/listen"
	"github.com/splitpod/splitpod/cmd/supervisor-network/internal/proxy"
	"github.com/splitpod/splitpod/pkg/core"
)

// run binds every listener, then starts everything, and ends with the first
// failure or with ctx.
func (d *daemon) run(ctx context.Context, digest string) (err error) {
	l, err := d.bind(ctx)
	defer l.close()
	if err != nil {
		return err
	}
	// Records outlive everything that makes them, and so does what is made of them.
	stopRecords := d.startRecords(ctx)
	defer func() { err = errors.Join(err, stopRecords()) }()
	defer d.refusals.flushAll()
	advising, stopAdvising := context.WithCancel(context.WithoutCancel(ctx))
	advised := make(chan error, 1)
	go func() { advised <- l.decisions.Run(advising) }()
	defer func() {
		stopAdvising()
		<-advised
	}()
	d.lifecycle(core.EventStarted, Build().String())
	d.unsure(d.inbox.Unsure())
	defer d.lifecycle(core.EventStopped, "")

	d.warnOfDescriptors()
	g, ctx := errgroup.WithContext(ctx)
	if l.proxy != nil {
		d.attach.served.Add(1)
		g.Go(func() error {
			defer d.attach.served.Done()
			return d.accept(ctx, l.proxy.(*net.TCPListener), d.identifier(""))
		})
	}
	if l.admin != nil {
		g.Go(func() error { return d.admin().Run(ctx, l.admin) })
		g.Go(func() error { return d.window.Run(ctx) })
	}
	if l.contract != nil {
		// The contract outlives what it is needed for.
		contractCtx, endContract := context.WithCancel(context.WithoutCancel(ctx))
		defer endContract()
		g.Go(func() error { return d.hub.Run(contractCtx, l.contract) })
		g.Go(func() error {
			defer endContract()
			d.drained(ctx, d.hub.Attached)
			return nil
		})
	}
	g.Go(func() error { return d.pool.Run(ctx) })
	g.Go(func() error { return d.refusals.run(ctx) })
	g.Go(func() error { d.runVault(ctx); return nil })
	g.Go(func() error { d.inference.Run(ctx); return nil })
	g.Go(func() error { d.state.watch(ctx, d.log); return nil })
	g.Go(func() error { spreadOn(ctx, cgroups); return nil })
	g.Go(func() error { d.follow(ctx, digest); return nil })
	return g.Wait()
}

// listeners is what this daemon itself accepts on; nil: it does not.
type listeners struct {
	proxy, admin net.Listener
	contract     *link.Listener
	decisions    advisor.Listener

	bound []io.Closer
}

func (l *listeners) close() {
	for _, c := range l.bound {
		c.Close()
	}
}

// bind opens every listener that is configured. What it opened is the caller's to close,
// also when it fails.
func (d *daemon) bind(ctx context.Context) (l listeners, err error) {
	tcp := func(flag, addr string) (net.Listener, error) {
		if addr == "" {
			return nil, nil
		}
		var lc net.ListenConfig
		bound, err := lc.Listen(ctx, "tcp", addr)
		if err != nil {
			return nil, fmt.Errorf("bind %s (%s): %w", addr, flag, err)
		}
		l.bound = append(l.bound, bound)
		return bound, nil
	}
	if l.proxy, err = tcp("--listen", d.cfg.Listen); err != nil {
		return l, err
	}
	if l.admin, err = tcp("--admin-listen", d.cfg.AdminListen); err != nil {
		return l, err
	}
	if l.decisions, err = d.advisor.Listen(ctx); err != nil {
		return l, fmt.Errorf("--state-dir: %w", err)
	}
	l.bound = append(l.bound, l.decisions)
	if d.hub == nil {
		return l, nil
	}
	claim, err := link.Claim(d.cfg.RunDir)
	if err != nil {
		return l, fmt.Errorf("--run-dir: %w", err)
	}
	l.bound = append(l.bound, claim)
	if l.contract, err = d.hub.Listen(); err != nil {
		return l, fmt.Errorf("--run-dir: %w", err)
	}
	l.bound = append(l.bound, l.contract)
	return l, nil
}

// accept serves one listener until ctx ends.
func (d *daemon) accept(ctx context.Context, l *net.TCPListener, who identify.Identifier) error {
	p := &proxy.Path{
		Identify: who, Policy: d.engine, Dialer: d.dialer, Mint: d.mint, Pool: d.pool, HTTP2: d.http2, Record: d.record, Meter: d.meter, Live: &d.live, Assemblies: d.assemblies, Vault: d.vault, Bodies: d.bodies, Places: d.places, Windows: &d.windows,
		HeadTimeout: d.cfg.HeadTimeout, Idle: d.cfg.IdleTimeout, IgnoreIdentity: d.cfg.Identity != "process", Advise: d.cfg.AgentProposals, Local: d.advisor.Local(), Inference: d.inference, Stopping: ctx,
	}
	return listen.Serve(ctx, l, listen.Options{
		HeadTimeout: d.cfg.HeadTimeout, DrainTimeout: d.cfg.DrainTimeout, Gauge: d.gauge, Log: d.log,
	}, p.Serve)
}

// identifier answers for the listeners of one process daemon instance; with the
// empty instance, for whichever is attached.
func (d *daemon) identifier(instance core.InstanceID) identify.Identifier {
	if d.hub == nil {
		return identify.Identifier{}
	}
	return identify.Identifier{Asker: asker{d.hub}, Instance: instance}
}

// asker asks whichever process daemon is attached when no instance is named.
type asker struct{ hub *control.Hub }

func (a asker) Identify(ctx context.Context, instance core.InstanceID, id core.RequestID, t core.Tuple) core.Identity {
	if instance == "" {
		peer, ok := a.hub.Attached()
		if !ok {
			return core.Identity{Status: core.IdentityNotReady, Detail: "no process daemon is attached"}
		}
		instance = peer.Instance
	}
	return a.hub.Identify(ctx, instance, id, t)
}
