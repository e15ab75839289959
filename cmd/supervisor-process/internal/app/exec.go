package app

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"os"
	"os/signal"
	"slices"
	"strings"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/splitpod/splitpod/api/supervisor/link"
	"github.com/splitpod/splitpod/cmd/supervisor-process/internal/config"
	"github.com/splitpod/splitpod/cmd/supervisor-process/internal/launch"
	"github.com/splitpod/splitpod/cmd/supervisor-process/internal/launch/stage"
	"github.com/splitpod/splitpod/pkg/core"
)

// execSocket is where `exec` finds the daemon. Only this daemon's own uid may
// connect, and the workload cannot see it.
const execSocket = "exec.sock"

// Limits of exec.
const (
	maxExecs    = 64       // at a time
	maxExecSpec = 16 << 20 // bytes of arguments; the kernel's own limit is lower

	refusalPatience = time.Second // for the request of a caller who is refused
)

// execRequest is what `exec` asks for, in a memory file beside its standard files.
type execRequest struct {
	Argv [][]byte `json:"argv"` // bytes, because JSON's strings are text
	// Terminal asks for one of the sandbox's own in place of the standard files.
	Terminal bool   `json:"terminal,omitempty"`
	Term     string `json:"term,omitempty"`
	Columns  int    `json:"columns,omitempty"`
	Rows     int    `json:"rows,omitempty"`
}

// execMessage goes both ways behind the request: the terminal's other end (as a
// descriptor beside it), signals and sizes to the program, and at last how it ended.
type execMessage struct {
	Master  bool   `json:"master,omitempty"`
	Columns int    `json:"columns,omitempty"`
	Rows    int    `json:"rows,omitempty"`
	Signal  int    `json:"signal,omitempty"`
	Done    bool   `json:"done,omitempty"`
	Code    int    `json:"code,omitempty"`
	Error   string `json:"error,omitempty"`
}

// serveExec accepts `exec` requests until the returned function is called.
func (d *daemon) serveExec(ctx context.Context) (stop func(), err error) {
	l, err := link.Listen(ctx, "unixpacket", d.cfg.RunDir, execSocket)
	if err != nil {
		return nil, err
	}
	ctx, cancel := context.WithCancel(ctx)
	var wg sync.WaitGroup
	slots := make(chan struct{}, maxExecs)
	wg.Go(func() {
		for {
			c, err := l.AcceptUnix()
			if errors.Is(err, net.ErrClosed) {
				return
			}
			if err != nil { // no descriptors, for instance, which will not last
				d.log.Warn("an exec request could not be accepted", slog.Any("error", err))
				select {
				case <-ctx.Done():
				case <-time.After(100 * time.Millisecond):
				}
				continue
			}
			select {
			case slots <- struct{}{}:
				wg.Go(func() {
					defer func() { <-slots }()
					d.exec(ctx, c)
				})
			default: // nobody waits for an end that may never come, without a word
				wg.Go(func() { d.refuseExec(c) })
			}
		}
	})
	return func() {
		cancel()
		l.Close()
		wg.Wait()
	}, nil
}

// refuseExec tells a caller that there are too many. The request is read first, because a
// socket that is closed with something unread loses what was written to it.
func (d *daemon) refuseExec(c *net.UnixConn) {
	defer c.Close()
	_ = c.SetDeadline(time.Now().Add(refusalPatience))
	if files, err := receiveFiles(c, 4); err == nil {
		closeFiles(files)
	}
	why := fmt.Sprintf("%d programs that exec started run already; end one, or the clients that left them behind", maxExecs)
	d.log.Warn("an exec request was refused", slog.String("reason", why))
	if text, err := json.Marshal(execMessage{Done: true, Code: exitFailed, Error: why}); err == nil {
		_, _ = c.Write(text)
	}
}

// exec runs one request.
func (d *daemon) exec(ctx context.Context, c *net.UnixConn) {
	defer c.Close()
	if err := link.CheckPeer(c, uint32(os.Geteuid())); err != nil { // while the end of the daemon does not close c
		d.Refused(err)
		return
	}
	stop := context.AfterFunc(ctx, func() { c.Close() })
	defer stop()
	code, err := d.execOne(ctx, c)
	end := execMessage{Done: true, Code: code}
	if err != nil {
		end.Error = err.Error()
	}
	if text, err := json.Marshal(end); err == nil {
		_, _ = c.Write(text)
	}
}

