package e2e_test

import (
	"os"
	"strings"
	"syscall"
	"testing"
)

// TestRemovedSocketsComeBack: somebody empties the run directory of a sandbox that runs. Who
// is connected stays so, and the next network daemon gets the listeners all the same.
func TestRemovedSocketsComeBack(t *testing.T) {
	p := newPair(t, policyText)
	p.startNetwork()
	p.startProcess("sh", "-c", "echo started; while [ ! -e /tmp/"+t.Name()+" ]; do sleep 0.05; done; exec curl -sS https://api.demo.test/")
	t.Cleanup(func() { os.Remove("/tmp/" + t.Name()) })
	p.takesExec()
	run := p.dir + "/run/"
	sockets := []string{"network.sock", "process.sock", "handover.sock", "exec.sock", "ssh.sock"}
	for _, name := range sockets { // SSH is served a moment later
		eventually(t, name, func() bool { _, err := os.Stat(run + name); return err == nil })
		must(t, os.Remove(run+name))
	}
	for _, name := range sockets {
		eventually(t, name, func() bool { info, err := os.Stat(run + name); return err == nil && info.Mode().Perm() == 0o666 })
	}
	p.network.kill(syscall.SIGKILL)
	<-p.network.ended
	p.startNetwork()
	must(t, os.WriteFile("/tmp/"+t.Name(), nil, 0o644))
	if code := p.process.wait(t); code != 0 || !strings.Contains(p.process.out.String(), "hello from") {
		t.Errorf("exit code %d, output %q", code, p.process.out)
	}
}

// TestARunDirectoryIsOneSandboxs: a second network daemon says what is wrong and takes
// nothing from the first, whose workload does not notice.
func TestARunDirectoryIsOneSandboxs(t *testing.T) {
	p := newPair(t, policyText)
	p.startNetwork()
	eventually(t, "the network daemon's socket", func() bool { _, err := os.Stat(p.dir + "/run/network.sock"); return err == nil })
	must(t, os.Mkdir(p.dir+"/state2", 0o700))
	must(t, os.Chown(p.dir+"/state2", networkUID, networkUID))
	second := start(t, p.networkArgs([]string{"--state-dir", p.dir + "/state2"})...)
	if code := second.wait(t); code != 1 || !strings.Contains(second.err.String(), "--run-dir: "+p.dir+"/run is in use") {
		t.Errorf("the second: exit code %d, %s", code, second.err)
	}
	p.startProcess(curl("https://api.demo.test/")...)
	if code := p.process.wait(t); code != 0 {
		t.Errorf("the workload beside it: exit code %d", code)
	}
}
