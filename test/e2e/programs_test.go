package e2e_test

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/splitpod/splitpod/test/need"
)

// TestProgramsPeopleRunWork under Landlock and seccomp: interpreters with threads and
// children, compilers, package managers, databases.
func TestProgramsPeopleRunWork(t *testing.T) {
	need.Root(t)
	need.NetNS(t)
	programs := map[string]string{
		"bash": "bash", "python": "python3", "node": "node", "npm": "npm", "pip": "python3", "gcc": "gcc", "go": "go", "git": "git",
		"sqlite": "sqlite3", "perl": "perl", "tar": "tar", "java": "java", "terminal": "script",
	}
	for _, p := range programs {
		need.Program(t, p)
	}
	script, err := os.ReadFile("testdata/programs.sh")
	must(t, err)
	dir, err := os.MkdirTemp("", "splitpod-programs-")
	must(t, err)
	defer os.RemoveAll(dir)
	must(t, os.Chmod(dir, 0o755))
	copied := filepath.Join(dir, "programs.sh")
	must(t, os.WriteFile(copied, script, 0o644))
	goProgram := need.Program(t, "go")
	policy := policyFile(t, "version: 1\n"+who+"filesystem_policy: {read_only: ["+filepath.Dir(filepath.Dir(goProgram))+"]}\n")
	d := start(t, binary(t, "supervisor-process"), "run", "--policy", policy, "--run-dir", t.TempDir(), "--admin-listen", "", "--records", "/dev/null", "--workdir", "/tmp",
		"--", "env", "PATH="+filepath.Dir(goProgram)+":/usr/bin:/bin", "bash", copied)
	if code := d.wait(t); code != 0 {
		t.Errorf("exit code %d, %s", code, d.err)
	}
	for name := range programs {
		if !strings.Contains(d.out.String(), "ok "+name+"\n") {
			t.Errorf("%s does not work", name)
		}
	}
	if t.Failed() {
		t.Logf("output:\n%s", d.out)
	}
}

// TestChromiumStarts without a head, and only without the sandbox of its own: that one
// needs user namespaces (or a set-user-id helper) and filters of its own, which no
// program in here gets. The sandbox around it is this one.
func TestChromiumStarts(t *testing.T) {
	need.Root(t)
	need.NetNS(t)
	need.Program(t, "chromium")
	policy := policyFile(t, "version: 1\n"+who)
	for flag, want := range map[string]string{"--no-sandbox": "<h1>it works</h1>", "": "No usable sandbox"} {
		d := start(t, binary(t, "supervisor-process"), "run", "--policy", policy, "--run-dir", t.TempDir(), "--admin-listen", "", "--records", "/dev/null", "--workdir", "/tmp",
			"--log-level", "error", "--", "sh", "-c", "HOME=$(mktemp -d) && export HOME && chromium --headless "+flag+" --dump-dom 'data:text/html,<h1>it works</h1>'; code=$?; rm -rf $HOME; exit $code")
		code := d.wait(t)
		if out := d.out.String() + d.err.String(); (code == 0) != (flag != "") || !strings.Contains(out, want) {
			t.Errorf("chromium %s: exit code %d, output %s", flag, code, tail(out))
		}
	}
}

// TestTimeoutEndsTheWorkload with the code of timeout(1), and with everything in it.
func TestTimeoutEndsTheWorkload(t *testing.T) {
	file := policyFile(t, policyText)
	code, out, errs := command(t, "supervisor-process", "run", "--policy", file, "--run-dir", t.TempDir(), "--admin-listen", "", "--records", "/dev/null", "--workdir", "/",
		"--timeout", "3s", "--grace", "300ms", "--", "sh", "-c", "echo started; setsid sleep 1000 & trap '' TERM; while :; do sleep 0.05; done")
	if code != 124 || !strings.Contains(out, "started") {
		t.Errorf("exit code %d, output %q, errors %q", code, out, errs)
	}
}

// TestAPolicyThatCannotBeEnforcedStartsNothing: hard_requirement and a path that is
// not there.
func TestAPolicyThatCannotBeEnforcedStartsNothing(t *testing.T) {
	need.Root(t)
	file := policyFile(t, "version: 1\n"+who+"landlock: {compatibility: hard_requirement}\nfilesystem_policy: {read_only: [/no/such/path]}\n")
	code, out, errs := command(t, "supervisor-process", "run", "--policy", file, "--run-dir", t.TempDir(), "--admin-listen", "", "--records", "/dev/null", "--workdir", "/tmp",
		"--", "echo", "ran")
	if code != 78 || strings.Contains(out, "ran") || !strings.Contains(errs, "/no/such/path") {
		t.Errorf("exit code %d, output %q, errors %q", code, out, errs)
	}
}

// TestARunDirectoryThatIsNotThereIsNamed, also where no network daemon is.
func TestARunDirectoryThatIsNotThereIsNamed(t *testing.T) {
	need.Root(t)
	missing := filepath.Join(t.TempDir(), "none")
	for _, policy := range [][]string{nil, {"--policy", policyFile(t, "version: 1\n"+who)}} {
		argv := append([]string{"run", "--run-dir", missing, "--admin-listen", "", "--records", "/dev/null"}, policy...)
		code, _, errs := command(t, "supervisor-process", append(argv, "--", "true")...)
		if want := "--run-dir: there is no directory " + missing + "; create it"; code != 78 || !strings.Contains(errs, want) {
			t.Errorf("%v: exit code %d, errors %q", policy, code, errs)
		}
	}
}