func (d *daemon) execOne(ctx context.Context, c *net.UnixConn) (code int, err error) {
	req, files, err := readExec(c)
	if err != nil {
		return exitUsage, err
	}
	argv := stage.Strings(req.Argv)
	spec := d.spec(argv, [3]*os.File(files))
	var terminal *launch.Terminal
	if req.Terminal {
		if terminal, err = d.execTerminal(c, req, &spec); err != nil {
			closeFiles(files)
			return exitFailed, err
		}
		defer terminal.Master.Close()
	}
	session, err := d.sandbox.Launch(ctx, spec)
	closeFiles(files)
	if terminal != nil {
		terminal.Slave.Close()
	}
	if e, ok := errors.AsType[*launch.LaunchError](err); ok {
		return e.Code, e
	}
	if err != nil {
		return exitFailed, err
	}
	d.workloadEvent(reasonLaunched, session.PID(), argv[0], core.Exit{})
	go d.passSignals(c, session, terminal)
	exit, err := session.Wait(ctx)
	if err != nil {
		return exitFailed, err
	}
	d.workloadEvent(reasonExited, session.PID(), argv[0], exit)
	return exit.Code, nil
}

func closeFiles(files []*os.File) {
	for _, f := range files {
		f.Close()
	}
}

// execTerminal opens a terminal for the program and gives its other end to the
// caller.
func (d *daemon) execTerminal(c *net.UnixConn, req execRequest, spec *launch.Spec) (*launch.Terminal, error) {
	t, err := launch.OpenTerminal(d.account.UID)
	if err != nil {
		return nil, err
	}
	_ = t.Resize(req.Columns, req.Rows)
	text, err := json.Marshal(execMessage{Master: true})
	if err == nil {
		err = sendFile(c, text, t.Master)
	}
	if err != nil {
		t.Master.Close()
		t.Slave.Close()
		return nil, fmt.Errorf("hand the terminal over: %w", err)
	}
	spec.Files, spec.Terminal = [3]*os.File{t.Slave, t.Slave, t.Slave}, true
	if req.Term != "" && len(req.Term) < 64 && !strings.ContainsRune(req.Term, 0) {
		spec.Env = append(slices.DeleteFunc(spec.Env, func(e string) bool { return strings.HasPrefix(e, "TERM=") }), "TERM="+req.Term)
	}
	return t, nil
}

func sendFile(c *net.UnixConn, text []byte, f *os.File) error {
	raw, err := f.SyscallConn()
	if err != nil {
		return err
	}
	var sendErr error
	err = raw.Control(func(fd uintptr) { _, _, sendErr = c.WriteMsgUnix(text, unix.UnixRights(int(fd)), nil) })
	return errors.Join(err, sendErr)
}

// readExec reads the request and the caller's standard files.
func readExec(c *net.UnixConn) (execRequest, []*os.File, error) {
	files, err := receiveFiles(c, 4)
	if err != nil {
		return execRequest{}, nil, err
	}
	defer files[0].Close()
	var req execRequest
	err = json.NewDecoder(io.LimitReader(io.NewSectionReader(files[0], 0, maxExecSpec), maxExecSpec)).Decode(&req)
	if err == nil && (len(req.Argv) == 0 || len(req.Argv[0]) == 0) {
		err = errors.New("the command is empty")
	}
	if err != nil {
		for _, f := range files[1:] {
			f.Close()
		}
		return execRequest{}, nil, fmt.Errorf("read the exec request: %w", err)
	}
	return req, files[1:], nil
}

// receiveFiles reads one datagram that carries exactly n descriptors.
func receiveFiles(c *net.UnixConn, n int) ([]*os.File, error) {
	oob := make([]byte, unix.CmsgSpace(4*n))
	_, oobn, flags, _, err := c.ReadMsgUnix(make([]byte, 64), oob)
	if err != nil {
		return nil, fmt.Errorf("read the exec request: %w", err)
	}
	files, err := passedFiles(oob[:oobn])
	if err != nil {
		return nil, err
	}
	if len(files) != n || flags&unix.MSG_CTRUNC != 0 {
		closeFiles(files)
		return nil, fmt.Errorf("read the exec request: %d descriptors instead of %d", len(files), n)
	}
	return files, nil
}

func passedFiles(oob []byte) (files []*os.File, err error) {
	msgs, err := unix.ParseSocketControlMessage(oob)
	if err != nil {
		return nil, fmt.Errorf("read passed descriptors: %w", err)
	}
	for i := range msgs {
		fds, err := unix.ParseUnixRights(&msgs[i])
		if err != nil {
			continue
		}
		for _, fd := range fds {
			unix.CloseOnExec(fd)
			files = append(files, os.NewFile(uintptr(fd), "passed"))
		}
	}
	return files, nil
}

// passSignals forwards the caller's signals; when the caller is gone, the program
// gets SIGHUP as from a terminal that closed.
func (d *daemon) passSignals(c *net.UnixConn, session *launch.Session, terminal *launch.Terminal) {
	buf := make([]byte, 256)
	for {
		n, err := c.Read(buf)
		if err != nil || n == 0 {
			_ = session.Signal(syscall.SIGHUP)
			return
		}
		var m execMessage
		switch err := json.Unmarshal(buf[:n], &m); {
		case err != nil:
		case m.Signal > 0 && m.Signal < 65:
			_ = session.Signal(syscall.Signal(m.Signal))
		case m.Columns > 0 && terminal != nil:
			_ = terminal.Resize(m.Columns, m.Rows)
		}
	}
}

