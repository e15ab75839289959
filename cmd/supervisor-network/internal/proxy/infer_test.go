package proxy

import (
	"bufio"
	"compress/gzip"
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/splitpod/splitpod/cmd/supervisor-network/internal/decide"
	"github.com/splitpod/splitpod/cmd/supervisor-network/internal/inference"
)

// providers starts providers, and makes routes of a text in which %[1]s is the URL of the
// first one, %[2]s that of the next, and KEY a file with a key.
func (w *world) providers(routes string, handlers ...http.HandlerFunc) {
	w.t.Helper()
	roots := x509.NewCertPool()
	var urls []any
	for _, h := range handlers {
		s := httptest.NewUnstartedServer(h)
		s.EnableHTTP2 = len(urls)%2 == 0
		s.StartTLS()
		w.t.Cleanup(s.Close)
		roots.AddCert(s.Certificate())
		urls = append(urls, s.URL)
	}
	dir := w.t.TempDir()
	for name, text := range map[string]string{"key": "route-key-1234567\n", "routes.yaml": strings.ReplaceAll(fmt.Sprintf(routes, urls...), "KEY", dir+"/key")} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600); err != nil {
			w.t.Fatal(err)
		}
	}
	router, _, err := inference.Open(inference.Config{File: dir + "/routes.yaml", Dial: new(net.Dialer).DialContext, TLS: &tls.Config{RootCAs: roots}})
	if err != nil {
		w.t.Fatal(err)
	}
	w.Inference = router
}

const oneRoute = `routes: [{name: chat, endpoint: "%[1]s/v1", model: big-model, api_key_file: KEY}]`

// bothVersions runs a test over HTTP/1.1 and HTTP/2.
func bothVersions(t *testing.T, test func(t *testing.T, newer bool)) {
	for name, newer := range map[string]bool{"http/1.1": false, "h2": true} {
		t.Run(name, func(t *testing.T) { test(t, newer) })
	}
}

// TestAModelCallGoesWhereItsRouteLeads: the provider gets the route's key and model, and
// nothing else of the workload than what is on the list; the workload does not get the key.
func TestAModelCallGoesWhereItsRouteLeads(t *testing.T) {
	bothVersions(t, func(t *testing.T, newer bool) {
		w := newWorld(t, generous, endpoint("a.example.com", 443, ""))
		w.providers(oneRoute, func(rw http.ResponseWriter, r *http.Request) {
			body, _ := io.ReadAll(r.Body)
			rw.Header().Set("X-Repeated", r.Header.Get("Authorization"))
			rw.Header().Set("Set-Cookie", "a=b")
			rw.Header().Set("Content-Type", "application/json")
			_ = json.NewEncoder(rw).Encode(map[string]any{"target": r.RequestURI, "host": r.Host, "fields": r.Header, "body": string(body),
				"usage": map[string]int{"prompt_tokens": 11, "completion_tokens": 2}})
		})
		req, _ := http.NewRequest(http.MethodPost, "https://inference.local/v1/%63hat/completions?x=1", strings.NewReader(`{"messages":["hello \u0000 \ud800"],"Model":"huge","n":12345678901234567890}`))
		for name, value := range map[string]string{"Authorization": "Bearer workload", "X-Api-Key": "workload", "Cookie": "c=d", "Content-Type": "application/json; charset=utf-7",
			"Accept-Encoding": "br", "X-Forwarded-For": "1.2.3.4", "Openai-Organization": "org", "Anthropic-Beta": "no"} {
			req.Header.Set(name, value)
		}
		resp, err := w.client(newer).Do(req)
		if err != nil {
			t.Fatal(err)
		}
		defer resp.Body.Close()
		text, _ := io.ReadAll(resp.Body)
		var seen struct {
			Target, Host, Body string
			Fields             http.Header
		}
		if err := json.Unmarshal(text, &seen); err != nil || resp.StatusCode != 200 {
			t.Fatalf("%d %s: %v", resp.StatusCode, text, err)
		}
		if seen.Target != "/v1/chat/completions?x=1" || !strings.HasPrefix(seen.Host, "127.0.0.1:") {
			t.Errorf("it went to %s %s", seen.Host, seen.Target)
		}
		if want := `{"model":"big-model","messages":["hello \u0000 \ud800"],"n":12345678901234567890}`; seen.Body != want {
			t.Errorf("the body is %s, not %s", seen.Body, want)
		}
		if seen.Fields.Get("Authorization") != "Bearer REDACTED" || strings.Contains(string(text)+fmt.Sprint(resp.Header), "route-key") {
			t.Errorf("of the key: %s, %v", text, resp.Header)
		}
		if got := seen.Fields.Get("Openai-Organization") + seen.Fields.Get("Content-Type"); got != "orgapplication/json" {
			t.Errorf("what may pass: %s", got)
		}
		for _, name := range []string{"X-Api-Key", "Cookie", "X-Forwarded-For", "Accept-Encoding", "Anthropic-Beta", "Via"} {
			if seen.Fields.Get(name) != "" {
				t.Errorf("%s: %s went on", name, seen.Fields.Get(name))
			}
		}
		if resp.Header.Get("Set-Cookie") != "" || !strings.Contains(resp.Header.Get("X-Repeated"), "REDACTED") {
			t.Errorf("the answer's head: %v", resp.Header)
		}
		w.until("a record of the route", func() bool {
			r := fmt.Sprint(w.records.list())
			return strings.Contains(r, "inference route chat, model big-model") && strings.Contains(r, `"hostname":"inference.local"`) &&
				strings.Contains(r, `"api":{"operation":"POST /v1/chat/completions"}`) && strings.Contains(r, `"ai_model":{"name":"big-model","ai_provider":"https://127.0.0.1:`) &&
				strings.Contains(r, `"input_tokens":11,"output_tokens":2`)
		})
		if w.dials.Load() != 0 {
			t.Error("inference.local was dialled")
		}
	})
}

