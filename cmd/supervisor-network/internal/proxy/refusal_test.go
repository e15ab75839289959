package proxy

import (
	"bufio"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"testing"
)

// refusals are requests that rules refuse, one for each protocol of an endpoint.
var refusals = []struct{ protocol, rules, method, target, body, detail string }{
	{"rest", "access: read-only", "DELETE", "/a?key=secret", "", "DELETE /a not permitted by policy"},
	{"websocket", "access: read-write", "GET", "/a", "", "websocket endpoint requires a valid WebSocket upgrade request"},
	{"graphql", "access: read-only", "POST", "/a", `{"query":"mutation{a}"}`, "GraphQL operation not permitted by policy"},
	{"json-rpc", "rules: [{allow: {method: a}}]", "POST", "/a", `{"jsonrpc":"2.0","id":1,"method":"b"}`, "POST /a not permitted by policy: b"},
	{"mcp", "rules: [{allow: {method: tools/call, tool: a}}]", "POST", "/a", `{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{"name":"b"}}`, "POST /a not permitted by policy: tools/call b"},
}

// TestARefusalByRulesIsTheSameByEveryEntry (rows 28 and 50): plainly and in TLS, in both
// versions of HTTP, through a tunnel and in absolute form. Nothing reaches the origin, and
// the record has the answer's id.
func TestARefusalByRulesIsTheSameByEveryEntry(t *testing.T) {
	for _, tc := range refusals {
		for _, advise := range []bool{false, true} {
			t.Run(fmt.Sprintf("%s, advisor %v", tc.protocol, advise), func(t *testing.T) {
				options := fmt.Sprintf(", protocol: %s, enforcement: enforce, %s", tc.protocol, tc.rules)
				w := newWorld(t, generous, endpoint("a.example.com", 80, options), endpoint("a.example.com", 443, options))
				w.Advise = advise
				reached := make(chan string, 8)
				origin := http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) { reached <- r.RequestURI })
				w.origin("a.example.com", 80, origin)
				w.origin("a.example.com", 443, origin, "h2", "http/1.1")
				text := func(prefix string) string {
					return fmt.Sprintf("%s %s HTTP/1.1\r\nHost: a.example.com\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n%s", tc.method, prefix+tc.target, len(tc.body), tc.body)
				}
				direct, err := net.Dial("tcp", w.proxy)
				if err != nil {
					t.Fatal(err)
				}
				defer direct.Close()
				for name, entry := range map[string]struct {
					port int
					ask  func() (*http.Response, string)
				}{
					"CONNECT":       {80, func() (*http.Response, string) { return said(t, w.tunnel("a.example.com", 80), text("")) }},
					"absolute form": {80, func() (*http.Response, string) { return said(t, direct, text("http://a.example.com")) }},
					"CONNECT, TLS":  {443, func() (*http.Response, string) { return said(t, w.secure("a.example.com", "http/1.1"), text("")) }},
					"CONNECT, HTTP/2": {443, func() (*http.Response, string) {
						return w.asked(t, tc.method, "https://a.example.com"+tc.target, tc.body)
					}},
				} {
					resp, body := entry.ask()
					id := between(body, `"request_id":"`, `"`)
					if want := refusalText(tc.protocol, tc.method, "/a", tc.detail, entry.port, entry.port, advise, id); body != want {
						t.Errorf("%s:\n%s\nwant\n%s", name, body, want)
					}
					h := resp.Header
					if resp.StatusCode != 403 || h.Get("Content-Type") != "application/json" || h.Get("Content-Length") != fmt.Sprint(len(body)) || h.Get("X-OpenShell-Policy") != fmt.Sprint("a_example_com_", entry.port) ||
						resp.ProtoMajor == 1 && !resp.Close {
						t.Errorf("%s: %s %v", name, resp.Status, h)
					}
					record := w.recorded(t, id)
					for _, part := range []string{`"reason":"policy_denied"`, `"stage":"request"`} {
						if id == "" || !strings.Contains(record, part) {
							t.Errorf("%s: the record lacks %s: %s", name, part, record)
						}
					}
				}
				if len(reached) > 0 {
					t.Errorf("%s reached the origin", <-reached)
				}
			})
		}
	}
}

