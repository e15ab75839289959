package sshd

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
	"syscall"
	"time"

	"github.com/gliderlabs/ssh"
	gossh "golang.org/x/crypto/ssh"

	"github.com/splitpod/splitpod/cmd/supervisor-process/internal/launch"
	"github.com/splitpod/splitpod/pkg/core"
)

// session runs one shell, command or subsystem to its end.
func (s *Server) session(c ssh.Session) {
	r := Request{Command: c.RawCommand(), SFTP: c.Subsystem() == "sftp", Environ: accepted(c.Environ())}
	pty, _, terminal := c.Pty()
	var f *files
	var err error
	if r.Terminal = terminal && !r.SFTP; r.Terminal {
		r.Environ = append(r.Environ, "TERM="+termOf(pty.Term))
		f, err = s.terminal(c.Context(), pty.Window, asideOf(c).windows)
	} else {
		f, err = pipes()
	}
	if err != nil {
		s.refuse(c, err)
		return
	}
	defer f.close()
	r.Files = f.theirs
	session, err := s.cfg.Launch(c.Context(), r)
	f.launched()
	if err != nil {
		s.refuse(c, err)
		return
	}
	s.accompany(c, session, f)
}

// refuse tells the client why nothing was executed.
func (s *Server) refuse(c ssh.Session, err error) {
	code := 1
	if e, ok := errors.AsType[*launch.LaunchError](err); ok {
		code = e.Code
	}
	fmt.Fprintf(c.Stderr(), "splitpod: %v\r\n", err)
	_ = c.Exit(code)
}

// accompany copies, forwards signals, and reports the end.
func (s *Server) accompany(c ssh.Session, session launch.Program, f *files) {
	ctx, cancel := context.WithCancel(context.WithoutCancel(c.Context()))
	defer cancel()
	hangUp := context.AfterFunc(c.Context(), func() {
		_ = session.Signal(syscall.SIGHUP)
		_ = session.Signal(syscall.SIGCONT)
		time.AfterFunc(killAfter, func() { _ = session.Signal(syscall.SIGKILL) })
	})
	defer hangUp()
	go forwardSignals(ctx, asideOf(c).signals, session.Signal)
	go func() {
		_, _ = io.Copy(f.in, c)
		f.endOfInput()
	}()
	var out launch.Output
	out.Copy(c, f.out)
	if f.err != nil {
		out.Copy(c.Stderr(), f.err)
	}
	exit, err := session.Wait(ctx)
	if err != nil {
		s.refuse(c, err)
		return
	}
	out.Rest(s.drain)
	end(c, exit)
}

func forwardSignals(ctx context.Context, names <-chan ssh.Signal, send func(syscall.Signal) error) {
	for {
		select {
		case <-ctx.Done():
			return
		case name := <-names:
			if sig, ok := numbers[name]; ok {
				_ = send(sig)
			}
		}
	}
}

// end sends the exit status or signal.
func end(c ssh.Session, exit core.Exit) {
	if exit.Signal == 0 {
		_ = c.Exit(exit.Code)
		return
	}
	name := "KILL"
	for n, number := range numbers {
		if int(number) == exit.Signal {
			name = string(n)
		}
	}
	message := struct {
		Signal   string
		Core     bool
		Message  string
		Language string
	}{name, false, fmt.Sprintf("killed by signal %d", exit.Signal), ""}
	_, _ = c.SendRequest("exit-signal", false, gossh.Marshal(message))
	_ = c.Close()
}

// numbers are the signals SSH has names for.
var numbers = map[ssh.Signal]syscall.Signal{
	ssh.SIGABRT: syscall.SIGABRT, ssh.SIGALRM: syscall.SIGALRM, ssh.SIGFPE: syscall.SIGFPE, ssh.SIGHUP: syscall.SIGHUP,
	ssh.SIGILL: syscall.SIGILL, ssh.SIGINT: syscall.SIGINT, ssh.SIGKILL: syscall.SIGKILL, ssh.SIGPIPE: syscall.SIGPIPE,
	ssh.SIGQUIT: syscall.SIGQUIT, ssh.SIGSEGV: syscall.SIGSEGV, ssh.SIGTERM: syscall.SIGTERM, ssh.SIGUSR1: syscall.SIGUSR1, ssh.SIGUSR2: syscall.SIGUSR2,
}

func termOf(name string) string {
	if name == "" || len(name) > 64 || strings.Trim(name, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789.+-_") != "" {
		return "xterm-256color"
	}
	return name
}

// files are the two ends of a session's input and output.
type files struct {
	theirs   [3]*os.File
	in       io.Writer
	out, err *os.File // err is nil with a terminal
	closers  []*os.File
	eof      func()
}

func (f *files) launched() {
	for _, t := range f.theirs {
		t.Close()
	}
}

func (f *files) close() {
	f.launched()
	for _, c := range f.closers {
		c.Close()
	}
}

func (f *files) endOfInput() { f.eof() }

// terminal opens one and follows the client's window until ctx ends.
func (s *Server) terminal(ctx context.Context, first ssh.Window, more <-chan ssh.Window) (*files, error) {
	t, err := s.cfg.OpenTerminal()
	if err != nil {
		return nil, err
	}
	_ = t.Resize(first.Width, first.Height)
	go func() {
		for {
			select {
			case <-ctx.Done():
				return
			case w := <-more:
				_ = t.Resize(w.Width, w.Height)
			}
		}
	}()
	const endOfFile = 4 // what a terminal's line discipline takes for it
	return &files{
		theirs: [3]*os.File{t.Slave, t.Slave, t.Slave}, in: t.Master, out: t.Master, closers: []*os.File{t.Master},
		eof: func() { _, _ = t.Master.Write([]byte{endOfFile}) },
	}, nil
}

// pipes makes three, whose far ends block as programs expect.
func pipes() (*files, error) {
	f := &files{}
	for i := range 3 {
		r, w, err := os.Pipe()
		if err != nil {
			f.close()
			return nil, fmt.Errorf("make pipes: %w", err)
		}
		ours, theirs := r, w
		if i == 0 {
			ours, theirs = w, r
		}
		_ = theirs.Fd()
		f.theirs[i] = theirs
		f.closers = append(f.closers, ours)
	}
	f.in, f.out, f.err = f.closers[0], f.closers[1], f.closers[2]
	f.eof = func() { f.closers[0].Close() }
	return f, nil
}
