package e2e_test

import (
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"syscall"
	"testing"

	"github.com/splitpod/splitpod/test/world"
)

// replaced is the build of another release that a daemon's own is replaced by.
func replaced(name string) string {
	return os.Getenv("SPLITPOD_TEST_BIN_" + strings.ToUpper(strings.TrimPrefix(name, "supervisor-")))
}

// sayReplaced prints the versions of replaced daemons, so that whoever replaces one
// sees that it is used.
func sayReplaced() {
	for _, name := range []string{"supervisor-network", "supervisor-process"} {
		if program := replaced(name); program != "" {
			version, err := exec.Command(program, "version").CombinedOutput()
			fmt.Printf("replaced by %s: %s (%v)\n", program, strings.TrimSpace(string(version)), err)
		}
	}
}

// TestAWorkloadOutlivesANetworkDaemonThatDoesNotFit: an image whose contract has nothing
// in common with the process daemon's comes under a running workload. That lives on
// without egress, both daemons are not ready and say why, and the image that fitted
// brings everything back.
func TestAWorkloadOutlivesANetworkDaemonThatDoesNotFit(t *testing.T) {
	p := newPair(t, policyText)
	future := ofTheFuture(t, p.dir)
	network, process := world.Address+":9911", world.Address+":9912"
	p.startNetwork("--admin-listen", network)
	p.startProcessWith([]string{"--admin-listen", process}, "sh", "-c", "echo pid $$; while :; do curl -sS -m 2 -o /dev/null -w '%{http_code}\n' https://api.demo.test/ || echo failed; done")
	eventually(t, "a request", func() bool { return strings.Contains(p.process.out.String(), "200\n") })

	p.network.kill(syscall.SIGTERM)
	<-p.network.ended
	p.startNetworkFrom(future, "--admin-listen", network)
	const why = "upgrade the supervisor-process image"
	eventually(t, "the process daemon's finding", func() bool {
		for _, r := range parseRecords(t, p.processRecords()) {
			if r.Unmapped.Reason == "handshake_refused" {
				return strings.Contains(p.processRecords(), why)
			}
		}
		return false
	})
	eventually(t, "the network daemon's finding", func() bool {
		return strings.Contains(p.network.out.String(), `"peer_refused"`) && strings.Contains(p.network.out.String(), why)
	})
	for name, address := range map[string]string{"network": network, "process": process} {
		eventually(t, "the "+name+" daemon to be not ready for that reason", func() bool {
			code, text := ready(t, address)
			return code == http.StatusServiceUnavailable && strings.Contains(text, why)
		})
	}
	before := p.process.out.String()
	eventually(t, "requests that fail", func() bool {
		return strings.Count(strings.TrimPrefix(p.process.out.String(), before), "failed\n") >= 2
	})
	if during := strings.TrimPrefix(p.process.out.String(), before); strings.Contains(during, "200\n") {
		t.Errorf("a request passed under a contract nobody agreed on:\n%s", during)
	}

	p.network.kill(syscall.SIGKILL)
	<-p.network.ended
	p.startNetwork("--admin-listen", network)
	before = p.process.out.String()
	eventually(t, "requests again", func() bool { return strings.Contains(strings.TrimPrefix(p.process.out.String(), before), "200\n") })
	if n := strings.Count(p.process.out.String(), "pid "); n != 1 {
		t.Errorf("the workload was started %d times", n)
	}
	eventually(t, "readiness", func() bool { code, _ := ready(t, process); return code == http.StatusOK })
}

// ready asks a daemon.
func ready(t *testing.T, address string) (code int, text string) {
	t.Helper()
	resp, err := http.Get("http://" + address + "/readyz?verbose")
	if err != nil {
		return 0, err.Error()
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	must(t, err)
	return resp.StatusCode, string(body)
}

// ofTheFuture builds a network daemon of a release that speaks only a revision to come.
func ofTheFuture(t *testing.T, dir string) string {
	t.Helper()
	contract, err := filepath.Abs("../../pkg/core/contract.go")
	must(t, err)
	data, err := os.ReadFile(contract)
	must(t, err)
	text := regexp.MustCompile(`(?m)^(\t(?:Min|Max)Revision = ).*$`).ReplaceAll(data, []byte("${1}77"))
	if string(text) == string(data) {
		t.Fatal("the contract's revision is not where it was")
	}
	to := filepath.Join(dir, "future")
	must(t, os.WriteFile(to+".go", text, 0o644))
	must(t, os.WriteFile(to+".json", fmt.Appendf(nil, `{"Replace": {%q: %q}}`, contract, to+".go"), 0o644))
	cmd := exec.Command("go", "build", "-pgo=off", "-overlay", to+".json", "-o", to, "../../cmd/supervisor-network")
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	return to
}
