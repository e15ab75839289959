package decide

import (
	"context"
	"slices"

	"github.com/splitpod/splitpod/pkg/core/policy"
)

// Spoken is a rule that speaks about a request.
type Spoken struct {
	Place   string // of its endpoint
	Denies  bool
	Matcher policy.Matcher
}

// RequestExplanation is the decision about one request with what led to it.
type RequestExplanation struct {
	Ruling   Ruling
	Endpoint string // that takes the request; "" if none does, or nothing is judged
	Enforced bool
	Spoken   []Spoken
}

// SpeakAbout decides a request on a permitted connection, by the module, and says which rules
// speak about it. It is for people, and slower than Request. It fails if the module says
// something else than Request, which would be a defect of this package.
func (s *Snapshot) SpeakAbout(ctx context.Context, p Permit, r *Request) (RequestExplanation, error) {
	if !p.inspected {
		return RequestExplanation{Ruling: Ruling{Allowed: s.made(&p), Rule: p.rule}}, nil
	}
	ruling, err := s.byModule(ctx, p, r)
	if err != nil {
		return RequestExplanation{}, err
	}
	e, _ := s.Endpoint(p, r.Path)
	out := RequestExplanation{Ruling: ruling, Enforced: e.Enforce}
	if selected := s.selected(&p, r.Path); selected != nil {
		out.Endpoint = s.endpoints[selected.id].place()
	}
	for _, id := range p.endpoints {
		if e := &s.endpoints[id]; e.l7 != nil && e.l7.scope.Match(r.Path) {
			spoken, err := e.speaks(r)
			if err != nil {
				return RequestExplanation{}, err
			}
			out.Spoken = append(out.Spoken, spoken...)
		}
	}
	return out, nil
}

// speaks finds the rules of an endpoint that match a request, by compiling each alone.
func (e *endpoint) speaks(r *Request) (out []Spoken, err error) {
	preset := *e.source
	preset.Allow, preset.Deny = nil, nil
	if l, err := compileL7(0, &preset, newGlobs()); err == nil && (l.allow.matches(r, false) || l.known && len(r.Calls) > 0) {
		word := e.source.Access
		if word == "" {
			word = "allow_all_known_mcp_methods"
		}
		out = append(out, Spoken{Place: e.place(), Matcher: policy.Matcher{Method: "access: " + word}})
	}
	for _, list := range []struct {
		from   []policy.Matcher
		denies bool
	}{{e.source.Allow, false}, {e.source.Deny, true}} {
		for _, m := range list.from {
			one := *e.source
			one.Access, one.MCP = "", e.source.MCP
			one.Allow, one.Deny = []policy.Matcher{m}, nil
			if list.denies {
				one.Allow, one.Deny = nil, []policy.Matcher{m}
			}
			l, err := compileL7(0, &one, newGlobs())
			if err != nil {
				return nil, err
			}
			if !list.denies && l.allow.matches(r, false) || list.denies && l.deny.matches(r, true) {
				out = append(out, Spoken{e.place(), list.denies, m})
			}
		}
	}
	return out, nil
}

// matches reports whether some rule of the set speaks about the request or a part of it.
func (t *ruleSet) matches(r *Request, deny bool) bool {
	http := t.http.allows
	if deny {
		http = t.http.denies
	}
	return http(r) || slices.ContainsFunc(t.operation, func(m operationRule) bool {
		return slices.ContainsFunc(r.Operations, func(op Operation) bool {
			if deny {
				return m.denies(&op)
			}
			return m.allows(&op)
		})
	}) || slices.ContainsFunc(t.call, func(m callRule) bool {
		return slices.ContainsFunc(r.Calls, func(c Call) bool {
			if deny {
				return m.denies(&c)
			}
			return m.allows(&c)
		})
	})
}
