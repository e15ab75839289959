package launch

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"os"
	"runtime"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/splitpod/splitpod/cmd/supervisor-process/internal/confine"
	"github.com/splitpod/splitpod/cmd/supervisor-process/internal/confine/landlock"
	"github.com/splitpod/splitpod/cmd/supervisor-process/internal/launch/stage"
	"github.com/splitpod/splitpod/pkg/core"
)

// ErrEnded is returned by calls on a sandbox whose init is gone.
var ErrEnded = errors.New("the sandbox has ended")

// LaunchError says that a program was not executed, and which exit code that
// deserves: 127 not found, 126 not executable, 125 not confined, 78 not confined because
// of the configuration or the policy.
type LaunchError struct {
	Code   int
	Detail string
}

// Error implements error.
func (e *LaunchError) Error() string { return e.Detail }

// Sandbox is a running init. Make it with Start. Safe for concurrent use.
type Sandbox struct {
	Report json.RawMessage     // what the setup reported
	Files  map[string]*os.File // the setup's descriptors; Close closes them, End does not

	limit   *os.File // cgroup.procs that every program joins; nil: none
	line    *net.UnixConn
	forked  chan struct{} // closed when there is an init, or none came to be
	failure error         // why none did; set before forked is closed
	init    *os.Process   // its signals reach init or nobody, whoever has its pid by then; set before forked is closed
	ended   chan struct{} // closed when init is gone
	end     string        // how it ended; set before ended is closed
	silent  chan struct{} // closed when all that init said was passed on, and it says no more
	mu      sync.Mutex
	next    uint64                  // guarded by mu
	waiting map[uint64]chan message // guarded by mu; sessions and queries
}

// namespaces of the workload.
const namespaces = unix.CLONE_NEWNET | unix.CLONE_NEWNS | unix.CLONE_NEWPID | unix.CLONE_NEWIPC | unix.CLONE_NEWUTS

// Start starts init in new namespaces, runs its setup with data, and waits until it
// is ready. When ctx ends before, nothing is left.
func Start(ctx context.Context, data any, files ...*os.File) (*Sandbox, error) {
	s, err := Spawn()
	if err != nil {
		return nil, err
	}
	if err := s.Setup(ctx, data, files...); err != nil {
		return nil, err
	}
	return s, nil
}

// Spawn starts init in new namespaces and returns at once. Init sets up what needs none of
// the caller's data, and waits for Setup. Nothing but Setup, Kill and Close may be called
// before Setup has succeeded.
func Spawn() (*Sandbox, error) {
	own, theirs, err := socketpair()
	if err != nil {
		return nil, err
	}
	s := &Sandbox{line: own, forked: make(chan struct{}), ended: make(chan struct{}), silent: make(chan struct{}), waiting: make(map[uint64]chan message)}
	go s.run(theirs)
	return s, nil
}

// Setup gives init its data and files, which stay the caller's, and waits until it is
// ready. When it fails, or ctx ends before, nothing is left.
func (s *Sandbox) Setup(ctx context.Context, data any, files ...*os.File) error {
	given, err := memoryFile(data)
	if err != nil {
		s.Close()
		return fmt.Errorf("encode the setup's data: %w", err)
	}
	defer given.Close()
	stop := context.AfterFunc(ctx, s.Kill)
	defer stop()
	if err := s.await(append([]*os.File{given}, files...)); err != nil {
		s.Close()
		return errors.Join(err, context.Cause(ctx))
	}
	go s.read()
	return nil
}

func socketpair() (own *net.UnixConn, theirs *os.File, err error) {
	fds, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_SEQPACKET|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return nil, nil, os.NewSyscallError("socketpair", err)
	}
	mine := os.NewFile(uintptr(fds[0]), "life line")
	theirs = os.NewFile(uintptr(fds[1]), "life line")
	defer mine.Close()
	c, err := net.FileConn(mine)
	if err != nil {
		theirs.Close()
		return nil, nil, fmt.Errorf("life line: %w", err)
	}
	return c.(*net.UnixConn), theirs, nil
}

// run starts init and waits for its end, on a thread that lives as long as init does: the
// parent-death signal is sent when the thread that forked ends, not the process.
func (s *Sandbox) run(theirs *os.File) {
	runtime.LockOSThread()
	defer close(s.ended)
	s.init, s.failure = spawn(theirs)
	close(s.forked)
	if s.init == nil {
		return
	}
	if state, err := s.init.Wait(); err == nil {
		s.end = state.String()
	}
}

