package approve

import (
	"context"
	"crypto/sha256"
	"crypto/subtle"
	"encoding/binary"
	"encoding/hex"
	"fmt"
	"strings"
	"unicode"

	"github.com/splitpod/splitpod/cmd/supervisor-network/internal/authority"
	"github.com/splitpod/splitpod/pkg/core"
	"github.com/splitpod/splitpod/pkg/core/policy"
)

// ByToken is who decides with the admin token instead of on the admin socket. No user has
// this uid.
const ByToken = core.NoUID

// actor says who decided, for records.
func actor(by uint32) string {
	if by == ByToken {
		return "the holder of the admin token"
	}
	return fmt.Sprintf("uid %d", by)
}

// Review is one proposal as a person has to see it before deciding.
type Review struct {
	Entry    Entry
	Changes  []authority.Change
	Complete bool   // false: there are more changes than are listed
	RuleYAML string // the rule, as the policy file would have it
	Base     string // hash of the policy that it would join
	After    string // and of the policy with it
	Hash     string // what Approve has to be given
}

// Review shows what approving a pending proposal would change now.
func (s *Store) Review(id string) (Review, error) {
	r, _, err := s.review(id)
	return r, err
}

// review also returns the policy that would decide.
func (s *Store) review(id string) (Review, *policy.Document, error) {
	base := s.opt.Base()
	if base == nil {
		return Review{}, nil, ErrNoPolicy
	}
	st := s.current()
	e := st.find(id)
	if e == nil {
		return Review{}, nil, ErrUnknown
	}
	before, _ := effective(base, st)
	name := free(before, e.Name, e.ID)
	r := Review{Entry: *e, RuleYAML: ruleYAML(name, e.Rule)}
	if e.Status != Pending {
		return r, nil, nil
	}
	after, err := Merge(before, map[string]policy.Rule{name: e.Rule})
	if err != nil {
		return Review{}, nil, fmt.Errorf("the rule no longer fits the policy: %w", err)
	}
	r.Changes, r.Complete = s.reading.Diff(before, after)
	b, a := policy.Encode(before), policy.Encode(after)
	r.Base, r.After = hashOf(b), hashOf(a)
	r.Hash = hashOf([]byte("splitpod approval 1"), []byte(id), []byte(name), b, a)
	return r, after, nil
}

// ruleYAML is one rule as a policy file.
func ruleYAML(name string, r policy.Rule) string {
	return string(policy.Encode(&policy.Document{Network: map[string]policy.Rule{name: r}}))
}

// hashOf identifies some texts, each with its length: 128 bits in hex.
func hashOf(parts ...[]byte) string {
	h := sha256.New()
	for _, p := range parts {
		_ = binary.Write(h, binary.BigEndian, uint64(len(p)))
		h.Write(p)
	}
	return hex.EncodeToString(h.Sum(nil)[:16])
}

// Approve puts a proposal in force if hash is the hash of what would change now. It
// fails with ErrUnknown, ErrDecided, ErrChanged, ErrNoPolicy or another cause, and then
// nothing has changed; only an error of Apply means that the decision is kept and not
// yet in force, and says so.
func (s *Store) Approve(ctx context.Context, id, hash string, by uint32) (Entry, error) {
	s.deciding.Lock()
	defer s.deciding.Unlock()
	r, after, err := s.review(id)
	switch {
	case err != nil:
		return Entry{}, err
	case r.Entry.Status != Pending:
		return Entry{}, ErrDecided
	case subtle.ConstantTimeCompare([]byte(hash), []byte(r.Hash)) != 1:
		s.event(core.EventApprovalRefused, core.SeverityHigh, &r.Entry, actor(by)+" approved another change")
		return Entry{}, ErrChanged
	case s.count(Approved) >= MaxApproved:
		return Entry{}, fmt.Errorf("%d rules are approved already; move some into the policy file and revoke them", MaxApproved)
	}
	if s.opt.Check != nil {
		if err := s.opt.Check(ctx, after); err != nil {
			return Entry{}, fmt.Errorf("the policy with the rule could not decide: %w", err)
		}
	}
	err = s.decide(id, func(e *Entry) {
		e.Status, e.By, e.Hash, e.Base = Approved, by, r.Hash, r.Base
	}, r.Entry.Content)
	if err != nil {
		return Entry{}, err
	}
	s.event(core.EventProposalApproved, core.SeverityMedium, &r.Entry, fmt.Sprintf("by %s, change %s on policy %s", actor(by), r.Hash, r.Base))
	return s.apply(ctx, id)
}

