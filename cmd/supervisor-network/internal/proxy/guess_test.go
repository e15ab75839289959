package proxy

import (
	"bufio"
	"fmt"
	"io"
	"net"
	"strings"
	"testing"
	"time"
)

// TestNobodyIsAnsweredBeforeAsking: TLS whose client names no protocol, to an origin that
// cannot be reached, is answered when a request came, and else ends without a byte.
func TestNobodyIsAnsweredBeforeAsking(t *testing.T) {
	for name, tc := range map[string]struct{ says, want string }{
		"a request":         {"GET / HTTP/1.1\r\nHost: a.example.com\r\n\r\n", "HTTP/1.1 502 "},
		"an unusual method": {"PROPFIND / HTTP/1.1\r\nHost: a.example.com\r\n\r\n", "HTTP/1.1 502 "},
		"another protocol":  {"\x00\x01binary", ""},
		"nothing":           {"", ""},
	} {
		t.Run(name, func(t *testing.T) {
			head := generous
			if tc.says == "" {
				head = 400 * time.Millisecond // what comes late changes nothing
			}
			w := newWorld(t, head, endpoint("a.example.com", 443, ""))
			l, err := net.Listen("tcp", "127.0.0.1:0")
			if err != nil {
				t.Fatal(err)
			}
			defer l.Close()
			go func() { // an origin whose handshake fails
				for {
					c, err := l.Accept()
					if err != nil {
						return
					}
					_, _ = c.Read(make([]byte, 1)) // or it would speak first
					c.Close()
				}
			}()
			w.lead("a.example.com", 443, l.Addr().String())
			c := w.secure("a.example.com")
			got, err := make([]byte, len("HTTP/1.1 502 ")), error(nil)
			r := bufio.NewReader(c)
			if tc.want == "" {
				_, _ = io.WriteString(c, tc.says)
				got, err = io.ReadAll(r)
				if len(got) > 0 {
					t.Errorf("it was told %q, %v", got, err)
				}
			} else {
				w.until("the origin was tried", func() bool { return w.dials.Load() > 0 })
				_, _ = io.WriteString(c, tc.says)
				if _, err = io.ReadFull(r, got); err != nil || string(got) != tc.want {
					t.Errorf("it was told %q, %v", got, err)
				}
			}
			w.until("a record", func() bool { return strings.Contains(fmt.Sprint(w.records.list()), "upstream_") })
		})
	}
}
