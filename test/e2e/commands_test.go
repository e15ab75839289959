package e2e_test

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/splitpod/splitpod/test/need"
)

// command runs one of the programs to its end.
func command(t *testing.T, name string, args ...string) (code int, stdout, stderr string) {
	t.Helper()
	var out, errs strings.Builder
	cmd := exec.Command(binary(t, name), args...)
	cmd.Stdout, cmd.Stderr = &out, &errs
	cmd.Env = []string{"PATH=/usr/bin:/bin"}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	_ = cmd.Wait()
	return cmd.ProcessState.ExitCode(), out.String(), errs.String()
}

func policyFile(t *testing.T, text string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "policy.yaml")
	must(t, os.WriteFile(path, []byte(text), 0o644))
	return path
}

func TestPolicyCheckReportsEveryProblemAtItsPlace(t *testing.T) {
	file := policyFile(t, "version: 1\nnetwork_policies:\n  a:\n    endpoints:\n      - {host: x.example.com, port: 70000}\n      - {hots: y.example.com, port: 1}\n")
	code, _, errs := command(t, "supervisor-network", "policy", "check", file)
	if code != 78 {
		t.Errorf("exit code %d, want 78", code)
	}
	for _, want := range []string{file + ":5:", "port", file + ":6:", "hots"} {
		if !strings.Contains(errs, want) {
			t.Errorf("%q is not in:\n%s", want, errs)
		}
	}
}

func TestPolicyCheckSaysWhatEachEndpointMeans(t *testing.T) {
	code, out, errs := command(t, "supervisor-network", "policy", "check", policyFile(t, policyText))
	if code != 0 || !strings.Contains(out, "api.demo.test") || !strings.Contains(out, "/usr/bin/curl") {
		t.Errorf("exit code %d, output %q, errors %q", code, out, errs)
	}
}

func TestWhatCannotBeDoneIsRefusedAtLoad(t *testing.T) {
	file := policyFile(t, "version: 1\nnetwork_policies:\n  a:\n    endpoints:\n      - {host: x.example.com, port: 443, protocol: rest, access: read-only, enforcement: enforce, credential_binding: {provider: p}}\n    binaries: [{path: /usr/bin/curl}]\n")
	code, _, errs := command(t, "supervisor-network", "serve", "--policy", file, "--listen", "127.0.0.1:0", "--identity", "ignore", "--admin-listen", "", "--state-dir", t.TempDir())
	if code != 78 || !strings.Contains(errs, "credential_binding") {
		t.Errorf("exit code %d, errors %q", code, errs)
	}
}

func TestPolicyExplainNamesTheRule(t *testing.T) {
	file := policyFile(t, policyText)
	_, out, errs := command(t, "supervisor-network", "policy", "explain", file, "--binary", "/usr/bin/curl", "--host", "API.demo.test", "--port", "443")
	if !strings.Contains(out, "allow") || !strings.Contains(out, "api") {
		t.Errorf("output %q, errors %q", out, errs)
	}
	_, out, _ = command(t, "supervisor-network", "policy", "explain", file, "--binary", "/usr/bin/wget", "--host", "api.demo.test", "--port", "443")
	if !strings.Contains(out, "deny") {
		t.Errorf("output %q", out)
	}
	judged := policyFile(t, strings.ReplaceAll(clientPolicy, "/ok/**", "/ok/*"))
	_, out, _ = command(t, "supervisor-network", "policy", "explain", judged, "--host", "api.demo.test", "--port", "7013", "--path", "/ok/a/b")
	if !strings.Contains(out, "request GET /ok/a/b: deny") {
		t.Errorf("a path without a method is a GET; output %q", out)
	}
	for flag, value := range map[string]string{"--host": "https://api.demo.test", "--binary": "curl"} {
		code, out, errs := command(t, "supervisor-network", "policy", "explain", file, "--host", "api.demo.test", "--port", "443", flag, value)
		if code != 64 || out != "" || !strings.Contains(errs, flag+` "`+value+`": say `) {
			t.Errorf("%s %s: exit code %d, output %q, errors %q", flag, value, code, out, errs)
		}
	}
}

func TestUnknownVariablesWithThePrefixEndTheStart(t *testing.T) {
	for name, prefix := range map[string]string{"supervisor-network": "SPLITPOD_NETWORK_", "supervisor-process": "SPLITPOD_PROCESS_"} {
		cmd := exec.Command(binary(t, name), "config")
		cmd.Env = []string{prefix + "POLICI=/x"}
		out, _ := cmd.CombinedOutput()
		if cmd.ProcessState.ExitCode() != 78 || !strings.Contains(string(out), prefix+"POLICI") {
			t.Errorf("%s: exit code %d, output %q", name, cmd.ProcessState.ExitCode(), out)
		}
	}
}

