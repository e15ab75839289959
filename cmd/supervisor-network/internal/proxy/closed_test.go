package proxy

import (
	"bufio"
	"crypto/tls"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"sync"
	"sync/atomic"
	"testing"
)

// impatient ends the first connection as soon as it is there.
type impatient struct {
	net.Listener
	config func() *tls.Config // nil: it is plain
	once   sync.Once
	ended  chan struct{}
}

func (l *impatient) Accept() (net.Conn, error) {
	l.once.Do(func() {
		c, err := l.Listener.Accept()
		if err != nil {
			return
		}
		if l.config != nil {
			t := tls.Server(c, l.config())
			_ = t.Handshake()
			c = t
		}
		c.Close()
		close(l.ended)
	})
	return l.Listener.Accept()
}

// TestAConnectionThatEndedBeforeTheFirstRequest: a client opens its tunnel before it needs
// it, and the origin waits less long than the client does.
func TestAConnectionThatEndedBeforeTheFirstRequest(t *testing.T) {
	for _, port := range []int{443, 80} {
		t.Run(fmt.Sprint(port), func(t *testing.T) {
			w := newWorld(t, generous, endpoint("a.example.com", port, ", protocol: rest, access: full"))
			s := httptest.NewUnstartedServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) {}))
			defer s.Close()
			l := &impatient{Listener: s.Listener, ended: make(chan struct{})}
			s.Listener = l
			var c net.Conn
			if port == 443 {
				l.config = func() *tls.Config { return s.TLS }
				s.StartTLS()
				w.lead("a.example.com", port, l.Addr().String())
				c = w.secure("a.example.com", "http/1.1")
			} else {
				s.Start()
				w.lead("a.example.com", port, l.Addr().String())
				c = w.tunnel("a.example.com", port)
			}
			<-l.ended
			fmt.Fprint(c, "POST / HTTP/1.1\r\nHost: a.example.com\r\nContent-Length: 0\r\n\r\n")
			if resp, body := answer(t, bufio.NewReader(c), "POST"); resp.StatusCode != 200 {
				t.Errorf("%s %s", resp.Status, body)
			}
		})
	}
}

// TestAStreamIsNotGivenTwoConnectionsThatEnded: an origin that ends one that was kept
// often ends them all.
func TestAStreamIsNotGivenTwoConnectionsThatEnded(t *testing.T) {
	w := newWorld(t, generous, endpoint("a.example.com", 443, ", protocol: rest, access: full"))
	var requests atomic.Int32
	var ended atomic.Bool
	var mu sync.Mutex
	both := make(chan struct{})
	carried := make(map[string]bool) // connections, by their other end
	w.origin("a.example.com", 443, http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) {
		mu.Lock()
		again := carried[r.RemoteAddr]
		carried[r.RemoteAddr] = true
		mu.Unlock()
		if again && ended.Load() {
			panic(http.ErrAbortHandler)
		}
		switch requests.Add(1) {
		case 3:
			close(both)
		case 2:
			<-both
		}
	}), "http/1.1")
	client := w.client(true)
	done := make(chan error)
	get := func() {
		resp, err := client.Get("https://a.example.com/")
		if err == nil {
			_, _ = io.Copy(io.Discard, resp.Body)
			resp.Body.Close()
			if resp.StatusCode != 200 {
				err = fmt.Errorf("%s", resp.Status)
			}
		}
		done <- err
	}
	for _, together := range []int{1, 2} {
		for range together {
			go get()
		}
		for range together {
			if err := <-done; err != nil {
				t.Fatal(err)
			}
		}
	}
	w.until("both are kept", func() bool { return w.Pool.Idle() == 2 })
	ended.Store(true)
	go get()
	if err := <-done; err != nil {
		t.Error(err)
	}
}
