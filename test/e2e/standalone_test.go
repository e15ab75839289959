package e2e_test

import (
	"encoding/json"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/splitpod/splitpod/test/world"
)

const standaloneAddress = "127.0.0.1:13129"

// standalone starts only the network daemon, as an ordinary proxy.
func standalone(t *testing.T, policy string, args ...string) *pair {
	t.Helper()
	p := newPair(t, policy)
	p.startNetwork(append([]string{"--listen", standaloneAddress, "--identity", "ignore", "--ca-out", p.caFile()}, args...)...)
	p.listening()
	return p
}

// listening waits until a proxy alone takes connections.
func (p *pair) listening() {
	p.t.Helper()
	eventually(p.t, "the listener", func() bool {
		select {
		case <-p.network.ended:
			p.t.Fatal("the daemon did not start")
		default:
		}
		c, err := net.Dial("tcp", standaloneAddress)
		if err == nil {
			c.Close()
		}
		return err == nil
	})
}

// TestASecondProxyDoesNotTouchTheFirst: with the same directories it does not start, and
// what the first keeps is as before. Once that has ended, it starts.
func TestASecondProxyDoesNotTouchTheFirst(t *testing.T) {
	p := standalone(t, policyText)
	half := p.dir + "/state/.proposals.json.1" // as the first has it for a moment
	must(t, os.WriteFile(half, nil, 0o600))
	second := []string{"--listen", "127.0.0.1:13130", "--identity", "ignore"}
	refused := start(t, p.networkArgs(second)...)
	if code := refused.wait(t); code != 78 || !strings.Contains(refused.err.String(), p.dir+"/state/events is in use") {
		t.Errorf("the second ended with %d: %s", code, refused.err)
	}
	if _, err := os.Stat(half); err != nil {
		t.Errorf("the second swept the first one's state: %v", err)
	}
	if _, err := os.Stat(p.dir + "/state/admin.sock"); err != nil {
		t.Errorf("nobody can decide any more: %v", err)
	}
	p.network.kill(syscall.SIGTERM)
	p.network.wait(t)
	p.startNetwork(second...)
	eventually(t, "the second, now that the first has ended", func() bool {
		c, err := net.Dial("tcp", "127.0.0.1:13130")
		if err == nil {
			c.Close()
		}
		return err == nil
	})
}

// talk sends raw bytes and returns everything that comes back.
func talk(t *testing.T, text string) string {
	t.Helper()
	c, err := net.Dial("tcp", standaloneAddress)
	must(t, err)
	defer c.Close()
	must(t, c.SetDeadline(time.Now().Add(generous)))
	_, err = io.WriteString(c, text)
	must(t, err)
	must(t, c.(*net.TCPConn).CloseWrite())
	out, _ := io.ReadAll(c)
	return string(out)
}

