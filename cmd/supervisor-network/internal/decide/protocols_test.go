package decide

import (
	"strings"
	"testing"
	"unicode"
)

// refusal is a request with the detail of its refusal; "" if it is allowed.
type refusal struct {
	name   string
	r      Request
	detail string
}

func refusals(t *testing.T, s *Snapshot, cases []refusal) {
	t.Helper()
	for _, c := range cases {
		if c.r.Path == "" {
			c.r.Path = "/p"
		}
		if c.r.Method == "" {
			c.r.Method = "POST"
		}
		if got := ruled(t, s, &c.r); got.Detail != c.detail || got.Allowed != (c.detail == "") {
			t.Errorf("%s: allowed %v, %q, want %q", c.name, got.Allowed, got.Detail, c.detail)
		}
	}
}

func operations(ops ...Operation) Request { return Request{Operations: ops} }

func op(kind string, fields ...string) Operation { return Operation{Type: kind, Fields: fields} }

const (
	opDenied      = "GraphQL operation blocked by endpoint policy"
	opUnpermitted = "GraphQL operation not permitted by policy"
	opUnknown     = "GraphQL persisted query is not registered"
	empty         = "there is nothing in it that could be judged"
)

func TestGraphQLPresets(t *testing.T) {
	for access, allowed := range map[string]string{"read-only": "query", "read-write": "query mutation", "full": "query mutation subscription"} {
		s := inspected(t, one("protocol: graphql, access: "+access))
		for _, kind := range []string{"query", "mutation", "subscription"} {
			want := opUnpermitted
			if strings.Contains(allowed, kind) {
				want = ""
			}
			refusals(t, s, []refusal{{access + " " + kind, operations(op(kind, "a")), want}})
		}
	}
}

func TestGraphQLOperations(t *testing.T) {
	s := inspected(t, one(`protocol: graphql, rules: [{allow: {operation_type: query, fields: ["repo*", viewer]}}, {allow: {operation_type: mutation, operation_name: "Safe*"}}, {allow: {operation_type: "*", fields: [ping]}}],
		deny_rules: [{operation_type: query, fields: ["repoSecret*"]}, {operation_type: mutation, operation_name: SafeNot}, {operation_type: subscription, fields: [pong]}]`))
	get := operations(op("query", "viewer"))
	get.Method = "get"
	deleted := operations(op("query", "viewer"))
	deleted.Method = "DELETE"
	broken := Request{Unreadable: "the query is not GraphQL"}
	refusals(t, s, []refusal{
		{"one field", operations(op("query", "viewer")), ""},
		{"fields of several patterns", operations(op("query", "viewer", "repository")), ""},
		{"one field too many", operations(op("query", "viewer", "users")), opUnpermitted},
		{"a field in another case", operations(op("query", "Viewer")), opUnpermitted},
		{"a denied field among allowed ones", operations(op("query", "viewer", "repoSecrets")), opDenied},
		{"no field", operations(op("query")), opDenied}, // nobody knows what it reads
		{"another type", operations(op("mutation", "viewer")), opUnpermitted},
		{"a name", operations(Operation{Type: "mutation", Name: "SafeAdd", Fields: []string{"x"}}), ""},
		{"a denied name", operations(Operation{Type: "mutation", Name: "SafeNot", Fields: []string{"x"}}), opDenied},
		{"any type", operations(op("subscription", "ping")), ""},
		{"a batch that is allowed", operations(op("query", "viewer"), op("subscription", "ping")), ""},
		{"a batch with one that is not", operations(op("query", "viewer"), op("mutation", "x")), opUnpermitted},
		{"a batch with one that is denied", operations(op("subscription", "pong"), op("query", "viewer")), opDenied},
		{"GET", get, ""},
		{"another method", deleted, "GraphQL request rejected: the protocol has no request with method DELETE"},
		{"nothing", operations(), "GraphQL request rejected: " + empty},
		{"an unknown type", operations(op("Query", "viewer")), "GraphQL request rejected: the type of an operation is not known"},
		{"unreadable", broken, "GraphQL request rejected: the query is not GraphQL"},
		{"a hash", operations(Operation{Persisted: "h"}), opUnknown},
	})
}

