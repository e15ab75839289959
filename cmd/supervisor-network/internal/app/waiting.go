package app

import (
	"slices"
	"sync"
	"time"

	"github.com/splitpod/splitpod/cmd/supervisor-network/internal/approve"
	"github.com/splitpod/splitpod/cmd/supervisor-network/internal/view"
)

// What looking at proposals may cost: a review compares whole policies, and who looks
// asks again every second.
const (
	reviewEvery = 5 * time.Second
	reviewTime  = 200 * time.Millisecond // after which no further one is begun
	maxReviews  = 32
)

// reviewer knows what waits for a decision, and what each would change.
type reviewer interface {
	Pending() []approve.Entry
	Review(id string) (approve.Review, error)
}

// waiting is what waits for a decision, as the live view shows it. It decides nothing.
type waiting struct {
	of reviewer

	mu    sync.Mutex
	shown *view.Proposals // guarded by mu; never changed
	made  time.Time       // guarded by mu
}

// proposals are the newest ones first, reviewed a few seconds ago at most.
func (w *waiting) proposals() *view.Proposals {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.shown != nil && time.Since(w.made) < reviewEvery {
		return w.shown
	}
	begun, pending := time.Now(), w.of.Pending()
	out := &view.Proposals{Others: max(len(pending)-maxReviews, 0)}
	for _, e := range slices.Backward(pending[out.Others:]) {
		p := view.Proposal{ID: e.ID, Source: string(e.Source), Rule: e.Name, Rationale: e.Rationale, Created: e.Created, More: true}
		for _, n := range e.Notes {
			p.Notes = append(p.Notes, n.Text)
		}
		if time.Since(begun) < reviewTime {
			if r, err := w.of.Review(e.ID); err == nil {
				p.More = !r.Complete
				for _, c := range r.Changes {
					p.Changes = append(p.Changes, c.String())
				}
			}
		}
		out.Pending = append(out.Pending, p)
	}
	w.shown, w.made = out, time.Now()
	return out
}
