package link

import (
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"sync"
	"time"

	"golang.org/x/sys/unix"
)

// lookAgain is how often a Listener looks whether its name still leads to it.
const lookAgain = 2 * time.Second

// Listener is a socket in the run directory that is opened again when its name is gone: who
// is connected does not notice, but nobody else could connect any more. What somebody put in
// its place stays, so that two that want one name do not take it from each other. Make it with
// Listen. Safe for concurrent use, but for Accept, which one goroutine calls.
type Listener struct {
	network, path string
	log           *slog.Logger

	mu      sync.Mutex
	socket  *net.UnixListener // guarded by mu
	name    *os.File          // guarded by mu; what path leads to, held so that no other file gets its number
	closed  bool              // guarded by mu
	lacking bool              // guarded by mu; the log has it that nobody can connect
}

// Listen opens a Unix socket in the run directory, replacing one that an earlier
// instance left behind. Whoever can reach the directory may connect; credentials
// decide who may speak. network is "unix" or "unixpacket".
func Listen(network, runDir, name string, log *slog.Logger) (*Listener, error) {
	l := &Listener{network: network, path: filepath.Join(runDir, name), log: log}
	if err := os.Remove(l.path); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("remove the stale socket: %w", err)
	}
	if err := l.open(); err != nil {
		return nil, err
	}
	return l, nil
}

// open takes the name, which nothing has. Preconditions: mu is held, or nobody else has l.
func (l *Listener) open() error {
	socket, err := net.ListenUnix(l.network, &net.UnixAddr{Name: l.path, Net: l.network})
	if err != nil {
		return fmt.Errorf("open the contract socket: %w", err)
	}
	socket.SetUnlinkOnClose(false) // the name may be another's by then
	name, err := openToOthers(l.path)
	if err != nil {
		socket.Close()
		return fmt.Errorf("open the contract socket to the other container: %w", err)
	}
	if l.socket != nil {
		l.socket.Close()
		l.name.Close()
	}
	l.socket, l.name = socket, name
	return nil
}

// openToOthers lets everybody connect to a socket, and returns what its name leads to. The
// directory may belong to the other daemon: what that one put in the socket's place, or leads
// to, keeps its mode.
func openToOthers(path string) (*os.File, error) {
	fd, err := unix.Open(path, unix.O_PATH|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, os.NewSyscallError("open", err)
	}
	f := os.NewFile(uintptr(fd), path)
	info, err := f.Stat()
	if err == nil && info.Mode().Type() != fs.ModeSocket {
		err = errors.New("something else was put in its place")
	}
	if err == nil {
		err = os.Chmod(fmt.Sprintf("/proc/self/fd/%d", fd), 0o666)
	}
	if err != nil {
		f.Close()
		return nil, err
	}
	return f, nil
}

// Reachable is nil while the name leads to this socket; otherwise it says what to do.
func (l *Listener) Reachable() error {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.reachable()
}

// reachable is Reachable. Preconditions: mu is held.
func (l *Listener) reachable() error {
	is, err := os.Lstat(l.path)
	if errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("the socket is gone; it is opened again within seconds if its directory is there and can be written to: %w", err)
	}
	if err != nil {
		return fmt.Errorf("look for the socket: %w", err)
	}
	if own, err := l.name.Stat(); err != nil || !os.SameFile(own, is) {
		return fmt.Errorf("something else is in the place of %s: another daemon with the same directory has to end; if there is none, remove it, and the socket is opened again", l.path)
	}
	return nil
}

// stay opens the socket again if its name is gone.
func (l *Listener) stay() {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.closed {
		return
	}
	err := l.reachable()
	again := errors.Is(err, fs.ErrNotExist)
	if again {
		err = l.open()
	}
	switch {
	case err != nil && !l.lacking:
		l.log.Error("nobody can connect to a socket in the run directory", slog.Any("error", err))
	case err == nil && again:
		l.log.Warn("a socket in the run directory was removed; it is open again", slog.String("socket", l.path))
	}
	l.lacking = err != nil
}

// Accept implements net.Listener, and looks after the socket's name meanwhile.
func (l *Listener) Accept() (net.Conn, error) {
	for {
		l.mu.Lock()
		socket := l.socket
		l.mu.Unlock()
		_ = socket.SetDeadline(time.Now().Add(lookAgain)) // of a closed one Accept tells
		c, err := socket.AcceptUnix()
		if err == nil {
			return c, nil
		}
		if !errors.Is(err, os.ErrDeadlineExceeded) {
			return nil, err
		}
		l.stay()
	}
}

// Close implements net.Listener. It removes the name if that leads to this socket.
func (l *Listener) Close() error {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.closed {
		return net.ErrClosed
	}
	l.closed = true
	if l.reachable() == nil {
		_ = os.Remove(l.path)
	}
	return errors.Join(l.socket.Close(), l.name.Close())
}

// Addr implements net.Listener.
func (l *Listener) Addr() net.Addr { return &net.UnixAddr{Name: l.path, Net: l.network} }