func TestBinaryRulesWithIdentityOffAreRefused(t *testing.T) {
	file := policyFile(t, policyText)
	code, _, errs := command(t, "supervisor-network", "serve", "--policy", file, "--listen", "127.0.0.1:0", "--identity", "off", "--admin-listen", "", "--state-dir", t.TempDir())
	if code != 78 || !strings.Contains(errs, "binaries") {
		t.Errorf("exit code %d, errors %q", code, errs)
	}
}

func TestCredentialsAreRefusedNotIgnored(t *testing.T) {
	code, _, errs := command(t, "supervisor-network", "serve", "--policy", policyFile(t, policyText), "--credentials", "/x")
	if code != 78 || !strings.Contains(errs, "credentials") {
		t.Errorf("exit code %d, errors %q", code, errs)
	}
}

func TestPreflightSaysWhatIsThere(t *testing.T) {
	code, out, errs := command(t, "supervisor-process", "preflight")
	if code != 0 || !strings.Contains(out, "NET_ADMIN") {
		t.Errorf("exit code %d, output %q, errors %q", code, out, errs)
	}
	cmd := exec.Command("setpriv", "--bounding-set=-net_admin,-sys_admin", "--inh-caps=-net_admin,-sys_admin", binary(t, "supervisor-process"), "preflight")
	got, _ := cmd.CombinedOutput()
	if cmd.ProcessState.ExitCode() != 77 || !strings.Contains(string(got), "SYS_ADMIN") {
		t.Errorf("without capabilities: exit code %d, output %q", cmd.ProcessState.ExitCode(), got)
	}
}

func TestRunWithoutANetworkDaemonHasNoNetworkAtAll(t *testing.T) {
	file := policyFile(t, policyText)
	must(t, os.Chmod(filepath.Dir(file), 0o755))
	code, out, errs := command(t, "supervisor-process", "run", "--policy", file, "--run-dir", t.TempDir(), "--admin-listen", "", "--records", "/dev/null", "--workdir", "/",
		"--", "sh", "-c", "echo proxy=$HTTPS_PROXY; curl -sS -m 5 --noproxy '*' http://10.77.0.1/ && echo LEAK; id -u")
	if code != 0 || !strings.Contains(out, "1000") || strings.Contains(out, "LEAK") || !strings.Contains(out, "proxy=\n") {
		t.Errorf("exit code %d, output %q, errors %q", code, out, errs)
	}
}

// TestExecPassesNoTerminal: a program could keep the operator's, and read what is typed
// there when it has long been forgotten.
func TestExecPassesNoTerminal(t *testing.T) {
	need.Program(t, "script")
	p := newPair(t, policyText)
	p.startNetwork()
	p.startProcess("sh", "-c", "echo ready; sleep 1000")
	eventually(t, "the workload", func() bool { return strings.Contains(p.process.out.String(), "ready") })
	p.takesExec()
	exec := start(t, "script", "-qec", binary(t, "supervisor-process")+" exec --run-dir "+p.dir+"/run -- sh -c '"+
		"for i in 0 1 2; do test -t $i && echo TERMINAL; done; echo shown; echo as well >&2; exit 3' </dev/null", "/dev/null")
	code := exec.wait(t)
	if out := exec.out.String(); code != 3 || !strings.Contains(out, "shown") || !strings.Contains(out, "as well") || strings.Contains(out, "TERMINAL") {
		t.Errorf("exit code %d, output %q, %s", code, out, exec.err)
	}
}

func TestExecRunsInTheSameSandbox(t *testing.T) {
	p := newPair(t, policyText)
	p.startNetwork()
	p.startProcess("sh", "-c", "readlink /proc/self/ns/net /proc/self/ns/pid /proc/self/ns/mnt /proc/self/ns/ipc; echo ready; sleep 1000")
	eventually(t, "the workload", func() bool { return strings.Contains(p.process.out.String(), "ready") })
	p.takesExec()
	inside, _, _ := strings.Cut(p.process.out.String(), "ready")

	cmd := exec.Command(binary(t, "supervisor-process"), "exec", "--run-dir", p.dir+"/run", "--",
		"sh", "-c", "readlink /proc/self/ns/net /proc/self/ns/pid /proc/self/ns/mnt /proc/self/ns/ipc; id -u; grep CapBnd /proc/self/status; cat; exit 9")
	cmd.Stdin = strings.NewReader("from stdin")
	out, _ := cmd.CombinedOutput()
	if code := cmd.ProcessState.ExitCode(); code != 9 {
		t.Errorf("exit code %d, want 9; output %q", code, out)
	}
	for _, want := range []string{inside, "1000\n", "CapBnd:\t0000000000000000", "from stdin"} {
		if !strings.Contains(string(out), want) {
			t.Errorf("output %q does not contain %q", out, want)
		}
	}
	p.process.kill(syscall.SIGTERM)
	p.process.wait(t)
}

