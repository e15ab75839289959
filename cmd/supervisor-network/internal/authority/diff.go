package authority

import (
	"cmp"
	"fmt"
	"slices"
	"strings"

	"github.com/splitpod/splitpod/pkg/core/policy"
)

// Kind says which way a change goes.
type Kind string

// The kinds of change.
const (
	Gained Kind = "+"
	Lost   Kind = "-"
)

// Change is one thing that programs may do under one policy and not under the other.
type Change struct {
	Kind Kind
	Rule string // the rule that grants or takes away
	Text string
}

// String is the change on one line.
func (c Change) String() string { return fmt.Sprintf("%s %s  [%s]", c.Kind, c.Text, Quote(c.Rule)) }

// MaxChanges is how many changes Diff lists.
const MaxChanges = 2000

// Diff lists what changes when after replaces before: first what is gained, then what
// is lost. The second result is false if there were more than MaxChanges.
func (r Reading) Diff(before, after *policy.Document) (changes []Change, complete bool) {
	b, a := r.view(before), r.view(after)
	d := differ{same: unchanged(before, after)}
	d.granted(Gained, b, a)
	d.lifted(b, a)
	d.granted(Lost, a, b)
	d.refused(b, a)
	d.judged(b, a)
	d.static(before, after)
	slices.SortStableFunc(d.out, func(x, y Change) int { return strings.Compare(string(x.Kind), string(y.Kind)) })
	return d.out, !d.full
}

type differ struct {
	same map[string]bool // rules that are alike in both
	out  []Change
	full bool
}

func (d *differ) add(kind Kind, rule, text string) bool {
	if len(d.out) >= MaxChanges {
		d.full = true
		return false
	}
	c := Change{kind, rule, text}
	if !slices.Contains(d.out, c) {
		d.out = append(d.out, c)
	}
	return true
}

// unchanged names the rules that are alike in two policies.
func unchanged(before, after *policy.Document) map[string]bool {
	out := make(map[string]bool)
	for name, r := range after.Network {
		if was, ok := before.Network[name]; ok && alike(name, was, r) {
			out[name] = true
		}
	}
	return out
}

func alike(name string, a, b policy.Rule) bool {
	text := func(r policy.Rule) string {
		return string(policy.Encode(&policy.Document{Network: map[string]policy.Rule{name: r}}))
	}
	marks := func(x, y policy.Endpoint) bool { return x.AdvisorProposed == y.AdvisorProposed }
	return slices.EqualFunc(a.Endpoints, b.Endpoints, marks) && text(a) == text(b)
}

// granted lists what now grants and without does not.
func (d *differ) granted(kind Kind, without, now *view) {
	for i := range now.grants {
		g := &now.grants[i]
		if d.same[g.rule] {
			continue
		}
		done := g.atoms(func(a atom) bool {
			return without.covered(a, anyGrant) != "" || d.add(kind, g.rule, a.String())
		})
		if !done {
			return
		}
	}
}

func anyGrant(*grant) bool { return true }

// covered names the rule of a grant that counts and grants everything an atom does; ""
// if there is none.
func (v *view) covered(a atom, counts func(*grant) bool) string {
	for i := range v.grants {
		if v.grants[i].covers(a) && counts(&v.grants[i]) {
			return v.grants[i].rule
		}
	}
	return ""
}

// lifted lists rules that refused and are gone, where something is still granted.
func (d *differ) lifted(before, after *view) {
	for i := range before.denies {
		x := &before.denies[i]
		if after.refuses(x) || !after.reaches(x.place()) {
			continue
		}
		d.add(Gained, x.rule, "no longer refused: "+x.text())
	}
}

// refused lists rules that refuse and are new, where something was granted.
func (d *differ) refused(before, after *view) {
	for i := range after.denies {
		x := &after.denies[i]
		if before.refuses(x) || !before.reaches(x.place()) {
			continue
		}
		d.add(Lost, x.rule, "newly refused: "+x.text())
	}
}

func (x *deny) text() string {
	return fmt.Sprintf("%s to %s%s", matcherText(x.endpoint.Protocol, &x.what), hostText(x.endpoint), scopeText(x.endpoint))
}