// TestStandaloneProxyAnswersEveryFailureInReadableHTTP: one line of the table is
// one malformed or refused request.
func TestStandaloneProxyAnswersEveryFailureInReadableHTTP(t *testing.T) {
	p := standalone(t, policyText+"  closed: {endpoints: [{host: api.demo.test, port: 9}], binaries: [{path: /usr/bin/curl}]}\n")
	for name, tc := range map[string]struct {
		send, status, reason string
	}{
		"a CONNECT without a port":      {"CONNECT api.demo.test HTTP/1.1\r\nHost: api.demo.test\r\n\r\n", "400", "invalid_request_target"},
		"port zero":                     {"CONNECT api.demo.test:0 HTTP/1.1\r\nHost: api.demo.test:0\r\n\r\n", "400", "invalid_request_target"},
		"a port beyond":                 {"CONNECT api.demo.test:65536 HTTP/1.1\r\nHost: x\r\n\r\n", "400", "invalid_request_target"},
		"a target with a user":          {"CONNECT u@api.demo.test:443 HTTP/1.1\r\nHost: x\r\n\r\n", "400", "invalid_request_target"},
		"a host that says another name": {"CONNECT api.demo.test:443 HTTP/1.1\r\nHost: other.demo.test:443\r\n\r\n", "400", "bad_request"},
		"a space in the target":         {"CONNECT api .demo.test:443 HTTP/1.1\r\nHost: x\r\n\r\n", "505", "bad_request"},
		"a bare line feed":              {"CONNECT api.demo.test:443 HTTP/1.1\nHost: api.demo.test:443\n\n", "400", "bad_request"},
		"an octal address":              {"CONNECT 0177.0.0.1:443 HTTP/1.1\r\nHost: 0177.0.0.1:443\r\n\r\n", "400", "invalid_request_target"},
		"a number as address":           {"CONNECT 2130706433:443 HTTP/1.1\r\nHost: 2130706433:443\r\n\r\n", "400", "invalid_request_target"},
		"origin form":                   {"GET / HTTP/1.1\r\nHost: api.demo.test\r\n\r\n", "400", "invalid_request_target"},
		"https in absolute form":        {"GET https://api.demo.test/ HTTP/1.1\r\nHost: api.demo.test\r\n\r\n", "400", "unsupported_proxy_scheme"},
		"two lengths":                   {"POST http://api.demo.test/ HTTP/1.1\r\nHost: api.demo.test\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\nxx", "400", "bad_request"},
		"length and chunks":             {"POST http://api.demo.test/ HTTP/1.1\r\nHost: api.demo.test\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", "400", "bad_request"},
		"a folded field":                {"GET http://api.demo.test/ HTTP/1.1\r\nHost: api.demo.test\r\nX: a\r\n b\r\n\r\n", "400", "bad_request"},
		"TLS to the proxy":              {"\x16\x03\x01\x00\x05hello", "400", "bad_request"},
		"a head that is too large":      {"GET http://api.demo.test/ HTTP/1.1\r\nX: " + strings.Repeat("a", 70000) + "\r\n\r\n", "431", "header_too_large"},
		"a host no rule names":          {"CONNECT other.demo.test:443 HTTP/1.1\r\nHost: other.demo.test:443\r\n\r\n", "403", "policy_denied"},
		"a port where nobody listens":   {"CONNECT api.demo.test:9 HTTP/1.1\r\nHost: api.demo.test:9\r\n\r\n", "502", "upstream_unreachable"},
		"loopback as literal":           {"CONNECT 127.0.0.1:443 HTTP/1.1\r\nHost: 127.0.0.1:443\r\n\r\n", "403", "policy_denied"},
	} {
		t.Run(name, func(t *testing.T) {
			head, body, ok := strings.Cut(talk(t, tc.send), "\r\n\r\n")
			if !ok || !strings.HasPrefix(head, "HTTP/1.1 "+tc.status+" ") {
				t.Fatalf("answer %q, want status %s", head, tc.status)
			}
			var answer struct {
				Error, Detail string
				RequestID     string `json:"request_id"`
			}
			if err := json.Unmarshal([]byte(body), &answer); err != nil || answer.Error != tc.reason || answer.Detail == "" {
				t.Fatalf("body %q (%v), want error %s", body, err, tc.reason)
			}
			eventually(t, "one record with the answer's request id", func() bool {
				return strings.Count(p.network.out.String(), `"request_id":"`+answer.RequestID+`"`) == 1
			})
		})
	}
}

// TestBytesBehindAConnectAreKept: a client that does not wait for the 200.
func TestBytesBehindAConnectAreKept(t *testing.T) {
	standalone(t, policyText)
	out := talk(t, "CONNECT api.demo.test:80 HTTP/1.1\r\nHost: api.demo.test:80\r\n\r\nGET /early HTTP/1.1\r\nHost: api.demo.test\r\nConnection: close\r\n\r\n")
	if !strings.HasPrefix(out, "HTTP/1.1 200 ") || !strings.Contains(out, "hello from api.demo.test") {
		t.Errorf("got %q", out)
	}
}

// TestEveryRequestOfAConnectionIsJudgedAlone: what stands behind the framed body of a
// forwarded request is the next request, and has a decision of its own.
func TestEveryRequestOfAConnectionIsJudgedAlone(t *testing.T) {
	standalone(t, policyText)
	hits := origins.Hits.Load()
	out := talk(t, "POST http://api.demo.test/echo HTTP/1.1\r\nHost: api.demo.test\r\nContent-Length: 2\r\n\r\nhi"+
		"GET http://api.demo.test/b HTTP/1.1\r\nHost: api.demo.test\r\n\r\n"+
		"GET http://other.demo.test/c HTTP/1.1\r\nHost: other.demo.test\r\n\r\n"+
		"GET http://api.demo.test/d HTTP/1.1\r\nHost: api.demo.test\r\n\r\n")
	if n := origins.Hits.Load() - hits; n != 2 || strings.Count(out, "HTTP/1.1 200 ") != 2 || strings.Count(out, "HTTP/1.1 403 ") != 1 || strings.Count(out, "HTTP/1.1 ") != 3 {
		t.Errorf("%d requests arrived, answer %q", n, out)
	}
}

// TestASilentClientIsAnswered: a head that never arrives ends with 408.
func TestASilentClientIsAnswered(t *testing.T) {
	standalone(t, policyText, "--head-timeout", "3s") // in which the beginning arrives
	c, err := net.Dial("tcp", standaloneAddress)
	must(t, err)
	defer c.Close()
	must(t, c.SetDeadline(time.Now().Add(generous)))
	_, err = io.WriteString(c, "CONNECT api.demo.test:443 HTTP/1.1\r\n")
	must(t, err)
	out, _ := io.ReadAll(c)
	if !strings.HasPrefix(string(out), "HTTP/1.1 408 ") {
		t.Errorf("got %q", out)
	}
}

