package e2e_test

import (
	"os"
	"os/exec"
	"strings"
	"testing"

	seccomp "github.com/elastic/go-seccomp-bpf"
	"golang.org/x/sys/unix"
)

// withoutLandlock is the argument with which this test binary becomes a program that
// lives on a kernel without Landlock, and without notices of system calls.
const withoutLandlock = "without-landlock"

// becomeWithoutLandlock filters the calls and executes the program.
func becomeWithoutLandlock(argv []string) error {
	err := seccomp.LoadFilter(seccomp.Filter{Flag: seccomp.FilterFlagTSync, Policy: seccomp.Policy{
		DefaultAction: seccomp.ActionAllow,
		Syscalls: []seccomp.SyscallGroup{{
			Action: seccomp.ActionErrno | seccomp.Action(unix.ENOSYS),
			Names:  []string{"landlock_create_ruleset", "landlock_add_rule", "landlock_restrict_self"},
		}, {
			Action: seccomp.ActionErrno | seccomp.Action(unix.EINVAL),
			NamesWithCondtions: []seccomp.NameWithConditions{{Name: "seccomp", Conditions: []seccomp.Condition{
				{Argument: 1, Operation: seccomp.BitsSet, Value: unix.SECCOMP_FILTER_FLAG_NEW_LISTENER}}}},
		}},
	}})
	if err != nil {
		return err
	}
	return os.NewSyscallError("execve", unix.Exec(argv[0], argv, os.Environ()))
}

func TestAKernelWithoutLandlock(t *testing.T) {
	self, err := os.Executable()
	must(t, err)
	run := func(args ...string) (int, string) {
		cmd := exec.Command(self, append([]string{withoutLandlock, binary(t, "supervisor-process")}, args...)...)
		cmd.Env = []string{"PATH=/usr/bin:/bin"}
		out, _ := cmd.CombinedOutput()
		return cmd.ProcessState.ExitCode(), string(out)
	}
	const who = "version: 1\nprocess: {run_as_user: \"1000\", run_as_group: \"1000\"}\n"
	start := func(text string) (int, string) {
		return run("run", "--policy", policyFile(t, text), "--run-dir", t.TempDir(), "--admin-listen", "", "--workdir", "/", "--", "sh", "-c", "echo it runs; grep Seccomp: /proc/self/status")
	}
	code, out := start(who)
	if code != 0 || !strings.Contains(out, "it runs") || !strings.Contains(out, "landlock_unavailable") || !strings.Contains(out, "Seccomp:\t2") {
		t.Errorf("best_effort: exit code %d, %s", code, out)
	}
	code, out = start(who + "landlock: {compatibility: hard_requirement}\n")
	if code == 0 || strings.Contains(out, "it runs") || !strings.Contains(out, "hard_requirement needs ABI") {
		t.Errorf("hard_requirement: exit code %d, %s", code, out)
	}
	// What nobody can be told of is refused in the same way.
	code, out = run("run", "--policy", policyFile(t, who), "--run-dir", t.TempDir(), "--admin-listen", "", "--workdir", "/", "--", "unshare", "-U", "true")
	if code == 0 || !strings.Contains(out, "Operation not permitted") || strings.Contains(out, "syscall_refused") || !strings.Contains(out, "will not be recorded") {
		t.Errorf("a refused call: exit code %d, %s", code, out)
	}
	if _, out = run("preflight"); !strings.Contains(out, "missing  landlock") || !strings.Contains(out, "missing  refused calls") {
		t.Errorf("preflight does not say it: %s", out)
	}
}
