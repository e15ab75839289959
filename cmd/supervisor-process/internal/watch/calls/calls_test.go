package calls

import (
	"context"
	"encoding/binary"
	"fmt"
	"net"
	"os"
	"os/exec"
	"runtime"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/splitpod/splitpod/cmd/supervisor-process/internal/confine/seccomp"
)

// TestMain is also the program that is refused.
func TestMain(m *testing.M) {
	if os.Getenv("SPLITPOD_TEST_CALLS") != "" {
		os.Exit(refusedProgram())
	}
	os.Exit(m.Run())
}

// refusedProgram filters itself as a program of the sandbox is, gives the file away, and
// then makes the calls that it reads, one a line: a number and the first argument.
func refusedProgram() int {
	runtime.LockOSThread()
	line := os.NewFile(3, "line")
	err := unix.Prctl(unix.PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0)
	var told *os.File
	if err == nil {
		told, err = seccomp.Tell()
	}
	if err == nil {
		err = seccomp.Apply(true)
	}
	if err != nil {
		fmt.Println(err)
		return 1
	}
	if err := unix.Sendmsg(int(line.Fd()), []byte{1}, unix.UnixRights(int(told.Fd())), nil, 0); err != nil {
		fmt.Println(err)
		return 1
	}
	told.Close()
	for {
		var nr, arg uintptr
		if n, _ := fmt.Scanln(&nr, &arg); n != 2 {
			return 0
		}
		_, _, errno := unix.RawSyscall(nr, arg, 0, 0)
		fmt.Println(int(errno))
	}
}

// program starts refusedProgram, and returns its Listener and what makes it call.
func program(t *testing.T) (l *Listener, pid int, call func(nr, arg uintptr) unix.Errno) {
	t.Helper()
	fds, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	theirs := os.NewFile(uintptr(fds[1]), "line")
	cmd := exec.Command("/proc/self/exe")
	cmd.Env = append(os.Environ(), "SPLITPOD_TEST_CALLS=1", "GODEBUG=asyncpreemptoff=1") // a call that is interrupted is made again
	cmd.ExtraFiles = []*os.File{theirs}
	in, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = cmd.Process.Kill(); _ = cmd.Wait() })
	theirs.Close()
	mine := os.NewFile(uintptr(fds[0]), "line")
	defer mine.Close()
	c, err := net.FileConn(mine)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	oob := make([]byte, unix.CmsgSpace(4))
	_, n, _, _, err := c.(*net.UnixConn).ReadMsgUnix(make([]byte, 1), oob)
	if err != nil || n == 0 {
		said := make([]byte, 200)
		n, _ := out.Read(said)
		t.Fatalf("%v: %s", err, said[:n])
	}
	messages, err := unix.ParseSocketControlMessage(oob[:n])
	if err != nil {
		t.Fatal(err)
	}
	passed, err := unix.ParseUnixRights(&messages[0])
	if err != nil {
		t.Fatal(err)
	}
	return Listen(os.NewFile(uintptr(passed[0]), "calls")), cmd.Process.Pid, func(nr, arg uintptr) unix.Errno {
		var errno int
		fmt.Fprintln(in, nr, arg)
		if _, err := fmt.Fscanln(out, &errno); err != nil {
			t.Errorf("the program did not answer: %v", err)
		}
		return unix.Errno(errno)
	}
}

// serve answers until the test ends, or stop is called.
func serve(t *testing.T, l *Listener) (stop func()) {
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- l.Serve(ctx) }()
	stop = func() {
		cancel()
		if err := <-done; err != nil {
			t.Errorf("serve: %v", err)
		}
		done <- nil
	}
	t.Cleanup(stop)
	return stop
}

func (l *Listener) all() (out []Refusal) {
	l.Report(time.Now(), true, func(r Refusal) { out = append(out, r) })
	slices.SortFunc(out, func(a, b Refusal) int { return strings.Compare(a.Call+a.Program, b.Call+b.Program) })
	return out
}

// TestCallsAreRefusedCountedAndNamed, and those that are not told of do not come here.
func TestCallsAreRefusedCountedAndNamed(t *testing.T) {
	l, pid, call := program(t)
	serve(t, l)
	for range 3 {
		if errno := call(unix.SYS_PTRACE, 0); errno != unix.EPERM {
			t.Fatalf("ptrace: %v", errno)
		}
	}
	for nr, want := range map[uintptr]unix.Errno{unix.SYS_SOCKET: unix.EPERM, unix.SYS_PIDFD_OPEN: unix.EPERM, unix.SYS_CLONE3: unix.ENOSYS, unix.SYS_GETPID: 0} {
		if errno := call(nr, unix.AF_VSOCK); errno != want {
			t.Errorf("call %d: %v, want %v", nr, errno, want)
		}
	}
	got := l.all()
	exe, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	if len(got) != 2 || !strings.HasPrefix(got[0].Call, "ptrace (") || got[0].Count != 3 || got[1].Call != "socket (vsock)" || got[1].Count != 1 {
		t.Fatalf("%+v", got)
	}
	for _, r := range got {
		if r.Program != exe || r.PID != pid || r.Instead == "" {
			t.Errorf("%+v; it was %s, pid %d", r, exe, pid)
		}
	}
	if again := l.all(); len(again) != 0 {
		t.Errorf("told twice: %+v", again)
	}
}

