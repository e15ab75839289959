// Package remedy says what would have allowed a denial, the narrowest first.
//
// It answers the threat of a fix that is wider than the problem, and of advice that
// does not work: each change is tried on the policy that is in force, by the procedure
// that decides, and is listed only if it would have allowed what was refused. It
// changes nothing itself.
package remedy

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/splitpod/splitpod/cmd/supervisor-network/internal/aggregate"
	"github.com/splitpod/splitpod/cmd/supervisor-network/internal/approve"
	"github.com/splitpod/splitpod/cmd/supervisor-network/internal/authority"
	"github.com/splitpod/splitpod/cmd/supervisor-network/internal/decide"
	"github.com/splitpod/splitpod/cmd/supervisor-network/internal/propose"
	"github.com/splitpod/splitpod/pkg/core"
	"github.com/splitpod/splitpod/pkg/core/policy"
	"github.com/splitpod/splitpod/pkg/core/policy/glob"
)

// Remedy is one change that would have allowed it.
type Remedy struct {
	Title   string
	YAML    string // the rule that is new or changed, as a policy file
	Changes []authority.Change
}

// Answer is what is known of one denial.
type Answer struct {
	Event    core.Event
	Why      string   // nothing is listed because of this; "" otherwise
	Remedies []Remedy // the narrowest first
}

// Explain finds what would have allowed a denial under a policy.
func Explain(ctx context.Context, doc *policy.Document, ev core.Event, ignoreBinaries bool) (Answer, error) {
	a := Answer{Event: ev}
	t := trial{doc: doc, ev: &ev, ignore: ignoreBinaries}
	if why := t.unfixable(); why != "" {
		a.Why = why
		return a, nil
	}
	allowed, err := t.allows(ctx, doc)
	switch {
	case err != nil:
		return Answer{}, err
	case allowed:
		a.Why = "the policy in force allows it; it was refused by an earlier one, or for what only its content showed"
		return a, nil
	}
	reading := authority.Reading{IgnoreBinaries: ignoreBinaries}
	for _, c := range t.candidates() {
		changed, err := c.apply(doc)
		if err != nil {
			continue // it does not fit the policy
		}
		allowed, err := t.allows(ctx, changed)
		if err != nil || !allowed {
			continue
		}
		r := Remedy{Title: c.title, YAML: string(policy.Encode(&policy.Document{Network: map[string]policy.Rule{c.name: changed.Network[c.name]}}))}
		r.Changes, _ = reading.Diff(doc, changed)
		a.Remedies = append(a.Remedies, r)
	}
	if len(a.Remedies) == 0 {
		a.Why = "no simple rule would allow it: a deny rule may refuse it, or what was asked for shows only in the body, such as a tool or an operation"
	}
	return a, nil
}

// trial asks about one denial.
type trial struct {
	doc    *policy.Document
	ev     *core.Event
	ignore bool
}

// unfixable is what package propose says of a denial that no rule would help.
func (t *trial) unfixable() string {
	s := aggregate.Summary{Key: aggregate.Key{Host: t.ev.Host, Port: t.ev.Port, Binary: t.ev.Program.Path}, Count: 1,
		Causes: []aggregate.CauseCount{{Cause: aggregate.Cause{Stage: t.ev.Stage, Reason: t.ev.Reason}, Count: 1}}}
	_, skipped := propose.Map([]aggregate.Summary{s}, propose.Options{AnyBinary: t.ignore})
	if len(skipped) > 0 {
		return skipped[0].Why
	}
	return ""
}

