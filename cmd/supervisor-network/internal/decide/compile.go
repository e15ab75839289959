package decide

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/splitpod/splitpod/pkg/core"
	"github.com/splitpod/splitpod/pkg/core/policy"
	"github.com/splitpod/splitpod/pkg/core/policy/glob"
)

// Options are what a Snapshot depends on beside the policy.
type Options struct {
	Generation core.Generation
	// Resolved maps a binary of the policy to further paths it leads to in the
	// workload, which then count as well.
	Resolved map[string][]string
	// IgnoreBinaries treats every rule's programs as matching. For a proxy that is
	// not told who asks.
	IgnoreBinaries bool
	// LearnUntil, if it is in the future, is until when public destinations that no rule
	// allows are allowed, under the rule LearnedRule and without anything that belongs to an
	// endpoint.
	LearnUntil time.Time
}

// Compile makes a Snapshot of a valid policy. It fails when the policy asks for
// something this build does not enforce; nothing of it is used then.
func Compile(ctx context.Context, doc *policy.Document, opt Options) (*Snapshot, error) {
	if err := enforceable(doc); err != nil {
		return nil, err
	}
	return build(ctx, doc, opt)
}

func build(ctx context.Context, doc *policy.Document, opt Options) (*Snapshot, error) {
	c := compiler{
		opt: opt, exact: map[string]any{}, patterns: map[string]any{}, rules: map[string]any{},
		globs: newGlobs(),
	}
	for _, name := range slices.Sorted(maps.Keys(doc.Network)) {
		if err := c.rule(name, doc.Network[name]); err != nil {
			return nil, err
		}
	}
	data := map[string]any{"exact": c.exact, "patterns": c.patterns, "rules": c.rules}
	ev, err := newEvaluator(ctx, data, c.globs)
	if err != nil {
		return nil, err
	}
	// Requests are decided by what was compiled here; the module, which takes longer to
	// prepare than everything else, is asked by those who want to know why.
	endpoints, globs := c.endpoints, c.globs
	requests := sync.OnceValues(func() (*evaluator, error) {
		return newRequestEvaluator(context.WithoutCancel(ctx), endpoints, globs)
	})
	s := &Snapshot{
		generation: opt.Generation, learnUntil: opt.LearnUntil, ignore: opt.IgnoreBinaries,
		empty: len(doc.Network) == 0, endpoints: c.endpoints, evaluator: ev, requests: requests, cache: newCache(),
	}
	s.governed, err = s.governs(ctx)
	return s, err
}

// enforceable refuses what this build cannot do with requests: to leave it out would
// send them otherwise than their author meant.
func enforceable(doc *policy.Document) error {
	var errs []error
	for _, name := range slices.Sorted(maps.Keys(doc.Network)) {
		for i, e := range doc.Network[name].Endpoints {
			if e.CredentialBindingProvider != "" && e.CredentialSigning == "" {
				errs = append(errs, fmt.Errorf("line %d: network_policies.%s.endpoints[%d]: credential_binding chooses the keys of credential_signing and means nothing without it; "+
					"which other keys go to an endpoint the credentials file says, with the bindings of each", e.At.Line, name, i))
			}
		}
	}
	for _, name := range slices.Sorted(maps.Keys(doc.Middlewares)) {
		errs = append(errs, fmt.Errorf("line %d: network_middlewares.%s needs requests to be changed, which this version cannot do yet",
			doc.Middlewares[name].At.Line, name))
	}
	return errors.Join(errs...)
}

// judged reports whether requests of an endpoint are judged one by one. Those of sql
// are not, as policies written for OpenShell expect; enforcing it is refused when
// the policy is read.
func judged(e *policy.Endpoint) bool {
	return e.Protocol.Inspected() && e.Protocol != policy.ProtocolSQL
}

// untouched reports whether an endpoint's bytes are only passed on.
func untouched(e *policy.Endpoint) bool {
	return e.TLS == "skip" || e.Protocol == policy.ProtocolTCP
}

// HasBinaries reports whether a policy names programs, and so needs to know who
// asks.
func HasBinaries(doc *policy.Document) bool {
	for _, r := range doc.Network {
		if len(r.Binaries) > 0 {
			return true
		}
	}
	return false
}

// compiler turns the policy into the module's data.
type compiler struct {
	opt       Options
	exact     map[string]any // "port host" → []any of endpoints
	patterns  map[string]any // "port suffix" → []any of endpoints
	rules     map[string]any
	globs     *globs
	endpoints []endpoint
}

func (c *compiler) rule(name string, r policy.Rule) error {
	programs, err := c.programs(r.Binaries)
	if err != nil {
		return fmt.Errorf("network_policies.%s: %w", name, err)
	}
	c.rules[name] = programs
	for i := range r.Endpoints {
		if err := c.endpoint(name, &r.Endpoints[i]); err != nil {
			return fmt.Errorf("network_policies.%s.endpoints[%d]: %w", name, i, err)
		}
	}
	return nil
}

func (c *compiler) programs(binaries []policy.Binary) (map[string]any, error) {
	exact, patterns := map[string]any{}, []any{}
	for _, b := range binaries {
		if !strings.Contains(b.Path, "*") {
			exact[b.Path] = true
			for _, p := range c.opt.Resolved[b.Path] {
				exact[p] = true
			}
			continue
		}
		if _, err := c.globs.path(b.Path); err != nil {
			return nil, fmt.Errorf("binary %q: %w", b.Path, err)
		}
		patterns = append(patterns, b.Path)
	}
	return map[string]any{"exact": exact, "patterns": patterns}, nil
}

func (c *compiler) endpoint(rule string, e *policy.Endpoint) error {
	host, err := glob.CompileHost(e.Host)
	if err != nil {
		return fmt.Errorf("host %q: %w", e.Host, err)
	}
	entry := map[string]any{"id": len(c.endpoints), "rule": rule, "host": e.Host}
	compiled := endpoint{rule: rule, source: e}
	if judged(e) {
		if compiled.l7, err = compileL7(len(c.endpoints), e, c.globs); err != nil {
			return err
		}
	}
	c.endpoints = append(c.endpoints, compiled)
	index, key := c.exact, e.Host
	if _, exact := host.Exact(); !exact {
		c.globs.hosts[e.Host] = host
		index, key = c.patterns, suffixOf(e.Host)
	}
	for _, port := range e.Ports {
		k := strconv.Itoa(int(port)) + " " + key
		list, _ := index[k].([]any)
		index[k] = append(list, entry)
	}
	return nil
}

func prefixesOf(e *policy.Endpoint) []netip.Prefix {
	out := make([]netip.Prefix, len(e.AllowedIPs))
	for i, a := range e.AllowedIPs {
		out[i] = a.Prefix
	}
	return out
}
