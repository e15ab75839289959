package app

import (
	"context"
	"errors"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"

	"github.com/splitpod/splitpod/cmd/supervisor-process/internal/app/inside"
	"github.com/splitpod/splitpod/cmd/supervisor-process/internal/launch"
	"github.com/splitpod/splitpod/cmd/supervisor-process/internal/watch/nflog"
	"github.com/splitpod/splitpod/pkg/core"
)

// fenceInterval is how often the fence is counted and compared with what was
// installed.
const fenceInterval = time.Second

// fence is what is known of refused packets. The log is rate-limited and carries
// details, the kernel's counters are not and carry none; together every refusal is
// reported exactly once.
type fence struct {
	logged   atomic.Uint64 // packets reported with details
	counted  atomic.Uint64 // packets reported without
	damaged  atomic.Bool
	verified atomic.Pointer[time.Time] // of the last good comparison
	log      nflog.Reader
}

// fresh reports whether the fence was compared lately. The monotonic clock says so: with
// the other one set back, a fence that nobody reads any more would count as compared for
// hours.
func (f *fence) fresh(now time.Time) bool {
	at := f.verified.Load()
	return !f.damaged.Load() && at != nil && now.Sub(*at) < 10*fenceInterval
}

// verifiedAt is the time of the last good comparison, zero without one.
func (f *fence) verifiedAt() time.Time {
	if at := f.verified.Load(); at != nil {
		return *at
	}
	return time.Time{}
}