func TestAnUnreadableBodyIsRefusedWhereOthersAreAudited(t *testing.T) {
	s := inspected(t, "  r: {binaries: [{path: /x}], endpoints: [{host: api.example.com, port: 443, protocol: graphql, access: read-only}]}\n")
	if got := ruled(t, s, &Request{Method: "POST", Path: "/p", Operations: []Operation{op("mutation", "a")}}); !got.Audited {
		t.Errorf("got %+v", got)
	}
	refusals(t, s, []refusal{
		{"unreadable", Request{Unreadable: "no"}, "GraphQL request rejected: no"},
		{"nothing", Request{}, "GraphQL request rejected: " + empty},
	})
}

func TestPersistedQueries(t *testing.T) {
	s := inspected(t, one(`protocol: graphql, access: read-only, persisted_queries: allow_registered,
		graphql_persisted_queries: {q: {operation_type: query, fields: [a]}, m: {operation_type: mutation, fields: [a]}, s: {operation_type: query, fields: [secret]}, blind: {operation_type: query}},
		deny_rules: [{operation_type: query, fields: [secret]}]`))
	hash := func(id string) Request { return operations(Operation{Persisted: id}) }
	refusals(t, s, []refusal{
		{"registered", hash("q"), ""},
		{"not registered", hash("x"), opUnknown},
		{"an id in another case", hash("Q"), opUnknown},
		{"registered, of another type", hash("m"), opUnpermitted},
		{"registered, denied", hash("s"), opDenied},
		{"registered without fields", hash("blind"), opDenied},
		{"what the client says beside it does not count", operations(Operation{Persisted: "m", Type: "query", Fields: []string{"a"}}), opUnpermitted},
	})
}

func TestAHashDoesNotHideFromRulesThatAreEnforced(t *testing.T) {
	s := inspected(t, `
  a: {binaries: [{path: /x}], endpoints: [{host: api.example.com, port: 443, protocol: graphql, enforcement: audit, path: /p, access: full}]}
  b: {binaries: [{path: /x}], endpoints: [{host: api.example.com, port: 443, protocol: graphql, enforcement: enforce, access: full, deny_rules: [{operation_type: mutation}]}]}
`)
	refusals(t, s, []refusal{
		{"a query", operations(op("query", "a")), ""},
		{"a denied one", operations(op("mutation", "a")), opDenied},
		{"a hash", operations(Operation{Persisted: "h"}), opUnknown},
		{"a denied one behind another", operations(op("query", "a"), op("mutation", "a")), opDenied},
	})
}

func call(method string) Call { return Call{Method: method} }

func tool(name string) Call { return Call{Method: "tools/call", Tool: name} }

func calls(cs ...Call) Request { return Request{Calls: cs} }

const unpermitted = "POST /p not permitted by policy: "

func TestJSONRPCCalls(t *testing.T) {
	s := inspected(t, one(`protocol: json-rpc, rules: [{allow: {method: eth_call, params: {to: "0x*"}}}, {allow: {method: net.version}}, {allow: {method: send}}],
		deny_rules: [{method: send, params: {to: "0xdead*"}}]`))
	to := func(method, to string) Call { return Call{Method: method, Params: map[string]string{"to": to}} }
	get := calls(call("net.version"))
	get.Method = "GET"
	refusals(t, s, []refusal{
		{"a method", calls(call("net.version")), ""},
		{"another method", calls(call("net_version")), unpermitted + "net_version"},
		{"a method in another case", calls(call("Net.version")), unpermitted + "Net.version"},
		{"a method with an invisible character", calls(call("net.version\u200b")), unpermitted + "net.version?"},
		{"no method", calls(call("")), unpermitted},
		{"a parameter", calls(to("eth_call", "0x1")), ""},
		{"a parameter that does not match", calls(to("eth_call", "1")), unpermitted + "eth_call"},
		{"a parameter that is missing", calls(call("eth_call")), unpermitted + "eth_call"},
		{"a parameter that is no text", calls(Call{Method: "eth_call", Names: []string{"to"}}), unpermitted + "eth_call"},
		{"a denied parameter", calls(to("send", "0xdead.beef")), "POST /p blocked by deny rule: send"},
		{"a parameter that could be the denied one", calls(Call{Method: "send", Names: []string{"to"}}), "POST /p blocked by deny rule: send"},
		{"parameters without names", calls(Call{Method: "send", Unnamed: true}), "POST /p blocked by deny rule: send"},
		{"the denied parameter in another case", calls(Call{Method: "send", Params: map[string]string{"To": "0xgood"}, Names: []string{"to"}}), "POST /p blocked by deny rule: send"},
		{"other parameters that are no texts", calls(Call{Method: "send", Names: []string{"gas"}}), ""},
		{"no parameter", calls(call("send")), ""},
		{"a batch", calls(call("send"), call("net.version")), ""},
		{"a batch with one that is not allowed", calls(call("send"), call("x"), call("net.version")), unpermitted + "x"},
		{"an answer", calls(Call{Response: true}), "JSON-RPC response frames are not permitted from client to server"},
		{"an answer in a batch", calls(call("send"), Call{Response: true}), "JSON-RPC response frames are not permitted from client to server"},
		{"nothing", calls(), "JSON-RPC request rejected: " + empty},
		{"GET", get, "JSON-RPC request rejected: the protocol has no request with method GET"},
		{"a session", Request{Method: "GET", Session: true}, "JSON-RPC request rejected: the protocol has no request with method GET"},
		{"unreadable", Request{Unreadable: "a key is there twice"}, "JSON-RPC request rejected: a key is there twice"},
	})
}

