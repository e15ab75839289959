package e2e_test

import (
	"fmt"
	"os"
	"strings"
	"syscall"
	"testing"
)

// workerScript connects again and again and prints what happened, one line each.
const workerScript = `
n=0
while [ $n -lt %d ]; do
  n=$((n+1))
  curl -sS -m 120 -o /dev/null -w "%%{http_code}\n" https://api.demo.test/ || echo failed
  curl -sS -m 3 --noproxy '*' http://10.77.0.1/ -o /dev/null 2>/dev/null && echo LEAK
done
echo done
`

// TestNetworkDaemonKilledUnderLoad: the workload keeps its pid, every new connection
// succeeds (some after waiting), the CA stays, and no refusal of the fence is lost but what
// a killed daemon had in hand, which the next one tells. The one connection that a killed
// daemon was serving is cut; none is refused, none waits for ever.
func TestNetworkDaemonKilledUnderLoad(t *testing.T) { underLoad(t, syscall.SIGKILL) }

// TestNetworkDaemonStoppedUnderLoad: the same when it is asked to end, as for an
// upgrade; then none is cut or lost either: what is open is drained.
func TestNetworkDaemonStoppedUnderLoad(t *testing.T) { underLoad(t, syscall.SIGTERM) }

func underLoad(t *testing.T, end syscall.Signal) {
	p := newPair(t, policyText)
	p.startNetwork()
	const rounds, kills = 60, 3
	p.startProcess("sh", "-c", "echo pid $$; "+fmt.Sprintf(workerScript, rounds)+"echo pid $$")
	for kill := range kills {
		eventually(t, "progress before a kill", func() bool { return strings.Count(p.process.out.String(), "200\n") >= 10*(kill+1) })
		ca, err := os.ReadFile(p.dir + "/state/ca.pem")
		must(t, err)
		p.network.kill(end)
		<-p.network.ended
		earlier := p.network
		p.startNetwork()
		_, _ = p.network.out.Write([]byte(earlier.out.String())) // keep all records in one place
		again, err := os.ReadFile(p.dir + "/state/ca.pem")
		must(t, err)
		if string(ca) != string(again) {
			t.Error("the CA changed with a restart")
		}
	}
	if code := p.process.wait(t); code != 0 {
		t.Fatalf("exit code %d", code)
	}
	out := p.process.out.String()
	n, cut := strings.Count(out, "200\n"), strings.Count(out, "failed\n")
	if n+cut != rounds || cut > kills || cut > 0 && end == syscall.SIGTERM {
		t.Errorf("%d of %d connections succeeded, %d were cut", n, rounds, cut)
	}
	for _, refused := range []string{"curl: (7)", "curl: (28)"} { // not connected; timed out
		if all := out + p.process.err.String(); strings.Contains(all, refused) {
			t.Errorf("%s in:\n%s", refused, all)
		}
	}
	if strings.Contains(out, "LEAK") {
		t.Error("something got out while the network daemon was away")
	}
	pids := strings.Split(strings.TrimSpace(out), "\n")
	if pids[0] != pids[len(pids)-1] {
		t.Errorf("the workload's pid changed: %s, %s", pids[0], pids[len(pids)-1])
	}
	eventually(t, "delivery of every refusal of the fence", func() bool {
		var process, network account
		process.add(t, p.processRecords())
		network.add(t, p.network.out.String())
		if end == syscall.SIGTERM && network.unsure > 0 {
			t.Fatalf("the network daemon is unsure of %d events", network.unsure)
		}
		return process.events > 0 && network.events+network.unsure >= process.events
	})
}

func bypassCount(t *testing.T, text string) (n int) {
	for _, r := range parseRecords(t, text) {
		if r.Unmapped.Kind == "bypass" {
			n += max(r.Count, 1)
		}
	}
	return n
}

// TestProcessDaemonKilled: no process of the workload survives, and the network
// daemon serves the next instance.
func TestProcessDaemonKilled(t *testing.T) {
	p := newPair(t, policyText)
	p.startNetwork()
	mark := fmt.Sprintf("8%d", os.Getpid())
	p.startProcess("sh", "-c", "sleep "+mark+" & setsid sleep "+mark+" & echo started; wait")
	eventually(t, "the workload to start", func() bool { return strings.Contains(p.process.out.String(), "started") })
	eventually(t, "both sleepers", func() bool { return countProcesses(t, "sleep", mark) == 2 })
	p.process.kill(syscall.SIGKILL)
	<-p.process.ended
	eventually(t, "the end of every workload process", func() bool { return countProcesses(t, "sleep", mark) == 0 })

	p.startProcess(curl("https://api.demo.test/")...)
	if code := p.process.wait(t); code != 0 {
		t.Errorf("the next instance's workload ended with %d", code)
	}
}

