package decide

import (
	"slices"
	"strings"

	"github.com/splitpod/splitpod/pkg/core/policy/glob"
)

// httpRule is a compiled rule about HTTP requests and WebSocket messages.
type httpRule struct {
	method string        // "*": any; else upper-case
	path   *glob.Pattern // nil: any
	query  []queryRule
}

// queryRule is about one parameter of the query, and about those that some origin takes for
// it.
type queryRule struct {
	key     string
	spelled string
	from    []*glob.Pattern // one of them has to match
}

// isMethod compares a method as sent. Letter case does not count; only that of ASCII
// letters is known.
func isMethod(sent, upper string) bool {
	if len(sent) != len(upper) {
		return false
	}
	for i := range len(sent) {
		c := sent[i]
		if c >= 'a' && c <= 'z' {
			c -= 'a' - 'A'
		}
		if c != upper[i] {
			return false
		}
	}
	return true
}

// takes compares the method. HEAD asks for what GET would get, without its body: a
// rule about GET, whether it allows or denies, is about HEAD as well.
func (m *httpRule) takes(method string) bool {
	return m.method == "*" || isMethod(method, m.method) || m.method == "GET" && isMethod(method, "HEAD")
}

// allows: each value of each parameter that the rule names has to match.
func (m *httpRule) allows(r *Request) bool {
	if !m.takes(r.Method) || m.path != nil && !m.path.Match(r.Path) {
		return false
	}
	for i := range m.query {
		if !m.query[i].all(r.Query) {
			return false
		}
	}
	return true
}

// denies: one value of each parameter that the rule names is enough. The path is one
// of the request's readings.
func (m *httpRule) denies(r *Request, path string) bool {
	if !m.takes(r.Method) || m.path != nil && !m.path.Match(path) {
		return false
	}
	for i := range m.query {
		if !m.query[i].some(r.Query) {
			return false
		}
	}
	return true
}

// all reports whether the parameter is there and each of its values matches, and each that
// some origin takes for one, in every reading of the query.
func (q *queryRule) all(query string) bool {
	return q.each(parameters{rest: query}) && (!twice(query) || q.each(parameters{query, true}))
}

func (q *queryRule) each(walk parameters) bool {
	found := false
	for key, value, ok := walk.next(); ok; key, value, ok = walk.next() {
		exact := isKey(key, q.key)
		if !exact && !spelledAs(key, q.spelled) {
			continue
		}
		if !q.match(decode(value)) {
			return false
		}
		found = found || exact
	}
	return found
}

// some reports whether one of the parameter's values matches, in any reading.
func (q *queryRule) some(query string) bool {
	return q.one(parameters{rest: query}) || twice(query) && q.one(parameters{query, true})
}

func (q *queryRule) one(walk parameters) bool {
	for key, value, ok := walk.next(); ok; key, value, ok = walk.next() {
		if spelledAs(key, q.spelled) && q.match(decode(value)) {
			return true
		}
	}
	return false
}

func (q *queryRule) match(value string) bool { return matchesOne(q.from, value) }

func matchesOne(patterns []*glob.Pattern, s string) bool {
	for _, p := range patterns {
		if p.Match(s) {
			return true
		}
	}
	return false
}

// operationRule is a compiled rule about GraphQL operations.
type operationRule struct {
	kind   string        // "*": any
	name   *glob.Pattern // nil: any
	fields []*glob.Pattern
}

func (m *operationRule) about(op *Operation) bool {
	return (m.kind == "*" || m.kind == op.Type) && (m.name == nil || m.name.Match(op.Name))
}

// allows: every root field has to be one of the rule's.
func (m *operationRule) allows(op *Operation) bool {
	if !m.about(op) {
		return false
	}
	for _, f := range op.Fields {
		if m.fields != nil && !matchesOne(m.fields, f) {
			return false
		}
	}
	return m.fields == nil || len(op.Fields) > 0
}

// denies: one root field of the rule's is enough, and so is not to know them, as with
// an operation that was registered without.
func (m *operationRule) denies(op *Operation) bool {
	return m.about(op) && (m.fields == nil || len(op.Fields) == 0 ||
		slices.ContainsFunc(op.Fields, func(f string) bool { return matchesOne(m.fields, f) }))
}

// callRule is a compiled rule about JSON-RPC calls.
type callRule struct {
	method *glob.Pattern // nil: any
	params []paramRule
}

// paramRule is about one parameter. An MCP tool is the parameter called name.
type paramRule struct {
	key, folded string
	pattern     *glob.Pattern
}

// Folded is one text for all case variants of a name. Some servers find them alike, also
// those beyond ASCII: the long s is an s to them.
func Folded(name string) string { return strings.ToLower(strings.ToUpper(name)) }

const (
	toolCall  = "tools/call"
	toolParam = "name"
)

func (c *Call) param(key string) (string, bool) {
	if key == toolParam && c.Tool != "" {
		return c.Tool, true
	}
	v, ok := c.Params[key]
	return v, ok
}

// allows: every parameter that the rule names is there and matches.
func (m *callRule) allows(c *Call) bool {
	if m.method != nil && !m.method.Match(c.Method) {
		return false
	}
	for i := range m.params {
		if v, ok := c.param(m.params[i].key); !ok || !m.params[i].pattern.Match(v) {
			return false
		}
	}
	return true
}

// denies is allows, but a parameter that is not known matches: one that is no text,
// one in another case, which some servers take for the same, or all of a call whose
// parameters have no names.
func (m *callRule) denies(c *Call) bool {
	if m.method != nil && !m.method.Match(c.Method) {
		return false
	}
	for i := range m.params {
		v, ok := c.param(m.params[i].key)
		if ok && !m.params[i].pattern.Match(v) || !ok && !c.Unnamed && !slices.Contains(c.Names, m.params[i].folded) {
			return false
		}
	}
	return true
}