func TestMCPTools(t *testing.T) {
	s := inspected(t, one(`protocol: mcp, rules: [{allow: {method: initialize}}, {allow: {method: tools/list}}, {allow: {method: tools/call, tool: "read_*"}}, {allow: {method: tools/call, params: {name: "fs.*"}}}],
		deny_rules: [{method: tools/call, tool: "*secret*"}]`))
	const badTool = "JSON-RPC request rejected: the name of a tool is missing, longer than 128 characters, or has others than letters, digits, dot, dash and underscore"
	refusals(t, s, []refusal{
		{"a method", calls(call("tools/list")), ""},
		{"another method", calls(call("resources/list")), unpermitted + "resources/list"},
		{"a tool", calls(tool("read_file")), ""},
		{"a tool by its parameter", calls(tool("fs.read")), ""},
		{"a tool that no rule names", calls(tool("write_file")), unpermitted + "tools/call write_file"},
		{"a wildcard stops at a dot", calls(tool("read_a.b")), unpermitted + "tools/call read_a.b"},
		{"a denied tool", calls(tool("read_secret")), "POST /p blocked by deny rule: tools/call read_secret"},
		{"a denied tool with a dot", calls(tool("fs.secret")), "POST /p blocked by deny rule: tools/call fs.secret"},
		{"a batch with a denied tool", calls(tool("read_file"), call("tools/list"), tool("read_secret")), "POST /p blocked by deny rule: tools/call read_secret"},
		{"a name with a space", calls(tool("read_ file")), badTool},
		{"a name with a letter that looks like another", calls(tool("re\u0430d_file")), badTool},
		{"a name of 128 characters", calls(tool("read_" + strings.Repeat("x", 123))), ""},
		{"a name of 129 characters", calls(tool("read_" + strings.Repeat("x", 124))), badTool},
		{"no name", calls(tool("")), badTool},
		{"an answer", calls(Call{Response: true}), ""},
		{"an answer and a call that is not allowed", calls(Call{Response: true}, call("x")), unpermitted + "x"},
		{"the stream of messages", Request{Method: "GET", Session: true}, ""},
		{"the end of the session", Request{Method: "DELETE", Session: true}, ""},
		{"a session by another method", Request{Method: "PUT", Session: true}, "JSON-RPC request rejected: the protocol has no request with method PUT"},
		{"a session with calls", Request{Method: "GET", Session: true, Calls: []Call{call("tools/list")}}, "JSON-RPC request rejected: the protocol has no request with method GET"},
		{"GET without a session", Request{Method: "GET"}, "JSON-RPC request rejected: the protocol has no request with method GET"},
	})
}

