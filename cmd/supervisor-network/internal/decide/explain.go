package decide

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/splitpod/splitpod/pkg/core"
	"github.com/splitpod/splitpod/pkg/core/policy"
)

// Explanation is one decision with what led to it.
type Explanation struct {
	Permit  Permit
	Denial  *Denial
	Granted []string // the endpoints that allow it
}

// Explain decides a question and says why. It fails when the policy cannot be
// evaluated.
func (s *Snapshot) Explain(ctx context.Context, q Question) (Explanation, error) {
	permit, denial := s.Connection(ctx, q)
	out := Explanation{Permit: permit, Denial: denial}
	if s == nil || denial != nil && denial.Reason != core.ReasonPolicyDenied {
		return out, nil
	}
	f := facts{host: q.Host, port: q.Port, program: q.Who.Program.Path, ancestors: q.Who.Ancestors}
	d, err := s.evaluator.evaluate(ctx, &f, s.ignore)
	if err != nil {
		return Explanation{}, err
	}
	for _, id := range d.granted {
		e := s.endpoints[id]
		out.Granted = append(out.Granted, e.place()+": "+describe(e.source))
	}
	return out, nil
}

// place says where an endpoint is written.
func (e *endpoint) place() string {
	if e.source.At.Line == 0 {
		return "network_policies." + e.rule + ", an approved proposal"
	}
	return fmt.Sprintf("network_policies.%s, endpoint on line %d", e.rule, e.source.At.Line)
}

// String says the decision on the first line and the reasons below it.
func (x Explanation) String() string {
	var b strings.Builder
	if x.Denial != nil {
		fmt.Fprintf(&b, "deny (%s)\n  %s\n", x.Denial.Reason, x.Denial.Detail)
		return b.String()
	}
	fmt.Fprintf(&b, "allow by rule %s\n", x.Permit.Rule())
	for _, g := range x.Granted {
		fmt.Fprintf(&b, "  %s\n", g)
	}
	fmt.Fprintf(&b, "  addresses: %s\n", x.Permit.addresses())
	return b.String()
}

// addresses says which addresses the host may resolve to.
func (p Permit) addresses() string {
	if p.Inference() {
		return "none: the network daemon itself answers, by its inference routes"
	}
	switch p.mode {
	case AddressListed:
		return "only inside " + joinPrefixes(p.prefixes)
	case AddressDeclared:
		return "public and internal, because the policy names the host exactly; never loopback, link-local or metadata"
	default:
		return "public only"
	}
}

// Describe says what each endpoint of a policy means, a line each.
func Describe(doc *policy.Document) []string {
	var out []string
	for _, name := range slices.Sorted(maps.Keys(doc.Network)) {
		r := doc.Network[name]
		var programs []string
		for _, b := range r.Binaries {
			programs = append(programs, b.Path)
		}
		who := "no program (the rule has no binaries)"
		if len(programs) > 0 {
			who = strings.Join(programs, ", ") + ", and what they start"
		}
		for i := range r.Endpoints {
			out = append(out, fmt.Sprintf("%s: %s for %s", name, describe(&r.Endpoints[i]), who))
		}
	}
	if len(out) == 0 {
		out = append(out, "no rule: the workload reaches nothing")
	}
	return out
}

func describe(e *policy.Endpoint) string {
	host := e.Host
	if host == "" {
		host = "any name"
	}
	var ports []string
	for _, p := range e.Ports {
		ports = append(ports, fmt.Sprint(p))
	}
	terms := "on public addresses"
	switch {
	case len(e.AllowedIPs) > 0:
		terms = "on addresses inside " + joinPrefixes(prefixesOf(e))
	case !strings.Contains(host, "*") && !e.AdvisorProposed:
		terms = "on public and internal addresses"
	}
	at := strings.Join(ports, ", ")
	if e.PathScope != "" {
		at += " path " + e.PathScope
	}
	return fmt.Sprintf("%s port %s, %s, %s", host, at, treatment(e), terms)
}

func joinPrefixes[P fmt.Stringer](ps []P) string {
	var out []string
	for _, p := range ps {
		out = append(out, p.String())
	}
	return strings.Join(out, ", ")
}

// treatment says what is done with the requests of an endpoint.
func treatment(e *policy.Endpoint) string {
	switch {
	case untouched(e):
		return "bytes relayed untouched"
	case !judged(e):
		return "any request passes (TLS ends at the proxy)"
	case !e.Enforce:
		return "requests judged as " + string(e.Protocol) + "; what the rules refuse is recorded and sent"
	default:
		return "requests judged as " + string(e.Protocol)
	}
}
