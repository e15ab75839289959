package e2e_test

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"strings"
	"testing"
	"time"

	gossh "golang.org/x/crypto/ssh"

	gatewayv1 "github.com/splitpod/splitpod/api/gateway/v1"
	"github.com/splitpod/splitpod/test/need"
	"github.com/splitpod/splitpod/test/openshell"
)

// governed is a gateway for a sandbox that has no policy yet, and what the network daemon
// is told of it.
func governed(t *testing.T, p *pair) (g *openshell.Gateway, token string, flags []string) {
	t.Helper()
	server, ca, cert, key := openshell.Certificates(t, p.dir+"/config", "gateway.test", true)
	g = openshell.Start(t, "127.0.0.1:0", server)
	token = openshell.Token("REALgateway", time.Now().Add(time.Hour))
	g.Take(token)
	file := p.dir + "/config/sandbox.jwt"
	must(t, os.WriteFile(file, []byte(token+"\n"), 0o400))
	must(t, os.Chown(file, networkUID, networkUID))
	return g, token, []string{"--policy=", "--gateway", "https://" + g.Address, "--gateway-server-name", "gateway.test", "--gateway-sandbox", openshell.SandboxID,
		"--gateway-token", file, "--gateway-ca", ca, "--gateway-cert", cert, "--gateway-key", key, "--gateway-poll", "100ms"}
}

// configOf is what a gateway answers with a policy that lets curl reach hosts of the test's
// world.
func configOf(version uint32, hosts ...string) *gatewayv1.GetSandboxConfigResponse {
	rules := map[string]*gatewayv1.NetworkPolicyRule{}
	for _, h := range hosts {
		rules[strings.ReplaceAll(h, ".", "_")] = &gatewayv1.NetworkPolicyRule{
			Endpoints: []*gatewayv1.NetworkEndpoint{{Host: h, Ports: []uint32{80, 443}}}, Binaries: []*gatewayv1.NetworkBinary{{Path: "/usr/bin/curl"}},
		}
	}
	return &gatewayv1.GetSandboxConfigResponse{
		Policy:  &gatewayv1.SandboxPolicy{Version: 1, Process: &gatewayv1.ProcessPolicy{RunAsUser: "1000", RunAsGroup: "1000"}, NetworkPolicies: rules},
		Version: version, PolicyHash: fmt.Sprintf("h%d", version), ConfigRevision: uint64(version), PolicySource: gatewayv1.PolicySource_POLICY_SOURCE_SANDBOX,
	}
}

