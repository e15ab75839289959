package identity

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/splitpod/splitpod/pkg/core"
	"github.com/splitpod/splitpod/test/need"
)

// TestMain is also the programs that tests identify: "role NAME [ARG]".
func TestMain(m *testing.M) {
	runtime.LockOSThread() // a role may need the main thread
	if len(os.Args) > 2 && os.Args[1] == "role" {
		if err := play(os.Args[2], os.Args[3:]); err != nil {
			fmt.Println("error:", err)
			os.Exit(1)
		}
		os.Exit(0)
	}
	os.Exit(m.Run())
}

// play connects where it is told to, prints both ends, and stays until its standard
// input ends.
func play(role string, args []string) error {
	switch role {
	case "hold":
		_, _ = io.Copy(io.Discard, os.Stdin)
		return nil
	case "connect":
		c, err := net.Dial("tcp", args[0])
		if err != nil {
			return err
		}
		fmt.Println(c.LocalAddr(), c.RemoteAddr())
		return play("hold", nil)
	case "again": // one connection for each line, or another program that goes on
		for in := bufio.NewScanner(os.Stdin); in.Scan(); {
			if program := in.Text(); program != "" {
				return syscall.Exec(program, []string{program, "role", role, args[0]}, nil)
			}
			c, err := net.Dial("tcp", args[0])
			if err != nil {
				return err
			}
			fmt.Println(c.LocalAddr(), c.RemoteAddr())
			defer c.Close()
		}
		return nil
	case "mapped":
		return mapped(args[0])
	case "share": // another program inherits the connection
		c, err := net.Dial("tcp", args[0])
		if err != nil {
			return err
		}
		f, err := c.(*net.TCPConn).File()
		if err != nil {
			return err
		}
		cmd := exec.Command(args[1], "role", "hold")
		cmd.Stdin, cmd.ExtraFiles = os.Stdin, []*os.File{f}
		if err := cmd.Start(); err != nil {
			return err
		}
		fmt.Println(c.LocalAddr(), c.RemoteAddr())
		return cmd.Wait()
	case "become": // another program in the same process
		c, err := net.Dial("tcp", args[0])
		if err != nil {
			return err
		}
		f, err := c.(*net.TCPConn).File()
		if err != nil {
			return err
		}
		fd, err := unix.FcntlInt(f.Fd(), unix.F_DUPFD, 10)
		if err != nil {
			return err
		}
		_ = fd
		fmt.Println(c.LocalAddr(), c.RemoteAddr())
		return syscall.Exec(args[1], []string{args[1], "role", "hold"}, nil)
	case "thread":
		return thread(args[0], args[1])
	case "twice": // another program inherits the second connection
		if err := connectAndPrint(args[0]); err != nil {
			return err
		}
		_, _ = os.Stdin.Read(make([]byte, 1))
		fd, err := dial4(args[0])
		if err != nil {
			return err
		}
		if err := inherit(args[1], fd); err != nil {
			return err
		}
		return printAndHold(fd)
	case "listen": // says that a listening port is a connection
		l, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			return err
		}
		fmt.Println(l.Addr(), args[0])
		return play("hold", nil)
	case "mounted": // another file under the name of a program, for this process only
		runtime.LockOSThread()
		if err := errors.Join(unix.Unshare(unix.CLONE_NEWNS), unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, ""),
			unix.Mount(args[2], args[1], "", unix.MS_BIND, "")); err != nil {
			return err
		}
		return syscall.Exec(args[1], []string{args[1], "role", args[3], args[0]}, nil)
	case "headless":
		return headless(args[0], args[1])
	case "escape": // a second holder leaves the tree
		fd, err := dial4(args[0])
		if err != nil {
			return err
		}
		pid, err := syscall.ForkExec("/proc/self/exe", []string{"x", "role", "leave", args[1]}, &syscall.ProcAttr{Files: []uintptr{0, 1, 2, uintptr(fd)}})
		if err != nil {
			return err
		}
		_, _ = syscall.Wait4(pid, nil, 0, nil)
		return printAndHold(fd)
	case "leave":
		return inherit(args[0], 3)
	case "deep": // a role below that many ancestors of the same program
		if args[1] == "0" {
			return play(args[2], args)
		}
		n, err := strconv.Atoi(args[1])
		if err != nil {
			return err
		}
		return play("spawn", []string{"/proc/self/exe", "deep", args[0], strconv.Itoa(n - 1), args[2]})
	case "hop": // a thread starts a child, and leaves it to another
		return hop()
	case "spawn": // starts another role as a child
		cmd := exec.Command(args[0], append([]string{"role"}, args[1:]...)...)
		cmd.Stdin, cmd.Stdout = os.Stdin, os.Stdout
		return cmd.Run()
	case "leave to": // starts another role as a child, and becomes another program itself
		cmd := exec.Command(args[1], append([]string{"role"}, args[2:]...)...)
		cmd.Stdin, cmd.Stdout = os.Stdin, os.Stdout
		if err := cmd.Start(); err != nil {
			return err
		}
		turn := make(chan os.Signal, 1)
		signal.Notify(turn, syscall.SIGUSR1)
		<-turn
		return syscall.Exec(args[0], []string{args[0], "role", "idle"}, nil)
	case "idle":
		time.Sleep(time.Hour)
		return nil
	case "orphan": // starts another role and ends
		cmd := exec.Command(args[0], append([]string{"role"}, args[1:]...)...)
		cmd.Stdin, cmd.Stdout = os.Stdin, os.Stdout
		return cmd.Start()
	default:
		return errors.New("unknown role")
	}
}

func connectAndPrint(address string) error {
	c, err := net.Dial("tcp", address)
	if err != nil {
		return err
	}
	fmt.Println(c.LocalAddr(), c.RemoteAddr())
	runtime.KeepAlive(c)
	return nil
}

// dial4 connects without the runtime's help.
func dial4(address string) (int, error) {
	to := netip.MustParseAddrPort(address)
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return 0, err
	}
	return fd, unix.Connect(fd, &unix.SockaddrInet4{Addr: to.Addr().As4(), Port: int(to.Port())})
}

// inherit starts another program that holds fd too, and returns when it runs.
func inherit(program string, fd int) error {
	_, err := syscall.ForkExec(program, []string{program, "role", "hold"}, &syscall.ProcAttr{Files: []uintptr{0, 1, 2, uintptr(fd)}})
	return err
}

