package policylocal

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/splitpod/splitpod/cmd/supervisor-network/internal/aggregate"
	"github.com/splitpod/splitpod/cmd/supervisor-network/internal/approve"
	"github.com/splitpod/splitpod/cmd/supervisor-network/internal/decide"
	"github.com/splitpod/splitpod/pkg/core"
	"github.com/splitpod/splitpod/pkg/core/policy"
)

const file = `version: 1
network_policies:
  github:
    endpoints: [{host: api.github.com, port: 443, protocol: rest, enforcement: enforce, access: read-only}]
    binaries: [{path: /usr/bin/curl}]
`

// world is a Server with everything behind it.
type world struct {
	*Server
	t       *testing.T
	store   *approve.Store
	recent  aggregate.Recent
	engine  decide.Engine
	doc     *policy.Document
	enabled bool
}

func newWorld(t *testing.T) *world {
	t.Helper()
	base, _, err := policy.Parse("p.yaml", []byte(file))
	if err != nil {
		t.Fatal(err)
	}
	w := &world{t: t, enabled: true}
	apply := func(ctx context.Context) error {
		e := w.store.Effective(base)
		snap, err := decide.Compile(ctx, e.Document, decide.Options{Generation: 1})
		if err != nil {
			return err
		}
		w.engine.Publish(snap)
		w.doc = e.Document
		w.store.Applied(e)
		return nil
	}
	if w.store, err = approve.Open(approve.Options{Dir: t.TempDir(), Base: func() *policy.Document { return base }, Apply: apply}); err != nil {
		t.Fatal(err)
	}
	if err := apply(t.Context()); err != nil {
		t.Fatal(err)
	}
	w.Server = New(Options{Enabled: func() bool { return w.enabled }, Proposals: w.store, Policy: func() *policy.Document { return w.doc }, Denials: &w.recent})
	return w
}

// do is one request; the answer is read as an agent would read it.
func (w *world) do(method, target, body string) (int, map[string]any) {
	w.t.Helper()
	path, query, _ := strings.Cut(target, "?")
	a := w.Serve(w.t.Context(), &Request{Method: method, Path: path, Query: query, Body: []byte(body)})
	out := map[string]any{}
	if err := json.Unmarshal(a.JSON(), &out); err != nil {
		w.t.Fatalf("%s %s is answered with no JSON object: %v", method, target, err)
	}
	return a.Status, out
}

// body is a proposal of one rule.
func body(name, endpoint, binary string) string {
	return fmt.Sprintf(`{"intent_summary":"the task","operations":[{"addRule":{"ruleName":%q,"rule":{"endpoints":[{%s}],"binaries":[{"path":%q}]}}}]}`, name, endpoint, binary)
}

const (
	curl = "/usr/bin/curl"
	post = `"host":"api.github.com","port":443,"protocol":"rest","rules":[{"allow":{"method":"POST","path":"/repos/a/issues"}}]`
)

// submit proposes and returns the id.
func (w *world) submit(endpoint string) string {
	w.t.Helper()
	status, out := w.do("POST", "/v1/proposals", body("asked", endpoint, curl))
	ids, _ := out["accepted_chunk_ids"].([]any)
	if status != 202 || len(ids) != 1 {
		w.t.Fatalf("%d %v", status, out)
	}
	return ids[0].(string)
}

