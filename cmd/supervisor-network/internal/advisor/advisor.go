// Package advisor is everything around a refusal: it counts what was refused and
// allowed, makes proposals of it, takes those of the workload, has a person decide, and
// joins what was approved to the policy.
//
// It answers the threat of parts that are each right and wired wrongly: what is counted
// is kept before it is forgotten, only the admin socket and the holder of the admin
// token reach a decision, and a rule is said to be in force after it decides. It does
// not decide about requests; package decide does, on the policy that Join makes.
//
// Invariant: Observe never waits; nothing here opens anything but by Join, which adds
// approved rules, and by LearnUntil, for as long as was asked.
package advisor

import (
	"context"
	"fmt"
	"log/slog"
	"os"
	"slices"
	"sync/atomic"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/splitpod/splitpod/cmd/supervisor-network/internal/admin"
	"github.com/splitpod/splitpod/cmd/supervisor-network/internal/aggregate"
	"github.com/splitpod/splitpod/cmd/supervisor-network/internal/approve"
	"github.com/splitpod/splitpod/cmd/supervisor-network/internal/decide"
	"github.com/splitpod/splitpod/cmd/supervisor-network/internal/learn"
	"github.com/splitpod/splitpod/cmd/supervisor-network/internal/policylocal"
	"github.com/splitpod/splitpod/pkg/core"
	"github.com/splitpod/splitpod/pkg/core/policy"
)

// Options are what an Advisor works with. All but Every are required.
type Options struct {
	StateDir       string
	IgnoreBinaries bool          // programs are not identified
	Proposals      bool          // the workload may make some
	Learn          time.Duration // 0: nothing is learned
	// Base is the policy file in force, without what was approved; nil if there is
	// none.
	Base func() *policy.Document
	// Apply makes the policy of Join decide, and calls Joined. It may be called at any
	// time after Open, by several goroutines.
	Apply func(context.Context) error
	// Record takes this daemon's own events.
	Record func(core.Event)
	// Refused is told of who was refused on the admin socket; nil: nobody is.
	Refused func(error)
	Log     *slog.Logger
	Every   time.Duration // how often counts are made into proposals; 0: ten seconds
}

// Advisor is the running whole. Make it with Open.
type Advisor struct {
	opt    Options
	counts *aggregate.Aggregator
	recent aggregate.Recent
	store  *approve.Store
	local  *policylocal.Server
	book   *learn.Book
	until  time.Time
	policy atomic.Pointer[policy.Document] // that decides
}

// Open reads what earlier instances kept. It starts nothing.
func Open(opt Options) (*Advisor, error) {
	if opt.Every <= 0 {
		opt.Every = 10 * time.Second
	}
	a := &Advisor{opt: opt, counts: aggregate.New()}
	var err error
	if a.until, err = learn.Until(opt.StateDir, opt.Learn, time.Now()); err != nil {
		return nil, err
	}
	if a.book, err = learn.OpenBook(opt.StateDir); err != nil {
		return nil, err
	}
	a.store, err = approve.Open(approve.Options{Dir: opt.StateDir, Base: opt.Base, Check: a.check, Apply: opt.Apply, Record: opt.Record,
		IgnoreBinaries: opt.IgnoreBinaries, Log: opt.Log})
	if err != nil {
		return nil, err
	}
	a.local = policylocal.New(policylocal.Options{Enabled: func() bool { return opt.Proposals }, Proposals: a.store,
		Policy: a.policy.Load, Denials: &a.recent})
	return a, nil
}

// check reports whether a policy could decide.
func (a *Advisor) check(ctx context.Context, doc *policy.Document) error {
	_, err := decide.Compile(ctx, doc, decide.Options{Generation: 1, IgnoreBinaries: a.opt.IgnoreBinaries})
	return err
}

// Observe takes an event of either daemon when it is recorded. It keeps nothing of it.
func (a *Advisor) Observe(ev *core.Event) {
	a.book.Observe(ev) // before it is counted: what is counted has the book kept
	a.counts.Add(ev)
	a.recent.Add(ev)
}

// Suppressed is how many denials are counted without their destination and program,
// because there were too many different ones.
func (a *Advisor) Suppressed() uint64 { return a.counts.Suppressed() }

