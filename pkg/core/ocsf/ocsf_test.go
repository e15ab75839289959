package ocsf_test

import (
	"bytes"
	"encoding/json"
	"flag"
	"net/netip"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/splitpod/splitpod/pkg/core"
	"github.com/splitpod/splitpod/pkg/core/ocsf"
)

var update = flag.Bool("update", false, "write the golden file")

var (
	when    = time.UnixMilli(1790000000123).UTC()
	context = ocsf.Context{Build: core.Build{Component: "supervisor-network", Version: "0.1.0"}, Hostname: "pod-7", Proxy: netip.MustParseAddrPort("127.0.0.1:3128"), Instance: "0123456789abcdef0123456789abcdef"}
)

func events() []core.Event {
	return []core.Event{
		{Kind: core.EventConnection, Time: when, RequestID: "0123456789abcdef", Stage: core.StageConnect, Severity: core.SeverityInfo,
			Verdict: core.Allow, Reason: core.ReasonAllowed, Host: "api.example.com", Port: 443, Protocol: "tcp", Rule: "api", Address: "192.0.2.7:443",
			Process: core.ProcessRef{PID: 7, StartTime: 99}, UID: 1000, Program: core.Program{Path: "/usr/bin/curl", SHA256: "aa"},
			Ancestors: []core.Program{{Path: "/bin/sh"}}, BytesUp: 10, BytesDn: 20, Duration: 1500 * time.Millisecond, Generation: 3},
		{Kind: core.EventConnection, Time: when, Stage: core.StageForward, Severity: core.SeverityMedium, Reason: core.ReasonPolicyDenied,
			Host: "10.0.0.1", Port: 80, Method: "GET", Path: "/a", Detail: "no rule"},
		{Kind: core.EventConnection, Time: when, RequestID: "0123456789abcdef", Stage: core.StageRequest, Severity: core.SeverityInfo,
			Verdict: core.Allow, Reason: core.ReasonAllowed, Host: "code.example.org", Port: 443, Protocol: "tcp", Method: "POST", Path: "/graphql",
			Application: core.ApplicationGraphQL, Status: 201, Rule: "code", Source: netip.MustParseAddrPort("127.0.0.1:40112"),
			TraceParent: "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01",
			Process:     core.ProcessRef{PID: 88}, UID: 1000, Program: core.Program{Path: "/usr/bin/git"}, Generation: 3},
		{Kind: core.EventConnection, Time: when, Stage: core.StageConnect, Severity: core.SeverityLow, Verdict: core.Allow,
			Reason: core.ReasonUpstreamUnreachable, Host: "db.example.org", Port: 5432, Protocol: "tcp", Rule: "db", Detail: "no validated address answered"},
		{Kind: core.EventConnection, Time: when, Stage: core.StageListen, Severity: core.SeverityMedium, Reason: core.ReasonBadRequest, Protocol: "tcp"},
		{Kind: core.EventWorkload, Time: when, Stage: core.StageLaunch, Severity: core.SeverityInfo, Reason: core.EventLaunched,
			Process: core.ProcessRef{PID: 2}, Program: core.Program{Path: "/bin/agent"}},
		{Kind: core.EventLifecycle, Time: when, Stage: core.StageControl, Severity: core.SeverityInfo, Reason: "started", Detail: "supervisor-network 0.1.0"},
		{Kind: core.EventBypass, Time: when, Stage: core.StageBypass, Severity: core.SeverityMedium, Reason: core.ReasonBypass,
			Host: "2001:db8::1", Port: 53, Protocol: "udp", UID: 1000, Count: 4},
		{Kind: core.EventWorkload, Time: when, Stage: core.StageLaunch, Severity: core.SeverityInfo, Reason: core.EventExited, ExitCode: 0,
			Process: core.ProcessRef{PID: 2}, Program: core.Program{Path: "/bin/agent"}},
		{Kind: core.EventFinding, Time: when, Stage: core.StageControl, Severity: core.SeverityHigh, Reason: "fence_tampered", Detail: "a rule is gone"},
		{Kind: core.EventLifecycle, Time: when, Stage: core.StageConfig, Severity: core.SeverityInfo, Reason: "policy_loaded"},
		{Kind: core.EventLifecycle, Time: when, Stage: core.StageSSH, Severity: core.SeverityInfo, Reason: core.EventSSHOpened, Detail: "agent logged in by publickey"},
		{Kind: core.EventLifecycle, Time: when, Stage: core.StageSSH, Severity: core.SeverityMedium, Reason: core.EventSSHRefused, Detail: "forwarding to 10.0.0.9:22: only the sandbox's own loopback"},
		{Kind: core.EventLifecycle, Time: when, Stage: core.StageSSH, Severity: core.SeverityMedium, Reason: core.EventSSHUnsupported, Detail: "subsystem x11"},
		{Kind: core.EventFinding, Time: when, Stage: core.StageLaunch, Severity: core.SeverityLow, Reason: core.EventNoPIDLimit, Detail: "max"},
		{Kind: core.EventLifecycle, Time: when, Stage: core.StageSSH, Severity: core.SeverityInfo, Reason: core.EventSSHListening, Detail: "host key SHA256:x"},
		{Kind: core.EventLifecycle, Time: when, Stage: core.StageSSH, Severity: core.SeverityInfo, Reason: core.EventSSHClosed, Detail: "after 2s"},
		{Kind: core.EventLifecycle, Time: when, Stage: core.StageSSH, Severity: core.SeverityLow, Reason: core.EventSSHFailed, Detail: "nobody logged in: EOF"},
		{Kind: core.EventConnection, Time: when, RequestID: "0123456789abcdef", Stage: core.StageAPI, Severity: core.SeverityInfo, Verdict: core.Allow, Reason: core.ReasonAllowed,
			Host: "policy.local", Port: 80, Protocol: "tcp", Method: "POST", Path: "/v1/proposals", Status: 202, Rule: "policy.local",
			Source: netip.MustParseAddrPort("127.0.0.1:40112"), Process: core.ProcessRef{PID: 88}, UID: 1000, Program: core.Program{Path: "/usr/bin/curl"}},
		{Kind: core.EventConnection, Time: when, RequestID: "0123456789abcdef", Stage: core.StageAPI, Severity: core.SeverityInfo, Verdict: core.Allow, Reason: core.ReasonAllowed,
			Host: "policy.local", Port: 80, Protocol: "tcp", Method: "GET", Path: "/v1/nothing", Status: 404, Rule: "policy.local", Source: netip.MustParseAddrPort("127.0.0.1:40113")},
		{Kind: core.EventLifecycle, Time: when, Stage: core.StageAPI, Severity: core.SeverityMedium, Reason: core.EventAdminTokenWrong, Detail: "another token", Count: 7,
			Source: netip.MustParseAddrPort("127.0.0.1:51000"), Host: "127.0.0.1", Port: 9901, Method: "GET", Path: "/view.json", Status: 401, UID: core.NoUID},
		{Kind: core.EventLifecycle, Time: when, Stage: core.StageAPI, Severity: core.SeverityInfo, Reason: core.EventAdminDecided, Detail: "proposal p-1", Path: "proposals.approve", UID: 65532},
		{Kind: core.EventLifecycle, Time: when, Stage: core.StageAPI, Severity: core.SeverityInfo, Reason: core.EventTokenGranted, Detail: "grant crm",
			Host: "tokens.example.com", Port: 443, Method: "POST", Path: "/oauth/token", Status: 200, UID: 65532, Duration: 80 * time.Millisecond},
		{Kind: core.EventLifecycle, Time: when, Stage: core.StageConfig, Severity: core.SeverityInfo, Reason: core.EventRuleProposed, Detail: "proposal p-1, rule pypi"},
		{Kind: core.EventInference, Time: when, RequestID: "0123456789abcdef", Stage: core.StageAPI, Severity: core.SeverityInfo, Verdict: core.Allow, Reason: core.ReasonAllowed,
			Host: "inference.local", Port: 443, Protocol: "tcp", Method: "POST", Path: "/v1/chat/completions", Status: 200, Duration: 412 * time.Millisecond,
			Source: netip.MustParseAddrPort("127.0.0.1:40112"), Process: core.ProcessRef{PID: 88}, UID: 1000, Program: core.Program{Path: "/usr/bin/agent"},
			Model: "small-model", Provider: "llm.example.com", TokensIn: 20, TokensOut: 7},
		{Kind: core.EventInference, Time: when, RequestID: "0123456789abcdef", Stage: core.StageAPI, Severity: core.SeverityLow, Verdict: core.Allow, Reason: core.ReasonUpstreamTimeout,
			Detail: "nothing came for 2m0s", Host: "inference.local", Port: 443, Method: "POST", Path: "/v1/messages", Status: 200, Duration: 125 * time.Second,
			Source: netip.MustParseAddrPort("127.0.0.1:40113"), Model: "large model\x1b[31m", Provider: "anthropic", TokensIn: 25},
		{Kind: core.EventLifecycle, Time: when, Stage: core.StageGateway, Severity: core.SeverityInfo, Verdict: core.Allow, Reason: core.EventGatewayOpened,
			Detail: "session s-1", Host: "gateway.openshell.svc", Port: 8080, Protocol: "tcp"},
		{Kind: core.EventLifecycle, Time: when, Stage: core.StageGateway, Severity: core.SeverityLow, Verdict: core.Allow, Reason: core.EventGatewayLost,
			Detail: "Unavailable: connection refused", Host: "gateway.openshell.svc", Port: 8080, Protocol: "tcp"},
		{Kind: core.EventLifecycle, Time: when, Stage: core.StageGateway, Severity: core.SeverityMedium, Reason: core.EventRelayRefused,
			Detail: "relay \"c-1\" to 10.0.0.1:22: not the sandbox's loopback", Host: "10.0.0.1", Port: 22, Protocol: "tcp"},
		{Kind: core.EventLifecycle, Time: when, Stage: core.StageGateway, Severity: core.SeverityInfo, Verdict: core.Allow, Reason: core.EventRelayClosed,
			Detail: "relay \"c-2\" to 127.0.0.1:8123", Host: "127.0.0.1", Port: 8123, Protocol: "tcp", BytesUp: 7, BytesDn: 9, Duration: 2 * time.Second},
		{Kind: core.EventUnspecified, Time: when, Severity: core.SeverityLow, Reason: "something_new", Detail: "of a newer build"},
	}
}

