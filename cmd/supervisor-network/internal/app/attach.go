package app

import (
	"context"
	"log/slog"
	"net"
	"path/filepath"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/splitpod/splitpod/api/supervisor/link"
	"github.com/splitpod/splitpod/pkg/core"
)

// attachState is what is known of the attached process daemon.
type attachState struct {
	mu       sync.Mutex
	peer     core.Peer     // guarded by mu; zero: none
	workload core.Workload // guarded by mu
	taking   bool          // guarded by mu; its listeners are being taken over
	serving  bool          // guarded by mu; its listeners are being served
	unserved string        // guarded by mu; why they were not, the last time; empty: nothing failed
	refused  string        // guarded by mu; why the last peer was; empty: none since one attached
	stopping bool          // guarded by mu; nothing new is served
	stop     func()        // guarded by mu; ends accepting; nil: nothing is served

	served sync.WaitGroup // the loops that accept, until their connections are drained
}

// drained stops accepting for the workload when ctx ends, and returns when its
// connections have ended and what the process daemon has to hear is delivered. Until
// then the contract stays up: a connection that is drained is still identified.
func (d *daemon) drained(ctx context.Context, attached func() (core.Peer, bool)) {
	<-ctx.Done()
	d.attach.mu.Lock()
	d.attach.stopping = true
	if d.attach.stop != nil {
		d.attach.stop()
	}
	d.attach.mu.Unlock()
	d.attach.served.Wait()
	for deadline := time.Now().Add(flushTimeout); d.box.Stats().Waiting > 0 && time.Now().Before(deadline); {
		if _, ok := attached(); !ok {
			return
		}
		time.Sleep(5 * time.Millisecond)
	}
}

// Bounds of the end: of the delivery of the last events to the process daemon, and of the
// last records to the log and to a collector, which package export gives five seconds.
const (
	flushTimeout   = 2 * time.Second
	recordsTimeout = 7 * time.Second
)

// Attached implements control.Handler.
func (d *daemon) Attached(_ context.Context, peer core.Peer) {
	a := &d.attach
	a.mu.Lock()
	defer a.mu.Unlock()
	a.peer, a.workload, a.taking, a.serving, a.unserved, a.refused = peer, core.Workload{}, false, false, "", ""
	d.lifecycle(core.EventProcessAttached, peer.Build.String())
}

// Detached implements control.Handler.
func (d *daemon) Detached(peer core.Peer) {
	a := &d.attach
	a.mu.Lock()
	defer a.mu.Unlock()
	a.peer, a.workload, a.taking, a.serving = core.Peer{}, core.Workload{}, false, false
	d.policies.serving("")
	d.tellGateway(core.Workload{})
	d.lifecycle(core.EventProcessDetached, peer.Build.String())
}

// Workload implements control.Handler: resolved links first, then the listeners,
// and only then the word that this daemon is ready for them.
func (d *daemon) Workload(ctx context.Context, w core.Workload) {
	a := &d.attach
	a.mu.Lock()
	defer a.mu.Unlock()
	if ctx.Err() != nil || a.peer.Instance != w.Instance {
		return
	}
	before := a.workload
	a.workload = w
	d.tellGateway(w)
	if w.ResolvedGeneration != before.ResolvedGeneration {
		if err := d.policies.resolvedAs(ctx, w.ResolvedGeneration, w.Resolved); err != nil {
			d.log.Error("resolved binaries cannot be used", slog.Any("error", err))
			return
		}
	}
	if a.peer.Mode == core.ModeSandbox && !a.taking && w.Phase >= core.PhasePrepared && w.ResolvedGeneration != 0 {
		a.taking = true
		go d.takeOver(ctx, w.Instance)
	}
}

// Pauses between attempts to take listeners over. The longest is short: the workload has no
// egress meanwhile.
const (
	shortestPause = 200 * time.Millisecond
	longestPause  = 2 * time.Second
)

// takeOver fetches the listeners and serves them, again when either fails, until the process
// daemon is gone or this daemon stops.
func (d *daemon) takeOver(ctx context.Context, instance core.InstanceID) {
	for pause := shortestPause; ; pause = min(2*pause, longestPause) {
		listeners, err := d.hub.FetchListeners(ctx, instance)
		if err == nil {
			err = d.serveListeners(ctx, instance, listeners)
		}
		if err == nil || !d.attach.failed(ctx, err) {
			return
		}
		d.log.Error("the workload's listeners are not served", slog.Any("error", err))
		select {
		case <-ctx.Done():
			return
		case <-time.After(pause):
		}
	}
}

// failed notes why nobody accepts for the process daemon of ctx; false: nobody has to.
func (a *attachState) failed(ctx context.Context, err error) bool {
	a.mu.Lock()
	defer a.mu.Unlock()
	if ctx.Err() != nil || a.stopping {
		return false
	}
	a.serving, a.unserved = false, err.Error()
	return true
}

// serveListeners accepts for one process daemon instance until it is gone, this daemon stops,
// or accepting fails.
func (d *daemon) serveListeners(ctx context.Context, instance core.InstanceID, listeners []*net.TCPListener) error {
	ctx, ok := d.startServing(ctx, instance)
	if !ok {
		for _, l := range listeners {
			l.Close()
		}
		return nil
	}
	defer d.attach.served.Done()
	g, ctx := errgroup.WithContext(ctx)
	for _, l := range listeners {
		g.Go(func() error {
			defer l.Close()
			return d.accept(ctx, l, d.identifier(instance))
		})
	}
	return g.Wait()
}

// startServing says that an instance is served, until the context it returns ends.
func (d *daemon) startServing(ctx context.Context, instance core.InstanceID) (serving context.Context, ok bool) {
	a := &d.attach
	a.mu.Lock()
	defer a.mu.Unlock()
	if ctx.Err() != nil || a.stopping {
		return nil, false
	}
	if a.stop != nil {
		a.stop() // of what was served before
	}
	a.serving = true
	a.served.Add(1)
	ctx, a.stop = context.WithCancel(ctx)
	d.policies.serving(instance)
	return ctx, true
}

// Events implements control.Handler. The last record is written after all others.
func (d *daemon) Events(evs []core.Event) {
	for i := range evs {
		d.record.Event(evs[i], i == len(evs)-1)
	}
}

// inboxFile is where in the state directory the Inbox notes what it took.
const inboxFile = "events"

// openInbox goes on where an earlier instance stopped to take the process daemon's
// events.
func (d *daemon) openInbox() (*link.Inbox, error) {
	return link.OpenInbox(filepath.Join(d.cfg.StateDir, inboxFile), func(err error) {
		d.log.Error("events may be counted again after a restart", slog.Any("error", err))
	})
}

// unsure records that an earlier instance was killed while it took events.
func (d *daemon) unsure(n uint64) {
	if n == 0 {
		return
	}
	d.record.Event(core.Event{Kind: core.EventFinding, Time: time.Now(), Instance: d.instance, Stage: core.StageControl,
		Severity: core.SeverityLow, Reason: core.EventRecordsUnsure, Count: n,
		Detail: "an earlier instance was killed while it recorded events of the process daemon, whose own records have them"}, true)
}

// Refused implements control.Handler.
func (d *daemon) Refused(err error) {
	d.attach.mu.Lock()
	d.attach.refused = err.Error()
	d.attach.mu.Unlock()
	d.record.Own(core.Event{Kind: core.EventFinding, Stage: core.StageControl, Severity: core.SeverityHigh,
		Reason: core.EventPeerRefused, Detail: err.Error()})
	d.log.Warn("a peer on the contract was refused", slog.Any("error", err))
}