// headless keeps a connection that another program holds too, while its main thread
// has ended.
func headless(address, program string) error {
	fd, err := dial4(address)
	if err != nil {
		return err
	}
	if err := inherit(program, fd); err != nil {
		return err
	}
	main := unix.Getpid()
	go func() {
		runtime.LockOSThread()
		for { // until the main thread is a zombie
			stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", main))
			if err == nil && strings.Contains(string(stat), ") Z ") {
				break
			}
			runtime.Gosched()
		}
		_ = printAndHold(fd)
	}()
	runtime.LockOSThread()
	if unix.Gettid() != main {
		return errors.New("not the main thread")
	}
	_, _, _ = unix.Syscall(unix.SYS_EXIT, 0, 0, 0) // not a raw one: the runtime gives what this thread had to others
	return nil
}

// mapped connects an IPv6 socket to an IPv4 address.
func mapped(address string) error {
	to := netip.MustParseAddrPort(address)
	fd, err := unix.Socket(unix.AF_INET6, unix.SOCK_STREAM, 0)
	if err != nil {
		return err
	}
	sa := &unix.SockaddrInet6{Addr: netip.AddrFrom16(to.Addr().As16()).As16(), Port: int(to.Port())}
	if err := unix.Connect(fd, sa); err != nil {
		return err
	}
	return printAndHold(fd)
}

func printAndHold(fd int) error {
	own, err := unix.Getsockname(fd)
	if err != nil {
		return err
	}
	peer, err := unix.Getpeername(fd)
	if err != nil {
		return err
	}
	fmt.Println(text(own), text(peer))
	return play("hold", nil)
}

func text(sa unix.Sockaddr) string {
	switch sa := sa.(type) {
	case *unix.SockaddrInet4:
		return netip.AddrPortFrom(netip.AddrFrom4(sa.Addr), uint16(sa.Port)).String()
	case *unix.SockaddrInet6:
		return netip.AddrPortFrom(netip.AddrFrom16(sa.Addr).Unmap(), uint16(sa.Port)).String()
	}
	return ""
}

// hop has many threads. For each line one more starts a child, says its own number, and ends
// with the next line, so that the child is the main thread's.
func hop() error {
	var idle sync.WaitGroup
	for range 100 {
		idle.Add(1)
		go func() {
			runtime.LockOSThread()
			idle.Done()
			select {}
		}()
	}
	idle.Wait()
	for in := bufio.NewScanner(os.Stdin); in.Scan(); {
		said, end := make(chan [2]int), make(chan struct{})
		go func() {
			runtime.LockOSThread() // and never unlocked: the thread ends with its goroutine
			child, err := syscall.ForkExec("/bin/sleep", []string{"sleep", "1000"}, nil)
			if err != nil {
				fmt.Println(err)
			}
			said <- [2]int{child, unix.Gettid()}
			<-end
		}()
		pids := <-said
		fmt.Println(pids[1])
		in.Scan()
		close(end)
		in.Scan()
		if err := syscall.Kill(pids[0], syscall.SIGKILL); err != nil {
			return err
		}
		if _, err := syscall.Wait4(pids[0], nil, 0, nil); err != nil {
			return err
		}
	}
	return nil
}

// thread hides a connection in the descriptor table of one thread, and lets another
// program inherit it.
func thread(address, program string) error {
	runtime.LockOSThread()
	if err := unix.Unshare(unix.CLONE_FILES); err != nil {
		return err
	}
	fd, err := dial4(address)
	if err != nil {
		return err
	}
	if err := inherit(program, fd); err != nil {
		return err
	}
	return printAndHold(fd)
}

// sandboxed runs body as pid 1 of new pid, mount and network namespaces, by running
// this very test again there.
func sandboxed(t *testing.T, body func(t *testing.T)) {
	t.Helper()
	need.Root(t)
	need.NetNS(t)
	if os.Getpid() != 1 {
		self, err := os.Executable()
		if err != nil {
			t.Fatal(err)
		}
		cmd := exec.Command(self, "-test.run=^"+t.Name()+"$", "-test.v")
		cmd.Env = append(os.Environ(), "TMPDIR="+t.TempDir())
		cmd.SysProcAttr = &syscall.SysProcAttr{Cloneflags: unix.CLONE_NEWPID | unix.CLONE_NEWNS | unix.CLONE_NEWNET}
		if out, err := cmd.CombinedOutput(); err != nil || !strings.Contains(string(out), "--- PASS: "+t.Name()) {
			t.Fatalf("%v\n%s", err, out)
		}
		return
	}
	enter(t)
	body(t)
}

func enter(t testing.TB) {
	t.Helper()
	for _, err := range []error{
		unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, ""),
		unix.Mount("proc", "/proc", "proc", 0, ""),
		exec.Command("ip", "link", "set", "lo", "up").Run(),
	} {
		if err != nil {
			t.Fatal(err)
		}
	}
}

// bench is what tests of one sandbox share.
type stand struct {
	t       testing.TB
	r       *Resolver
	address string // of a listener
	dir     string
}

func newStand(t testing.TB) *stand {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	go func() {
		for {
			if _, err := l.Accept(); err != nil {
				return
			}
		}
	}()
	diag, err := OpenDiag()
	if err != nil {
		t.Fatal(err)
	}
	proc, err := os.Open("/proc")
	if err != nil {
		t.Fatal(err)
	}
	root, err := os.Open("/")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { diag.Close(); proc.Close(); root.Close() })
	r, err := Open(Config{Diag: diag, Proc: proc, Root: root})
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	return &stand{t, r, l.Addr().String(), dir}
}

// program copies this test binary to a path of its own.
func (s *stand) program(name string) string {
	s.t.Helper()
	path := filepath.Join(s.dir, name)
	self, err := os.ReadFile("/proc/self/exe")
	if err != nil {
		s.t.Fatal(err)
	}
	if err := os.WriteFile(path+".new", self, 0o755); err != nil {
		s.t.Fatal(err)
	}
	if err := os.Rename(path+".new", path); err != nil {
		s.t.Fatal(err)
	}
	return path
}

// actor is a running program.
type actor struct {
	cmd *exec.Cmd
	in  io.WriteCloser
	out *bufio.Scanner
	t   testing.TB
}

