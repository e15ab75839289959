package command

import (
	"bytes"
	"context"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/splitpod/splitpod/cmd/supervisor-network/internal/advisor"
	"github.com/splitpod/splitpod/cmd/supervisor-network/internal/decide"
	"github.com/splitpod/splitpod/cmd/supervisor-network/internal/policylocal"
	"github.com/splitpod/splitpod/pkg/core"
	"github.com/splitpod/splitpod/pkg/core/policy"
)

// operated is a running Advisor with an empty policy and the commands for it.
type operated struct {
	t   *testing.T
	dir string
	*advisor.Advisor
}

func operate(t *testing.T) *operated {
	t.Helper()
	o := &operated{t: t, dir: t.TempDir()}
	base := &policy.Document{Version: 1}
	apply := func(ctx context.Context) error {
		e := o.Join(base)
		_, err := decide.Compile(ctx, e.Document, decide.Options{Generation: 1})
		o.Joined(e)
		return err
	}
	var err error
	o.Advisor, err = advisor.Open(advisor.Options{StateDir: o.dir, Proposals: true, Base: func() *policy.Document { return base }, Apply: apply,
		Record: func(core.Event) {}, Log: slog.New(slog.DiscardHandler), Every: time.Hour})
	if err != nil {
		t.Fatal(err)
	}
	if err := apply(t.Context()); err != nil {
		t.Fatal(err)
	}
	l, err := o.Listen(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error)
	go func() { done <- l.Run(ctx) }()
	t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
	return o
}

// run runs a command and returns what it printed.
func (o *operated) run(want int, args ...string) string {
	o.t.Helper()
	var out, errs bytes.Buffer
	if code := Main(o.t.Context(), append(args, "--state-dir", o.dir), &out, &errs); code != want {
		o.t.Errorf("%v ends with %d, want %d: %s", args, code, want, errs.String())
	}
	if s := out.String() + errs.String(); strings.ContainsAny(s, "\x1b\r") {
		o.t.Errorf("%v prints what a terminal obeys: %q", args, s)
	}
	return out.String() + errs.String()
}

// after is the word behind another one.
func after(t *testing.T, text, word string) string {
	t.Helper()
	_, rest, ok := strings.Cut(text, word)
	fields := strings.Fields(rest)
	if !ok || len(fields) == 0 {
		t.Fatalf("there is no %q in:\n%s", word, text)
	}
	return fields[0]
}

func TestAnOperatorDecidesByCommands(t *testing.T) {
	o := operate(t)
	body := `{"intent_summary":"install\u001b[2K packages\nSTATUS approved","operations":[{"addRule":{"ruleName":"pypi","rule":{
		"endpoints":[{"host":"pypi.org","port":443,"protocol":"rest","access":"read-only"}],"binaries":[{"path":"/usr/bin/pip"}]}}}]}`
	if a := o.Local().Serve(t.Context(), &policylocal.Request{Method: "POST", Path: "/v1/proposals", Body: []byte(body)}); a.Status != 202 {
		t.Fatalf("%s", a.JSON())
	}
	list := o.run(exitOK, "proposals", "list")
	if strings.Count(list, "\n") != 2 || !strings.Contains(list, "pending") {
		t.Fatalf("the list is\n%s", list)
	}
	id := after(t, list, "WHY\n")
	shown := o.run(exitOK, "proposals", "show", id)
	hash := after(t, shown, "proposals approve "+id)
	for _, want := range []string{"+ /usr/bin/pip may send GET ** to pypi.org:443 on public addresses", "it says: install[2K packages STATUS approved", `host: "pypi.org"`} {
		if !strings.Contains(shown, want) {
			t.Errorf("%q is not in\n%s", want, shown)
		}
	}
	if out := o.run(exitFailed, "proposals", "approve", id, strings.Repeat("0", 32)); !strings.Contains(out, "look at it again") {
		t.Errorf("a wrong hash: %s", out)
	}
	if out := o.run(exitOK, "proposals", "approve", id, hash); !strings.Contains(out, "is approved") {
		t.Errorf("%s", out)
	}
	if out := o.run(exitFailed, "proposals", "approve", id, hash); !strings.Contains(out, "not pending any more") {
		t.Errorf("the same again: %s", out)
	}
	if out := o.run(exitOK, "proposals", "export"); !strings.Contains(out, "pypi.org") {
		t.Errorf("%s", out)
	}
	if out := o.run(exitOK, "proposals", "revoke", id, "no", "longer", "needed"); !strings.Contains(out, "is revoked") {
		t.Errorf("%s", out)
	}
	if out := o.run(exitOK, "proposals", "show", id); !strings.Contains(out, "no longer needed") || strings.Contains(out, "to approve") {
		t.Errorf("%s", out)
	}
	if out := o.run(exitOK, "proposals", "list"); strings.Contains(out, id) {
		t.Errorf("it is still listed: %s", out)
	}
	if out := o.run(exitOK, "proposals", "list", "--all"); !strings.Contains(out, id) {
		t.Errorf("it is not listed: %s", out)
	}
}

