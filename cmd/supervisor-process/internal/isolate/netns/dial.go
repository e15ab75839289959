package netns

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"runtime"
	"time"

	"golang.org/x/sys/unix"
)

// dialTimeout bounds a connection whose caller has no deadline of its own.
const dialTimeout = 10 * time.Second

// Dial connects to a port of a host in a network namespace, given by a file of ns(7). host is
// an address, or "localhost" for both of loopback's. It blocks until ctx's deadline, or for
// ten seconds if that has none; an end of ctx before does not stop it.
func Dial(ctx context.Context, ns *os.File, host string, port uint16) (net.Conn, error) {
	hosts := []string{host}
	if host == "localhost" {
		hosts = []string{"127.0.0.1", "::1"}
	}
	var to []netip.AddrPort
	for _, h := range hosts {
		addr, err := netip.ParseAddr(h)
		if err != nil {
			return nil, err
		}
		to = append(to, netip.AddrPortFrom(addr, port))
	}
	until := time.Now().Add(dialTimeout)
	if at, ok := ctx.Deadline(); ok {
		until = at
	}
	return dialEach(to, until, func(to netip.AddrPort, timeout time.Duration) (net.Conn, error) {
		return dialOne(ns, to, timeout)
	})
}

// dialEach connects to the first address that answers, in order and not at once: a server
// would see a connection that nobody wanted. Of the time that is left each may take its
// share, because a listener whose queue is full answers nothing at all.
func dialEach(to []netip.AddrPort, until time.Time, dial func(netip.AddrPort, time.Duration) (net.Conn, error)) (net.Conn, error) {
	var errs []error
	for i, addr := range to {
		left := time.Until(until)
		if left <= 0 {
			return nil, errors.Join(append(errs, fmt.Errorf("connect to %s in the sandbox: %w", addr, context.DeadlineExceeded))...)
		}
		c, err := dial(addr, left/time.Duration(len(to)-i))
		if err == nil {
			return c, nil
		}
		errs = append(errs, err)
	}
	return nil, errors.Join(errs...)
}

// dialOne connects to an address from inside the namespace. It blocks for at most timeout.
func dialOne(ns *os.File, to netip.AddrPort, timeout time.Duration) (net.Conn, error) {
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
