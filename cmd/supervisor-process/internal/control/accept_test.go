package control

import (
	"context"
	"log/slog"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/splitpod/splitpod/api/supervisor/link"
	"github.com/splitpod/splitpod/pkg/core"
	"github.com/splitpod/splitpod/test/need"
)

// told is where a log goes of which a test waits for one line.
type told chan struct{}

func (t told) Write(p []byte) (int, error) {
	select {
	case t <- struct{}{}:
	default:
	}
	return len(p), nil
}

// TestHandOversGoOnWhenDescriptorsCome: without any for a moment, nobody is served, and
// afterwards everybody.
func TestHandOversGoOnWhenDescriptorsCome(t *testing.T) {
	dir, log := t.TempDir(), make(told, 1)
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	l, err := Open(Options{RunDir: dir, PeerUID: ownUID, Instance: core.NewInstanceID(),
		Log: slog.New(slog.NewTextHandler(log, nil)), Handler: &handler{refused: make(chan error, 1)}})
	if err != nil {
		t.Fatal(err)
	}
	fd, err := unix.Socket(unix.AF_UNIX, unix.SOCK_SEQPACKET|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(fd)
	ended := make(chan error, 1)
	go func() { ended <- l.serveHandover(ctx) }()

	restore := need.NoDescriptors(t)
	connectErr := unix.Connect(fd, &unix.SockaddrUnix{Name: dir + "/" + link.HandoverSocket})
	select {
	case <-log:
	case err = <-ended:
	}
	restore()
	if connectErr != nil || err != nil {
		t.Fatalf("connect: %v; hand-overs ended: %v", connectErr, err)
	}
	if _, err := unix.Write(fd, []byte("nonsense")); err != nil {
		t.Fatal(err)
	}
	if n, err := unix.Read(fd, make([]byte, 1024)); err != nil {
		t.Errorf("%d bytes, %v", n, err)
	}
	cancel()
	if err := <-ended; err != nil {
		t.Error(err)
	}
}