// BenchmarkStart is the whole of a confined program without network: namespaces,
// fence, Landlock, seccomp, exit. Compare it with BenchmarkPlainStart.
func BenchmarkStart(b *testing.B) {
	need.Root(b)
	dir := b.TempDir()
	file := filepath.Join(dir, "policy.yaml")
	if err := os.WriteFile(file, []byte("version: 1\n"+who), 0o644); err != nil {
		b.Fatal(err)
	}
	bin, err := filepath.Abs("../../bin/supervisor-process")
	if err != nil {
		b.Fatal(err)
	}
	run := filepath.Join(dir, "run")
	if err := os.Mkdir(run, 0o755); err != nil {
		b.Fatal(err)
	}
	for b.Loop() {
		runPlain(b, bin, "run", "--policy", file, "--run-dir", run, "--admin-listen", "", "--records", "/dev/null", "--workdir", "/", "--log-level", "error", "--", "/bin/true")
	}
}

// BenchmarkStartInAPod is the whole of a confined program beside a network daemon that
// runs already: BenchmarkStart, and attaching, the hand-over of the listeners, readiness,
// and the report of its end.
func BenchmarkStartInAPod(b *testing.B) {
	need.Root(b)
	dir, err := os.MkdirTemp("", "splitpod-bench-")
	if err != nil {
		b.Fatal(err)
	}
	defer os.RemoveAll(dir)
	if err := os.Chmod(dir, 0o755); err != nil {
		b.Fatal(err)
	}
	file := filepath.Join(dir, "policy.yaml")
	if err := os.WriteFile(file, []byte(policyText), 0o644); err != nil {
		b.Fatal(err)
	}
	for _, sub := range []string{"run", "state"} {
		if err := errors.Join(os.Mkdir(filepath.Join(dir, sub), 0o755), os.Chown(filepath.Join(dir, sub), networkUID, networkUID)); err != nil {
			b.Fatal(err)
		}
	}
	bin, err := filepath.Abs("../../bin")
	if err != nil {
		b.Fatal(err)
	}
	network := exec.Command(bin+"/supervisor-network", "serve", "--policy", file, "--run-dir", dir+"/run", "--state-dir", dir+"/state", "--admin-listen", "", "--log-level", "error")
	network.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: networkUID, Gid: networkUID}}
	network.Stderr = os.Stderr
	if err := network.Start(); err != nil {
		b.Fatal(err)
	}
	defer func() { _ = network.Process.Kill(); _ = network.Wait() }()
	start := func() {
		runPlain(b, bin+"/supervisor-process", "run", "--run-dir", dir+"/run", "--network-uid", fmt.Sprint(networkUID), "--admin-listen", "", "--records", "/dev/null",
			"--workdir", "/", "--log-level", "error", "--", "/bin/true")
	}
	start() // the network daemon is up then
	for b.Loop() {
		start()
	}
}

func BenchmarkPlainStart(b *testing.B) {
	for b.Loop() {
		runPlain(b, "/bin/true")
	}
}

func runPlain(b *testing.B, argv ...string) {
	b.Helper()
	cmd := exec.Command(argv[0], argv[1:]...)
	if out, err := cmd.CombinedOutput(); err != nil {
		b.Fatalf("%v: %s", err, out)
	}
}

// TestAnImageWithNothingButTheWorkload: no shell, no libc, no /etc.
func TestAnImageWithNothingButTheWorkload(t *testing.T) {
	need.Program(t, "go")
	p := newPair(t, strings.Replace(policyText, "binaries: [{path: /usr/bin/curl}]", "binaries: [{path: /only}]", 1))
	image := filepath.Join(p.dir, "image")
	for _, dir := range []string{"", "proc", "dev", "tmp", "run", "old"} {
		must(t, os.Mkdir(filepath.Join(image, dir), 0o755))
	}
	build := exec.Command("go", "build", "-o", image+"/only", "./testdata/only")
	build.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	daemonBinary, err := os.ReadFile(binary(t, "supervisor-process"))
	must(t, err)
	must(t, os.WriteFile(image+"/supervisor-process", daemonBinary, 0o755))
	p.startNetwork()
	p.process = start(t, "unshare", "-m", "sh", "-c", strings.Join([]string{
		"mount --make-rprivate /", "mount --bind $1 $1", "mount -t proc proc $1/proc", "mount --rbind /dev $1/dev", "mount --bind $2/run $1/run",
		"cd $1", "pivot_root . old",
		"exec /supervisor-process run --run-dir /run --network-uid $3 --admin-listen '' --records /tmp/records --workdir / -- /only",
	}, " && "), "sh", image, p.dir, fmt.Sprint(networkUID))
	if code := p.process.wait(t); code != 0 || !strings.Contains(p.process.out.String(), "uid 1000\n200\n") {
		t.Errorf("exit code %d, output %q, errors %q", code, p.process.out, p.process.err)
	}
}
