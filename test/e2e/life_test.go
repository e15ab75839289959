package e2e_test

import (
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"

	"github.com/splitpod/splitpod/test/need"
)

// TestAStartThatIsNotServedEndsAndLeavesNothing: however it ends while no network daemon
// comes, the workload has not run, and init, which came up meanwhile, is gone.
func TestAStartThatIsNotServedEndsAndLeavesNothing(t *testing.T) {
	for name, tt := range map[string]struct {
		patience string
		end      syscall.Signal
		want     string
		code     int
	}{
		"its time is over": {"700ms", 0, "gave up waiting for the network daemon to attach", 1},
		"SIGTERM":          {"60s", syscall.SIGTERM, "stopped while waiting for the network daemon to attach", 1},
		"SIGKILL":          {"60s", syscall.SIGKILL, "", -1},
	} {
		t.Run(name, func(t *testing.T) {
			p := newPair(t, policyText)
			p.startProcessWith([]string{"--start-timeout", tt.patience}, "echo", "it ran")
			var children []string
			eventually(t, "init", func() bool {
				children = childrenOf(p.process.cmd.Process.Pid)
				select {
				case <-p.process.ended: // whose patience was short
					return true
				default:
					return len(children) > 0
				}
			})
			if tt.end != 0 {
				must(t, p.process.cmd.Process.Signal(tt.end))
			}
			if code := p.process.wait(t); code != tt.code || strings.Contains(p.process.out.String(), "it ran") || !strings.Contains(p.process.err.String(), tt.want) {
				t.Errorf("exit code %d, output %q, errors %q", code, p.process.out.String(), p.process.err.String())
			}
			eventually(t, "the end of init", func() bool {
				return !slices.ContainsFunc(children, func(pid string) bool { _, err := os.Stat("/proc/" + pid); return err == nil })
			})
		})
	}
}

func childrenOf(pid int) (out []string) {
	lists, _ := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/children", pid))
	for _, l := range lists {
		text, _ := os.ReadFile(l)
		out = append(out, strings.Fields(string(text))...)
	}
	return out
}

// TestStrangersOnTheSocketsHoldNothingUp: whoever comes first, in numbers, says nothing or
// nonsense, and stays, is not taken for the network daemon and takes no place from it.
func TestStrangersOnTheSocketsHoldNothingUp(t *testing.T) {
	p := newPair(t, policyText)
	p.startProcess("echo", "it ran")
	for network, name := range map[string]string{"unix": "process.sock", "unixpacket": "handover.sock"} {
		path := filepath.Join(p.dir, "run", name)
		eventually(t, name, func() bool { // it is there a moment before it takes connections
			c, err := net.Dial(network, path)
			if err == nil {
				c.Close()
			}
			return err == nil
		})
		for i := range 100 {
			c, err := net.Dial(network, path) // as root, which is not the network daemon's user
			must(t, err)
			defer c.Close()
			if i%2 == 0 {
				_, _ = c.Write([]byte("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\nnonsense")) // it may have been let go already
			}
		}
	}
	p.startNetwork()
	if code := p.process.wait(t); code != 0 || !strings.Contains(p.process.out.String(), "it ran") {
		t.Errorf("exit code %d, output %q, errors %q", code, p.process.out.String(), p.process.err.String())
	}
	if records := p.processRecords(); !strings.Contains(records, "peer_refused") {
		t.Errorf("nobody was refused: %s", records)
	}
}

// TestAnEndIsNotHeldUpByANetworkDaemonThatIsGone: the last events are offered for a time,
// not for ever, and the workload's code is ours.
func TestAnEndIsNotHeldUpByANetworkDaemonThatIsGone(t *testing.T) {
	p := newPair(t, policyText)
	p.startNetwork()
	p.startProcessWith([]string{"--exit-timeout", "300ms"}, "sh", "-c", "trap 'exit 7' USR1; echo ready; while :; do sleep 0.05; done")
	eventually(t, "the workload", func() bool { return strings.Contains(p.process.out.String(), "ready") })
	must(t, p.network.cmd.Process.Kill())
	p.network.wait(t)
	must(t, p.process.cmd.Process.Signal(syscall.SIGUSR1))
	if code := p.process.wait(t); code != 7 || !strings.Contains(p.process.err.String()+p.process.out.String(), "events were not delivered") {
		t.Errorf("exit code %d, errors %q", code, p.process.err.String())
	}
}

// TestALimitOfProcessesCanBeDemanded, and what is said where there is none and nobody
// demanded one.
func TestALimitOfProcessesCanBeDemanded(t *testing.T) {
	need.Root(t)
	policy := policyFile(t, "version: 1\n"+who)
	for name, tt := range map[string]struct {
		limit string // pids.max of the container; empty: there is no such file
		flags string
		runs  bool
		told  bool
	}{
		"demanded, and there":          {"100", "--require-pid-limit", true, false},
		"demanded, and none":           {"max", "--require-pid-limit", false, false},
		"demanded, and not to be seen": {"", "--require-pid-limit", false, false},
		"none, and not demanded":       {"max", "", true, true},
		"there, and not demanded":      {"100", "", true, false},
	} {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			cmd := exec.Command("unshare", "-m", "sh", "-ec", `mount --make-rprivate /; mount -t tmpfs cgroup /sys/fs/cgroup
if [ -n "$1" ]; then echo "$1" > /sys/fs/cgroup/pids.max; fi
exec "$2" run --policy "$3" --run-dir "$4" --admin-listen "" --records "$4/records" --workdir / $5 -- echo 'it ran'`,
				"sh", tt.limit, binary(t, "supervisor-process"), policy, dir, tt.flags)
			out, _ := cmd.CombinedOutput()
			code, ran := cmd.ProcessState.ExitCode(), strings.Contains(string(out), "it ran")
			if ran != tt.runs || (code == 0) != tt.runs || !tt.runs && (code != 78 || !strings.Contains(string(out), "--require-pid-limit")) {
				t.Errorf("exit code %d, output %s", code, out)
			}
			records, err := os.ReadFile(dir + "/records")
			must(t, err)
			if told := strings.Contains(string(records), "no_pid_limit"); told != tt.told {
				t.Errorf("told of it: %v, want %v; %s", told, tt.told, records)
			}
		})
	}
}
