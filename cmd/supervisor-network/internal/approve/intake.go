package approve

import (
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/splitpod/splitpod/cmd/supervisor-network/internal/authority"
	"github.com/splitpod/splitpod/cmd/supervisor-network/internal/propose"
	"github.com/splitpod/splitpod/pkg/core"
	"github.com/splitpod/splitpod/pkg/core/policy"
	"github.com/splitpod/splitpod/pkg/core/strictyaml"
)

// intake adds proposals to a state that is the caller's alone.
type intake struct {
	s         *Store
	st        *state
	effective *policy.Document
}

func (s *Store) intake(st *state, base *policy.Document) *intake {
	doc, _ := effective(base, st)
	return &intake{s, st, doc}
}

// add takes a proposal in: as a new entry, or as more of one that is there.
func (in *intake) add(p propose.Proposal) (Entry, error) {
	if p.Source == propose.Mechanistic {
		if e := in.sameKey(p); e != nil {
			in.grow(e, p)
			return *e, nil
		}
	}
	rule, err := in.fits(p)
	if err != nil {
		return Entry{}, &Refusal{"invalid", err.Error()}
	}
	p.Rule = rule
	if by := in.s.reading.Covered(in.effective, p.Name, p.Rule); by != "" {
		return Entry{}, &Refusal{"redundant", fmt.Sprintf("rule %s already allows all of it", authority.Quote(by))}
	}
	if e, err := in.same(p); e != nil || err != nil {
		if err == nil {
			e.Hits++
			return *e, nil
		}
		return Entry{}, err
	}
	if err := in.room(p.Source); err != nil {
		return Entry{}, err
	}
	if winners := in.s.reading.Refused(in.effective, p.Name, p.Rule); len(winners) > 0 {
		p.Notes = append(p.Notes, propose.Note{Code: "deny_wins",
			Text: "deny_rules of " + quoteAll(winners) + " refuse a part of it, and win over every rule that allows"})
	}
	if p.Source == propose.Agent {
		in.supersede(p)
	}
	e := Entry{ID: string(core.NewRequestID()), Status: Pending, Proposal: p, Content: content(p.Rule), Created: in.s.opt.Now().UTC()}
	in.st.entries = append(in.st.entries, e)
	return e, nil
}

func quoteAll(names []string) string {
	out := make([]string, len(names))
	for i, n := range names {
		out[i] = authority.Quote(n)
	}
	return strings.Join(out, ", ")
}

// fits checks a rule together with the policy it would join, and returns it as read.
func (in *intake) fits(p propose.Proposal) (policy.Rule, error) {
	name := free(in.effective, p.Name, "0")
	if n := len(ruleYAML(name, p.Rule)); n > MaxRule {
		return policy.Rule{}, fmt.Errorf("the rule has %d bytes as a policy file; %d are allowed", n, MaxRule)
	}
	doc, err := Merge(in.effective, map[string]policy.Rule{name: p.Rule})
	if problems, ok := errors.AsType[strictyaml.Problems](err); ok {
		return policy.Rule{}, errors.New(InWords(problems, name))
	}
	if err != nil {
		return policy.Rule{}, err
	}
	return doc.Network[name], nil
}

// InWords is what is wrong with a rule, for whoever made it: without the place in a
// file that nobody has.
func InWords(problems strictyaml.Problems, name string) string {
	var out []string
	for _, p := range problems[:min(len(problems), 5)] {
		out = append(out, strings.TrimPrefix(p.Field, "network_policies."+name+".")+": "+p.Message)
	}
	if more := len(problems) - len(out); more > 0 {
		out = append(out, fmt.Sprintf("and %d more problems", more))
	}
	return strings.Join(out, "; ")
}

// sameKey is the pending entry of the same destination and program.
func (in *intake) sameKey(p propose.Proposal) *Entry {
	for i := range in.st.entries {
		e := &in.st.entries[i]
		if e.Status == Pending && e.Source == propose.Mechanistic && e.Key == p.Key {
			return e
		}
	}
	return nil
}