func (s *stand) start(program string, args ...string) *actor {
	s.t.Helper()
	cmd := exec.Command(program, append([]string{"role"}, args...)...)
	in, err := cmd.StdinPipe()
	if err != nil {
		s.t.Fatal(err)
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		s.t.Fatal(err)
	}
	cmd.Stderr = os.Stderr
	if err := cmd.Start(); err != nil {
		s.t.Fatal(err)
	}
	a := &actor{cmd, in, bufio.NewScanner(out), s.t}
	s.t.Cleanup(a.stop)
	return a
}

func (a *actor) stop() {
	a.in.Close()
	_ = a.cmd.Process.Kill()
	_ = a.cmd.Wait()
}

// tuple is the next connection the program made.
func (a *actor) tuple() core.Tuple {
	a.t.Helper()
	if !a.out.Scan() {
		a.t.Fatalf("%v said nothing", a.cmd.Args)
	}
	client, server, _ := strings.Cut(a.out.Text(), " ")
	c, err1 := netip.ParseAddrPort(client)
	v, err2 := netip.ParseAddrPort(server)
	if err := errors.Join(err1, err2); err != nil {
		a.t.Fatalf("%v said %q: %v", a.cmd.Args, a.out.Text(), err)
	}
	return core.Tuple{Client: c, Server: v}
}

func (s *stand) want(a *actor, status core.IdentityStatus, program string) core.Identity {
	s.t.Helper()
	who := s.r.Identify(s.t.Context(), a.tuple())
	if who.Status != status || who.Program.Path != program {
		s.t.Errorf("%v: got %s %q (%s), want %s %q", a.cmd.Args[2:], who.Status, who.Program.Path, who.Detail, status, program)
	}
	if status == core.IdentityKnown && (len(who.Program.SHA256) != 64 || who.Process.StartTime == 0) {
		s.t.Errorf("incomplete: %+v", who)
	}
	return who
}

func TestAConnectionHasItsProgram(t *testing.T) {
	sandboxed(t, func(t *testing.T) {
		s := newStand(t)
		a, b := s.program("a"), s.program("b")
		client := s.start(a, "connect", s.address)
		if who := s.want(client, core.IdentityKnown, a); who.Process.PID != client.cmd.Process.Pid || len(who.Ancestors) != 0 {
			t.Errorf("got %+v", who)
		}
		s.want(s.start(a, "mapped", s.address), core.IdentityKnown, a)
		who := s.want(s.start(b, "spawn", a, "connect", s.address), core.IdentityKnown, a)
		if len(who.Ancestors) != 1 || who.Ancestors[0].Path != b || who.Ancestors[0].SHA256 != who.Program.SHA256 {
			t.Errorf("ancestors %+v", who.Ancestors)
		}
		who = s.want(s.start(b, "orphan", a, "connect", s.address), core.IdentityKnown, a)
		if len(who.Ancestors) > 1 {
			t.Errorf("an orphan has ancestors %+v", who.Ancestors)
		}
		tuple := s.start(a, "connect", s.address, "/work/script.py", "relative", "/x/../y").tuple()
		for who.CommandPaths = nil; len(who.CommandPaths) == 0; { // a busy machine may not read them in the time they have
			if who = s.r.Identify(t.Context(), tuple); who.Status != core.IdentityKnown || who.Program.Path != a {
				t.Fatalf("got %+v", who)
			}
		}
		if fmt.Sprint(who.CommandPaths) != "[/work/script.py]" {
			t.Errorf("command-line paths %v", who.CommandPaths)
		}
	})
}

func TestIPv6ConnectionsAreFound(t *testing.T) {
	sandboxed(t, func(t *testing.T) {
		s := newStand(t)
		l, err := net.Listen("tcp", "[::1]:0")
		if err != nil {
			t.Fatal(err)
		}
		defer l.Close()
		a := s.program("a")
		s.want(s.start(a, "connect", l.Addr().String()), core.IdentityKnown, a)
	})
}

func TestSharedConnectionsAreNeverGuessed(t *testing.T) {
	sandboxed(t, func(t *testing.T) {
		s := newStand(t)
		a, b := s.program("a"), s.program("b")
		s.want(s.start(a, "share", s.address, a), core.IdentityKnown, a)
		who := s.want(s.start(a, "share", s.address, b), core.IdentityAmbiguous, "")
		if !strings.Contains(who.Detail, a) || !strings.Contains(who.Detail, b) {
			t.Errorf("detail %q does not name both", who.Detail)
		}
		become := s.start(a, "become", s.address, b)
		tuple := become.tuple()
		for exe := ""; exe != b; { // it prints before it executes the other program
			exe, _ = os.Readlink(fmt.Sprintf("/proc/%d/exe", become.cmd.Process.Pid))
		}
		if who := s.r.Identify(t.Context(), tuple); who.Status != core.IdentityKnown || who.Program.Path != b {
			t.Errorf("got %+v", who)
		}
		s.want(s.start(a, "thread", s.address, b), core.IdentityAmbiguous, "")
	})
}

// TestAKnownProcessDoesNotVouchForItsChild: the short cut for processes that
// connected before sees what they start.
func TestAKnownProcessDoesNotVouchForItsChild(t *testing.T) {
	sandboxed(t, func(t *testing.T) {
		s := newStand(t)
		a, b := s.program("a"), s.program("b")
		twice := s.start(a, "twice", s.address, b)
		s.want(twice, core.IdentityKnown, a)
		c, last := s.r.recent.all()[0], s.r.last.Load()
		if !c.hasNoNewChild(s.r.fs, last, s.r.births.look()) {
			t.Error("a process without a child has a new one")
		}
		fmt.Fprintln(twice.in)
		s.want(twice, core.IdentityAmbiguous, "")
		if c.hasNoNewChild(s.r.fs, last, s.r.births.look()) {
			t.Error("a new child is not seen behind a look that saw none")
		}
		// Whoever has waited since before the child asks with the older pass.
		later := s.r.last.Load()
		if now := s.r.births.look(); !c.hasNoNewChild(s.r.fs, later, now) || c.hasNoNewChild(s.r.fs, last, now) {
			t.Error("a child that a later pass has is believed of an older one")
		}
	})
}

