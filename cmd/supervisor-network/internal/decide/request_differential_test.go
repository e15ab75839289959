package decide

import (
	"fmt"
	"math/rand/v2"
	"strings"
	"testing"

	"github.com/splitpod/splitpod/pkg/core"
	"github.com/splitpod/splitpod/pkg/core/policy"
)

// agree fails if the module and its compiled form do not say the same about a request,
// or a request that nothing takes passes. It returns the verdict.
func agree(t testing.TB, s *Snapshot, p Permit, r *Request) verdict {
	t.Helper()
	selected := s.selected(&p, r.Path)
	j := judgement{s: s, permit: &p, e: selected, r: r}
	fast := j.judge()
	slow, err := module(t, s).request(t.Context(), &p, r)
	if err != nil {
		t.Fatalf("%+v: %v", r, err)
	}
	if fast != slow {
		t.Fatalf("%+v\ncompiled %+v\nmodule   %+v", r, fast, slow)
	}
	if selected == nil && fast.passes() {
		t.Fatalf("%+v passes and no endpoint takes it", r)
	}
	return fast
}

// Words that random policies and requests are made of: few, so that they meet.
var (
	someMethods  = []string{"GET", "HEAD", "POST", "DELETE", "get", "*", MethodText, "PROPFIND"}
	somePaths    = []string{"/", "/a", "/a/", "/a/b", "/a/b/c", "/b", "/a%2Fb", "/a/b%2F", "/a%5Cb", "/%2Fa", "/c.d/e", "/A", "/A/b", "/A%2FB", "/a%3Bb", "/a%3B%2Fb", "/a%5C%3Bb/c"}
	someGlobs    = []string{"/", "/a", "/a/*", "/a/**", "/**", "**", "/*/b", "/**/b", "/[ab]", "/{a,b}/**", "/a?b", "/c.d/*", "/*", "/A", "/[A-B]/**"}
	someScopes   = []string{"", "/a", "/a/**", "/*", "/a/*", "/**", "/?", "/A", "/A/*"}
	someNames    = []string{"a", "b", "ab", "a.b", "", "name", "x-y"}
	someKeys     = []string{"a", "b", "ab", "a.b", "a[b]"}
	someNameGlob = []string{"a", "b", "a*", "*", "**", "*.b", "a.*", "[ab]", "{a,x-y}", "?"}
	someTypes    = []string{"query", "mutation", "subscription"}
	someCalls    = []string{"tools/call", "tools/list", "initialize", "a.b", "ping"}
)

func maybe(r *rand.Rand, s string) string {
	if r.IntN(2) == 0 {
		return ""
	}
	return s
}

func randomQuery(r *rand.Rand) string {
	if r.IntN(3) > 0 {
		return ""
	}
	return fmt.Sprintf(", query: {%q: %q%s}", pick(r, someKeys), pick(r, someNameGlob), maybe(r, fmt.Sprintf(", name: {any: [%q, %q]}", pick(r, someNameGlob), pick(r, someNameGlob))))
}

func randomRule(r *rand.Rand, protocol string) string {
	http := func() string {
		method := pick(r, someMethods)
		if protocol == "websocket" {
			method = pick(r, []string{"GET", "*", MethodText})
		}
		return fmt.Sprintf("{method: %q, path: %q%s}", method, pick(r, someGlobs), randomQuery(r))
	}
	operation := func() string {
		return fmt.Sprintf("{operation_type: %q%s%s}", pick(r, append(someTypes, "*")),
			maybe(r, fmt.Sprintf(", operation_name: %q", pick(r, someNameGlob))), maybe(r, fmt.Sprintf(", fields: [%q, %q]", pick(r, someNameGlob), pick(r, someNameGlob))))
	}
	switch protocol {
	case "rest":
		return http()
	case "websocket":
		if r.IntN(3) == 0 {
			return operation()
		}
		return http()
	case "graphql":
		return operation()
	case "json-rpc":
		return fmt.Sprintf("{method: %q%s}", pick(r, append(someCalls, "*")), maybe(r, fmt.Sprintf(", params: {%q: %q}", pick(r, []string{"a", "b", "name"}), pick(r, someNameGlob))))
	default:
		if r.IntN(2) == 0 {
			return fmt.Sprintf("{method: tools/call, tool: %q}", pick(r, someNameGlob))
		}
		return fmt.Sprintf("{method: %q}", pick(r, append(someCalls, "tools/*")))
	}
}

