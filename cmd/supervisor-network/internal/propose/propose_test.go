package propose

import (
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"github.com/splitpod/splitpod/cmd/supervisor-network/internal/aggregate"
	"github.com/splitpod/splitpod/cmd/supervisor-network/internal/authority"
	"github.com/splitpod/splitpod/pkg/core"
	"github.com/splitpod/splitpod/pkg/core/policy"
	"github.com/splitpod/splitpod/pkg/core/policy/glob"
)

func TestRuleNames(t *testing.T) {
	for _, tt := range []struct {
		host       string
		port       uint16
		head, tail string // the hash between them is not repeated here
	}{
		{"api.example.com", 443, "allow_api_example_com_443", ""},
		{"10.1.2.3", 80, "allow_10_1_2_3_80", ""},
		{"a-b.com", 443, "allow_a_b_com_", "_443"},
		{"A.com", 443, "allow_A_com_", "_443"},
		{"2001:db8::1", 443, "allow_2001db81_", "_443"},
		{"b\u00fccher.example", 443, "allow_bcher_example_", "_443"},
	} {
		got := RuleName(tt.host, tt.port)
		hash := 0
		if tt.tail != "" {
			hash = 8
		}
		if !strings.HasPrefix(got, tt.head) || !strings.HasSuffix(got, tt.tail) || len(got) != len(tt.head)+hash+len(tt.tail) {
			t.Errorf("%s:%d is %s, want %s…%s", tt.host, tt.port, got, tt.head, tt.tail)
		}
	}
}

func TestDifferentDestinationsHaveDifferentNames(t *testing.T) {
	seen := map[string]string{}
	for _, host := range []string{"a-b.com", "a.b.com", "a_b.com", "ab.com", "A.b.com", "a..b.com", "äa.b.com", "éa.b.com",
		strings.Repeat("a", 90), strings.Repeat("a", 91)} {
		name := RuleName(host, 443)
		if other, ok := seen[name]; ok {
			t.Errorf("%q and %q are both %s", host, other, name)
		}
		seen[name] = host
		if strings.Trim(name, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_") != "" {
			t.Errorf("%q has other characters than letters, digits and _", name)
		}
	}
}

func TestPathsAreGeneralised(t *testing.T) {
	for _, tt := range []struct{ path, want string }{
		{"/", "/"},
		{"/repos/acme", "/repos/acme"},
		{"/users/7", "/users/7"}, // one digit
		{"/users/42", "/users/*"},
		{"/users/42/posts/99", "/users/*/posts/*"}, // not only the last
		{"/users/42?token=x", "/users/*"},
		{"/v2/x", "/v2/x"},
		{"/o/550e8400-e29b-41d4-a716-446655440000", "/o/*"},
		{"/o/550e8400-e29b-41d4-a716", "/o/550e8400-e29b-41d4-a716"}, // 20 digits of 24
		{"/c/0123456789abcdef", "/c/*"},                              // 16
		{"/c/0123456789abcde", "/c/0123456789abcde"},                 // 15
		{"/t/ghp_16C7e42F292c6912E7710c838347Ae178B4a", "/t/*"},
		{"/t/[CREDENTIAL]/x", "/t/*/x"},
		{"/a/**", `/a/\*\*`},
		{"/a/{b,c}[d]", `/a/\{b,c\}\[d\]`},
		{`/a/b\c`, `/a/b\\c`},
	} {
		if got := Generalise(tt.path); got != tt.want {
			t.Errorf("%s is %s, want %s", tt.path, got, tt.want)
		}
	}
}

// FuzzGeneralise: a pattern made of a path matches the path, and no path with another
// number of segments.
func FuzzGeneralise(f *testing.F) {
	for _, s := range []string{"/", "/a/**", "/users/42", `/a\b/{c}`, "/[!a]", "/a?b"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, path string) {
		m, ok := matcher("GET", path)
		if !ok || strings.Contains(path, "\x00") {
			return
		}
		path, _, _ = strings.Cut(path, "?")
		p, err := glob.Compile(m.Path, '/')
		if err != nil || !p.Match(path) {
			t.Fatalf("%q became %q, which does not match it", path, m.Path)
		}
		if p.Match(path+"/x") || p.Match("/x"+path) || strings.HasPrefix(path, "/") && p.Match(path[1:]) {
			t.Fatalf("%q became %q, which matches more", path, m.Path)
		}
	})
}

var start = time.Date(2026, 11, 1, 12, 0, 0, 0, time.UTC)