// watch reports what the fence and the filters of system calls refuse until the returned
// function is called, which reports what is left.
func (d *daemon) watch(ctx context.Context) (stop func()) {
	ctx, cancel := context.WithCancel(ctx)
	var wg sync.WaitGroup
	d.fence.log.File = d.sandbox.Files[inside.FileNFLog]
	wg.Go(func() {
		slots := make(chan struct{}, maxAttributions)
		again(ctx, fenceInterval, func() error {
			err := d.fence.log.Read(ctx, func(p nflog.Packet) { d.refused(p, slots) })
			if err != nil {
				d.log.Error("the fence's log cannot be read; until it can, refusals are only counted, and held connections wait", slog.Any("error", err))
			}
			return err
		})
		for range maxAttributions { // wait for those under way
			slots <- struct{}{}
		}
	})
	stopCalls := d.watchCalls(ctx)
	wg.Go(func() {
		tick := time.NewTicker(fenceInterval)
		defer tick.Stop()
		for {
			select {
			case <-ctx.Done():
				return
			case <-tick.C:
				d.checkFence(ctx)
			}
		}
	})
	return func() {
		stopCalls()
		d.checkFence(context.WithoutCancel(ctx))
		cancel()
		wg.Wait()
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

// maxAttributions bounds the searches for owners of direct connections.
const maxAttributions = 16

// refused reports one packet. A TCP attempt that the fence holds is ended as soon as
// its program is known, or at once when too many wait. An answer is no attempt: to end it
// would end the listener that gave it, which the workload could choose.
func (d *daemon) refused(p nflog.Packet, slots chan struct{}) {
	d.fence.logged.Add(1)
	if p.Proto != "tcp" || p.Reply || !d.held {
		d.reportRefused(p, core.Identity{UID: p.UID})
		return
	}
	attempt := core.Tuple{Client: p.Src, Server: p.Dst}
	select {
	case slots <- struct{}{}:
	default:
		d.endAttempt(attempt)
		d.reportRefused(p, core.Identity{UID: p.UID})
		return
	}
	go func() {
		defer func() { <-slots }()
		ctx, cancel := context.WithTimeout(context.Background(), attributionTimeout)
		defer cancel()
		end := sync.OnceFunc(func() { d.endAttempt(attempt) })
		patience := time.AfterFunc(holdTimeout, end)
		defer patience.Stop()
		who := d.resolver.Load().Identify(ctx, attempt)
		end()
		if who.Status != core.IdentityKnown {
			who = core.Identity{UID: p.UID}
		}
		d.reportRefused(p, who)
	}()
}

// holdTimeout is how long a direct connection waits for its refusal at most. Its program
// is looked for longer: it usually still has the socket, dead as that is.
const (
	holdTimeout        = 40 * time.Millisecond
	attributionTimeout = 200 * time.Millisecond
)

func (d *daemon) endAttempt(t core.Tuple) {
	if err := d.resolver.Load().End(t); err != nil {
		d.log.Warn("a direct connection was not ended; it will time out", slog.Any("error", err))
	}
}

func (d *daemon) reportRefused(p nflog.Packet, who core.Identity) {
	d.report.Own(core.Event{
		Kind: core.EventBypass, Stage: core.StageBypass, Severity: core.SeverityMedium, Verdict: core.Deny, Reason: core.ReasonBypass,
		Detail: detail(p), Protocol: p.Proto, Host: p.Dst.Addr().String(),
		Port: p.Dst.Port(), UID: who.UID, Process: who.Process, Program: who.Program, Ancestors: who.Ancestors,
	})
}

// detail says what was refused and what would work in its place.
func detail(p nflog.Packet) string {
	if p.Reply {
		return "an answer to a connection from an address outside loopback was refused; let whoever connects to loopback bind to no address"
	}
	return "a direct connection was refused; " + hint(p.Proto, p.Dst.Port())
}

// hint says what would work in place of a direct connection.
func hint(proto string, port uint16) string {
	switch {
	case port == 53 && (proto == "udp" || proto == "tcp"):
		return "names are resolved by the proxy: give it the name (HTTPS_PROXY, HTTP_PROXY) in place of asking a resolver"
	case proto == "tcp":
		return "use the proxy (HTTPS_PROXY, HTTP_PROXY); node needs NODE_USE_ENV_PROXY=1, which is set here, and a version that knows it"
	case proto == "udp":
		return "there is no UDP out of here, QUIC included; use TCP through the proxy (HTTPS_PROXY, HTTP_PROXY)"
	default:
		return "only TCP through the proxy (HTTPS_PROXY, HTTP_PROXY) leads out"
	}
}

// checkFence compares the rules with what was installed and reports the packets
// that the log left out.
func (d *daemon) checkFence(watched context.Context) {
	ctx, cancel := context.WithTimeout(watched, 5*time.Second)
	defer cancel()
	var state inside.Fence
	query := inside.QueryFence
	if d.held {
		query = inside.QueryHoldingFence
	}
	if err := d.sandbox.Query(ctx, query, &state); err != nil {
		if watched.Err() == nil && !errors.Is(err, launch.ErrEnded) {
			d.log.Error("the fence cannot be read; the daemon is not ready until it can", slog.Any("error", err))
		}
		return
	}
	d.judgeFence(state.Damage)
	var total uint64
	for _, n := range state.Refused {
		total += n
	}
	if total <= d.fence.logged.Load()+d.fence.counted.Load() {
		return
	}
	d.fence.drain(ctx)
	known := d.fence.logged.Load() + d.fence.counted.Load()
	if total <= known {
		return
	}
	d.fence.counted.Add(total - known)
	d.report.Own(core.Event{
		Kind: core.EventBypass, Stage: core.StageBypass, Severity: core.SeverityMedium, Verdict: core.Deny, Reason: core.ReasonBypass,
		Detail: "more direct connections were refused than are logged one by one", Count: total - known,
	})
}

// drain waits until the log's packets are taken that the kernel has counted: one that is
// taken later would be reported twice.
func (f *fence) drain(ctx context.Context) {
	for pause := 50 * time.Millisecond; ctx.Err() == nil; pause = 5 * time.Millisecond { // what is logged is queued soon
		time.Sleep(pause)
		if drained, err := f.log.Drained(); drained || err != nil {
			return
		}
	}
}

// judgeFence records the first sign of damage. The namespace has no interface but
// lo, so that damage opens nothing; it means that somebody has a right they must
// not have, and the sandbox ends.
func (d *daemon) judgeFence(damage string) {
	if damage == "" {
		now := time.Now()
		d.fence.verified.Store(&now)
		return
	}
	if d.fence.damaged.Swap(true) {
		return
	}
	d.report.Own(core.Event{Kind: core.EventFinding, Stage: core.StageBypass, Severity: core.SeverityCritical, Reason: core.EventFenceDamaged, Detail: damage})
	d.log.Error("the fence is not what was installed; the sandbox is ended", slog.String("difference", damage))
	d.sandbox.Kill()
}
