package jsonrpc

import (
	"strings"
	"testing"

	"github.com/splitpod/splitpod/cmd/supervisor-network/internal/decide"
	"github.com/splitpod/splitpod/cmd/supervisor-network/internal/http1"
	"github.com/splitpod/splitpod/pkg/core"
)

// rpc is the body of one request.
func rpc(method, params string) string {
	return `{"jsonrpc":"2.0","id":1,"method":"` + method + `","params":` + params + `}`
}

func toolCall(name string) decide.Call {
	return decide.Call{Method: toolsCall, Tool: name, Params: map[string]string{"name": name}}
}

func named(method, key, value string) []decide.Call {
	return calls(decide.Call{Method: method, Params: map[string]string{key: value}})
}

// mcp holds whether or not tools have strict names.
var mcp = []testCase{
	{"a tool", rpc("tools/call", `{"name":"read_file","arguments":{"name":"other"}}`), calls(toolCall("read_file")), ""},
	{"a tool without arguments", rpc("tools/call", `{"name":"a.b-C_9"}`), calls(toolCall("a.b-C_9")), ""},
	{"null arguments", rpc("tools/call", `{"name":"a","arguments":null,"_meta":{"progressToken":1}}`), calls(toolCall("a")), ""},
	{"params before the method", `{"params":{"name":"a"},"method":"tools/call","jsonrpc":"2.0","id":"x"}`, calls(toolCall("a")), ""},
	{"an escaped name", rpc("tools/call", `{"n\u0061me":"re\u0061d"}`), calls(toolCall("read")), ""},
	{"a batch", "[" + rpc("tools/call", `{"name":"a"}`) + "," + rpc("tools/call", `{"name":"b"}`) + "]", calls(toolCall("a"), toolCall("b")), ""},
	{"initialize", rpc("initialize", `{"protocolVersion":"2025-06-18","capabilities":{},"clientInfo":{"name":"x","version":"1"}}`),
		named("initialize", "protocolVersion", "2025-06-18"), ""},
	{"initialized", `{"jsonrpc":"2.0","method":"notifications/initialized"}`, calls(decide.Call{Method: "notifications/initialized"}), ""},
	{"a page", rpc("tools/list", `{"cursor":"c"}`), named("tools/list", "cursor", "c"), ""},
	{"the first page", rpc("tools/list", `{"cursor":null}`), calls(decide.Call{Method: "tools/list"}), ""},
	{"a prompt is no tool", rpc("prompts/get", `{"name":"p"}`), named("prompts/get", "name", "p"), ""},
	{"a resource", rpc("resources/read", `{"uri":"file:///x"}`), named("resources/read", "uri", "file:///x"), ""},
	{"progress", rpc("notifications/progress", `{"progressToken":1,"progress":0.5}`), calls(decide.Call{Method: "notifications/progress"}), ""},
	{"an unknown method", rpc("x/y", `{"name":"read"}`), named("x/y", "name", "read"), ""},
	{"an unknown method with an array", rpc("x/y", `[1]`), calls(decide.Call{Method: "x/y"}), ""},
	{"a zero-width space makes an unknown method", rpc(`tools\u200b/call`, `{"name":1}`), calls(decide.Call{Method: "tools\u200b/call"}), ""},
	{"a response", `{"jsonrpc":"2.0","id":1,"result":{}}`, calls(decide.Call{Response: true}), ""},
	{"an error", `{"jsonrpc":"2.0","id":1,"error":{"code":-1,"message":"x"}}`, calls(decide.Call{Response: true}), ""},
	{"responses and a call", `[{"jsonrpc":"2.0","id":1,"result":{}},` + rpc("tools/call", `{"name":"a"}`) + `]`, calls(decide.Call{Response: true}, toolCall("a")), ""},

	{"a tool without name", rpc("tools/call", `{"arguments":{}}`), nil, "name is there"},
	{"a tool without params", `{"jsonrpc":"2.0","id":1,"method":"tools/call"}`, nil, "name is there"},
	{"a tool with null params", rpc("tools/call", `null`), nil, "name is there"},
	{"a tool with params in an array", rpc("tools/call", `["read_file"]`), nil, "are an object"},
	{"a tool with an empty name", rpc("tools/call", `{"name":""}`), nil, "not empty"},
	{"a tool whose name is null", rpc("tools/call", `{"name":null}`), nil, "has the type"},
	{"a tool whose name is a list", rpc("tools/call", `{"name":["a"]}`), nil, "has the type"},
	{"a tool with two names", rpc("tools/call", `{"name":"a","name":"b"}`), nil, "stands once"},
	{"a tool with two names, one escaped", rpc("tools/call", `{"name":"a","\u006eame":"b"}`), nil, "stands once"},
	{"a tool with two names in two cases", rpc("tools/call", `{"name":"a","Name":"b"}`), nil, "stands once"},
	{"a tool with a name in another case", rpc("tools/call", `{"Name":"b"}`), nil, "own case"},
	{"arguments that are a text", rpc("tools/call", `{"name":"a","arguments":"{}"}`), nil, "has the type"},
	{"arguments in another case", rpc("tools/call", `{"name":"a","Arguments":{}}`), nil, "own case"},
	{"a key twice in arguments", rpc("tools/call", `{"name":"a","arguments":{"x":{"k":1,"k":1}}}`), nil, "stands once"},
	{"a method in another case", rpc("Tools/Call", `{"name":"a"}`), nil, "own case"},
	{"a method with a sign for kelvin", rpc("tas"+"\u212a"+"s/get", `{"taskId":"a"}`), nil, "own case"},
	{"an id that is null", `{"jsonrpc":"2.0","id":null,"method":"ping"}`, nil, "text or a number"},
	{"meta that is a text", rpc("ping", `{"_meta":"x"}`), nil, "has the type"},
	{"a cursor that is a number", rpc("tools/list", `{"cursor":1}`), nil, "has the type"},
	{"a resource without uri", rpc("resources/read", `{}`), nil, "uri is there"},
	{"progress without progress", rpc("notifications/progress", `{"progressToken":1}`), nil, "progress is there"},
	{"initialize without version", rpc("initialize", `{"capabilities":{},"clientInfo":{}}`), nil, "protocolVersion is there"},
	{"a response with a call's method", `{"jsonrpc":"2.0","id":1,"result":{},"method":"ping"}`, nil, "either a call or a response"},
}