func summary(host string, port uint16, binary string, causes ...aggregate.CauseCount) aggregate.Summary {
	s := aggregate.Summary{Key: aggregate.Key{Host: host, Port: port, Binary: binary}, First: start, Last: start.Add(time.Minute), Causes: causes}
	for _, c := range causes {
		s.Count += c.Count
	}
	return s
}

func cause(stage core.Stage, reason core.Reason, n uint64) aggregate.CauseCount {
	return aggregate.CauseCount{Cause: aggregate.Cause{Stage: stage, Reason: reason}, Count: n}
}

func byPolicy(n uint64) aggregate.CauseCount {
	return cause(core.StageConnect, core.ReasonPolicyDenied, n)
}
func bySSRF(n uint64) aggregate.CauseCount { return cause(core.StageConnect, core.ReasonSSRFDenied, n) }

func TestWhatIsProposed(t *testing.T) {
	requests := summary("api.example.com", 443, "/usr/bin/curl", cause(core.StageRequest, core.ReasonPolicyDenied, 4))
	requests.Samples = []aggregate.Sample{{Method: "post", Path: "/users/42/x", Count: 2}, {Method: "GET", Path: "/users/43/x", Count: 1},
		{Method: "GET", Path: "/users/44/x", Count: 1}, {Method: "G T", Path: "/", Count: 1}, {Method: "GET", Path: "*", Count: 1},
		{Method: "GET", Path: "/a b", Count: 1}, {Method: "GET", Path: "/a//b", Count: 1}, {Method: "GET", Path: "/a/../b", Count: 1}, {Method: "GET", Path: "/a%2fb", Count: 1}}
	for _, tt := range []struct {
		name string
		in   aggregate.Summary
		opt  Options
		want Proposal
	}{
		{"a connection", summary("API.example.com.", 443, "/usr/bin/curl", byPolicy(1)), Options{}, Proposal{
			Name: RuleName("API.example.com.", 443), Confidence: 0.65, Hits: 1,
			Rule: policy.Rule{Endpoints: []policy.Endpoint{{Host: "api.example.com", Ports: []uint16{443}, AdvisorProposed: true}},
				Binaries: []policy.Binary{{Path: "/usr/bin/curl", AdvisorProposed: true}}},
			Rationale: "curl asked for API.example.com.:443 (HTTPS)",
			Notes:     []Note{{"whole_host", "every request to api.example.com is allowed, whatever its method and path"}},
		}},
		{"requests", requests, Options{}, Proposal{
			Name: "allow_api_example_com_443", Confidence: 0.75, Hits: 4,
			Rule: policy.Rule{Endpoints: []policy.Endpoint{{Host: "api.example.com", Ports: []uint16{443}, AdvisorProposed: true,
				Protocol: policy.ProtocolREST, Enforce: true,
				Allow: []policy.Matcher{{Method: "GET", Path: "/users/*/x"}, {Method: "POST", Path: "/users/*/x"}}}},
				Binaries: []policy.Binary{{Path: "/usr/bin/curl", AdvisorProposed: true}}},
			Rationale: "curl asked for api.example.com:443 (HTTPS): GET /users/*/x, POST /users/*/x",
		}},
		{"without programs", summary("db.example.com", 50000, "", byPolicy(1)), Options{AnyBinary: true}, Proposal{
			Name: "allow_db_example_com_50000", Confidence: 0.5, Hits: 1,
			Rule:      policy.Rule{Endpoints: []policy.Endpoint{{Host: "db.example.com", Ports: []uint16{50000}, AdvisorProposed: true}}},
			Rationale: "an unknown program asked for db.example.com:50000",
			Notes: []Note{
				{"ephemeral_port", "port 50000 is in the range that systems give to clients"},
				{"whole_host", "every request to db.example.com is allowed, whatever its method and path"},
				{"no_binary", "the rule names no program: it allows nothing where programs are identified, and any program where they are not"},
			},
		}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			got, skipped := Map([]aggregate.Summary{tt.in}, tt.opt)
			if len(got) != 1 || len(skipped) != 0 {
				t.Fatalf("%d proposals, skipped %v", len(got), skipped)
			}
			tt.want.Source, tt.want.Stage, tt.want.Key = Mechanistic, tt.in.Causes[0].Stage, tt.in.Key
			tt.want.First, tt.want.Last, tt.want.Rule.Name = tt.in.First, tt.in.Last, tt.want.Name
			if d := cmp.Diff(tt.want, got[0], cmpopts.EquateEmpty()); d != "" {
				t.Error(d)
			}
		})
	}
}