// apply makes the policy with the present decisions decide.
func (s *Store) apply(ctx context.Context, id string) (Entry, error) {
	s.show()
	if s.opt.Apply != nil {
		if err := s.opt.Apply(ctx); err != nil {
			return Entry{}, fmt.Errorf("the decision is kept, and could not be put in force yet: %w", err)
		}
	}
	return s.Get(id)
}

// decide changes the status of an entry, if its content is still the given one; "" is
// any.
func (s *Store) decide(id string, change func(*Entry), content string) error {
	return s.update(func(st *state) error {
		e := st.find(id)
		if e == nil {
			return ErrUnknown
		}
		if content != "" && e.Content != content {
			return ErrChanged
		}
		change(e)
		e.Decided = s.opt.Now().UTC()
		return nil
	})
}

// Reject decides against a pending proposal. The reason is for whoever made it.
func (s *Store) Reject(id, reason string, by uint32) (Entry, error) {
	s.deciding.Lock()
	defer s.deciding.Unlock()
	e, err := s.Get(id)
	switch {
	case err != nil:
		return Entry{}, err
	case e.Status != Pending:
		return Entry{}, ErrDecided
	}
	reason = OneLine(reason, MaxReason)
	if err := s.decide(id, func(e *Entry) { e.Status, e.By, e.Reason = Rejected, by, reason }, ""); err != nil {
		return Entry{}, err
	}
	s.event(core.EventProposalRejected, core.SeverityInfo, &e, fmt.Sprintf("by %s: %s", actor(by), OneLine(reason, 200)))
	return s.Get(id)
}

// Revoke takes an approved rule out of force.
func (s *Store) Revoke(ctx context.Context, id, reason string, by uint32) (Entry, error) {
	s.deciding.Lock()
	defer s.deciding.Unlock()
	e, err := s.Get(id)
	switch {
	case err != nil:
		return Entry{}, err
	case e.Status != Approved:
		return Entry{}, fmt.Errorf("%w: it is %s, and only an approved one can be revoked", ErrDecided, e.Status)
	}
	reason = OneLine(reason, MaxReason)
	if err := s.decide(id, func(e *Entry) { e.Status, e.By, e.Reason = Revoked, by, reason }, ""); err != nil {
		return Entry{}, err
	}
	s.event(core.EventProposalRevoked, core.SeverityMedium, &e, fmt.Sprintf("by %s: %s", actor(by), OneLine(reason, 200)))
	return s.apply(ctx, id)
}

// Export is the approved rules as a policy file, to be moved into the real one.
func (s *Store) Export() []byte { return overlay(s.current()) }

func (s *Store) count(status Status) (n int) {
	for _, e := range s.current().entries {
		if e.Status == status {
			n++
		}
	}
	return n
}

func (s *Store) event(reason core.Reason, severity core.Severity, e *Entry, detail string) {
	s.opt.Record(core.Event{Kind: core.EventLifecycle, Stage: core.StageConfig, Severity: severity, Reason: reason,
		Rule: e.Name, Detail: "proposal " + e.ID + ", rule " + authority.Quote(e.Name) + ", " + detail})
}

// OneLine makes a text of somebody fit for one line of a log or terminal: at most n
// bytes, and nothing in it that is not seen.
func OneLine(s string, n int) string {
	s = strings.ToValidUTF8(s[:min(len(s), n)], "")
	return strings.TrimSpace(strings.Map(func(c rune) rune {
		switch {
		case c == '\n' || c == '\r' || c == '\t':
			return ' '
		case !unicode.IsPrint(c):
			return -1
		default:
			return c
		}
	}, s))
}
