package kube_test

import (
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/splitpod/splitpod/test/e2e/kube/cluster"
	"github.com/splitpod/splitpod/test/world"
)

// TestANetworkDaemonWithoutMemory: the kernel ends it. The workload goes on, nothing gets
// out that may not, before, meanwhile and after; the next instance has the same CA.
func TestANetworkDaemonWithoutMemory(t *testing.T) {
	t.Parallel()
	s := newSpace(t)
	var leaked atomic.Int64
	origins.Mux.HandleFunc("other.demo.test/without-memory", func(http.ResponseWriter, *http.Request) { leaked.Add(1) })
	s.install(values("Pod", "", "agent", "lines"))
	s.ready("box")
	pid := s.workloadPID("box")
	refused := s.start("box", "agent", "denied", "http://other.demo.test/without-memory")
	direct := s.start("box", "agent", "knock", world.Address+":80")
	if err := kube.LimitMemory(s.container("box", "supervisor-network"), 1<<20); err != nil {
		t.Fatal(err)
	}
	s.start("box", "agent", "tunnels", "api.demo.test:"+echoPort, "1500") // some 15 KiB each
	s.eventually("the restart", func() bool { return s.restarts("box", "supervisor-network") == "1" })
	const last = `{.status.initContainerStatuses[0].lastState.terminated.`
	s.eventually("the kernel's reason in the pod's status", func() bool { // the runtime learns it beside the end
		return s.get("pod/box", last+"reason}")+" "+s.get("pod/box", last+"exitCode}") == "OOMKilled 137"
	})
	s.ready("box")
	if out, code := s.inside("box", "agent", "get", "http://api.demo.test/"); code != 0 {
		t.Errorf("an allowed request after the restart: %s", out)
	}
	before := refused.number("told")
	refused.finish()
	direct.finish()
	if n, of := direct.number("opened"), direct.number("tried"); n != 0 || of < 20 {
		t.Errorf("%d of %d direct connections were open", n, of)
	}
	if n, told := leaked.Load(), refused.number("told"); n != 0 || told <= before {
		t.Errorf("%d denied requests arrived, %d were refused", n, told)
	}
	s.trusts("box")
	if n, after := s.restarts("box", "workload"), s.workloadPID("box"); n != "0" || after != pid || pid == "" {
		t.Errorf("the workload was restarted %s times; it was %s, is %s", n, pid, after)
	}
}

// trusts has the workload verify the network daemon's certificate. What that daemon makes
// of the origin's, which it does not know, is the answer.
func (s *space) trusts(pod string) {
	s.t.Helper()
	out, code := s.inside(pod, "curl", "-sS", "-m", "120", "-o", "/dev/null", "-w", "%{http_code}", "https://api.demo.test/")
	if code != 0 || out != "502" {
		s.t.Errorf("the workload does not trust the CA of the network daemon: exit code %d, %s", code, out)
	}
}

// TestAStateVolumeThatIsFull: what may and may not stays what it was, also for a daemon
// that starts on it, and an operator is told. When there is room again, what was missed
// is made up for. No file is there in part.
func TestAStateVolumeThatIsFull(t *testing.T) {
	t.Parallel()
	s := newSpace(t)
	s.install(values("Pod", "", "agent", "lines"))
	s.ready("box")
	ip, pid := s.get("pod/box", "{.status.podIP}"), s.workloadPID("box")
	dir := kube.EmptyDir(s.get("pod/box", "{.metadata.uid}"), "state")
	filled := fill(t, dir)
	decides := func(when string) {
		t.Helper()
		if out, code := s.inside("box", "agent", "get", "http://api.demo.test/"); code != 0 || !strings.Contains(out, "200") {
			t.Errorf("%s, what is allowed: %s", when, out)
		}
		if out, _ := s.inside("box", "agent", "get", "http://other.demo.test/"); !strings.Contains(out, "403") {
			t.Errorf("%s, what is denied: %s", when, out)
		}
	}
	told := func(when string) {
		t.Helper()
		s.eventually(when+", a pod that is not ready", func() bool {
			return s.get("pod/box", `{.status.conditions[?(@.type=="Ready")].status}`) == "False"
		})
		s.eventually(when+", metrics that say so", func() bool {
			return metric(ip, "9901", "splitpod_ready_check", `check="state"`) == 0 && metric(ip, "9901", "splitpod_state_free_bytes") == 0
		})
		s.eventually(when+", a line in the log", func() bool { return strings.Contains(s.logs("box", "supervisor-network"), "no room for state") })
	}
	told("full")
	decides("full")
	if err := kube.Kill(s.container("box", "supervisor-network"), "SIGKILL"); err != nil {
		t.Fatal(err)
	}
	s.eventually("the restart", func() bool { return s.restarts("box", "supervisor-network") == "1" })
	s.eventually("the daemon", func() bool { return metric(ip, "9901", "splitpod_ready_check", `check="listeners"`) == 1 })
	told("full at the start")
	decides("full at the start")
	s.eventually("a proposal that is not kept", func() bool {
		return strings.Contains(s.logs("box", "supervisor-network"), "denials could not be made into proposals")
	})

	if err := os.Remove(filled); err != nil {
		t.Fatal(err)
	}
	s.ready("box")
	s.eventually("the proposal", func() bool {
		out, err := kube.Kubectl("-n", s.name, "exec", "box", "-c", "supervisor-network", "--", "/supervisor-network", "proposals", "list")
		return err == nil && strings.Contains(out, "other.demo.test")
	})
	decides("with room again")
	s.trusts("box")
	if after := s.workloadPID("box"); after != pid || pid == "" {
		t.Errorf("the workload was %s, is %s", pid, after)
	}
	var broken []string
	if !cluster.Eventually(func() bool { // one that is being written is, for a moment
		broken = brokenFiles(t, dir)
		return broken == nil
	}) {
		t.Errorf("files that were written in part: %s", broken)
	}
}