// TestFieldsOfOneHopEndBehindTheProvider: also those that it names itself.
func TestFieldsOfOneHopEndBehindTheProvider(t *testing.T) {
	bothVersions(t, func(t *testing.T, newer bool) {
		w := newWorld(t, generous, endpoint("a.example.com", 443, ""))
		answer := func(rw http.ResponseWriter, _ *http.Request) { // of HTTP/1.1, the second one
			for name, value := range map[string]string{"Connection": "X-Hop", "X-Hop": "1", "Keep-Alive": "timeout=5", "Alt-Svc": "h3=\":443\"", "Proxy-Authenticate": "Basic", "X-Stays": "1"} {
				rw.Header().Set(name, value)
			}
		}
		w.providers(`routes: [{name: chat, endpoint: "%[2]s", model: m}] # %[1]s`, answer, answer)
		resp, err := w.client(newer).Post("https://inference.local/v1/chat/completions", "application/json", strings.NewReader("{}"))
		if err != nil {
			t.Fatal(err)
		}
		resp.Body.Close()
		for _, name := range []string{"Connection", "X-Hop", "Keep-Alive", "Alt-Svc", "Proxy-Authenticate"} {
			if v := resp.Header.Get(name); v != "" {
				t.Errorf("%s: %s", name, v)
			}
		}
		if resp.StatusCode != 200 || resp.Header.Get("X-Stays") != "1" {
			t.Errorf("%d %v", resp.StatusCode, resp.Header)
		}
	})
}

