// Package approve keeps what is proposed, and what a person approved: rules that join
// the policy file until they are revoked.
//
// It answers the threat of authority that grows without anybody's word: a rule joins
// the policy only by Approve, with the hash of the change as it was reviewed; when the
// policy or the proposal has changed since, the hash is another one and the answer is
// no. It does not answer an operator who approves without reading, nor whoever can
// write to the state directory.
//
// Invariant: nothing is in force that is not on disk, every change of the disk is
// whole or not there (a new file, synced, renamed over the old one), and an approved
// rule that no longer fits a new version of the policy file is left out, said so, and
// grants nothing.
package approve

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"sync"
	"time"

	"github.com/splitpod/splitpod/cmd/supervisor-network/internal/aggregate"
	"github.com/splitpod/splitpod/cmd/supervisor-network/internal/authority"
	"github.com/splitpod/splitpod/cmd/supervisor-network/internal/propose"
	"github.com/splitpod/splitpod/pkg/core"
	"github.com/splitpod/splitpod/pkg/core/policy"
)

// Limits of a Store.
const (
	MaxMechanistic = 128 // pending, of denials; less wanted ones make room
	MaxAgent       = 32  // pending, of the workload; more are refused
	MaxApproved    = 256
	MaxDecided     = 256 // rejected, superseded and revoked ones that are remembered
	MaxReason      = 1000
	MaxRule        = 16 << 10 // bytes of one rule as a policy file
	maxMatchers    = 64       // of one endpoint that grows by new denials
	// takeTime bounds how long one batch keeps the Store busy: each new rule is checked
	// with the whole policy. What is left over comes again with its next denial.
	takeTime = time.Second
)

// Status is where a proposal stands.
type Status string

// The statuses.
const (
	Pending    Status = "pending"
	Approved   Status = "approved"
	Rejected   Status = "rejected"
	Superseded Status = "superseded" // an agent asked for the same more precisely
	Revoked    Status = "revoked"    // was approved
)

// Entry is one proposal and what became of it.
type Entry struct {
	ID     string `json:"id"`
	Status Status `json:"status"`
	propose.Proposal
	Content string    `json:"content"` // identifies what the rule says, whatever its name
	Created time.Time `json:"created"`
	Decided time.Time `json:"decided,omitzero"`
	By      uint32    `json:"by"`     // uid of who decided, or ByToken
	Reason  string    `json:"reason"` // of whoever decided
	// Hash is that of the change as it was approved, Base that of the policy it was
	// approved for.
	Hash string `json:"hash,omitempty"`
	Base string `json:"base,omitempty"`
	// InForce says that the rule is part of the policy that decides. It is not kept.
	InForce bool `json:"in_force"`
}

// Options are what a Store works with. Base is required.
type Options struct {
	Dir string // the state directory
	// Base is the policy file in force, nil if there is none. It is called without any
	// lock of the Store.
	Base func() *policy.Document
	// Check reports whether a policy could decide; nil: it is not asked.
	Check func(context.Context, *policy.Document) error
	// Apply makes Effective decide. It is called without any lock of the Store that
	// Effective takes.
	Apply func(context.Context) error
	// Record takes the event of each decision.
	Record func(core.Event)
	// IgnoreBinaries is for a daemon that does not identify programs.
	IgnoreBinaries bool
	Log            *slog.Logger
	Now            func() time.Time // nil: time.Now
}

// Store holds proposals. Make it with Open; safe for concurrent use.
type Store struct {
	opt     Options
	reading authority.Reading

	deciding sync.Mutex // one decision at a time

	mu      sync.Mutex
	state   *state        // guarded by mu; replaced, never changed
	changed chan struct{} // guarded by mu; closed with the next change
	inForce map[string]bool
}

// state is everything that is kept. A value in use is never changed.
type state struct {
	entries []Entry // oldest first
}

func (s *state) clone() *state { return &state{slices.Clone(s.entries)} }

func (s *state) find(id string) *Entry {
	for i := range s.entries {
		if s.entries[i].ID == id {
			return &s.entries[i]
		}
	}
	return nil
}

// Errors of a Store. Refusal is another one.
var (
	ErrUnknown  = errors.New("there is no proposal with this id")
	ErrDecided  = errors.New("the proposal is not pending any more")
	ErrChanged  = errors.New("the policy or the proposal changed since it was reviewed; look at it again")
	ErrNoPolicy = errors.New("no policy is in force that a rule could join")
)

// Refusal is a proposal that is not taken, with a stable code and the reason in words.
type Refusal struct {
	Code string // invalid, redundant, rejected_before, too_many
	Text string
}

// Error implements error.
func (r *Refusal) Error() string { return r.Text }

// Open reads what an earlier instance kept. A file that cannot be read in full is an
// error: guessing which rules were approved would be worse.
func Open(opt Options) (*Store, error) {
	if opt.Now == nil {
		opt.Now = time.Now
	}
	if opt.Log == nil {
		opt.Log = slog.New(slog.DiscardHandler)
	}
	if opt.Record == nil {
		opt.Record = func(core.Event) {}
	}
	sweep(opt.Dir)
	st, err := load(opt.Dir)
	if err != nil {
		return nil, err
	}
	s := &Store{opt: opt, reading: authority.Reading{IgnoreBinaries: opt.IgnoreBinaries}, state: st,
		changed: make(chan struct{}), inForce: make(map[string]bool)}
	s.show()
	return s, nil
}

