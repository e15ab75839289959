package e2e_test

import (
	"fmt"
	"os"
	"os/exec"
	"strings"
	"testing"

	"github.com/splitpod/splitpod/test/need"
)

// TestRefusedSystemCallsAreRecorded by both daemons, whichever session made them, with the
// program, and counted exactly; what libraries try in passing is not.
func TestRefusedSystemCallsAreRecorded(t *testing.T) {
	need.Program(t, "python3")
	const loop = 1500
	script := fmt.Sprintf(`
import ctypes, socket
libc = ctypes.CDLL(None, use_errno=True)
def call(number, *args): return ctypes.get_errno() if libc.syscall(number, *args) < 0 else 0
def opens(*args):
    try: socket.socket(*args); return 0
    except OSError as e: return e.errno
print("refused:", {call(101, 0) for _ in range(%d)}, call(165), call(250, 0), opens(40, 1, 0))
print("not told:", call(434, 1, 0), call(435), call(425), call(319, b"x", 0), opens(16, 3, 9), opens(2, 1, 262))
`, loop)
	p := newPair(t, policyText)
	file := p.dir + "/calls.py"
	must(t, os.WriteFile(file, []byte(script), 0o644))
	p.startNetwork()
	p.startProcess("sh", "-c", "python3 -c '"+script+"'; echo ready; sleep 1000")
	eventually(t, "the workload", func() bool { return strings.Contains(p.process.out.String(), "ready") })
	if out := p.process.out.String(); !strings.Contains(out, "refused: {1} 1 1 1\nnot told: 1 38 1 1 1 1\n") {
		t.Errorf("the calls were answered %q", out)
	}
	p.takesExec()
	byExec, err := exec.Command(binary(t, "supervisor-process"), "exec", "--run-dir", p.dir+"/run", "--", "unshare", "-U", "true").CombinedOutput()
	if err == nil || !strings.Contains(string(byExec), "Operation not permitted") {
		t.Errorf("unshare by exec: %v, %s", err, byExec)
	}
	records := map[string]func() string{"process": p.processRecords, "network": func() string { return p.network.out.String() }}
	for daemon, text := range records {
		for _, call := range []string{"ptrace (", "mount (", "keyctl (", "socket (vsock)"} {
			eventually(t, "a record of "+call+" of the "+daemon+" daemon", func() bool { return named(text(), "python3", call) })
		}
		eventually(t, "a record of unshare of the "+daemon+" daemon", func() bool { return named(text(), "/usr/bin/unshare", "unshare (a namespace") })
	}
	p.process.kill(15)
	p.process.wait(t)
	counted := 0
	for _, r := range parseRecords(t, p.processRecords()) {
		if r.Unmapped.Reason == "syscall_refused" && strings.Contains(r.Detail, "called ptrace (") {
			counted += max(r.Count, 1)
		}
	}
	if counted != loop {
		t.Errorf("%d of %d calls were counted", counted, loop)
	}
	for _, quiet := range []string{"pidfd_open", "clone3", "io_uring", "memfd_create", "netlink", "socket (a socket"} {
		if strings.Contains(p.processRecords(), quiet) {
			t.Errorf("%s is told of: %s", quiet, tail(p.processRecords()))
		}
	}
	if strings.Contains(p.process.err.String(), "fence cannot be read") {
		t.Errorf("the fence was not compared any more: %s", p.process.err)
	}
}

// TestRefusedSystemCallsAreRecordedInAUserNamespace, whoever masked /proc.
func TestRefusedSystemCallsAreRecordedInAUserNamespace(t *testing.T) {
	for name, masked := range map[string]bool{"with its own /proc": false, "where somebody else has masked /proc": true} {
		t.Run(name, func(t *testing.T) {
			p := newPair(t, policyText)
			p.startNetwork()
			p.startProcessInUserNamespace(masked, "unshare", "-U", "true")
			if code := p.process.wait(t); code != 1 || !named(p.processRecords(), "/usr/bin/unshare", "unshare (a namespace") {
				t.Errorf("exit code %d, records %s", code, p.processRecords())
			}
		})
	}
}

// named reports whether a record says that a program made a call that was refused.
func named(records, program, call string) bool {
	for line := range strings.Lines(records) {
		if strings.Contains(line, `"reason":"syscall_refused"`) && strings.Contains(line, "called "+call) && strings.Contains(line, program) && strings.Contains(line, "(pid ") {
			return true
		}
	}
	return false
}