// fill takes all that is left of a volume.
func fill(t *testing.T, dir string) (file string) {
	t.Helper()
	file = filepath.Join(dir, "somebody-elses")
	f, err := os.Create(file)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	for mib, block := 0, make([]byte, 1<<20); mib < 64; mib++ {
		if _, err := f.Write(block); err != nil {
			return file
		}
	}
	t.Fatal("the volume takes more than 64 MiB: it has no limit")
	return ""
}

// brokenFiles lists files that were written in part.
func brokenFiles(t *testing.T, dir string) (found []string) {
	t.Helper()
	entries, err := os.ReadDir(dir)
	if err != nil || len(entries) < 4 {
		t.Fatalf("%v, %v", entries, err)
	}
	for _, e := range entries {
		name := e.Name()
		data, err := os.ReadFile(filepath.Join(dir, name))
		switch {
		case strings.HasSuffix(name, ".sock"):
		case strings.HasPrefix(name, ".") || err != nil:
			found = append(found, fmt.Sprintf("%s is left, %v", name, err))
		case strings.HasSuffix(name, ".json") && !json.Valid(data), len(data) == 0:
			found = append(found, fmt.Sprintf("%s is not whole: %q", name, data))
		}
	}
	return found
}

var forwarded = regexp.MustCompile(`127\.0\.0\.1:(\d+) ->`)

// TestTheLiveViewIsForwarded: the page is for whoever may forward ports of the pod, and
// for nobody in the pod network.
func TestTheLiveViewIsForwarded(t *testing.T) {
	t.Parallel()
	s := newSpace(t)
	s.install(values("Pod", "", "agent", "lines"))
	s.ready("box")
	s.inside("box", "agent", "get", "http://other.demo.test/")
	forward := s.open("port-forward", "pod/box", ":9901")
	var port string
	s.eventually("the forwarded port", func() bool {
		if m := forwarded.FindStringSubmatch(forward.String()); m != nil {
			port = m[1]
		}
		return port != ""
	})
	local := "127.0.0.1:" + port
	s.eventually("the page", func() bool {
		code, body := fetch(t, local, "localhost:"+port, "/")
		return code == http.StatusOK && strings.Contains(body, "<html")
	})
	s.eventually("the refusal in the view", func() bool {
		var view struct {
			Denied struct{ Rows []struct{ Host string } }
		}
		code, body := fetch(t, local, local, "/view.json")
		return code == http.StatusOK && json.Unmarshal([]byte(body), &view) == nil && len(view.Denied.Rows) > 0 && view.Denied.Rows[0].Host == "other.demo.test"
	})
	if code, body := fetch(t, local, "box.example:"+port, "/view.json"); code == http.StatusOK {
		t.Errorf("under another name, which a page elsewhere may have made lead here: %.200s", body)
	}
	pod := s.get("pod/box", "{.status.podIP}") + ":9901"
	for _, path := range []string{"/", "/view.json"} {
		for _, host := range []string{pod, "localhost:9901"} {
			if code, body := fetch(t, pod, host, path); code == http.StatusOK {
				t.Errorf("the pod network sees %s as %s: %.200s", path, host, body)
			}
		}
	}
	if code, _ := fetch(t, pod, pod, "/livez"); code != http.StatusOK {
		t.Errorf("the pod network does not see /livez: %d", code) // or else the refusals above prove nothing
	}
}

func fetch(t *testing.T, addr, host, path string) (code int, body string) {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, fmt.Sprintf("http://%s%s", addr, path), nil)
	if err != nil {
		t.Fatal(err)
	}
	req.Host = host
	resp, err := (&http.Transport{DisableKeepAlives: true}).RoundTrip(req)
	if err != nil {
		return 0, err.Error()
	}
	defer resp.Body.Close()
	data, _ := io.ReadAll(io.LimitReader(resp.Body, 1<<20))
	return resp.StatusCode, string(data)
}
