package link

import (
	"context"
	"errors"
	"log/slog"
	"net"
	"testing"
	"time"
)

// mends is the log of a listener that cannot accept until that is logged.
type mends struct{ l *net.UnixListener }

func (m mends) Write(p []byte) (int, error) { return len(p), m.l.SetDeadline(time.Time{}) }

func TestAcceptGoesOnBehindWhatPasses(t *testing.T) {
	dir := t.TempDir()
	l, err := net.ListenUnix("unix", &net.UnixAddr{Name: dir + "/x.sock", Net: "unix"})
	if err != nil {
		t.Fatal(err)
	}
	if err := l.SetDeadline(time.Now()); err != nil { // stands for a want of descriptors
		t.Fatal(err)
	}
	c, err := Dial(t.Context(), "unix", dir, "x.sock")
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	ctx, cancel := context.WithCancel(t.Context())
	served := 0
	err = Accept(ctx, l, slog.New(slog.NewTextHandler(mends{l}, nil)), func(c *net.UnixConn) {
		served++
		c.Close()
		cancel()
	})
	if err != nil || served != 1 {
		t.Errorf("served %d, error %v", served, err)
	}
	if _, err := l.Accept(); !errors.Is(err, net.ErrClosed) {
		t.Errorf("the listener is still open: %v", err)
	}
}

func TestAcceptReportsAListenerThatIsGone(t *testing.T) {
	l, err := Listen("unix", t.TempDir(), "x.sock", quiet)
	if err != nil {
		t.Fatal(err)
	}
	l.Close()
	err = Accept(t.Context(), l, quiet, func(*net.UnixConn) { t.Error("served") })
	if !errors.Is(err, net.ErrClosed) {
		t.Errorf("got %v", err)
	}
}
