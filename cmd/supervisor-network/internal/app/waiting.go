package app

import (
	"context"
	"slices"
	"sync"
	"time"

	"github.com/splitpod/splitpod/cmd/supervisor-network/internal/approve"
	"github.com/splitpod/splitpod/cmd/supervisor-network/internal/view"
	"github.com/splitpod/splitpod/cmd/supervisor-network/internal/view/page"
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

// waiting is what waits for a decision, as the live view shows it.
type waiting struct {
	of     reviewer
	decide bool // on the page, too: then the hash of each change is shown with it

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
				if p.More = !r.Complete; w.decide {
					p.Hash = r.Hash
				}
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

// decider carries out what is decided on the page.
func (d *daemon) decider(w *waiting) page.Decider {
	return func(ctx context.Context, x page.Decision) (err error) {
		if x.Verdict == "approve" {
			err = d.advisor.Approve(ctx, x.ID, x.Hash)
		} else {
			err = d.advisor.Reject(x.ID, x.Reason)
		}
		w.forget()
		return err
	}
}

// forget has the next question answered anew.
func (w *waiting) forget() {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.shown = nil
}