// TestAPidUsedAgainIsNoParent: a parent that ends leaves its pid to others, while who it
// started is still looked at.
func TestAPidUsedAgainIsNoParent(t *testing.T) {
	sandboxed(t, func(t *testing.T) {
		s := newStand(t)
		a, b, c := s.program("a"), s.program("b"), s.program("c")
		parent := s.start(b, "spawn", c, "connect", s.address)
		tuple := parent.tuple()
		who := s.r.Identify(t.Context(), tuple)
		if who.Status != core.IdentityKnown || len(who.Ancestors) != 1 || who.Ancestors[0].Path != b {
			t.Fatalf("got %+v", who)
		}
		child, err := s.r.fs.read(who.Process.PID)
		if err != nil {
			t.Fatal(err)
		}
		pid := parent.cmd.Process.Pid
		now, err := s.r.fs.read(pid)
		if err != nil || !s.r.fs.isParent(&now, &child) {
			t.Errorf("pid %d is not its child's parent: %v", pid, err)
		}
		for started, want := range map[uint64]bool{child.start - 1: true, child.start: true, child.start + 1: false} {
			now.start = started
			if got := s.r.fs.isParent(&now, &child); got != want {
				t.Errorf("a parent that started %d ticks after its child: %t", int64(started-child.start), got)
			}
		}
		if err := errors.Join(parent.cmd.Process.Kill(), wait(parent)); err != nil {
			t.Fatal(err)
		}
		s.startAs(pid, a, "hold")
		if who, _, err := s.r.describe(t.Context(), child); !errors.Is(err, errChanged) {
			t.Errorf("got %+v, %v", who, err)
		}
		if now.start = child.start; s.r.fs.isParent(&now, &child) {
			t.Error("who started with its child is its parent behind its end")
		}
		if who := s.r.Identify(t.Context(), tuple); who.Status != core.IdentityKnown || who.Program.Path != c || len(who.Ancestors) != 0 {
			t.Errorf("got %+v", who)
		}
	})
}

// wait leaves open what the program's children have of it.
func wait(a *actor) error {
	_, err := a.cmd.Process.Wait()
	return err
}

// startAs starts a program as the process of that pid.
func (s *stand) startAs(pid int, program string, role ...string) *actor {
	s.t.Helper()
	for range 100 { // a new thread of this test may be faster
		if err := os.WriteFile("/proc/sys/kernel/ns_last_pid", []byte(strconv.Itoa(pid-1)), 0); err != nil {
			s.t.Fatal(err)
		}
		if a := s.start(program, role...); a.cmd.Process.Pid == pid {
			return a
		}
	}
	s.t.Fatalf("no process got pid %d", pid)
	return nil
}

// TestAChildIsSeenWhicheverThreadHasIt, while it goes from one that ends to another.
func TestAChildIsSeenWhicheverThreadHasIt(t *testing.T) {
	sandboxed(t, func(t *testing.T) {
		s := newStand(t)
		hop := s.start(s.program("a"), "hop")
		for range 20 {
			fmt.Fprintln(hop.in)
			if !hop.out.Scan() {
				t.Fatal("it said nothing")
			}
			thread := fmt.Sprintf("/proc/%d/task/%s", hop.cmd.Process.Pid, hop.out.Text())
			told := make(chan struct{})
			go func() {
				defer close(told)
				fmt.Fprintln(hop.in)
			}()
			for there := true; there; {
				_, err := os.Stat(thread)
				there = err == nil
				if !s.r.fs.childIsUnknown(hop.cmd.Process.Pid, nil) {
					t.Fatal("the child was with no thread")
				}
			}
			<-told
			fmt.Fprintln(hop.in)
		}
	})
}

func TestAListenerIsNoConnection(t *testing.T) {
	sandboxed(t, func(t *testing.T) {
		s := newStand(t)
		s.want(s.start(s.program("a"), "listen", s.address), core.IdentityNotFound, "")
	})
}

// TestAMountDoesNotLendAName: neither to the program that connects, nor to one that
// wants to be its ancestor.
func TestAMountDoesNotLendAName(t *testing.T) {
	sandboxed(t, func(t *testing.T) {
		s := newStand(t)
		a, b := s.program("a"), s.program("b")
		who := s.want(s.start(b, "mounted", s.address, a, b, "connect"), core.IdentityChanged, "")
		if !strings.Contains(who.Detail, a) {
			t.Errorf("detail %q", who.Detail)
		}
		s.want(s.start(a, "connect", s.address), core.IdentityKnown, a)
	})
}

func TestAProcessWithoutAMainThreadIsSeen(t *testing.T) {
	sandboxed(t, func(t *testing.T) {
		s := newStand(t)
		a, b := s.program("a"), s.program("b")
		who := s.r.Identify(t.Context(), s.start(a, "headless", s.address, b).tuple())
		if who.Status == core.IdentityKnown {
			t.Errorf("got %+v", who)
		}
	})
}

// TestAProgramWhosePathIsTooLongBlindsNobody: the kernel cannot say its path (more than
// 4,095 bytes), which makes it nobody, and not every other program.
func TestAProgramWhosePathIsTooLongBlindsNobody(t *testing.T) {
	sandboxed(t, func(t *testing.T) {
		s := newStand(t)
		deep := exec.Command("bash", "-c", `set -e; d=$(printf 'd%.0s' {1..250}); for i in {1..18}; do mkdir $d; cd $d; done; cp /bin/sleep s; echo ready; exec env ./s 1000`)
		deep.Dir = s.dir
		out, err := deep.StdoutPipe()
		if err == nil {
			err = deep.Start()
		}
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = deep.Process.Kill(); _ = deep.Wait() })
		if _, err := bufio.NewReader(out).ReadString('\n'); err != nil {
			t.Fatal(err)
		}
		for link := fmt.Sprintf("/proc/%d/exe", deep.Process.Pid); ; { // until it is the program
			if to, err := os.Readlink(link); errors.Is(err, unix.ENAMETOOLONG) {
				break
			} else if err != nil {
				t.Fatalf("%s: %v", to, err)
			}
		}
		program := s.program("connects")
		s.want(s.start(program, "connect", s.address), core.IdentityKnown, program)
	})
}

func TestTheLineOfAncestorsHasALimit(t *testing.T) {
	sandboxed(t, func(t *testing.T) {
		s := newStand(t)
		a := s.program("a")
		if who := s.want(s.start(a, "deep", s.address, "64", "connect"), core.IdentityKnown, a); len(who.Ancestors) != 64 {
			t.Errorf("%d ancestors", len(who.Ancestors))
		}
		s.want(s.start(a, "deep", s.address, "65", "connect"), core.IdentityFailed, "")
	})
}

