package decide

import (
	"fmt"
	"net/url"
	"slices"
	"strings"

	"github.com/splitpod/splitpod/pkg/core/policy"
	"github.com/splitpod/splitpod/pkg/core/policy/glob"
)

// l7 is the compiled part of an endpoint that is about requests.
type l7 struct {
	public      Endpoint
	kind        kind
	graphql     bool // has rules about GraphQL operations
	scope       *glob.Scope
	weight      int // of the scope
	allow, deny []matcher7
	readsQuery  bool
	persisted   map[string]Operation
	// known allows every method but a call of a tool that rules name; nil: no.
	known func(*Call) bool
}

// matcher7 is one compiled rule.
type matcher7 struct {
	method    string        // "*": any; else upper-case
	path      *glob.Pattern // nil: any
	query     []queryRule
	operation string // "*": any; "" is no rule about GraphQL
	name      *glob.Pattern
	fields    []*glob.Pattern
	call      *glob.Pattern // nil: any
	tool      *glob.Pattern
	params    map[string]*glob.Pattern
}

type queryRule struct {
	key  string
	from []*glob.Pattern // one of them has to match
}

// compileL7 compiles an endpoint whose requests are inspected.
func compileL7(rule string, e *policy.Endpoint) (*l7, error) {
	out := &l7{scope: glob.CompileScope(e.PathScope), kind: kindHTTP}
	if err := out.scope.Err(); err != nil {
		return nil, fmt.Errorf("path %q: %w", e.PathScope, err)
	}
	out.weight = out.scope.Specificity()
	out.public = Endpoint{Protocol: e.Protocol, Enforce: e.Enforce, EncodedSlash: e.AllowEncodedSlash, rule: rule}
	switch e.Protocol {
	case policy.ProtocolGraphQL:
		out.kind, out.graphql, out.public.MaxBody = kindGraphQL, true, int(e.GraphQLMaxBodyBytes)
	case policy.ProtocolJSONRPC:
		out.kind, out.public.MaxBody = kindCalls, int(e.JSONRPC.MaxBodyBytes)
	case policy.ProtocolMCP:
		out.kind, out.public.MaxBody, out.public.StrictTools = kindCalls, int(e.MCP.MaxBodyBytes), e.MCP.StrictToolNames
	}
	for _, preset := range preset(e) {
		out.allow = append(out.allow, preset)
	}
	if err := out.matchers(e); err != nil {
		return nil, err
	}
	if e.Protocol == policy.ProtocolMCP && e.MCP.AllowAllKnownMCPMethods {
		out.known = knownMethods(e)
	}
	if e.PersistedQueries == "allow_registered" {
		out.persisted = make(map[string]Operation, len(e.GraphQLPersistedQueries))
		for id, q := range e.GraphQLPersistedQueries {
			out.persisted[id] = Operation{Type: q.OperationType, Name: q.OperationName, Fields: q.Fields}
		}
	}
	return out, nil
}

func (e *l7) allowsKnown(c *Call) bool { return e.known != nil && e.known(c) }

// knownMethods is allow_all_known_mcp_methods: everything, but where rules name
// tools, no others.
func knownMethods(e *policy.Endpoint) func(*Call) bool {
	tools := slices.ContainsFunc(e.Allow, func(m policy.Matcher) bool { return m.Tool != "" || m.Params["name"] != "" })
	return func(c *Call) bool { return !tools || c.Method != "tools/call" }
}

// preset is what an access word stands for.
func preset(e *policy.Endpoint) (out []matcher7) {
	words := map[policy.Protocol]map[string][]string{
		policy.ProtocolREST:      {"read-only": {"GET", "HEAD", "OPTIONS"}, "read-write": {"GET", "HEAD", "OPTIONS", "POST", "PUT", "PATCH"}, "full": {"*"}},
		policy.ProtocolWebSocket: {"read-only": {"GET"}, "read-write": {"GET", MethodText}, "full": {"*"}},
	}
	for _, method := range words[e.Protocol][e.Access] {
		out = append(out, matcher7{method: method})
	}
	if e.Protocol == policy.ProtocolGraphQL {
		for _, operation := range map[string][]string{"read-only": {"query"}, "read-write": {"query", "mutation"}, "full": {"*"}}[e.Access] {
			out = append(out, matcher7{operation: operation})
		}
	}
	return out
}

func (e *l7) matchers(source *policy.Endpoint) error {
	for i := range source.Allow {
		m, err := compileMatcher(&source.Allow[i], glob.Compile)
		if err != nil {
			return fmt.Errorf("line %d: %w", source.Allow[i].At.Line, err)
		}
		e.add(&e.allow, m, source)
	}
	for i := range source.Deny {
		m, err := compileMatcher(&source.Deny[i], glob.CompileDeny)
		if err != nil {
			return fmt.Errorf("line %d: %w", source.Deny[i].At.Line, err)
		}
		e.add(&e.deny, m, source)
	}
	return nil
}

func (e *l7) add(list *[]matcher7, m matcher7, source *policy.Endpoint) {
	*list = append(*list, m)
	e.readsQuery = e.readsQuery || len(m.query) > 0
	if m.operation != "" {
		e.graphql = true
		e.public.GraphQL = source.Protocol == policy.ProtocolWebSocket
	}
}