// TestAttachIdentifiesProcessesThatAlreadyRun: a standalone proxy with binary
// rules, and a process daemon that builds no sandbox.
func TestAttachIdentifiesProcessesThatAlreadyRun(t *testing.T) {
	p := newPair(t, policyText)
	p.startNetwork("--listen", "127.0.0.1:13128")
	p.process = start(t, binary(t, "supervisor-process"), "attach", "--pid", fmt.Sprint(os.Getpid()), "--run-dir", p.dir+"/run",
		"--network-uid", fmt.Sprint(networkUID), "--admin-listen", "", "--records", p.dir+"/process.records")
	eventually(t, "attachment", func() bool { return strings.Contains(p.network.out.String(), "process_attached") })
	fetch := func(argv ...string) string {
		cmd := exec.Command(argv[0], argv[1:]...)
		cmd.Env = []string{"https_proxy=http://127.0.0.1:13128", "PATH=/usr/bin:/bin"}
		out, _ := cmd.CombinedOutput()
		return string(out)
	}
	if out := fetch(curl("--cacert", p.dir+"/state/ca.pem", "https://api.demo.test/")...); !strings.Contains(out, "hello from") {
		t.Errorf("curl, which the policy allows: %q", out)
	}
	if out := fetch("python3", "-c", "import urllib.request as u; u.urlopen('https://api.demo.test/')"); !strings.Contains(out, "403") {
		t.Errorf("python, which it does not: %q", out)
	}
}

// TestPolicyChangeTakesEffectWithoutRestart: a new rule opens, a removed one ends
// the tunnel that used it, and an invalid file changes nothing.
func TestPolicyChangeTakesEffectWithoutRestart(t *testing.T) {
	p := newPair(t, policyText)
	p.startNetwork()
	p.startProcess("sh", "-c", `
code() { curl -s -o /dev/null -m 60 --cacert `+origins.CAFile+` -w '%{http_connect}\n' https://$1/ ; }
echo before $(code other.demo.test)
until [ "$(code other.demo.test)" = 200 ]; do sleep 0.1; done
echo opened
until [ "$(code api.demo.test)" = 403 ]; do sleep 0.1; done
echo closed $(code other.demo.test)`)
	eventually(t, "the first refusal", func() bool { return strings.Contains(p.process.out.String(), "before 403") })
	p.policy(strings.Replace(policyText, "host: git.demo.test", "host: other.demo.test", 1) + "  extra: {endpoints: [{host: other.demo.test, port: 443}], binaries: [{path: /usr/bin/curl}]}\n")
	eventually(t, "the new rule", func() bool { return strings.Contains(p.process.out.String(), "opened") })
	p.policy("version: 2\n")
	eventually(t, "a record of the invalid file", func() bool { return strings.Contains(p.network.out.String(), "policy_invalid") })
	p.policy(strings.Replace(policyText, "host: api.demo.test", "host: api2.demo.test", 1) + "  extra: {endpoints: [{host: other.demo.test, port: 443}], binaries: [{path: /usr/bin/curl}]}\n")
	if code := p.process.wait(t); code != 0 || !strings.Contains(p.process.out.String(), "closed 200") {
		t.Errorf("exit code %d, output %q", code, p.process.out)
	}
}

// TestExecGivesATerminal when its caller has one, as with kubectl exec -it.
func TestExecGivesATerminal(t *testing.T) {
	script := need.Program(t, "script")
	p := newPair(t, policyText)
	p.startNetwork()
	p.startProcess("sh", "-c", "echo ready; sleep 1000")
	eventually(t, "the workload", func() bool { return strings.Contains(p.process.out.String(), "ready") })
	p.takesExec()
	inner := binary(t, "supervisor-process") + " exec --run-dir " + p.dir + "/run -- bash -c 'test -t 0 && tty && test -w $(tty) && stty size && echo $TERM && id -u; exit 9'"
	cmd := exec.Command(script, "-qec", "stty rows 33 cols 77; "+inner, "/dev/null")
	cmd.Env = []string{"PATH=/usr/bin:/bin", "TERM=vt220"}
	out, _ := cmd.CombinedOutput()
	if code := cmd.ProcessState.ExitCode(); code != 9 {
		t.Errorf("exit code %d, want 9; output %q", code, out)
	}
	for _, want := range []string{"/dev/pts/", "33 77", "vt220", "1000\r\n"} {
		if !strings.Contains(string(out), want) {
			t.Errorf("output %q lacks %q", out, want)
		}
	}
}

