package authority

import (
	"fmt"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

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

// rule is a policy with one rule of one endpoint.
func rule(endpoint, binary string) string {
	return fmt.Sprintf("version: 1\nnetwork_policies:\n  r:\n    endpoints:\n      - {%s}\n    binaries: [{path: %q}]\n", endpoint, binary)
}

const empty = "version: 1\n"

func diff(t *testing.T, before, after string) string {
	t.Helper()
	changes, complete := Reading{}.Diff(parse(t, before), parse(t, after))
	if !complete {
		t.Fatal("the list is not complete")
	}
	var out []string
	for _, c := range changes {
		out = append(out, c.String())
	}
	return strings.Join(out, "\n")
}

const (
	api  = `host: api.example.com, port: 443`
	rest = api + `, protocol: rest, enforcement: enforce`
	curl = "/usr/bin/curl"
)

func TestADiffSpeaksOfAuthority(t *testing.T) {
	for _, tt := range []struct{ name, before, after, want string }{
		{"nothing changes", rule(api, curl), rule(api, curl), ""},
		{"a rule comes", empty, rule(api, curl),
			"+ /usr/bin/curl may send anything, unjudged, to api.example.com:443 on public and internal addresses  [r]"},
		{"a rule goes", rule(api, curl), empty,
			"- /usr/bin/curl may send anything, unjudged, to api.example.com:443 on public and internal addresses  [r]"},
		{"another folder", empty + "filesystem_policy: {read_only: [/a]}\n", empty + "filesystem_policy: {read_only: [/a], read_write: [/b c, /d]}\n",
			`+ the section changed: was {read_only: [/a], read_write: [], include_workdir: true}, is {read_only: [/a], read_write: ["/b c", /d], include_workdir: true}  [filesystem_policy]`},
		{"another account", empty + "process: {run_as_user: agent, run_as_group: agent}\n", empty + "process: {run_as_user: \"1\", run_as_group: agent}\n",
			"+ the section changed: was {run_as_user: agent, run_as_group: agent}, is {run_as_user: 1, run_as_group: agent}  [process]"},
		{"sections that say what holds without them", empty, empty + "filesystem_policy: {include_workdir: true}\nlandlock: {compatibility: best_effort}\n", ""},
		{"a rule by another name is the same", strings.Replace(rule(api, curl), "  r:", "  q:", 1), rule(api, curl), ""},
		{"one method more", rule(rest+`, rules: [{allow: {method: GET, path: "/a"}}]`, curl),
			rule(rest+`, rules: [{allow: {method: GET, path: "/a"}}, {allow: {method: POST, path: "/a"}}]`, curl),
			"+ /usr/bin/curl may send POST /a to api.example.com:443 on public and internal addresses  [r]"},
		{"HEAD is in GET", rule(rest+`, rules: [{allow: {method: GET, path: "/a/**"}}]`, curl),
			rule(rest+`, rules: [{allow: {method: GET, path: "/a/**"}}, {allow: {method: HEAD, path: "/a/b/*"}}]`, curl), ""},
		{"enforcement is taken away", rule(rest+`, access: read-only`, curl), rule(api+`, protocol: rest, enforcement: audit, access: read-only`, curl),
			"+ /usr/bin/curl may send anything (the rules of rest are recorded and not enforced) to api.example.com:443 on public and internal addresses  [r]"},
		{"a program of the same folder", rule(api, "/usr/bin/*"), rule(api, curl),
			"- /usr/bin/* may send anything, unjudged, to api.example.com:443 on public and internal addresses  [r]"},
		{"a wider host", rule(`host: "*.example.com", port: 443`, curl), rule(`host: "**.example.com", port: 443`, curl),
			"+ /usr/bin/curl may send anything, unjudged, to **.example.com:443 on public addresses  [r]"},
		{"an exact host has internal addresses, its wildcard has not", rule(`host: "*.example.com", port: 443`, curl), rule(api, curl),
			"+ /usr/bin/curl may send anything, unjudged, to api.example.com:443 on public and internal addresses  [r]\n" +
				"- /usr/bin/curl may send anything, unjudged, to *.example.com:443 on public addresses  [r]"},
		{"more addresses", rule(api+`, allowed_ips: ["10.1.2.0/24"]`, curl), rule(api+`, allowed_ips: ["10.1.0.0/16"]`, curl),
			"+ /usr/bin/curl may send anything, unjudged, to api.example.com:443 on addresses inside 10.1.0.0/16  [r]"},
		{"fewer addresses", rule(api+`, allowed_ips: ["10.1.0.0/16"]`, curl), rule(api+`, allowed_ips: ["10.1.2.0/24"]`, curl),
			"- /usr/bin/curl may send anything, unjudged, to api.example.com:443 on addresses inside 10.1.0.0/16  [r]"},
		{"unseen", rule(api, curl), rule(api+`, tls: skip`, curl),
			"+ /usr/bin/curl may send anything, unseen, to api.example.com:443 on public and internal addresses  [r]"},
		{"a deny rule goes", rule(rest+`, access: full, deny_rules: [{method: DELETE, path: "/a"}]`, curl), rule(rest+`, access: full`, curl),
			"+ no longer refused: DELETE /a to api.example.com  [r]"},
		{"a deny rule comes", rule(rest+`, access: full`, curl), rule(rest+`, access: full, deny_rules: [{method: DELETE, path: "/a"}]`, curl),
			"- newly refused: DELETE /a to api.example.com  [r]"},
		{"a query is not asked for any more", rule(rest+`, rules: [{allow: {method: GET, path: "/a", query: {x: "1"}}}]`, curl),
			rule(rest+`, rules: [{allow: {method: GET, path: "/a"}}]`, curl),
			"+ /usr/bin/curl may send GET /a to api.example.com:443 on public and internal addresses  [r]"},
		{"any tool instead of one", rule(api+`, protocol: mcp, enforcement: enforce, rules: [{allow: {method: tools/call, tool: read}}]`, curl),
			rule(api+`, protocol: mcp, enforcement: enforce, rules: [{allow: {method: tools/call, tool: "*"}}]`, curl),
			"+ /usr/bin/curl may send mcp tools/call tool * to api.example.com:443 on public and internal addresses  [r]"},
		{"any tool covers some", rule(api+`, protocol: mcp, enforcement: enforce, rules: [{allow: {method: tools/call, tool: "*"}}]`, curl),
			rule(api+`, protocol: mcp, enforcement: enforce, rules: [{allow: {method: tools/call, tool: "read_*"}}]`, curl),
			"- /usr/bin/curl may send mcp tools/call tool * to api.example.com:443 on public and internal addresses  [r]"},
		{"a mutation", rule(api+`, protocol: graphql, enforcement: enforce, access: read-only`, curl), rule(api+`, protocol: graphql, enforcement: enforce, access: read-write`, curl),
			"+ /usr/bin/curl may send graphql mutation to api.example.com:443 on public and internal addresses  [r]"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			if d := cmp.Diff(tt.want, diff(t, tt.before, tt.after)); d != "" {
				t.Error(d)
			}
		})
	}
}

