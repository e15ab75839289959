package decide

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/open-policy-agent/opa/v1/ast"
	"github.com/open-policy-agent/opa/v1/storage/inmem"

	"github.com/splitpod/splitpod/pkg/core/policy"
)

// newRequestEvaluator prepares the module about requests; nil where none are judged.
// Its data are the rules as the file has them: presets, kinds, weights and defaults are
// the module's own, so that a mistake in compiling them shows as a disagreement.
func newRequestEvaluator(ctx context.Context, endpoints []endpoint, g *globs) (*evaluator, error) {
	data := make([]any, len(endpoints))
	some := false
	for i, e := range endpoints {
		if e.l7 != nil {
			data[i], some = endpointData(e.source), true
		}
	}
	if !some {
		return nil, nil
	}
	store := inmem.NewFromObjectWithOpts(map[string]any{"policy": map[string]any{"endpoints": data}}, inmem.OptRoundTripOnWrite(false))
	query, err := prepare(ctx, "request.rego", requestModule, "data.splitpod.request.verdict", store, g)
	return &evaluator{query}, err
}

func endpointData(e *policy.Endpoint) map[string]any {
	out := map[string]any{
		"path": e.PathScope, "folded": strings.ToLower(e.PathScope), "protocol": string(e.Protocol), "enforce": e.Enforce, "access": e.Access,
		"allow": rulesData(e.Allow), "deny": rulesData(inAnyCase(e.Deny)),
	}
	if e.MCP != nil {
		out["strict_tools"], out["all_methods"] = e.MCP.StrictToolNames, e.MCP.AllowAllKnownMCPMethods
	}
	if e.PersistedQueries == "allow_registered" {
		registered := map[string]any{}
		for id, q := range e.GraphQLPersistedQueries {
			registered[id] = map[string]any{"type": q.OperationType, "name": q.OperationName, "fields": texts(q.Fields)}
		}
		out["registered"] = registered
	}
	return out
}

func rulesData(rules []policy.Matcher) []any {
	out := make([]any, len(rules))
	for i := range rules {
		m := &rules[i]
		rule := map[string]any{}
		for key, text := range map[string]string{
			"method": m.Method, "path": m.Path, "operation_type": m.OperationType, "operation_name": m.OperationName, "tool": m.Tool,
		} {
			if text != "" {
				rule[key] = text
			}
		}
		if m.Fields != nil {
			rule["fields"] = texts(m.Fields)
		}
		if len(m.Query) > 0 {
			query := []any{}
			for key, patterns := range m.Query {
				query = append(query, map[string]any{"name": key, "spelled": spelling(key), "patterns": texts(patterns)})
			}
			rule["query"] = query
		}
		if len(m.Params) > 0 {
			rule["params"] = named(m.Params)
		}
		out[i] = rule
	}
	return out
}

func texts(list []string) []any {
	out := make([]any, len(list))
	for i, s := range list {
		out[i] = s
	}
	return out
}

func named(m map[string]string) map[string]any {
	out := make(map[string]any, len(m))
	for k, v := range m {
		out[k] = v
	}
	return out
}

// pairs are the parameters, with the spellings of their names.
func pairs(walk parameters) []any {
	out := []any{}
	for key, value, ok := walk.next(); ok; key, value, ok = walk.next() {
		out = append(out, map[string]any{"name": decode(key), "spelled": texts(spellings(decode(key))), "value": decode(value)})
	}
	return out
}

