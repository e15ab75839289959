// Package fence watches what the workload's fence refuses, and that the fence is what was
// installed.
//
// It answers the threats of an attempt to get around the proxy that nobody hears of (the
// kernel's log is rate-limited and has details, its counters are not and have none; together
// every refusal is reported exactly once), of one that waits for ever (a held TCP attempt is
// ended when its program is known, or soon without), and of rules that somebody changed (the
// first sign is reported, and ends the sandbox). It refuses nothing itself: the rules do
// (isolate/nft).
//
// Invariant: no packet is counted twice; an answer of a listener is never ended as an
// attempt, which the workload could choose.
package fence

import (
	"context"
	"errors"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"

	"github.com/splitpod/splitpod/cmd/supervisor-process/internal/launch"
	"github.com/splitpod/splitpod/cmd/supervisor-process/internal/watch/nflog"
	"github.com/splitpod/splitpod/pkg/core"
)

const (
	// interval is how often the fence is counted and compared with what was installed.
	interval = time.Second
	// maxAttributions bounds the searches for owners of direct connections.
	maxAttributions = 16
	// holdTimeout is how long a direct connection waits for its refusal at most. Its program
	// is looked for longer: it usually still has the socket, dead as that is.
	holdTimeout        = 40 * time.Millisecond
	attributionTimeout = 200 * time.Millisecond
	// queryTimeout bounds a question to the kernel.
	queryTimeout = 5 * time.Second
)

// State is what the kernel says of the fence now.
type State struct {
	Refused map[string]uint64 // packets, by class
	Damage  string            // how the rules differ from what was installed; empty: not at all
}

// Watch is one fence. The fields are set before Run; what readiness asks may be asked before.
type Watch struct {
	Log      nflog.Reader
	Held     bool // the fence holds logged TCP attempts until End
	Query    func(ctx context.Context) (State, error)
	Identify func(ctx context.Context, t core.Tuple) core.Identity
	End      func(t core.Tuple) error
	Report   func(ev core.Event)
	Kill     func() // ends the sandbox
	Logger   *slog.Logger

	logged   atomic.Uint64 // packets reported with details
	counted  atomic.Uint64 // packets reported without
	damaged  atomic.Bool
	verified atomic.Pointer[time.Time] // of the last good comparison
}

// Fresh reports whether the fence was compared lately, and is undamaged. The monotonic clock
// says so: with the other one set back, a fence that nobody reads any more would count as
// compared for hours.
func (w *Watch) Fresh(now time.Time) bool {
	at := w.verified.Load()
	return !w.damaged.Load() && at != nil && now.Sub(*at) < 10*interval
}

// Verified is the time of the last good comparison, zero without one.
func (w *Watch) Verified() time.Time {
	if at := w.verified.Load(); at != nil {
		return *at
	}
	return time.Time{}
}

// Damaged reports whether the rules were not those that were installed.
func (w *Watch) Damaged() bool { return w.damaged.Load() }

// Run watches until ctx ends, and then reports what is left.
func (w *Watch) Run(ctx context.Context) {
	reading, stop := context.WithCancel(context.WithoutCancel(ctx))
	var reader sync.WaitGroup
	defer reader.Wait()
	defer stop()
	reader.Go(func() { w.read(reading) })
	tick := time.NewTicker(interval)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			w.check(context.WithoutCancel(ctx))
			return
		case <-tick.C:
			w.check(ctx)
		}
	}
}

// read reports what the fence logs, and waits for the searches under way.
func (w *Watch) read(ctx context.Context) {
	slots := make(chan struct{}, maxAttributions)
	again(ctx, interval, func() error {
		err := w.Log.Read(ctx, func(p nflog.Packet) { w.refused(p, slots) })
		if err != nil {
			w.Logger.Error("the fence's log cannot be read; until it can, refusals are only counted, and held connections wait", slog.Any("error", err))
		}
		return err
	})
	for range maxAttributions {
		slots <- struct{}{}
	}
}

// again runs f until ctx ends, or f without an error; after one it pauses.
func again(ctx context.Context, pause time.Duration, f func() error) {
	for ctx.Err() == nil && f() != nil {
		select {
		case <-ctx.Done():
		case <-time.After(pause):
		}
	}
}

