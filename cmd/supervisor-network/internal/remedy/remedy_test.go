package remedy

import (
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/splitpod/splitpod/pkg/core"
	"github.com/splitpod/splitpod/pkg/core/policy"
)

func parse(t testing.TB, text string) *policy.Document {
	t.Helper()
	doc, _, err := policy.Parse("p.yaml", []byte(text))
	if err != nil {
		t.Fatal(err)
	}
	return doc
}

const file = `version: 1
network_policies:
  github:
    endpoints: [{host: api.github.com, port: 443, protocol: rest, enforcement: enforce, access: read-only, deny_rules: [{method: GET, path: "/admin/**"}]}]
    binaries: [{path: /usr/bin/git}]
  tools:
    endpoints: [{host: mcp.example.com, port: 443, protocol: mcp, enforcement: enforce, rules: [{allow: {method: tools/list}}]}]
    binaries: [{path: /usr/bin/agent}]
  other:
    endpoints: [{host: other.example.com, port: 443}]
    binaries: [{path: /usr/bin/git}]
`

func denial(host, binary, method, path string) core.Event {
	ev := core.Event{Kind: core.EventConnection, Stage: core.StageConnect, Reason: core.ReasonPolicyDenied, Host: host, Port: 443,
		Method: method, Path: path, Program: core.Program{Path: binary}}
	if method != "" {
		ev.Stage = core.StageRequest
	}
	return ev
}

func TestWhatWouldHaveAllowedItNarrowestFirst(t *testing.T) {
	ssrf := denial("wiki.corp.example", "/usr/bin/git", "", "")
	ssrf.Reason = core.ReasonSSRFDenied
	unknown := denial("a.example.com", "", "", "")
	for _, tt := range []struct {
		name string
		ev   core.Event
		want []string // titles
		why  string
	}{
		{"a request", denial("api.github.com", "/usr/bin/git", "POST", "/repos/42/issues"),
			[]string{"exactly this request", "requests like it"}, ""}, // the whole host stays judged by the rules there are
		{"a request by another program", denial("api.github.com", "/usr/bin/curl", "GET", "/repos/a"),
			[]string{"exactly this request", "reading, on every path of the host", "everything that rule github allows", "every request to the host"}, ""},
		{"a connection", denial("new.example.com", "/usr/bin/curl", "", ""), []string{"every request to the host"}, ""},
		{"a connection to what another program has", denial("other.example.com", "/usr/bin/curl", "", ""),
			[]string{"everything that rule other allows", "every request to the host"}, ""},
		{"with a placeholder in its path", denial("api.github.com", "/usr/bin/git", "POST", "/t/[CREDENTIAL]/x"), []string{"requests like it"}, ""},
		{"what a deny rule refuses", denial("api.github.com", "/usr/bin/git", "GET", "/admin/x"), nil, "deny rule"},
		{"what shows in the body only", denial("mcp.example.com", "/usr/bin/agent", "POST", "/mcp"), nil, "body"},
		{"what is allowed by now", denial("other.example.com", "/usr/bin/git", "", ""), nil, "the policy in force allows it"},
		{"an internal address", ssrf, nil, "allowed_ips"},
		{"an unknown program", unknown, nil, "which program"},
		{"a loopback address", denial("127.0.0.1", "/usr/bin/git", "", ""), nil, "never allowed"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			got, err := Explain(t.Context(), parse(t, file), tt.ev, false)
			if err != nil {
				t.Fatal(err)
			}
			var titles []string
			for _, r := range got.Remedies {
				titles = append(titles, r.Title)
				if _, _, err := policy.Parse("y", []byte(r.YAML)); err != nil || len(r.Changes) == 0 {
					t.Errorf("%s: %v, changes %v", r.Title, err, r.Changes)
				}
			}
			if d := cmp.Diff(tt.want, titles); d != "" || !strings.Contains(got.Why, tt.why) || (tt.why == "") != (got.Why == "") {
				t.Errorf("%s\nwhy: %q, want %q", d, got.Why, tt.why)
			}
		})
	}
}

func TestWhereProgramsAreNotIdentifiedRulesHaveNone(t *testing.T) {
	got, err := Explain(t.Context(), parse(t, "version: 1\n"), denial("new.example.com", "", "", ""), true)
	if err != nil || len(got.Remedies) != 1 || strings.Contains(got.Remedies[0].YAML, "binaries") {
		t.Errorf("%+v, %v", got, err)
	}
}
