// Package authority says what a policy lets programs do, and how two policies differ in
// that.
//
// It answers the threat of a change that is read as text and means more than it seems:
// a rule is taken apart into who may send what to where, and a change is what one
// policy grants and the other does not. It does not decide anything; package decide
// does.
//
// Invariant: what is said to be covered is covered. Where patterns cannot be compared,
// a difference is reported that may be none; the reader is told of too much and never
// of too little.
package authority

import (
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"strings"

	"github.com/splitpod/splitpod/pkg/core/policy"
	"github.com/splitpod/splitpod/pkg/core/policy/glob"
)

// carried is how much of what a program sends is looked at. Higher lets more through.
type carried uint8

const (
	judged carried = iota // only what a rule allows
	unread                // anything; requests are seen, and not judged
	opaque                // anything, unseen
)

// addresses is where a host may be. Higher lets more through.
type addresses uint8

const (
	public addresses = iota
	internal
	listed // compared by prefixes
)

// grant is one thing that a policy allows: the programs of a rule may send one kind of
// request to one endpoint.
type grant struct {
	rule     string
	binaries []string
	endpoint *policy.Endpoint
	host     *glob.Host
	carried  carried
	known    bool           // MCP: every known method
	what     policy.Matcher // of what is judged
}

// deny is one rule that refuses.
type deny struct {
	rule     string
	binaries []string
	endpoint *policy.Endpoint
	host     *glob.Host
	what     policy.Matcher
}

// view is a policy taken apart.
type view struct {
	ignore bool // any program is that of every rule
	grants []grant
	denies []deny
}

// Reading is how policies are read. The zero value is that of a daemon that identifies
// programs.
type Reading struct {
	// IgnoreBinaries treats every rule's programs as any program.
	IgnoreBinaries bool
}

// view takes a policy apart.
func (r Reading) view(doc *policy.Document) *view {
	v := &view{ignore: r.IgnoreBinaries}
	for _, name := range slices.Sorted(maps.Keys(doc.Network)) {
		v.rule(name, doc.Network[name])
	}
	return v
}

func (v *view) rule(name string, r policy.Rule) {
	var binaries []string
	for _, b := range r.Binaries {
		binaries = append(binaries, b.Path)
	}
	if v.ignore {
		binaries = []string{"**"}
	}
	for i := range r.Endpoints {
		e := &r.Endpoints[i]
		host, err := glob.CompileHost(e.Host)
		if err != nil {
			continue // no valid policy has it
		}
		g := grant{rule: name, binaries: binaries, endpoint: e, host: host}
		v.grants = append(v.grants, g.all()...)
		for _, m := range e.Deny {
			v.denies = append(v.denies, deny{name, binaries, e, host, m})
		}
	}
}

// all is every grant of an endpoint.
func (g grant) all() []grant {
	e := g.endpoint
	one := func(m policy.Matcher) grant { g.what = m; return g }
	switch {
	case e.TLS == "skip" || e.Protocol == policy.ProtocolTCP:
		g.carried = opaque
		return []grant{g}
	case !e.Protocol.Inspected() || e.Protocol == policy.ProtocolSQL || !e.Enforce:
		g.carried = unread
		return []grant{g}
	}
	var out []grant
	if e.MCP != nil && e.MCP.AllowAllKnownMCPMethods {
		k := g
		k.known = true
		out = append(out, k)
	}
	for _, word := range presets[e.Protocol][e.Access] {
		if e.Protocol == policy.ProtocolGraphQL {
			out = append(out, one(policy.Matcher{OperationType: word}))
		} else {
			out = append(out, one(policy.Matcher{Method: word, Path: "**"}))
		}
	}
	for _, m := range e.Allow {
		out = append(out, one(m))
	}
	return out
}

// presets are what the access words stand for, as decide has them.
var presets = map[policy.Protocol]map[string][]string{
	policy.ProtocolREST: {
		"read-only":  {"GET", "HEAD", "OPTIONS"},
		"read-write": {"GET", "HEAD", "OPTIONS", "POST", "PUT", "PATCH"},
		"full":       {"*"},
	},
	policy.ProtocolWebSocket: {"read-only": {"GET"}, "read-write": {"GET", "WEBSOCKET_TEXT"}, "full": {"*"}},
	policy.ProtocolGraphQL:   {"read-only": {"query"}, "read-write": {"query", "mutation"}, "full": {"*"}},
}

