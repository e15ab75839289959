// Package e2e_test runs the two real programs together on one machine, black box:
// their binaries, their flags, what the workload sees, what they record.
//
// It is not a pod: both daemons share this machine's mount and pid namespaces with
// the tests. The suite of a real cluster is kube/. README.md lists the cases.
package e2e_test

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/splitpod/splitpod/test/need"
	"github.com/splitpod/splitpod/test/world"
)

var origins *world.Origins

func TestMain(m *testing.M) {
	if len(os.Args) > 2 && os.Args[1] == withoutLandlock {
		fmt.Fprintln(os.Stderr, becomeWithoutLandlock(os.Args[2:]))
		os.Exit(1)
	}
	sayReplaced()
	if os.Geteuid() == 0 {
		if err := world.Enter(); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		dir, err := os.MkdirTemp("", "splitpod-e2e-")
		if err == nil {
			err = os.Chmod(dir, 0o755)
		}
		if err == nil {
			origins, err = world.Start(dir)
		}
		if err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		code := m.Run()
		origins.Close()
		os.RemoveAll(dir)
		os.Exit(code)
	}
	os.Exit(m.Run())
}

// networkUID is the network daemon's user.
const networkUID = 65532

// pair is the two daemons of one local sandbox.
type pair struct {
	t       *testing.T
	dir     string
	network *daemon
	process *daemon
}

// daemon is one running program with what it printed.
type daemon struct {
	cmd    *exec.Cmd
	out    *buffer // records, and for the process daemon the workload's output
	err    *buffer
	ended  chan struct{}
	code   int
	signal syscall.Signal
}

// buffer is a bytes.Buffer for a writer and readers in several goroutines.
type buffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (b *buffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.b.Write(p)
}

func (b *buffer) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.b.String()
}

// binary is where a daemon is: built from this tree, or, for test/e2e/skew, where
// SPLITPOD_TEST_BIN_NETWORK or SPLITPOD_TEST_BIN_PROCESS says.
func binary(t *testing.T, name string) string {
	t.Helper()
	if other := replaced(name); other != "" {
		return other
	}
	path, err := filepath.Abs("../../bin/" + name)
	if err == nil {
		_, err = os.Stat(path)
	}
	if err != nil {
		t.Fatalf("build the daemons first (make build): %v", err)
	}
	return path
}

// newPair prepares the folders of a sandbox; nothing runs yet.
func newPair(t *testing.T, policy string) *pair {
	t.Helper()
	need.Root(t)
	need.NetNS(t)
	dir, err := os.MkdirTemp("", "splitpod-pair-")
	if err != nil {
		t.Fatal(err)
	}
	p := &pair{t: t, dir: dir}
	t.Cleanup(func() {
		p.stop()
		if t.Failed() {
			p.dump()
		}
		os.RemoveAll(dir)
	})
	must(t, os.Chmod(dir, 0o711))
	for _, sub := range []string{"run", "state", "config"} {
		must(t, os.Mkdir(filepath.Join(dir, sub), 0o755))
		must(t, os.Chown(filepath.Join(dir, sub), networkUID, networkUID))
	}
	p.policy(policy)
	return p
}

// policy replaces the policy file in one step.
func (p *pair) policy(text string) {
	p.t.Helper()
	path := filepath.Join(p.dir, "config", "policy.yaml")
	must(p.t, os.WriteFile(path+".new", []byte(text), 0o644))
	must(p.t, os.Rename(path+".new", path))
}

// startNetwork starts the network daemon without any privilege.
func (p *pair) startNetwork(args ...string) {
	p.t.Helper()
	p.network = start(p.t, p.networkArgs(args)...)
}