// refused reports one packet. A TCP attempt that the fence holds is ended as soon as
// its program is known, or at once when too many wait. An answer is no attempt: to end it
// would end the listener that gave it, which the workload could choose.
func (w *Watch) refused(p nflog.Packet, slots chan struct{}) {
	w.logged.Add(1)
	if p.Proto != "tcp" || p.Reply || !w.Held {
		w.report(p, core.Identity{UID: p.UID})
		return
	}
	attempt := core.Tuple{Client: p.Src, Server: p.Dst}
	select {
	case slots <- struct{}{}:
	default:
		w.end(attempt)
		w.report(p, core.Identity{UID: p.UID})
		return
	}
	go func() {
		defer func() { <-slots }()
		ctx, cancel := context.WithTimeout(context.Background(), attributionTimeout)
		defer cancel()
		end := sync.OnceFunc(func() { w.end(attempt) })
		patience := time.AfterFunc(holdTimeout, end)
		defer patience.Stop()
		who := w.Identify(ctx, attempt)
		end()
		if who.Status != core.IdentityKnown {
			who = core.Identity{UID: p.UID}
		}
		w.report(p, who)
	}()
}

func (w *Watch) end(t core.Tuple) {
	if err := w.End(t); err != nil {
		w.Logger.Warn("a direct connection was not ended; it will time out", slog.Any("error", err))
	}
}

func (w *Watch) report(p nflog.Packet, who core.Identity) {
	w.Report(core.Event{
		Kind: core.EventBypass, Stage: core.StageBypass, Severity: core.SeverityMedium, Verdict: core.Deny, Reason: core.ReasonBypass,
		Detail: detail(p), Protocol: p.Proto, Host: p.Dst.Addr().String(),
		Port: p.Dst.Port(), UID: who.UID, Process: who.Process, Program: who.Program, Ancestors: who.Ancestors,
	})
}

// check compares the rules with what was installed and reports the packets that the log left
// out.
func (w *Watch) check(watched context.Context) {
	ctx, cancel := context.WithTimeout(watched, queryTimeout)
	defer cancel()
	state, err := w.Query(ctx)
	if err != nil {
		if watched.Err() == nil && !errors.Is(err, launch.ErrEnded) {
			w.Logger.Error("the fence cannot be read; the daemon is not ready until it can", slog.Any("error", err))
		}
		return
	}
	w.judge(state.Damage)
	var total uint64
	for _, n := range state.Refused {
		total += n
	}
	if total <= w.logged.Load()+w.counted.Load() {
		return
	}
	w.drain(ctx)
	known := w.logged.Load() + w.counted.Load()
	if total <= known {
		return
	}
	w.counted.Add(total - known)
	w.Report(core.Event{
		Kind: core.EventBypass, Stage: core.StageBypass, Severity: core.SeverityMedium, Verdict: core.Deny, Reason: core.ReasonBypass,
		Detail: "more direct connections were refused than are logged one by one", Count: total - known,
	})
}

// drain waits until the log's packets are taken that the kernel has counted: one that is
// taken later would be reported twice.
func (w *Watch) drain(ctx context.Context) {
	for pause := 50 * time.Millisecond; ctx.Err() == nil; pause = 5 * time.Millisecond { // what is logged is queued soon
		time.Sleep(pause)
		if drained, err := w.Log.Drained(); drained || err != nil {
			return
		}
	}
}

// judge records the first sign of damage. The namespace has no interface but lo, so that
// damage opens nothing; it means that somebody has a right they must not have, and the
// sandbox ends.
func (w *Watch) judge(damage string) {
	if damage == "" {
		now := time.Now()
		w.verified.Store(&now)
		return
	}
	if w.damaged.Swap(true) {
		return
	}
	w.Report(core.Event{Kind: core.EventFinding, Stage: core.StageBypass, Severity: core.SeverityCritical, Reason: core.EventFenceDamaged, Detail: damage})
	w.Kill() // before the log, whose reader may make whoever writes to it wait
	w.Logger.Error("the fence is not what was installed; the sandbox is ended", slog.String("difference", damage))
}
