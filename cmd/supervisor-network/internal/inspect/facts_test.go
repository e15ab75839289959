package inspect

import (
	"errors"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/splitpod/splitpod/cmd/supervisor-network/internal/decide"
	"github.com/splitpod/splitpod/cmd/supervisor-network/internal/http1"
	"github.com/splitpod/splitpod/pkg/core"
	"github.com/splitpod/splitpod/pkg/core/policy"
)

var (
	rest    = decide.Endpoint{Protocol: policy.ProtocolREST}
	socket  = decide.Endpoint{Protocol: policy.ProtocolWebSocket, GraphQL: true}
	graphQL = decide.Endpoint{Protocol: policy.ProtocolGraphQL, MaxBody: 200}
	rpc     = decide.Endpoint{Protocol: policy.ProtocolJSONRPC, MaxBody: 200}
	mcp     = decide.Endpoint{Protocol: policy.ProtocolMCP, MaxBody: 200, StrictTools: true}
)

func head(method string, fields ...string) Head {
	h := Head{Method: method, Body: method == "POST"}
	for _, f := range fields {
		name, value, _ := strings.Cut(f, ": ")
		h.Fields = append(h.Fields, http1.Field{Name: name, Value: value})
	}
	return h
}

const (
	asJSON   = "Content-Type: application/json"
	ping     = `{"jsonrpc":"2.0","id":1,"method":"ping"}`
	response = `{"jsonrpc":"2.0","id":1,"result":{}}`
)

func withBody(h Head) Head { h.Body = true; return h }

func withQuery(h Head, query string) Head { h.Query = query; return h }

func TestFillByProtocol(t *testing.T) {
	call := []decide.Call{{Method: "ping"}}
	odd := `{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{"name":"a b"}}`
	for _, tt := range []struct {
		name   string
		e      decide.Endpoint
		head   Head
		body   string
		needs  bool
		want   decide.Request
		status int // of a refusal
		reason core.Reason
	}{
		{"rest is not read", rest, head("POST"), "", false, decide.Request{}, 0, ""},
		{"rest may be compressed", rest, head("POST", "Content-Encoding: gzip"), "", false, decide.Request{}, 0, ""},
		{"no protocol is not read", decide.Endpoint{}, head("POST"), "", false, decide.Request{}, 0, ""},
		{"a handshake is not read", socket, head("GET"), "", false, decide.Request{}, 0, ""},
		{"an unknown protocol", decide.Endpoint{Protocol: "x"}, head("POST"), "", false, decide.Request{}, 403, core.ReasonUnsupportedProtocol},
		{"GraphQL by POST", graphQL, head("POST", asJSON), `{"query":"{a}"}`, true,
			decide.Request{Operations: []decide.Operation{{Type: "query", Fields: []string{"a"}}}}, 0, ""},
		{"GraphQL by GET", graphQL, withQuery(head("GET"), "query={a}"), "", false,
			decide.Request{Operations: []decide.Operation{{Type: "query", Fields: []string{"a"}}}}, 0, ""},
		{"GraphQL by GET with a body", graphQL, withBody(withQuery(head("GET"), "query={a}")), "", false, decide.Request{}, 400, core.ReasonInvalidGraphQL},
		{"GraphQL by PUT", graphQL, head("PUT", asJSON), "", false, decide.Request{}, 400, core.ReasonInvalidGraphQL},
		{"GraphQL without a body", graphQL, head("POST", asJSON), "", true, decide.Request{}, 400, core.ReasonInvalidGraphQL},
		{"GraphQL compressed", graphQL, head("POST", asJSON, "Content-Encoding: gzip"), "", true, decide.Request{}, 415, core.ReasonInvalidGraphQL},
		{"JSON-RPC", rpc, head("POST", asJSON), ping, true, decide.Request{Calls: call}, 0, ""},
		{"JSON-RPC without a body", rpc, head("POST", asJSON), "", true, decide.Request{}, 400, core.ReasonInvalidJSONRPC},
		{"JSON-RPC compressed", rpc, head("POST", asJSON, "Content-Encoding: br"), ping, true, decide.Request{}, 415, core.ReasonInvalidJSONRPC},
		{"JSON-RPC by GET calls nothing", rpc, head("GET", "Accept: text/event-stream"), "", false, decide.Request{}, 0, ""},
		{"JSON-RPC by PUT calls nothing", rpc, withBody(head("PUT", asJSON)), "", false, decide.Request{}, 0, ""},
		{"a response by JSON-RPC", rpc, head("POST", asJSON), response, true, decide.Request{Calls: []decide.Call{{Response: true}}}, 0, ""},
		{"MCP", mcp, head("POST", asJSON), ping, true, decide.Request{Calls: call}, 0, ""},
		{"MCP without a body", mcp, head("POST", asJSON), "", true, decide.Request{}, 400, core.ReasonInvalidJSONRPC},
		{"a response by MCP", mcp, head("POST", asJSON), response, true, decide.Request{Calls: []decide.Call{{Response: true}}}, 0, ""},
		{"a response and a call by MCP", mcp, head("POST", asJSON), "[" + response + "," + ping + "]", true, decide.Request{Calls: append([]decide.Call{{Response: true}}, call...)}, 0, ""},
		{"a tool with an odd name, which is for decide to refuse", mcp, head("POST", asJSON), odd, true,
			decide.Request{Calls: []decide.Call{{Method: "tools/call", Tool: "a b", Params: map[string]string{"name": "a b"}, Names: []string{"name"}}}}, 0, ""},
		{"the stream of a session", mcp, head("GET", "Accept: application/json, Text/Event-Stream; q=0.5"), "", false, decide.Request{Session: true}, 0, ""},
		{"a stream that is not asked for", mcp, head("GET", "Accept: */*"), "", false, decide.Request{}, 0, ""},
		{"a stream that is refused", mcp, head("GET", "Accept: text/event-stream;q=0.0"), "", false, decide.Request{}, 0, ""},
		{"nearly a stream", mcp, head("GET", "Accept: text/event-streams"), "", false, decide.Request{}, 0, ""},
		{"no Accept", mcp, head("GET"), "", false, decide.Request{}, 0, ""},
		{"the stream with a body", mcp, withBody(head("GET", "Accept: text/event-stream")), "", false, decide.Request{}, 400, core.ReasonInvalidJSONRPC},
		{"the end of a session", mcp, head("DELETE", "mcp-session-id: x"), "", false, decide.Request{Session: true}, 0, ""},
		{"the end of no session", mcp, head("DELETE"), "", false, decide.Request{}, 0, ""},
		{"the end of an unnamed session", mcp, head("DELETE", "Mcp-Session-Id: "), "", false, decide.Request{}, 0, ""},
		{"the end of two sessions", mcp, head("DELETE", "Mcp-Session-Id: x", "Mcp-Session-Id: y"), "", false, decide.Request{}, 0, ""},
		{"the end of a session with a body", mcp, withBody(head("DELETE", "Mcp-Session-Id: x")), "", false, decide.Request{}, 400, core.ReasonInvalidJSONRPC},
		{"HEAD is no stream", mcp, head("HEAD", "Accept: text/event-stream"), "", false, decide.Request{}, 0, ""},
		{"get is no GET", mcp, head("get", "Accept: text/event-stream"), "", false, decide.Request{}, 0, ""},
	} {
		t.Run(tt.name, func(t *testing.T) {
			if got := NeedsBody(tt.e, tt.head); got != tt.needs {
				t.Errorf("needs its body: %v", got)
			}
			var got decide.Request
			err := Fill(tt.e, tt.head, []byte(tt.body), &got)
			if diff := cmp.Diff(tt.want, got); diff != "" {
				t.Error(diff)
			}
			expect(t, err, tt.status, tt.reason)
		})
	}
}

