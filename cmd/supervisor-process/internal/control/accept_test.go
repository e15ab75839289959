package control

import (
	"context"
	"log/slog"
	"os"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/splitpod/splitpod/api/supervisor/link"
	"github.com/splitpod/splitpod/pkg/core"
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

	restore := noDescriptors(t)
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

// noDescriptors lets this process have no more than it has, until restore is called.
func noDescriptors(t *testing.T) (restore func()) {
	t.Helper()
	next, err := os.Open("/dev/null") // it gets the lowest number that is free
	if err != nil {
		t.Fatal(err)
	}
	number := next.Fd()
	next.Close()
	var old unix.Rlimit
	if err := unix.Getrlimit(unix.RLIMIT_NOFILE, &old); err != nil {
		t.Fatal(err)
	}
	if err := unix.Setrlimit(unix.RLIMIT_NOFILE, &unix.Rlimit{Cur: uint64(number), Max: old.Max}); err != nil {
		t.Fatal(err)
	}
	return func() {
		if err := unix.Setrlimit(unix.RLIMIT_NOFILE, &old); err != nil {
			t.Error(err)
		}
	}
}