// TestARefusedHostSaysHowToAsk, where agents may: in the status line of CONNECT, which is
// all that most clients show, and in the body.
func TestARefusedHostSaysHowToAsk(t *testing.T) {
	for _, advise := range []bool{false, true} {
		w := newWorld(t, generous, endpoint("a.example.com", 443, ""))
		w.Advise = advise
		for _, target := range []string{"CONNECT b.example.com:443", "GET http://b.example.com:443/"} {
			c, err := net.Dial("tcp", w.proxy)
			if err != nil {
				t.Fatal(err)
			}
			defer c.Close()
			resp, body := said(t, c, target+" HTTP/1.1\r\nHost: b.example.com:443\r\n\r\n")
			line := advise && strings.HasPrefix(target, "CONNECT")
			if resp.StatusCode != 403 || strings.Contains(resp.Status, guidance) != line || strings.Contains(body, `"agent_guidance":"`+guidance+`"`) != advise {
				t.Errorf("advise %v, %s: %s %s", advise, target, resp.Status, body)
			}
		}
	}
}

// refusalText is the answer as section 4.6 of the reference has it, with a message and a request id.
func refusalText(protocol, method, path, detail string, rule, port int, advise bool, id string) string {
	asked := fmt.Sprintf(`"layer":"l7","protocol":%q,"method":%q,"path":%q,"host":"a.example.com","port":%d`, protocol, method, path, port)
	missing := fmt.Sprintf(`{"type":"rest_allow","layer":"l7","method":%q,"path":%q,"host":"a.example.com","port":%d}`, method, path, port)
	next := `[]`
	if advise {
		next = `[{"action":"read_skill","path":"/etc/openshell/skills/policy_advisor.md"},` +
			`{"action":"inspect_policy","method":"GET","url":"http://policy.local/v1/policy/current"},` +
			`{"action":"inspect_recent_denials","method":"GET","url":"http://policy.local/v1/denials?last=5"},` +
			`{"action":"submit_proposal","method":"POST","url":"http://policy.local/v1/proposals","body_type":"PolicyMergeOperation"}],"agent_guidance":"` + guidance + `"`
	}
	return fmt.Sprintf(`{"error":"policy_denied","policy":"a_example_com_%d","rule":"%s %s","detail":%q,%s,"rule_missing":%s,"next_steps":%s,"message":%q,"request_id":%q}`,
		rule, method, path, detail, asked, missing, next, detail, id)
}

// said sends a text and reads its answer.
func said(t *testing.T, c net.Conn, text string) (*http.Response, string) {
	t.Helper()
	if _, err := io.WriteString(c, text); err != nil {
		t.Fatal(err)
	}
	return answer(t, bufio.NewReader(c), "POST")
}

// asked makes a request in HTTP/2.
func (w *world) asked(t *testing.T, method, url, body string) (*http.Response, string) {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), method, url, strings.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	req.Header.Set("Content-Type", "application/json")
	resp, err := w.client(true).Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	text, err := io.ReadAll(resp.Body)
	if err != nil || resp.ProtoMajor != 2 {
		t.Fatal(resp.Proto, err)
	}
	return resp, string(text)
}

func between(s, before, after string) string {
	_, s, _ = strings.Cut(s, before)
	s, _, _ = strings.Cut(s, after)
	return s
}

// TestTheRuleThatIsMissingIsAboutTheMethodThatWasRefused, whoever asked for it. Where a rule
// denies the request no proposal is suggested: none would help.
func TestTheRuleThatIsMissingIsAboutTheMethodThatWasRefused(t *testing.T) {
	const options = ", protocol: rest, enforcement: enforce, rules: [{allow: {method: GET, path: /**}}], deny_rules: [{method: GET, path: /denied}, {method: PUT, path: /**}]"
	w := newWorld(t, generous, endpoint("a.example.com", 80, options))
	w.Advise = true
	w.origin("a.example.com", 80, http.NotFoundHandler())
	for target, want := range map[string]string{
		"GET /denied":                    "GET",
		"GET /a?_method=PUT":             "PUT",
		"DELETE /a":                      "DELETE",
		"GET /a?_method=DELETE":          "DELETE",
		"DELETE /a?_method=POST":         "DELETE",
		"GET /a?_method=" + marker + "x": "[CREDENTIAL]",
	} {
		_, body := said(t, w.tunnel("a.example.com", 80), target+" HTTP/1.1\r\nHost: a.example.com\r\n\r\n")
		if got := between(body, `"rule_missing":{"type":"rest_allow","layer":"l7","method":"`, `"`); got != want {
			t.Errorf("%s: %s", target, body)
		}
		denied := strings.Contains(body, "blocked by deny rule")
		if proposes := strings.Contains(body, "submit_proposal"); proposes == denied || strings.Contains(body, "agent_guidance") == denied {
			t.Errorf("%s: a proposal is suggested: %v: %s", target, proposes, body)
		}
	}
}