// refuses reports whether the policy has a rule that refuses all that x does.
func (v *view) refuses(x *deny) bool {
	return slices.ContainsFunc(v.denies, func(o deny) bool {
		return o.endpoint.Protocol == x.endpoint.Protocol && o.endpoint.Enforce == x.endpoint.Enforce &&
			!slices.ContainsFunc(x.endpoint.Ports, func(p uint16) bool { return !slices.Contains(o.endpoint.Ports, p) }) &&
			!slices.ContainsFunc(x.binaries, func(b string) bool {
				return !slices.ContainsFunc(o.binaries, func(have string) bool { return coversBinary(have, b) })
			}) &&
			coversHost(&grant{endpoint: o.endpoint, host: o.host}, &grant{endpoint: x.endpoint, host: x.host}) &&
			coversScope(o.endpoint.PathScope, x.endpoint.PathScope) && coversMatcher(x.endpoint.Protocol, &o.what, &x.what)
	})
}

func (v *view) reaches(p place) bool {
	return slices.ContainsFunc(v.grants, func(g grant) bool { return g.place().meets(p) })
}

// judged lists connections that were carried unjudged and get rules, and the reverse:
// one endpoint with rules is enough for a connection to have them.
func (d *differ) judged(before, after *view) {
	for _, way := range []struct {
		kind     Kind
		from, to *view
		text     string
	}{
		{Lost, before, after, "from then on judged by rules, and only what these allow passes: "},
		{Gained, after, before, "no longer judged by rules: "},
	} {
		for i := range way.from.grants {
			g := &way.from.grants[i]
			changed := func(o *grant) bool { return !d.same[o.rule] }
			if g.carried != unread || !way.to.shadowed(g, changed) || way.from.shadowed(g, anyGrant) {
				continue
			}
			g.atoms(func(a atom) bool {
				return way.to.covered(a, anyGrant) == "" || d.add(way.kind, g.rule, way.text+a.String())
			})
		}
	}
}

// static lists sections that are not about the network.
func (d *differ) static(before, after *policy.Document) {
	for _, s := range []struct{ name, before, after string }{
		{"filesystem_policy", files(before.Filesystem), files(after.Filesystem)},
		{"landlock", landlock(before.Landlock), landlock(after.Landlock)},
		{"process", account(before.Process), account(after.Process)},
		{"network_middlewares", middlewares(before), middlewares(after)},
	} {
		if s.before != s.after {
			d.add(Gained, s.name, "the section changed: was "+s.before+", is "+s.after)
		}
	}
}

func files(f policy.Filesystem) string {
	return fmt.Sprintf("{read_only: %s, read_write: %s, include_workdir: %t}", list(f.ReadOnly), list(f.ReadWrite), f.IncludeWorkdir)
}

func list(paths []string) string {
	quoted := make([]string, len(paths))
	for i, p := range paths {
		quoted[i] = Quote(p)
	}
	return "[" + strings.Join(quoted, ", ") + "]"
}

func landlock(l policy.Landlock) string { return string(cmp.Or(l.Compatibility, policy.BestEffort)) }

func account(p policy.Process) string {
	return "{run_as_user: " + Quote(p.RunAsUser) + ", run_as_group: " + Quote(p.RunAsGroup) + "}"
}

func middlewares(doc *policy.Document) string {
	only := policy.Document{Version: 1, Middlewares: doc.Middlewares}
	return Quote(string(policy.Encode(&only)))
}

// Covered names the rule of a policy that already grants everything a further rule
// would; "" if there is none.
func (r Reading) Covered(doc *policy.Document, name string, rule policy.Rule) string {
	v, want := r.view(doc), r.view(&policy.Document{Network: map[string]policy.Rule{name: rule}})
	by := ""
	for i := range want.grants {
		whole := want.grants[i].atoms(func(a atom) bool {
			have := v.covered(a, func(g *grant) bool { return !v.shadowed(g, anyGrant) })
			if by == "" {
				by = have
			}
			return have != ""
		})
		if !whole {
			return ""
		}
	}
	return by
}

// Refused names the rules of a policy that refuse requests which a further rule would
// allow, and so win over it.
func (r Reading) Refused(doc *policy.Document, name string, rule policy.Rule) []string {
	v, want := r.view(doc), r.view(&policy.Document{Network: map[string]policy.Rule{name: rule}})
	var out []string
	for i := range v.denies {
		x := &v.denies[i]
		for j := range want.grants {
			g := &want.grants[j]
			if x.place().meets(g.place()) && sameRequests(x.endpoint, g.endpoint, &x.what, &g.what) && !slices.Contains(out, x.rule) {
				out = append(out, x.rule)
			}
		}
	}
	return out
}
