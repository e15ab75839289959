package e2e_test

import (
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/splitpod/splitpod/test/need"
	"github.com/splitpod/splitpod/test/world"
)

const adminPort = "19901"

// fetch asks the admin listener.
func fetch(t *testing.T, url string) (status int, body []byte) {
	t.Helper()
	client := &http.Client{Transport: &http.Transport{DisableKeepAlives: true}}
	resp, err := client.Get(url)
	if err != nil {
		return 0, nil
	}
	defer resp.Body.Close()
	body, _ = io.ReadAll(resp.Body)
	return resp.StatusCode, body
}

// seen is the part of the live view that the test looks at.
type seen struct {
	Ready bool
	Peer  struct {
		Attached bool
		Workload string
	}
	Policy       struct{ Generation int }
	Connections  int
	Tunnels      int
	Totals       struct{ Allowed, Failed, Denied, Bypassed int }
	Hour         struct{ Allowed, Denied []int }
	Denied       struct{ Rows []seenRow }
	Proposals    struct{ Pending []struct{ Changes []string } }
	Destinations struct{ Rows []seenRow }
	Active       struct{ Rows []seenRow }
}

type seenRow struct {
	Host, Reason, Program, Request string
	Port, Count, Received, Unread  int
}

// TestTheLiveViewShowsWhatHappens: a workload is allowed and refused, and both are on
// the endpoint, in a terminal, in a pipe and in a browser, and nowhere else.
func TestTheLiveViewShowsWhatHappens(t *testing.T) {
	need.Root(t)
	browse, script := need.Chromium(t), need.Program(t, "script")
	open, err := net.Listen("tcp", net.JoinHostPort(world.Address, "7777")) // a tunnel stays open: nobody answers
	must(t, err)
	defer open.Close()
	p := newPair(t, policyText+"  open: {endpoints: [{host: api.demo.test, port: 7777}], binaries: [{path: /usr/bin/curl}]}\n")
	p.startNetwork("--admin-listen", ":"+adminPort)
	p.startProcess("sh", "-c", `
		curl -sS --proxytunnel http://api.demo.test/bytes?n=5000 -o /dev/null
		curl -sS --proxytunnel http://api.demo.test/ -o /dev/null
		for i in 1 2 3; do curl -sS https://evil.demo.test/; done
		curl -sS --noproxy '*' -m 5 http://`+world.Address+`:`+adminPort+`/view.json && echo LEAK
		curl -sS http://`+world.Address+`:`+adminPort+`/view.json -o /dev/null -w 'code %{http_code}\n'
		curl -sS http://127.0.0.1:`+adminPort+`/view.json -o /dev/null -w 'code %{http_code}\n' -x http://127.0.0.1:3128 --noproxy ''
		sleep 1000 | curl -sSN --proxytunnel telnet://api.demo.test:7777 >/dev/null &
		echo done; sleep 1000`)
	const url = "http://127.0.0.1:" + adminPort
	var v seen
	eventually(t, "the view", func() bool {
		v = seen{}
		status, body := fetch(t, url+"/view.json")
		return status == 200 && json.Unmarshal(body, &v) == nil && strings.Contains(p.process.out.String(), "done") &&
			v.Totals.Allowed >= 2 && v.Totals.Denied >= 5 && v.Totals.Bypassed >= 1 && v.Tunnels >= 1 && find(v.Active.Rows, "api.demo.test").Unread == 1
	})
	if out := p.process.out.String(); strings.Contains(out, "LEAK") || strings.Count(out, "code 403") != 2 {
		t.Errorf("the workload reaches the view: %s", out)
	}
	if !v.Ready || !v.Peer.Attached || v.Peer.Workload != "running" || v.Policy.Generation < 1 || v.Connections < 1 {
		t.Errorf("%+v", v)
	}
	if sum(v.Hour.Allowed) != v.Totals.Allowed || sum(v.Hour.Denied) != v.Totals.Denied {
		t.Errorf("the hour has %d and %d of %+v", sum(v.Hour.Allowed), sum(v.Hour.Denied), v.Totals)
	}
	r := find(v.Denied.Rows, "evil.demo.test")
	if r.Count != 3 || r.Port != 443 || r.Reason != "policy_denied" || r.Program != "/usr/bin/curl" {
		t.Errorf("the refusals are shown as %+v", r)
	}
	eventually(t, "the record that the view names", func() bool { return strings.Contains(p.network.out.String(), `"request_id":"`+r.Request+`"`) })
	if r := find(v.Destinations.Rows, "api.demo.test"); r.Count != 2 || r.Received < 5000 {
		t.Errorf("the destination is shown as %+v", r)
	}

	// The tunnel is not over, and is nevertheless there.
	if r := find(v.Active.Rows, "api.demo.test"); r.Port != 7777 || r.Count != 1 || r.Unread != 1 || r.Program != "/usr/bin/curl" {
		t.Errorf("what is under way is shown as %+v", v.Active)
	}

	// A neighbour has the pod's address, and gets health only.
	for path, want := range map[string]int{"/view.json": 403, "/": 403, "/livez": 200, "/metrics": 200} {
		if status, body := fetch(t, "http://"+world.Address+":"+adminPort+path); status != want || want == 403 && strings.Contains(string(body), "demo.test") {
			t.Errorf("%s of a neighbour: %d %s", path, status, body)
		}
	}

	eventually(t, "a proposal for what was refused", func() bool {
		v = seen{}
		_, body := fetch(t, url+"/view.json")
		return json.Unmarshal(body, &v) == nil && strings.Contains(fmt.Sprint(v.Proposals.Pending), "to evil.demo.test:443")
	})

	code, out, errs := command(t, "supervisor-network", "watch", "--url", url+"/view.json", "--count", "2")
	if code != 0 || strings.Count(out, "\n") != 2 || !strings.Contains(out, "workload running; allowed 2 ") || !strings.Contains(out, "most refused: evil.demo.test:443  policy_denied  /usr/bin/curl, 3 times") {
		t.Errorf("exit code %d, output %q, errors %q", code, out, errs)
	}
	// script gives it a terminal.
	cmd := exec.Command(script, "-qec", "stty rows 40 cols 120; "+binary(t, "supervisor-network")+" watch --count 2 --url "+url+"/view.json", "/dev/null")
	cmd.Env = []string{"PATH=/usr/bin:/bin", "TERM=xterm", "SHELL=/bin/sh"}
	screen, err := cmd.Output()
	must(t, err)
	if s := string(screen); !strings.HasPrefix(s, "\x1b[?1049h\x1b[?25l\x1b[H") || !strings.HasSuffix(s, "\x1b[?25h\x1b[?1049l") || strings.Count(s, "\x1b[H") != 2 ||
		!strings.Contains(s, "       3  evil.demo.test:443  policy_denied  /usr/bin/curl\x1b[K\r\n") {
		t.Errorf("on a terminal: %q", s)
	}

	shown := browse("1280,1000", "--dump-dom", url+"/")
	for _, want := range []string{`data-shown="yes"`, "evil.demo.test:443", "policy_denied", "/usr/bin/curl", "api.demo.test:80", "api.demo.test:7777", "workload running", `<div class="gained">+ /usr/bin/curl may`, `<rect class="allowed"`, `<rect class="denied"`} {
		if !strings.Contains(shown, want) {
			t.Errorf("%q is not in the page:\n%s", want, shown)
		}
	}
	picture := filepath.Join(t.ArtifactDir(), "live.png")
	browse("1280,1000", "--screenshot="+picture, url+"/")
	if info, err := os.Stat(picture); err != nil || info.Size() < 10_000 {
		t.Errorf("the picture: %v", err)
	}
	p.network.kill(syscall.SIGTERM)
	if code, _, errs := command(t, "supervisor-network", "watch", "--url", "http://127.0.0.1:1/view.json", "--count", "1"); code != 1 || !strings.Contains(errs, "connection refused") {
		t.Errorf("nobody there: %d %q", code, errs)
	}
}

func sum(in []int) (n int) {
	for _, v := range in {
		n += v
	}
	return n
}

func find(rows []seenRow, host string) seenRow {
	for _, r := range rows {
		if r.Host == host {
			return r
		}
	}
	return seenRow{}
}
