package jsonrpc

import (
	"errors"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"github.com/splitpod/splitpod/cmd/supervisor-network/internal/decide"
	"github.com/splitpod/splitpod/cmd/supervisor-network/internal/http1"
	"github.com/splitpod/splitpod/cmd/supervisor-network/internal/inspect/content"
	"github.com/splitpod/splitpod/pkg/core"
)

func head(fields ...http1.Field) *content.Head {
	fields = append(fields, http1.Field{Name: "Content-Type", Value: "application/json"})
	return &content.Head{Method: "POST", Fields: fields, Body: true}
}

// calls are the wanted ones. TestNamesOfParametersAreKnown is about their names.
func calls(all ...decide.Call) []decide.Call { return all }

func expectRefusal(t *testing.T, err error, status int, reason core.Reason, detail string) {
	t.Helper()
	e, ok := errors.AsType[*content.Error](err)
	if !ok || e.Status != status || e.Reason != reason || !strings.Contains(e.Detail, detail) {
		t.Fatalf("got %v, want a refusal with %d and %q", err, status, detail)
	}
}

type testCase struct {
	name, body string
	want       []decide.Call
	detail     string // of a refusal
}

var plain = []testCase{
	{"a call", `{"jsonrpc":"2.0","id":1,"method":"eth_call","params":[1]}`, calls(decide.Call{Method: "eth_call"}), ""},
	{"a notification", `{"jsonrpc":"2.0","method":"a"}`, calls(decide.Call{Method: "a"}), ""},
	{"ids of every kind", `[{"jsonrpc":"2.0","method":"a","id":"x"},{"jsonrpc":"2.0","method":"b","id":null},{"jsonrpc":"2.0","method":"c","id":-1.5e400}]`,
		calls(decide.Call{Method: "a"}, decide.Call{Method: "b"}, decide.Call{Method: "c"}), ""},
	{"one id twice is two calls", `[{"jsonrpc":"2.0","method":"a","id":1},{"jsonrpc":"2.0","method":"b","id":1}]`,
		calls(decide.Call{Method: "a"}, decide.Call{Method: "b"}), ""},
	{"texts among the params", `{"jsonrpc":"2.0","method":"a","params":{"path":"/x","n":1,"deep":{"path":"/y"},"empty":""}}`,
		calls(decide.Call{Method: "a", Params: map[string]string{"path": "/x", "empty": ""}}), ""},
	{"a parameter called name", `{"jsonrpc":"2.0","method":"a","params":{"name":"b c"}}`,
		calls(decide.Call{Method: "a", Tool: "b c", Params: map[string]string{"name": "b c"}}), ""},
	{"members in any order", `{"params":{"name":"b"},"method":"a","id":1,"jsonrpc":"2.0"}`,
		calls(decide.Call{Method: "a", Tool: "b", Params: map[string]string{"name": "b"}}), ""},
	{"no params", `{"jsonrpc":"2.0","method":"a","params":null}`, calls(decide.Call{Method: "a"}), ""},
	{"an unknown member", `{"jsonrpc":"2.0","method":"a","auth":"x"}`, calls(decide.Call{Method: "a"}), ""},
	{"an escaped method", `{"jsonrpc":"2.0","method":"\u0061b"}`, calls(decide.Call{Method: "ab"}), ""},
	{"a zero-width space stays", `{"jsonrpc":"2.0","method":"a\u200bb"}`, calls(decide.Call{Method: "a\u200bb"}), ""},
	{"letters that look alike stay", "{\"jsonrpc\":\"2.0\",\"method\":\"\u0430\"}", calls(decide.Call{Method: "\u0430"}), ""},
	{"accents stay as they are written", `{"jsonrpc":"2.0","method":"e\u0301"}`, calls(decide.Call{Method: "e\u0301"}), ""},
	{"case stays", `{"jsonrpc":"2.0","method":"Tools/Call"}`, calls(decide.Call{Method: "Tools/Call"}), ""},
	{"white space stays", `{"jsonrpc":"2.0","method":" a "}`, calls(decide.Call{Method: " a "}), ""},

	{"nothing", ``, nil, "is an object"},
	{"white space", ` `, nil, "is an object"},
	{"a text", `"a"`, nil, "is an object"},
	{"an empty object", `{}`, nil, "text 2.0"},
	{"an empty batch", `[]`, nil, "not empty"},
	{"a batch in a batch", `[[{"jsonrpc":"2.0","method":"a"}]]`, nil, "is an object"},
	{"a batch with something else", `[{"jsonrpc":"2.0","method":"a"},1]`, nil, "is an object"},
	{"no version", `{"method":"a"}`, nil, "text 2.0"},
	{"version one", `{"jsonrpc":"1.0","method":"a"}`, nil, "text 2.0"},
	{"a version as number", `{"jsonrpc":2.0,"method":"a"}`, nil, "text 2.0"},
	{"nearly the version", `{"jsonrpc":"2.0 ","method":"a"}`, nil, "text 2.0"},
	{"no method", `{"jsonrpc":"2.0","id":1}`, nil, "either a result or an error"},
	{"an empty method", `{"jsonrpc":"2.0","method":""}`, nil, "not empty"},
	{"a method that is no text", `{"jsonrpc":"2.0","method":["a"]}`, nil, "is a text"},
	{"a method that is null", `{"jsonrpc":"2.0","method":null,"id":1,"result":1}`, nil, "is a text"},
	{"a method with NUL", `{"jsonrpc":"2.0","method":"a\u0000"}`, nil, "no NUL"},
	{"half a pair in a method", `{"jsonrpc":"2.0","method":"a\ud800"}`, nil, "half of a surrogate"},
	{"two methods", `{"jsonrpc":"2.0","method":"a","method":"b"}`, nil, "stands once"},
	{"two methods, one escaped", `{"jsonrpc":"2.0","method":"a","\u006dethod":"b"}`, nil, "stands once"},
	{"two methods in two cases", `{"jsonrpc":"2.0","method":"a","Method":"b"}`, nil, "own case"},
	{"a method in another case", `{"jsonrpc":"2.0","METHOD":"b"}`, nil, "own case"},
	{"a member with another s", `{"jsonrpc":"2.0","method":"a","param` + "ſ" + `":{}}`, nil, "own case"},
	{"two params", `{"jsonrpc":"2.0","method":"a","params":{},"params":{"name":"x"}}`, nil, "stands once"},
	{"a parameter twice", `{"jsonrpc":"2.0","method":"a","params":{"path":"x","path":"y"}}`, nil, "stands once"},
	{"a parameter in two cases", `{"jsonrpc":"2.0","method":"a","params":{"path":"x","Path":"y"}}`, nil, "stands once"},
	{"a key twice deep inside", `{"jsonrpc":"2.0","method":"a","params":[{"x":[{"k":1,"k":2}]}]}`, nil, "stands once"},
	{"a key twice in an unknown member", `{"jsonrpc":"2.0","method":"a","x":{"k":1,"k":2}}`, nil, "stands once"},
	{"params that are a text", `{"jsonrpc":"2.0","method":"a","params":"x"}`, nil, "object or an array"},
	{"an id that is an object", `{"jsonrpc":"2.0","method":"a","id":{}}`, nil, "id of a JSON-RPC call"},
	{"an id that is true", `{"jsonrpc":"2.0","method":"a","id":true}`, nil, "id of a JSON-RPC call"},
	{"a call and a result", `{"jsonrpc":"2.0","method":"a","id":1,"result":1}`, nil, "either a call or a response"},
	{"a call and no error", `{"jsonrpc":"2.0","method":"a","id":1,"error":null}`, nil, "either a call or a response"},
	{"a result and an error", `{"jsonrpc":"2.0","id":1,"result":1,"error":{}}`, nil, "either a result or an error"},
	{"a response without an id", `{"jsonrpc":"2.0","result":1}`, nil, "has an id"},
	{"two bodies", `{"jsonrpc":"2.0","method":"a"}{"jsonrpc":"2.0","method":"b"}`, nil, "nothing follows"},
	{"two lines of bodies", `{"jsonrpc":"2.0","method":"a"}` + "\n" + `{"jsonrpc":"2.0","method":"b"}`, nil, "nothing follows"},
	{"a byte order mark", "\ufeff" + `{"jsonrpc":"2.0","method":"a"}`, nil, "byte order mark"},
	{"UTF-16", "\xff\xfe{\x00", nil, "UTF-8"},
	{"invalid UTF-8", "{\"jsonrpc\":\"2.0\",\"method\":\"a\xff\"}", nil, "UTF-8"},
	{"too deep", `{"jsonrpc":"2.0","method":"a","params":` + strings.Repeat("[", 128), nil, "128 deep"},
}