// The whole loop, as an agent does it: refused, asked, approved by a person, allowed.
func TestTheAdvisorsLoop(t *testing.T) {
	w := newWorld(t)
	allowed := func() bool {
		who := &core.Identity{Status: core.IdentityKnown, Program: core.Program{Path: curl}}
		snap := w.engine.Current()
		p, denial := snap.Connection(t.Context(), decide.Question{Who: who, Host: "api.github.com", Port: 443})
		if denial != nil {
			return false
		}
		e, _ := snap.Endpoint(p, "/repos/a/issues")
		return snap.Request(p, e, &decide.Request{Method: "POST", Path: "/repos/a/issues"}).Allowed
	}
	if allowed() {
		t.Fatal("allowed from the start")
	}
	w.recent.Add(&core.Event{Kind: core.EventConnection, Time: time.Now(), Stage: core.StageRequest, Reason: core.ReasonPolicyDenied, Rule: "github",
		Host: "api.github.com", Port: 443, Method: "POST", Path: "/repos/a/issues", Program: core.Program{Path: curl}, Detail: "no rule"})
	if _, out := w.do("GET", "/v1/denials?last=5", ""); len(out["denials"].([]any)) != 1 {
		t.Errorf("the denial is not shown: %v", out)
	}
	id := w.submit(post)
	if _, out := w.do("GET", "/v1/proposals/"+id, ""); out["status"] != "pending" || out["policy_reloaded"] != nil {
		t.Errorf("it is %v", out)
	}
	if allowed() {
		t.Fatal("a proposal alone allows it")
	}
	r, err := w.store.Review(id)
	if err != nil {
		t.Fatal(err)
	}
	done := make(chan map[string]any)
	go func() {
		_, out := w.do("GET", "/v1/proposals/"+id+"/wait?timeout=60", "")
		done <- out
	}()
	if _, err := w.store.Approve(t.Context(), id, r.Hash, 1000); err != nil {
		t.Fatal(err)
	}
	if out := <-done; out["status"] != "approved" || out["policy_reloaded"] != true {
		t.Errorf("waiting ended with %v", out)
	}
	if !allowed() {
		t.Error("refused after the approval")
	}
	if _, out := w.do("GET", "/v1/policy/current", ""); !strings.Contains(out["policy_yaml"].(string), "/repos/a/issues") || strings.Contains(out["policy_yaml"].(string), "advisor") {
		t.Errorf("the current policy is %v", out)
	}
	status, out := w.do("POST", "/v1/proposals", body("again", post, curl))
	if reasons := fmt.Sprint(out["rejection_reasons"]); status != 202 || out["rejected_chunks"] != 1.0 || !strings.Contains(reasons, "already allows all of it") {
		t.Errorf("what is allowed is asked for again: %d %v", status, out)
	}
}

// F13: there is no way from here to a decision.
func TestNothingTheWorkloadSendsDecides(t *testing.T) {
	w := newWorld(t)
	id := w.submit(post)
	r, err := w.store.Review(id)
	if err != nil {
		t.Fatal(err)
	}
	for _, method := range []string{"POST", "PUT", "PATCH", "DELETE", "GET"} {
		for _, suffix := range []string{"/approve", "/approve?hash=" + r.Hash, "/decision", "/wait/approve", "", "/"} {
			if method == "GET" && suffix == "" {
				continue
			}
			if status, out := w.do(method, "/v1/proposals/"+id+suffix, `{"status":"approved","hash":"`+r.Hash+`"}`); status != 404 {
				t.Errorf("%s …%s is answered %d %v", method, suffix, status, out)
			}
		}
	}
	_, out := w.do("GET", "/v1/proposals/"+id, "")
	if out["status"] != "pending" {
		t.Errorf("it is %v", out)
	}
	if text := fmt.Sprint(out); strings.Contains(text, r.Hash) {
		t.Error("the workload is told the hash of the review")
	}
}

func TestRoutes(t *testing.T) {
	w := newWorld(t)
	id := w.submit(post)
	for _, tt := range []struct {
		method, target string
		status         int
		want           string
	}{
		{"GET", "/v1/policy/current", 200, "policy_yaml"},
		{"GET", "/v1/denials", 200, "nothing was refused"},
		{"GET", "/v1/denials?last=0", 200, "denials"},
		{"GET", "/v1/denials?last=99999999999999999999999", 200, "denials"},
		{"GET", "/v1/denials?last=x", 400, "last is a number"},
		{"GET", "/v1/denials?last=%zz", 400, "query of the URL"},
		{"GET", "/v1/proposals/" + id, 200, "pending"},
		{"GET", "/v1/proposals/" + id + "/wait?timeout=x", 400, "number of seconds"},
		{"GET", "/v1/proposals/0000000000000000", 404, "chunk_not_found"},
		{"GET", "/v1/proposals/0000000000000000/wait", 404, "chunk_not_found"},
		{"GET", "/v1/proposals/", 404, "not_found"},
		{"GET", "/v1/proposals//wait", 404, "not_found"},
		{"GET", "/v1/proposals/a/b", 404, "not_found"},
		{"GET", "/v1/proposals", 404, "not_found"},
		{"get", "/v1/denials", 404, "not_found"},
		{"GET", "/v1/proposals/{id}", 404, "chunk_not_found"},
		{"GET", "/", 404, "POST /v1/proposals"},
		{"POST", "/v1/policy/current", 404, "not_found"},
	} {
		status, out := w.do(tt.method, tt.target, "")
		if text := fmt.Sprint(out); status != tt.status || !strings.Contains(text, tt.want) {
			t.Errorf("%s %s: %d %v, want %d with %q", tt.method, tt.target, status, text, tt.status, tt.want)
		}
	}
	w.enabled = false
	for _, target := range []string{"/v1/policy/current", "/v1/proposals/" + id, "/nothing"} {
		if status, out := w.do("GET", target, ""); status != 404 || out["error"] != "feature_disabled" {
			t.Errorf("%s while it is off: %d %v", target, status, out)
		}
	}
	w.enabled, w.doc = true, nil
	if status, out := w.do("GET", "/v1/policy/current", ""); status != 404 || out["error"] != "policy_unavailable" {
		t.Errorf("without a policy: %d %v", status, out)
	}
}

