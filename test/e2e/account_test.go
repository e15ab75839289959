package e2e_test

import (
	"os"
	"strings"
	"testing"

	"github.com/splitpod/splitpod/test/need"
)

// TestAUserByNumberHasAName, as programs want one, and the home that the pod says; the
// image's own file is another one.
func TestAUserByNumberHasAName(t *testing.T) {
	need.Root(t)
	need.NetNS(t)
	need.Program(t, "python3")
	before, err := os.ReadFile("/etc/passwd")
	must(t, err)
	if strings.Contains(string(before), ":4242:") || strings.Contains(string(before), "\nsandbox:") {
		t.Fatal("this machine has such a user")
	}
	policy := policyFile(t, "version: 1\nprocess: {run_as_user: \"4242\", run_as_group: \"4343\"}\n")
	home := t.TempDir()
	d := start(t, "env", "HOME="+home, binary(t, "supervisor-process"), "run", "--policy", policy, "--run-dir", t.TempDir(), "--admin-listen", "", "--records", "/dev/null", "--workdir", "/",
		"--", "sh", "-c", `whoami; id -gn; id -G; echo $USER $HOME; python3 -c 'import os,pwd; print(pwd.getpwuid(os.getuid()).pw_dir)'; grep -c . /etc/passwd; echo x 2>/dev/null >>/etc/passwd || echo kept`)
	code := d.wait(t)
	lines := strings.Fields(d.out.String())
	want := strings.Fields("sandbox sandbox 4343 sandbox " + home + " " + home)
	if code != 0 || len(lines) != len(want)+2 || strings.Join(lines[:len(want)], " ") != strings.Join(want, " ") || lines[len(want)+1] != "kept" {
		t.Errorf("exit code %d, output %q, %s", code, d.out, d.err)
	}
	if after, err := os.ReadFile("/etc/passwd"); err != nil || string(after) != string(before) {
		t.Errorf("the image's own file was changed: %v", err)
	}
}