// Local answers http://policy.local.
func (a *Advisor) Local() *policylocal.Server { return a.local }

// Join is a policy file with the approved rules that fit it. The caller reports those
// that do not.
func (a *Advisor) Join(base *policy.Document) approve.Effective { return a.store.Effective(base) }

// Joined tells the Advisor what decides from now on.
func (a *Advisor) Joined(e approve.Effective) {
	a.policy.Store(e.Document)
	a.store.Applied(e)
}

// LearnUntil is decide.Options.LearnUntil: zero unless learning was asked for.
func (a *Advisor) LearnUntil() time.Time { return a.until }

// Learning reports whether public destinations are allowed now, for readiness and
// metrics.
func (a *Advisor) Learning() bool { return decide.Learning(time.Now(), a.until) }

// Stats is a snapshot for metrics and readiness.
func (a *Advisor) Stats() approve.Stats { return a.store.Stats() }

// Pending lists what waits for a decision, the oldest first.
func (a *Advisor) Pending() []approve.Entry {
	return slices.DeleteFunc(a.store.List(), func(e approve.Entry) bool { return e.Status != approve.Pending })
}

// Review shows what approving a pending proposal would change now. It compares whole
// policies.
func (a *Advisor) Review(id string) (approve.Review, error) { return a.store.Review(id) }

// Approve and Reject decide for whoever has shown the admin token, as the admin socket
// does for a user of this container.
func (a *Advisor) Approve(ctx context.Context, id, hash string) error {
	_, err := a.store.Approve(ctx, id, hash, approve.ByToken)
	return a.called(Approve, id, approve.ByToken, err)
}

// Reject decides against a proposal.
func (a *Advisor) Reject(id, reason string) error {
	_, err := a.store.Reject(id, reason, approve.ByToken)
	return a.called(Reject, id, approve.ByToken, err)
}

// Listen opens the admin socket.
func (a *Advisor) Listen(ctx context.Context) (Listener, error) {
	l, err := admin.Listen(ctx, a.opt.StateDir)
	if err != nil {
		return Listener{}, err
	}
	return Listener{a, l}, nil
}

// deliver makes one batch into proposals and notes.
func (a *Advisor) deliver(ctx context.Context, b *aggregate.Batch) error {
	if err := a.book.Keep(); err != nil {
		a.opt.Log.Error("what was learned could not be kept; it is tried again", slog.Any("error", err))
		return err
	}
	if err := a.store.Take(ctx, b); err != nil {
		a.opt.Log.Error("denials could not be made into proposals; it is tried again", slog.Any("error", err))
		return err
	}
	return nil
}

// remind says again and again that the daemon learns, and ends it in time.
func (a *Advisor) remind(ctx context.Context) error {
	if !a.Learning() {
		return nil
	}
	end := time.NewTimer(time.Until(a.until))
	defer end.Stop()
	clock := time.NewTicker(10 * time.Second) // for the wall clock, which no timer follows
	defer clock.Stop()
	again := time.NewTicker(5 * time.Minute)
	defer again.Stop()
	a.learns()
	for a.Learning() {
		select {
		case <-end.C:
		case <-clock.C:
		case <-again.C:
			a.learns()
		case <-ctx.Done():
			return nil
		}
	}
	a.opt.Record(learn.Over())
	if err := a.opt.Apply(ctx); err != nil { // ends the connections that were learned
		return fmt.Errorf("end the learning time: %w", err)
	}
	return nil
}

func (a *Advisor) learns() {
	a.opt.Record(learn.Begun(a.until))
	a.opt.Log.Warn("learning: public destinations are allowed although no rule allows them", slog.Time("until", a.until))
}

// run is everything that goes on beside requests, until ctx ends.
func (a *Advisor) run(ctx context.Context, l Listener) error {
	server := &admin.Server{UID: uint32(os.Geteuid()), Handlers: a.handlers(), Log: a.opt.Log, Refused: a.opt.Refused}
	g, ctx := errgroup.WithContext(ctx)
	g.Go(func() error { return server.Run(ctx, l.socket) })
	g.Go(func() error { return a.counts.Deliver(ctx, a.opt.Every, a.deliver) })
	g.Go(func() error { return a.remind(ctx) })
	return g.Wait()
}