func TestBodiesThatWereNotReadAreAnswered(t *testing.T) {
	for status, code := range map[int]string{400: "bad_request", 408: "request_timeout", 411: "length_required", 413: "body_too_large"} {
		if a := Unread(status); a.Status != status || !strings.Contains(string(a.JSON()), code) {
			t.Errorf("%d: %d %s", status, a.Status, a.JSON())
		}
	}
}

func TestWhatIsRefusedIsExplained(t *testing.T) {
	rest := func(s string) string { return `"host":"a.example.com","port":443,` + s }
	many := func(n int, one string) string { return strings.TrimSuffix(strings.Repeat(one+",", n), ",") }
	ops := func(s string) string { return `{"intent_summary":"x","operations":[` + s + `]}` }
	for _, tt := range []struct{ name, body, want string }{
		{"nothing", ``, "not JSON"},
		{"no object", `[]`, "addRule is the only operation"},
		{"not UTF-8", "{\"intent_summary\":\"\xff\"}", "not JSON"},
		{"a key twice", `{"operations":[],"operations":[]}`, "a key stands once"},
		{"a key twice in another case", `{"operations":[],"Operations":[]}`, "a key stands once"},
		{"deep", strings.Repeat("[", 200) + strings.Repeat("]", 200), "128 deep"},
		{"an unknown key", `{"operations":[],"approve":true}`, "approve"},
		{"another operation", ops(`{"removeRule":{"ruleName":"github"}}`), "removeRule"},
		{"no operation", ops(``), "operations is empty"},
		{"an empty operation", ops(`{}`), "there is no addRule"},
		{"too many operations", ops(many(maxOperations+1, `{}`)), "16 are allowed"},
		{"no name", body("", rest(`"access":"full"`), curl), "ruleName"},
		{"a name of another shape", body("a\nb", rest(`"access":"full"`), curl), "ruleName"},
		{"a long name", body(strings.Repeat("x", maxName+1), rest(`"access":"full"`), curl), "ruleName"},
		{"a rule that is no object", ops(`{"addRule":{"ruleName":"r","rule":[]}}`), "rule is an object"},
		{"a rule that is null", ops(`{"addRule":{"ruleName":"r","rule":null}}`), "rule is an object"},
		{"no endpoint", ops(`{"addRule":{"ruleName":"r","rule":{"binaries":[{"path":"/b"}]}}}`), "list at least one"},
		{"too many endpoints", ops(`{"addRule":{"ruleName":"r","rule":{"endpoints":[` + many(maxEndpoints+1, `{}`) + `]}}}`), "16 are allowed"},
		{"an endpoint that is no object", ops(`{"addRule":{"ruleName":"r","rule":{"endpoints":[1]}}}`), "endpoints[0]: write an object"},
		{"too many programs", ops(`{"addRule":{"ruleName":"r","rule":{"endpoints":[{}],"binaries":[` + many(maxBinaries+1, `{}`) + `]}}}`), "32 are allowed"},
		{"too many rules", body("r", rest(`"protocol":"rest","rules":[`+many(maxRules+1, `{}`)+`]`), curl), "64 are allowed"},
		{"an unknown key of a rule", ops(`{"addRule":{"ruleName":"r","rule":{"endpoints":[{"host":"a.b.c","port":1}],"approved":true}}}`), "unknown key"},
		{"credentials", body("r", rest(`"protocol":"rest","access":"full","request_body_credential_rewrite":true`), curl), "a proposal cannot set this"},
		{"more credentials", body("r", rest(`"allow_uninspected_credentials":true`), curl), "a proposal cannot set this"},
		{"the mark of the system", body("r", rest(`"advisor_proposed":false`), curl), "a proposal cannot set this"},
		{"a query in a path", body("r", rest(`"protocol":"rest","rules":[{"allow":{"method":"GET","path":"/a?b=c"}}]`), curl), "no ? in it"},
		{"a query in a deny rule", body("r", rest(`"protocol":"rest","access":"full","deny_rules":[{"method":"GET","path":"/a?b"}]`), curl), "no ? in it"},
		{"every host", body("r", `"host":"*","port":443`, curl), "is every host"},
		{"a top-level domain", body("r", `"host":"*.com","port":443`, curl), "too wide"},
		{"metadata", body("r", `"host":"metadata.google.internal","port":80`, curl), "refused in every mode"},
		{"the metadata address", body("r", `"host":"169.254.169.254","port":80`, curl), "refused in every mode"},
		{"loopback", body("r", `"host":"a.example.com","port":80,"allowed_ips":["127.0.0.1"]`, curl), "refused in every mode"},
		{"no host", body("r", `"port":443`, curl), "host is missing"},
		{"a text as port", body("r", `"host":"a.example.com","port":"443"`, curl), "port"},
		{"a fraction as port", body("r", `"host":"a.example.com","port":443.5`, curl), "decimal number"},
		{"null", body("r", `"host":null,"port":443`, curl), "found nothing"},
		{"an unknown protocol", body("r", rest(`"protocol":"gopher"`), curl), "unknown word"},
		{"rules without protocol", body("r", rest(`"rules":[{"allow":{"method":"GET","path":"/"}}]`), curl), "add a protocol"},
		{"a program that is no path", body("r", rest(`"tls":"skip"`), "curl"), "not absolute"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			w := newWorld(t)
			status, out := w.do("POST", "/v1/proposals", tt.body)
			if detail := fmt.Sprint(out["detail"]); status != 400 || out["error"] != "invalid_proposal" || !strings.Contains(detail, tt.want) {
				t.Errorf("%d %v, want 400 with %q", status, out, tt.want)
			}
			if n := len(w.store.List()); n != 0 {
				t.Errorf("%d proposals are kept", n)
			}
		})
	}
}

