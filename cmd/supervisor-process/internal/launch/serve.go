package launch

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/signal"
	"sync"
	"syscall"

	"golang.org/x/sys/unix"

	"github.com/splitpod/splitpod/cmd/supervisor-process/internal/launch/stage"
)

// server is init's second half: it forks sessions and reaps everybody.
type server struct {
	line  *net.UnixConn
	query func(string) (any, error)

	sendMu sync.Mutex

	mu       sync.Mutex
	sessions map[uint64]int                  // guarded by mu; session → pid
	waiters  map[int]chan syscall.WaitStatus // guarded by mu; pid → who wants its status
}

// serve is the second half of init. It returns when the daemon is gone.
func (i Init) serve() error {
	if os.Getpid() != 1 {
		return errors.New("this is started by supervisor-process only")
	}
	_ = os.WriteFile("/proc/self/comm", []byte(nameServe), 0) // cosmetic
	if err := unix.Prctl(unix.PR_SET_DUMPABLE, 0, 0, 0, 0); err != nil {
		return os.NewSyscallError("prctl(PR_SET_DUMPABLE)", err)
	}
	if err := unix.Prctl(unix.PR_SET_PDEATHSIG, uintptr(unix.SIGKILL), 0, 0, 0); err != nil {
		return os.NewSyscallError("prctl(PR_SET_PDEATHSIG)", err)
	}
	unix.CloseOnExec(lifeLine)
	line, err := connect(lifeLine)
	if err != nil {
		return err
	}
	s := &server{line: line, query: i.Query, sessions: make(map[uint64]int), waiters: make(map[int]chan syscall.WaitStatus)}
	children := make(chan os.Signal, 1)
	signal.Notify(children, unix.SIGCHLD)
	go func() {
		for range children {
			s.reap()
		}
	}()
	return s.loop()
}

func (s *server) loop() error {
	buf := make([]byte, maxMessage)
	for {
		m, files, err := receive(s.line, buf)
		if errors.Is(err, net.ErrClosed) || errors.Is(err, io.EOF) {
			return nil
		}
		if err == nil {
			err = s.handle(m, files)
		}
		closeAll(files)
		if err != nil {
			return err // a daemon that talks nonsense ends the sandbox
		}
	}
}

func (s *server) handle(m message, files []*os.File) error {
	switch m.Op {
	case "launch":
		if len(files) != 4 && len(files) != 5 {
			return fmt.Errorf("launch with %d descriptors", len(files))
		}
		return s.launch(m.Session, files)
	case "signal":
		s.mu.Lock()
		defer s.mu.Unlock()
		if pid, ok := s.sessions[m.Session]; ok {
			_ = unix.Kill(-pid, syscall.Signal(m.Signal)) // gone already is fine
		}
		return nil
	case "all":
		_ = unix.Kill(-1, syscall.Signal(m.Signal)) // everybody in this namespace but init
		return nil
	case "query":
		return s.answer(m)
	default:
		return fmt.Errorf("unknown message %q", m.Op)
	}
}

func (s *server) answer(m message) error {
	reply := message{Op: "answer", Session: m.Session}
	data, err := s.query(m.Name)
	if err == nil {
		reply.Data, err = json.Marshal(data)
	}
	if err != nil {
		reply.Error = err.Error()
	}
	return s.send(reply)
}

func (s *server) send(m message) error {
	s.sendMu.Lock()
	defer s.sendMu.Unlock()
	return send(s.line, m)
}

// launch forks a stage. Its process group is its own, so that a session is
// signalled as a whole.
func (s *server) launch(session uint64, files []*os.File) error {
	read, write, err := os.Pipe()
	if err != nil { // no memory or descriptors: this program has to wait, the others live on
		return s.send(message{Op: "refused", Session: session, Error: "error pipe: " + err.Error() + "; try again", Code: stage.CodeConfine})
	}
	defer write.Close()
	fds := make([]uintptr, 0, 6)
	for _, f := range append([]*os.File{files[1], files[2], files[3], files[0], write}, files[4:]...) {
		n, err := number(f)
		if err != nil {
			return err
		}
		fds = append(fds, uintptr(n))
	}
	status := make(chan syscall.WaitStatus, 1)
	// The lock is held over fork and registration, so that the reaper cannot see
	// the child before it is known.
	s.mu.Lock()
	pid, err := syscall.ForkExec("/proc/self/exe", []string{stage.Name}, &syscall.ProcAttr{
		Dir: "/", Env: []string{}, Files: fds, Sys: &syscall.SysProcAttr{Setsid: true},
	})
	if err == nil {
		s.sessions[session] = pid
		s.waiters[pid] = status
	}
	s.mu.Unlock()
	if err != nil {
		read.Close()
		return s.send(message{Op: "refused", Session: session, Error: "fork: " + err.Error() + "; the container has no room for another process: end some, or raise its limits", Code: stage.CodeConfine})
	}
	go s.follow(session, pid, read, status)
	return nil
}

// follow reports what becomes of one session.
func (s *server) follow(session uint64, pid int, failures *os.File, status <-chan syscall.WaitStatus) {
	applied, f := hear(failures)
	failures.Close()
	if f.Error == "" {
		_ = s.send(message{Op: "started", Session: session, PID: pid, Data: applied})
	}
	ws := <-status
	s.mu.Lock()
	delete(s.sessions, session)
	s.mu.Unlock()
	if f.Error == silent {
		f.Error += how(ws)
	}
	if f.Error != "" {
		_ = s.send(message{Op: "refused", Session: session, Error: f.Error, Code: f.Code})
		return
	}
	exit := message{Op: "exited", Session: session, Code: ws.ExitStatus()}
	if ws.Signaled() {
		exit.Signal = int(ws.Signal())
		exit.Code = 128 + exit.Signal
	}
	_ = s.send(exit)
}

// silent is what is said of a stage that said nothing.
const silent = "the stage ended without a word"

// how is what usually ends one.
func how(ws syscall.WaitStatus) string {
	if ws.Signaled() {
		return fmt.Sprintf(", by signal %d (%v); the container may have no memory left", int(ws.Signal()), ws.Signal())
	}
	return fmt.Sprintf(", with code %d; the container or --pids may have no room for its threads", ws.ExitStatus())
}

// hear reads what a stage says until it has become the program, which closes its
// pipe.
func hear(pipe io.Reader) (applied json.RawMessage, last stage.Word) {
	d := json.NewDecoder(io.LimitReader(pipe, maxMessage/2))
	for {
		var w stage.Word
		switch err := d.Decode(&w); {
		case errors.Is(err, io.EOF) && applied == nil && last.Error == "":
			return nil, stage.Word{Error: silent, Code: stage.CodeConfine}
		case errors.Is(err, io.EOF):
			return applied, last
		case err != nil:
			return nil, stage.Word{Error: "the stage's words cannot be read: " + err.Error(), Code: stage.CodeConfine}
		}
		if w.Applied != nil {
			applied, _ = json.Marshal(w.Applied) // it came from JSON
		}
		last = w
	}
}

// reap collects every child that has ended: sessions and orphans alike.
func (s *server) reap() {
	for {
		var ws syscall.WaitStatus
		s.mu.Lock()
		pid, err := syscall.Wait4(-1, &ws, syscall.WNOHANG, nil)
		if ch, ok := s.waiters[pid]; ok && err == nil && pid > 0 {
			delete(s.waiters, pid)
			ch <- ws
		}
		s.mu.Unlock()
		if err == syscall.EINTR {
			continue
		}
		if err != nil || pid <= 0 {
			return
		}
	}
}