func (p *pair) networkArgs(args []string) []string {
	return append([]string{
		"setpriv", "--reuid", fmt.Sprint(networkUID), "--regid", fmt.Sprint(networkUID), "--clear-groups",
		"--bounding-set=-all", "--inh-caps=-all", "--no-new-privs",
		binary(p.t, "supervisor-network"), "serve", "--policy", p.dir + "/config/policy.yaml",
		"--run-dir", p.dir + "/run", "--state-dir", p.dir + "/state", "--admin-listen", "", "--upstream-roots", origins.CAFile}, args...)
}

// startNetworkFrom starts another build of the network daemon.
func (p *pair) startNetworkFrom(program string, args ...string) {
	p.t.Helper()
	argv := p.networkArgs(args)
	argv[slices.Index(argv, binary(p.t, "supervisor-network"))] = program
	p.network = start(p.t, argv...)
}

// startProcess starts the process daemon with a workload. Its records go to a
// file, so that its output is the workload's.
func (p *pair) startProcess(command ...string) {
	p.t.Helper()
	p.startProcessWith(nil, command...)
}

func (p *pair) startProcessWith(flags []string, command ...string) {
	p.t.Helper()
	p.process = start(p.t, append(p.processArgs(flags), command...)...)
}

func (p *pair) processArgs(flags []string) []string {
	argv := []string{
		binary(p.t, "supervisor-process"), "run", "--run-dir", p.dir + "/run", "--network-uid", fmt.Sprint(networkUID),
		"--admin-listen", "", "--records", p.dir + "/process.records", "--start-timeout", "5m", "--grace", "1s", "--workdir", "/"}
	return slices.Concat(argv, flags, []string{"--"})
}

// startProcessInUserNamespace starts the process daemon as root of a user namespace
// of its own, with the namespaces a container has there (hostUsers: false). If
// masked, it keeps a /proc of somebody with more privileges, who has masked it.
func (p *pair) startProcessInUserNamespace(masked bool, command ...string) {
	p.t.Helper()
	everybody := []syscall.SysProcIDMap{{ContainerID: 0, HostID: 0, Size: 65536}}
	attr := &syscall.SysProcAttr{Cloneflags: syscall.CLONE_NEWUSER | syscall.CLONE_NEWNS | syscall.CLONE_NEWNET,
		UidMappings: everybody, GidMappings: everybody, GidMappingsEnableSetgroups: true}
	argv := append(p.processArgs(nil), command...)
	started := make(chan struct{})
	go func() {
		defer close(started)
		runtime.LockOSThread() // for ever: the thread ends with its mounts
		if masked {
			must(p.t, syscall.Unshare(syscall.CLONE_NEWNS|syscall.CLONE_FS))
			must(p.t, syscall.Mount("", "/", "", syscall.MS_REC|syscall.MS_PRIVATE, ""))
			must(p.t, syscall.Mount("none", "/proc/tty", "tmpfs", syscall.MS_RDONLY, ""))
		} else {
			attr.Cloneflags |= syscall.CLONE_NEWPID
			argv = append([]string{"sh", "-c", `mount -t proc proc /proc && exec "$@"`, "sh"}, argv...)
		}
		p.process = startAs(p.t, attr, argv...)
	}()
	<-started
}

func start(t *testing.T, argv ...string) *daemon {
	t.Helper()
	return startAs(t, nil, argv...)
}

func startAs(t *testing.T, attr *syscall.SysProcAttr, argv ...string) *daemon {
	t.Helper()
	d := &daemon{cmd: exec.Command(argv[0], argv[1:]...), out: &buffer{}, err: &buffer{}, ended: make(chan struct{})}
	d.cmd.Stdout, d.cmd.Stderr = d.out, d.err
	d.cmd.SysProcAttr = attr
	d.cmd.WaitDelay = 5 * time.Second
	d.cmd.Env = []string{"PATH=/usr/local/bin:/usr/bin:/bin:/usr/sbin:/sbin", "LANG=C.UTF-8"}
	must(t, d.cmd.Start())
	go func() {
		defer close(d.ended)
		err := d.cmd.Wait()
		d.code = d.cmd.ProcessState.ExitCode()
		if exit, ok := errors.AsType[*exec.ExitError](err); ok {
			if ws, ok := exit.Sys().(syscall.WaitStatus); ok && ws.Signaled() {
				d.signal = ws.Signal()
			}
		}
	}()
	return d
}

