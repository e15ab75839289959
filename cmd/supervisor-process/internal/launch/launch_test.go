package launch

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/splitpod/splitpod/cmd/supervisor-process/internal/confine"
	"github.com/splitpod/splitpod/cmd/supervisor-process/internal/confine/landlock"
	"github.com/splitpod/splitpod/cmd/supervisor-process/internal/prepare"
	"github.com/splitpod/splitpod/test/need"
)

// TestMain is also init and stage of the sandboxes that tests start.
func TestMain(m *testing.M) {
	if code, ok := Reexec(os.Args, Init{Setup: testSetup, Query: testQuery}); ok {
		os.Exit(code)
	}
	os.Exit(m.Run())
}

func testSetup(ask func() (Given, error)) (any, []Named, error) {
	given, err := ask()
	if err != nil {
		return nil, nil, err
	}
	var what string
	if err := json.Unmarshal(given.Data, &what); err != nil {
		return nil, nil, err
	}
	if what == "fail" {
		return nil, nil, errors.New("the setup failed on purpose")
	}
	if what == "die" {
		os.Exit(7)
	}
	if err := errors.Join(
		unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, ""),
		unix.Mount("proc", "/proc", "proc", 0, ""),
	); err != nil {
		return nil, nil, err
	}
	f, err := os.Open("/proc/self/ns/net")
	return len(what), []Named{{"net", f}}, err
}

// testQuery counts the processes of the sandbox.
func testQuery(name string) (any, error) {
	if name != "processes" {
		return nil, errors.New("unknown query")
	}
	entries, err := os.ReadDir("/proc")
	n := 0
	for _, e := range entries {
		if strings.Trim(e.Name(), "0123456789") == "" {
			n++
		}
	}
	return n, err
}

func startSandbox(t *testing.T) *Sandbox {
	t.Helper()
	need.Root(t)
	need.NetNS(t)
	s, err := Start(t.Context(), strings.Repeat("x", 500_000)) // more than a datagram holds
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(s.Close)
	return s
}

var someFiles = landlock.Rules{ReadOnly: settled("/usr", "/bin", "/lib", "/lib64", "/etc", "/proc", "/no/such/path"), ReadWrite: []string{"/tmp", "/dev/null"}}

// settled are paths as rules have them, without links.
func settled(paths ...string) []string {
	f := prepare.Files{ReadOnly: paths}
	f.Settle("/", 1234)
	return f.ReadOnly
}

var someUser = confine.Plan{UID: 1234, GID: 2345, Groups: []uint32{3456}, Dir: "/", Files: someFiles}

// program is one that runs, with what it writes.
type program struct {
	*Session
	out chan string
	in  *os.File
}

func start(t *testing.T, s *Sandbox, argv ...string) (program, error) {
	t.Helper()
	inRead, inWrite, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	outRead, outWrite, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { inWrite.Close(); outRead.Close() })
	_, _ = inRead.Fd(), outWrite.Fd() // makes them blocking, as programs expect
	session, err := s.Launch(t.Context(), Spec{
		Argv: argv, Env: []string{"PATH=/usr/bin:/bin", "MARK=1"}, As: someUser, Files: [3]*os.File{inRead, outWrite, outWrite},
	})
	inRead.Close()
	outWrite.Close()
	p := program{session, make(chan string, 1), inWrite}
	go func() {
		text, _ := io.ReadAll(outRead)
		p.out <- string(text)
	}()
	return p, err
}

func (p program) wait(t *testing.T) (code, signal int, out string) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 5*time.Minute) // ten thousand orphans take a third of a minute where nobody else runs
	defer cancel()
	exit, err := p.Wait(ctx)
	if err != nil {
		t.Fatal(err)
	}
	return exit.Code, exit.Signal, <-p.out
}

func run(t *testing.T, s *Sandbox, argv ...string) (code int, out string) {
	t.Helper()
	p, err := start(t, s, argv...)
	if err != nil {
		t.Fatal(err)
	}
	p.in.Close()
	code, _, out = p.wait(t)
	return code, out
}

