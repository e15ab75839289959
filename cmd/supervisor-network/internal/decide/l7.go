package decide

import (
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/splitpod/splitpod/pkg/core/policy"
	"github.com/splitpod/splitpod/pkg/core/policy/glob"
)

// l7 is the compiled part of an endpoint that is about requests.
type l7 struct {
	id          int // of the endpoint in its Snapshot
	public      Endpoint
	scope       *glob.Scope
	folded      *glob.Scope // scope in lower case
	weight      int         // of the scope
	allow, deny ruleSet
	readsQuery  bool
	persisted   map[string]*Operation // registered GraphQL operations, by hash or id
	known       bool                  // MCP: allow_all_known_mcp_methods
	namesTools  bool                  // MCP: some rule that allows names tools
}

// ruleSet are rules by what they are about.
type ruleSet struct {
	http      httpRules
	operation []operationRule
	call      []callRule
}

// words are what the access words allow, as methods of HTTP and types of GraphQL.
var words = map[policy.Protocol]map[string][]string{
	policy.ProtocolREST: {
		"read-only":  {"GET", "HEAD", "OPTIONS"},
		"read-write": {"GET", "HEAD", "OPTIONS", "POST", "PUT", "PATCH"},
		"full":       {"*"},
	},
	policy.ProtocolWebSocket: {"read-only": {"GET"}, "read-write": {"GET", MethodText}, "full": {"*"}},
	policy.ProtocolGraphQL:   {"read-only": {"query"}, "read-write": {"query", "mutation"}, "full": {"*"}},
}

// compileL7 compiles an endpoint whose requests are judged.
func compileL7(id int, e *policy.Endpoint, g *globs) (*l7, error) {
	scope, err := g.scope(e.PathScope)
	if err != nil {
		return nil, fmt.Errorf("path %q: %w", e.PathScope, err)
	}
	folded, err := g.scope(strings.ToLower(e.PathScope))
	if err != nil {
		return nil, fmt.Errorf("path %q: %w", e.PathScope, err)
	}
	out := &l7{id: id, scope: scope, folded: folded, weight: scope.Specificity()}
	out.public = Endpoint{Protocol: e.Protocol, Enforce: e.Enforce, EncodedSlash: e.AllowEncodedSlash, number: id + 1,
		RewriteBody: e.RequestBodyCredentialRewrite, RewriteMessages: e.WebSocketCredentialRewrite,
		Signing: e.CredentialSigning, SigningService: e.SigningService, SigningRegion: e.SigningRegion, SigningProvider: e.CredentialBindingProvider}
	out.options(e)
	out.preset(e)
	for _, list := range []struct {
		from []policy.Matcher
		to   *ruleSet
		read reading
	}{{e.Allow, &out.allow, g.name}, {inAnyCase(e.Deny), &out.deny, g.denied}} {
		for i := range list.from {
			c := ruleCompiler{protocol: e.Protocol, m: &list.from[i], name: list.read, globs: g}
			if err := c.add(list.to); err != nil {
				return nil, fmt.Errorf("line %d: %w", list.from[i].At.Line, err)
			}
			out.readsQuery = out.readsQuery || len(list.from[i].Query) > 0
		}
	}
	out.allow.http, out.deny.http = indexRules(out.allow.http.rules), indexRules(out.deny.http.rules)
	return out, nil
}

// inAnyCase are rules that deny, and each about a path once more in lower case, in which every
// path is tried as well: to many origins (GitHub, Express, ASP.NET) /Admin is /admin.
func inAnyCase(rules []policy.Matcher) []policy.Matcher {
	out := slices.Clone(rules)
	for _, m := range rules {
		if lower := strings.ToLower(m.Path); lower != m.Path {
			m.Path = lower
			out = append(out, m)
		}
	}
	return out
}

// options takes what an endpoint says about single protocols.
func (e *l7) options(from *policy.Endpoint) {
	switch from.Protocol {
	case policy.ProtocolGraphQL:
		e.public.MaxBody = int(from.GraphQLMaxBodyBytes)
	case policy.ProtocolWebSocket:
		if e.public.GraphQL = graphQLMessages(from); e.public.GraphQL {
			e.public.MaxBody = int(from.GraphQLMaxBodyBytes)
		}
	case policy.ProtocolJSONRPC:
		e.public.MaxBody = int(from.JSONRPC.MaxBodyBytes)
	case policy.ProtocolMCP:
		e.public.MaxBody, e.public.StrictTools = int(from.MCP.MaxBodyBytes), from.MCP.StrictToolNames
		e.known = from.MCP.AllowAllKnownMCPMethods
		e.namesTools = slices.ContainsFunc(from.Allow, func(m policy.Matcher) bool { return m.Tool != "" || m.Params[toolParam] != "" })
	}
	if from.PersistedQueries == "allow_registered" {
		e.persisted = make(map[string]*Operation, len(from.GraphQLPersistedQueries))
		for id, q := range from.GraphQLPersistedQueries {
			e.persisted[id] = &Operation{Type: q.OperationType, Name: q.OperationName, Fields: q.Fields}
		}
	}
}