func spawn(theirs *os.File) (*os.Process, error) {
	defer theirs.Close()
	null, err := os.OpenFile("/dev/null", os.O_RDWR, 0)
	if err != nil {
		return nil, fmt.Errorf("init's standard input: %w", err)
	}
	defer null.Close()
	p, err := os.StartProcess("/proc/self/exe", []string{nameSetup}, &os.ProcAttr{
		Env:   []string{},
		Files: []*os.File{null, null, os.Stderr, theirs},
		Sys:   &syscall.SysProcAttr{Cloneflags: namespaces, Pdeathsig: syscall.SIGKILL},
	})
	if errors.Is(err, syscall.ENOSPC) { // clone(2): which is no word about disks
		err = fmt.Errorf("%w: the node has no namespace left (sysctl user.max_net_namespaces, max_mnt_, max_pid_, max_ipc_, max_uts_)", err)
	}
	if err != nil {
		return nil, fmt.Errorf("start init in new namespaces: %w", err)
	}
	return p, nil
}

// await gives init its data and takes its descriptors.
func (s *Sandbox) await(given []*os.File) error {
	<-s.forked
	if s.failure != nil {
		return s.failure
	}
	// Init may have failed before; what it said then can still be read.
	unsent := send(s.line, message{Op: "setup"}, given...)
	if unsent != nil {
		s.Kill()
	}
	m, files, err := receive(s.line, make([]byte, maxMessage))
	switch {
	case err != nil:
		return s.gone(errors.Join(unsent, err))
	case m.Op == "failed":
		return errors.New(m.Error)
	case m.Op != "ready" || len(files) != len(m.Names):
		closeAll(files)
		return fmt.Errorf("init answered %q with %d descriptors for %d names", m.Op, len(files), len(m.Names))
	}
	s.Report, s.Files = m.Data, make(map[string]*os.File)
	for i, name := range m.Names {
		s.Files[name] = files[i]
	}
	return nil
}

// gone says how init ended, of which its life line only shows that it did. A kernel that
// kills it says nothing else.
func (s *Sandbox) gone(err error) error {
	select {
	case <-s.ended:
		return fmt.Errorf("init ended during its setup (%s): %w", s.end, err)
	case <-time.After(time.Second):
		return fmt.Errorf("init closed its life line during its setup: %w", err)
	}
}

// read passes init's messages to whoever waits for them.
func (s *Sandbox) read() {
	defer close(s.silent)
	buf := make([]byte, maxMessage)
	for {
		m, files, err := receive(s.line, buf)
		closeAll(files) // init passes none any more
		if err != nil {
			s.Kill() // init and daemon do not understand each other any more
			return
		}
		s.mu.Lock()
		ch := s.waiting[m.Session]
		s.mu.Unlock()
		if ch != nil {
			ch <- m // at most three messages a session, and the channel holds them
		}
	}
}

func (s *Sandbox) enter() (uint64, chan message) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.next++
	ch := make(chan message, 4)
	s.waiting[s.next] = ch
	return s.next, ch
}

func (s *Sandbox) leave(id uint64) {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.waiting, id)
}

// Spec is one program to run. Argv is passed byte for byte; Files are its standard
// input, output and error and stay the caller's.
type Spec struct {
	Argv  []string
	Env   []string
	As    confine.Plan
	Files [3]*os.File
	// Terminal says that Files are a terminal, which becomes the controlling one.
	Terminal bool
	// Builtin names a program of this binary to run in place of Argv: SFTPServer.
	Builtin string
}

// SFTPServer is the built-in server of the SSH file transfer protocol: package
// filetransfer.
const SFTPServer = "sftp-server"

// Session is one program in the sandbox, with its process group.
type Session struct {
	Applied landlock.Report // which files the program may use

	sandbox *Sandbox
	id      uint64
	pid     int
	events  chan message
}

// Program is what whoever asked for a session does with it.
type Program interface {
	Wait(ctx context.Context) (core.Exit, error)
	Signal(sig syscall.Signal) error
}

// Limit makes every program join the cgroup whose cgroup.procs this is. Init does not: it
// has to get its threads when the cgroup is full. Call it before Launch; the file stays
// the caller's.
func (s *Sandbox) Limit(procs *os.File) { s.limit = procs }

// launchTimeout bounds a stage: one that is stopped, on a kernel where another program
// of the same user can do that, must not hold its caller for ever.
const launchTimeout = 30 * time.Second

