package graphql

import (
	"strings"
	"testing"

	"github.com/splitpod/splitpod/cmd/supervisor-network/internal/decide"
)

var messages = []struct {
	name, text string
	want       []decide.Operation // nil: a control message
	detail     string
}{
	{"subscribe", `{"id":"1","type":"subscribe","payload":{"query":"subscription{a}"}}`, ops(op("subscription", "", "a")), ""},
	{"start", `{"type":"start","id":"1","payload":{"query":"mutation{a}"}}`, ops(op("mutation", "", "a")), ""},
	{"the payload first", `{"payload":{"query":"{x:a}"},"id":"1","type":"subscribe"}`, ops(op("query", "", "a")), ""},
	{"a persisted query", `{"payload":{"extensions":{"persistedQuery":{"sha256Hash":"abc"}}},"id":"1","type":"subscribe"}`, ops(persisted("abc")), ""},
	{"connection_init", `{"type":"connection_init","payload":{"authorization":"x","Authorization":"y"}}`, nil, ""},
	{"connection_terminate", `{"type":"connection_terminate"}`, nil, ""},
	{"ping", `{"type":"ping","payload":null}`, nil, ""},
	{"pong", `{"type":"pong"}`, nil, ""},
	{"complete", `{"id":"1","type":"complete"}`, nil, ""},
	{"stop", `{"id":"1","type":"stop"}`, nil, ""},
	{"a control message does not execute its payload", `{"id":"1","type":"stop","payload":{"query":"mutation{a}"}}`, nil, ""},

	{"nothing", ``, nil, "is a JSON object"},
	{"no JSON", `hello`, nil, "is a JSON object"},
	{"a batch", `[{"type":"ping"}]`, nil, "is a JSON object"},
	{"no type", `{"id":"1","payload":{"query":"{a}"}}`, nil, "that clients send"},
	{"an unknown type", `{"type":"subscribes","id":"1","payload":{"query":"{a}"}}`, nil, "that clients send"},
	{"a type of servers", `{"type":"next","id":"1","payload":{}}`, nil, "that clients send"},
	{"another case of a type", `{"type":"Ping"}`, nil, "that clients send"},
	{"a type that is no text", `{"type":["ping"]}`, nil, "is a text"},
	{"two types", `{"type":"ping","type":"subscribe","id":"1","payload":{"query":"{a}"}}`, nil, "stands once"},
	{"two types, one escaped", `{"type":"ping","\u0074ype":"subscribe","id":"1","payload":{"query":"{a}"}}`, nil, "stands once"},
	{"two types in two cases", `{"type":"ping","Type":"subscribe","id":"1","payload":{"query":"{a}"}}`, nil, "own case"},
	{"no id", `{"type":"subscribe","payload":{"query":"{a}"}}`, nil, "text as id"},
	{"an id that is a number", `{"type":"subscribe","id":1,"payload":{"query":"{a}"}}`, nil, "text as id"},
	{"no payload", `{"type":"subscribe","id":"1"}`, nil, "object as payload"},
	{"a payload that is a text", `{"type":"subscribe","id":"1","payload":"{a}"}`, nil, "object as payload"},
	{"an empty payload", `{"type":"subscribe","id":"1","payload":{}}`, nil, "has a query"},
	{"two queries", `{"type":"subscribe","id":"1","payload":{"query":"{a}","query":"{b}"}}`, nil, "stands once"},
	{"two queries in two cases", `{"type":"subscribe","id":"1","payload":{"query":"{a}","QUERY":"{b}"}}`, nil, "own case"},
	{"a bad document", `{"type":"subscribe","id":"1","payload":{"query":"{"}}`, nil, "syntax error"},
	{"a control message with a key twice", `{"type":"ping","payload":{"a":1,"a":1}}`, nil, "stands once"},
	{"two messages", `{"type":"ping"}{"type":"ping"}`, nil, "nothing follows"},
	{"invalid UTF-8", "{\"type\":\"ping\",\"id\":\"\xff\"}", nil, "UTF-8"},
}

func TestMessagesSayWhatTheyExecute(t *testing.T) {
	for _, tt := range messages {
		t.Run(tt.name, func(t *testing.T) {
			got, control, err := Message([]byte(tt.text))
			compare(t, got, err, tt.want, tt.detail)
			if err == nil && control != (tt.want == nil) {
				t.Errorf("control is %v", control)
			}
			if err != nil && (control || got != nil) {
				t.Errorf("got %v, %v beside an error", got, control)
			}
		})
	}
}

func BenchmarkMessage(b *testing.B) {
	text := []byte(`{"id":"1","type":"subscribe","payload":{"query":"subscription E { events { id } }"}}`)
	b.SetBytes(int64(len(text)))
	b.ReportAllocs()
	for b.Loop() {
		if _, _, err := Message(text); err != nil {
			b.Fatal(err)
		}
	}
}

// FuzzMessage: a message is a control message, or has one operation, or is refused;
// encoding/json finds the same type in it, and the same operation in its payload.
func FuzzMessage(f *testing.F) {
	for _, m := range messages {
		f.Add([]byte(m.text))
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		got, control, err := Message(data)
		if err != nil {
			refusedWell(t, err)
			return
		}
		if control == (len(got) == 1) || len(got) > 1 {
			t.Fatalf("got %v, control %v", got, control)
		}
		kind, payload := loosely(t, data)
		if strings.Contains("subscribe start", kind) == control {
			t.Fatalf("%q, control %v", kind, control)
		}
		if !control {
			again(t, payload, got[0])
		}
	})
}