// compileMatcher compiles one rule with the given reading of patterns. The
// wildcards of a path stop at slashes also in rules that deny: there the pattern is
// what its author wrote for paths.
func compileMatcher(m *policy.Matcher, read func(string, byte) (*glob.Pattern, error)) (out matcher7, err error) {
	name := func(pattern string) *glob.Pattern {
		if pattern == "" || err != nil {
			return nil
		}
		var p *glob.Pattern
		p, err = read(pattern, '.')
		return p
	}
	out.method, out.operation = m.Method, m.OperationType
	if m.Path != "" && m.Path != "**" {
		if out.path, err = glob.Compile(m.Path, '/'); err != nil {
			return out, err
		}
	}
	out.name, out.call, out.tool = name(m.OperationName), name(m.Method), name(m.Tool)
	if m.Method == "*" {
		out.call = nil
	}
	for _, f := range m.Fields {
		out.fields = append(out.fields, name(f))
	}
	for key, patterns := range m.Query {
		q := queryRule{key: key}
		for _, p := range patterns {
			var compiled *glob.Pattern
			if compiled, err = read(p, '.'); err != nil {
				return out, err
			}
			q.from = append(q.from, compiled)
		}
		out.query = append(out.query, q)
	}
	for key, pattern := range m.Params {
		if key == "name" && out.tool == nil {
			out.tool = name(pattern)
			continue
		}
		if out.params == nil {
			out.params = map[string]*glob.Pattern{}
		}
		out.params[key] = name(pattern)
	}
	return out, err
}

func (m *matcher7) aboutHTTP() bool { return m.method != "" && m.operation == "" }

func (m *matcher7) method7(method string) bool {
	return m.method == "*" || strings.EqualFold(m.method, method)
}

func (m *matcher7) allows(r *Request) bool {
	if !m.aboutHTTP() || !m.method7(r.Method) && !(m.method == "GET" && r.Method == "HEAD") || m.path != nil && !m.path.Match(r.Path) {
		return false
	}
	for i := range m.query {
		if !m.query[i].all(r.Query) {
			return false
		}
	}
	return true
}

func (m *matcher7) denies(r *Request) bool {
	if !m.aboutHTTP() || !m.method7(r.Method) || m.path != nil && !m.path.Match(r.Path) {
		return false
	}
	for i := range m.query {
		if !m.query[i].some(r.Query) {
			return false
		}
	}
	return true
}

// all reports whether the parameter is there and each of its values matches.
func (q *queryRule) all(query string) bool {
	found := false
	for key, value := range parameters(query) {
		if key == q.key {
			if !q.match(value) {
				return false
			}
			found = true
		}
	}
	return found
}

// some reports whether one of the parameter's values matches.
func (q *queryRule) some(query string) bool {
	for key, value := range parameters(query) {
		if key == q.key && q.match(value) {
			return true
		}
	}
	return false
}

func (q *queryRule) match(value string) bool {
	return slices.ContainsFunc(q.from, func(p *glob.Pattern) bool { return p.Match(value) })
}

// parameters yields the pairs of a query. A semicolon separates nothing.
func parameters(query string) func(func(key, value string) bool) {
	return func(yield func(key, value string) bool) {
		for pair := range strings.SplitSeq(query, "&") {
			key, value, _ := strings.Cut(pair, "=")
			key, err1 := url.QueryUnescape(key)
			value, err2 := url.QueryUnescape(value)
			if pair != "" && err1 == nil && err2 == nil && !yield(key, value) {
				return
			}
		}
	}
}

// queryReadable reports whether every percent sign of a query is an escape.
func queryReadable(query string) bool {
	for i := range len(query) {
		if query[i] == '%' && (i+2 >= len(query) || !isHex(query[i+1]) || !isHex(query[i+2])) {
			return false
		}
	}
	return true
}

func isHex(c byte) bool {
	return c >= '0' && c <= '9' || c >= 'a' && c <= 'f' || c >= 'A' && c <= 'F'
}

func (m *matcher7) aboutOperation(op *Operation) bool {
	return m.operation != "" && (m.operation == "*" || m.operation == op.Type) && (m.name == nil || m.name.Match(op.Name))
}

// allowsOperation: every root field has to be one of the rule's.
func (m *matcher7) allowsOperation(op *Operation) bool {
	if !m.aboutOperation(op) {
		return false
	}
	if m.fields == nil {
		return true
	}
	for _, f := range op.Fields {
		if !m.field(f) {
			return false
		}
	}
	return len(op.Fields) > 0
}

// deniesOperation: one root field of the rule's is enough.
func (m *matcher7) deniesOperation(op *Operation) bool {
	return m.aboutOperation(op) && (m.fields == nil || slices.ContainsFunc(op.Fields, m.field))
}

func (m *matcher7) field(name string) bool {
	return slices.ContainsFunc(m.fields, func(p *glob.Pattern) bool { return p.Match(name) })
}

func (m *matcher7) allowsCall(c *Call) bool {
	if m.method == "" && m.tool == nil || m.call != nil && !m.call.Match(c.Method) || m.method == "" && c.Method != "tools/call" {
		return false
	}
	if m.tool != nil && (c.Tool == "" || !m.tool.Match(c.Tool)) {
		return false
	}
	for key, p := range m.params {
		if v, ok := c.Params[key]; !ok || !p.Match(v) {
			return false
		}
	}
	return true
}

func (m *matcher7) deniesCall(c *Call) bool { return m.allowsCall(c) }