// TestRunGivesATerminal when the daemon has one, as in a container with a tty.
func TestRunGivesATerminal(t *testing.T) {
	script := need.Program(t, "script")
	need.Root(t)
	file := policyFile(t, policyText)
	inner := binary(t, "supervisor-process") + " run --policy " + file + " --run-dir " + t.TempDir() +
		" --admin-listen= --records /dev/null --log-level error --workdir / -- bash -ic 'tty && test -w $(tty) && stty size; sleep 1000 & jobs; kill %1; exit 9'"
	cmd := exec.Command(script, "-qec", "stty rows 31 cols 71; "+inner, "/dev/null")
	cmd.Env = []string{"PATH=/usr/bin:/bin", "TERM=vt220", "HOME=/"}
	out, _ := cmd.CombinedOutput()
	if code := cmd.ProcessState.ExitCode(); code != 9 {
		t.Errorf("exit code %d, want 9; output %q", code, out)
	}
	for _, want := range []string{"/dev/pts/", "31 71", "Running"} {
		if !strings.Contains(string(out), want) {
			t.Errorf("output %q lacks %q", out, want)
		}
	}
	if strings.Contains(string(out), "no job control") {
		t.Errorf("output %q", out)
	}
}

// TestTheListedCapabilitiesSuffice: the process daemon with exactly what preflight and
// the manifest list, in a shared directory as Kubernetes makes it.
func TestTheListedCapabilitiesSuffice(t *testing.T) {
	p := newPair(t, policyText)
	must(t, os.Chmod(p.dir+"/run", 0o777))
	p.startNetwork()
	caps := "-all,+sys_admin,+net_admin,+setuid,+setgid,+setpcap,+kill,+sys_ptrace,+dac_read_search"
	p.process = start(t, append([]string{"setpriv", "--bounding-set=" + caps, "--inh-caps=" + caps,
		binary(t, "supervisor-process"), "run", "--run-dir", p.dir + "/run", "--network-uid", fmt.Sprint(networkUID), "--admin-listen", "",
		"--records", "stderr", "--workdir", "/", "--"}, curl("https://api.demo.test/")...)...)
	if code := p.process.wait(t); code != 0 || !strings.Contains(p.process.out.String(), "hello from") {
		t.Errorf("exit code %d, output %q, errors %q", code, p.process.out, p.process.err)
	}
}

// TestAgentsAreToldHowToPropose where the network daemon says that they may, and
// nothing is installed where it does not.
func TestAgentsAreToldHowToPropose(t *testing.T) {
	const known = "/etc/openshell/skills/policy_advisor.md" // of the machine, on which test/e2e/skew runs this, too
	lock, err := os.OpenFile(filepath.Join(os.TempDir(), "splitpod-test-skills.lock"), os.O_CREATE|os.O_RDWR, 0o600)
	must(t, err)
	t.Cleanup(func() { lock.Close() }) // last
	must(t, syscall.Flock(int(lock.Fd()), syscall.LOCK_EX))
	if _, err := os.Lstat(known); err == nil {
		t.Fatalf("%s is there already; remove it", known)
	}
	t.Cleanup(func() {
		for _, path := range []string{known, "/etc/openshell/skills", "/etc/openshell"} { // the latter two only if empty
			_ = os.Remove(path)
		}
	})
	for _, tt := range []struct {
		flags []string
		code  int
	}{{nil, 9}, {[]string{"--agent-proposals"}, 0}} {
		p := newPair(t, policyText)
		p.startNetwork(tt.flags...)
		guide := p.dir + "/run/skills/policy-advisor/SKILL.md"
		p.startProcess("sh", "-c", fmt.Sprintf("cmp %s %s && head -2 %[1]s && ! (echo x > %[1]s) 2>/dev/null && ! rm %[2]s 2>/dev/null || exit 9", known, guide))
		code := p.process.wait(t)
		if code != tt.code || code == 0 && !strings.Contains(p.process.out.String(), "name: policy-advisor") {
			t.Errorf("%v: exit code %d, output %q, errors %q", tt.flags, code, p.process.out, p.process.err)
		}
	}
}
