package decide

import (
	"strings"
	"testing"

	"github.com/splitpod/splitpod/pkg/core/policy"
)

func TestAnExplanationNamesTheRulesThatSpeak(t *testing.T) {
	s := compile(t, `version: 1
network_policies:
  api:
    endpoints:
      - {host: api.example.com, port: 443, protocol: rest, enforcement: enforce,
         rules: [{allow: {method: GET, path: "/a/**"}}, {allow: {method: "*", path: "/b"}}], deny_rules: [{method: GET, path: "/a/secret"}]}
    binaries: [{path: /b}]
  more:
    endpoints: [{host: api.example.com, port: 443, protocol: rest, enforcement: enforce, access: read-only}]
    binaries: [{path: /b}]
`, Options{})
	p, d := s.Connection(t.Context(), Question{Who: known("/b"), Host: "api.example.com", Port: 443})
	if d != nil {
		t.Fatal(d)
	}
	for _, tt := range []struct {
		method, path string
		allowed      bool
		spoken       []string
	}{
		{"GET", "/a/x", true, []string{"GET /a/**", "access: read-only"}},
		{"GET", "/a/secret", false, []string{"GET /a/**", "deny GET /a/secret", "access: read-only"}},
		{"POST", "/b", true, []string{"* /b"}},
		{"POST", "/c", false, nil},
	} {
		x, err := s.SpeakAbout(t.Context(), p, &Request{Method: tt.method, Path: tt.path})
		if err != nil {
			t.Fatal(err)
		}
		var spoken []string
		for _, m := range x.Spoken {
			text := strings.TrimSpace(m.Matcher.Method + " " + m.Matcher.Path)
			if m.Denies {
				text = "deny " + text
			}
			spoken = append(spoken, text)
		}
		if x.Ruling.Allowed != tt.allowed || strings.Join(spoken, ";") != strings.Join(tt.spoken, ";") || !strings.Contains(x.Endpoint, "network_policies.api") {
			t.Errorf("%s %s: allowed %v by %q, spoken %q", tt.method, tt.path, x.Ruling.Allowed, x.Endpoint, spoken)
		}
	}
}

func TestAnExplanationOfCallsAndOperations(t *testing.T) {
	for _, tt := range []struct {
		endpoint string
		request  Request
		allowed  bool
		spoken   int
	}{
		{`protocol: mcp, enforcement: enforce, rules: [{allow: {method: tools/call, tool: "read_*"}}]`,
			Request{Method: "POST", Path: "/", Calls: []Call{{Method: "tools/call", Tool: "read_file", Params: map[string]string{"name": "read_file"}}}}, true, 1},
		{`protocol: mcp, enforcement: enforce, mcp: {allow_all_known_mcp_methods: true}`,
			Request{Method: "POST", Path: "/", Calls: []Call{{Method: "tools/list"}}}, true, 1},
		{`protocol: graphql, enforcement: enforce, rules: [{allow: {operation_type: query, fields: [viewer]}}]`,
			Request{Method: "POST", Path: "/", Operations: []Operation{{Type: "mutation", Fields: []string{"viewer"}}}}, false, 0},
	} {
		s := compile(t, "version: 1\nnetwork_policies: {r: {endpoints: [{host: a.example.com, port: 443, "+tt.endpoint+"}], binaries: [{path: /b}]}}", Options{})
		p, _ := s.Connection(t.Context(), Question{Who: known("/b"), Host: "a.example.com", Port: 443})
		x, err := s.SpeakAbout(t.Context(), p, &tt.request)
		if err != nil || x.Ruling.Allowed != tt.allowed || len(x.Spoken) != tt.spoken {
			t.Errorf("%s: %+v, %v", tt.endpoint, x, err)
		}
	}
}

// TestAnExplanationIsTheModules: one that differs from what decides is none.
func TestAnExplanationIsTheModules(t *testing.T) {
	rules := func(method string) *Snapshot {
		return compile(t, "version: 1\nnetwork_policies: {r: {endpoints: [{host: a.example.com, port: 443, protocol: rest, enforcement: enforce, rules: [{allow: {method: "+method+", path: /x}}]}], binaries: [{path: /b}]}}", Options{})
	}
	s, other := rules("GET"), rules("POST")
	p, _ := s.Connection(t.Context(), Question{Who: known("/b"), Host: "a.example.com", Port: 443})
	if x, err := s.SpeakAbout(t.Context(), p, &Request{Method: "GET", Path: "/x"}); err != nil || !x.Ruling.Allowed {
		t.Errorf("%+v, %v", x, err)
	}
	s.requests = other.requests
	if x, err := s.SpeakAbout(t.Context(), p, &Request{Method: "GET", Path: "/x"}); err == nil || !strings.Contains(err.Error(), "BUG") {
		t.Errorf("the module of another policy explains it: %+v, %v", x, err)
	}
}

func TestAnApprovedProposalHasNoLine(t *testing.T) {
	doc := &policy.Document{Network: map[string]policy.Rule{"r": {Binaries: []policy.Binary{{Path: "/b"}},
		Endpoints: []policy.Endpoint{{Host: "a.example.com", Ports: []uint16{443}, AdvisorProposed: true}}}}}
	s, err := Compile(t.Context(), doc, Options{Generation: 1})
	if err != nil {
		t.Fatal(err)
	}
	x, err := s.Explain(t.Context(), Question{Who: known("/b"), Host: "a.example.com", Port: 443})
	if text := x.String(); err != nil || !strings.Contains(text, "an approved proposal") || strings.Contains(text, "internal") {
		t.Errorf("%s, %v", text, err)
	}
}