func TestWhatIsTaken(t *testing.T) {
	for _, endpoint := range []string{
		post,
		`"host":"mcp.example.com","port":443,"protocol":"mcp","rules":[{"allow":{"method":"tools/call","tool":"read_file"}}]`,
		`"host":"mcp.example.com","port":443,"protocol":"mcp","mcp":{"allow_all_known_mcp_methods":true}`,
		`"host":"rpc.example.com","port":443,"protocol":"json-rpc","rules":[{"allow":{"method":"eth_call","params":{"to":"0x*"}}}]`,
		`"host":"gql.example.com","port":443,"protocol":"graphql","rules":[{"allow":{"operation_type":"query","fields":["viewer"]}}]`,
		`"host":"ws.example.com","ports":[443,8443],"protocol":"websocket","access":"read-only"`,
		`"host":"a.example.com","port":443,"protocol":"rest","path":"/v1/**","rules":[{"allow":{"method":"GET","path":"/v1/&x","query":{"a&<>":{"any":["1","<\u00e9>"]}}}}]`,
		`"host":"10.1.2.3","port":443,"allowed_ips":["10.1.2.3"]`,
	} {
		w := newWorld(t)
		e, err := w.store.Get(w.submit(endpoint))
		if err != nil {
			t.Fatal(err)
		}
		if x := e.Rule.Endpoints[0]; x.Protocol.Inspected() && !x.Enforce || !x.AdvisorProposed {
			t.Errorf("%s: enforced %v, marked %v", endpoint, x.Enforce, x.AdvisorProposed)
		}
	}
}

// The example of the guide that agents are given is taken as it stands.
func TestTheGuidesExampleIsTaken(t *testing.T) {
	guide, err := os.ReadFile("../../../supervisor-process/internal/prepare/skill/policy_advisor.md")
	if err != nil {
		t.Fatal(err)
	}
	_, example, ok := strings.Cut(string(guide), "POST http://policy.local/v1/proposals")
	_, example, ok2 := strings.Cut(example, "application/json\n")
	example, _, ok3 := strings.Cut(example, "```")
	if !ok || !ok2 || !ok3 {
		t.Fatal("the guide has no example")
	}
	w := newWorld(t)
	if status, out := w.do("POST", "/v1/proposals", example); status != 202 || out["accepted_chunks"] != 1.0 {
		t.Errorf("%d %v", status, out)
	}
}