// TestARefusedModelCallSaysWhy: in words that say whose turn it is, and in the version of
// HTTP that was asked in.
func TestARefusedModelCallSaysWhy(t *testing.T) {
	const nobody = "http://127.0.0.1:1" // no port that anybody else may be given
	breaks := func(rw http.ResponseWriter, r *http.Request) { panic(http.ErrAbortHandler) }
	chat := func(more string) string {
		return `routes: [{name: chat, endpoint: "%[1]s/v1", model: m` + more + `}]`
	}
	for name, tc := range map[string]struct {
		routes               string
		method, target, body string
		status               int
		said                 string
		reason               string
	}{
		"no routes":          {"routes: [] # %[1]s", "POST", "/v1/chat/completions", "{}", 503, `{"message":"cluster inference is not configured: `, "inference_unconfigured"},
		"no model call":      {chat(""), "POST", "/v1/files", "{}", 403, `{"message":"connection not allowed by policy: `, "inference_operation"},
		"another method":     {chat(""), "DELETE", "/v1/models/x", "", 403, `{"message":"connection not allowed by policy: `, "inference_operation"},
		"no route for it":    {chat(""), "POST", "/v1/messages", "{}", 400, `{"message":"no compatible inference route available: `, "inference_no_route"},
		"no JSON":            {chat(""), "POST", "/v1/chat/completions", "model=x", 400, `{"message":"the request body is not a JSON object: `, "bad_request"},
		"an array":           {chat(""), "POST", "/v1/chat/completions", "[{}]", 400, `{"message":"the request body is not a JSON object: `, "bad_request"},
		"two objects":        {chat(""), "POST", "/v1/chat/completions", "{}{}", 400, `{"message":"the request body is not a JSON object: `, "bad_request"},
		"half an object":     {chat(""), "POST", "/v1/chat/completions", `{"a":1`, 400, `{"message":"the request body is not a JSON object: `, "bad_request"},
		"no body":            {chat(""), "POST", "/v1/chat/completions", "", 400, `{"message":"the request body is not a JSON object: `, "bad_request"},
		"too long":           {chat(""), "POST", "/v1/chat/completions", strings.Repeat(" ", inference.MaxBody+1), 413, `"body_too_large"`, "body_too_large"},
		"no key":             {chat(", api_key_file: KEY.none"), "POST", "/v1/chat/completions", "{}", 401, `{"message":"inference service unavailable: `, "credential_unavailable"},
		"nobody there":       {strings.ReplaceAll(chat(""), "%[1]s", nobody) + "# %[1]s", "POST", "/v1/chat/completions", "{}", 503, `{"message":"inference service unavailable: `, "upstream_unreachable"},
		"not its own TLS":    {strings.ReplaceAll(chat(""), "%[1]s", strings.Replace(closedTLS(t), "http:", "https:", 1)) + "# %[1]s", "POST", "/v1/chat/completions", "{}", 502, `{"message":"inference service error: `, "upstream_tls_failed"},
		"it breaks off":      {chat(""), "POST", "/v1/chat/completions", "{}", 502, `{"message":"inference service error: `, "upstream_invalid_response"},
		"a hidden operation": {chat(""), "POST", "/v1/x/%2e%2e/files", "{}", 403, `{"message":"connection not allowed by policy: `, "inference_operation"},
	} {
		t.Run(name, func(t *testing.T) {
			bothVersions(t, func(t *testing.T, newer bool) {
				w := newWorld(t, generous, endpoint("a.example.com", 443, ""))
				w.providers(tc.routes, breaks)
				req, _ := http.NewRequest(tc.method, "https://inference.local"+tc.target, strings.NewReader(tc.body))
				resp, err := w.client(newer).Do(req)
				if err != nil {
					t.Fatal(err)
				}
				defer resp.Body.Close()
				text, err := io.ReadAll(resp.Body)
				if err != nil {
					t.Fatal(err)
				}
				if resp.StatusCode != tc.status || !strings.Contains(string(text), `"error":`+tc.said) {
					t.Errorf("%d %s", resp.StatusCode, text)
				}
				w.until("a record", func() bool { return strings.Contains(fmt.Sprint(w.records.list()), `"reason":"`+tc.reason+`"`) })
			})
		})
	}
}

