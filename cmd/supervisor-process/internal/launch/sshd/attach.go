package sshd

import (
	"context"
	"errors"
	"fmt"
	"slices"

	"github.com/gliderlabs/ssh"

	"github.com/splitpod/splitpod/cmd/supervisor-process/internal/launch/console"
)

// The subsystem that attaches to the main program, and its name in OpenShell, whose
// clients find it too.
const (
	subsystemMain    = "splitpod-main"
	subsystemMainOld = "openshell-main"
)

// readOnly are the variables with which a client asks to look only.
var readOnly = []string{"SPLITPOD_MAIN_READ_ONLY=1", "OPENSHELL_MAIN_READ_ONLY=1"}

// attach shows the main program to a client, which may type if nobody else does.
func (s *Server) attach(c ssh.Session) {
	s.telling.RLock()
	defer s.telling.RUnlock()
	ctx, cancel := context.WithCancel(c.Context())
	defer cancel()
	v := console.Viewer{In: c, Out: c, Errors: c.Stderr()}
	pty, _, terminal := c.Pty()
	if terminal {
		v.Detach = true
		v.Resizes = sizes(ctx, pty.Window, asideOf(c).windows)
	}
	var lease *console.Lease
	if !slices.ContainsFunc(readOnly, func(r string) bool { return slices.Contains(c.Environ(), r) }) {
		if lease = s.cfg.Main.Lease(); lease == nil {
			fmt.Fprint(c.Stderr(), "splitpod: somebody else types already; this view is read-only\r\n")
		}
	}
	if lease != nil {
		go forwardSignals(ctx, asideOf(c).signals, s.cfg.SignalMain)
	}
	exit, err := s.cfg.Main.Attach(ctx, v, lease)
	switch {
	case err == nil:
		end(c, exit)
	case errors.Is(err, console.ErrDetached):
		_ = c.Exit(0)
	default:
		fmt.Fprintf(c.Stderr(), "splitpod: %v\r\n", err)
		_ = c.Exit(1)
	}
}

// sizes passes the newest window on until ctx ends.
func sizes(ctx context.Context, first ssh.Window, more <-chan ssh.Window) <-chan console.Size {
	out := make(chan console.Size)
	go func() {
		newest, to := first, out
		for {
			select {
			case <-ctx.Done():
				return
			case to <- console.Size{Columns: newest.Width, Rows: newest.Height}:
				to = nil
			case w := <-more:
				newest, to = w, out
			}
		}
	}()
	return out
}
