package e2e_test

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// A pod with its own user namespace: the daemon's root is root of nothing outside.
func TestTheSandboxWorksInAUserNamespace(t *testing.T) {
	for name, masked := range map[string]bool{"with its own /proc": false, "where somebody else has masked /proc": true} {
		t.Run(name, func(t *testing.T) {
			p := newPair(t, policyText)
			p.startNetwork()
			p.startProcessInUserNamespace(masked, "sh", "-c", strings.Join([]string{
				"curl -sS https://api.demo.test/",
				"for i in 1 2 3 4 5; do curl -sS -m 60 --noproxy '*' http://10.77.0.1/ 2>/dev/null || echo refused=$?; sleep 0.25; done", // one finds its program named
				"ls /proc | grep -c '^[0-9]'",
				"cat /proc/1/environ /proc/1/maps 2>&1 | grep -ci denied",
				"id -u; exit 5",
			}, "; "))
			code := p.process.wait(t)
			out := p.process.out.String()
			if code != 5 || !strings.Contains(out, "hello from api.demo.test") || strings.Count(out, "refused=7\n") != 5 || !strings.Contains(out, "\n2\n1000\n") {
				t.Fatalf("exit code %d, output %q, errors %q", code, out, p.process.err)
			}
			records, err := os.ReadFile(p.dir + "/process.records")
			must(t, err)
			if told := strings.Contains(string(records), "procMount: Unmasked"); told != masked {
				t.Errorf("the finding about /proc: %v", told)
			}
			if bypass := string(records); !strings.Contains(bypass, "/usr/bin/curl") {
				t.Errorf("the refused connection is not attributed: %s", bypass)
			}
		})
	}
}

func TestTheWorkloadsOwnLimitOfProcesses(t *testing.T) {
	p := newPair(t, policyText)
	p.startNetwork()
	p.startProcessWith([]string{"--pids", "40"}, "bash", "-c", "for i in $(seq 60); do sleep 100 & done 2>/dev/null; echo not reached")
	code := p.process.wait(t)
	if errs := p.process.out.String(); code == 0 || strings.Contains(errs, "not reached") {
		t.Errorf("60 processes fit into a limit of 40: exit code %d, %s", code, errs)
	}
	p = newPair(t, policyText)
	p.startNetwork()
	p.startProcessWith([]string{"--pids", "40"}, "bash", "-c", "for i in $(seq 20); do sleep 100 & done; echo reached")
	if code := p.process.wait(t); code != 0 || !strings.Contains(p.process.out.String(), "reached") {
		t.Errorf("20 processes do not fit into a limit of 40: exit code %d, %s", code, p.process.err)
	}
	left, err := filepath.Glob("/sys/fs/cgroup/pids/splitpod-*")
	must(t, err)
	if strings.Contains(p.process.err.String(), "left behind") {
		t.Errorf("cgroups are left behind: %v, %s", left, p.process.err)
	}
}