// closedTLS is a server whose certificate nobody trusts.
func closedTLS(t *testing.T) string {
	s := httptest.NewUnstartedServer(http.NotFoundHandler())
	s.TLS = &tls.Config{}
	s.StartTLS()
	t.Cleanup(s.Close)
	return strings.Replace(s.URL, "127.0.0.1", "localhost", 1) // which its certificate does not name
}

// TestAStreamedAnswerComesAsItIsMade: piece by piece, and with an end that says so when
// its provider breaks off.
func TestAStreamedAnswerComesAsItIsMade(t *testing.T) {
	bothVersions(t, func(t *testing.T, newer bool) {
		w := newWorld(t, generous, endpoint("a.example.com", 443, ""))
		goOn := make(chan bool)
		w.providers(oneRoute, func(rw http.ResponseWriter, r *http.Request) {
			_, _ = io.Copy(io.Discard, r.Body)
			rw.Header().Set("Content-Type", "text/event-stream; charset=utf-8")
			for i := range 3 {
				fmt.Fprintf(rw, "data: {\"n\":%d}\n\n", i)
				_ = http.NewResponseController(rw).Flush()
				<-goOn
			}
			panic(http.ErrAbortHandler)
		})
		resp, err := w.client(newer).Post("https://inference.local/v1/chat/completions", "application/json", strings.NewReader(`{"stream":true}`))
		if err != nil {
			t.Fatal(err)
		}
		defer resp.Body.Close()
		lines := bufio.NewScanner(resp.Body)
		next := func() (line string) {
			for line == "" && lines.Scan() {
				line = lines.Text()
			}
			return line
		}
		for i := range 3 {
			if got := next(); got != fmt.Sprintf(`data: {"n":%d}`, i) {
				t.Fatalf("event %d: %q", i, got)
			}
			goOn <- true // only now does it make the next
		}
		if got, end := next(), next(); !strings.Contains(got, `"type":"proxy_stream_error"`) || end != "" || lines.Err() != nil {
			t.Errorf("the end: %q, %q, %v", got, end, lines.Err())
		}
		w.until("a record", func() bool { return strings.Contains(fmt.Sprint(w.records.list()), "the provider's answer broke off") })
	})
}

// TestAnAnswerBeginsWithItsHead: a client that waits for it knows that its model thinks.
func TestAnAnswerBeginsWithItsHead(t *testing.T) {
	bothVersions(t, func(t *testing.T, newer bool) {
		w := newWorld(t, generous, endpoint("a.example.com", 443, ""))
		begun := make(chan bool)
		w.providers(oneRoute, func(rw http.ResponseWriter, r *http.Request) {
			_, _ = io.Copy(io.Discard, r.Body)
			rw.Header().Set("Content-Type", "text/event-stream")
			_ = http.NewResponseController(rw).Flush()
			select {
			case <-begun:
				_, _ = io.WriteString(rw, "data: 1\n\n")
			case <-r.Context().Done():
			}
		})
		resp, err := w.client(newer).Post("https://inference.local/v1/chat/completions", "application/json", strings.NewReader("{}"))
		if err != nil {
			t.Fatal(err)
		}
		defer resp.Body.Close()
		close(begun)
		if text, err := io.ReadAll(resp.Body); err != nil || string(text) != "data: 1\n\n" {
			t.Errorf("%q, %v", text, err)
		}
	})
}