// allows asks a policy what was asked then.
func (t *trial) allows(ctx context.Context, doc *policy.Document) (bool, error) {
	snap, err := decide.Compile(ctx, doc, decide.Options{Generation: 1, IgnoreBinaries: t.ignore})
	if err != nil {
		return false, fmt.Errorf("compile the policy: %w", err)
	}
	who := core.Identity{Status: core.IdentityKnown, Program: t.ev.Program, Ancestors: t.ev.Ancestors}
	p, denial := snap.Connection(ctx, decide.Question{Who: &who, Host: strings.ToLower(t.ev.Host), Port: t.ev.Port})
	if denial != nil || t.ev.Method == "" || !p.Inspected() {
		return denial == nil, nil
	}
	e, ok := snap.Endpoint(p, t.ev.Path)
	return ok && snap.Request(p, e, &decide.Request{Method: t.ev.Method, Path: t.ev.Path}).Allowed, nil
}

// candidate is a change to try.
type candidate struct {
	title, name string
	apply       func(*policy.Document) (*policy.Document, error)
}

// candidates are ordered by what they open: one request, its like, reading, what an
// existing rule has, and the whole host.
func (t *trial) candidates() []candidate {
	var out []candidate
	if m := t.ev.Method; m != "" {
		exact := propose.Literal(t.ev.Path)
		if !strings.Contains(t.ev.Path, propose.HiddenCredential) {
			out = append(out, t.rest("exactly this request", policy.Matcher{Method: strings.ToUpper(m), Path: exact}))
		}
		if like := propose.Generalise(t.ev.Path); like != exact {
			out = append(out, t.rest("requests like it", policy.Matcher{Method: strings.ToUpper(m), Path: like}))
		}
		if slices.Contains([]string{"GET", "HEAD", "OPTIONS"}, strings.ToUpper(m)) {
			e := t.endpoint()
			e.Protocol, e.Enforce, e.Access = policy.ProtocolREST, true, "read-only"
			out = append(out, t.add("reading, on every path of the host", e))
		}
	}
	out = append(out, t.joinRules()...)
	return append(out, t.add("every request to the host", t.endpoint()))
}

func (t *trial) endpoint() policy.Endpoint {
	return policy.Endpoint{Host: strings.ToLower(t.ev.Host), Ports: []uint16{t.ev.Port}}
}

func (t *trial) rest(title string, m policy.Matcher) candidate {
	e := t.endpoint()
	e.Protocol, e.Enforce, e.Allow = policy.ProtocolREST, true, []policy.Matcher{m}
	return t.add(title, e)
}

// add is a further rule for the program that asked.
func (t *trial) add(title string, e policy.Endpoint) candidate {
	name := propose.RuleName(t.ev.Host, t.ev.Port)
	for _, taken := t.doc.Network[name]; taken; _, taken = t.doc.Network[name] {
		name += "_2"
	}
	r := policy.Rule{Name: name, Endpoints: []policy.Endpoint{e}}
	if !t.ignore {
		r.Binaries = []policy.Binary{{Path: t.ev.Program.Path}}
	}
	propose.Align(&r, t.doc)
	return candidate{title, name, func(doc *policy.Document) (*policy.Document, error) {
		return approve.Merge(doc, map[string]policy.Rule{name: r})
	}}
}

// names reports whether an endpoint could be the one that was asked for.
func (t *trial) names(e policy.Endpoint) bool {
	host, err := glob.CompileHost(e.Host)
	return err == nil && slices.Contains(e.Ports, t.ev.Port) && host.Match(t.ev.Host)
}

// joinRules adds the program to each rule in turn. Which of them help is found by
// trying.
func (t *trial) joinRules() (out []candidate) {
	if t.ignore {
		return nil
	}
	for _, name := range slices.Sorted(maps.Keys(t.doc.Network)) {
		r := t.doc.Network[name]
		if !slices.ContainsFunc(r.Endpoints, t.names) {
			continue
		}
		out = append(out, candidate{"everything that rule " + authority.Quote(name) + " allows", name, func(doc *policy.Document) (*policy.Document, error) {
			next := *doc
			next.Network = maps.Clone(doc.Network)
			joined := r
			joined.Binaries = append(slices.Clone(r.Binaries), policy.Binary{Path: t.ev.Program.Path})
			next.Network[name] = joined
			return &next, nil
		}})
	}
	return out
}
