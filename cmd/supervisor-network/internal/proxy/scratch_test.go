package proxy

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/http/httputil"
	"reflect"
	"runtime"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/splitpod/splitpod/cmd/supervisor-network/internal/http1"
	"github.com/splitpod/splitpod/cmd/supervisor-network/internal/inject/seal"
	"github.com/splitpod/splitpod/cmd/supervisor-network/internal/inspect"
	"github.com/splitpod/splitpod/cmd/supervisor-network/internal/inspect/hold"
	"github.com/splitpod/splitpod/cmd/supervisor-network/internal/inspect/websocket"
)

func TestForgettingLeavesNothingButTheMemoryOfFields(t *testing.T) {
	for _, n := range []int{1, maxScratchFields, maxScratchFields + 1} {
		fields := slices.Repeat(http1.Fields{{Name: "Authorization", Value: "secret"}}, n)
		m := &scratch{
			request: http1.Request{Method: "POST", Target: "/", Minor: 1, Fields: fields[:n/2+1], Framing: http1.Framing{Kind: http1.Length, Length: 1}},
			in: incoming{method: "POST", path: "/", body: hold.Body{Held: hold.Holding{Of: hold.New(1)}, Content: []byte("body"), Read: true, Original: []byte("body"), Unhurried: true}, audited: "rule", sealed: &seal.Sealed{},
				turn: &turn{}, handshake: &websocket.Handshake{}, omit: []string{"a"}, add: fields, head: inspect.Head{Method: "POST", Fields: fields}},
		}
		m.in.binary.Store(true)
		m.forget()
		if kept := cap(m.request.Fields) == cap(fields); kept != (n <= maxScratchFields) {
			t.Errorf("%d fields: their memory is kept: %v", n, kept)
		}
		for _, f := range m.request.Fields[:cap(m.request.Fields)] {
			if f != (http1.Field{}) {
				t.Errorf("%d fields: %v is still there", n, f)
			}
		}
		if len(m.request.Fields) > 0 {
			t.Errorf("%d fields: %d are left", n, len(m.request.Fields))
		}
		if m.request.Fields = nil; !reflect.ValueOf(m).Elem().IsZero() {
			t.Errorf("%d fields: %+v is left", n, m)
		}
	}
}

// exchanged is what became of a request: its answer, with what the origin got, and its
// record.
type exchanged struct {
	Answer string
	Record map[string]any
}

// TestARequestIsWhatItIsWhateverCameBefore: every request of a connection is judged, sent,
// answered and recorded as the first one of another connection is.
func TestARequestIsWhatItIsWhateverCameBefore(t *testing.T) {
	w := newWorld(t, generous, "  api: {binaries: [{path: /x}], endpoints: ["+strings.Join([]string{
		"{host: api.example.com, port: 443, path: /rest/**, protocol: rest, enforcement: enforce, access: read-write, deny_rules: [{method: '*', path: /rest/secret}]}",
		"{host: api.example.com, port: 443, path: /audit/**, protocol: rest, enforcement: audit, access: read-only}",
		"{host: api.example.com, port: 443, path: /rpc, protocol: json-rpc, enforcement: enforce, rules: [{allow: {method: a}}]}",
		"{host: api.example.com, port: 443, path: /ws, protocol: websocket, enforcement: enforce, access: full}",
	}, ", ")+"]}\n")
	w.origin("api.example.com", 443, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		b, err := httputil.DumpRequest(r, true)
		if err != nil {
			t.Error(err)
		}
		_, _ = w.Write(b)
	}), "http/1.1")

	const head = " HTTP/1.1\r\nHost: api.example.com\r\n"
	many := strings.Builder{}
	for i := range maxScratchFields + 6 {
		fmt.Fprintf(&many, "X-%d: %d\r\n", i, i)
	}
	requests := map[string]string{
		"a plain one":               "GET /rest/a" + head + "\r\n",
		"with a query":              "GET /rest/b?c=d" + head + "\r\n",
		"with a body":               "POST /rest/a" + head + "Content-Length: 5\r\nContent-Type: text/plain\r\n\r\nhello",
		"with chunks":               "PUT /rest/a" + head + "Transfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n",
		"with many fields":          "GET /rest/a" + head + many.String() + "\r\n",
		"with one field":            "GET /rest/a" + head + "X-Only: this\r\n\r\n",
		"in no plain head":          "GET /rest/a" + head + "X-Text: \u00e9\r\n\r\n",
		"of a trace":                "GET /rest/a" + head + "Traceparent: 00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01\r\n\r\n",
		"with an overridden method": "POST /rest/a" + head + "X-HTTP-Method-Override: PUT\r\nContent-Length: 0\r\n\r\n",
		"for its head":              "HEAD /rest/a" + head + "\r\n",
		"audited":                   "POST /audit/a" + head + "Content-Length: 2\r\n\r\nhi",
		"a call":                    "POST /rpc" + head + "Content-Type: application/json\r\nContent-Length: 37\r\n\r\n" + `{"jsonrpc":"2.0","id":1,"method":"a"}`,
		"a handshake":               "GET /ws" + head + "Upgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n",
		"denied":                    "GET /rest/secret" + head + "\r\n",
		"denied by an override":     "POST /rest/a" + head + "X-HTTP-Method-Override: DELETE\r\nContent-Length: 0\r\n\r\n",
		"a denied call":             "POST /rpc" + head + "Content-Type: application/json\r\nContent-Length: 37\r\n\r\n" + `{"jsonrpc":"2.0","id":1,"method":"b"}`,
		"malformed":                 "GET /rest/a" + head + "Host: b\r\n\r\n",
	}
	alone := map[string]exchanged{}
	var goOn []string
	for name, text := range requests {
		var more bool
		if alone[name], more = w.exchange(t, text); more {
			goOn = append(goOn, name)
		}
	}
	if len(goOn) != 13 {
		t.Fatalf("connections go on behind %q only", goOn)
	}
	for _, before := range goOn {
		for name, text := range requests {
			got, _ := w.exchange(t, requests[before], text)
			if diff := cmp.Diff(alone[name], got); diff != "" {
				t.Errorf("behind one %s, one %s is another one:\n%s", before, name, diff)
			}
		}
	}
}