// TestWhoMayAskForModelsIsThePolicysToSay: where it has an endpoint for them, its programs
// and rules count; otherwise everybody may who may use the proxy.
func TestWhoMayAskForModelsIsThePolicysToSay(t *testing.T) {
	const rules = ", protocol: rest, enforcement: enforce, rules: [{allow: {method: POST, path: /v1/embeddings}}]"
	bothVersions(t, func(t *testing.T, newer bool) {
		w := newWorld(t, generous, endpoint("a.example.com", 443, ""))
		w.providers(oneRoute, func(rw http.ResponseWriter, r *http.Request) { _, _ = io.Copy(rw, r.Body) })
		ask := func(path string) int {
			resp, err := w.client(newer).Post("https://inference.local"+path, "application/json", strings.NewReader("{}"))
			if err != nil {
				t.Fatal(err)
			}
			resp.Body.Close()
			return resp.StatusCode
		}
		if got := ask("/v1/chat/completions"); got != 200 {
			t.Errorf("with a policy that is silent: %d", got)
		}
		w.publish(endpoint("inference.local", 443, rules))
		if got := ask("/v1/embeddings"); got != 200 {
			t.Errorf("what its rules allow: %d", got)
		}
		if got := ask("/v1/chat/completions"); got != 403 {
			t.Errorf("what they do not: %d", got)
		}
		w.publish(endpoint("inference.local", 443, ", tls: skip"))
		if got := ask("/v1/chat/completions"); got != 200 {
			t.Errorf("where nothing shall be read: %d", got)
		}
		if w.dials.Load() != 0 {
			t.Error("inference.local was dialled")
		}
	})
}

// TestAPolicyEndsAModelCall: one that is under way when it is no longer allowed.
func TestAPolicyEndsAModelCall(t *testing.T) {
	for _, media := range []string{"text/plain", "text/event-stream"} {
		bothVersions(t, func(t *testing.T, newer bool) { policyEnds(t, newer, media) })
	}
}

func policyEnds(t *testing.T, newer bool, media string) {
	w := newWorld(t, generous, endpoint("a.example.com", 443, ""))
	gone := make(chan bool)
	w.providers(oneRoute, func(rw http.ResponseWriter, r *http.Request) {
		_, _ = io.Copy(io.Discard, r.Body)
		rw.Header().Set("Content-Type", media)
		_, _ = io.WriteString(rw, "begin")
		_ = http.NewResponseController(rw).Flush()
		<-r.Context().Done()
		close(gone)
	})
	resp, err := w.client(newer).Post("https://inference.local/v1/chat/completions", "application/json", strings.NewReader("{}"))
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	if _, err := io.ReadFull(resp.Body, make([]byte, len("begin"))); err != nil {
		t.Fatal(err)
	}
	w.publish(endpoint("inference.local", 443, ", protocol: rest, enforcement: enforce, rules: [{allow: {method: POST, path: /v1/embeddings}}]"))
	text, err := io.ReadAll(resp.Body)
	if told := strings.Contains(string(text), "the call was ended before its answer"); err == nil && !told || told && media == "text/plain" { // of a stream that is reset, the event may not arrive
		t.Errorf("it ends as if it were whole: %q, %v", text, err)
	}
	<-gone // its provider was told
	w.until("a record", func() bool { return strings.Contains(fmt.Sprint(w.records.list()), `"reason":"policy_changed"`) })
}

// TestAPolicyEndsAModelCallThatHasNotBegun: with an answer that says so.
func TestAPolicyEndsAModelCallThatHasNotBegun(t *testing.T) {
	bothVersions(t, func(t *testing.T, newer bool) {
		w := newWorld(t, generous, endpoint("a.example.com", 443, ""))
		w.providers(oneRoute, func(_ http.ResponseWriter, r *http.Request) {
			_, _ = io.Copy(io.Discard, r.Body)
			w.publish(endpoint("inference.local", 443, ", protocol: rest, enforcement: enforce, rules: [{allow: {method: POST, path: /v1/embeddings}}]"))
			<-r.Context().Done()
		})
		resp, err := w.client(newer).Post("https://inference.local/v1/chat/completions", "application/json", strings.NewReader("{}"))
		if err != nil {
			t.Fatal(err)
		}
		defer resp.Body.Close()
		if text, _ := io.ReadAll(resp.Body); resp.StatusCode != 403 || !strings.Contains(string(text), "policy_changed") {
			t.Errorf("%d %s", resp.StatusCode, text)
		}
	})
}