func TestAReplacedProgramIsNotTrusted(t *testing.T) {
	sandboxed(t, func(t *testing.T) {
		s := newStand(t)
		a := s.program("a")
		running := s.start(a, "again", s.address)
		next := func() core.Tuple { fmt.Fprintln(running.in); return running.tuple() }
		if who := s.r.Identify(t.Context(), next()); who.Status != core.IdentityKnown {
			t.Fatalf("got %+v", who)
		}
		s.program("a") // the same content in another file
		if who := s.r.Identify(t.Context(), next()); who.Status != core.IdentityChanged {
			t.Errorf("a deleted program: %+v", who)
		}
		s.want(s.start(a, "connect", s.address), core.IdentityKnown, a)

		f, err := os.OpenFile(a, os.O_APPEND|os.O_WRONLY, 0)
		if errors.Is(err, unix.ETXTBSY) {
			data, readErr := os.ReadFile(a)
			if readErr != nil {
				t.Fatal(readErr)
			}
			if err = os.Remove(a); err == nil {
				err = os.WriteFile(a, append(data, "changed"...), 0o755)
			}
		} else if err == nil {
			_, err = f.WriteString("changed")
			f.Close()
		}
		if err != nil {
			t.Fatal(err)
		}
		who := s.want(s.start(a, "connect", s.address), core.IdentityChanged, "")
		if !strings.Contains(who.Detail, a) {
			t.Errorf("detail %q", who.Detail)
		}
	})
}

// TestAKnownProcessNeedsNoPass, and whatever is new does.
func TestAKnownProcessNeedsNoPass(t *testing.T) {
	sandboxed(t, func(t *testing.T) {
		s := newStand(t)
		a, b := s.program("a"), s.program("b")
		known := s.start(a, "again", s.address)
		next := func() core.Tuple { fmt.Fprintln(known.in); return known.tuple() }
		if who := s.r.Identify(t.Context(), next()); who.Status != core.IdentityKnown {
			t.Fatalf("got %+v", who)
		}
		first := s.r.last.Load()
		for range 5 {
			if who := s.r.Identify(t.Context(), next()); who.Status != core.IdentityKnown || who.Program.Path != a {
				t.Fatalf("got %+v", who)
			}
		}
		if s.r.last.Load() != first {
			t.Error("a known process needed another pass")
		}
		s.want(s.start(b, "connect", s.address), core.IdentityKnown, b)
		if s.r.last.Load() == first {
			t.Error("a new process was believed without a pass")
		}
		old := *s.r.last.Load()
		old.started = old.started.Add(-passLasts)
		s.r.last.Store(&old)
		if who := s.r.Identify(t.Context(), next()); who.Status != core.IdentityKnown {
			t.Fatalf("got %+v", who)
		}
		if s.r.last.Load() == &old {
			t.Error("a pass that is too old was believed")
		}
	})
}

func TestWhatNobodyHoldsIsNotFound(t *testing.T) {
	sandboxed(t, func(t *testing.T) {
		s := newStand(t)
		a := s.program("a")
		client := s.start(a, "connect", s.address)
		tuple := client.tuple()
		for name, other := range map[string]core.Tuple{
			"another port":    {Client: netip.AddrPortFrom(tuple.Client.Addr(), tuple.Client.Port()+1), Server: tuple.Server},
			"another address": {Client: netip.AddrPortFrom(netip.MustParseAddr("127.0.0.2"), tuple.Client.Port()), Server: tuple.Server},
			"another server":  {Client: tuple.Client, Server: netip.AddrPortFrom(tuple.Server.Addr(), 1)},
		} {
			if who := s.r.Identify(t.Context(), other); who.Status != core.IdentityNotFound {
				t.Errorf("%s: %+v", name, who)
			}
		}
		if who := s.r.Identify(t.Context(), core.Tuple{}); who.Status == core.IdentityKnown {
			t.Errorf("an empty tuple: %+v", who)
		}
		client.stop()
		if who := s.r.Identify(t.Context(), tuple); who.Status != core.IdentityNotFound {
			t.Errorf("after its end: %+v", who)
		}
		// Held by this test alone, which is pid 1 and does not count.
		c, err := net.Dial("tcp", s.address)
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		own := core.Tuple{Client: c.LocalAddr().(*net.TCPAddr).AddrPort(), Server: c.RemoteAddr().(*net.TCPAddr).AddrPort()}
		if who := s.r.Identify(t.Context(), own); who.Status != core.IdentityNotFound {
			t.Errorf("init's own connection: %+v", who)
		}
	})
}

func TestManyAskAtOnce(t *testing.T) {
	sandboxed(t, func(t *testing.T) {
		s := newStand(t)
		a := s.program("a")
		var tuples []core.Tuple
		for range 8 {
			tuples = append(tuples, s.start(a, "connect", s.address).tuple())
		}
		var wg sync.WaitGroup
		for _, tuple := range tuples {
			wg.Go(func() {
				for range 20 {
					if who := s.r.Identify(t.Context(), tuple); who.Status != core.IdentityKnown || who.Program.Path != a {
						t.Errorf("got %+v", who)
					}
				}
			})
		}
		wg.Wait()
	})
}

// TestAnEraEndsWithAProcess, or when nobody has looked for too long: pids come round.
func TestAnEraEndsWithAProcess(t *testing.T) {
	at := time.Now()
	type reading struct {
		pid           int
		before, after time.Duration
	}
	for name, c := range map[string]struct {
		first, second reading
		same          bool
	}{
		"the same at once":                  {reading{7, 0, 0}, reading{7, 0, 0}, true},
		"the same a little later":           {reading{7, 0, 0}, reading{7, 0, eraLasts - 1}, true},
		"the same too late":                 {reading{7, 0, 0}, reading{7, eraLasts, eraLasts}, false},
		"the same, but it took long to see": {reading{7, 0, 0}, reading{7, 0, eraLasts}, false},
		"the same, but it took long before": {reading{7, 0, eraLasts}, reading{7, eraLasts, eraLasts}, false},
		"another":                           {reading{7, 0, 0}, reading{8, 0, 0}, false},
		"two that cannot be said":           {reading{0, 0, 0}, reading{0, 0, 0}, false},
		"the second cannot be said":         {reading{7, 0, 0}, reading{0, 0, 0}, false},
		"the first cannot be said":          {reading{0, 0, 0}, reading{7, 0, 0}, false},
	} {
		var b births
		first := b.at(c.first.pid, at.Add(c.first.before), at.Add(c.first.after))
		second := b.at(c.second.pid, at.Add(c.second.before), at.Add(c.second.after))
		if first == 0 || (first == second) != c.same {
			t.Errorf("%s: era %d, then %d", name, first, second)
		}
	}
	// It goes on for as long as somebody looks, and does not come again.
	var b births
	first := b.at(7, at, at)
	for range 9 {
		at = at.Add(eraLasts - 1)
		if now := b.at(7, at, at); now != first {
			t.Fatalf("era %d became %d though nobody began", first, now)
		}
	}
	if b.at(8, at, at); b.at(7, at, at) == first {
		t.Error("an era came again with its pid")
	}
}