// exchange makes requests one after the other on one connection. It returns what became
// of the last, and whether another one could follow.
func (w *world) exchange(t *testing.T, requests ...string) (exchanged, bool) {
	t.Helper()
	seen := len(w.records.list())
	c := w.secure("api.example.com", "http/1.1")
	defer c.Close()
	r := bufio.NewReader(c)
	var resp *http.Response
	var body string
	for _, text := range requests {
		if _, err := io.WriteString(c, text); err != nil {
			t.Fatal(err)
		}
		method, _, _ := strings.Cut(text, " ")
		resp, body = answer(t, r, method)
	}
	var list []string
	w.until("a record of each", func() bool { list = w.records.list()[seen:]; return len(list) >= len(requests) })
	if len(list) != len(requests) {
		t.Fatalf("%d records of %d requests: %q", len(list), len(requests), list)
	}
	var record map[string]any
	if err := json.Unmarshal([]byte(list[len(list)-1]), &record); err != nil {
		t.Fatal(err)
	}
	rest := record["unmapped"].(map[string]any)
	id, _ := rest["request_id"].(string)
	for _, key := range []string{"time", "duration", "src_endpoint"} {
		delete(record, key)
	}
	for _, key := range []string{"request_id", "trace_id"} {
		delete(rest, key)
	}
	if rest["reason"] == "bad_request" { // the first record of a connection names the rule that allowed the tunnel
		delete(record, "firewall_rule")
		delete(rest, "policy_generation")
	}
	resp.Header.Del("Date")
	out := fmt.Sprintf("%d %v close %v\n%s", resp.StatusCode, resp.Header, resp.Close, body)
	return exchanged{strings.ReplaceAll(out, id, "ID"), record}, !resp.Close
}

// TestNoMemoryIsUsedAgainWhileItsRequestIsJudged holds the judgement of a request that is
// over: the next one of its connection waits.
func TestNoMemoryIsUsedAgainWhileItsRequestIsJudged(t *testing.T) {
	w := newWorld(t, generous, endpoint("api.example.com", 443, ", protocol: rest, enforcement: enforce, access: full"))
	w.origin("api.example.com", 443, http.HandlerFunc(echoRequest), "http/1.1")
	c := w.secure("api.example.com", "http/1.1")
	r := bufio.NewReader(c)
	ask := func() {
		if _, err := io.WriteString(c, "GET /a HTTP/1.1\r\nHost: api.example.com\r\n\r\n"); err != nil {
			t.Fatal(err)
		}
	}
	ask()
	answer(t, r, "GET")
	var e *liveEntry
	w.Live.entries.Range(func(_, v any) bool { e = v.(*liveEntry); return false })
	e.mu.Lock()
	ask()
	w.until("the session waits for the judgement", func() bool {
		stacks := make([]byte, 1<<20)
		stacks = stacks[:runtime.Stack(stacks, true)]
		return slices.ContainsFunc(strings.Split(string(stacks), "\n\n"), func(s string) bool {
			return strings.Contains(s, "sync.(*Mutex).Lock") && strings.Contains(s, "liveEntry).carries")
		})
	})
	e.mu.Unlock()
	answer(t, r, "GET")
}

// TestReloadsJudgeWhatIsThere: policies that change while requests of a connection follow
// each other as fast as they can end none of them. The race detector sees one that is
// judged when it is over.
func TestReloadsJudgeWhatIsThere(t *testing.T) {
	with := func(more string) []string {
		return []string{endpoint("api.example.com", 443, ", protocol: rest, enforcement: enforce, access: full, deny_rules: [{method: GET, path: /secret}"+more+"]")}
	}
	w := newWorld(t, generous, with("")...)
	w.origin("api.example.com", 443, http.HandlerFunc(echoRequest), "http/1.1")
	ctx, end := context.WithCancel(t.Context())
	var wg sync.WaitGroup
	for i := range 4 {
		c := w.secure("api.example.com", "http/1.1")
		r := bufio.NewReader(c)
		wg.Go(func() {
			for n := 0; ctx.Err() == nil; n++ {
				query := fmt.Sprintf("%d-%d", i, n)
				fmt.Fprintf(c, "POST /%s?%s HTTP/1.1\r\nHost: api.example.com\r\nX-%d: %d\r\nContent-Length: %d\r\n\r\n%s",
					strings.Repeat("a", n%50+1), query, n%7, n, n%3, strings.Repeat("x", n%3))
				resp, err := http.ReadResponse(r, nil)
				if err != nil {
					t.Error(err)
					return
				}
				body, _ := io.ReadAll(resp.Body)
				if want := fmt.Sprintf("api %s %d", query, n%3); resp.StatusCode != 200 || string(body) != want {
					t.Errorf("%d %q, want %q", resp.StatusCode, body, want)
					return
				}
			}
		})
	}
	for i, until := 0, time.Now().Add(brief/2); time.Now().Before(until); i++ {
		w.publish(with(fmt.Sprintf(", {method: GET, path: /other%d}", i%2))...)
	}
	end()
	wg.Wait()
}