func expect(t *testing.T, err error, status int, reason core.Reason) {
	t.Helper()
	if status == 0 {
		if err != nil {
			t.Fatal(err)
		}
		return
	}
	e, ok := errors.AsType[*Error](err)
	if !ok || e.Status != status || e.Reason != reason || e.Detail == "" {
		t.Fatalf("got %v, want %d and %s", err, status, reason)
	}
}

func TestBodiesAreAsLongAsTheyMayBe(t *testing.T) {
	h := head("POST", asJSON)
	for e, body := range map[*decide.Endpoint]string{&graphQL: `{"query":"{a}"}`, &rpc: ping, &mcp: ping} {
		body += strings.Repeat(" ", e.MaxBody-len(body))
		expect(t, Fill(*e, h, []byte(body), &decide.Request{}), 0, "")
		expect(t, Fill(*e, h, []byte(body+" "), &decide.Request{}), 413, core.ReasonBodyTooLarge)
	}
	expect(t, TooLarge(1), 413, core.ReasonBodyTooLarge)
}

// TestRefusalsShowNothingOfTheRequest: what a client writes does not come back in
// an answer or a record as if it were ours.
func TestRefusalsShowNothingOfTheRequest(t *testing.T) {
	const mark = "m4rk3d"
	for _, tt := range []struct {
		e    decide.Endpoint
		h    Head
		body string
	}{
		{graphQL, head("POST", asJSON), `{"query":"{ ` + mark + `(" }"}`},
		{graphQL, head("POST", asJSON), `{"query":"{ a } ` + mark + `"}`},
		{graphQL, head("POST", asJSON), `{"` + mark + `":1,"` + mark + `":2}`},
		{graphQL, head("POST", "Content-Type: "+mark), `{}`},
		{graphQL, withQuery(head("GET"), mark+"=%"), ``},
		{mcp, head("POST", asJSON), `{"jsonrpc":"` + mark + `"}`},
		{mcp, head("POST", asJSON, "Mcp-Method: "+mark), ping},
	} {
		err := Fill(tt.e, tt.h, []byte(tt.body), &decide.Request{})
		if err == nil || strings.Contains(err.Error(), mark) {
			t.Errorf("%q: got %v", tt.body, err)
		}
	}
}

func BenchmarkFillMCP(b *testing.B) {
	h := head("POST", asJSON, "Accept: application/json, text/event-stream")
	body := []byte(`{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{"name":"read_file","arguments":{"path":"/tmp/x"}}}`)
	b.ReportAllocs()
	for b.Loop() {
		if err := Fill(mcp, h, body, &decide.Request{}); err != nil {
			b.Fatal(err)
		}
	}
}
