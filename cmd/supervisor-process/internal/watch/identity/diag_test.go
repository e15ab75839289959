package identity

import (
	"errors"
	"net"
	"net/netip"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/splitpod/splitpod/pkg/core"
)

// plainListener listens on loopback as programs other than Go's do: the kernel does not
// let a listener of MPTCP be destroyed.
func plainListener(t *testing.T) net.Listener {
	t.Helper()
	var lc net.ListenConfig
	lc.SetMultipathTCP(false)
	l, err := lc.Listen(t.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	return l
}

func openDiag(t *testing.T) *diag {
	t.Helper()
	f, err := OpenDiag()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { f.Close() })
	fd, err := number(f)
	if err != nil {
		t.Fatal(err)
	}
	return &diag{fd: fd}
}

// TestASocketBoundToADeviceIsFound: a program may bind its socket to lo, where all of its
// connections are anyway, so that a question about none in particular misses it.
func TestASocketBoundToADeviceIsFound(t *testing.T) {
	sandboxed(t, func(t *testing.T) {
		l := plainListener(t)
		fd, err := unix.Socket(unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
		if err != nil {
			t.Fatal(err)
		}
		defer unix.Close(fd)
		to := l.Addr().(*net.TCPAddr).AddrPort()
		if err := errors.Join(unix.BindToDevice(fd, "lo"), unix.Connect(fd, &unix.SockaddrInet4{Addr: to.Addr().As4(), Port: int(to.Port())})); err != nil {
			t.Fatal(err)
		}
		from, err := unix.Getsockname(fd)
		if err != nil {
			t.Fatal(err)
		}
		own := from.(*unix.SockaddrInet4)
		s, err := openDiag(t).lookup(core.Tuple{Client: netip.AddrPortFrom(netip.AddrFrom4(own.Addr), uint16(own.Port)), Server: to})
		if err != nil || s.inode == 0 {
			t.Errorf("%+v, %v", s, err)
		}
	})
}

// TestAListenerIsNotEnded in the place of a connection that is gone, be it before or after
// it was looked up: the kernel answers a question about one that is gone with the listener
// of its port, and ends what it answers with.
func TestAListenerIsNotEnded(t *testing.T) {
	sandboxed(t, func(t *testing.T) {
		server, d := plainListener(t), openDiag(t)
		var short net.Dialer
		short.SetMultipathTCP(false)
		c, err := short.DialContext(t.Context(), "tcp", server.Addr().String())
		if err != nil {
			t.Fatal(err)
		}
		gone := core.Tuple{Client: c.LocalAddr().(*net.TCPAddr).AddrPort(), Server: server.Addr().(*net.TCPAddr).AddrPort()}
		was, err := d.lookup(gone)
		if err := errors.Join(err, c.(*net.TCPConn).SetLinger(0), c.Close()); err != nil {
			t.Fatal(err)
		}
		var lc net.ListenConfig
		lc.SetMultipathTCP(false)
		l, err := lc.Listen(t.Context(), "tcp", gone.Client.String())
		if err != nil {
			t.Fatal(err)
		}
		defer l.Close()
		if err := d.destroy(gone); !errors.Is(err, errNoSocket) {
			t.Errorf("gone before: %v, want that there is no such connection", err)
		}
		if err := d.end(gone, was); !errors.Is(err, errNoSocket) {
			t.Errorf("gone after: %v, want that there is no such connection", err)
		}
		again, err := net.Dial("tcp", l.Addr().String())
		if err != nil {
			t.Fatalf("the listener was ended: %v", err)
		}
		again.Close()
	})
}