// TestNoChildIsBelievedForLong: one that has its pid and cannot be seen yet tells nobody when
// it can.
func TestNoChildIsBelievedForLong(t *testing.T) {
	at := time.Now()
	seen := childless{7, at, at}
	for name, c := range map[string]struct {
		later childless
		want  bool
	}{
		"at once":               {seen, true},
		"a little later":        {childless{7, at, at.Add(unseenLasts - 1)}, true},
		"too late":              {childless{7, at, at.Add(unseenLasts)}, false},
		"in another era":        {childless{8, at, at}, false},
		"asked by another pass": {childless{7, at.Add(1), at}, false},
	} {
		if got := seen.counts(c.later); got != c.want {
			t.Errorf("%s: %t", name, got)
		}
	}
	c, p := &connector{pid: 1 << 30}, &pass{era: 7, started: at.Add(-unseenLasts)} // of nobody: a look fails
	if c.hasNoNewChild(procfs{fd: -1}, p, 7) {
		t.Error("an old pass counts though it is the same era")
	}
	p.started = time.Now().Add(time.Minute) // or a busy machine takes longer than that
	if !c.hasNoNewChild(procfs{fd: -1}, p, 7) || c.hasNoNewChild(procfs{fd: -1}, p, 8) {
		t.Error("a pass of just now does not count in its own era alone")
	}
}

// TestCommandLinesAreReadOnce, for each process with its programs.
func TestCommandLinesAreReadOnce(t *testing.T) {
	sandboxed(t, func(t *testing.T) {
		s := newStand(t)
		program := s.program("a")
		ask := func(a *actor, want ...string) {
			t.Helper()
			tuple := a.tuple()
			who := s.r.Identify(t.Context(), tuple)
			for who.Status == core.IdentityKnown && len(who.CommandPaths) < len(want) { // a busy machine may not read them in the time they have
				who = s.r.Identify(t.Context(), tuple)
			}
			if who.Status != core.IdentityKnown || !slices.Equal(who.CommandPaths, want) {
				t.Errorf("got %+v, want %v", who, want)
			}
		}
		// A role ignores what it needs not.
		one, two := s.start(program, "again", s.address, "/one"), s.start(program, "again", s.address, "/two")
		for range 2 {
			for want, a := range map[string]*actor{"/one": one, "/two": two} {
				fmt.Fprintln(a.in)
				ask(a, want)
			}
		}
		if len(s.r.commands.read) != 2 {
			t.Errorf("%d were read", len(s.r.commands.read))
		}
		for range maxExplained {
			a := s.start(program, "connect", s.address)
			ask(a)
			a.stop()
			if n := len(s.r.commands.read); n > maxExplained {
				t.Fatalf("%d are remembered", n)
			}
		}
		fmt.Fprintln(one.in)
		ask(one, "/one") // it was forgotten meanwhile
	})
}

// self is this process as one that connects.
func self(t *testing.T) (procfs, *connector) {
	t.Helper()
	proc, err := os.Open("/proc")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { proc.Close() })
	return procfs{fd: int(proc.Fd())}, &connector{pid: os.Getpid()}
}