func TestRecordsMatchTheGoldenFiles(t *testing.T) {
	x := ocsf.NewEncoder(context)
	var records, lines []byte
	for _, e := range events() {
		records, lines = x.Append(records, &e), x.AppendText(lines, &e)
	}
	for golden, got := range map[string][]byte{"testdata/records.golden": records, "testdata/lines.golden": lines} {
		if *update {
			if err := os.WriteFile(golden, got, 0o644); err != nil {
				t.Fatal(err)
			}
		}
		want, err := os.ReadFile(golden)
		if err != nil {
			t.Fatal(err)
		}
		if len(want) == 0 || !bytes.Equal(got, want) {
			t.Errorf("records differ from %s (-update writes it):\n%s", golden, got)
		}
	}
}

func TestHostileStringsStayInsideOneLine(t *testing.T) {
	hostile := "a\nb\r\x1b[31m\"}{\x00\xff\u2028" + strings.Repeat("h", 1<<20)
	e := core.Event{Kind: core.EventConnection, Time: when, Host: hostile, Path: hostile, Method: hostile, Detail: hostile,
		Program: core.Program{Path: hostile}, Ancestors: []core.Program{{Path: hostile}}}
	e.Clip()
	line := ocsf.NewEncoder(context).Append(nil, &e)
	if n := bytes.Count(line, []byte("\n")); n != 1 || line[len(line)-1] != '\n' {
		t.Errorf("%d newlines in one record", n)
	}
	if bytes.ContainsAny(line, "\x1b\x00\r") {
		t.Error("a control byte is not escaped")
	}
	if len(line) > 16<<10 {
		t.Errorf("record of %d bytes", len(line))
	}
	if !json.Valid(line) {
		t.Error("not JSON")
	}
}