// graphQLMessages reports whether the messages of a WebSocket are GraphQL operations:
// where any rule is about these.
func graphQLMessages(e *policy.Endpoint) bool {
	about := func(m policy.Matcher) bool { return m.OperationType != "" }
	return slices.ContainsFunc(e.Allow, about) || slices.ContainsFunc(e.Deny, about)
}

// preset adds what the access word stands for. Where messages are GraphQL operations,
// the word that allows messages allows these.
func (e *l7) preset(from *policy.Endpoint) {
	for _, word := range words[from.Protocol][from.Access] {
		switch {
		case from.Protocol == policy.ProtocolGraphQL:
			e.allow.operation = append(e.allow.operation, operationRule{kind: word})
		case e.public.GraphQL && (word == MethodText || word == "*"):
			e.allow.operation = append(e.allow.operation, operationRule{kind: "*"})
			fallthrough
		default:
			e.allow.http.rules = append(e.allow.http.rules, httpRule{method: word})
		}
	}
}

// allowsCall: where everything known is allowed, rules that name tools leave the call
// of others out.
func (e *l7) allowsCall(c *Call) bool {
	if e.known && !(e.namesTools && c.Method == toolCall) {
		return true
	}
	for i := range e.allow.call {
		if e.allow.call[i].allows(c) {
			return true
		}
	}
	return false
}

// reading compiles the pattern of a name or value.
type reading func(string) (*glob.Pattern, error)

// ruleCompiler compiles one rule. Names are read in the given way; the wildcards of a
// path stop at slashes also in rules that deny, as its author wrote them for paths.
type ruleCompiler struct {
	protocol policy.Protocol
	m        *policy.Matcher
	name     reading
	globs    *globs
}

func (c ruleCompiler) add(to *ruleSet) error {
	switch {
	case c.m.OperationType != "":
		m, err := c.operation()
		to.operation = append(to.operation, m)
		return err
	case c.protocol == policy.ProtocolJSONRPC, c.protocol == policy.ProtocolMCP:
		m, err := c.call()
		to.call = append(to.call, m)
		return err
	default:
		m, err := c.http()
		to.http.rules = append(to.http.rules, m)
		return err
	}
}

func (c ruleCompiler) http() (m httpRule, err error) {
	m.method = c.m.Method
	if c.m.Path != "**" {
		if m.path, err = c.globs.path(c.m.Path); err != nil {
			return m, err
		}
	}
	for _, key := range slices.Sorted(maps.Keys(c.m.Query)) {
		from, err := c.names(c.m.Query[key])
		if err != nil {
			return m, err
		}
		m.query = append(m.query, queryRule{key, spelling(key), from})
	}
	return m, nil
}

func (c ruleCompiler) operation() (m operationRule, err error) {
	m.kind = c.m.OperationType
	if c.m.OperationName != "" {
		if m.name, err = c.name(c.m.OperationName); err != nil {
			return m, err
		}
	}
	m.fields, err = c.names(c.m.Fields)
	return m, err
}

func (c ruleCompiler) call() (m callRule, err error) {
	method, params := c.m.Method, maps.Clone(c.m.Params)
	if c.m.Tool != "" {
		params = map[string]string{toolParam: c.m.Tool}
	}
	if method == "" {
		method = toolCall
	}
	if method != "*" {
		if m.method, err = c.name(method); err != nil {
			return m, err
		}
	}
	for _, key := range slices.Sorted(maps.Keys(params)) {
		p, err := c.name(params[key])
		if err != nil {
			return m, err
		}
		m.params = append(m.params, paramRule{key, Folded(key), p})
	}
	return m, nil
}

func (c ruleCompiler) names(patterns []string) (out []*glob.Pattern, err error) {
	for _, p := range patterns {
		compiled, err := c.name(p)
		if err != nil {
			return nil, err
		}
		out = append(out, compiled)
	}
	return out, nil
}