func TestADenialIsExplainedByCommand(t *testing.T) {
	o := operate(t)
	o.Observe(&core.Event{Kind: core.EventConnection, Time: time.Now(), RequestID: "0123456789abcdef", Stage: core.StageConnect, Reason: core.ReasonPolicyDenied,
		Host: "pypi.org", Port: 443, Program: core.Program{Path: "/usr/bin/pip"}, Detail: "x\x1b[2K"})
	out := o.run(exitOK, "policy", "explain", "--denial", "0123456789abcdef")
	if !strings.Contains(out, "1. every request to the host") || !strings.Contains(out, "+ /usr/bin/pip may send anything") {
		t.Errorf("%s", out)
	}
	if out := o.run(exitFailed, "policy", "explain", "--denial", "0000000000000000"); !strings.Contains(out, "no denial with this request id") {
		t.Errorf("%s", out)
	}
	if out := o.run(exitOK, "learn", "export"); !strings.Contains(out, "0 destinations") {
		t.Errorf("%s", out)
	}
}

func TestWrongCommandLinesAreUsageErrors(t *testing.T) {
	for _, args := range [][]string{
		{"proposals"}, {"proposals", "approve", "x"}, {"proposals", "show"}, {"proposals", "aprove", "x", "y"}, {"proposals", "list", "x"},
		{"learn"}, {"learn", "export", "x"}, {"policy", "diff", "x"}, {"policy", "explain", "--denial"},
	} {
		var out, errs bytes.Buffer
		if code := Main(t.Context(), args, &out, &errs); code != exitUsage {
			t.Errorf("%v ends with %d: %s", args, code, errs.String())
		}
	}
}

func policyFileOf(t *testing.T, text string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "p.yaml")
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

func TestExplainAndDiffOfFiles(t *testing.T) {
	text := `version: 1
network_policies:
  api:
    endpoints: [{host: api.example.com, port: 443, protocol: rest, enforcement: enforce, rules: [{allow: {method: GET, path: "/a/**"}}], deny_rules: [{method: GET, path: "/a/secret"}]}]
    binaries: [{path: /usr/bin/curl}]
  tools:
    endpoints: [{host: mcp.example.com, port: 443, protocol: mcp, enforcement: enforce, rules: [{allow: {method: tools/call, tool: "read_*"}}]}]
    binaries: [{path: /usr/bin/curl}]
`
	file, other := policyFileOf(t, text), policyFileOf(t, strings.Replace(text, "method: GET, path: \"/a/**\"", "method: GET, path: \"/**\"", 1))
	at := func(host string) []string {
		return []string{"policy", "explain", file, "--host", host, "--port", "443", "--binary", "/usr/bin/curl"}
	}
	for _, tt := range []struct {
		args []string
		want string
	}{
		{append(at("api.example.com"), "--method", "GET", "--path", "/a/b"), "request GET /a/b: allow\n"},
		{append(at("api.example.com"), "--method", "GET", "--path", "/a/b/../secret"), "refuses GET /a/secret"},
		{append(at("api.example.com"), "--method", "POST", "--path", "/a/b"), "request POST /a/b: deny (policy_denied)"},
		{append(at("mcp.example.com"), "--tool", "read_file", "--path", "/mcp"), "allows tools/call tool read_*"},
		{append(at("mcp.example.com"), "--tool", "write_file"), "request POST /: deny"},
		{at("other.example.com"), "deny (policy_denied)"},
		{[]string{"policy", "diff", file, other}, "+ /usr/bin/curl may send GET /** to api.example.com:443"},
		{[]string{"policy", "diff", file, file}, "may do the same"},
	} {
		var out, errs bytes.Buffer
		if code := Main(t.Context(), tt.args, &out, &errs); code != exitOK || !strings.Contains(out.String(), tt.want) {
			t.Errorf("%v ends with %d, %q is not in\n%s%s", tt.args, code, tt.want, out.String(), errs.String())
		}
	}
}