func TestMCPBodiesSayWhatTheyCall(t *testing.T) {
	check(t, Dialect{MCP: true}, mcp)
	check(t, Dialect{MCP: true}, mcp)
}

// TestToolNamesComeAsTheyAre: whether one is in the strict form is decided where rules
// are; here it is neither changed nor guessed.
func TestToolNamesComeAsTheyAre(t *testing.T) {
	for _, tt := range []struct{ name, tool, want string }{
		{"every kind of character", "aZ09_.-", "aZ09_.-"},
		{"a long one", strings.Repeat("a", 129), strings.Repeat("a", 129)},
		{"a slash", "fs/read", "fs/read"},
		{"a space", "read ", "read "},
		{"a line end", `read\n`, "read\n"},
		{"a zero-width space", `re\u200bad`, "re\u200bad"},
		{"a letter that looks alike", "re\u0430d", "re\u0430d"},
		{"a full-width letter", "\uff41", "\uff41"},
		{"NUL", `read\u0000`, ""},
		{"nothing", "", ""},
	} {
		t.Run(tt.name, func(t *testing.T) {
			got, err := Read(head(), []byte(rpc("tools/call", `{"name":"`+tt.tool+`"}`)), Dialect{MCP: true})
			if tt.want == "" && err == nil || tt.want != "" && (err != nil || len(got) != 1 || got[0].Tool != tt.want) {
				t.Errorf("got %v, %v", got, err)
			}
		})
	}
}

func TestTheHeadsCopyOfACallIsTheCall(t *testing.T) {
	method := func(v string) http1.Field { return http1.Field{Name: "mcp-method", Value: v} }
	name := func(v string) http1.Field { return http1.Field{Name: "Mcp-Name", Value: v} }
	tool, batch := rpc("tools/call", `{"name":"read"}`), "["+rpc("tools/call", `{"name":"read"}`)+","+rpc("ping", "{}")+"]"
	for _, tt := range []struct {
		name, body string
		fields     []http1.Field
		ok         bool
	}{
		{"both", tool, []http1.Field{method("tools/call"), name("read")}, true},
		{"the method", tool, []http1.Field{method("tools/call")}, true},
		{"an encoded name", tool, []http1.Field{name("=?base64?cmVhZA==?=")}, true},
		{"a resource", rpc("resources/read", `{"uri":"file:///x"}`), []http1.Field{name("file:///x")}, true},
		{"another method", tool, []http1.Field{method("tools/list")}, false},
		{"another case", tool, []http1.Field{method("Tools/call")}, false},
		{"another name", tool, []http1.Field{name("write")}, false},
		{"another encoded name", tool, []http1.Field{name("=?base64?d3JpdGU=?=")}, false},
		{"a name that is encoded badly", tool, []http1.Field{name("=?base64?cmVhZA?=")}, false},
		{"a name of a call without", rpc("ping", "{}"), []http1.Field{name("read")}, false},
		{"another name behind an underscore", tool, []http1.Field{{Name: "Mcp_Name", Value: "write"}}, false},
		{"another name behind a dot", tool, []http1.Field{{Name: "Mcp.Name", Value: "write"}}, false},
		{"the name behind an underscore", tool, []http1.Field{{Name: "Mcp_Name", Value: "read"}}, true},
		{"two methods, one behind an underscore", tool, []http1.Field{method("tools/call"), {Name: "mcp_method", Value: "tools/call"}}, false},
		{"two methods", tool, []http1.Field{method("tools/call"), method("tools/call")}, false},
		{"a batch", batch, []http1.Field{method("tools/call")}, false},
		{"a response", `{"jsonrpc":"2.0","id":1,"result":{}}`, []http1.Field{method("tools/call")}, false},
	} {
		t.Run(tt.name, func(t *testing.T) {
			_, err := Read(head(tt.fields...), []byte(tt.body), Dialect{MCP: true})
			if tt.ok && err != nil {
				t.Error(err)
			} else if !tt.ok {
				expectRefusal(t, err, 400, core.ReasonInvalidJSONRPC, "the one call of the body")
			}
		})
	}
}
