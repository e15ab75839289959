package aggregate

import (
	"slices"
	"sync"

	"github.com/splitpod/splitpod/pkg/core"
)

// MaxRecent is how many denials a Recent keeps.
const MaxRecent = 256

// Recent keeps the newest denials in full, for whoever asks what happened. The zero
// value is ready to use; safe for concurrent use.
type Recent struct {
	mu   sync.Mutex
	ring []core.Event // guarded by mu
	next int          // guarded by mu; the oldest, once the ring is full
}

// Add keeps a copy of a denial; anything else is left out.
func (r *Recent) Add(ev *core.Event) {
	if ev.Verdict == core.Allow || ev.Kind != core.EventConnection && ev.Kind != core.EventBypass {
		return
	}
	kept := *ev
	kept.Clip()
	kept.Ancestors = slices.Clone(kept.Ancestors[:min(len(kept.Ancestors), maxAncestors)])
	r.mu.Lock()
	defer r.mu.Unlock()
	if len(r.ring) < MaxRecent {
		r.ring = append(r.ring, kept)
		return
	}
	r.ring[r.next] = kept
	r.next = (r.next + 1) % MaxRecent
}

// Last returns up to n denials, the newest first.
func (r *Recent) Last(n int) []core.Event {
	r.mu.Lock()
	defer r.mu.Unlock()
	var out []core.Event
	for i := range min(n, len(r.ring)) {
		out = append(out, r.ring[(r.next-1-i+2*len(r.ring))%len(r.ring)])
	}
	return out
}

// Find returns the newest denial with a request id.
func (r *Recent) Find(id core.RequestID) (core.Event, bool) {
	for _, ev := range r.Last(MaxRecent) {
		if ev.RequestID == id {
			return ev, true
		}
	}
	return core.Event{}, false
}
