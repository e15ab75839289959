package app

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
	verified atomic.Int64 // Unix nanoseconds of the last good comparison
}

// watch reports what the fence refuses until the returned function is called,
// which reports what is left.
func (d *daemon) watch(ctx context.Context) (stop func()) {
	ctx, cancel := context.WithCancel(ctx)
	var wg sync.WaitGroup
	wg.Go(func() {
		err := nflog.Read(ctx, d.sandbox.Files[fileNFLog], d.refused)
		if err != nil && ctx.Err() == nil {
			d.log.Error("the fence's log cannot be read; refusals are only counted", slog.Any("error", err))
		}
	})
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
		d.checkFence(context.WithoutCancel(ctx))
		cancel()
		wg.Wait()
	}
}

// refused reports one packet.
func (d *daemon) refused(p nflog.Packet) {
	d.fence.logged.Add(1)
	d.report.Own(core.Event{
		Kind: core.EventBypass, Stage: core.StageBypass, Severity: core.SeverityMedium, Verdict: core.Deny, Reason: core.ReasonBypass,
		Detail: "a direct connection was refused; use the proxy (HTTPS_PROXY, HTTP_PROXY)", Protocol: p.Proto, Host: p.Dst.Addr().String(),
		Port: p.Dst.Port(), UID: p.UID,
	})
}

// checkFence compares the rules with what was installed and reports the packets
// that the log left out.
func (d *daemon) checkFence(ctx context.Context) {
	ctx, cancel := context.WithTimeout(ctx, 5*time.Second)
	defer cancel()
	var state fenceState
	if err := d.sandbox.Query(ctx, queryFence, &state); err != nil {
		if ctx.Err() == nil && !errors.Is(err, launch.ErrEnded) {
			d.log.Error("the fence cannot be read", slog.Any("error", err))
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
	time.Sleep(50 * time.Millisecond) // the log's packets of these counts are on their way
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

// judgeFence records the first sign of damage. The namespace has no interface but
// lo, so that damage opens nothing; it means that somebody has a right they must
// not have, and the sandbox ends.
func (d *daemon) judgeFence(damage string) {
	if damage == "" {
		d.fence.verified.Store(time.Now().UnixNano())
		return
	}
	if d.fence.damaged.Swap(true) {
		return
	}
	d.report.Own(core.Event{Kind: core.EventFinding, Stage: core.StageBypass, Severity: core.SeverityCritical, Reason: "fence_damaged", Detail: damage})
	d.log.Error("the fence is not what was installed; the sandbox is ended", slog.String("difference", damage))
	d.sandbox.Kill()
}
