package sshd

import (
	"context"
	"io"
	"os"
	"syscall"
	"testing"
	"time"

	"github.com/splitpod/splitpod/cmd/supervisor-process/internal/launch"
	"github.com/splitpod/splitpod/pkg/core"
)

// writer is a program that has written and ended.
type writer struct{ wrote chan struct{} }

func (w writer) Wait(context.Context) (core.Exit, error) { <-w.wrote; return core.Exit{}, nil }
func (writer) Signal(syscall.Signal) error               { return nil }
func (w writer) launch(r Request, size int) error {
	fd, err := syscall.Dup(int(r.Files[1].Fd()))
	if err != nil {
		return err
	}
	f := os.NewFile(uintptr(fd), "output")
	go func() {
		defer close(w.wrote)
		defer f.Close()
		_, _ = f.Write(make([]byte, size))
	}()
	return nil
}

// TestASlowClientGetsAllOutput: SSH lets 2 MiB go unread; what is behind them is still
// here when the program has ended, and stays.
func TestASlowClientGetsAllOutput(t *testing.T) {
	const size = 2<<20 + 64<<10
	w := writer{make(chan struct{})}
	s, _ := testServer(t, func(c *Config) {
		c.Launch = func(_ context.Context, r Request) (launch.Program, error) { return w, w.launch(r, size) }
	})
	s.drain = 20 * time.Millisecond
	client := mustDial(t, s)
	session, err := client.NewSession()
	if err != nil {
		t.Fatal(err)
	}
	out, err := session.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := session.Start("x"); err != nil {
		t.Fatal(err)
	}
	<-w.wrote
	for ended := time.Now(); time.Since(ended) < 5*s.drain; { // the client is busy elsewhere
		if _, _, err := client.SendRequest("keepalive@openssh.com", true, nil); err != nil {
			t.Fatal(err)
		}
	}
	if n, err := io.Copy(io.Discard, out); err != nil || n != size {
		t.Errorf("%d bytes of %d arrived (%v)", n, size, err)
	}
	if err := session.Wait(); err != nil {
		t.Error(err)
	}
}
