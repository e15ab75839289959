package decide

import (
	"context"
	"fmt"
	"strings"
	"sync/atomic"
	"time"

	"github.com/splitpod/splitpod/pkg/core"
	"github.com/splitpod/splitpod/pkg/core/policy"
)

// Question is what is asked about one connection.
type Question struct {
	Who  *core.Identity // never nil; ignored where programs are not identified
	Host string         // lower-case; IPv6 without brackets
	Port uint16
}

// Snapshot is one policy, compiled. Make it with Compile. Immutable and safe for
// concurrent use; a nil Snapshot denies everything.
type Snapshot struct {
	generation core.Generation
	ignore     bool // programs are not identified
	empty      bool // no rule at all
	governed   bool // there is an endpoint for InferenceHost
	learnUntil time.Time
	endpoints  []endpoint
	evaluator  *evaluator
	requests   func() (*evaluator, error)
	cache      *cache
}

// endpoint is an endpoint as decisions refer to it, by its number.
type endpoint struct {
	rule   string
	source *policy.Endpoint
	l7     *l7 // nil: its requests are not judged
}

// Connection decides. It returns a valid Permit, or a Denial and the zero Permit.
// The Denial is shared and must not be changed.
func (s *Snapshot) Connection(ctx context.Context, q Question) (Permit, *Denial) {
	if s == nil {
		return Permit{}, &Denial{core.ReasonNotReady, "no policy is in force; everything is denied until there is a valid one"}
	}
	if !s.ignore && q.Who.Status != core.IdentityKnown {
		return Permit{}, unidentified(q.Who)
	}
	if isInference(q.Host, q.Port) && !s.governed {
		return s.models(), nil
	}
	f := facts{host: q.Host, port: q.Port}
	if !s.ignore {
		f.program, f.ancestors = q.Who.Program.Path, q.Who.Ancestors
	}
	if permit, denial, ok := s.cache.get(&f); ok {
		return s.learn(&f, permit, denial)
	}
	permit, denial, cacheable := s.evaluate(ctx, &f, q.Who)
	if cacheable {
		s.cache.put(&f, permit, denial)
	}
	return s.learn(&f, permit, denial)
}

func unidentified(who *core.Identity) *Denial {
	detail := "the program behind the connection could not be identified (" + who.Status.String() + ")"
	if who.Detail != "" {
		detail += ": " + who.Detail
	}
	return &Denial{core.ReasonIdentityUnavailable, detail}
}

// evaluate asks the Rego module. A failure denies and is not remembered.
func (s *Snapshot) evaluate(ctx context.Context, f *facts, who *core.Identity) (permit Permit, denial *Denial, cacheable bool) {
	d, err := s.evaluator.evaluate(ctx, f, s.ignore)
	if err != nil {
		return Permit{}, &Denial{core.ReasonInternal, "the policy could not be evaluated; the cause is in the daemon's log"}, false
	}
	if len(d.granted) == 0 {
		return Permit{}, &Denial{core.ReasonPolicyDenied, s.explain(f, who, d.near)}, true
	}
	return s.permit(f, d.granted), nil, true
}

// permit combines the endpoints that grant. They agree on tls and allowed_ips:
// the policy is refused otherwise.
func (s *Snapshot) permit(f *facts, granted []int) Permit {
	p := Permit{valid: true, host: strings.Clone(f.host), port: f.port, generation: s.generation, endpoints: granted, uninspected: true}
	for i, id := range granted {
		e := &s.endpoints[id]
		if i == 0 || e.rule < p.rule {
			p.rule = e.rule
		}
		p.opaque = p.opaque || untouched(e.source)
		p.uninspected = p.uninspected && e.source.AllowUninspectedCredentials
		p.inspected = p.inspected || e.l7 != nil
		p.encodedSlash = p.encodedSlash || e.l7 != nil && e.source.AllowEncodedSlash
		switch {
		case len(e.source.AllowedIPs) > 0:
			p.mode = AddressListed
			if p.prefixes == nil {
				p.prefixes = prefixesOf(e.source)
				p.listed = joinPrefixes(p.prefixes)
			}
		case p.mode == AddressPublic && e.source.Host == f.host && !e.source.AdvisorProposed:
			p.mode = AddressDeclared
		}
	}
	return p
}

// explain says why nothing grants the connection.
func (s *Snapshot) explain(f *facts, who *core.Identity, near []string) string {
	if s.empty {
		return "network connections not allowed by policy"
	}
	if len(near) == 0 {
		return fmt.Sprintf("endpoint %s:%d is not allowed by any policy", f.host, f.port)
	}
	var b strings.Builder
	for i, rule := range near {
		if i == 3 {
			fmt.Fprintf(&b, "; and %d more rules", len(near)-i)
			break
		}
		if i > 0 {
			b.WriteString("; ")
		}
		fmt.Fprintf(&b, "binary '%s' not allowed in policy '%s'", f.program, rule)
	}
	var names []string
	for _, a := range f.ancestors[:min(len(f.ancestors), 8)] {
		names = append(names, a.Path)
	}
	fmt.Fprintf(&b, " (ancestors: [%s], cmdline: [%s]); programs are compared by the path the kernel resolved: "+
		"a link in the policy counts only if it leads to that path", strings.Join(names, " -> "), strings.Join(commandPaths(who), ", "))
	return b.String()
}

func commandPaths(who *core.Identity) []string {
	if who == nil {
		return nil
	}
	return who.CommandPaths[:min(len(who.CommandPaths), 8)]
}

// Engine holds the Snapshot that decides now. The zero value denies everything.
// Safe for concurrent use.
type Engine struct{ current atomic.Pointer[Snapshot] }

// Publish makes s decide from now on; nil denies everything.
func (e *Engine) Publish(s *Snapshot) { e.current.Store(s) }

// Current is the Snapshot that decides now, nil if there is none.
func (e *Engine) Current() *Snapshot { return e.current.Load() }