func TestHalfCloseReachesTheOrigin(t *testing.T) {
	l, err := net.Listen("tcp", net.JoinHostPort(world.Address, "7777"))
	must(t, err)
	defer l.Close()
	go func() {
		c, err := l.Accept()
		if err != nil {
			return
		}
		defer c.Close()
		data, _ := io.ReadAll(c) // ends only with the client's half-close
		fmt.Fprintf(c, "got %d bytes", len(data))
	}()
	standalone(t, policyText+"  echo: {endpoints: [{host: api.demo.test, port: 7777}], binaries: [{path: /usr/bin/curl}]}\n")
	body := strings.Repeat("x", 300000)
	out := talk(t, "CONNECT api.demo.test:7777 HTTP/1.1\r\nHost: api.demo.test:7777\r\n\r\n"+body)
	if !strings.HasSuffix(out, "got 300000 bytes") {
		t.Errorf("got %q", out)
	}
}

// TestSIGTERMDrains: an open tunnel may finish within the drain time.
func TestSIGTERMDrains(t *testing.T) {
	p := standalone(t, policyText, "--drain-timeout", "20s")
	c, err := net.Dial("tcp", standaloneAddress)
	must(t, err)
	defer c.Close()
	_, err = io.WriteString(c, "CONNECT api.demo.test:80 HTTP/1.1\r\nHost: api.demo.test:80\r\n\r\n")
	must(t, err)
	buf := make([]byte, 4096)
	_, err = c.Read(buf)
	must(t, err)
	p.network.kill(syscall.SIGTERM)
	eventually(t, "the listener's end", func() bool {
		c, err := net.Dial("tcp", standaloneAddress)
		if err == nil {
			c.Close()
		}
		return err != nil
	})
	_, err = io.WriteString(c, "GET / HTTP/1.1\r\nHost: api.demo.test\r\nConnection: close\r\n\r\n")
	must(t, err)
	out, _ := io.ReadAll(c)
	if !strings.Contains(string(out), "hello from") {
		t.Errorf("the tunnel was cut: %q", out)
	}
	if code := p.network.wait(t); code != 0 {
		t.Errorf("exit code %d", code)
	}
}

func TestCAOutAndPolicyErrorsStartNothing(t *testing.T) {
	file := policyFile(t, "version: 1\nnetwork_policies: 5\n")
	code, _, errs := command(t, "supervisor-network", "serve", "--policy", file, "--listen", standaloneAddress, "--identity", "ignore", "--admin-listen", "", "--state-dir", t.TempDir())
	if code != 78 || !strings.Contains(errs, file+":2:") {
		t.Errorf("exit code %d, errors %q", code, errs)
	}
	if c, err := net.Dial("tcp", standaloneAddress); err == nil {
		c.Close()
		t.Error("something listens")
	}
	file = policyFile(t, "version: 1\n")
	for _, c := range [][]string{ // what is wrong is named by the flag, which comes first
		{"--state-dir", "/etc/hostname"},
		{"--state-dir", "/proc"},
		{"--run-dir", "/no/such/folder"},
		{"--ca-out", "/no/such/folder/ca.pem"},
		{"--record-dir", "/no/such/folder"},
		{"--admin-listen", "127.0.0.1:99999"},
		{"--listen", "127.0.0.1:99999"},
	} {
		args := append([]string{"serve", "--policy", file, "--state-dir", t.TempDir(), "--run-dir", t.TempDir(), "--admin-listen", ""}, c...)
		if code, _, errs := command(t, "supervisor-network", args...); code == 0 || !strings.Contains(errs, c[0]) {
			t.Errorf("%v: exit code %d, errors %q", c, code, errs)
		}
	}
}

// TestTheDaemonsThreadsAreNotWokenForMicroseconds: those that were there when it was set,
// the runtime's monitor among them, and those that came behind it.
func TestTheDaemonsThreadsAreNotWokenForMicroseconds(t *testing.T) {
	p := standalone(t, policyText)
	threads, err := filepath.Glob(fmt.Sprintf("/proc/%d/task/*", p.network.cmd.Process.Pid))
	must(t, err)
	if len(threads) < 3 {
		t.Fatalf("the daemon has the threads %q", threads)
	}
	for _, thread := range threads {
		slack, err := os.ReadFile("/proc/" + filepath.Base(thread) + "/timerslack_ns")
		if err != nil {
			continue // it ended
		}
		if got := strings.TrimSpace(string(slack)); got != "500000" {
			t.Errorf("%s may be woken %s ns late", thread, got)
		}
	}
}
