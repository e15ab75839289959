package e2e_test

import (
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"net/http"
	"net/http/httptest"
	"os"
	"strings"
	"sync"
	"syscall"
	"testing"

	"github.com/splitpod/splitpod/test/need"
)

// provider answers model calls as OpenAI and Anthropic do, as far as clients look, to whoever
// has the key.
type provider struct {
	*httptest.Server
	mu   sync.Mutex
	seen []string // model and path of each call; guarded by mu
}

const routeKey = "REALroute7f3a9c51d2"

func startProvider(t *testing.T) *provider {
	p := &provider{}
	p.Server = httptest.NewServer(p)
	t.Cleanup(p.Close)
	return p
}

// calls are those that came, since it was asked last.
func (p *provider) calls() string {
	p.mu.Lock()
	defer p.mu.Unlock()
	out := strings.Join(p.seen, ", ")
	p.seen = nil
	return out
}

func (p *provider) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	var ask struct {
		Model  string
		Stream bool
		Tools  []any
	}
	body, _ := io.ReadAll(r.Body)
	_ = json.Unmarshal(body, &ask)
	p.mu.Lock()
	p.seen = append(p.seen, strings.TrimSpace(ask.Model+" "+r.URL.Path))
	p.mu.Unlock()
	if r.Header.Get("Authorization") != "Bearer "+routeKey && r.Header.Get("X-Api-Key") != routeKey {
		http.Error(w, `{"error":{"message":"wrong key: `+r.Header.Get("Authorization")+`"}}`, http.StatusUnauthorized)
		return
	}
	events := func(events ...string) {
		w.Header().Set("Content-Type", "text/event-stream")
		for _, e := range events {
			_, _ = io.WriteString(w, e+"\n\n")
			_ = http.NewResponseController(w).Flush()
		}
	}
	chunk := func(delta string) string {
		return `data: {"id":"1","object":"chat.completion.chunk","created":1,"model":"m","choices":[{"index":0,"delta":` + delta + `}]}`
	}
	delta := func(text string) string { return chunk(`{"content":"` + text + `"}`) }
	chat := `{"id":"1","object":"chat.completion","created":1,"model":"m","choices":[{"index":0,"finish_reason":"stop","message":{"role":"assistant",%s}}],"usage":{"prompt_tokens":11,"completion_tokens":2,"total_tokens":13}}`
	block, part := `{"type":"text","text":""}`, `{"type":"text_delta","text":"hello"}`
	if ask.Tools != nil {
		block, part = `{"type":"tool_use","id":"c","name":"weather","input":{}}`, `{"type":"input_json_delta","partial_json":"{\"city\": \"Ulm\"}"}`
	}
	message := `{"id":"1","type":"message","role":"assistant","model":"m","content":[%s],"stop_reason":"end_turn","stop_sequence":null,"usage":{"input_tokens":11,"output_tokens":%d}}`
	w.Header().Set("Content-Type", "application/json")
	switch {
	case ask.Model == "broken":
		events(delta("hel"))
		panic(http.ErrAbortHandler)
	case r.URL.Path == "/v1/chat/completions" && ask.Stream && ask.Tools != nil:
		events(chunk(`{"tool_calls":[{"index":0,"id":"c","type":"function","function":{"name":"weather","arguments":""}}]}`),
			chunk(`{"tool_calls":[{"index":0,"function":{"arguments":"{\"city\":"}}]}`), chunk(`{"tool_calls":[{"index":0,"function":{"arguments":"\"Ulm\"}"}}]}`), "data: [DONE]")
	case r.URL.Path == "/v1/chat/completions" && ask.Stream:
		events(delta("hel"), delta("lo"), `data: {"id":"1","object":"chat.completion.chunk","created":1,"model":"m","choices":[],"usage":{"prompt_tokens":11,"completion_tokens":2,"total_tokens":13}}`, "data: [DONE]")
	case r.URL.Path == "/v1/chat/completions" && ask.Tools != nil:
		fmt.Fprintf(w, chat, `"tool_calls":[{"id":"c","type":"function","function":{"name":"weather","arguments":"{\"city\":\"Ulm\"}"}}]`)
	case r.URL.Path == "/v1/chat/completions":
		fmt.Fprintf(w, chat, `"content":"hello"`)
	case r.URL.Path == "/v1/embeddings":
		fmt.Fprint(w, `{"object":"list","model":"m","data":[{"object":"embedding","index":0,"embedding":[0.5,0.25]}],"usage":{"prompt_tokens":1,"total_tokens":1}}`)
	case r.URL.Path == "/v1/models":
		fmt.Fprint(w, `{"object":"list","data":[{"id":"m","object":"model","created":1,"owned_by":"x"}]}`)
	case r.URL.Path == "/v1/messages" && ask.Stream:
		events("event: message_start\ndata: "+`{"type":"message_start","message":`+fmt.Sprintf(message, "", 1)+`}`,
			"event: content_block_start\ndata: "+`{"type":"content_block_start","index":0,"content_block":`+block+`}`,
			"event: content_block_delta\ndata: "+`{"type":"content_block_delta","index":0,"delta":`+part+`}`,
			"event: content_block_stop\ndata: "+`{"type":"content_block_stop","index":0}`,
			"event: message_delta\ndata: "+`{"type":"message_delta","delta":{"stop_reason":"end_turn","stop_sequence":null},"usage":{"output_tokens":2}}`,
			"event: message_stop\ndata: "+`{"type":"message_stop"}`)
	case r.URL.Path == "/v1/messages":
		fmt.Fprintf(w, message, `{"type":"text","text":"hello"}`, 2)
	default:
		http.NotFound(w, r)
	}
}