// Launch runs a program. It returns when the program is executed, or *LaunchError. When
// ctx ends before, the program is killed.
func (s *Sandbox) Launch(ctx context.Context, spec Spec) (*Session, error) {
	ctx, cancel := context.WithTimeoutCause(ctx, launchTimeout, fmt.Errorf("launch: the program was not executed within %s", launchTimeout))
	defer cancel()
	f, err := memoryFile(stage.Plan{Argv: stage.Bytes(spec.Argv), Env: stage.Bytes(spec.Env), Dir: spec.As.Dir, UID: spec.As.UID, GID: spec.As.GID, Groups: spec.As.Groups, Files: spec.As.Files, Workspace: spec.As.Workspace, Told: spec.As.Told, Terminal: spec.Terminal, Builtin: spec.Builtin, Limited: s.limit != nil})
	if err != nil {
		return nil, fmt.Errorf("launch: %w", err)
	}
	defer f.Close()
	id, events := s.enter()
	files := []*os.File{f, spec.Files[0], spec.Files[1], spec.Files[2]}
	if s.limit != nil {
		files = append(files, s.limit)
	}
	if err := send(s.line, message{Op: "launch", Session: id}, files...); err != nil {
		s.leave(id)
		return nil, fmt.Errorf("launch: %w", err)
	}
	select {
	case m := <-events:
		if m.Op == "started" {
			p := &Session{sandbox: s, id: id, pid: m.PID, events: events}
			if err := json.Unmarshal(m.Data, &p.Applied); err != nil {
				return nil, fmt.Errorf("launch: what was applied: %w", err)
			}
			return p, nil
		}
		s.leave(id)
		return nil, &LaunchError{Code: m.Code, Detail: m.Error}
	case <-s.silent:
		return nil, ErrEnded
	case <-ctx.Done():
		s.leave(id)
		// Init reads in order, so that it has forked the stage when it reads this.
		return nil, errors.Join(context.Cause(ctx), send(s.line, message{Op: "signal", Session: id, Signal: int(unix.SIGKILL)}))
	}
}

// PID is the program's pid as the workload sees it.
func (p *Session) PID() int { return p.pid }

// Wait returns how the program ended. What init said of that counts, whatever has ended since.
func (p *Session) Wait(ctx context.Context) (core.Exit, error) {
	var why error
	select {
	case m := <-p.events:
		return p.exited(m), nil
	case <-p.sandbox.silent:
		why = ErrEnded
	case <-ctx.Done():
		why = context.Cause(ctx)
	}
	select {
	case m := <-p.events:
		return p.exited(m), nil
	default:
		return core.Exit{}, why
	}
}

func (p *Session) exited(m message) core.Exit {
	p.sandbox.leave(p.id)
	return core.Exit{Code: m.Code, Signal: m.Signal}
}

// Forwarded are the signals that programs get from whoever started them: the workload from
// this daemon, and a session's program from the caller of exec.
func Forwarded() []os.Signal {
	return []os.Signal{
		syscall.SIGTERM, syscall.SIGINT, syscall.SIGHUP, syscall.SIGQUIT, syscall.SIGUSR1, syscall.SIGUSR2, syscall.SIGWINCH, syscall.SIGCONT,
	}
}

// Signal signals the program's process group. A program that has ended is no error.
func (p *Session) Signal(sig syscall.Signal) error {
	return send(p.sandbox.line, message{Op: "signal", Session: p.id, Signal: int(sig)})
}

// SignalAll signals every process of the sandbox but init.
func (s *Sandbox) SignalAll(sig syscall.Signal) error {
	return send(s.line, message{Op: "all", Signal: int(sig)})
}

// Query asks init; the answer is stored in out.
func (s *Sandbox) Query(ctx context.Context, name string, out any) error {
	id, events := s.enter()
	defer s.leave(id)
	if err := send(s.line, message{Op: "query", Session: id, Name: name}); err != nil {
		return err
	}
	select {
	case m := <-events:
		if m.Error != "" {
			return errors.New(m.Error)
		}
		return json.Unmarshal(m.Data, out)
	case <-s.silent:
		return ErrEnded
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

// PID is init's, as this daemon sees it.
func (s *Sandbox) PID() int { return s.init.Pid }

// Kill ends init; the kernel ends every other process of its pid namespace.
func (s *Sandbox) Kill() {
	<-s.forked
	if s.init != nil {
		_ = s.init.Kill()
	}
}

// End ends every process of the sandbox and waits until they are gone.
func (s *Sandbox) End() {
	s.Kill()
	select {
	case <-s.ended:
	case <-time.After(10 * time.Second): // a process in uninterruptible sleep
	}
	s.line.Close()
}

// Close is End, and closes Files, which nobody may use any more, least of all by number.
func (s *Sandbox) Close() {
	s.End()
	for _, f := range s.Files {
		f.Close()
	}
}