func check(t *testing.T, d Dialect, tests []testCase) {
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			got, err := Read(head(), []byte(tt.body), d)
			if tt.detail != "" {
				expectRefusal(t, err, 400, core.ReasonInvalidJSONRPC, tt.detail)
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(tt.want, got, cmpopts.IgnoreFields(decide.Call{}, "Names", "Unnamed")); diff != "" {
				t.Error(diff)
			}
		})
	}
}

func TestBodiesSayWhatTheyCall(t *testing.T) { check(t, Dialect{}, plain) }

// Whether they may be sent is decided where rules are.
func TestResponsesOfClientsAreTold(t *testing.T) {
	for _, d := range []Dialect{{}, {MCP: true}} {
		for body, want := range map[string][]decide.Call{
			`{"jsonrpc":"2.0","id":1,"result":{}}`:                                         calls(decide.Call{Response: true}),
			`{"jsonrpc":"2.0","id":1,"error":{"code":1,"message":""}}`:                     calls(decide.Call{Response: true}),
			`[{"jsonrpc":"2.0","id":1,"method":"a"},{"jsonrpc":"2.0","id":1,"result":{}}]`: calls(decide.Call{Method: "a"}, decide.Call{Response: true}),
		} {
			got, err := Read(head(), []byte(body), d)
			if diff := cmp.Diff(want, got); diff != "" || err != nil {
				t.Errorf("%s: %v %s", body, err, diff)
			}
		}
	}
}