// requestData is the module's input about a request.
func requestData(p *Permit, r *Request) map[string]any {
	readable := queryReadable(r.Query)
	query := []any{pairs(parameters{})}
	if readable {
		query[0] = pairs(parameters{rest: r.Query})
	}
	if readable && twice(r.Query) {
		query = append(query, pairs(parameters{r.Query, true}))
	}
	endpoints := make([]any, len(p.endpoints))
	for i, id := range p.endpoints {
		endpoints[i] = id
	}
	operations := make([]any, len(r.Operations))
	for i, op := range r.Operations {
		operation := map[string]any{"type": op.Type, "name": op.Name, "fields": texts(op.Fields)}
		if op.Persisted != "" {
			operation["persisted"] = op.Persisted
		}
		operations[i] = operation
	}
	calls := make([]any, len(r.Calls))
	for i, c := range r.Calls {
		calls[i] = map[string]any{
			"method": c.Method, "tool": c.Tool, "params": named(c.Params), "names": texts(c.Names), "unnamed": c.Unnamed, "response": c.Response,
		}
	}
	return map[string]any{
		"endpoints": endpoints, "method": upper(r.Method), "path": r.Path, "decoded": texts(decodings(r.Path)), "folded": texts(folded(r.Path)), "readings": texts(readings(r.Path)),
		"query": query, "query_readable": readable, "operations": operations, "calls": calls,
		"upgrade": r.Upgrade, "message": r.Message, "session": r.Session, "unreadable": r.Unreadable != "",
	}
}

// upper is a method in upper case, as far as its letters are ASCII.
func upper(method string) string {
	out := []byte(method)
	for i, c := range out {
		if c >= 'a' && c <= 'z' {
			out[i] = c - ('a' - 'A')
		}
	}
	return string(out)
}

// folded are a path and its decodings in lower case.
func folded(path string) (out []string) {
	for _, p := range append([]string{path}, decodings(path)...) {
		out = append(out, strings.ToLower(p))
	}
	return out
}

// readings are the paths that an origin could take a path for.
func readings(path string) (out []string) {
	for _, p := range slices.Concat([]string{path}, decodings(path), folded(path)) {
		out = append(out, p)
		if len(p) > 1 && strings.HasSuffix(p, "/") {
			out = append(out, p[:len(p)-1])
		}
	}
	return out
}

// errNoRequests is asked about requests where the policy judges none.
var errNoRequests = errors.New("the policy judges no requests")

// request asks the module about a request.
func (e *evaluator) request(ctx context.Context, p *Permit, r *Request) (verdict, error) {
	if e == nil {
		return verdict{}, errNoRequests
	}
	input, err := ast.InterfaceToValue(requestData(p, r))
	if err != nil {
		return verdict{}, fmt.Errorf("describe the request: %w", err)
	}
	value, err := ask(ctx, e.query, input)
	if err != nil {
		return verdict{}, err
	}
	return readVerdict(value)
}

func readVerdict(value any) (verdict, error) {
	object, ok := value.(map[string]any)
	text, ok1 := object["why"].(string)
	hard, ok2 := object["hard"].(bool)
	soft, ok3 := object["soft"].(bool)
	item, err1 := integer(object["item"])
	by, err2 := integer(object["by"])
	if !slices.Contains([]bool{ok, ok1, ok2, ok3, err1 == nil, err2 == nil}, false) {
		return verdict{why: why(text), hard: hard, soft: soft, item: item, by: by}, nil
	}
	return verdict{}, errors.New("the decision has another shape")
}

func integer(v any) (int, error) {
	n, ok := v.(json.Number)
	if !ok {
		return 0, errors.New("no number")
	}
	i, err := n.Int64()
	return int(i), err
}

// byModule asks the module about a request, and its compiled form as well. It fails if they
// differ.
func (s *Snapshot) byModule(ctx context.Context, p Permit, r *Request) (Ruling, error) {
	if !s.made(&p) {
		return stale, nil
	}
	selected := s.selected(&p, r.Path)
	module, err := s.requests()
	if err != nil {
		return Ruling{}, err
	}
	v, taken, err := r.worst(func(r *Request) (verdict, error) {
		j := judgement{s: s, permit: &p, e: selected, r: r}
		compiled := j.judge()
		read, err := module.request(ctx, &p, r)
		if err == nil && compiled != read {
			err = fmt.Errorf("BUG: the module says %+v, its compiled form %+v", read, compiled)
		}
		return read, err
	})
	if err != nil {
		return Ruling{}, err
	}
	return s.ruling(selected, r, taken, v), nil
}
