package relay

import (
	"io"
	"net"
	"testing"
)

func TestEndOfAConnection(t *testing.T) {
	for name, tc := range map[string]struct {
		do   func(*net.TCPConn)
		want End
	}{
		"open":                       {func(*net.TCPConn) {}, Open},
		"open, with bytes":           {func(c *net.TCPConn) { _, _ = io.WriteString(c, "x") }, Open},
		"half closed":                {func(c *net.TCPConn) { _ = c.CloseWrite() }, Finished},
		"half closed, behind bytes":  {func(c *net.TCPConn) { _, _ = io.WriteString(c, "x"); _ = c.CloseWrite() }, Finished},
		"closed, behind bytes":       {func(c *net.TCPConn) { _, _ = io.WriteString(c, "x"); c.Close() }, Finished},
		"reset":                      {func(c *net.TCPConn) { _ = c.SetLinger(0); c.Close() }, Gone},
		"reset, behind unread bytes": {func(c *net.TCPConn) { _, _ = io.WriteString(c, "x"); _ = c.SetLinger(0); c.Close() }, Gone},
	} {
		l, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		client, err := net.Dial("tcp", l.Addr().String())
		if err != nil {
			t.Fatal(err)
		}
		server, err := l.Accept()
		if err != nil {
			t.Fatal(err)
		}
		tc.do(client.(*net.TCPConn))
		until(t, name, func() bool { // a busy kernel delivers late
			return EndOf(server.(*net.TCPConn)) == tc.want && Readable(server.(*net.TCPConn)) == (name != "open")
		})
		for _, c := range []io.Closer{l, client, server} {
			c.Close()
		}
		if got := EndOf(server.(*net.TCPConn)); got != Open && got != Gone {
			t.Errorf("%s: closed here: %d", name, got)
		}
	}
}
