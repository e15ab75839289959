package e2e_test

import (
	"fmt"
	"os"
	"os/exec"
	"strings"
	"testing"
)

// TestSSHSessionsEndWithTheirChannel: of several sessions on one connection (OpenSSH's
// ControlMaster) the one whose client is gone ends, and no other.
func TestSSHSessionsEndWithTheirChannel(t *testing.T) {
	p := sandboxWithSSH(t)
	control := p.dir + "/control"
	// ssh tells of a session that was killed when it next hears from the server.
	master := exec.Command("ssh", append(append([]string{"-M", "-S", control, "-N", "-o", "ServerAliveInterval=1"}, p.sshOptions()...), "sandbox")...)
	master.Env = []string{"PATH=/usr/bin:/bin", "HOME=" + p.dir}
	must(t, master.Start())
	t.Cleanup(func() { _ = master.Process.Kill(); _ = master.Wait() })
	eventually(t, "the connection", func() bool { _, err := os.Stat(control); return err == nil })
	session := func(mark string, options ...string) *exec.Cmd {
		cmd := exec.Command("ssh", append(append([]string{"-S", control}, options...), "sandbox", "trap '' HUP; sleep "+mark+" & echo started; wait")...)
		cmd.Env = []string{"PATH=/usr/bin:/bin", "HOME=" + p.dir, "TERM=vt100"}
		in, err := cmd.StdinPipe() // stays open
		must(t, err)
		t.Cleanup(func() { in.Close() })
		got := &buffer{}
		cmd.Stdout = got
		must(t, cmd.Start())
		t.Cleanup(func() { _ = cmd.Process.Kill() })
		eventually(t, "the session", func() bool { return strings.Contains(got.String(), "started") })
		eventually(t, "its process", func() bool { return countProcesses(t, "sleep", mark) == 1 })
		return cmd
	}
	stays := fmt.Sprintf("8%d", os.Getpid())
	session(stays)
	for i, options := range [][]string{nil, {"-tt"}, {"-n"}} {
		mark := fmt.Sprintf("9%d%d", i, os.Getpid())
		cmd := session(mark, options...)
		must(t, cmd.Process.Kill())
		_ = cmd.Wait()
		eventually(t, fmt.Sprintf("the end of the session with %v", options), func() bool { return countProcesses(t, "sleep", mark) == 0 })
	}
	if n := countProcesses(t, "sleep", stays); n != 1 {
		t.Errorf("%d processes of the other session are left", n)
	}
}