func TestWhatIsNotProposed(t *testing.T) {
	for _, tt := range []struct {
		in  aggregate.Summary
		why string
	}{
		{summary("127.0.0.1", 443, "/b", byPolicy(1)), "loopback"},
		{summary("169.254.169.254", 80, "/b", byPolicy(1)), "metadata"},
		{summary("::ffff:127.0.0.1", 80, "/b", byPolicy(1)), "loopback"},
		{summary("fe80::1", 80, "/b", byPolicy(1)), "link-local"},
		{summary("0.0.0.0", 80, "/b", byPolicy(1)), "this network"},
		{summary("localhost", 80, "/b", byPolicy(1)), "this machine"},
		{summary("LOCALHOST.", 80, "/b", byPolicy(1)), "this machine"},
		{summary("x.localhost", 80, "/b", byPolicy(1)), "this machine"},
		{summary("policy.local", 443, "/b", byPolicy(1)), "daemon's own"},
		{summary("Metadata.Google.internal.", 80, "/b", byPolicy(1)), "cloud's credentials"},
		{summary("*.example.com", 443, "/b", byPolicy(1)), "no host name"},
		{summary("h\nallow", 443, "/b", byPolicy(1)), "no host name"},
		{summary("k8s.example.com", 10250, "/b", byPolicy(1)), "control plane"},
		{summary("h.example.com", 443, "", byPolicy(1)), "which program"},
		{summary("h.example.com", 443, "-", byPolicy(1)), "which program"},
		{summary("h.example.com", 443, "ambiguous", byPolicy(1)), "which program"},
		{summary("h.example.com", 443, "/usr/../bin/x", byPolicy(1)), "which program"},
		{summary("1.2.3.4", 443, "/b", cause(core.StageBypass, core.ReasonBypass, 9)), "past the proxy"},
		{summary("h.example.com", 443, "/b", bySSRF(1)), "allowed_ips"},
		{summary("h.example.com", 443, "/b", cause(core.StageConnect, core.ReasonNotReady, 1)), "none would change"},
		{summary("h.example.com", 443, "/b", cause(core.StageRequest, core.ReasonInvalidJSONRPC, 1)), "none would change"},
	} {
		got, skipped := Map([]aggregate.Summary{tt.in}, Options{})
		if len(got) != 0 || len(skipped) != 1 || !strings.Contains(skipped[0].Why, tt.why) {
			t.Errorf("%v: proposed %v, skipped %v, want %q", tt.in.Key, got, skipped, tt.why)
		}
	}
}

// A request that no rule can name does not become a rule for its whole host.
func TestOddPathsDoNotWidenARule(t *testing.T) {
	s := summary("h.example.com", 443, "/b", cause(core.StageRequest, core.ReasonPolicyDenied, 1))
	s.Samples = []aggregate.Sample{{Method: "GET", Path: "/a b", Count: 1}}
	if got, skipped := Map([]aggregate.Summary{s}, Options{}); len(got) != 0 || len(skipped) != 1 || !strings.Contains(skipped[0].Why, "no rule can name") {
		t.Errorf("proposed %v, skipped %v", got, skipped)
	}
	s.Samples, s.Unsampled = nil, 1
	if got, _ := Map([]aggregate.Summary{s}, Options{}); len(got) != 0 {
		t.Errorf("proposed %v", got)
	}
}

func TestConfidence(t *testing.T) {
	for _, tt := range []struct {
		port   uint16
		causes []aggregate.CauseCount
		want   float64
	}{
		{1234, []aggregate.CauseCount{byPolicy(2)}, 0.5},
		{1234, []aggregate.CauseCount{byPolicy(3)}, 0.6},
		{1234, []aggregate.CauseCount{byPolicy(9)}, 0.6},
		{1234, []aggregate.CauseCount{byPolicy(10)}, 0.7},
		{443, []aggregate.CauseCount{byPolicy(10)}, 0.85},
		{443, []aggregate.CauseCount{byPolicy(9), bySSRF(1)}, 0.65},
		{1234, []aggregate.CauseCount{byPolicy(1), bySSRF(1)}, 0.3},
		{443, []aggregate.CauseCount{byPolicy(1 << 40)}, 0.85}, // more than 32 bits
	} {
		s := summary("h.example.com", tt.port, "/b", tt.causes...)
		if got := confidence(&s, tallyOf(&s)); got != tt.want {
			t.Errorf("port %d, %v: %v, want %v", tt.port, tt.causes, got, tt.want)
		}
	}
}

