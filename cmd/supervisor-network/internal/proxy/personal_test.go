package proxy

import (
	"bufio"
	"fmt"
	"io"
	"net"
	"net/http"
	"sync"
	"testing"
	"time"
)

// takesConnectionsForUsers is an origin that asks for credentials once a connection.
func takesConnectionsForUsers() http.Handler {
	var users sync.Map // by the other end
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if a := r.Header.Get("Authorization"); a != "" {
			users.Store(r.RemoteAddr, a)
		}
		user, known := users.Load(r.RemoteAddr)
		if !known {
			user = "nobody"
		}
		fmt.Fprint(w, "for ", user)
	})
}

// TestAnAuthenticatedConnectionIsItsClients: programs share connections to an origin, and
// not what one of them is to it.
func TestAnAuthenticatedConnectionIsItsClients(t *testing.T) {
	for _, scheme := range []string{"NTLM", "negotiate", "Negotiate"} {
		for _, protocol := range []string{"http/1.1", "h2"} {
			t.Run(scheme+" "+protocol, func(t *testing.T) {
				w := newWorld(t, 10*time.Second, endpoint("example.com", 443, ", protocol: rest, enforcement: enforce, access: full"))
				w.origin("example.com", 443, takesConnectionsForUsers(), "http/1.1")
				first := w.client(protocol == "h2")
				ask := func(c *http.Client, authorization, want string) {
					t.Helper()
					req, err := http.NewRequestWithContext(t.Context(), "GET", "https://example.com/", nil)
					if err != nil {
						t.Fatal(err)
					}
					if authorization != "" {
						req.Header.Set("Authorization", authorization)
					}
					resp, err := c.Do(req)
					if err != nil {
						t.Fatal(err)
					}
					defer resp.Body.Close()
					if body, err := io.ReadAll(resp.Body); err != nil || string(body) != want {
						t.Errorf("answered %q (%v), want %q", body, err, want)
					}
				}
				ask(first, scheme+" me", "for "+scheme+" me")
				if protocol == "http/1.1" { // whose clients rely on it
					ask(first, "", "for "+scheme+" me")
				}
				ask(w.client(protocol == "h2"), "", "for nobody")
			})
		}
	}
}

// TestAPersonalConnectionThatEndsIsReplaced: a request that cannot be repeated does not
// go to one its origin has closed.
func TestAPersonalConnectionThatEndsIsReplaced(t *testing.T) {
	w := newWorld(t, 10*time.Second, endpoint("users.test", 80, ""))
	var mu sync.Mutex
	var last net.Conn
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			mu.Lock()
			last = c
			mu.Unlock()
			go func() {
				r := bufio.NewReader(c)
				for {
					req, err := http.ReadRequest(r)
					if err != nil {
						return
					}
					_, _ = io.Copy(io.Discard, req.Body)
					_, _ = io.WriteString(c, "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")
				}
			}()
		}
	}()
	w.lead("users.test", 80, l.Addr().String())
	c := w.tunnel("users.test", 80)
	r := bufio.NewReader(c)
	for i := range 3 {
		fmt.Fprint(c, "POST / HTTP/1.1\r\nHost: users.test\r\nAuthorization: NTLM x\r\nContent-Length: 1\r\n\r\nx")
		if resp, _ := answer(t, r, "POST"); resp.StatusCode != 200 {
			t.Fatalf("request %d is answered %s", i, resp.Status)
		}
		if n := w.dials.Load(); n != int64(i)+1 {
			t.Fatalf("%d connections for %d requests", n, i+1)
		}
		mu.Lock()
		last.Close()
		mu.Unlock()
	}
}
