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
	raw, err := c.SyscallConn()
	if err != nil {
		return Gone // it is closed here
	}
	end := Open
	_ = raw.Control(func(fd uintptr) {
		poll := []unix.PollFd{{Fd: int32(fd), Events: unix.POLLRDHUP}}
		if n, err := unix.Poll(poll, 0); err != nil || n == 0 {
			return
		}
		switch r := poll[0].Revents; {
		case r&(unix.POLLERR|unix.POLLHUP) != 0:
			end = Gone
		case r&unix.POLLRDHUP != 0:
			end = Finished
		}
	})
	return end
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