func addressesOf(e *policy.Endpoint) addresses {
	switch {
	case len(e.AllowedIPs) > 0:
		return listed
	case e.AdvisorProposed || e.Host == "" || strings.Contains(e.Host, "*"):
		return public
	default:
		return internal
	}
}

// atom is a grant, for one program and one port.
type atom struct {
	*grant
	binary string
	port   uint16
}

// atoms calls yield for each program and port of a grant.
func (g *grant) atoms(yield func(atom) bool) bool {
	for _, b := range g.binaries {
		for _, p := range g.endpoint.Ports {
			if !yield(atom{g, b, p}) {
				return false
			}
		}
	}
	return true
}

// String says what is granted, on one line.
func (a atom) String() string {
	who := Quote(a.binary)
	if a.binary == "**" {
		who = "any program"
	}
	return fmt.Sprintf("%s may %s %s:%d%s on %s", who, a.verb(), hostText(a.endpoint), a.port, scopeText(a.endpoint), addressText(a.endpoint))
}

func (g *grant) verb() string {
	e := g.endpoint
	switch {
	case g.carried == opaque:
		return "send anything, unseen, to"
	case g.carried == unread && e.Protocol.Inspected() && e.Protocol != policy.ProtocolSQL:
		return "send anything (the rules of " + string(e.Protocol) + " are recorded and not enforced) to"
	case g.carried == unread:
		return "send anything, unjudged, to"
	case g.known:
		return "call every known mcp method of"
	default:
		return "send " + matcherText(e.Protocol, &g.what) + " to"
	}
}

// RuleText says what a rule is about, on one line.
func RuleText(m *policy.Matcher) string { return matcherText(policy.ProtocolREST, m) }

// matcherText says what a rule is about.
func matcherText(p policy.Protocol, m *policy.Matcher) string {
	var parts []string
	add := func(label, s string) {
		if s != "" {
			parts = append(parts, strings.TrimSpace(label+" "+Quote(s)))
		}
	}
	if p != policy.ProtocolREST {
		parts = append(parts, string(p))
	}
	add("", m.Method)
	add("", m.Path)
	for _, k := range slices.Sorted(maps.Keys(m.Query)) {
		add("with query "+Quote(k)+" in", strings.Join(m.Query[k], " | "))
	}
	add("", m.OperationType)
	add("named", m.OperationName)
	add("fields", strings.Join(m.Fields, ", "))
	add("tool", m.Tool)
	for _, k := range slices.Sorted(maps.Keys(m.Params)) {
		add("with parameter "+Quote(k), m.Params[k])
	}
	add("command", m.Command)
	return strings.Join(parts, " ")
}

func hostText(e *policy.Endpoint) string {
	if e.Host == "" {
		return "any name"
	}
	return Quote(e.Host)
}

func scopeText(e *policy.Endpoint) string {
	if e.PathScope == "" || !e.Protocol.Inspected() {
		return ""
	}
	return " below " + Quote(e.PathScope)
}

func addressText(e *policy.Endpoint) string {
	switch addressesOf(e) {
	case listed:
		var out []string
		for _, p := range prefixes(e) {
			out = append(out, p.String())
		}
		return "addresses inside " + strings.Join(out, ", ")
	case internal:
		return "public and internal addresses"
	default:
		return "public addresses"
	}
}

func prefixes(e *policy.Endpoint) []netip.Prefix {
	out := make([]netip.Prefix, len(e.AllowedIPs))
	for i, a := range e.AllowedIPs {
		out[i] = a.Prefix
	}
	return out
}

// Quote makes what a workload or policy wrote safe to print: as it is if it is plain,
// quoted and escaped otherwise.
func Quote(s string) string {
	plain := s != ""
	for _, c := range s {
		plain = plain && c > ' ' && c < 0x7f && c != '"'
	}
	if plain {
		return s
	}
	return fmt.Sprintf("%+q", s)
}