func randomEndpoint(r *rand.Rand) string {
	protocol := pick(r, []string{"rest", "rest", "websocket", "graphql", "json-rpc", "mcp", ""})
	var b strings.Builder
	fmt.Fprintf(&b, "{host: %q, port: 443, enforcement: %s", pick(r, []string{"api.example.com", "*.example.com"}), pick(r, []string{"enforce", "audit"}))
	if protocol == "" {
		return b.String() + "}"
	}
	fmt.Fprintf(&b, ", protocol: %s, path: %q", protocol, pick(r, someScopes))
	list := func(allow string) (out string) {
		var rules []string
		for range 1 + r.IntN(3) {
			rules = append(rules, strings.Replace(allow, "RULE", randomRule(r, protocol), 1))
		}
		return strings.Join(rules, ", ")
	}
	if calls := protocol == "json-rpc" || protocol == "mcp"; !calls && r.IntN(2) == 0 {
		fmt.Fprintf(&b, ", access: %s", pick(r, []string{"read-only", "read-write", "full"}))
	} else {
		fmt.Fprintf(&b, ", rules: [%s]", list("{allow: RULE}"))
	}
	if r.IntN(2) == 0 {
		fmt.Fprintf(&b, ", deny_rules: [%s]", list("RULE"))
	}
	switch {
	case protocol == "mcp" && r.IntN(2) == 0:
		b.WriteString(", mcp: {allow_all_known_mcp_methods: true}")
	case protocol == "graphql" && r.IntN(2) == 0:
		fmt.Fprintf(&b, ", persisted_queries: allow_registered, graphql_persisted_queries: {h: {operation_type: %s, fields: [%s]}}", pick(r, someTypes), pick(r, []string{"", "a", "a, b"}))
	}
	return b.String() + "}"
}

func randomRequest(r *rand.Rand) *Request {
	out := &Request{Method: pick(r, someMethods), Path: pick(r, somePaths)}
	var pairs []string
	for range r.IntN(3) {
		pairs = append(pairs, pick(r, []string{"a", "b", "%61", "name", "a.b", "", "A", "+a", "a[]", "a_b", "a[b]", "%5Ba", "[a]", "[a][b]"})+pick(r, []string{"", "=", "=a", "=a.b", "=%61%2Eb", "=x+y", "=%", "=%C3%A9"}))
	}
	out.Query = strings.Join(pairs, pick(r, []string{"&", "&", ";"}))
	switch r.IntN(6) {
	case 0:
		out.Method, out.Upgrade = "GET", true
	case 1:
		out.Method, out.Message = MethodText, true
	case 2:
		out.Session = true
	case 3, 4:
		out.Method = "POST"
	}
	for range r.IntN(3) {
		out.Operations = append(out.Operations, randomOperation(r))
		out.Calls = append(out.Calls, randomCall(r))
	}
	if r.IntN(15) == 0 {
		out.Unreadable = "no"
	}
	return out
}

func randomOperation(r *rand.Rand) Operation {
	op := Operation{Type: pick(r, someTypes), Name: pick(r, someNames)}
	for range r.IntN(3) {
		op.Fields = append(op.Fields, pick(r, someNames))
	}
	if r.IntN(6) == 0 {
		op.Persisted = pick(r, []string{"h", "i"})
	}
	if r.IntN(20) == 0 {
		op.Type = "Query"
	}
	return op
}

func randomCall(r *rand.Rand) Call {
	c := Call{Method: pick(r, someCalls)}
	if c.Method == toolCall && r.IntN(5) > 0 {
		c.Tool = pick(r, append(someNames, "a b", strings.Repeat("a", 128), strings.Repeat("a", 129)))
	}
	switch r.IntN(6) {
	case 0:
		c.Params = map[string]string{pick(r, someNames): pick(r, someNames), "name": pick(r, someNames)}
	case 1:
		c.Names = []string{pick(r, someNames), pick(r, someNames)}
	case 2:
		c.Unnamed = true
	case 3:
		c.Response = r.IntN(4) == 0
	}
	return c
}