// F14: what widens is taken and named, and waits like the rest.
func TestWhatWidensIsFlagged(t *testing.T) {
	for _, tt := range []struct{ endpoint, binary, want string }{
		{`"host":"*.example.com","port":443`, curl, "nobody has looked at"},
		{`"host":"93.184.216.34","port":443`, curl, "is an address"},
		{`"host":"a.example.com","port":443,"protocol":"rest","access":"full"`, curl, "more than reading"},
		{`"host":"a.example.com","port":443,"protocol":"rest","access":"full","enforcement":"audit"`, curl, "not enforced"},
		{`"host":"a.example.com","port":443,"tls":"skip"`, curl, "not looked at"},
		{`"host":"a.example.com","port":443`, "/**", "programs that nobody"},
	} {
		w := newWorld(t)
		_, out := w.do("POST", "/v1/proposals", body("wide", tt.endpoint, tt.binary))
		id := out["accepted_chunk_ids"].([]any)[0].(string)
		_, out = w.do("GET", "/v1/proposals/"+id, "")
		if notes := fmt.Sprint(out["review_notes"]); !strings.Contains(notes, tt.want) || out["status"] != "pending" {
			t.Errorf("%s: %v", tt.endpoint, out)
		}
	}
}

// A rule that would be refused for its addresses says so, instead of being asked for
// again and again.
func TestAPrivateAddressNeedsAllowedIPs(t *testing.T) {
	w := newWorld(t)
	w.recent.Add(&core.Event{Kind: core.EventConnection, Reason: core.ReasonSSRFDenied, Host: "wiki.corp.example", Port: 443, Detail: "wiki.corp.example resolves to internal address 10.0.0.7"})
	for _, tt := range []struct{ endpoint, want string }{
		{`"host":"10.1.2.3","port":443`, "allowed_ips: [\"10.1.2.3\"]"},
		{`"host":"wiki.corp.example","port":443`, "resolves to internal address 10.0.0.7"},
	} {
		_, out := w.do("POST", "/v1/proposals", body("r", tt.endpoint, curl))
		if reasons := fmt.Sprint(out["rejection_reasons"]); !strings.Contains(reasons, "needs_allowed_ips") || !strings.Contains(reasons, tt.want) {
			t.Errorf("%s: %v", tt.endpoint, out)
		}
	}
	w.submit(`"host":"wiki.corp.example","port":443,"allowed_ips":["10.0.0.7"]`)
}

func TestARejectionCarriesItsReason(t *testing.T) {
	w := newWorld(t)
	id := w.submit(post)
	if _, err := w.store.Reject(id, "use the internal tracker", 1000); err != nil {
		t.Fatal(err)
	}
	if _, out := w.do("GET", "/v1/proposals/"+id+"/wait", ""); out["status"] != "rejected" || out["rejection_reason"] != "use the internal tracker" || out["timed_out"] != nil {
		t.Errorf("%v", out)
	}
	_, out := w.do("POST", "/v1/proposals", body("again", post, curl))
	if reasons := fmt.Sprint(out["rejection_reasons"]); !strings.Contains(reasons, "use the internal tracker") {
		t.Errorf("the same again: %v", out)
	}
}