func TestMCPWithAllKnownMethods(t *testing.T) {
	const all = "protocol: mcp, mcp: {allow_all_known_mcp_methods: true}"
	refusals(t, inspected(t, one(all)), []refusal{
		{"a method", calls(call("resources/list")), ""},
		{"any tool", calls(tool("anything")), ""},
		{"a strange tool", calls(tool("any thing")), "JSON-RPC request rejected: the name of a tool is missing, longer than 128 characters, or has others than letters, digits, dot, dash and underscore"},
	})
	refusals(t, inspected(t, one(all+`, rules: [{allow: {tool: "read_*"}}], deny_rules: [{tool: "read_secret*"}]`)), []refusal{
		{"a method", calls(call("resources/list")), ""},
		{"a tool", calls(tool("read_file")), ""},
		{"a tool that no rule names", calls(tool("write")), unpermitted + "tools/call write"},
		{"a denied tool", calls(tool("read_secret.txt")), "POST /p blocked by deny rule: tools/call read_secret.txt"},
	})
	refusals(t, inspected(t, one(all+`, deny_rules: [{method: tools/call, tool: "delete*"}]`)), []refusal{
		{"a tool", calls(tool("read")), ""},
		{"a denied tool", calls(tool("delete.all")), "POST /p blocked by deny rule: tools/call delete.all"},
	})
	refusals(t, inspected(t, one(`protocol: mcp, mcp: {strict_tool_names: false}, rules: [{allow: {method: tools/call, tool: "my tool"}}]`)), []refusal{
		{"a strange tool that a rule names", calls(tool("my tool")), ""},
		{"no name", calls(tool("")), "JSON-RPC request rejected: the name of a tool is missing, longer than 128 characters, or has others than letters, digits, dot, dash and underscore"},
	})
}

func TestWhoMayNotBeginASessionMayNotEndIt(t *testing.T) {
	s := inspected(t, one(`protocol: mcp, rules: [{allow: {method: tools/list}}]`))
	refusals(t, s, []refusal{
		{"the stream of messages", Request{Method: "GET", Session: true}, ""},
		{"the end of the session", Request{Method: "DELETE", Session: true}, "DELETE /p not permitted by policy"},
	})
}

func TestCallsAreNotAllowedByOtherProtocols(t *testing.T) {
	s := inspected(t, `
  a:
    binaries: [{path: /x}]
    endpoints:
      - {host: api.example.com, port: 443, protocol: mcp, enforcement: enforce, path: /p, rules: [{allow: {method: tools/list}}]}
      - {host: api.example.com, port: 443, protocol: json-rpc, enforcement: enforce, path: "/**", rules: [{allow: {method: "*"}}], deny_rules: [{method: tools/call, params: {name: "x*"}}, {method: tools/list, params: {a: b}}]}
      - {host: api.example.com, port: 443, protocol: rest, enforcement: enforce, access: full, deny_rules: [{method: POST, path: "**", query: {deny: "1"}}]}
`)
	denied := calls(call("tools/list"))
	denied.Query = "deny=1"
	refusals(t, s, []refusal{
		{"its own rule", calls(call("tools/list")), ""},
		{"a rule of json-rpc", calls(call("ping")), unpermitted + "ping"},
		{"a denial of json-rpc", calls(tool("x.y")), "POST /p blocked by deny rule: tools/call x.y"},
		{"a denial of requests", denied, "POST /p blocked by deny rule"},
	})
}

func upgrade() Request { return Request{Method: "GET", Upgrade: true} }

func text(ops ...Operation) Request {
	return Request{Method: MethodText, Message: true, Operations: ops}
}

const noUpgrade = "websocket endpoint requires a valid WebSocket upgrade request"

func TestWebSocketPresets(t *testing.T) {
	refused := MethodText + " /p not permitted by policy"
	for access, want := range map[string]string{"read-only": refused, "read-write": "", "full": ""} {
		refusals(t, inspected(t, one("protocol: websocket, access: "+access)), []refusal{
			{access + " handshake", upgrade(), ""},
			{access + " text", text(), want},
			{access + " plain GET", Request{Method: "GET"}, noUpgrade},
			{access + " HEAD", Request{Method: "HEAD", Upgrade: true}, noUpgrade},
			{access + " POST", Request{Method: "POST"}, noUpgrade},
			{access + " a request that says it is a message", Request{Method: "websocket_text", Upgrade: true}, MethodText + " names the messages of a WebSocket and is no method of a request"},
			{access + " a message that says it is a request", Request{Method: "GET", Message: true}, MethodText + " names the messages of a WebSocket and is no method of a request"},
		})
	}
}

