package decide

import (
	"fmt"
	"strings"
	"sync"
	"testing"

	"github.com/open-policy-agent/opa/v1/ast"

	"github.com/splitpod/splitpod/pkg/core"
	"github.com/splitpod/splitpod/pkg/core/policy"
)

func parse(t testing.TB, text string) *policy.Document {
	t.Helper()
	doc, _, err := policy.Parse("policy.yaml", []byte(text))
	if err != nil {
		t.Fatal(err)
	}
	return doc
}

func compile(t testing.TB, text string, opt Options) *Snapshot {
	t.Helper()
	opt.Generation = 7
	s, err := Compile(t.Context(), parse(t, text), opt)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func known(program string, ancestors ...string) *core.Identity {
	who := &core.Identity{Status: core.IdentityKnown, Program: core.Program{Path: program}}
	for _, a := range ancestors {
		who.Ancestors = append(who.Ancestors, core.Program{Path: a})
	}
	return who
}

const example = `
version: 1
network_policies:
  github:
    endpoints:
      - host: api.github.com
        port: 443
      - host: "*.githubusercontent.com"
        ports: [443, 80]
    binaries:
      - path: /usr/bin/git
      - path: /usr/lib/git-core/*
  another:
    endpoints:
      - host: api.github.com
        port: 443
    binaries:
      - path: /usr/bin/curl
  addresses:
    endpoints:
      - port: 5432
        allowed_ips: [10.1.0.0/16]
      - host: 10.2.3.4
        port: 9000
      - host: deep.example.com
        port: 443
        tls: skip
      - host: "**.example.org"
        port: 443
    binaries:
      - path: /usr/bin/psql
      - path: /opt/py?hon
`

func TestConnectionFollowsThePolicy(t *testing.T) {
	s := compile(t, example, Options{Resolved: map[string][]string{"/usr/bin/git": {"/opt/git/bin/git"}}})
	for _, tt := range []struct {
		name string
		who  *core.Identity
		host string
		port uint16
		rule string // "" is a denial
		mode AddressMode
	}{
		{"named host, port and program", known("/usr/bin/git"), "api.github.com", 443, "github", AddressDeclared},
		{"another port", known("/usr/bin/git"), "api.github.com", 80, "", 0},
		{"another host", known("/usr/bin/git"), "github.com", 443, "", 0},
		{"another program", known("/usr/bin/wget"), "api.github.com", 443, "", 0},
		{"an ancestor is enough", known("/usr/bin/wget", "/bin/sh", "/usr/bin/git"), "api.github.com", 443, "github", AddressDeclared},
		{"the smallest rule name is reported", known("/usr/bin/curl", "/usr/bin/git"), "api.github.com", 443, "another", AddressDeclared},
		{"program pattern", known("/usr/lib/git-core/git-remote-https"), "api.github.com", 443, "github", AddressDeclared},
		{"a program pattern does not cross a slash", known("/usr/lib/git-core/x/git"), "api.github.com", 443, "", 0},
		{"a resolved link counts", known("/opt/git/bin/git"), "api.github.com", 443, "github", AddressDeclared},
		{"wildcard host", known("/usr/bin/git"), "raw.githubusercontent.com", 80, "github", AddressPublic},
		{"a wildcard is one label", known("/usr/bin/git"), "a.b.githubusercontent.com", 443, "", 0},
		{"a wildcard needs its dot", known("/usr/bin/git"), "evilgithubusercontent.com", 443, "", 0},
		{"a wildcard is not the bare domain", known("/usr/bin/git"), "githubusercontent.com", 443, "", 0},
		{"endpoint and program of different rules", known("/usr/bin/psql"), "api.github.com", 443, "", 0},
		{"any name on listed addresses", known("/usr/bin/psql"), "db.internal", 5432, "addresses", AddressListed},
		{"an address the policy names", known("/usr/bin/psql"), "10.2.3.4", 9000, "addresses", AddressDeclared},
		{"an address it does not name", known("/usr/bin/psql"), "10.2.3.5", 9000, "", 0},
		{"two stars cross labels", known("/usr/bin/psql"), "a.b.example.org", 443, "addresses", AddressPublic},
		{"a question mark alone is text", known("/opt/python"), "10.2.3.4", 9000, "", 0},
		{"a question mark alone is that text", known("/opt/py?hon"), "10.2.3.4", 9000, "addresses", AddressDeclared},
		{"a host with a trailing dot", known("/usr/bin/git"), "api.github.com.", 443, "", 0},
		{"a host with a NUL", known("/usr/bin/git"), "api.github.com\x00", 443, "", 0},
		{"an empty host", known("/usr/bin/git"), "", 443, "", 0},
		{"no program", known(""), "api.github.com", 443, "", 0},
	} {
		t.Run(tt.name, func(t *testing.T) {
			for range 2 { // the second time from the cache
				permit, denial := s.Connection(t.Context(), Question{tt.who, tt.host, tt.port})
				if tt.rule == "" {
					if denial == nil || denial.Reason != core.ReasonPolicyDenied || permit.Valid() || denial.Detail == "" {
						t.Fatalf("got %+v, %+v, want a denial by policy", permit, denial)
					}
					continue
				}
				if denial != nil || !permit.Valid() {
					t.Fatalf("denied: %+v", denial)
				}
				if permit.Host() != tt.host || permit.Port() != tt.port || permit.Rule() != tt.rule ||
					permit.AddressMode() != tt.mode || permit.Generation() != 7 {
					t.Fatalf("got %+v", permit)
				}
			}
		})
	}
}

func TestPermitCarriesTheEndpointsTerms(t *testing.T) {
	s := compile(t, example, Options{})
	listed, _ := s.Connection(t.Context(), Question{known("/usr/bin/psql"), "db", 5432})
	if fmt.Sprint(listed.Prefixes()) != "[10.1.0.0/16]" || listed.Opaque() {
		t.Errorf("got %+v", listed)
	}
	opaque, _ := s.Connection(t.Context(), Question{known("/usr/bin/psql"), "deep.example.com", 443})
	if !opaque.Opaque() || opaque.Prefixes() != nil {
		t.Errorf("got %+v", opaque)
	}
	if listed.SameTerms(opaque) || !listed.SameTerms(listed) || (Permit{}).SameTerms(Permit{}) {
		t.Error("SameTerms compares wrongly")
	}
}

func TestOnlyAKnownIdentityIsJudged(t *testing.T) {
	s := compile(t, example, Options{})
	for status := core.IdentityUnspecified; status < 12; status++ {
		who := known("/usr/bin/git")
		who.Status = status
		permit, denial := s.Connection(t.Context(), Question{who, "api.github.com", 443})
		if allowed := denial == nil && permit.Valid(); allowed != (status == core.IdentityKnown) {
			t.Errorf("status %s: %+v, %+v", status, permit, denial)
		}
		if denial != nil && denial.Reason != core.ReasonIdentityUnavailable {
			t.Errorf("status %s: reason %s", status, denial.Reason)
		}
	}
}

func TestIgnoringBinariesAllowsByDestinationOnly(t *testing.T) {
	s := compile(t, example, Options{IgnoreBinaries: true})
	if _, denial := s.Connection(t.Context(), Question{&core.Identity{}, "api.github.com", 443}); denial != nil {
		t.Errorf("denied: %v", denial)
	}
	if _, denial := s.Connection(t.Context(), Question{&core.Identity{}, "example.com", 443}); denial == nil {
		t.Error("a host that no rule names is allowed")
	}
}

func TestNoSnapshotDenies(t *testing.T) {
	var engine Engine
	permit, denial := engine.Current().Connection(t.Context(), Question{known("/usr/bin/git"), "api.github.com", 443})
	if denial == nil || denial.Reason != core.ReasonNotReady || permit.Valid() {
		t.Errorf("got %+v, %+v", permit, denial)
	}
	if x, err := engine.Current().Explain(t.Context(), Question{known(""), "a", 1}); err != nil || x.Denial == nil {
		t.Errorf("explain: %+v, %v", x, err)
	}
}

func TestDenialsSayWhatWouldHelp(t *testing.T) {
	s := compile(t, example, Options{})
	who := known("/usr/bin/wget", "/bin/bash")
	who.CommandPaths = []string{"/work/build.sh"}
	for _, tt := range []struct {
		host string
		want []string
	}{
		{"nowhere.example", []string{"endpoint nowhere.example:443 is not allowed by any policy"}},
		{"api.github.com", []string{"'/usr/bin/wget'", "'another'", "'github'", "/bin/bash", "/work/build.sh"}},
	} {
		_, denial := s.Connection(t.Context(), Question{who, tt.host, 443})
		for _, w := range tt.want {
			if !strings.Contains(denial.Detail, w) {
				t.Errorf("%s: %q lacks %q", tt.host, denial.Detail, w)
			}
		}
	}
	none := compile(t, "version: 1\n", Options{})
	if _, denial := none.Connection(t.Context(), Question{who, "a", 1}); denial.Detail != "network connections not allowed by policy" {
		t.Errorf("empty policy: %q", denial.Detail)
	}
}

func TestWhatCannotBeDoneIsRefusedAndNamed(t *testing.T) {
	doc := parse(t, `
version: 1
network_policies:
  a:
    endpoints:
      - {host: x.example.com, port: 443, protocol: rest, access: read-only, enforcement: enforce, credential_binding: {provider: p}}
      - {host: y.example.com, port: 443, protocol: rest, access: read-only, enforcement: enforce, credential_signing: sigv4, signing_service: s3, credential_binding: {provider: p}}
      - {host: z.example.com, port: 443, protocol: websocket, access: full, enforcement: enforce, websocket_credential_rewrite: true}
    binaries: [{path: /usr/bin/curl}]
`)
	_, err := Compile(t.Context(), doc, Options{})
	if err == nil {
		t.Fatal("an endpoint that cannot be served was accepted")
	}
	for _, want := range []string{"line 6", "endpoints[0]", "credential_binding", "the credentials file says, with the bindings"} {
		if !strings.Contains(err.Error(), want) {
			t.Errorf("%q lacks %q", err, want)
		}
	}
	if strings.Contains(err.Error(), "endpoints[1]") || strings.Contains(err.Error(), "endpoints[2]") {
		t.Errorf("%q names an endpoint that is fine", err)
	}
}

func TestInspectedEndpointsAreAccepted(t *testing.T) {
	s := compile(t, "version: 1\nnetwork_policies:\n"+scoped, Options{IgnoreBinaries: true})
	if p := permitted(t, s); !p.Inspected() {
		t.Errorf("got %+v", p)
	}
	const raw = "      - {host: raw.example.com, port: 443, tls: skip}\n      - {host: raw.example.com, port: 22, protocol: tcp}\n"
	text := strings.Join(Describe(parse(t, "version: 1\nnetwork_policies:\n"+scoped+raw)), "\n")
	for what, n := range map[string]int{"443, any request passes (TLS ends at the proxy)": 1, "bytes relayed untouched": 2, "443, requests judged as rest,": 1,
		"443 path /loose/strict/**, requests judged as rest,": 1, "443 path /graphql, requests judged as graphql,": 1, "judged as rest; what the rules refuse is recorded and sent,": 1} {
		if strings.Count(text, what) != n {
			t.Errorf("%q is not there %d times:\n%s", what, n, text)
		}
	}
}

func TestExplainNamesRuleAndLine(t *testing.T) {
	s := compile(t, example, Options{})
	x, err := s.Explain(t.Context(), Question{known("/usr/bin/curl", "/usr/bin/git"), "api.github.com", 443})
	if err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{"allow by rule another", "network_policies.github, endpoint on line 6", "network_policies.another, endpoint on line 15"} {
		if !strings.Contains(x.String(), want) {
			t.Errorf("%q lacks %q", x, want)
		}
	}
}

func TestModulesHaveNoWayOut(t *testing.T) {
	caps := capabilities()
	if len(caps.Builtins) != len(allowedBuiltins) {
		t.Errorf("%d builtins for %d names: one is misspelt or gone", len(caps.Builtins), len(allowedBuiltins))
	}
	for _, call := range []string{
		`http.send({"method": "get", "url": "http://127.0.0.1"})`, `net.lookup_ip_addr("example.com")`, `opa.runtime()`,
		`time.now_ns()`, `rand.intn("x", 5)`, `trace("x")`, `io.jwt.decode("x")`, `uuid.rfc4122("x")`, `regex.match("(a+)+", "a")`, `glob.match("*", [], "a")`,
	} {
		module, err := ast.ParseModule("m.rego", "package m\nx := "+call)
		if err != nil {
			t.Fatal(err)
		}
		c := ast.NewCompiler().WithCapabilities(caps)
		c.Compile(map[string]*ast.Module{"m.rego": module})
		if !c.Failed() {
			t.Errorf("a module may call %s", call)
		}
	}
	ok := ast.NewCompiler().WithCapabilities(caps)
	module, err := ast.ParseModule("m.rego", "package m\nx := count(input.a)")
	if err != nil {
		t.Fatal(err)
	}
	if ok.Compile(map[string]*ast.Module{"m.rego": module}); ok.Failed() {
		t.Errorf("a harmless module is refused: %v", ok.Errors)
	}
}

func TestCacheTellsQuestionsApart(t *testing.T) {
	c := newCache()
	base := facts{"h", 1, "/p", []core.Program{{Path: "/a"}, {Path: "/b"}}}
	c.put(&base, Permit{valid: true, host: "h"}, nil)
	if _, _, ok := c.get(&base); !ok {
		t.Fatal("a remembered question is not found")
	}
	for _, other := range []facts{
		{"h2", 1, "/p", base.ancestors}, {"h", 2, "/p", base.ancestors}, {"h", 1, "/q", base.ancestors},
		{"h", 1, "/p", base.ancestors[:1]}, {"h", 1, "/p", nil},
		{"h", 1, "/p", []core.Program{{Path: "/b"}, {Path: "/a"}}},
	} {
		c.slot(&other).Store(c.slot(&base).Load()) // the worst case: the same slot
		if _, _, ok := c.get(&other); ok {
			t.Errorf("%+v got the decision of %+v", other, base)
		}
	}
	large := facts{host: strings.Repeat("x", maxCachedSize+1)}
	c.put(&large, Permit{}, nil)
	if _, _, ok := c.get(&large); ok {
		t.Error("a question above the limit is remembered")
	}
}

func TestSnapshotIsSafeForConcurrentUse(t *testing.T) {
	s := compile(t, example, Options{})
	var wg sync.WaitGroup
	for g := range 8 {
		wg.Go(func() {
			for i := range 200 {
				host := fmt.Sprintf("h%d.githubusercontent.com", (g+i)%50)
				if permit, denial := s.Connection(t.Context(), Question{known("/usr/bin/git"), host, 443}); denial != nil || permit.Host() != host {
					t.Errorf("%s: %+v, %+v", host, permit, denial)
				}
			}
		})
	}
	wg.Wait()
}