// takesExec waits until programs can be started in the sandbox, which is a moment after
// its workload was.
func (p *pair) takesExec() {
	p.t.Helper()
	eventually(p.t, "exec", func() bool { _, err := os.Stat(p.dir + "/run/exec.sock"); return err == nil })
}

// run starts both daemons with a command and returns its exit code and output.
func run(t *testing.T, policy string, command ...string) (*pair, int, string) {
	t.Helper()
	p := newPair(t, policy)
	p.startNetwork()
	p.startProcess(command...)
	code := p.process.wait(t)
	return p, code, p.process.out.String() + p.process.err.String()
}

func (d *daemon) wait(t *testing.T) int {
	t.Helper()
	select {
	case <-d.ended:
		return d.code
	case <-time.After(generous):
		t.Fatalf("%s did not end; output:\n%s%s", d.cmd.Args[0], d.out, d.err)
		return 0
	}
}

func (d *daemon) kill(sig syscall.Signal) {
	if d != nil {
		_ = d.cmd.Process.Signal(sig)
	}
}

func (p *pair) stop() {
	for _, d := range []*daemon{p.process, p.network} {
		if d == nil {
			continue
		}
		d.kill(syscall.SIGKILL)
		<-d.ended
	}
}

func (p *pair) dump() {
	if p.network != nil {
		p.t.Logf("network records:\n%s\nnetwork log:\n%s", tail(p.network.out.String()), tail(p.network.err.String()))
	}
	if p.process != nil {
		p.t.Logf("workload output:\n%s\n%s", tail(p.process.out.String()), tail(p.process.err.String()))
	}
	p.t.Logf("process records:\n%s", tail(p.processRecords()))
}

// tail is the end of a long text.
func tail(s string) string { return s[max(0, len(s)-3000):] }

func (p *pair) processRecords() string {
	data, _ := os.ReadFile(p.dir + "/process.records")
	return string(data)
}

// record is the part of a record that tests look at.
type record struct {
	Message  string `json:"message"`
	Detail   string `json:"status_detail"`
	ActionID int    `json:"action_id"`
	Count    int    `json:"count"`
	Dst      struct {
		Domain string `json:"domain"`
		IP     string `json:"ip"`
		Port   int    `json:"port"`
	} `json:"dst_endpoint"`
	Actor struct {
		Process struct {
			Name string `json:"name"`
			PID  int    `json:"pid"`
		} `json:"process"`
	} `json:"actor"`
	ExitCode *int `json:"exit_code"`
	Unmapped struct {
		Kind      string `json:"kind"`
		RequestID string `json:"request_id"`
		Reason    string `json:"reason"`
		Stage     string `json:"stage"`
		Producer  string `json:"producer"`
	} `json:"unmapped"`
}

func parseRecords(t *testing.T, text string) []record {
	t.Helper()
	var out []record
	for line := range strings.Lines(text) {
		if !strings.HasPrefix(line, "{\"class_uid\"") || !strings.HasSuffix(line, "\n") {
			continue
		}
		var r record
		if err := json.Unmarshal([]byte(line), &r); err != nil {
			t.Fatalf("record %q: %v", line, err)
		}
		out = append(out, r)
	}
	return out
}

// generous is for what comes, however busy the machine is.
const generous = 5 * time.Minute

// eventually waits until found says yes; records and files arrive on their own time.
func eventually(t *testing.T, what string, found func() bool) {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), generous)
	defer cancel()
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	for !found() {
		select {
		case <-tick.C:
		case <-ctx.Done():
			t.Fatalf("waited in vain for %s", what)
		}
	}
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}