// routes writes the routes file in one step, and the key beside it.
func (p *pair) routes(text string) string {
	p.t.Helper()
	key, file := p.dir+"/config/route.key", p.dir+"/config/routes.yaml"
	for path, content := range map[string]string{key: routeKey + "\n", file: strings.ReplaceAll(text, "KEY", key)} {
		must(p.t, os.WriteFile(path+".new", []byte(content), 0o400))
		must(p.t, os.Chown(path+".new", networkUID, networkUID))
		must(p.t, os.Rename(path+".new", path))
	}
	return file
}

func routesOf(p *provider) string {
	return `routes:
  - {name: chat, endpoint: "` + p.URL + `/v1", model: big, api_key_file: KEY}
  - {name: broken, endpoint: "` + p.URL + `", model: broken, api_key_file: KEY}
  - {name: claude, endpoint: "` + p.URL + `", model: claude-x, provider_type: anthropic, api_key_file: KEY, protocols: [anthropic_messages]}
`
}

// TestLibrariesAskForModels: those of OpenAI and Anthropic, with the key that they have to
// have, and that is none.
func TestLibrariesAskForModels(t *testing.T) {
	models := startProvider(t)
	w := &clientWorld{pair: newPair(t, policyText)}
	w.pair.startNetwork("--listen", standaloneAddress, "--identity", "ignore", "--ca-out", w.caFile(), "--inference-routes", w.routes(routesOf(models)))
	w.listening()
	w.env = []string{"PATH=/usr/bin:/bin", "HOME=" + t.TempDir(), "HTTPS_PROXY=http://" + standaloneAddress, "SSL_CERT_FILE=" + w.caFile()}
	w.libraries(t)
	const chats = "big /v1/chat/completions, big /v1/chat/completions, big /v1/chat/completions, big /v1/chat/completions, broken /v1/chat/completions, big /v1/embeddings, /v1/models"
	for _, tc := range []struct {
		client []string
		bodies map[string]string
		calls  string
	}{
		{[]string{w.python(), "testdata/models.py"}, map[string]string{"messages": "hello", "messages, streamed": "hello", "messages, a tool streamed": `weather{"city": "Ulm"}`},
			chats + ", claude-x /v1/messages, claude-x /v1/messages, claude-x /v1/messages"},
		{[]string{need.Program(t, "node"), "testdata/models.mjs"}, nil, chats},
	} {
		code, out, errs := w.run(t, tc.client...)
		if code != 0 {
			t.Fatalf("%d\n%s%s", code, out, errs)
		}
		got := results(t, out)
		want := map[string]string{"chat": "hello", "chat, streamed": "hello", "embeddings": "[0.5,0.25]", "models": "m", "a tool": `weather{"city":"Ulm"}`, "a tool, streamed": `weather{"city":"Ulm"}`}
		maps.Copy(want, tc.bodies)
		for name, want := range want {
			if got[name].Body != want {
				t.Errorf("%s, %s: %+v", tc.client[1], name, got[name])
			}
		}
		if r := got["chat, broken off"]; !strings.Contains(r.Failed, "the provider's answer broke off") {
			t.Errorf("%s, one that breaks off: %+v", tc.client[1], r)
		}
		if r := got["files"]; r.Status != 403 || !strings.Contains(r.Failed, "connection not allowed by policy") || !strings.Contains(r.Failed, "GET /v1/files is no model call") {
			t.Errorf("%s, no model call: %+v", tc.client[1], r)
		}
		if got := models.calls(); got != tc.calls {
			t.Errorf("of %s the provider saw %s; want %s", tc.client[1], got, tc.calls)
		}
		if strings.Contains(out+errs, routeKey) {
			t.Errorf("%s: the key is in an answer", tc.client[1])
		}
	}
	if strings.Contains(w.network.out.String()+w.network.err.String(), routeKey) {
		t.Error("the key is in a record or a log")
	}
}

