package link

import (
	"errors"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

var quiet = slog.New(slog.DiscardHandler)

// opened is a Listener in a run directory of its own.
func opened(t *testing.T, network string) (l *Listener, dir string) {
	t.Helper()
	dir = filepath.Join(t.TempDir(), "run")
	if err := os.Mkdir(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	l, err := Listen(network, dir, "x.sock", quiet)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	return l, dir
}

// TestARemovedSocketIsOpenedAgain, whether only it is gone or the whole directory for a
// while, and until then it is not said to be reachable.
func TestARemovedSocketIsOpenedAgain(t *testing.T) {
	for _, network := range []string{"unix", "unixpacket"} {
		for what, remove := range map[string]func(dir string) error{
			"the socket":    func(dir string) error { return os.Remove(dir + "/x.sock") },
			"the directory": os.RemoveAll,
		} {
			t.Run(network+" "+what, func(t *testing.T) {
				l, dir := opened(t, network)
				if err := errors.Join(l.Reachable(), remove(dir)); err != nil {
					t.Fatal(err)
				}
				if err := l.Reachable(); err == nil || !strings.Contains(err.Error(), "is opened again") {
					t.Errorf("without it: %v", err)
				}
				l.stay() // as Accept does when nobody connects
				if what == "the directory" {
					if l.Reachable() == nil {
						t.Error("reachable in a directory that is not there")
					}
					if err := os.Mkdir(dir, 0o755); err != nil {
						t.Fatal(err)
					}
					l.stay()
				}
				if err := l.Reachable(); err != nil {
					t.Errorf("afterwards: %v", err)
				}
				c, err := Dial(t.Context(), network, dir, "x.sock")
				if err != nil {
					t.Fatal(err)
				}
				defer c.Close()
				if _, err := l.Accept(); err != nil {
					t.Error(err)
				}
			})
		}
	}
}

// TestAcceptLooksAfterItsSocket, without anybody's help.
func TestAcceptLooksAfterItsSocket(t *testing.T) {
	l, dir := opened(t, "unix")
	accepted := make(chan error, 1)
	go func() {
		_, err := l.Accept()
		accepted <- err
	}()
	if err := os.Remove(dir + "/x.sock"); err != nil {
		t.Fatal(err)
	}
	for l.Reachable() != nil {
		time.Sleep(time.Millisecond)
	}
	if _, err := Dial(t.Context(), "unix", dir, "x.sock"); err != nil {
		t.Fatal(err)
	}
	if err := <-accepted; err != nil {
		t.Error(err)
	}
}

// TestWhatIsInASocketsPlaceStays, so that two never take it from each other, and it is said;
// without it the socket is opened again, and a closed one takes nothing along.
func TestWhatIsInASocketsPlaceStays(t *testing.T) {
	l, dir := opened(t, "unix")
	other, err := Listen("unix", dir, "x.sock", quiet)
	if err != nil {
		t.Fatal(err)
	}
	l.stay()
	if err := other.Reachable(); err != nil {
		t.Errorf("the other's: %v", err)
	}
	if err := l.Reachable(); err == nil || !strings.Contains(err.Error(), "something else is in the place of "+dir+"/x.sock") {
		t.Errorf("its own: %v", err)
	}
	other.Close()
	l.stay()
	if err := l.Reachable(); err != nil {
		t.Errorf("when the other has ended: %v", err)
	}
	if other, err = Listen("unix", dir, "x.sock", quiet); err != nil {
		t.Fatal(err)
	}
	defer other.Close()
	l.Close()
	if err := other.Reachable(); err != nil {
		t.Errorf("the other's, when this one has ended: %v", err)
	}
}

func TestAClosedSocketStaysClosed(t *testing.T) {
	l, dir := opened(t, "unix")
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	l.stay()
	if _, err := os.Lstat(dir + "/x.sock"); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("its name is there: %v", err)
	}
	if _, err := l.Accept(); !errors.Is(err, net.ErrClosed) {
		t.Errorf("Accept: %v", err)
	}
}

// TestARunDirectoryHasOneNetworkDaemon at a time.
func TestARunDirectoryHasOneNetworkDaemon(t *testing.T) {
	dir := t.TempDir()
	first, err := Claim(dir)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := Claim(dir); err == nil || !strings.Contains(err.Error(), "another network daemon") {
		t.Errorf("the second: %v", err)
	}
	first.Close()
	second, err := Claim(dir)
	if err != nil {
		t.Fatalf("when the first has ended: %v", err)
	}
	second.Close()
}