// TestWithoutAListenerCallsAreRefused by the kernel, at once, those included that wait.
func TestWithoutAListenerCallsAreRefused(t *testing.T) {
	l, _, call := program(t)
	stop := serve(t, l)
	if errno := call(unix.SYS_MOUNT, 0); errno != unix.EPERM {
		t.Errorf("mount, answered: %v", errno)
	}
	stop()
	for nr := range map[uintptr]bool{unix.SYS_MOUNT: true, unix.SYS_PTRACE: true, unix.SYS_SOCKET: true} {
		if errno := call(nr, unix.AF_PACKET); errno != unix.ENOSYS {
			t.Errorf("call %d with nobody to answer it: %v", nr, errno)
		}
	}

	l, _, call = program(t)
	waits := make(chan unix.Errno)
	go func() { waits <- call(unix.SYS_PTRACE, 0) }()
	poll := []unix.PollFd{{Events: unix.POLLIN}}
	raw, err := l.file.SyscallConn()
	if err == nil {
		err = raw.Control(func(fd uintptr) { poll[0].Fd = int32(fd); _, _ = unix.Poll(poll, -1) })
	}
	if err != nil {
		t.Fatal(err)
	}
	l.file.Close()
	if errno := <-waits; errno != unix.ENOSYS {
		t.Errorf("a call that waited: %v", errno)
	}
}

// TestServeEndsWithTheLastProgram.
func TestServeEndsWithTheLastProgram(t *testing.T) {
	l, pid, call := program(t)
	done := make(chan error, 1)
	go func() { done <- l.Serve(context.Background()) }()
	_ = call(unix.SYS_PTRACE, 0)
	if err := unix.Kill(pid, unix.SIGKILL); err != nil {
		t.Fatal(err)
	}
	go func() { _, _ = unix.Wait4(pid, nil, 0, nil) }()
	if err := <-done; err != nil {
		t.Error(err)
	}
}

// TestALoopOfCallsCostsLittle: in a second few programs are looked at for one kind of call,
// which keeps no other from that, and after many calls each waits.
func TestALoopOfCallsCostsLittle(t *testing.T) {
	var p pace
	start := time.Unix(1000, 0)
	for second := range 3 {
		now := start.Add(time.Duration(second) * time.Second)
		for i := 1; i <= maxAnswers; i++ {
			if other, _ := p.next(now, fmt.Sprint(i)); !other {
				t.Fatalf("a call of another kind is not looked at after %d", i)
			}
			looks, waits := p.next(now, "ptrace")
			if looks != (i <= maxLooks) || waits != (2*i > maxAnswers) {
				t.Fatalf("call %d of second %d: looks %v, waits %v", i, second, looks, waits)
			}
		}
	}
}

// TestWhatIsKeptHasALimit, and every call is counted all the same.
func TestWhatIsKeptHasALimit(t *testing.T) {
	l := Listen(nil)
	for i := range 10 * maxPrograms {
		l.count("ptrace", "", fmt.Sprintf("/tmp/%d", i), i+1)
		l.count("mount", "", "", 0)
	}
	var total uint64
	got := l.all()
	for _, r := range got {
		total += r.Count
		if r.Program == "" && r.PID != 0 {
			t.Errorf("nobody's pid: %+v", r)
		}
	}
	if total != 20*maxPrograms || len(got) > maxPrograms+2 {
		t.Errorf("%d calls in %d records", total, len(got))
	}
}

// TestARefusalIsToldAtOnceThenOnceAMinute.
func TestARefusalIsToldAtOnceThenOnceAMinute(t *testing.T) {
	l := Listen(nil)
	start := time.Unix(1000, 0)
	for _, step := range []struct {
		at    time.Duration
		calls int
		all   bool
		want  uint64 // told
	}{
		{0, 2, false, 2}, {time.Second, 5, false, 0}, {reportEvery - 1, 1, false, 0}, {reportEvery, 1, false, 7},
		{reportEvery + 1, 4, true, 4}, {3 * reportEvery, 0, false, 0}, {3*reportEvery + 1, 1, false, 1},
	} {
		for range step.calls {
			l.count("ptrace", "", "/bin/x", 7)
		}
		var told uint64
		l.Report(start.Add(step.at), step.all, func(r Refusal) { told += r.Count })
		if told != step.want {
			t.Errorf("after %s: %d told, want %d", step.at, told, step.want)
		}
	}
}

// TestTheAnswerIsAlwaysARefusal, and names the call.
func TestTheAnswerIsAlwaysARefusal(t *testing.T) {
	b := refusal(0x0102030405060708)
	id, value := binary.NativeEndian.Uint64(b[0:]), binary.NativeEndian.Uint64(b[8:])
	errno, flags := int32(binary.NativeEndian.Uint32(b[16:])), binary.NativeEndian.Uint32(b[20:])
	if id != 0x0102030405060708 || value != 0 || errno != -int32(unix.EPERM) || flags != 0 {
		t.Errorf("id %#x, value %d, error %d, flags %#x", id, value, errno, flags)
	}
}