// TestAClientThatLeavesEndsItsModelCall: nobody pays for the rest.
func TestAClientThatLeavesEndsItsModelCall(t *testing.T) {
	bothVersions(t, func(t *testing.T, newer bool) {
		w := newWorld(t, generous, endpoint("a.example.com", 443, ""))
		begun, gone := make(chan bool), make(chan bool)
		w.providers(oneRoute, func(rw http.ResponseWriter, r *http.Request) {
			_, _ = io.Copy(io.Discard, r.Body)
			close(begun)
			<-r.Context().Done()
			close(gone)
		})
		ctx, leave := context.WithCancel(t.Context())
		go func() {
			<-begun
			leave()
		}()
		req, _ := http.NewRequestWithContext(ctx, http.MethodPost, "https://inference.local/v1/chat/completions", strings.NewReader("{}"))
		if resp, err := w.client(newer).Do(req); err == nil {
			t.Errorf("it was answered: %d", resp.StatusCode)
			resp.Body.Close()
		}
		select {
		case <-gone:
		case <-time.After(generous):
			t.Fatal("the provider goes on")
		}
	})
}

// TestTheRecordOfACallSaysWhoEndedIt: not its provider, if that was the client, the policy or
// the end of the daemon. Its client does not take it for whole.
func TestTheRecordOfACallSaysWhoEndedIt(t *testing.T) {
	for name, tc := range map[string]struct {
		end    func(w *world, leave func())
		reason string
	}{
		"the client": {func(_ *world, leave func()) { leave() }, "client_closed"},
		"the policy": {func(w *world, _ func()) {
			w.publish(endpoint("inference.local", 443, ", protocol: rest, enforcement: enforce, rules: [{allow: {method: GET, path: /}}]"))
		}, "policy_changed"},
		"the daemon":   {func(w *world, _ func()) { w.stop() }, "shutdown"},
		"the provider": {nil, "upstream_invalid_response"},
	} {
		t.Run(name, func(t *testing.T) {
			bothVersions(t, func(t *testing.T, newer bool) {
				w := newWorld(t, generous, endpoint("a.example.com", 443, ""))
				w.providers(oneRoute, func(rw http.ResponseWriter, r *http.Request) {
					_, _ = io.Copy(io.Discard, r.Body)
					rw.Header().Set("Content-Type", "text/event-stream")
					_, _ = io.WriteString(rw, "data: 1\n\n")
					_ = http.NewResponseController(rw).Flush()
					if tc.end == nil {
						panic(http.ErrAbortHandler)
					}
					<-r.Context().Done()
				})
				ctx, leave := context.WithCancel(t.Context())
				defer leave()
				req, _ := http.NewRequestWithContext(ctx, http.MethodPost, "https://inference.local/v1/chat/completions", strings.NewReader("{}"))
				resp, err := w.client(newer).Do(req)
				if err != nil {
					t.Fatal(err)
				}
				defer resp.Body.Close()
				if _, err := io.ReadFull(resp.Body, make([]byte, 8)); err != nil {
					t.Fatal(err)
				}
				if tc.end != nil {
					tc.end(w, leave)
				}
				if text, err := io.ReadAll(resp.Body); err == nil && !strings.Contains(string(text), "proxy_stream_error") {
					t.Errorf("it ends with %q", text)
				}
				call := ""
				w.until("the record of the call", func() bool {
					for _, r := range w.records.list() {
						if text := fmt.Sprint(r); strings.Contains(text, `"ai_model"`) {
							call = text
						}
					}
					return call != ""
				})
				if !strings.Contains(call, `"reason":"`+tc.reason+`"`) {
					t.Error(call)
				}
			})
		})
	}
}