// TestPlacesThatStayEmptyAreForgotten, or one crowd would slow down all who come later.
func TestPlacesThatStayEmptyAreForgotten(t *testing.T) {
	fs, c := self(t)
	// at opens a socket at a descriptor of its own and asks for it.
	at := func(n int) {
		t.Helper()
		fd, err := unix.Socket(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
		if err != nil {
			t.Fatal(err)
		}
		defer unix.Close(fd)
		if err := unix.Dup3(fd, n, unix.O_CLOEXEC); err != nil {
			t.Fatal(err)
		}
		var st unix.Stat_t
		if err := unix.Fstat(n, &st); err != nil || !c.holds(fs, st.Ino, time.Now(), maxHeld) {
			t.Fatalf("descriptor %d is not found: %v", n, err)
		}
	}
	places := func() (out []int) {
		for _, p := range c.places {
			out = append(out, p.n)
		}
		slices.Sort(out)
		return out
	}
	const first, others, later = 300, 50, 600
	for n := first; n <= first+others; n++ {
		at(n)
	}
	if got := places(); len(got) != others+1 {
		t.Fatalf("%d places are known, want %d", len(got), others+1)
	}
	defer unix.Close(first)
	for n := first + 1; n <= first+others; n++ {
		unix.Close(n)
	}
	want := []int{first}
	for i := range maxEmpty {
		n := later + 2*maxNear*i // where nobody looks that takes the next number
		at(n)
		defer unix.Close(n)
		want = append(want, n)
	}
	if got := places(); !slices.Equal(got, want) {
		t.Errorf("places %d, want %d", got, want)
	}
}

// TestWhoKeepsItsConnectionsIsNotListed: each further one has a number near the last, whichever
// other files are opened in between, and in whichever order those of a crowd are asked for.
func TestWhoKeepsItsConnectionsIsNotListed(t *testing.T) {
	fs, c := self(t)
	// found asks for a new socket at a descriptor, with a list of so many at most.
	found := func(n, limit int) bool {
		t.Helper()
		fd, err := unix.Socket(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
		if err != nil {
			t.Fatal(err)
		}
		defer unix.Close(fd)
		var st unix.Stat_t
		if err := errors.Join(unix.Dup3(fd, n, unix.O_CLOEXEC), unix.Fstat(n, &st)); err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { unix.Close(n) })
		return c.holds(fs, st.Ino, time.Now(), limit)
	}
	const first = 500
	if found(first-2, 1) {
		t.Error("the first connection of a process is found without a list")
	}
	if !found(first-1, maxHeld) {
		t.Fatal("a connection is not found by listing all")
	}
	at := first
	for range 2 * maxPlaces { // more than there are places
		if !found(at, 1) {
			t.Fatalf("descriptor %d is not found above the last", at)
		}
		at++
	}
	if !c.keeps {
		t.Error("a process that keeps its connections is looked for below them first")
	}
	if at += maxNear - 1; !found(at, 1) {
		t.Error("the last number that is tried is not")
	}
	if !found(at-maxNear/2, 1) { // of a crowd: it came before and is asked for later
		t.Error("a number below the last is not tried")
	}
	if at += maxNear + 1; found(at, 1) {
		t.Error("numbers are tried without an end")
	}
	c.keeps = true
	if !found(first+2*maxPlaces-60, 1) || c.keeps {
		t.Error("a process that uses a number again is taken for one that keeps its connections")
	}
}

// TestACrowdIsLookedForTogether: what a process held is listed once for all who asked
// before, and again for whoever asks later.
func TestACrowdIsLookedForTogether(t *testing.T) {
	sandboxed(t, func(t *testing.T) {
		s := newStand(t)
		crowd := s.start(s.program("crowd"), "again", s.address)
		next := func() (core.Tuple, uint64) {
			fmt.Fprintln(crowd.in)
			tuple := crowd.tuple()
			of, err := s.r.diag.lookup(tuple)
			if err != nil {
				t.Fatal(err)
			}
			return tuple, of.inode
		}
		oldest, first := next()
		if who := s.r.Identify(t.Context(), oldest); who.Status != core.IdentityKnown {
			t.Fatalf("got %+v", who)
		}
		pass := s.r.last.Load()
		var tuples []core.Tuple
		for range 3 * newestHeld {
			tuple, _ := next()
			tuples = append(tuples, tuple)
		}
		s.askAll(t, tuples)
		if s.r.last.Load() != pass {
			t.Error("a crowd of a known process needed another pass")
		}

		c := s.r.recent.all()[0]
		before := time.Now()
		if c.holds(s.r.fs, first, before, 1) {
			t.Error("a list of one descriptor has the first of many")
		}
		if !c.holds(s.r.fs, first, before, maxHeld) || !c.started.After(before) {
			t.Error("the oldest of many connections is not found by listing all")
		}
		list := c.started
		if !c.holds(s.r.fs, first, before, maxHeld) || c.started != list {
			t.Error("who asked before the list does not use it")
		}
		if !c.holds(s.r.fs, first, time.Now(), 1) {
			t.Error("what a list had is not looked for at its number")
		}
		if c.holds(s.r.fs, 1, before, maxHeld) {
			t.Error("the list has what nobody holds")
		}
		_, last := next()
		if c.holds(s.r.fs, last, before, maxHeld) {
			t.Error("the list has what came later")
		}
		if !c.holds(s.r.fs, last, time.Now(), maxHeld) {
			t.Error("who asks after the list is answered by it")
		}
	})
}

// A copy of a descriptor costs a process next to nothing, and whoever looks for its
// sockets has to look at each of them.
func TestDescriptorsThatAreLookedAtAreBounded(t *testing.T) {
	sandboxed(t, func(t *testing.T) {
		s := newStand(t)
		fd, err := dial4(s.address)
		if err != nil {
			t.Fatal(err)
		}
		unix.CloseOnExec(fd)
		var st unix.Stat_t
		if err := unix.Fstat(fd, &st); err != nil {
			t.Fatal(err)
		}
		// One thread with a few descriptors, the connection among them. It has no others once
		// it repeats what it is told.
		cmd := exec.Command("cat")
		cmd.ExtraFiles = []*os.File{os.NewFile(uintptr(fd), "connection")}
		in, err1 := cmd.StdinPipe()
		out, err2 := cmd.StdoutPipe()
		if err := errors.Join(err1, err2, cmd.Start()); err != nil {
			t.Fatal(err)
		}
		defer func() { _ = cmd.Process.Kill(); _ = cmd.Wait() }()
		fmt.Fprintln(in, "up")
		if _, err := out.Read(make([]byte, 1)); err != nil {
			t.Fatal(err)
		}
		held, err := os.ReadDir(fmt.Sprintf("/proc/%d/fd", cmd.Process.Pid))
		if err != nil || len(held) < 4 {
			t.Fatal(held, err)
		}
		for limit, enough := range map[int]bool{len(held): true, len(held) - 1: false} {
			if got := (&connector{pid: cmd.Process.Pid}).holds(s.r.fs, st.Ino, time.Now(), limit); got != enough {
				t.Errorf("asked at a limit of %d: %t", limit, got)
			}
			s.r.descriptors = limit
			if _, err := s.r.look(); errors.Is(err, errTooMany) == enough || enough && err != nil {
				t.Errorf("a pass with a limit of %d: %v", limit, err)
			}
		}
		own, err := unix.Getsockname(fd)
		if err != nil {
			t.Fatal(err)
		}
		tuple := core.Tuple{Client: netip.MustParseAddrPort(text(own)), Server: netip.MustParseAddrPort(s.address)}
		s.r.descriptors = len(held) - 1
		if who := s.r.Identify(t.Context(), tuple); who.Status != core.IdentityFailed || !strings.HasSuffix(who.Detail, errTooMany.Error()) {
			t.Errorf("got %+v", who)
		}
		s.r.descriptors = len(held)
		if who := s.r.Identify(t.Context(), tuple); who.Status != core.IdentityKnown {
			t.Errorf("got %+v", who)
		}
	})
}

func TestAnAnswerThatIsNotWaitedForIsFailed(t *testing.T) {
	sandboxed(t, func(t *testing.T) {
		s := newStand(t)
		tuple := s.start(s.program("a"), "connect", s.address).tuple()
		ctx, cancel := context.WithCancel(t.Context())
		cancel()
		if who := s.r.Identify(ctx, tuple); who.Status != core.IdentityFailed {
			t.Errorf("got %+v", who)
		}
	})
}

func TestOnlyTheTreeCounts(t *testing.T) {
	sandboxed(t, func(t *testing.T) {
		s := newStand(t)
		a, b := s.program("a"), s.program("b")
		root := s.start(b, "spawn", a, "connect", s.address)
		inside := root.tuple()
		outside := s.start(a, "connect", s.address).tuple()
		cfg := s.r.cfg
		cfg.Tree = root.cmd.Process.Pid
		r, err := Open(cfg)
		if err != nil {
			t.Fatal(err)
		}
		who := r.Identify(t.Context(), inside)
		if who.Status != core.IdentityKnown || who.Program.Path != a || len(who.Ancestors) != 1 || who.Ancestors[0].Path != b {
			t.Errorf("inside: %+v", who)
		}
		if who := r.Identify(t.Context(), outside); who.Status == core.IdentityKnown {
			t.Errorf("outside: %+v", who)
		}
		escape := s.start(a, "escape", s.address, b)
		tuple := escape.tuple()
		cfg.Tree = escape.cmd.Process.Pid
		if r, err = Open(cfg); err != nil {
			t.Fatal(err)
		}
		if who := r.Identify(t.Context(), tuple); who.Status != core.IdentityAmbiguous {
			t.Errorf("inside and outside: %+v", who)
		}
	})
}

func TestStatIsReadBehindTheCommandName(t *testing.T) {
	tail := " S 7 1 1 0 -1 4194560 1 2 3 4 5 6 7 8 20 0 3 0 987654 1 1"
	for _, comm := range []string{"(sh)", "(a b)", "(a) S 99 9 9)", "()", "(\n)", "(" + strings.Repeat(")", 15) + ")"} {
		p := process{pid: 5}
		if err := p.parseStat([]byte("5 " + comm + tail)); err != nil || p.parent != 7 || p.threads != 3 || p.start != 987654 {
			t.Errorf("%q: %+v, %v", comm, p, err)
		}
	}
	for _, bad := range []string{"", "5 sh S 7", "5 (sh) S 7", "5 (sh) S x" + tail[4:]} {
		p := process{pid: 5}
		if err := p.parseStat([]byte(bad)); err == nil {
			t.Errorf("%q was read", bad)
		}
	}
}

func TestResolveFollowsEveryLink(t *testing.T) {
	root := t.TempDir()
	for _, dir := range []string{"usr/bin", "usr/lib/git", "etc/alternatives"} {
		if err := os.MkdirAll(filepath.Join(root, dir), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	for _, file := range []string{"usr/bin/python3.11", "usr/bin/plain", "usr/lib/git/git"} {
		if err := os.WriteFile(filepath.Join(root, file), nil, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	for link, to := range map[string]string{
		"bin": "usr/bin", "usr/bin/python3": "python3.11", "usr/bin/git": "/usr/lib/git/git",
		"etc/alternatives/py": "/usr/bin/python3", "usr/bin/py": "/etc/alternatives/py",
		"usr/bin/loop": "loop", "usr/bin/escape": "../../../../../../etc/passwd", "usr/bin/broken": "nowhere",
	} {
		if err := os.Symlink(to, filepath.Join(root, link)); err != nil {
			t.Fatal(err)
		}
	}
	f, err := os.Open(root)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	r := &Resolver{root: int(f.Fd())}
	got := r.Resolve([]string{
		"/usr/bin/plain", "/usr/bin/python3", "/bin/python3", "/bin/plain", "/usr/bin/git", "/usr/bin/py",
		"/usr/bin/loop", "/usr/bin/escape", "/usr/bin/broken", "/missing", "",
	})
	want := map[string]string{
		"/usr/bin/python3": "/usr/bin/python3.11", "/bin/python3": "/usr/bin/python3.11", "/bin/plain": "/usr/bin/plain",
		"/usr/bin/git": "/usr/lib/git/git", "/usr/bin/py": "/usr/bin/python3.11",
	}
	for p, to := range want {
		// The root is no root of this test's own, so that its path stands before.
		if !slices.Equal(got[p], []string{root + to}) {
			t.Errorf("%s leads to %v, want %s", p, got[p], root+to)
		}
	}
	for p, to := range got {
		if want[p] == "" && p != "/usr/bin/plain" {
			t.Errorf("%s leads to %v", p, to)
		}
	}
}

// BenchmarkIdentify answers for a process that connected before, and for one that
// did not, with 1,000 other processes in the sandbox.
func BenchmarkIdentify(b *testing.B) {
	if os.Getpid() != 1 {
		need.Root(b)
		self, err := os.Executable()
		if err != nil {
			b.Fatal(err)
		}
		cmd := exec.Command(self, "-test.run=^$", "-test.bench=^BenchmarkIdentify$", "-test.benchmem")
		cmd.SysProcAttr = &syscall.SysProcAttr{Cloneflags: unix.CLONE_NEWPID | unix.CLONE_NEWNS | unix.CLONE_NEWNET}
		cmd.Stdout, cmd.Stderr = os.Stdout, os.Stderr
		if err := cmd.Run(); err != nil {
			b.Fatal(err)
		}
		b.SkipNow() // the figures stand above
	}
	enter(b)
	s := newStand(b)
	for range 1000 {
		cmd := exec.Command("sleep", "1000")
		if err := cmd.Start(); err != nil {
			b.Fatal(err)
		}
		defer func() { _ = cmd.Process.Kill(); _ = cmd.Wait() }()
	}
	known := s.start(s.program("a"), "again", s.address)
	next := func() core.Tuple { fmt.Fprintln(known.in); return known.tuple() }
	b.Run("known_process", func(b *testing.B) {
		s.r.Identify(b.Context(), next())
		tuple := next()
		b.ReportAllocs()
		for b.Loop() {
			if who := s.r.Identify(b.Context(), tuple); who.Status != core.IdentityKnown {
				b.Fatal(who)
			}
		}
	})
	b.Run("new_process", func(b *testing.B) {
		tuple := next()
		for b.Loop() {
			s.r.last.Store(nil)
			if who := s.r.Identify(b.Context(), tuple); who.Status != core.IdentityKnown {
				b.Fatal(who)
			}
		}
	})
	for _, n := range []int{100, 1000} {
		b.Run(fmt.Sprintf("crowd_of_%d", n), func(b *testing.B) {
			crowd := s.start(s.program("crowd"), "again", s.address)
			line := func() core.Tuple { fmt.Fprintln(crowd.in); return crowd.tuple() }
			s.r.last.Store(nil)
			s.r.Identify(b.Context(), line())
			tuples := make([]core.Tuple, n)
			for i := range tuples {
				tuples[i] = line()
			}
			for b.Loop() {
				s.askAll(b, tuples)
			}
		})
	}
}

// askAll asks for many connections at a time, as many at once as the network daemon.
func (s *stand) askAll(t testing.TB, tuples []core.Tuple) {
	t.Helper()
	var wg sync.WaitGroup
	slots := make(chan struct{}, 64)
	for _, tuple := range tuples {
		slots <- struct{}{}
		wg.Go(func() {
			defer func() { <-slots }()
			if who := s.r.Identify(t.Context(), tuple); who.Status != core.IdentityKnown {
				t.Errorf("got %+v", who)
			}
		})
	}
	wg.Wait()
}
