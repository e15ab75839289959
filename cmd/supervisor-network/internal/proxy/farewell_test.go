package proxy

import (
	"bufio"
	"crypto/tls"
	"io"
	"net"
	"net/http"
	"testing"

	"golang.org/x/sys/unix"
)

// TestFarewell: a client that only says in TLS that it goes may wait for the same from us.
// To one that has closed its side of the connection as well nothing is sent, because
// whoever has closed all of it answers with a reset.
func TestFarewell(t *testing.T) {
	for name, tc := range map[string]struct {
		leave func(*tls.Conn, *net.TCPConn) error
		want  bool
	}{
		"in TLS only": {func(c *tls.Conn, _ *net.TCPConn) error { return c.CloseWrite() }, true},
		"both": {func(c *tls.Conn, tcp *net.TCPConn) error {
			raw, err := tcp.SyscallConn()
			if err != nil {
				return err
			}
			// So that both arrive together.
			_ = raw.Control(func(fd uintptr) { err = unix.SetsockoptInt(int(fd), unix.IPPROTO_TCP, unix.TCP_CORK, 1) })
			if err != nil {
				return err
			}
			if err := c.CloseWrite(); err != nil {
				return err
			}
			return tcp.CloseWrite()
		}, false},
	} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t, generous, endpoint("a.example.com", 443, ""))
			w.origin("a.example.com", 443, http.NotFoundHandler(), "http/1.1")
			c := w.secure("a.example.com", "http/1.1")
			if _, err := io.WriteString(c, "GET / HTTP/1.1\r\nHost: a.example.com\r\n\r\n"); err != nil {
				t.Fatal(err)
			}
			answer(t, bufio.NewReader(c), "GET")
			tcp := c.NetConn().(*net.TCPConn)
			if err := tc.leave(c, tcp); err != nil {
				t.Fatal(err)
			}
			if rest, err := io.ReadAll(tcp); err != nil || len(rest) > 0 != tc.want {
				t.Errorf("%d bytes and %v behind the answer", len(rest), err)
			}
		})
	}
}