func TestWebSocketRules(t *testing.T) {
	s := inspected(t, one(`protocol: websocket, rules: [{allow: {method: GET, path: "/p/**"}}, {allow: {method: WEBSOCKET_TEXT, path: "/p/talk"}}, {allow: {method: "*", path: /p}}], deny_rules: [{method: websocket_text, path: /p}]`))
	at := func(r Request, path string) Request { r.Path = path; return r }
	refusals(t, s, []refusal{
		{"handshake", at(upgrade(), "/p/listen"), ""},
		{"handshake elsewhere", at(upgrade(), "/q"), "GET /q not permitted by policy"},
		{"text", at(text(), "/p/talk"), ""},
		{"text where only the handshake is allowed", at(text(), "/p/listen"), MethodText + " /p/listen not permitted by policy"},
		{"denied text", at(text(), "/p"), MethodText + " /p blocked by deny rule"},
		{"handshake where text is denied", at(upgrade(), "/p"), ""},
	})
}

func TestMessagesAreNotAllowedByRulesAboutRequests(t *testing.T) {
	s := inspected(t, `
  a:
    binaries: [{path: /x}]
    endpoints:
      - {host: api.example.com, port: 443, protocol: websocket, enforcement: enforce, path: /p, access: read-only}
      - {host: api.example.com, port: 443, protocol: rest, enforcement: enforce, access: full}
`)
	refusals(t, s, []refusal{{"text", text(), MethodText + " /p not permitted by policy"}, {"handshake", upgrade(), ""}})
}

func TestGraphQLOverWebSocket(t *testing.T) {
	rules := inspected(t, one(`protocol: websocket, rules: [{allow: {method: "*", path: "**"}}, {allow: {operation_type: query}}, {allow: {operation_type: subscription, fields: ["news*"]}}], deny_rules: [{operation_type: query, fields: [secret]}]`))
	refusals(t, rules, []refusal{
		{"handshake", upgrade(), ""},
		{"query", text(op("query", "a")), ""},
		{"denied field", text(op("query", "a", "secret")), opDenied},
		{"subscription", text(op("subscription", "newsOfToday")), ""},
		{"another subscription", text(op("subscription", "events")), opUnpermitted},
		{"mutation although any method is allowed", text(op("mutation", "a")), opUnpermitted},
		{"a message without an operation", text(), "GraphQL request rejected: " + empty},
		{"unreadable", Request{Method: MethodText, Message: true, Unreadable: "no JSON"}, "GraphQL request rejected: no JSON"},
	})
	preset := inspected(t, one(`protocol: websocket, access: read-write, deny_rules: [{operation_type: mutation}]`))
	refusals(t, preset, []refusal{
		{"query", text(op("query", "a")), ""},
		{"mutation", text(op("mutation", "a")), opDenied},
		{"handshake", upgrade(), ""},
	})
	listening := inspected(t, one(`protocol: websocket, access: read-only, deny_rules: [{operation_type: mutation}]`))
	refusals(t, listening, []refusal{{"query", text(op("query", "a")), opUnpermitted}, {"handshake", upgrade(), ""}})
}

func TestDetailsDoNotRepeatMuchOfTheClient(t *testing.T) {
	s := inspected(t, one(`protocol: json-rpc, rules: [{allow: {method: a}}]`))
	got := ruled(t, s, &Request{Method: "POST", Path: "/p", Calls: []Call{{Method: "x\n\x1b[2J\u202e" + strings.Repeat("y", 1000)}}})
	if len(got.Detail) > 200 || strings.ContainsAny(got.Detail, "\n\x1b\u202e") {
		t.Errorf("%q", got.Detail)
	}
}

// TestNamesInAnyCaseAreFoundAlike: as encoding/json finds them, for which the long s is an s
// and the Kelvin sign a k.
func TestNamesInAnyCaseAreFoundAlike(t *testing.T) {
	for c := rune(0); c <= unicode.MaxRune; c++ {
		if other := unicode.SimpleFold(c); Folded(string(other)) != Folded(string(c)) {
			t.Errorf("%q and %q", c, other)
		}
	}
	s := inspected(t, one(`protocol: json-rpc, rules: [{allow: {method: send}}], deny_rules: [{method: send, params: {class: a}}, {method: send, params: {ς: a}}]`))
	refusals(t, s, []refusal{
		{"the denied parameter with a long s", calls(Call{Method: "send", Params: map[string]string{"cla\u017fs": "a"}, Names: []string{Folded("cla\u017fs")}}), "POST /p blocked by deny rule: send"},
		{"one beyond ASCII", calls(Call{Method: "send", Names: []string{Folded("Σ")}}), "POST /p blocked by deny rule: send"},
		{"another parameter", calls(Call{Method: "send", Params: map[string]string{"glass": "a"}, Names: []string{"glass"}}), ""},
	})
}
