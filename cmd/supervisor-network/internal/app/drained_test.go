package app

import (
	"context"
	"testing"
	"testing/synctest"
	"time"

	"github.com/splitpod/splitpod/pkg/core"
	"github.com/splitpod/splitpod/pkg/core/outbox"
)

// TestTheEndWaitsForTheLastRefusals: the contract stays until the process daemon has
// acknowledged everything, is gone, or has had its time; and not longer.
func TestTheEndWaitsForTheLastRefusals(t *testing.T) {
	for name, c := range map[string]struct {
		taken   time.Duration // when the process daemon acknowledges everything; 0: never
		gone    bool
		waiting int
		took    time.Duration
	}{
		"until they are taken":               {taken: time.Second, waiting: 3, took: time.Second},
		"nothing is left":                    {took: 0},
		"there is nobody to take them":       {gone: true, waiting: 3, took: 0},
		"for a bounded time":                 {waiting: 3, took: flushTimeout},
		"to the last moment of it, no later": {taken: flushTimeout, waiting: 1, took: flushTimeout},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				d := &daemon{box: outbox.New(0)}
				for range c.waiting {
					d.box.Add(core.Event{Kind: core.EventConnection})
				}
				d.box.Pending(0, c.waiting) // sent, and not acknowledged
				if c.taken > 0 {
					time.AfterFunc(c.taken, func() { d.box.Ack(uint64(c.waiting)) })
				}
				ctx, cancel := context.WithCancel(t.Context())
				cancel()
				begun := time.Now()
				d.drained(ctx, func() (core.Peer, bool) { return core.Peer{}, !c.gone })
				if took := time.Since(begun); took < c.took || took > c.took+10*time.Millisecond {
					t.Errorf("it took %s, want %s", took, c.took)
				}
			})
		})
	}
}
