package proxy

import (
	"bufio"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/splitpod/splitpod/cmd/supervisor-network/internal/listen"
	"github.com/splitpod/splitpod/cmd/supervisor-network/internal/relay/exchange"
)

// firstRead calls a function when it is read for the first time.
type firstRead struct {
	io.Reader
	before func()
	given  string        // comes with the first read
	late   time.Duration // how long the second one takes to begin
}

func (f *firstRead) Read(p []byte) (int, error) {
	if before := f.before; before != nil {
		f.before = nil
		before()
		if f.given != "" {
			return copy(p, f.given), nil
		}
	} else if late := f.late; late > 0 {
		f.late = 0
		time.Sleep(late)
	}
	return f.Reader.Read(p)
}

// TestARequestThatBeginsInTheMomentOfADrainIsServed: its first byte may have been read,
// or be on its way, when the drain ends the wait for it.
func TestARequestThatBeginsInTheMomentOfADrainIsServed(t *testing.T) {
	const request = "GET /x HTTP/1.1\r\nHost: a.example.com\r\n\r\n"
	for name, tc := range map[string]struct {
		given int
		late  time.Duration
	}{"it has begun": {given: 1}, "it is on its way": {}, "it is here, and the machine is busy": {late: 2 * onItsWay}} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t, generous, endpoint("a.example.com", 80, ""))
			client, server := pair(t)
			s := w.session(t.Context(), w.Record.Begin("x", time.Now()), &listen.Conn{TCP: server}, nil, nil)
			defer s.release()
			s.client = exchange.Client{Interrupt: s.interrupt, Resume: s.resume}
			s.client.R = bufio.NewReader(&firstRead{server, s.drain, request[:tc.given], tc.late})
			if _, err := io.WriteString(client, request[tc.given:]); err != nil {
				t.Fatal(err)
			}
			req, refused := s.read(t.Context())
			if refused != nil || req == nil || req.Target != "/x" {
				t.Fatalf("%+v, %v", req, refused)
			}
			if !s.ended.Load() {
				t.Error("the response does not say that it is the last")
			}
		})
	}
}

// TestAnEndedDrainSaysWhyARequestWasNotRead: a client that is in the middle of a request
// then is not told that it was slow.
func TestAnEndedDrainSaysWhyARequestWasNotRead(t *testing.T) {
	for name, begin := range map[string]func(w *world) net.Conn{
		"in a tunnel": func(w *world) net.Conn {
			c := w.tunnel("a.example.com", 80)
			fmt.Fprint(c, "GET / HTTP/1.1\r\nHost: a.exa")
			return c
		},
		"in absolute form, the second one": func(w *world) net.Conn {
			c, err := net.Dial("tcp", w.proxy)
			if err != nil {
				w.t.Fatal(err)
			}
			w.t.Cleanup(func() { c.Close() })
			fmt.Fprint(c, "GET http://a.example.com/ HTTP/1.1\r\nHost: a.example.com\r\n\r\nGET http://a.exa")
			return c
		},
		"a body that is judged": func(w *world) net.Conn {
			c := w.tunnel("b.example.com", 80)
			fmt.Fprint(c, "POST / HTTP/1.1\r\nHost: b.example.com\r\nContent-Type: application/json\r\nContent-Length: 100\r\n\r\n{")
			return c
		},
	} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t, generous, endpoint("a.example.com", 80, ", protocol: rest, access: full"),
				endpoint("b.example.com", 80, ", protocol: json-rpc, rules: [{allow: {method: echo}}]"))
			handler := http.HandlerFunc(func(rw http.ResponseWriter, _ *http.Request) {})
			w.origin("a.example.com", 80, handler)
			w.origin("b.example.com", 80, handler)
			c := begin(w)
			_ = c.SetDeadline(time.Now().Add(generous))
			r := bufio.NewReader(c)
			if strings.HasPrefix(name, "in absolute") {
				if resp, body := answer(t, r, "GET"); resp.StatusCode != 200 {
					t.Fatalf("the first one: %s %s", resp.Status, body)
				}
			}
			w.stop()
			resp, body := answer(t, r, "GET")
			if resp.StatusCode != 503 || !resp.Close || !strings.Contains(body, `"shutdown"`) {
				t.Errorf("%s, close %v: %s", resp.Status, resp.Close, body)
			}
		})
	}
}

// pair is a TCP connection on the loopback.
func pair(t *testing.T) (client, server *net.TCPConn) {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	c, err := net.Dial("tcp", l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	accepted, err := l.Accept()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close(); accepted.Close() })
	return c.(*net.TCPConn), accepted.(*net.TCPConn)
}