// TestABodyOfACallComesInTime: while it comes, it is held. Its provider has more time.
func TestABodyOfACallComesInTime(t *testing.T) {
	bothVersions(t, func(t *testing.T, newer bool) {
		w := newWorld(t, generous, endpoint("a.example.com", 443, ""))
		w.HeadTimeout = 500 * time.Millisecond
		w.providers(oneRoute, func(http.ResponseWriter, *http.Request) { time.Sleep(3 * w.HeadTimeout) })
		thought, err := w.client(newer).Post("https://inference.local/v1/chat/completions", "application/json", strings.NewReader("{}"))
		if err != nil {
			t.Fatal(err)
		}
		thought.Body.Close()
		if thought.StatusCode != 200 {
			t.Errorf("a provider that thinks: %s", thought.Status)
		}
		r, body := io.Pipe()
		defer body.Close()
		go func() { _, _ = io.WriteString(body, "{") }()
		req, _ := http.NewRequest(http.MethodPost, "https://inference.local/v1/chat/completions", r)
		req.ContentLength = 2
		resp, err := w.client(newer).Do(req)
		if err != nil {
			t.Fatal(err)
		}
		defer resp.Body.Close()
		if resp.StatusCode != 408 {
			t.Errorf("%s", resp.Status)
		}
		w.until("nothing is held", func() bool { return w.Bodies.Held() == 0 })
	})
}

// TestABodyIsHeldUntilItsProviderHasIt: not while the answer goes on, of which there may be
// many.
func TestABodyIsHeldUntilItsProviderHasIt(t *testing.T) {
	bothVersions(t, func(t *testing.T, newer bool) {
		w := newWorld(t, generous, endpoint("a.example.com", 443, ""))
		held := make(chan int64, 1)
		w.providers(oneRoute, func(rw http.ResponseWriter, r *http.Request) {
			_, _ = io.Copy(io.Discard, r.Body)
			held <- w.Bodies.Held()
			_, _ = io.WriteString(rw, "begin")
			_ = http.NewResponseController(rw).Flush()
			<-r.Context().Done()
		})
		body := `{"a":"` + strings.Repeat("x", 1<<19) + `"}`
		resp, err := w.client(newer).Post("https://inference.local/v1/chat/completions", "application/json", strings.NewReader(body))
		if err != nil {
			t.Fatal(err)
		}
		if resp.StatusCode != 200 {
			t.Fatal(resp.Status)
		}
		if n := <-held; n < int64(len(body)) || n > int64(len(body))+1 {
			t.Errorf("before the answer %d bytes are held, of %d", n, len(body))
		}
		if n := w.Bodies.Held(); n != 0 {
			t.Errorf("while it comes %d bytes are held", n)
		}
		resp.Body.Close()
		w.until("its length in the record", func() bool {
			return strings.Contains(fmt.Sprint(w.records.list()), fmt.Sprintf(`"bytes_out":%d`, len(body)))
		})
	})
}

// TestAKeyIsTakenOutOfLongAnswers, and of those that are packed though nobody asked for it.
func TestAKeyIsTakenOutOfLongAnswers(t *testing.T) {
	bothVersions(t, func(t *testing.T, newer bool) {
		w := newWorld(t, generous, endpoint("a.example.com", 443, ""))
		w.providers(oneRoute, func(rw http.ResponseWriter, r *http.Request) {
			text := "data: " + strings.Repeat("x", 1<<20) + "\n\ndata: " + r.Header.Get("Authorization") + "\n\n"
			switch r.URL.RawQuery {
			case "packed":
				rw.Header().Set("Content-Encoding", "gzip")
				z := gzip.NewWriter(rw)
				_, _ = io.WriteString(z, text)
				_ = z.Close()
			case "stated":
				rw.Header().Set("Content-Length", strconv.Itoa(len(text)))
				rw.Header().Set("Content-Type", "application/json")
				_, _ = io.WriteString(rw, text)
			default:
				rw.Header().Set("Content-Type", "text/event-stream")
				_, _ = io.WriteString(rw, text)
			}
		})
		for _, how := range []string{"streamed", "stated", "packed"} {
			resp, err := w.client(newer).Post("https://inference.local/v1/chat/completions?"+how, "application/json", strings.NewReader("{}"))
			if err != nil {
				t.Fatal(err)
			}
			text, err := io.ReadAll(resp.Body)
			resp.Body.Close()
			if err != nil || !strings.HasSuffix(string(text), "Bearer REDACTED\n\n") {
				t.Errorf("%s: %d bytes, %v, %q", how, len(text), err, text[max(0, len(text)-60):])
			}
		}
	})
}