// countProcesses counts those with exactly these arguments: other suites run beside this
// one, and a mark may begin with theirs.
func countProcesses(t *testing.T, argv ...string) (n int) {
	t.Helper()
	entries, err := os.ReadDir("/proc")
	must(t, err)
	for _, e := range entries {
		if data, err := os.ReadFile("/proc/" + e.Name() + "/cmdline"); err == nil && string(data) == strings.Join(argv, "\x00")+"\x00" {
			n++
		}
	}
	return n
}

// TestStartInEitherOrder: whoever comes first waits for the other.
func TestStartInEitherOrder(t *testing.T) {
	p := newPair(t, policyText)
	p.startProcess(curl("https://api.demo.test/")...)
	eventually(t, "the process daemon's socket", func() bool {
		_, err := os.Stat(p.dir + "/run/process.sock")
		return err == nil
	})
	if out := p.process.out.String(); out != "" {
		t.Errorf("the workload ran before the network daemon was there: %q", out)
	}
	p.startNetwork()
	if code := p.process.wait(t); code != 0 {
		t.Errorf("exit code %d", code)
	}
}

func TestExitCodesAndSignals(t *testing.T) {
	for name, tc := range map[string]struct {
		command []string
		code    int
	}{
		"success":              {[]string{"true"}, 0},
		"its own code":         {[]string{"sh", "-c", "exit 7"}, 7},
		"killed by a signal":   {[]string{"sh", "-c", "kill -KILL $$"}, 128 + 9},
		"a program not found":  {[]string{"/no/such/program"}, 127},
		"not executable":       {[]string{"/etc/hosts"}, 126},
		"argv is byte-exact":   {[]string{"sh", "-c", `[ "$1" = "a  b" ] && [ "$2" = "" ] && [ "$3" = 'q"$x' ]`, "sh", "a  b", "", `q"$x`}, 0},
		"newlines in argv too": {[]string{"sh", "-c", "[ \"$1\" = \"x\ny\" ]", "sh", "x\ny"}, 0},
	} {
		t.Run(name, func(t *testing.T) {
			if _, code, out := run(t, policyText, tc.command...); code != tc.code {
				t.Errorf("exit code %d, want %d; output %q", code, tc.code, out)
			}
		})
	}
}

func TestSIGTERMReachesTheWorkload(t *testing.T) {
	p := newPair(t, policyText)
	p.startNetwork()
	p.startProcessWith([]string{"--grace", "5m"}, "sh", "-c", "trap 'echo got it; exit 5' TERM; echo ready; while :; do sleep 0.05; done")
	eventually(t, "the workload", func() bool { return strings.Contains(p.process.out.String(), "ready") })
	p.process.kill(syscall.SIGTERM)
	if code := p.process.wait(t); code != 5 || !strings.Contains(p.process.out.String(), "got it") {
		t.Errorf("exit code %d, output %q", code, p.process.out)
	}
}

func TestAWorkloadThatIgnoresSIGTERMIsKilledAfterTheGraceTime(t *testing.T) {
	p := newPair(t, policyText)
	p.startNetwork()
	p.startProcess("sh", "-c", "trap '' TERM; echo ready; while :; do sleep 0.05; done")
	eventually(t, "the workload", func() bool { return strings.Contains(p.process.out.String(), "ready") })
	p.process.kill(syscall.SIGTERM)
	if code := p.process.wait(t); code != 128+9 {
		t.Errorf("exit code %d, want 137", code)
	}
}

// TestTheEndIsReportedBeforeOurs: when the process daemon has ended, the network daemon
// knows how its workload did, whatever ended it.
func TestTheEndIsReportedBeforeOurs(t *testing.T) {
	for name, tc := range map[string]struct {
		flags, command []string
		code           int
	}{
		"by itself":   {nil, []string{"sh", "-c", "exit 7"}, 7},
		"by a signal": {nil, []string{"sh", "-c", "kill -KILL $$"}, 137},
		"too late":    {[]string{"--timeout", "200ms"}, []string{"sleep", "1000"}, 124},
		"never begun": {nil, []string{"/no/such/program"}, 127},
	} {
		t.Run(name, func(t *testing.T) {
			p := newPair(t, policyText)
			p.startNetwork()
			p.startProcessWith(tc.flags, tc.command...)
			if code := p.process.wait(t); code != tc.code {
				t.Errorf("exit code %d, want %d", code, tc.code)
			}
			p.network.kill(syscall.SIGKILL) // what it does not know by now it never will
			p.network.wait(t)
			told := false
			for _, r := range parseRecords(t, p.network.out.String()) {
				told = told || r.Message == "workload exited" && r.ExitCode != nil && *r.ExitCode == tc.code
			}
			if !told {
				t.Errorf("the network daemon was not told")
			}
		})
	}
}