// The compiled form decides at run time; the module is what it has to agree with.
func TestCompiledRulesAgreeWithTheModule(t *testing.T) {
	r := rand.New(rand.NewPCG(3, 4))
	seen := map[why]int{}
	policies, soft := 0, 0
	for policies < 200 {
		var b strings.Builder
		for i := range 1 + r.IntN(3) {
			fmt.Fprintf(&b, "  r%d: {binaries: [{path: /x}], endpoints: [%s, %s]}\n", i, randomEndpoint(r), randomEndpoint(r))
		}
		doc, _, err := policy.Parse("policy.yaml", []byte("version: 1\nnetwork_policies:\n"+b.String()))
		if err != nil {
			continue // rules that nobody may write, or endpoints that contradict each other
		}
		s, err := build(t.Context(), doc, Options{Generation: 7, IgnoreBinaries: true})
		if err != nil {
			t.Fatalf("%s\n%v", b.String(), err)
		}
		p, denial := s.Connection(t.Context(), Question{&core.Identity{}, "api.example.com", 443})
		if denial != nil || !p.Inspected() {
			continue
		}
		policies++
		for range 16 {
			v := agree(t, s, p, randomRequest(r))
			seen[v.why]++
			if v.soft {
				soft++
			}
			if t.Failed() {
				t.Fatal(b.String())
			}
		}
	}
	for _, w := range []why{"", whyUnmatched, whyAmbiguous, whyReserved, whyNoUpgrade, whyUnreadable, whyQuery, whyMethod, whyEmpty, whyResponse, whyTool,
		whyDenied, whyUnpermitted, whyUnregistered, whyBadOperation} {
		if seen[w] < 3 {
			t.Errorf("only %d requests were %q: %v", seen[w], w, seen)
		}
	}
	if soft < 50 {
		t.Errorf("only %d refusals were not enforced", soft)
	}
}

// fuzzed are the policies that random requests are asked of.
var fuzzed = []string{
	one(`protocol: rest, rules: [{allow: {method: GET, path: "/a/*/b", query: {t: "p-*", u: {any: [x, "1.*"]}}}}, {allow: {method: "*", path: "/w/**"}}], deny_rules: [{method: DELETE, path: "/w/*"}, {method: GET, path: "**", query: {force: "t*"}}]`),
	one(`protocol: rest, access: read-write, allow_encoded_slash: true, deny_rules: [{method: POST, path: "/admin/**"}, {method: get, path: "/**/secret"}]`),
	scoped,
	one(`protocol: graphql, rules: [{allow: {operation_type: query, fields: ["repo*", viewer]}}, {allow: {operation_type: "*", operation_name: "Safe*"}}], deny_rules: [{operation_type: query, fields: ["s*"]}]`),
	one(`protocol: json-rpc, rules: [{allow: {method: eth.call, params: {to: "0x*"}}}, {allow: {method: send}}], deny_rules: [{method: send, params: {to: "0xd*"}}]`),
	one(`protocol: mcp, rules: [{allow: {method: tools/list}}, {allow: {method: tools/call, tool: "fs.*"}}], deny_rules: [{method: tools/call, tool: "delete*"}]`),
	one(`protocol: websocket, rules: [{allow: {method: GET, path: "/ws/**"}}, {allow: {operation_type: subscription}}], deny_rules: [{operation_type: "*", fields: [secret]}]`),
}

// FuzzRequest: the compiled form and the module say the same about every request, and
// what they say does not depend on the letter case of its method.
func FuzzRequest(f *testing.F) {
	snapshots := make([]*Snapshot, len(fuzzed))
	for i, rules := range fuzzed {
		snapshots[i] = inspected(f, rules)
		f.Add(uint8(i), uint8(0), "GET", "/a/x/b", "t=p-1&u=1.2", "query", "viewer")
		f.Add(uint8(i), uint8(4), "post", "/admin%2Fx/", "force=%74rue", "eth.call", "0xd")
	}
	f.Fuzz(func(t *testing.T, which, flags uint8, method, path, query, name, value string) {
		s := snapshots[int(which)%len(snapshots)]
		r := &Request{
			Method: method, Path: path, Query: query,
			Upgrade: flags&1 != 0, Message: flags&2 != 0, Session: flags&4 != 0,
		}
		if flags&8 == 0 {
			r.Operations = []Operation{{Type: name, Name: value, Fields: []string{value, name}}}
			r.Calls = []Call{{Method: name, Tool: value, Params: map[string]string{"to": value}, Unnamed: flags&16 != 0, Response: flags&32 != 0}}
		}
		if flags&64 != 0 {
			r.Calls = []Call{{Method: toolCall, Tool: value}, {Method: name, Names: []string{value}}}
			r.Operations = []Operation{{Type: "query", Fields: []string{value}}, {Persisted: name}}
		}
		p := permitted(t, s)
		v := agree(t, s, p, r)
		lower := *r
		lower.Method = strings.Map(func(c rune) rune {
			if c >= 'A' && c <= 'Z' {
				return c + 'a' - 'A'
			}
			return c
		}, method)
		if w := agree(t, s, p, &lower); w != v && strings.ToValidUTF8(method, "?") == method {
			t.Fatalf("%q is %+v, %q is %+v", method, v, lower.Method, w)
		}
	})
}

// module is the prepared module about requests.
func module(t testing.TB, s *Snapshot) *evaluator {
	t.Helper()
	e, err := s.requests()
	if err != nil {
		t.Fatal(err)
	}
	return e
}