// TestModelsAreNotAskedForInTheClear: a request in absolute form is no way around, and
// never leads to what DNS says of the name.
func TestModelsAreNotAskedForInTheClear(t *testing.T) {
	w := newWorld(t, generous, endpoint("a.example.com", 443, ""))
	w.providers(oneRoute, func(rw http.ResponseWriter, r *http.Request) {})
	for target, reason := range map[string]string{"http://inference.local:443/v1/models": "unsupported_l7_protocol", "http://inference.local/v1/models": "policy_denied"} {
		resp, err := w.client(false).Get(target)
		if err != nil {
			t.Fatal(err)
		}
		text, _ := io.ReadAll(resp.Body)
		resp.Body.Close()
		if resp.StatusCode != 403 || !strings.Contains(string(text), reason) {
			t.Errorf("%s: %d %s", target, resp.StatusCode, text)
		}
	}
	if w.dials.Load() != 0 {
		t.Error("inference.local was dialled")
	}
	permit, denial := w.Policy.Current().Connection(t.Context(), decide.Question{Host: decide.InferenceHost, Port: decide.InferencePort})
	if denial != nil || !permit.Inference() {
		t.Fatalf("%+v, %+v", permit, denial)
	}
}

// TestAConnectionForModelsServesNothingElse: one call after the other, each judged alone,
// and a request for another host ends it.
func TestAConnectionForModelsServesNothingElse(t *testing.T) {
	w := newWorld(t, generous, endpoint("a.example.com", 443, ""))
	w.providers(oneRoute, func(rw http.ResponseWriter, r *http.Request) { _, _ = io.Copy(rw, r.Body) })
	c := w.secure("inference.local", "http/1.1")
	r := bufio.NewReader(c)
	for range 2 {
		fmt.Fprint(c, "POST /v1/chat/completions HTTP/1.1\r\nHost: inference.local\r\nExpect: 100-continue\r\nTransfer-Encoding: chunked\r\n\r\n")
		if line, err := r.ReadString('\n'); err != nil || line != "HTTP/1.1 100 Continue\r\n" {
			t.Fatalf("%q, %v", line, err)
		}
		_, _ = r.Discard(2)
		fmt.Fprint(c, "2\r\n{}\r\n0\r\n\r\n")
		if resp, body := answer(t, r, http.MethodPost); resp.StatusCode != 200 || body != `{"model":"big-model"}` {
			t.Fatalf("%d %s", resp.StatusCode, body)
		}
	}
	raw := w.tunnel("inference.local", 443)
	fmt.Fprint(raw, "\x00\x01\x02\x03\x04")
	if resp, body := answer(t, bufio.NewReader(raw), http.MethodGet); resp.StatusCode != 403 || !strings.Contains(body, "neither TLS nor HTTP/1.1") {
		t.Errorf("another protocol: %d %s", resp.StatusCode, body)
	}
	fmt.Fprint(c, "GET /v1/models HTTP/1.1\r\nHost: inference.local\r\nContent-Length: 40\r\n\r\nGET /v1/models HTTP/1.1\r\nHost: x\r\n\r\n....")
	if resp, body := answer(t, r, http.MethodGet); resp.StatusCode != 200 || !resp.Close {
		t.Errorf("a body where none belongs: %d %s", resp.StatusCode, body)
	}
	c = w.secure("inference.local", "http/1.1")
	r = bufio.NewReader(c)
	fmt.Fprint(c, "GET http://evil.test/ HTTP/1.1\r\nHost: evil.test\r\n\r\n")
	if resp, body := answer(t, r, http.MethodGet); resp.StatusCode != 403 || !resp.Close {
		t.Errorf("%d %s", resp.StatusCode, body)
	}
	if _, err := r.ReadByte(); err == nil {
		t.Error("the connection goes on")
	}
}