// grow adds further denials to an entry. What they ask for joins the rule, which then
// has another hash.
func (in *intake) grow(e *Entry, p propose.Proposal) {
	e.Hits += p.Hits
	e.Confidence = max(e.Confidence, p.Confidence)
	if p.Last.After(e.Last) {
		e.Last = p.Last
	}
	have, more := e.Rule.Endpoints[0], p.Rule.Endpoints[0]
	if have.Protocol != more.Protocol {
		return
	}
	have.Allow = slices.Clone(have.Allow)
	for _, m := range more.Allow {
		known := func(h policy.Matcher) bool { return h.Method == m.Method && h.Path == m.Path }
		if len(have.Allow) < maxMatchers && !slices.ContainsFunc(have.Allow, known) {
			have.Allow = append(have.Allow, m)
		}
	}
	if len(have.Allow) == len(e.Rule.Endpoints[0].Allow) {
		return
	}
	grown := *e
	grown.Rule.Endpoints = []policy.Endpoint{have}
	if _, err := in.fits(grown.Proposal); err == nil {
		e.Rule.Endpoints = grown.Rule.Endpoints
		e.Content = content(e.Rule)
		e.Rationale, e.Notes = p.Rationale, propose.Review(e.Rule)
	}
}

// same finds an entry with the same rule: one that is pending, or the refusal that one
// was rejected.
func (in *intake) same(p propose.Proposal) (*Entry, error) {
	want := content(p.Rule)
	for i := len(in.st.entries) - 1; i >= 0; i-- {
		e := &in.st.entries[i]
		if e.Content != want {
			continue
		}
		switch e.Status {
		case Pending:
			return e, nil
		case Rejected:
			why := "no reason was given"
			if e.Reason != "" {
				why = "the reason was: " + e.Reason
			}
			return nil, &Refusal{"rejected_before", "the same rule was rejected as " + e.ID + "; " + why}
		}
	}
	return nil, nil
}

// content identifies a rule by what it says, without its name.
func content(r policy.Rule) string {
	r.Name = "r"
	sum := sha256.Sum256(policy.Encode(&policy.Document{Network: map[string]policy.Rule{"r": r}}))
	return hex.EncodeToString(sum[:])
}

// room makes place for one more: of those made of denials, the one that is wanted
// least goes.
func (in *intake) room(source propose.Source) error {
	n, least := 0, -1
	for i := range in.st.entries {
		e := &in.st.entries[i]
		if e.Status != Pending || e.Source != source {
			continue
		}
		n++
		if least < 0 || e.Hits < in.st.entries[least].Hits {
			least = i
		}
	}
	switch {
	case source == propose.Agent && n >= MaxAgent:
		return &Refusal{"too_many", fmt.Sprintf("%d proposals are waiting for a decision already; wait until some are decided", n)}
	case source == propose.Mechanistic && n >= MaxMechanistic:
		in.st.entries = slices.Delete(in.st.entries, least, least+1)
	}
	return nil
}

// supersede takes proposals back that were made of denials of what an agent now asks
// for.
func (in *intake) supersede(p propose.Proposal) {
	for i := range in.st.entries {
		e := &in.st.entries[i]
		if e.Status == Pending && e.Source == propose.Mechanistic && about(p.Rule, e) {
			e.Status, e.Decided, e.Reason = Superseded, in.s.opt.Now().UTC(), "an agent proposed a rule for the same"
		}
	}
}

func about(r policy.Rule, e *Entry) bool {
	program := len(r.Binaries) == 0 || slices.ContainsFunc(r.Binaries, func(b policy.Binary) bool { return b.Path == e.Key.Binary })
	host := strings.ToLower(e.Key.Host)
	return program && slices.ContainsFunc(r.Endpoints, func(x policy.Endpoint) bool {
		return x.Host == host && slices.Contains(x.Ports, e.Key.Port)
	})
}
