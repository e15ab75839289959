// Package view counts what happens now, for people who watch: how much is allowed and
// refused each second, and which destinations it is about.
//
// It answers the threat of a sandbox that nobody can look into while it works. It does
// not replace records: those are complete, this is a window of at most an hour, in
// memory, in which names beyond a fixed number are counted without their names.
//
// Invariant: Record never waits for a reader and memory does not grow with what the
// workload does; what has no place of its own is counted in others, so that counts add
// up to their total. Names are data: a Snapshot holds only characters that can be seen.
//
// A record is made when a connection or request ends. So a tunnel counts as allowed
// when it is over; until then it is one of the State's live connections.
package view

import (
	"context"
	"sync"
	"sync/atomic"
	"time"

	"github.com/splitpod/splitpod/pkg/core"
)

// outcomes are the ways a connection or request can end.
const (
	allowed  = iota
	failed   // allowed, and then something went wrong
	denied   // by this daemon
	bypassed // a direct connection that the fence refused
	outcomes
)

type counts [outcomes]uint64

// The window's two resolutions.
const (
	recentStep, recentPoints = time.Second, 60
	hourStep, hourPoints     = 10 * time.Second, 360
)

// Window is what is known of the last hour. Make it with New and keep Run going; safe
// for concurrent use.
type Window struct {
	since        time.Time
	totals       [outcomes]atomic.Uint64
	denied       top
	destinations top

	mu      sync.Mutex
	sampled counts // guarded by mu; the totals that the series know of
	recent  series // guarded by mu
	hour    series // guarded by mu
}

// New makes an empty Window.
func New() *Window {
	now := time.Now()
	w := &Window{since: now, recent: newSeries(now, recentStep, recentPoints), hour: newSeries(now, hourStep, hourPoints)}
	w.sample(now)
	return w
}

// Record counts what one record tells. own is this daemon's instance.
func (w *Window) Record(e *core.Event, own core.InstanceID) {
	switch {
	case e.Kind == core.EventBypass:
		w.refused(bypassed, e)
	case e.Kind != core.EventConnection || e.Instance != own:
	case e.Verdict != core.Allow:
		w.refused(denied, e)
	case e.Reason == core.ReasonAllowed:
		w.carried(allowed, e)
	default:
		w.carried(failed, e)
	}
}

func (w *Window) refused(outcome int, e *core.Event) {
	n := e.Occurrences()
	w.totals[outcome].Add(n)
	w.denied.add(name{host: cut(e.Host), program: cut(e.Program.Path), reason: core.Reason(cut(string(e.Reason))), port: e.Port}, tally{count: n}, e)
}

func (w *Window) carried(outcome int, e *core.Event) {
	n := e.Occurrences()
	w.totals[outcome].Add(n)
	t := tally{count: n, sent: e.BytesUp, received: e.BytesDn}
	if outcome == failed {
		t.failed = n
	}
	w.destinations.add(name{host: cut(e.Host), port: e.Port}, t, e)
}

// Run moves the window along until ctx ends.
func (w *Window) Run(ctx context.Context) error {
	tick := time.NewTicker(recentStep)
	defer tick.Stop()
	for {
		select {
		case <-tick.C:
			w.sample(time.Now())
		case <-ctx.Done():
			return nil
		}
	}
}

// sample gives the series what was counted since the last time, and returns the totals.
func (w *Window) sample(now time.Time) counts {
	w.mu.Lock()
	defer w.mu.Unlock()
	var total, more counts
	for i := range w.totals {
		total[i] = w.totals[i].Load()
		more[i] = total[i] - w.sampled[i]
	}
	w.sampled = total
	w.recent.add(now, more)
	w.hour.add(now, more)
	w.denied.move(now)
	w.destinations.move(now)
	return total
}