// One endpoint with rules makes a connection judged that was not.
func TestADiffSaysThatARuleTurnsInspectionOn(t *testing.T) {
	before := rule(api, curl)
	after := before + "  q:\n    endpoints: [{" + rest + `, rules: [{allow: {method: GET, path: "/a"}}]}]` + "\n    binaries: [{path: \"/usr/bin/*\"}]\n"
	got := diff(t, before, after)
	if !strings.Contains(got, "- from then on judged by rules, and only what these allow passes: /usr/bin/curl") {
		t.Errorf("the loss is not shown:\n%s", got)
	}
}

func TestCoveredNamesTheRuleThatAlreadyAllows(t *testing.T) {
	wide := `version: 1
network_policies:
  wide:
    endpoints: [{host: "*.example.com", port: 443, protocol: rest, enforcement: enforce, access: read-only}]
    binaries: [{path: "/usr/bin/*"}]
  plain:
    endpoints: [{host: plain.example.org, port: 443}]
    binaries: [{path: /usr/bin/curl}]
  both:
    endpoints: [{host: both.example.org, port: 443}]
    binaries: [{path: /usr/bin/curl}]
  judged:
    endpoints: [{host: both.example.org, port: 443, protocol: rest, enforcement: enforce, access: read-only}]
    binaries: [{path: /usr/bin/curl}]
`
	for _, tt := range []struct{ name, endpoint, binary, want string }{
		{"inside", `host: a.example.com, port: 443, protocol: rest, enforcement: enforce, rules: [{allow: {method: GET, path: "/x"}}]`, curl, "wide"},
		{"another method", `host: a.example.com, port: 443, protocol: rest, enforcement: enforce, rules: [{allow: {method: POST, path: "/x"}}]`, curl, ""},
		{"another port", `host: a.example.com, port: 80, protocol: rest, enforcement: enforce, rules: [{allow: {method: GET, path: "/x"}}]`, curl, ""},
		{"another program", `host: a.example.com, port: 443, protocol: rest, enforcement: enforce, rules: [{allow: {method: GET, path: "/x"}}]`, "/opt/x", ""},
		{"internal addresses", `host: a.example.com, port: 443, allowed_ips: ["10.0.0.1"], protocol: rest, enforcement: enforce, rules: [{allow: {method: GET, path: "/x"}}]`, curl, ""},
		{"anything covers a rule", `host: plain.example.org, port: 443, protocol: rest, enforcement: enforce, access: full`, curl, "plain"},
		{"anything is judged where another rule has rules", `host: both.example.org, port: 443, protocol: rest, enforcement: enforce, access: full`, curl, ""},
		{"and covered by that one", `host: both.example.org, port: 443, protocol: rest, enforcement: enforce, access: read-only`, curl, "judged"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			r := parse(t, rule(tt.endpoint, tt.binary)).Network["r"]
			r.Endpoints[0].AdvisorProposed = true
			if got := (Reading{}).Covered(parse(t, wide), "p", r); got != tt.want {
				t.Errorf("covered by %q, want %q", got, tt.want)
			}
		})
	}
}