// TestAGatewayGovernsASandbox: nothing runs without a policy; the gateway's governs, its
// next one revokes, one that cannot be used is refused with its place; its users get in by
// SSH and to what the workload serves; and that it is gone changes nothing.
func TestAGatewayGovernsASandbox(t *testing.T) {
	need.Program(t, "curl")
	p := newPair(t, policyText)
	g, token, flags := governed(t, p)
	p.startNetwork(append(flags, "--admin-listen", "127.0.0.1:"+adminPort)...)
	p.startProcess("sh", "-c", "cd /tmp && python3 -m http.server --bind 127.0.0.1 8123 >/dev/null 2>&1 & echo ready; sleep 1000")
	health := func() string {
		_, body := fetch(t, "http://127.0.0.1:"+adminPort+"/readyz?verbose")
		return string(body)
	}
	eventually(t, "what the daemon waits for", func() bool { return strings.Contains(health(), "NotFound: no such sandbox") })
	if strings.Contains(p.process.out.String(), "ready") || !strings.Contains(health(), "everything is denied until it gives a policy") {
		t.Errorf("without a policy: %s, %s", p.process.out, health())
	}

	loaded, failed := gatewayv1.PolicyStatus_POLICY_STATUS_LOADED, gatewayv1.PolicyStatus_POLICY_STATUS_FAILED
	g.Configure(configOf(1, "api.demo.test", "git.demo.test"))
	if r := g.Report(0); r.GetStatus() != loaded || r.GetVersion() != 1 {
		t.Errorf("the first policy: %v", r)
	}
	eventually(t, "the workload", func() bool { return strings.Contains(p.process.out.String(), "ready") })
	p.takesExec()
	ask := func(host string) string {
		_, out, errs := command(t, "supervisor-process", "exec", "--run-dir", p.dir+"/run", "--", "curl", "-sS", "-m", "120", "-w", " %{http_code}", "https://"+host+"/")
		return out + errs
	}
	for host, want := range map[string]string{"api.demo.test": " 200", "git.demo.test": " 200", "six.demo.test": "response 403"} {
		if out := ask(host); !strings.Contains(out, want) {
			t.Errorf("%s: %s", host, out)
		}
	}

	g.Configure(configOf(2, "api.demo.test"))
	if r := g.Report(1); r.GetStatus() != loaded || r.GetVersion() != 2 {
		t.Errorf("the next policy: %v", r)
	}
	if out := ask("git.demo.test"); !strings.Contains(out, "response 403") {
		t.Errorf("what the next policy has not: %s", out)
	}

	bad := configOf(3, "api.demo.test")
	bad.PolicyValidationFailureMode = "retain_last_valid"
	bad.Policy.NetworkPolicies["api_demo_test"].Endpoints[0].Protocol = "gopher"
	g.Configure(bad)
	if r := g.Report(2); r.GetStatus() != failed || r.GetVersion() != 3 || !strings.Contains(r.GetLoadError(), "network_policies.api_demo_test.endpoints[0].protocol") {
		t.Errorf("one that cannot be used: %v", r)
	}
	if out := ask("api.demo.test"); !strings.Contains(out, " 200") {
		t.Errorf("the policy before: %s", out)
	}
	bad.PolicyValidationFailureMode, bad.Version = "fail_closed", 4
	g.Configure(bad)
	if r := g.Report(3); r.GetStatus() != failed || r.GetVersion() != 4 {
		t.Errorf("the same, and nothing may stay: %v", r)
	}
	if out := ask("api.demo.test"); !strings.Contains(out, "response 503") && !strings.Contains(out, "response 403") {
		t.Errorf("nothing stays: %s", out)
	}
	g.Configure(configOf(5, "api.demo.test"))
	if r := g.Report(4); r.GetStatus() != loaded || r.GetVersion() != 5 {
		t.Errorf("one that can: %v", r)
	}
	if out := ask("api.demo.test"); !strings.Contains(out, " 200") {
		t.Errorf("and it governs: %s", out)
	}

	out, code := bySSH(t, g, "echo hello; id -u; exit 7")
	if out != "hello\n1000\n" || code != 7 {
		t.Errorf("a command by SSH: exit code %d, %q", code, out)
	}
	eventually(t, "a server in the sandbox", func() bool {
		c, err := g.Open(&gatewayv1.TcpRelayTarget{Host: "127.0.0.1", Port: 8123})
		if err == nil {
			c.Close()
		}
		return err == nil
	})
	if body := servedBy(t, g, 8123, "/"); !strings.Contains(body, "Directory listing") {
		t.Errorf("what the workload serves: %s", body)
	}
	if _, err := g.Open(&gatewayv1.TcpRelayTarget{Host: "10.77.0.1", Port: 80}); err == nil {
		t.Error("a relay leads out of the sandbox")
	}
	if _, err := g.Open(&gatewayv1.TcpRelayTarget{Host: "127.0.0.1", Port: 1}); err == nil {
		t.Error("a relay leads to where nobody listens")
	}

	open, err := g.Open(nil)
	must(t, err)
	metrics := exported(t, adminPort, "splitpod_gateway_session 1", "splitpod_gateway_relays 1", "splitpod_gateway_answered_timestamp_seconds 1")
	g.Stop()
	if _, err := io.ReadAll(open); err != nil {
		t.Error(err)
	}
	eventually(t, "what the daemon says of a gateway that is gone", func() bool { return strings.Contains(health(), "the policy in force stays") })
	if out := ask("api.demo.test"); !strings.Contains(out, " 200") {
		t.Errorf("without the gateway: %s", out)
	}
	if code, out, errs := command(t, "supervisor-network", "healthcheck", "--url", "http://127.0.0.1:"+adminPort+"/readyz"); code != 0 {
		t.Errorf("the daemon is not ready without the gateway: %s%s", out, errs)
	}
	for _, reason := range []string{"gateway_reached", "gateway_lost", "gateway_session_opened", "gateway_session_closed", "gateway_relay_opened", "gateway_relay_closed", "gateway_relay_failed", "gateway_relay_refused"} {
		for daemon, records := range map[string]func() string{"network": p.network.out.String, "process": p.processRecords} {
			eventually(t, reason+" in the records of the "+daemon+" daemon", func() bool { return strings.Contains(records(), `"reason":"`+reason+`"`) })
		}
	}
	cmdline, err := os.ReadFile(fmt.Sprintf("/proc/%d/cmdline", p.network.cmd.Process.Pid))
	must(t, err)
	_, view := fetch(t, "http://127.0.0.1:"+adminPort+"/view.json")
	for name, text := range map[string]string{"records": p.network.out.String(), "log": p.network.err.String(), "the other's records": p.processRecords(), "the other's output": p.process.out.String() + p.process.err.String(),
		"arguments": string(cmdline), "the view": string(view), "health": health(), "metrics": metrics} {
		if strings.Contains(text, token) || strings.Contains(text, token[strings.LastIndexByte(token, '.'):]) {
			t.Errorf("the token is in %s", name)
		}
	}
}