func TestProposalsAreInOrder(t *testing.T) {
	in := []aggregate.Summary{
		summary("b.example.com", 1234, "/b", byPolicy(1)), summary("a.example.com", 1234, "/b", byPolicy(1)),
		summary("a.example.com", 1234, "/a", byPolicy(1)), summary("z.example.com", 443, "/b", byPolicy(20)),
	}
	got, _ := Map(in, Options{})
	var order []string
	for _, p := range got {
		order = append(order, p.Key.Host[:1]+p.Key.Binary)
	}
	if d := cmp.Diff([]string{"z/b", "a/a", "a/b", "b/b"}, order); d != "" {
		t.Error(d)
	}
}

// F14: whatever widens is named.
func TestWhatIsWideIsNoted(t *testing.T) {
	for _, tt := range []struct{ endpoint, binary, want string }{
		{`host: "*.example.com", port: 443`, "/b", "wildcard_host"},
		{`host: 10.1.2.3, port: 443`, "/b", "ip_literal internal_address"},
		{`host: 93.184.216.34, port: 443`, "/b", "ip_literal"},
		{`port: 443, allowed_ips: ["10.0.0.0/16"]`, "/b", "any_host allowed_ips"},
		{`host: a.example.com, port: 443`, "/**", "wildcard_binary"},
		{`host: a.example.com, port: 443`, "/usr/bin/python3.12", "runner"},
		{`host: a.example.com, port: 443`, "/tmp/x", "writable_binary"},
		{`host: a.example.com, port: 443`, "/tmp/\u0443*", "wildcard_binary writable_binary"},
		{`host: a.example.com, port: 443, tls: skip`, "/b", "opaque"},
		{`host: a.example.com, port: 443`, "/b", "whole_host"},
		{`host: a.example.com, port: 5432`, "/b", "database"},
		{`host: a.example.com, port: 49153`, "/b", "ephemeral_port"},
		{`host: a.example.com, port: 10250`, "/b", "control_plane"},
		{`host: db.svc, port: 443`, "/b", "internal_name"},
		{`host: a.example.com, port: 443, protocol: rest, enforcement: audit, access: read-only`, "/b", "audit"},
		{`host: a.example.com, port: 443, protocol: rest, enforcement: enforce, access: full`, "/b", "broad_access"},
		{`host: a.example.com, port: 443, protocol: rest, enforcement: enforce, rules: [{allow: {method: "*", path: "/a"}}]`, "/b", "any_method"},
		{`host: a.example.com, port: 443, protocol: rest, enforcement: enforce, rules: [{allow: {method: GET, path: "/a/**"}}]`, "/b", "wide_path"},
		{`host: a.example.com, port: 443, protocol: mcp, enforcement: enforce, mcp: {allow_all_known_mcp_methods: true}`, "/b", "any_method"},
		{`host: a.example.com, port: 443, protocol: mcp, enforcement: enforce, rules: [{allow: {method: tools/call, tool: "*"}}]`, "/b", "any_tool"},
		{`host: a.example.com, port: 443, protocol: graphql, enforcement: enforce, rules: [{allow: {operation_type: mutation}}]`, "/b", "mutation"},
	} {
		doc, _, err := policy.Parse("p", []byte("version: 1\nnetwork_policies: {r: {endpoints: [{"+tt.endpoint+"}], binaries: [{path: \""+tt.binary+"\"}]}}"))
		if err != nil {
			t.Fatal(err)
		}
		have := map[string]bool{}
		for _, n := range Review(doc.Network["r"]) {
			have[n.Code] = true
			if authority.Quote(tt.binary) != tt.binary && strings.Contains(n.Text, tt.binary) {
				t.Errorf("%q is not seen as what it is in %q", tt.binary, n.Text)
			}
		}
		for want := range strings.FieldsSeq(tt.want) {
			if !have[want] {
				t.Errorf("%s for %s is not noted as %s, only %v", tt.endpoint, tt.binary, want, have)
			}
		}
	}
	if n := Review(policy.Rule{Endpoints: []policy.Endpoint{{Host: "a.example.com", Ports: []uint16{443}, Protocol: policy.ProtocolREST, Enforce: true,
		Allow: []policy.Matcher{{Method: "GET", Path: "/a"}}}}, Binaries: []policy.Binary{{Path: "/usr/bin/git"}}}); len(n) != 0 {
		t.Errorf("a narrow rule is noted: %v", n)
	}
}