func TestRefusedNamesTheRuleThatWins(t *testing.T) {
	doc := parse(t, rule(rest+`, access: read-only, deny_rules: [{method: DELETE, path: "/a/**"}]`, "/usr/bin/*"))
	for _, tt := range []struct {
		matcher, binary string
		want            []string
	}{
		{`{method: DELETE, path: "/a/b"}`, curl, []string{"r"}},
		{`{method: "*", path: "**"}`, curl, []string{"r"}},
		{`{method: POST, path: "/a/b"}`, curl, nil},
		{`{method: DELETE, path: "/b"}`, curl, nil},
		{`{method: DELETE, path: "/a/b"}`, "/opt/x", nil},
	} {
		r := parse(t, rule(rest+`, rules: [{allow: `+tt.matcher+`}]`, tt.binary)).Network["r"]
		if d := cmp.Diff(tt.want, Reading{}.Refused(doc, "p", r)); d != "" {
			t.Errorf("%s for %s: %s", tt.matcher, tt.binary, d)
		}
	}
}

func TestWhereProgramsAreNotIdentifiedEveryRuleIsForAll(t *testing.T) {
	r := parse(t, rule(api, curl))
	other := parse(t, rule(api, "/opt/x")).Network["r"]
	other.Endpoints[0].AdvisorProposed = true
	if got := (Reading{IgnoreBinaries: true}).Covered(r, "p", other); got != "r" {
		t.Errorf("covered by %q", got)
	}
	if got := (Reading{}).Covered(r, "p", other); got != "" {
		t.Errorf("covered by %q for another program", got)
	}
	changes, _ := Reading{IgnoreBinaries: true}.Diff(parse(t, empty), r)
	if len(changes) != 1 || !strings.HasPrefix(changes[0].Text, "any program may send anything") {
		t.Errorf("the difference is %v", changes)
	}
}

func TestWhatAWorkloadWroteIsPrintedOnOneLine(t *testing.T) {
	doc := &policy.Document{Network: map[string]policy.Rule{"x\x1b[31m": {
		Endpoints: []policy.Endpoint{{Host: "h.example.com\n+ forged", Ports: []uint16{1}, Protocol: policy.ProtocolREST, Enforce: true,
			Allow: []policy.Matcher{{Method: "GET", Path: "/\x1b[2K\r"}}}},
		Binaries: []policy.Binary{{Path: "/bin/\u202esh"}},
	}}}
	changes, _ := Reading{}.Diff(&policy.Document{}, doc)
	for _, c := range changes {
		if s := c.String(); strings.ContainsAny(s, "\n\r\x1b\u202e") {
			t.Errorf("%q is not safe to print", s)
		}
	}
	if len(changes) != 1 {
		t.Errorf("%d changes", len(changes))
	}
}

func TestChangesAreBounded(t *testing.T) {
	var ports []uint16
	for i := range MaxChanges + 1 {
		ports = append(ports, uint16(i+1))
	}
	doc := func(n int) *policy.Document {
		return &policy.Document{Network: map[string]policy.Rule{"r": {Binaries: []policy.Binary{{Path: "/b"}},
			Endpoints: []policy.Endpoint{{Host: "a.example.com", Ports: ports[:n]}}}}}
	}
	for n, want := range map[int]bool{MaxChanges: true, MaxChanges + 1: false} {
		changes, complete := Reading{}.Diff(&policy.Document{}, doc(n))
		if complete != want || len(changes) > MaxChanges {
			t.Errorf("%d changes: %d listed, complete: %v", n, len(changes), complete)
		}
	}
}

// FuzzCover: a pattern that is said to cover another matches whatever that one does.
func FuzzCover(f *testing.F) {
	f.Add("*", "read_*", "read_x", byte('.'))
	f.Add("a*", "ab*", "abc", byte('.'))
	f.Add("/a/**", "/a/*", "/a/b", byte('/'))
	f.Add("/a*", "/a?*", "/ab", byte('/'))
	f.Add("*", "**", "a.b", byte('.'))
	f.Fuzz(func(t *testing.T, have, want, text string, delimiter byte) {
		if delimiter != '/' && delimiter != '.' || !coversPattern(have, want, delimiter) {
			return
		}
		if matches(want, text, delimiter) && !matches(have, text, delimiter) {
			if have == "**" || strings.Contains(text, "\x00") {
				return // anything, and texts that no pattern matches
			}
			t.Fatalf("%q is said to cover %q, and does not match %q", have, want, text)
		}
	})
}
