package h2

import (
	"net"
	"time"

	"golang.org/x/sys/unix"
)

// How an origin is known to be there. Servers of gRPC allow a ping every five minutes of
// silence, and end the connection with all its calls at the third that comes sooner (the
// gRPC project's proposal A8). What is quicker is left to TCP, which they do not see.
const (
	ping       = 6 * time.Minute
	answerPing = 30 * time.Second
	takeBytes  = 30 * time.Second // of a connection that takes none
	confirm    = time.Minute      // what was sent, and the kernel's own probes
)

// attended has the kernel end a connection whose other side no longer confirms what was
// sent. One that is no socket, or does not take the option, is pinged nevertheless.
func attended(c net.Conn) {
	tcp, ok := c.(*net.TCPConn)
	if !ok {
		return
	}
	raw, err := tcp.SyscallConn()
	if err != nil {
		return
	}
	_ = raw.Control(func(fd uintptr) {
		_ = unix.SetsockoptInt(int(fd), unix.IPPROTO_TCP, unix.TCP_USER_TIMEOUT, int(confirm/time.Millisecond))
	})
}