func BenchmarkAppend(b *testing.B) {
	e, x := events()[0], ocsf.NewEncoder(context)
	buf := make([]byte, 0, 4096)
	b.ReportAllocs()
	for b.Loop() {
		buf = x.Append(buf[:0], &e)
	}
}

func TestAModelCallIsWellWhenItWasAnsweredWhole(t *testing.T) {
	for _, tt := range []struct {
		status int
		reason core.Reason
		want   string
	}{
		{200, core.ReasonAllowed, "Success"}, {299, "", "Success"}, {199, core.ReasonAllowed, "Failure"}, {300, core.ReasonAllowed, "Failure"},
		{0, "", "Failure"}, {429, core.ReasonAllowed, "Failure"}, {200, core.ReasonUpstreamTimeout, "Failure"},
	} {
		e := core.Event{Kind: core.EventInference, Method: "POST", Path: "/v1/messages", Status: tt.status, Reason: tt.reason}
		record, line := string(ocsf.NewEncoder(context).Append(nil, &e)), string(ocsf.NewEncoder(context).AppendText(nil, &e))
		if !strings.Contains(record, `"status":"`+tt.want+`"`) || !strings.Contains(line, " OCSF API:INFERENCE [INFO] "+tt.want+" [POST /v1/messages]") {
			t.Errorf("%d %q: %s%s", tt.status, tt.reason, record, line)
		}
	}
}

// TestTheNamesOfAModelCallAreShortAndPlain: a provider may name its models as it likes.
func TestTheNamesOfAModelCallAreShortAndPlain(t *testing.T) {
	for in, want := range map[string]string{
		"m": "m", "\x00m\r\n\x1b\x7f\u009b": "m", "\n": "unknown", "": "unknown",
		strings.Repeat("m", 256): strings.Repeat("m", 256), strings.Repeat("m", 257): strings.Repeat("m", 253) + "...",
	} {
		e := core.Event{Kind: core.EventInference, Model: in, Provider: in}
		e.Clip()
		record := string(ocsf.NewEncoder(context).Append(nil, &e))
		if !strings.Contains(record, `"ai_model":{"name":"`+want+`","ai_provider":"`+want+`"}`) {
			t.Errorf("%q is %s", in, record)
		}
		named := " Failure " + want + " via " + want + " ["
		if want == "unknown" {
			named = " Failure ["
		}
		if line := string(ocsf.NewEncoder(context).AppendText(nil, &e)); !strings.Contains(line, named) {
			t.Errorf("%q is %s", in, line)
		}
	}
}