// TestAGatewayHearsHowTheWorkloadEnded, and a policy file beside a gateway starts nothing.
func TestAGatewayHearsHowTheWorkloadEnded(t *testing.T) {
	p := newPair(t, policyText)
	g, _, flags := governed(t, p)
	g.Configure(configOf(1))
	p.startNetwork(flags...)
	p.startProcess("sh", "-c", "kill -TERM $$")
	if code := p.process.wait(t); code != 143 {
		t.Errorf("exit code %d", code)
	}
	if e := g.Exit(); e.GetExitCode() != 143 || e.GetInstanceId() == "" {
		t.Errorf("%v", e)
	}
	both := start(t, p.networkArgs(flags[1:])...)
	if code := both.wait(t); code != 78 || !strings.Contains(both.err.String(), "--policy and --gateway") {
		t.Errorf("%d: %s", code, both.err)
	}
}

// bySSH runs a command in the sandbox as a user of the gateway does.
func bySSH(t *testing.T, g *openshell.Gateway, line string) (out string, code int) {
	t.Helper()
	relay, err := g.Open(nil)
	must(t, err)
	defer relay.Close()
	conn, channels, requests, err := gossh.NewClientConn(relay, "sandbox", &gossh.ClientConfig{User: "sandbox", HostKeyCallback: gossh.InsecureIgnoreHostKey()})
	must(t, err)
	client := gossh.NewClient(conn, channels, requests)
	defer client.Close()
	s, err := client.NewSession()
	must(t, err)
	var b bytes.Buffer
	s.Stdout = &b
	switch err := s.Run(line).(type) {
	case nil:
		return b.String(), 0
	case *gossh.ExitError:
		return b.String(), err.ExitStatus()
	default:
		t.Fatal(err)
		return "", -1
	}
}

// servedBy asks what the workload serves on its loopback.
func servedBy(t *testing.T, g *openshell.Gateway, port uint32, path string) string {
	t.Helper()
	client := http.Client{Transport: &http.Transport{DialContext: func(context.Context, string, string) (net.Conn, error) {
		return g.Open(&gatewayv1.TcpRelayTarget{Host: "127.0.0.1", Port: port})
	}}}
	res, err := client.Get("http://localhost" + path)
	must(t, err)
	defer res.Body.Close()
	body, err := io.ReadAll(res.Body)
	must(t, err)
	return string(body)
}
