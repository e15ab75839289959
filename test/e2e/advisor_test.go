package e2e_test

import (
	"encoding/json"
	"fmt"
	"os/exec"
	"regexp"
	"strings"
	"testing"
)

// operator runs a command of the operator's, as the daemon's own user.
func (p *pair) operator(args ...string) (out string, ok bool) {
	p.t.Helper()
	argv := append([]string{"--reuid", fmt.Sprint(networkUID), "--regid", fmt.Sprint(networkUID), "--clear-groups", binary(p.t, "supervisor-network")}, args...)
	b, err := exec.Command("setpriv", append(argv, "--state-dir", p.dir+"/state")...).CombinedOutput()
	return string(b), err == nil
}

// local asks policy.local through the proxy, as the workload does.
func local(t *testing.T, method, path, body string) (status string, answer map[string]any) {
	t.Helper()
	out := talk(t, fmt.Sprintf("%s http://policy.local%s HTTP/1.1\r\nHost: policy.local\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n%s", method, path, len(body), body))
	head, text, _ := strings.Cut(out, "\r\n\r\n")
	if err := json.Unmarshal([]byte(text), &answer); err != nil {
		t.Fatalf("%s %s: %v in %q", method, path, err, out)
	}
	return strings.TrimPrefix(head[:len("HTTP/1.1 200")], "HTTP/1.1 "), answer
}

const advisedPolicy = `version: 1
network_policies:
  api:
    endpoints: [{host: api.demo.test, port: 80, protocol: rest, enforcement: enforce, rules: [{allow: {method: GET, path: "/"}}]}]
    binaries: [{path: /usr/bin/curl}]
`

// TestTheAdvisorLoop: an agent that is refused reads why, proposes the rule it needs,
// waits for an operator, and tries again. Nothing it can do approves anything.
func TestTheAdvisorLoop(t *testing.T) {
	p := standalone(t, advisedPolicy, "--agent-proposals")
	const request = "GET http://api.demo.test/echo HTTP/1.1\r\nHost: api.demo.test\r\nConnection: close\r\n\r\n"
	refused := talk(t, request)
	for _, want := range []string{"HTTP/1.1 403", `"next_steps":[{"action":"read_skill"`, `"rule_missing":{"type":"rest_allow"`, "agent_guidance", "X-OpenShell-Policy: api"} {
		if !strings.Contains(refused, want) {
			t.Fatalf("no %s in %q", want, refused)
		}
	}
	if status, answer := local(t, "GET", "/v1/denials?last=5", ""); status != "200" || !strings.Contains(fmt.Sprint(answer["denials"]), "/echo") {
		t.Errorf("denials: %s %v", status, answer)
	}
	status, answer := local(t, "POST", "/v1/proposals", `{"intent_summary":"read the echo","operations":[{"addRule":{"ruleName":"echo","rule":{"name":"echo",`+
		`"endpoints":[{"host":"api.demo.test","port":80,"protocol":"rest","enforcement":"enforce","rules":[{"allow":{"method":"GET","path":"/echo"}}]}],"binaries":[{"path":"/usr/bin/curl"}]}}}]}`)
	ids, _ := answer["accepted_chunk_ids"].([]any)
	if status != "202" || len(ids) != 1 {
		t.Fatalf("proposal: %s %v", status, answer)
	}
	id := fmt.Sprint(ids[0])
	for _, path := range []string{"/v1/proposals/" + id + "/approve", "/v1/proposals/" + id} {
		if status, answer := local(t, "POST", path, `{"status":"approved"}`); status != "404" {
			t.Errorf("the workload could POST %s: %s %v", path, status, answer)
		}
	}
	if again := talk(t, request); !strings.HasPrefix(again, "HTTP/1.1 403") {
		t.Fatalf("a proposal alone changed something: %q", again)
	}

	shown, ok := p.operator("proposals", "show", id)
	hash := ""
	if m := regexp.MustCompile(`approve ` + id + ` ([0-9a-f]+)`).FindStringSubmatch(shown); m != nil {
		hash = m[1]
	}
	if !ok || hash == "" || !strings.Contains(shown, "/echo") {
		t.Fatalf("show: %q", shown)
	}
	if out, ok := p.operator("proposals", "approve", id, strings.Repeat("0", len(hash))); ok {
		t.Fatalf("another hash was approved: %q", out)
	}
	if out, ok := p.operator("proposals", "approve", id, hash); !ok {
		t.Fatalf("approve: %q", out)
	}
	if status, answer := local(t, "GET", "/v1/proposals/"+id+"/wait?timeout=20", ""); status != "200" || answer["status"] != "approved" || answer["policy_reloaded"] != true {
		t.Errorf("wait: %s %v", status, answer)
	}
	if again := talk(t, request); !strings.HasPrefix(again, "HTTP/1.1 200") || !strings.Contains(again, "GET /echo") {
		t.Errorf("after the approval: %q", again)
	}
	if out, ok := p.operator("proposals", "export"); !ok || !strings.Contains(out, "/echo") {
		t.Errorf("export: %q", out)
	}
	if out, ok := p.operator("proposals", "revoke", id, "no longer needed"); !ok {
		t.Fatalf("revoke: %q", out)
	}
	if again := talk(t, request); !strings.HasPrefix(again, "HTTP/1.1 403") {
		t.Errorf("after it was revoked: %q", again)
	}
}

func TestPolicyLocalIsOffUnlessAsked(t *testing.T) {
	standalone(t, advisedPolicy)
	if status, answer := local(t, "GET", "/v1/policy/current", ""); status != "404" || answer["error"] != "feature_disabled" {
		t.Errorf("%s %v", status, answer)
	}
	if out := talk(t, "CONNECT policy.local:80 HTTP/1.1\r\nHost: policy.local:80\r\n\r\n"); !strings.HasPrefix(out, "HTTP/1.1 403") {
		t.Errorf("over CONNECT: %q", out)
	}
	if out := talk(t, "GET http://api.demo.test/echo HTTP/1.1\r\nHost: api.demo.test\r\nConnection: close\r\n\r\n"); !strings.Contains(out, `"next_steps":[]`) || strings.Contains(out, "agent_guidance") {
		t.Errorf("a refusal: %q", out)
	}
}