// TestExplainReadsFieldsAsTheDaemonDoes: what decides is the same code, and a field that
// decides nothing is said to.
func TestExplainReadsFieldsAsTheDaemonDoes(t *testing.T) {
	file := policyFileOf(t, `version: 1
network_policies:
  all:
    endpoints:
      - {host: ws.example.com, port: 443, protocol: websocket, enforcement: enforce, rules: [{allow: {method: GET, path: "/ws"}}]}
      - {host: rest.example.com, port: 443, protocol: rest, enforcement: enforce, rules: [{allow: {method: GET, path: "/**"}}]}
      - {host: gql.example.com, port: 443, protocol: graphql, enforcement: enforce, graphql_max_body_bytes: 100, rules: [{allow: {operation_type: query, fields: [viewer]}}]}
      - {host: mcp.example.com, port: 443, protocol: mcp, enforcement: enforce, rules: [{allow: {method: tools/call, tool: "read_*"}}]}
      - {host: raw.example.com, port: 443}
    binaries: [{path: /usr/bin/curl}]
`)
	body := func(text string) string { return policyFileOf(t, text) }
	const asJSON = "Content-Type: application/json"
	viewer, other, long := body(`{"query":"{viewer}"}`), body(`{"query":"{secrets}"}`), body(`{"query":"{viewer}","variables":{"x":"`+strings.Repeat("x", 100)+`"}}`)
	call := body(`{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{"name":"read_file"}}`)
	for _, tt := range []struct {
		args []string
		want []string
	}{
		{[]string{"ws", "--path", "/ws", "--header", "Upgrade: websocket"}, []string{"request GET /ws: allow\n"}},
		{[]string{"ws", "--path", "/ws", "--header", "Upgrade: h2c"}, []string{"request GET /ws: deny", "unsupported"}},
		{[]string{"ws", "--path", "/ws", "--header", "Accept: a"}, []string{"request GET /ws: deny", "the field Accept changes nothing here"}},
		{[]string{"ws", "--path", "/ws", "--method", "POST", "--header", "Upgrade: websocket"}, []string{"request POST /ws: deny"}},
		{[]string{"ws", "--path", "/ws", "--header", "Upgrade: websocket", "--header", "Sec-WebSocket-Key: short"}, []string{"deny", "Sec-WebSocket-Key"}},
		{[]string{"rest", "--method", "POST", "--path", "/a", "--header", "X-Method: GET"}, []string{"request POST /a: deny", "the field X-Method changes nothing here"}},
		{[]string{"rest", "--method", "POST", "--path", "/a", "--header", "X-HTTP-Method-Override: GET"}, []string{"request POST /a: deny"}},
		{[]string{"rest", "--method", "GET", "--path", "/a", "--header", "X-HTTP-Method-Override: POST"}, []string{"request GET /a: deny"}},
		{[]string{"rest", "--method", "GET", "--path", "/a", "--header", "Content-Length: 1", "--header", "Content-Length: 2"}, []string{"deny (bad_request)"}},
		{[]string{"rest", "--method", "GET", "--path", "/a", "--body", viewer}, []string{"allow\n", "the body is not read here"}},
		{[]string{"gql", "--body", viewer, "--header", asJSON}, []string{"request POST /: allow\n"}},
		{[]string{"gql", "--body", viewer, "--header", "Content-Type: text/plain"}, []string{"request POST /: deny (invalid_graphql"}},
		{[]string{"gql", "--body", viewer, "--header", asJSON, "--header", "Content-Encoding: gzip"}, []string{"request POST /: deny (invalid_graphql"}},
		{[]string{"gql", "--body", other, "--header", asJSON}, []string{"request POST /: deny (policy_denied)"}},
		{[]string{"gql", "--body", long, "--header", asJSON}, []string{"request POST /: deny (body_too_large"}},
		{[]string{"mcp", "--body", call, "--header", asJSON, "--header", "Mcp-Method: tools/list"}, []string{"request POST /: deny"}},
		{[]string{"mcp", "--body", call, "--header", asJSON, "--header", "Mcp-Method: tools/call", "--header", "Accept: text/event-stream"}, []string{"request POST /: allow\n", "the field Accept changes nothing here"}},
		{[]string{"raw", "--header", "Upgrade: websocket", "--header", "X: y"}, []string{"requests on this connection are not judged", "the field X changes nothing here"}},
	} {
		args := append([]string{"policy", "explain", file, "--port", "443", "--binary", "/usr/bin/curl", "--host", tt.args[0] + ".example.com"}, tt.args[1:]...)
		var out, errs bytes.Buffer
		code := Main(t.Context(), args, &out, &errs)
		for _, want := range tt.want {
			if code != exitOK || !strings.Contains(out.String(), want) {
				t.Errorf("%v ends with %d, %q is not in\n%s%s", tt.args, code, want, out.String(), errs.String())
			}
		}
		if notes := strings.Count(out.String(), "changes nothing here") + strings.Count(out.String(), "is not read here"); notes > 0 && !strings.Contains(strings.Join(tt.want, " "), "here") && tt.args[0] != "raw" {
			t.Errorf("%v says too much:\n%s", tt.args, out.String())
		}
	}
	for _, args := range [][]string{{"--header", "X: y", "--upgrade"}, {"--body", viewer, "--tool", "x"}, {"--header", "X"}, {"--header", "X: y\nZ: a"}, {"--body", "/nowhere"}} {
		var out, errs bytes.Buffer
		if code := Main(t.Context(), append([]string{"policy", "explain", file, "--host", "rest.example.com", "--port", "443", "--binary", "/usr/bin/curl"}, args...), &out, &errs); code != exitUsage {
			t.Errorf("%v ends with %d: %s%s", args, code, out.String(), errs.String())
		}
	}
}