func TestNamesOfParametersAreKnown(t *testing.T) {
	for params, want := range map[string]decide.Call{
		`{"Path":"/x","n":1}`:           {Method: "a", Params: map[string]string{"Path": "/x"}, Names: []string{"path", "n"}},
		`{"cla\u017fs":"x","\u212a":1}`: {Method: "a", Params: map[string]string{"cla\u017fs": "x"}, Names: []string{"class", "k"}},
		`[1,"x"]`:                       {Method: "a", Unnamed: true},
		`{}`:                            {Method: "a"},
		`null`:                          {Method: "a"},
	} {
		got, err := Read(head(), []byte(`{"jsonrpc":"2.0","method":"a","params":`+params+`}`), Dialect{})
		if diff := cmp.Diff(calls(want), got); diff != "" || err != nil {
			t.Errorf("%s: %v %s", params, err, diff)
		}
	}
}

func TestBatchesHaveALimit(t *testing.T) {
	one := `{"jsonrpc":"2.0","method":"a"}`
	batch := func(n int) []byte { return []byte("[" + strings.Repeat(one+",", n-1) + one + "]") }
	if got, err := Read(head(), batch(MaxBatch), Dialect{}); err != nil || len(got) != MaxBatch {
		t.Errorf("got %d, %v", len(got), err)
	}
	_, err := Read(head(), batch(MaxBatch+1), Dialect{})
	expectRefusal(t, err, 400, core.ReasonInvalidJSONRPC, "at most 100")
}

func TestBodiesThatAreDecodedAreRefused(t *testing.T) {
	body := []byte(`{"jsonrpc":"2.0","method":"ping"}`)
	for _, tt := range []struct {
		name     string
		field    http1.Field
		rpc, mcp bool
	}{
		{"JSON", http1.Field{Name: "Content-Type", Value: "application/json"}, true, true},
		{"JSON in UTF-8", http1.Field{Name: "Content-Type", Value: "application/json; charset=utf-8"}, true, true},
		{"JSON-RPC", http1.Field{Name: "Content-Type", Value: "application/json-rpc"}, true, false},
		{"an old name of JSON-RPC", http1.Field{Name: "Content-Type", Value: "application/jsonrequest"}, true, false},
		{"a form", http1.Field{Name: "Content-Type", Value: "application/x-www-form-urlencoded"}, false, false},
		{"multipart", http1.Field{Name: "Content-Type", Value: "multipart/mixed; boundary=x"}, false, false},
		{"JSON in quoted UTF-8", http1.Field{Name: "Content-Type", Value: `application/json;odata=verbose;Charset="UTF-8"`}, true, true},
		{"UTF-16", http1.Field{Name: "Content-Type", Value: "application/json; charset=utf-16"}, false, false},
		{"two charsets", http1.Field{Name: "Content-Type", Value: "application/json; charset=utf-7; charset*=utf-8''utf-8"}, false, false},
		{"two charsets, the other one first", http1.Field{Name: "Content-Type", Value: "application/json; charset*=utf-8''utf-8; charset=utf-7"}, false, false},
		{"a charset in a piece", http1.Field{Name: "Content-Type", Value: "application/json; charset=utf-7; charset*0=utf-8"}, false, false},
		{"a charset in quotes", http1.Field{Name: "Content-Type", Value: `application/json; x="; charset=utf-7"`}, false, false},
		{"nothing", http1.Field{Name: "X", Value: "application/json"}, false, false},
	} {
		t.Run(tt.name, func(t *testing.T) {
			h := &content.Head{Method: "POST", Fields: http1.Fields{tt.field}, Body: true}
			for _, d := range []Dialect{{}, {MCP: true}} {
				_, err := Read(h, body, d)
				if want := !d.MCP && tt.rpc || d.MCP && tt.mcp; (err == nil) != want {
					t.Errorf("%+v: got %v", d, err)
				} else if !want {
					expectRefusal(t, err, 415, core.ReasonInvalidJSONRPC, "")
				}
			}
		})
	}
	_, err := Read(head(http1.Field{Name: "content-encoding", Value: "gzip"}), body, Dialect{})
	expectRefusal(t, err, 415, core.ReasonInvalidJSONRPC, "content encoding")
}

func BenchmarkRead(b *testing.B) {
	h := head()
	body := []byte(`{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{"name":"read_file","arguments":{"path":"/tmp/x"}}}`)
	b.SetBytes(int64(len(body)))
	b.ReportAllocs()
	for b.Loop() {
		if _, err := Read(h, body, Dialect{MCP: true}); err != nil {
			b.Fatal(err)
		}
	}
}