// F17: nothing of the workload's breaks a line or a terminal.
func TestDenialsAreOneLineEach(t *testing.T) {
	w := newWorld(t)
	evil := "x\n2026-01-01T00:00:00.000Z OCSF NET:OPEN [INFO] ALLOWED \x1b[2K\"" + strings.Repeat("y", 1<<20)
	w.recent.Add(&core.Event{Kind: core.EventConnection, Time: time.Date(2026, 11, 1, 12, 0, 0, 0, time.UTC), Stage: core.StageRequest, Reason: core.ReasonPolicyDenied,
		Host: evil, Port: 443, Method: evil, Path: evil, Rule: evil, Program: core.Program{Path: evil}, Detail: evil, Severity: core.SeverityMedium})
	w.recent.Add(&core.Event{Kind: core.EventConnection, Time: time.Date(2026, 11, 1, 12, 0, 0, 0, time.UTC), Stage: core.StageConnect, Reason: core.ReasonPolicyDenied,
		Host: "h.example.com", Port: 443, Program: core.Program{Path: "/usr/bin/nc"}, Process: core.ProcessRef{PID: 90}, Detail: "no matching policy", Severity: core.SeverityMedium})
	_, out := w.do("GET", "/v1/denials", "")
	lines := out["denials"].([]any)
	want := "2026-11-01T12:00:00.000Z OCSF NET:OPEN [MED] DENIED /usr/bin/nc(90) -> h.example.com:443 [policy:- engine:opa] [reason:policy_denied: no matching policy]"
	if len(lines) != 2 || lines[0] != want {
		t.Errorf("the newest is %v, want %s", lines[0], want)
	}
	bad := lines[1].(string)
	if strings.ContainsAny(bad, "\n\r\x1b") || len(bad) > 8192 || !strings.HasPrefix(bad, "2026-11-01T12:00:00.000Z OCSF HTTP:x%202026") {
		t.Errorf("a forged line of %d bytes: %.300q", len(bad), bad)
	}
}

func TestWaitsEndAndAreBounded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		id := w.submit(post)
		begun := time.Now()
		answers := make(chan map[string]any, maxWaits)
		for range maxWaits {
			go func() {
				_, out := w.do("GET", "/v1/proposals/"+id+"/wait?timeout=100000", "")
				answers <- out
			}()
		}
		synctest.Wait()
		if status, out := w.do("GET", "/v1/proposals/"+id+"/wait", ""); status != 503 || out["error"] != "too_many_waits" {
			t.Errorf("one more: %d %v", status, out)
		}
		for range maxWaits {
			if out := <-answers; out["timed_out"] != true || out["status"] != "pending" {
				t.Errorf("%v", out)
			}
		}
		if took := time.Since(begun); took != longestWait {
			t.Errorf("it took %s, want %s", took, longestWait)
		}
		if _, out := w.do("GET", "/v1/proposals/"+id+"/wait?timeout=0", ""); out["timed_out"] != true || time.Since(begun) != longestWait+time.Second {
			t.Errorf("the shortest wait: %v after %s", out, time.Since(begun))
		}
	})
}

func TestProposalsHaveARate(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		for range 20 {
			if status, _ := w.do("POST", "/v1/proposals", "{"); status != 400 {
				t.Fatalf("status %d", status)
			}
		}
		if status, out := w.do("POST", "/v1/proposals", "{"); status != 429 {
			t.Errorf("one more: %d %v", status, out)
		}
		time.Sleep(time.Second)
		if status, _ := w.do("POST", "/v1/proposals", "{"); status != 400 {
			t.Errorf("a second later: %d", status)
		}
	})
}

// FuzzSubmission: a body is refused, or is rules that a policy file could have, within
// the limits, none of which touches credentials.
func FuzzSubmission(f *testing.F) {
	f.Add(body("r", post, curl))
	f.Add(body("r", `"host":"mcp.example.com","port":443,"protocol":"mcp","mcp":{"strict_tool_names":false},"rules":[{"allow":{"method":"tools/call","tool":"x"}}]`, "/**"))
	f.Add(`{"operations":[{"addRule":{"ruleName":"a.b","rule":{"endpoints":[{"host":"\ud83d\ude00"}]}}}]}`)
	f.Fuzz(func(t *testing.T, in string) {
		if len(in) > MaxBody {
			return
		}
		got, err := readSubmission([]byte(in))
		if (err == nil) != (len(got) > 0) {
			t.Fatalf("%d proposals with %v", len(got), err)
		}
		for _, p := range got {
			for _, e := range p.Rule.Endpoints {
				if e.CredentialSigning != "" || e.RequestBodyCredentialRewrite || e.WebSocketCredentialRewrite || e.AllowUninspectedCredentials || e.CredentialBindingProvider != "" {
					t.Fatalf("%q asks for credentials", in)
				}
			}
			if len(p.Rule.Endpoints) > maxEndpoints || len(p.Rule.Binaries) > maxBinaries {
				t.Fatal("a limit is passed")
			}
			doc := &policy.Document{Version: 1, Network: map[string]policy.Rule{p.Name: p.Rule}}
			if _, _, err := policy.Parse("f", policy.Encode(doc)); err != nil {
				t.Fatalf("%q is no valid rule: %v", in, err)
			}
		}
	})
}
