package exec

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"os"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/splitpod/splitpod/api/supervisor/link"
	"github.com/splitpod/splitpod/cmd/supervisor-process/internal/launch"
	"github.com/splitpod/splitpod/cmd/supervisor-process/internal/launch/stage"
)

// Limits.
const (
	maxPrograms = 64       // at a time
	maxRequest  = 16 << 20 // bytes of a request; the kernel's own limit of arguments is lower

	refusalPatience = time.Second // for the request of a caller who is refused
)

// Request is one program to launch.
type Request struct {
	Argv     []string // not empty
	Environ  []string
	Terminal bool // Files are a terminal
	Files    [3]*os.File
}

// Server is what exec needs of the sandbox.
type Server struct {
	Admit        func(c net.Conn) error // of a new connection
	Launch       func(ctx context.Context, r Request) (launch.Program, error)
	OpenTerminal func() (*launch.Terminal, error)
	Log          *slog.Logger
}

// Run serves connections of l until ctx ends, closes l, and waits for those it serves.
func (s *Server) Run(ctx context.Context, l net.Listener) error {
	var wg sync.WaitGroup
	defer wg.Wait()
	slots := make(chan struct{}, maxPrograms)
	return link.Accept(ctx, l, s.Log, func(c *net.UnixConn) {
		select {
		case slots <- struct{}{}:
			wg.Go(func() {
				defer func() { <-slots }()
				s.serve(ctx, c)
			})
		default: // nobody waits for an end that may never come, without a word
			wg.Go(func() { s.refuse(c) })
		}
	})
}

// refuse tells a caller that there are too many. The request is read first, because a
// socket that is closed with something unread loses what was written to it.
func (s *Server) refuse(c *net.UnixConn) {
	defer c.Close()
	_ = c.SetReadDeadline(time.Now().Add(refusalPatience)) // the word comes behind it
	if files, err := receiveFiles(c, 4); err == nil {
		closeFiles(files)
	}
	why := fmt.Sprintf("%d programs that exec started run already; end one, or the clients that left them behind", maxPrograms)
	s.Log.Warn("an exec request was refused", slog.String("reason", why))
	tell(c, message{Done: true, Code: codeFailed, Error: why})
}

// serve runs one request.
func (s *Server) serve(ctx context.Context, c *net.UnixConn) {
	defer c.Close()
	if s.Admit(c) != nil { // while the end of the daemon does not close c
		return
	}
	stop := context.AfterFunc(ctx, func() { c.Close() })
	defer stop()
	end := message{Done: true}
	var err error
	if end.Code, err = s.program(ctx, c); err != nil {
		end.Error = err.Error()
	}
	tell(c, end)
}

func tell(c *net.UnixConn, m message) {
	if text, err := json.Marshal(m); err == nil {
		_, _ = c.Write(text)
	}
}

// program launches what is asked for and waits for its end.
func (s *Server) program(ctx context.Context, c *net.UnixConn) (code int, err error) {
	req, files, err := read(c)
	if err != nil {
		return codeUsage, err
	}
	r := Request{Argv: stage.Strings(req.Argv), Files: [3]*os.File(files)}
	var terminal *launch.Terminal
	if req.Terminal {
		if terminal, err = s.openTerminal(c, req, &r); err != nil {
			closeFiles(files)
			return codeFailed, err
		}
		defer terminal.Master.Close()
	}
	session, err := s.Launch(ctx, r)
	closeFiles(files)
	if terminal != nil {
		terminal.Slave.Close()
	}
	if e, ok := errors.AsType[*launch.LaunchError](err); ok {
		return e.Code, e
	}
	if err != nil {
		return codeFailed, err
	}
	go passSignals(c, session, terminal)
	exit, err := session.Wait(ctx)
	if err != nil {
		return codeFailed, err
	}
	return exit.Code, nil
}

// openTerminal opens a terminal for the program and gives its other end to the caller.
func (s *Server) openTerminal(c *net.UnixConn, req request, r *Request) (*launch.Terminal, error) {
	t, err := s.OpenTerminal()
	if err != nil {
		return nil, err
	}
	_ = t.Resize(req.Columns, req.Rows)
	text, err := json.Marshal(message{Master: true})
	if err == nil {
		err = sendFile(c, text, t.Master)
	}
	if err != nil {
		t.Master.Close()
		t.Slave.Close()
		return nil, fmt.Errorf("hand the terminal over: %w", err)
	}
	r.Files, r.Terminal = [3]*os.File{t.Slave, t.Slave, t.Slave}, true
	if req.Term != "" && len(req.Term) < 64 && !strings.ContainsRune(req.Term, 0) {
		r.Environ = []string{"TERM=" + req.Term}
	}
	return t, nil
}

// read reads the request and the caller's standard files.
func read(c *net.UnixConn) (request, []*os.File, error) {
	files, err := receiveFiles(c, 4)
	if err != nil {
		return request{}, nil, err
	}
	defer files[0].Close()
	var req request
	err = json.NewDecoder(io.NewSectionReader(files[0], 0, maxRequest)).Decode(&req)
	if err == nil && (len(req.Argv) == 0 || len(req.Argv[0]) == 0) {
		err = errors.New("the command is empty")
	}
	if err != nil {
		closeFiles(files[1:])
		return request{}, nil, fmt.Errorf("read the exec request: %w", err)
	}
	return req, files[1:], nil
}

// passSignals forwards the caller's signals; when the caller is gone, the program
// gets SIGHUP as from a terminal that closed.
func passSignals(c *net.UnixConn, session launch.Program, terminal *launch.Terminal) {
	buf := make([]byte, 256)
	for {
		n, err := c.Read(buf)
		if err != nil || n == 0 {
			_ = session.Signal(syscall.SIGHUP)
			return
		}
		var m message
		switch err := json.Unmarshal(buf[:n], &m); {
		case err != nil:
		case m.Signal > 0 && m.Signal < 65:
			_ = session.Signal(syscall.Signal(m.Signal))
		case m.Columns > 0 && terminal != nil:
			_ = terminal.Resize(m.Columns, m.Rows)
		}
	}
}