// execCommand is the caller's side.
func execCommand(ctx context.Context, args []string, stderr io.Writer) int {
	cfg, argv, code := load("exec", args, stderr)
	if code != exitOK {
		return code
	}
	if len(argv) == 0 {
		fmt.Fprintf(stderr, "supervisor-process: exec needs a command: exec [flags] -- CMD [ARG...]\n")
		return exitUsage
	}
	c, err := link.Dial(ctx, "unixpacket", cfg.RunDir, execSocket)
	if err != nil {
		fmt.Fprintf(stderr, "supervisor-process: no workload runs here (%v)\n", err)
		return exitFailed
	}
	defer c.Close()
	if err := link.CheckPeer(c, uint32(os.Geteuid())); err != nil {
		fmt.Fprintf(stderr, "supervisor-process: %v\n", err)
		return exitFailed
	}
	code, err = askExec(c, argv, config.Term())
	if err != nil {
		fmt.Fprintf(stderr, "supervisor-process: %v\n", err)
	}
	return code
}

func askExec(c *net.UnixConn, argv []string, term string) (int, error) {
	req := execRequest{Argv: stage.Bytes(argv), Term: term}
	if size, err := unix.IoctlGetWinsize(0, unix.TIOCGWINSZ); err == nil {
		req.Terminal, req.Columns, req.Rows = true, int(size.Col), int(size.Row)
	}
	out, err := passableOutput(os.Stdout, os.Stderr)
	if err != nil {
		return exitFailed, err
	}
	defer out.show()
	err = sendExec(c, req, out.fds)
	out.sent()
	if err != nil {
		return exitFailed, err
	}
	if req.Terminal {
		restore, err := attachTerminal(c)
		if err != nil {
			return exitFailed, err
		}
		defer restore()
	}
	signals := make(chan os.Signal, 16)
	signal.Notify(signals, forwarded...)
	defer signal.Stop(signals)
	go func() {
		for sig := range signals {
			text, _ := json.Marshal(messageFor(sig.(syscall.Signal)))
			_, _ = c.Write(text)
		}
	}()
	buf := make([]byte, 16<<10)
	n, err := c.Read(buf)
	if err != nil || n == 0 {
		return exitFailed, errors.New("the sandbox ended")
	}
	var m execMessage
	if err := json.Unmarshal(buf[:n], &m); err != nil {
		return exitFailed, fmt.Errorf("read the answer: %w", err)
	}
	if m.Error != "" {
		return m.Code, errors.New(m.Error)
	}
	return m.Code, nil
}

// messageFor passes a signal on; a change of the window, as its new size.
func messageFor(sig syscall.Signal) execMessage {
	if sig == syscall.SIGWINCH {
		if size, err := unix.IoctlGetWinsize(0, unix.TIOCGWINSZ); err == nil {
			return execMessage{Columns: int(size.Col), Rows: int(size.Row)}
		}
	}
	return execMessage{Signal: int(sig)}
}

// attachTerminal takes the other end of the program's terminal and connects ours to
// it, in raw mode until restore is called, which first shows what is left.
func attachTerminal(c *net.UnixConn) (restore func(), err error) {
	buf := make([]byte, 4096)
	oob := make([]byte, unix.CmsgSpace(4))
	n, oobn, _, _, err := c.ReadMsgUnix(buf, oob)
	if err != nil || n == 0 {
		return nil, errors.New("the sandbox ended")
	}
	var m execMessage
	if err := json.Unmarshal(buf[:n], &m); err != nil {
		return nil, fmt.Errorf("read the answer: %w", err)
	}
	if m.Error != "" {
		return nil, errors.New(m.Error)
	}
	files, err := passedFiles(oob[:oobn])
	if err != nil || len(files) != 1 || !m.Master {
		closeFiles(files)
		return nil, errors.New("the sandbox passed no terminal")
	}
	restore, err = connectTerminal(files[0])
	if err != nil {
		closeFiles(files)
	}
	return restore, err
}

func sendExec(c *net.UnixConn, req execRequest, outputs []int) error {
	text, err := json.Marshal(req)
	if err != nil {
		return err
	}
	fd, err := unix.MemfdCreate("exec", unix.MFD_CLOEXEC)
	if err != nil {
		return os.NewSyscallError("memfd_create", err)
	}
	f := os.NewFile(uintptr(fd), "exec")
	defer f.Close()
	if _, err := f.Write(text); err != nil {
		return fmt.Errorf("send the exec request: %w", err)
	}
	if _, _, err := c.WriteMsgUnix([]byte("exec"), unix.UnixRights(append([]int{fd, 0}, outputs...)...), nil); err != nil {
		return fmt.Errorf("send the exec request: %w", err)
	}
	return nil
}