func TestProgramsRunAndEnd(t *testing.T) {
	s := startSandbox(t)
	var given int
	if err := json.Unmarshal(s.Report, &given); err != nil || given != 500_000 || s.Files["net"] == nil {
		t.Errorf("report %s, files %v, %v", s.Report, s.Files, err)
	}
	if code, out := run(t, s, "sh", "-c", "echo hello $MARK; exit 7"); code != 7 || out != "hello 1\n" {
		t.Errorf("code %d, output %q", code, out)
	}
	long := strings.Repeat("y", 100_000)
	if code, out := run(t, s, "printf", "%s", long); code != 0 || out != long {
		t.Errorf("a long argument: code %d, %d bytes", code, len(out))
	}
	bytes := "\xff\xfe \x01\t\n'\"$\\ \u202e \xc3"
	if code, out := run(t, s, "printf", "%s|%s|%s", bytes, "", "\xed\xa0\x80"); code != 0 || out != bytes+"||\xed\xa0\x80" {
		t.Errorf("arguments that are no text: code %d, %q", code, out)
	}
	p, err := start(t, s, "sh", "-c", "echo ready; exec sleep 1000")
	if err != nil {
		t.Fatal(err)
	}
	if err := p.Signal(syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	if code, signal, _ := p.wait(t); code != 128+15 || signal != 15 {
		t.Errorf("killed: code %d, signal %d", code, signal)
	}
}

func TestWhatCannotBeExecutedSaysWhy(t *testing.T) {
	s := startSandbox(t)
	dir := t.TempDir()
	for d := dir; d != "/"; d = filepath.Dir(d) {
		if st, err := os.Stat(d); err == nil && st.Mode()&0o005 != 0o005 {
			if err := os.Chmod(d, st.Mode()|0o055); err != nil {
				t.Fatal(err)
			}
		}
	}
	plain := filepath.Join(dir, "plain")
	script := filepath.Join(dir, "script")
	if err := errors.Join(os.WriteFile(plain, []byte("x"), 0o644), os.WriteFile(script, []byte("#!/no/interpreter\n"), 0o755)); err != nil {
		t.Fatal(err)
	}
	for name, tt := range map[string]struct {
		argv []string
		code int
	}{
		"not in PATH":           {[]string{"no-such-program"}, 127},
		"no such file":          {[]string{"/no/such/program"}, 127},
		"not executable":        {[]string{plain}, 126},
		"a directory":           {[]string{dir}, 126},
		"no interpreter":        {[]string{script}, 127},
		"an empty command":      {[]string{""}, 127},
		"no command":            {nil, 127},
		"too much of arguments": {[]string{"true", strings.Repeat("x", 5<<20)}, 126},
	} {
		_, err := start(t, s, tt.argv...)
		e, ok := errors.AsType[*LaunchError](err)
		if !ok || e.Code != tt.code || e.Detail == "" {
			t.Errorf("%s: %v, want code %d", name, err, tt.code)
		}
	}
	if code, _ := run(t, s, "true"); code != 0 {
		t.Error("afterwards nothing runs any more")
	}
}

func TestRootAndBadIDsAreRefused(t *testing.T) {
	s := startSandbox(t)
	null, err := os.OpenFile("/dev/null", os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer null.Close()
	for _, as := range []confine.Plan{
		{}, {UID: 0, GID: 5, Dir: "/"}, {UID: 5, GID: 0, Dir: "/"}, {UID: ^uint32(0), GID: 5, Dir: "/"}, {UID: 5, GID: ^uint32(0), Dir: "/"},
		{UID: 5, GID: 5, Groups: []uint32{0}, Dir: "/"}, {UID: 5, GID: 5, Dir: "relative"}, {UID: 5, GID: 5, Dir: "/no/such/dir"}, {UID: 5, GID: 5, Dir: "/root"},
	} {
		code := 125
		if as.Dir == "/no/such/dir" || as.Dir == "/root" {
			code = 78
		}
		as.Files = someFiles
		_, err := s.Launch(t.Context(), Spec{Argv: []string{"true"}, Env: []string{"PATH=/usr/bin:/bin"}, As: as, Files: [3]*os.File{null, null, null}})
		if e, ok := errors.AsType[*LaunchError](err); !ok || e.Code != code {
			t.Errorf("%+v: %v, want code %d", as, err, code)
		}
	}
}

// TestPostureOfAProgram compares what the kernel says of a program with what it is
// promised to be, all of it.
func TestPostureOfAProgram(t *testing.T) {
	s := startSandbox(t)
	_, out := run(t, s, "cat", "/proc/self/status")
	status := make(map[string]string)
	for line := range strings.Lines(out) {
		name, value, _ := strings.Cut(line, ":")
		status[name] = strings.Join(strings.Fields(value), " ")
	}
	for name, want := range map[string]string{
		"Uid": "1234 1234 1234 1234", "Gid": "2345 2345 2345 2345", "Groups": "3456", "NoNewPrivs": "1", "Umask": "0022", "Seccomp": "2",
		"CapInh": "0000000000000000", "CapPrm": "0000000000000000", "CapEff": "0000000000000000",
		"CapBnd": "0000000000000000", "CapAmb": "0000000000000000",
		"SigBlk": "0000000000000000", "SigIgn": "0000000000000000", "TracerPid": "0", "PPid": "1",
	} {
		if status[name] != want {
			t.Errorf("%s is %q, want %q", name, status[name], want)
		}
	}
	if _, out := run(t, s, "sh", "-c", "ulimit -c; ulimit -Hc; pwd; env | sort; ls /proc/$$/fd"); out != "0\n0\n/\nMARK=1\nPATH=/usr/bin:/bin\nPWD=/\n0\n1\n2\n" {
		t.Errorf("limits, directory, environment, descriptors: %q", out)
	}
	for name, script := range map[string]string{
		"opens a vsock":                  "python3 -c 'import socket; socket.socket(40, 1)'",
		"opens a packet socket":          "python3 -c 'import socket; socket.socket(17, 3)'",
		"opens a netfilter socket":       "python3 -c 'import socket; socket.socket(16, 3, 12)'",
		"opens an AF_ALG socket":         "python3 -c 'import socket; socket.socket(38, 5)'",
		"makes a user namespace":         "unshare -Ur true",
		"makes a network namespace":      "unshare -n true",
		"reads what no rule names":       "ls /var",
		"writes below a read-only path":  "touch /usr/x 2>&1",
		"traces":                         "python3 -c 'import ctypes,sys; sys.exit(ctypes.CDLL(None).ptrace(0,0,0,0) == -1)'",
		"gains root":                     "python3 -c 'import os; os.setuid(0)'",
		"reads init's memory":            "cat /proc/1/environ",
		"follows init's root":            "ls /proc/1/root/",
		"kills init":                     "kill -KILL 1",
		"changes the network":            "ip link set lo down",
		"runs a set-user-id program":     "! [ \"$(su -c id root 2>&1 </dev/null | grep -c uid=0)\" = 0 ]",
		"lists the supervisor's program": "ls -l /proc/1/exe",
	} {
		if code, out := run(t, s, "sh", "-c", script); code == 0 {
			t.Errorf("a program %s: %q", name, out)
		}
	}
}

// TestWhatWasAppliedIsReported, and a path that cannot be used is named.
func TestWhatWasAppliedIsReported(t *testing.T) {
	need.Landlock(t, landlock.HardABI)
	s := startSandbox(t)
	p, err := start(t, s, "true")
	if err != nil {
		t.Fatal(err)
	}
	got := p.Applied
	if got.ABI < landlock.HardABI || got.ReadOnly != 6 || got.ReadWrite != 2 || len(got.Skipped) != 1 || !strings.Contains(got.Skipped[0], "/no/such/path: no such file") {
		t.Errorf("got %+v", got)
	}
	null, err := os.OpenFile("/dev/null", os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer null.Close()
	for name, files := range map[string]landlock.Rules{
		"a path that is not there, where everything is required": {ReadOnly: []string{"/usr", "/no/such/path"}, Hard: true},
		"a path the user cannot reach":                           {ReadOnly: []string{"/usr", "/root/x"}, Hard: true},
		"nothing at all":                                         {},
		"nothing that is there":                                  {ReadOnly: []string{"/no/such/path"}},
	} {
		as := someUser
		as.Files = files
		_, err := s.Launch(t.Context(), Spec{Argv: []string{"true"}, Env: []string{"PATH=/usr/bin:/bin"}, As: as, Files: [3]*os.File{null, null, null}})
		if e, ok := errors.AsType[*LaunchError](err); !ok || e.Code != 78 || !strings.Contains(e.Detail, "filesystem_policy") {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// TestTheWorkspaceIsTriedAsTheFinalIdentity: root may write everywhere here, the program
// may not.
func TestTheWorkspaceIsTriedAsTheFinalIdentity(t *testing.T) {
	s := startSandbox(t)
	dir, err := os.MkdirTemp("/var/tmp", "splitpod-workspace-")
	if err != nil {
		t.Fatal(err)
	}
	defer os.RemoveAll(dir)
	for name, mode := range map[string]os.FileMode{"own": 0o700, "others": 0o755} {
		if err := errors.Join(os.Mkdir(dir+"/"+name, mode), os.Chmod(dir, 0o755)); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.Chown(dir+"/own", int(someUser.UID), int(someUser.GID)); err != nil {
		t.Fatal(err)
	}
	for name, tt := range map[string]struct {
		dir      string
		granted  bool
		hard     bool
		code     int
		reported bool
	}{
		"its own directory":                   {dir + "/own", true, true, 0, false},
		"its own, which Landlock leaves out":  {dir + "/own", false, false, 0, true},
		"somebody else's":                     {dir + "/others", true, false, 0, true},
		"somebody else's, with hard_required": {dir + "/others", true, true, 78, false},
	} {
		as := someUser
		as.Dir, as.Workspace = tt.dir, true
		as.Files.ReadOnly, as.Files.Hard = someFiles.ReadOnly[:6], tt.hard
		if tt.granted {
			as.Files.ReadWrite = append([]string{tt.dir}, someFiles.ReadWrite...)
		}
		null, err := os.OpenFile("/dev/null", os.O_RDWR, 0)
		if err != nil {
			t.Fatal(err)
		}
		session, err := s.Launch(t.Context(), Spec{Argv: []string{"true"}, Env: []string{"PATH=/usr/bin:/bin"}, As: as, Files: [3]*os.File{null, null, null}})
		null.Close()
		e, refused := errors.AsType[*LaunchError](err)
		switch {
		case tt.code != 0 && (!refused || e.Code != tt.code || !strings.Contains(e.Detail, "include_workdir")):
			t.Errorf("%s: %v, want code %d", name, err, tt.code)
		case tt.code == 0 && err != nil:
			t.Errorf("%s: %v", name, err)
		case tt.code == 0 && (len(session.Applied.Skipped) == 1) != tt.reported:
			t.Errorf("%s: %q", name, session.Applied.Skipped)
		}
		if left, err := os.ReadDir(tt.dir); err != nil || len(left) > 0 {
			t.Errorf("%s: it left %v (%v)", name, left, err)
		}
	}
}

// TestManyPathsThatAreNotThereAreCounted: as many as a policy may have, as long as they
// may be.
func TestManyPathsThatAreNotThereAreCounted(t *testing.T) {
	s := startSandbox(t)
	as := someUser
	as.Files.ReadOnly = append([]string{}, someFiles.ReadOnly[:6]...)
	for i := range 250 {
		as.Files.ReadOnly = append(as.Files.ReadOnly, fmt.Sprintf("/no/%d/%s", i, strings.Repeat("x/", 2000)))
	}
	null, err := os.OpenFile("/dev/null", os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer null.Close()
	session, err := s.Launch(t.Context(), Spec{Argv: []string{"true"}, Env: []string{"PATH=/usr/bin:/bin"}, As: as, Files: [3]*os.File{null, null, null}})
	if err != nil {
		t.Fatal(err)
	}
	if a := session.Applied; len(a.Skipped) == 0 || len(a.Skipped)+a.Unnamed != 250 {
		t.Errorf("%d are named and %d more counted", len(a.Skipped), a.Unnamed)
	}
}

// TestFilesAreLimited: what may be done below each kind of path, by real programs.
func TestFilesAreLimited(t *testing.T) {
	need.Landlock(t, landlock.HardABI)
	s := startSandbox(t)
	dir, err := os.MkdirTemp("/var/tmp", "splitpod-files-")
	if err != nil {
		t.Fatal(err)
	}
	defer os.RemoveAll(dir)
	for _, sub := range []string{"ro", "rw", "other"} {
		path := filepath.Join(dir, sub)
		if err := errors.Join(os.Mkdir(path, 0o777), os.Chmod(path, 0o777), os.WriteFile(path+"/file", []byte("text"), 0o666), os.Chmod(path+"/file", 0o666)); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.Chmod(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	as := someUser
	as.Files.ReadOnly = append([]string{dir + "/ro"}, someFiles.ReadOnly...)
	as.Files.ReadWrite = append([]string{dir + "/rw"}, someFiles.ReadWrite...)
	for _, tt := range []struct {
		script string
		works  bool
	}{
		{"cat ro/file", true}, {"ls ro", true}, {"echo x > ro/file", false}, {"truncate -s 0 ro/file", false}, {"rm ro/file", false},
		{"touch ro/new", false}, {"mkdir ro/dir", false}, {"ln -s x ro/link", false}, {"mv ro/file rw/moved", false},
		{"cat rw/file", true}, {"echo x > rw/file", true}, {"truncate -s 0 rw/file", true}, {"mkdir rw/dir && mv rw/file rw/dir/", true},
		{"cp /bin/true rw/prog && rw/prog", true}, {"ln ro/file rw/hard", false},
		{"cat other/file", false}, {"ls other", false}, {"touch other/new", false}, {"cat rw/../other/file", false},
		{"ln -s ../other/file rw/link; cat rw/link", false},
	} {
		null, err := os.OpenFile("/dev/null", os.O_RDWR, 0)
		if err != nil {
			t.Fatal(err)
		}
		session, err := s.Launch(t.Context(), Spec{Argv: []string{"sh", "-c", "cd " + dir + " 2>/dev/null; " + tt.script}, Env: []string{"PATH=/usr/bin:/bin"}, As: as, Files: [3]*os.File{null, null, null}})
		null.Close()
		if err != nil {
			t.Fatal(err)
		}
		exit, err := session.Wait(t.Context())
		if err != nil || (exit.Code == 0) != tt.works {
			t.Errorf("%s: exit code %d (%v), want it to work: %t", tt.script, exit.Code, err, tt.works)
		}
	}
}

// TestALinkThatTheWorkloadMadeGrantsNothing: the policy names paths below a directory
// that the workload may write to, which replaces them by links before the next program
// starts.
func TestALinkThatTheWorkloadMadeGrantsNothing(t *testing.T) {
	need.Landlock(t, landlock.HardABI)
	s := startSandbox(t)
	dir, err := os.MkdirTemp("/var/tmp", "splitpod-links-")
	if err != nil {
		t.Fatal(err)
	}
	defer os.RemoveAll(dir)
	must := func(errs ...error) {
		t.Helper()
		if err := errors.Join(errs...); err != nil {
			t.Fatal(err)
		}
	}
	must(os.Chmod(dir, 0o755), os.Mkdir(dir+"/rw", 0o777), os.Chmod(dir+"/rw", 0o777), os.Mkdir(dir+"/secret", 0o755), os.WriteFile(dir+"/secret/file", []byte("text"), 0o644))
	for name, tt := range map[string]struct{ link, to, granted string }{
		"the path itself":      {"rw/tools", dir + "/secret", "rw/tools"},
		"a directory above it": {"rw/above", dir, "rw/above/secret"},
		"everything":           {"rw/all", "/", "rw/all"},
	} {
		must(os.Symlink(tt.to, dir+"/"+tt.link))
		as := someUser
		as.Files.ReadOnly = append([]string{dir + "/" + tt.granted}, someFiles.ReadOnly...)
		as.Files.ReadWrite = append([]string{dir + "/rw"}, someFiles.ReadWrite...)
		null, err := os.OpenFile("/dev/null", os.O_RDWR, 0)
		must(err)
		session, err := s.Launch(t.Context(), Spec{Argv: []string{"cat", dir + "/secret/file"}, Env: []string{"PATH=/usr/bin:/bin"}, As: as, Files: [3]*os.File{null, null, null}})
		must(null.Close(), err)
		exit, err := session.Wait(t.Context())
		must(err)
		if a := session.Applied; exit.Code == 0 || len(a.Skipped) == 0 || !strings.Contains(a.Skipped[0], "a symbolic link is in its place") {
			t.Errorf("%s: exit code %d, %+v", name, exit.Code, a)
		}
		as.Files.Hard = true
		if _, err := s.Launch(t.Context(), Spec{Argv: []string{"true"}, Env: []string{"PATH=/usr/bin:/bin"}, As: as, Files: [3]*os.File{os.Stdin, os.Stdin, os.Stdin}}); err == nil {
			t.Errorf("%s: launched where everything is required", name)
		}
	}
}

// TestSessionsCannotSignalEachOther: the scopes of Landlock.
func TestSessionsCannotSignalEachOther(t *testing.T) {
	need.Landlock(t, landlock.HardABI)
	s := startSandbox(t)
	p, err := start(t, s, "sleep", "1000")
	if err != nil {
		t.Fatal(err)
	}
	if code, _ := run(t, s, "kill", "-KILL", fmt.Sprint(p.PID())); code == 0 {
		t.Error("one session killed another")
	}
	if code, out := run(t, s, "python3", "-c", fmt.Sprintf("import resource; resource.prlimit(%d, resource.RLIMIT_CPU, (1, 1))", p.PID())); code == 0 || !strings.Contains(out, "PermissionError") {
		t.Errorf("one session can limit another: code %d, %q", code, out)
	}
	if code, out := run(t, s, "sh", "-c", "ulimit -t 1000 && sleep 1000 & kill -KILL $! && echo killed"); code != 0 || !strings.Contains(out, "killed") {
		t.Errorf("a session cannot signal its own: code %d, %q", code, out)
	}
}

// TestOrphansAreReaped: thousands of processes whose parents are gone leave nothing.
func TestOrphansAreReaped(t *testing.T) {
	s := startSandbox(t)
	const orphans = 10_000
	code, out := run(t, s, "python3", "-c", fmt.Sprintf(`
import os
for i in range(%d):
    pid = os.fork()
    if pid == 0:
        if os.fork() == 0:
            os._exit(0)
        os._exit(0)
    os.waitpid(pid, 0)
print("done")
`, orphans))
	if code != 0 || out != "done\n" {
		t.Fatalf("code %d, output %q", code, out)
	}
	ended := time.Now()
	deadline := ended.Add(time.Minute)
	for n := 0; n != 1; {
		if err := s.Query(t.Context(), "processes", &n); err != nil {
			t.Fatal(err)
		}
		if n != 1 && time.Now().After(deadline) {
			t.Fatalf("%d processes are left", n)
		}
	}
	t.Logf("all of them were gone %v after their program", time.Since(ended))
}

func TestTheEndOfTheSandboxIsTheEndOfEverything(t *testing.T) {
	s := startSandbox(t)
	p, err := start(t, s, "sh", "-c", "setsid sleep 1000 & trap '' TERM; sleep 1000")
	if err != nil {
		t.Fatal(err)
	}
	s.Close()
	if _, err := p.Wait(t.Context()); !errors.Is(err, ErrEnded) {
		t.Errorf("got %v", err)
	}
	<-p.out // every holder of the pipe is gone
	if _, err := start(t, s, "true"); err == nil {
		t.Error("a program ran afterwards")
	}
	if err := s.Query(t.Context(), "processes", new(int)); err == nil {
		t.Error("a query was answered afterwards")
	}
}

// TestALaunchThatIsGivenUpLeavesNothing: a client that goes away while its program
// starts.
func TestALaunchThatIsGivenUpLeavesNothing(t *testing.T) {
	s := startSandbox(t)
	gone, cancel := context.WithCancel(t.Context())
	cancel()
	null, err := os.OpenFile("/dev/null", os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer null.Close()
	for range 20 {
		_, err := s.Launch(gone, Spec{Argv: []string{"sleep", "1000"}, Env: []string{"PATH=/usr/bin:/bin"}, As: someUser, Files: [3]*os.File{null, null, null}})
		if !errors.Is(err, context.Canceled) {
			t.Fatalf("got %v", err)
		}
	}
	for deadline := time.Now().Add(time.Minute); ; {
		var n int
		if err := s.Query(t.Context(), "processes", &n); err != nil {
			t.Fatal(err)
		}
		if n == 1 {
			break
		}
		if time.Now().After(deadline) {
			t.Fatalf("%d processes are left", n-1)
		}
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(s.waiting) > 0 {
		t.Errorf("%d launches are still waited for", len(s.waiting))
	}
}

func TestAFailedSetupLeavesNothing(t *testing.T) {
	need.Root(t)
	need.NetNS(t)
	s, err := Start(t.Context(), "fail")
	if err == nil || !strings.Contains(err.Error(), "failed on purpose") {
		t.Fatalf("got %v, %v", s, err)
	}
}

// TestASetupThatFailedBeforeItWasAskedSaysWhy: init comes up before anybody needs it, and
// may be gone by then.
func TestASetupThatFailedBeforeItWasAskedSaysWhy(t *testing.T) {
	own, theirs, err := socketpair()
	if err != nil {
		t.Fatal(err)
	}
	defer theirs.Close()
	line, err := net.FileConn(theirs)
	if err != nil {
		t.Fatal(err)
	}
	done := make(chan struct{})
	close(done)
	s := &Sandbox{line: own, forked: done, ended: done}
	if err := send(line.(*net.UnixConn), message{Op: "failed", Error: "no fence can be had"}); err != nil {
		t.Fatal(err)
	}
	line.Close()
	theirs.Close()
	if err := s.Setup(t.Context(), "anything"); err == nil || !strings.Contains(err.Error(), "no fence can be had") {
		t.Errorf("got %v", err)
	}
}

// TestANeverNeededInitLeavesNothing: a start that is refused while init comes up.
func TestANeverNeededInitLeavesNothing(t *testing.T) {
	need.Root(t)
	need.NetNS(t)
	s, err := Spawn()
	if err != nil {
		t.Fatal(err)
	}
	s.Close()
	select {
	case <-s.ended:
	default:
		t.Error("init is still there")
	}
}

// TestAnInitThatDiesSaysHow: as under a kernel that ends it before it can speak.
func TestAnInitThatDiesSaysHow(t *testing.T) {
	need.Root(t)
	need.NetNS(t)
	s, err := Start(t.Context(), "die")
	if err == nil || !strings.Contains(err.Error(), "init ended during its setup (exit status 7)") {
		t.Fatalf("got %v, %v", s, err)
	}
}

func TestProgramsRunBesideEachOther(t *testing.T) {
	s := startSandbox(t)
	var all []program
	for i := range 20 {
		p, err := start(t, s, "sh", "-c", fmt.Sprintf("read x; echo $x %d; exit %d", i, i))
		if err != nil {
			t.Fatal(err)
		}
		all = append(all, p)
	}
	for i, p := range all {
		if _, err := fmt.Fprintln(p.in, "line"); err != nil {
			t.Fatal(err)
		}
		if code, _, out := p.wait(t); code != i || out != fmt.Sprintf("line %d\n", i) {
			t.Errorf("program %d: code %d, output %q", i, code, out)
		}
	}
}

func TestGarbageOnTheLifeLineIsAnError(t *testing.T) {
	a, theirs, err := socketpair()
	if err != nil {
		t.Fatal(err)
	}
	defer a.Close()
	defer theirs.Close()
	fd, err := number(theirs)
	if err != nil {
		t.Fatal(err)
	}
	for name, text := range map[string][]byte{
		"no JSON": []byte("hello"), "another type": []byte(`{"op":5}`), "too large": bytes.Repeat([]byte("x"), maxMessage+1),
	} {
		if err := unix.Sendmsg(fd, text, nil, nil, 0); err != nil {
			t.Fatal(err)
		}
		if m, _, err := receive(a, make([]byte, maxMessage)); err == nil {
			t.Errorf("%s: %+v", name, m)
		}
	}
}

// TestAWindowWithoutASizeChangesNothing: clients that have no terminal of their own say zero.
func TestAWindowWithoutASizeChangesNothing(t *testing.T) {
	need.Root(t)
	terminal, err := OpenTerminal(1234)
	if err != nil {
		t.Fatal(err)
	}
	defer terminal.Master.Close()
	defer terminal.Slave.Close()
	for _, step := range []struct{ columns, rows, wantColumns, wantRows int }{
		{0, 0, 0, 0}, {100, 30, 100, 30}, {0, 0, 100, 30}, {0, 5, 100, 30}, {-1, 5, 100, 30}, {1, 1, 1, 1}, {1 << 20, 65535, 65535, 65535},
	} {
		if err := terminal.Resize(step.columns, step.rows); err != nil {
			t.Fatal(err)
		}
		size, err := unix.IoctlGetWinsize(int(terminal.Slave.Fd()), unix.TIOCGWINSZ)
		if err != nil || int(size.Col) != step.wantColumns || int(size.Row) != step.wantRows {
			t.Errorf("after %d by %d it is %d by %d (%v)", step.columns, step.rows, size.Col, size.Row, err)
		}
	}
}