// show writes the file that only people read. Nothing depends on it: not a decision, and
// not a start of the daemon on a full disk.
func (s *Store) show() {
	if err := saveOverlay(s.opt.Dir, s.current()); err != nil {
		s.opt.Log.Error("the overlay file could not be written; what is approved is in force all the same", slog.Any("error", err))
	}
}

func (s *Store) current() *state {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.state
}

// update changes the state: on disk first. change gets a copy.
func (s *Store) update(change func(*state) error) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	next := s.state.clone()
	if err := change(next); err != nil {
		return err
	}
	next.forget()
	if err := save(s.opt.Dir, next); err != nil {
		return err
	}
	s.state = next
	s.announce()
	return nil
}

// announce wakes whoever waits. Preconditions: mu is held.
func (s *Store) announce() {
	close(s.changed)
	s.changed = make(chan struct{})
}

// forget drops the oldest of what was decided and grants nothing.
func (s *state) forget() {
	over := -MaxDecided
	gone := func(e *Entry) bool { return e.Status != Pending && e.Status != Approved }
	for i := range s.entries {
		if gone(&s.entries[i]) {
			over++
		}
	}
	s.entries = slices.DeleteFunc(s.entries, func(e Entry) bool {
		if over <= 0 || !gone(&e) {
			return false
		}
		over--
		return true
	})
}

// List returns every entry, the oldest first.
func (s *Store) List() []Entry {
	s.mu.Lock()
	defer s.mu.Unlock()
	out := slices.Clone(s.state.entries)
	for i := range out {
		out[i].InForce = s.inForce[out[i].ID]
	}
	return out
}

// Stats is a snapshot for metrics.
type Stats struct {
	Pending, Approved int
	LeftOut           int // approved, and not in force
}

// Stats returns a snapshot.
func (s *Store) Stats() (out Stats) {
	for _, e := range s.List() {
		switch e.Status {
		case Pending:
			out.Pending++
		case Approved:
			out.Approved++
			if !e.InForce {
				out.LeftOut++
			}
		}
	}
	return out
}

// Get returns one entry.
func (s *Store) Get(id string) (Entry, error) {
	e, _, err := s.get(id)
	return e, err
}

func (s *Store) get(id string) (Entry, <-chan struct{}, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	e := s.state.find(id)
	if e == nil {
		return Entry{}, nil, ErrUnknown
	}
	out := *e
	out.InForce = s.inForce[id]
	return out, s.changed, nil
}

// Wait returns an entry when it is decided and, if approved, in force; or as it is when
// ctx ends.
func (s *Store) Wait(ctx context.Context, id string) (Entry, error) {
	for {
		e, changed, err := s.get(id)
		if err != nil || e.Status != Pending && (e.Status != Approved || e.InForce) {
			return e, err
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return e, nil
		}
	}
}

// Take makes proposals of a batch of denials and keeps all of them or, failing, none,
// so that a batch that is handed over again counts once. It is what aggregate's Deliver
// calls.
func (s *Store) Take(_ context.Context, b *aggregate.Batch) error {
	proposals, _ := propose.Map(b.Denials, propose.Options{AnyBinary: s.opt.IgnoreBinaries})
	base := s.opt.Base()
	if len(proposals) == 0 || base == nil {
		return nil
	}
	return s.update(func(st *state) error {
		t := s.intake(st, base)
		begun := s.opt.Now()
		for i := range min(len(proposals), MaxMechanistic) {
			if s.opt.Now().Sub(begun) > takeTime {
				s.opt.Log.Warn("some denials were not made into proposals: the policy takes too long to check", slog.Int("left", len(proposals)-i))
				break
			}
			propose.Align(&proposals[i].Rule, base)
			if _, err := t.add(proposals[i]); err != nil && !isRefusal(err) {
				return err
			}
		}
		return nil
	})
}

func isRefusal(err error) bool {
	_, ok := errors.AsType[*Refusal](err)
	return ok
}

// Submit takes a proposal of the workload. The same one, pending already, is the one
// that is returned. The error is a *Refusal if the proposal is the reason.
func (s *Store) Submit(p propose.Proposal) (Entry, error) {
	base := s.opt.Base()
	if base == nil {
		return Entry{}, ErrNoPolicy
	}
	p.Source = propose.Agent
	propose.Stamp(&p.Rule)
	var out Entry
	known := false
	err := s.update(func(st *state) error {
		before := *st
		e, err := s.intake(st, base).add(p)
		out, known = e, before.find(e.ID) != nil
		return err
	})
	if err != nil {
		return Entry{}, fmt.Errorf("proposal %s: %w", authority.Quote(p.Name), err)
	}
	if !known {
		s.event(core.EventRuleProposed, core.SeverityInfo, &out, "by the workload: "+OneLine(out.Rationale, 200))
	}
	return out, nil
}
