// Package admin is how a person in this container talks to the running daemon: one
// question and one answer on a Unix socket in the state directory.
//
// It answers the threat of a workload that decides about itself: the socket is in a
// directory that only this container has, its mode and the directory's are for the
// daemon's own user, and the kernel's word about the other end is checked on both
// sides. There is no other way to a decision but the page's, for who shows the admin
// token, where there is one. It does not answer another program of the same user in
// this container.
//
// Invariant: a question is read whole, within limits, before anything is done; an
// answer is a result or an error, never both.
package admin

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"sync"
	"time"

	"github.com/splitpod/splitpod/api/supervisor/link"
)

// Socket is the socket's name in the state directory.
const Socket = "admin.sock"

// Limits of one exchange.
const (
	MaxQuestion = 64 << 10
	MaxAnswer   = 32 << 20
	Timeout     = 30 * time.Second
	maxAtOnce   = 8
)

// Question is what is asked. Which fields count depends on the command.
type Question struct {
	Command string `json:"command"`
	ID      string `json:"id,omitempty"`
	Hash    string `json:"hash,omitempty"`
	Reason  string `json:"reason,omitempty"`
	By      uint32 `json:"-"` // uid of who asks, from the kernel
}

// Handler answers the questions of one command. The result becomes JSON.
type Handler func(context.Context, Question) (any, error)

// answer is what goes back.
type answer struct {
	Error  string          `json:"error,omitempty"`
	Result json.RawMessage `json:"result,omitempty"`
}

// Listen opens the socket, in the place of one that an earlier instance left.
func Listen(ctx context.Context, dir string) (*net.UnixListener, error) {
	path := filepath.Join(dir, Socket)
	if err := os.Remove(path); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("remove the stale admin socket: %w", err)
	}
	var lc net.ListenConfig
	l, err := lc.Listen(ctx, "unix", path)
	if err != nil {
		return nil, fmt.Errorf("open the admin socket: %w", err)
	}
	if err := os.Chmod(path, 0o600); err != nil {
		l.Close()
		return nil, fmt.Errorf("open the admin socket: %w", err)
	}
	return l.(*net.UnixListener), nil
}

// Server answers on a socket.
type Server struct {
	UID      uint32 // the only user that may ask
	Handlers map[string]Handler
	Log      *slog.Logger
	// Refused is told of who came as another user; nil: nobody is.
	Refused func(error)
}

// Run answers until ctx ends, and closes l.
func (s *Server) Run(ctx context.Context, l *net.UnixListener) error {
	places := make(chan struct{}, maxAtOnce)
	var wg sync.WaitGroup
	defer wg.Wait()
	return link.Accept(ctx, l, s.Log, func(c *net.UnixConn) {
		select {
		case places <- struct{}{}:
		default:
			c.Close()
			return
		}
		wg.Go(func() {
			defer func() { <-places }()
			defer c.Close()
			s.serve(ctx, c)
		})
	})
}

func (s *Server) serve(ctx context.Context, c *net.UnixConn) {
	ctx, cancel := context.WithTimeout(ctx, Timeout)
	defer cancel()
	defer context.AfterFunc(ctx, func() { c.Close() })()
	if err := link.CheckPeer(c, s.UID); err != nil {
		s.Log.Warn("somebody else was refused on the admin socket", slog.Any("error", err))
		if s.Refused != nil {
			s.Refused(err)
		}
		return
	}
	var out answer
	result, err := s.answer(ctx, c)
	if err == nil {
		out.Result, err = json.Marshal(result)
	}
	if err != nil {
		out = answer{Error: err.Error()}
	}
	data, err := json.Marshal(out)
	if err != nil {
		return
	}
	if _, err := c.Write(data); err != nil {
		s.Log.Debug("an answer on the admin socket was not taken", slog.Any("error", err))
	}
}

func (s *Server) answer(ctx context.Context, r io.Reader) (any, error) {
	var q Question
	if err := readJSON(r, MaxQuestion, &q); err != nil {
		return nil, fmt.Errorf("the question cannot be read: %w", err)
	}
	h, ok := s.Handlers[q.Command]
	if !ok {
		return nil, fmt.Errorf("this daemon does not know the command %q; it may be of another version", q.Command)
	}
	q.By = s.UID
	return h(ctx, q)
}

// readJSON reads everything up to the end: one value.
func readJSON(r io.Reader, limit int64, to any) error {
	data, err := io.ReadAll(io.LimitReader(r, limit+1))
	switch {
	case err != nil:
		return err
	case int64(len(data)) > limit:
		return fmt.Errorf("it is longer than %d bytes", limit)
	}
	return json.Unmarshal(data, to)
}

// Ask sends a question to the daemon whose state directory is dir, and reads the
// result into to.
func Ask(ctx context.Context, dir string, q Question, to any) error {
	ctx, cancel := context.WithTimeout(ctx, Timeout)
	defer cancel()
	c, err := link.Dial(ctx, "unix", dir, Socket)
	if err != nil {
		if e, ok := errors.AsType[*net.OpError](err); ok {
			err = e.Err
		}
		return fmt.Errorf("no daemon answers on %s: %w (this is for the container and the user of a running daemon; --state-dir names another one)", filepath.Join(dir, Socket), err)
	}
	defer c.Close()
	defer context.AfterFunc(ctx, func() { c.Close() })()
	if err := link.CheckPeer(c, uint32(os.Geteuid())); err != nil {
		return err
	}
	data, err := json.Marshal(q)
	if err != nil {
		return err
	}
	if _, err := c.Write(data); err != nil {
		return fmt.Errorf("ask the daemon: %w", err)
	}
	if err := c.CloseWrite(); err != nil {
		return fmt.Errorf("ask the daemon: %w", err)
	}
	var out answer
	switch err := readJSON(c, MaxAnswer, &out); {
	case err != nil:
		return fmt.Errorf("the daemon's answer cannot be read: %w", err)
	case out.Error != "":
		return errors.New(out.Error)
	}
	return json.Unmarshal(out.Result, to)
}
