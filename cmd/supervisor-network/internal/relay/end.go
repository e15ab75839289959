package relay

import (
	"net"

	"golang.org/x/sys/unix"
)

// End says what is known of the other end of a connection without reading from it.
type End uint8

// The ends. What cannot be found out is open.
const (
	Open     End = iota
	Finished     // it sends nothing more; whether it still reads is not known
	Gone         // it neither sends nor reads
)

// EndOf looks at a connection's state: bytes that nobody has read yet do not hide its
// end (poll(2), POLLRDHUP).
func EndOf(c *net.TCPConn) End {
	switch r, ok := events(c, unix.POLLRDHUP); {
	case !ok || r&(unix.POLLERR|unix.POLLHUP) != 0:
		return Gone
	case r&unix.POLLRDHUP != 0:
		return Finished
	}
	return Open
}

// Readable reports whether a read would not wait: bytes have come, or an end.
func Readable(c *net.TCPConn) bool {
	r, ok := events(c, unix.POLLIN)
	return ok && r != 0
}

// events are those that hold now; ok is false for what is closed here.
func events(c *net.TCPConn, of int16) (r int16, ok bool) {
	raw, err := c.SyscallConn()
	if err != nil {
		return 0, false
	}
	_ = raw.Control(func(fd uintptr) {
		poll := []unix.PollFd{{Fd: int32(fd), Events: of}}
		if n, err := unix.Poll(poll, 0); err == nil && n > 0 {
			r = poll[0].Revents
		}
	})
	return r, true
}

// Unread says whether the other end of a connection leaves what was written lying: how
// many bytes it has taken, and whether more wait in the kernel for room at its side.
// What cannot be found out does not wait (tcp(7), SIOCOUTQ).
func Unread(c *net.TCPConn) (taken uint64, waits bool) {
	raw, err := c.SyscallConn()
	if err != nil {
		return 0, false
	}
	_ = raw.Control(func(fd uintptr) {
		if n, err := unix.IoctlGetInt(int(fd), unix.SIOCOUTQ); err != nil || n == 0 {
			return
		}
		if info, err := unix.GetsockoptTCPInfo(int(fd), unix.IPPROTO_TCP, unix.TCP_INFO); err == nil {
			taken, waits = info.Bytes_acked, true
		}
	})
	return taken, waits
}
