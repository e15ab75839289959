package netns

import (
	"fmt"
	"net"
	"net/netip"
	"os"
	"runtime"
	"time"

	"golang.org/x/sys/unix"
)

// Dial connects to an address from inside a network namespace, given by a file of
// ns(7). It blocks for at most timeout.
func Dial(ns *os.File, to netip.AddrPort, timeout time.Duration) (net.Conn, error) {
	type result struct {
		fd  int
		err error
	}
	done := make(chan result, 1)
	go func() {
		runtime.LockOSThread() // never unlocked: the runtime ends the thread with its namespace
		fd, err := connectIn(ns, to, timeout)
		done <- result{fd, err}
	}()
	r := <-done
	if r.err != nil {
		return nil, fmt.Errorf("connect to %s in the sandbox: %w", to, r.err)
	}
	f := os.NewFile(uintptr(r.fd), "loopback")
	defer f.Close()
	return net.FileConn(f)
}

func connectIn(ns *os.File, to netip.AddrPort, timeout time.Duration) (fd int, err error) {
	raw, err := ns.SyscallConn()
	if err != nil {
		return -1, err
	}
	var enter error
	if err := raw.Control(func(n uintptr) { enter = unix.Setns(int(n), unix.CLONE_NEWNET) }); err != nil {
		return -1, err
	}
	if enter != nil {
		return -1, os.NewSyscallError("setns", enter)
	}
	family := unix.AF_INET
	var sa unix.Sockaddr = &unix.SockaddrInet4{Port: int(to.Port())}
	if to.Addr().Is6() {
		family, sa = unix.AF_INET6, &unix.SockaddrInet6{Addr: to.Addr().As16(), Port: int(to.Port())}
	} else {
		sa.(*unix.SockaddrInet4).Addr = to.Addr().As4()
	}
	if fd, err = unix.Socket(family, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0); err != nil {
		return -1, os.NewSyscallError("socket", err)
	}
	wait := unix.NsecToTimeval(int64(timeout))
	_ = unix.SetsockoptTimeval(fd, unix.SOL_SOCKET, unix.SO_SNDTIMEO, &wait)
	if err := unix.Connect(fd, sa); err != nil {
		unix.Close(fd)
		return -1, err
	}
	return fd, nil
}
