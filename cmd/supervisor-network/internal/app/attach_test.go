package app

import (
	"context"
	"errors"
	"net"
	"os"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/splitpod/splitpod/api/supervisor/link"
	"github.com/splitpod/splitpod/cmd/supervisor-network/internal/control"
	"github.com/splitpod/splitpod/pkg/core"
)

// TestListenersAreTakenOverUntilTheyServe: the first time there are none, the second time
// nothing can be accepted on them. Until it works readiness says why it does not.
func TestListenersAreTakenOverUntilTheyServe(t *testing.T) {
	d, dir := viewed(t), t.TempDir()
	d.hub = control.New(control.Options{RunDir: dir, PeerUID: uint32(os.Geteuid()), Instance: d.instance, Handler: d, Log: d.log})
	socket, err := d.hub.Listen()
	if err != nil {
		t.Fatal(err)
	}
	defer socket.Close()
	handover, err := link.Listen("unixpacket", dir, link.HandoverSocket, d.log)
	if err != nil {
		t.Fatal(err)
	}
	process := core.Peer{Instance: core.NewInstanceID(), Mode: core.ModeSandbox}
	files := []*os.File{listening(t), listening(t)}
	if err := unix.Shutdown(int(files[0].Fd()), unix.SHUT_RDWR); err != nil { // accept fails for good
		t.Fatal(err)
	}
	said := make(chan string, len(files)+1)
	give := func(core.InstanceID) ([]link.Descriptor, error) {
		for _, c := range d.checks() {
			if c.Name == "listeners" {
				said <- c.Detail
			}
		}
		if len(said) == 1 {
			return nil, errors.New("not yet")
		}
		return []link.Descriptor{{Name: "proxy4", File: files[len(said)-2]}}, nil
	}
	ctx, cancel := context.WithCancel(t.Context())
	var wg sync.WaitGroup
	defer wg.Wait()
	defer cancel()
	wg.Go(func() {
		_ = link.Accept(ctx, handover, d.log, func(c *net.UnixConn) { _ = link.ServeListener(c, uint32(os.Geteuid()), process.Instance, give) })
	})
	d.Attached(ctx, process)
	wg.Go(func() { d.takeOver(ctx, process.Instance) })
	for len(said) < cap(said) || !d.attach.state().serving {
		time.Sleep(time.Millisecond)
	}
	for _, want := range []string{"workload is preparing", "not yet", "invalid argument"} {
		if got := <-said; !strings.HasSuffix(got, want) {
			t.Errorf("listeners: %q, want %q", got, want)
		}
	}
}

// listening is a listener of the workload's.
func listening(t *testing.T) *os.File {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	f, err := l.(*net.TCPListener).File()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { f.Close() })
	return f
}
