package inference

import (
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

func TestRoutesAreReadAsTheyAreWritten(t *testing.T) {
	routes, warnings, err := Parse("f", []byte(`
routes:
  - {name: chat, endpoint: "https://LLM.example.com/v1/", model: big}
  - {name: near, endpoint: "http://vllm.models.svc:8000", model: small, protocols: [openai_embeddings], timeout: 5m}
  - {name: sandbox-system, endpoint: "https://llm.example.com", model: big}
  - {name: claude, endpoint: "https://api.anthropic.com", model: c, provider_type: anthropic, api_key_file: /etc/key}
`))
	if err != nil {
		t.Fatal(err)
	}
	if len(warnings) != 1 || warnings[0].At.Line != 5 {
		t.Errorf("warnings: %v", warnings)
	}
	type row struct {
		Name, URL, Model, Provider, KeyFile string
		Port                                uint16
		Protocols                           []Protocol
		Timeout                             time.Duration
	}
	var got []row
	for _, r := range routes {
		got = append(got, row{r.Name, r.endpoint.String(), r.Model, r.Provider, r.KeyFile, r.port(), r.Protocols, r.Timeout})
	}
	want := []row{
		{"chat", "https://llm.example.com/v1", "big", "openai", "", 443, openAI, 0},
		{"near", "http://vllm.models.svc:8000", "small", "openai", "", 8000, []Protocol{Embeddings}, 5 * time.Minute},
		{"claude", "https://api.anthropic.com", "c", "anthropic", "/etc/key", 443, []Protocol{Messages, Discovery}, 0},
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
}

// TestEveryProblemOfARouteIsNamedAtItsPlace: and nothing of the file is used.
func TestEveryProblemOfARouteIsNamedAtItsPlace(t *testing.T) {
	const good = `name: a, endpoint: "https://h/v1", model: m`
	for text, want := range map[string]string{
		`{}`:                                  "routes are missing",
		`{version: 2, routes: []}`:            "version 2",
		`{routes: [{` + good + `, kind: x}]}`: "kind",
		`{routes: [{endpoint: "https://h", model: m}]}`:                                              "routes[0].name",
		`{routes: [{name: "a b", endpoint: "https://h", model: m}]}`:                                 "routes[0].name",
		`{routes: [{` + good + `}, {` + good + `}]}`:                                                 "routes[1].name",
		`{routes: [{name: a, endpoint: "https://h"}]}`:                                               "routes[0].model",
		`{routes: [{name: a, model: m}]}`:                                                            "the endpoint is missing",
		`{routes: [{name: a, model: m, endpoint: "h:443"}]}`:                                         "base URL",
		`{routes: [{name: a, model: m, endpoint: "ftp://h"}]}`:                                       "base URL",
		`{routes: [{name: a, model: m, endpoint: "https://u:p@h"}]}`:                                 "no user",
		`{routes: [{name: a, model: m, endpoint: "https://h?a=b"}]}`:                                 "no query",
		`{routes: [{name: a, model: m, endpoint: "https://h/#a"}]}`:                                  "no fragment",
		`{routes: [{name: a, model: m, endpoint: "http://h.example.com"}]}`:                          "plain http",
		`{routes: [{name: a, model: m, endpoint: "https://h/a/../b"}]}`:                              "dot segments",
		`{routes: [{name: a, model: m, endpoint: "https://h//b"}]}`:                                  "empty or dot segments",
		`{routes: [{name: a, model: m, endpoint: "https://Inference.Local"}]}`:                       "where the workload asks",
		`{routes: [{name: a, model: m, endpoint: "https://h:0"}]}`:                                   "port",
		`{routes: [{` + good + `, provider_type: vertex}]}`:                                          "provider_type",
		`{routes: [{` + good + `, provider_type: anthropic, protocols: [openai_chat_completions]}]}`: "protocols[0]",
		`{routes: [{` + good + `, protocols: []}]}`:                                                  "leave protocols out",
		`{routes: [{` + good + `, protocols: [openai_responses, openai_responses]}]}`:                "stands twice",
		`{routes: [{` + good + `, api_key: sk-secret-value}]}`:                                       "api_key_file",
		`{routes: [{` + good + `, api_key_env: KEY}]}`:                                               "api_key_file",
		`{routes: [{` + good + `, api_key_file: key}]}`:                                              "absolute path",
		`{routes: [{` + good + `, timeout: 1ms}]}`:                                                   "timeout",
		`{routes: [{` + good + `, timeout: 2h}]}`:                                                    "timeout",
		`{routes: [` + strings.Repeat(`{},`, MaxRoutes+1) + `]}`:                                     "are allowed",
	} {
		routes, _, err := Parse("f", []byte(text))
		if err == nil || routes != nil || !strings.Contains(err.Error(), want) || !strings.HasPrefix(err.Error(), "f:1:") {
			t.Errorf("%.80s: %v, want %q", text, err, want)
		}
		if err != nil && strings.Contains(err.Error(), "sk-secret-value") {
			t.Errorf("%s: the error repeats the key", text)
		}
	}
}

func TestEveryOperationIsOfOneProtocol(t *testing.T) {
	for call, want := range map[string]Protocol{
		"POST /v1/chat/completions":  ChatCompletions,
		"POST /v1/completions":       Completions,
		"POST /v1/responses":         Responses,
		"POST /v1/embeddings":        Embeddings,
		"POST /v1/messages":          Messages,
		"GET /v1/models":             Discovery,
		"GET /v1/models/a/b":         Discovery,
		"GET /v1/modelsx":            "",
		"GET /v1/chat/completions":   "",
		"POST /v1/models":            "",
		"POST /v1/messages/batches":  "",
		"POST /v1/chat/completions/": "",
		"POST /chat/completions":     "",
		"DELETE /v1/models/a":        "",
		"HEAD /v1/models":            "",
	} {
		method, path, _ := strings.Cut(call, " ")
		if op, ok := operationOf(method, path); op.protocol != want || ok != (want != "") {
			t.Errorf("%s: %q, %t", call, op.protocol, ok)
		}
	}
	for name, p := range providers {
		for _, protocol := range p.protocols {
			if !slices.Contains([]Protocol{ChatCompletions, Completions, Responses, Embeddings, Messages, Discovery}, protocol) {
				t.Errorf("%s has %s", name, protocol)
			}
		}
	}
}

func TestOneVersionIsInAPath(t *testing.T) {
	for _, tc := range [][3]string{
		{"", "/v1/models", "/v1/models"},
		{"/v1", "/v1/models", "/v1/models"},
		{"/api/v1", "/v1/models", "/api/v1/models"},
		{"/v1/projects/p", "/v1/models", "/v1/projects/p/models"},
		{"/v1beta/openai", "/v1/models", "/v1beta/openai/v1/models"},
		{"/proxy", "/v1/models", "/proxy/v1/models"},
	} {
		if got := joined(tc[0], tc[1]); got != tc[2] {
			t.Errorf("%s and %s: %s, want %s", tc[0], tc[1], got, tc[2])
		}
	}
}