// TestModelsInASandbox: a workload without any key asks; which of its programs may, the
// policy says; a new key, and a new network daemon, it does not notice.
func TestModelsInASandbox(t *testing.T) {
	need.Program(t, "curl")
	models := startProvider(t)
	p := newPair(t, policyText)
	file := p.routes(routesOf(models))
	p.startNetwork("--inference-routes", file)
	p.startProcess("sh", "-c", "echo ready; sleep 1000")
	eventually(t, "the workload", func() bool { return strings.Contains(p.process.out.String(), "ready") })
	ask := func(path string) string {
		_, out, errs := command(t, "supervisor-process", "exec", "--run-dir", p.dir+"/run", "--", "curl", "-sS", "-m", "120", "-w", " %{http_code}", "-H", "Content-Type: application/json", "-d", `{"model":"x"}`, "https://inference.local"+path)
		return out + errs
	}
	if out := ask("/v1/chat/completions"); !strings.Contains(out, `"content":"hello"`) || !strings.HasSuffix(out, " 200") {
		t.Errorf("it asks: %s", out)
	}
	must(t, os.WriteFile(p.dir+"/config/route.key.new", []byte("another-key-0123456789"), 0o444))
	must(t, os.Rename(p.dir+"/config/route.key.new", p.dir+"/config/route.key"))
	eventually(t, "the next key", func() bool { return strings.HasSuffix(ask("/v1/chat/completions"), " 401") })
	if out := ask("/v1/chat/completions"); !strings.Contains(out, "wrong key: Bearer REDACTED") {
		t.Errorf("a key that the provider repeats: %s", out)
	}
	p.routes(routesOf(models))
	eventually(t, "the first key", func() bool { return strings.HasSuffix(ask("/v1/chat/completions"), " 200") })

	p.network.kill(syscall.SIGTERM)
	p.network.wait(t)
	p.startNetwork("--inference-routes", file)
	if out := ask("/v1/chat/completions"); !strings.HasSuffix(out, " 200") {
		t.Errorf("after a restart: %s", out)
	}

	p.policy(strings.Replace(policyText, "network_policies:\n", "network_policies:\n  models:\n    endpoints: [{host: inference.local, port: 443, protocol: rest, enforcement: enforce, rules: [{allow: {method: POST, path: /v1/embeddings}}]}]\n    binaries: [{path: /usr/bin/curl}]\n", 1))
	eventually(t, "what the policy allows curl", func() bool { return strings.HasSuffix(ask("/v1/chat/completions"), " 403") })
	if out := ask("/v1/embeddings"); !strings.HasSuffix(out, " 200") {
		t.Errorf("what it allows: %s", out)
	}
	p.policy(strings.Replace(policyText, "network_policies:\n", "network_policies:\n  models:\n    endpoints: [{host: inference.local, port: 443}]\n    binaries: [{path: /usr/bin/python3}]\n", 1))
	eventually(t, "another program's", func() bool { return strings.Contains(ask("/v1/embeddings"), "CONNECT tunnel failed, response 403") })
	p.policy(policyText)
	eventually(t, "everybody's", func() bool { return strings.HasSuffix(ask("/v1/embeddings"), " 200") })

	must(t, os.WriteFile(file+".new", []byte("routes: [{name: x}]"), 0o444))
	must(t, os.Rename(file+".new", file))
	eventually(t, "a record of the file that is not valid", func() bool { return strings.Contains(p.network.out.String(), "inference_invalid") })
	if out := ask("/v1/embeddings"); !strings.HasSuffix(out, " 200") {
		t.Errorf("the routes before: %s", out)
	}
	if strings.Contains(p.network.out.String()+p.network.err.String()+p.process.out.String()+p.processRecords(), routeKey) {
		t.Error("the key is in an answer, a record or a log")
	}
}

// TestInferenceRoutesThatAreNotValidStartNothing: and say where.
func TestInferenceRoutesThatAreNotValidStartNothing(t *testing.T) {
	p := newPair(t, policyText)
	d := start(t, p.networkArgs([]string{"--listen", standaloneAddress, "--identity", "ignore", "--inference-routes", p.routes("routes: [{name: x, api_key: sk-inline}]")})...)
	if code := d.wait(t); code != 78 || !strings.Contains(d.err.String(), "routes.yaml:1:") || strings.Contains(d.err.String(), "sk-inline") {
		t.Errorf("%d: %s", code, d.err)
	}
}
