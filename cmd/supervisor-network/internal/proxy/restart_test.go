package proxy

import (
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/splitpod/splitpod/cmd/supervisor-network/internal/decide"
	"github.com/splitpod/splitpod/cmd/supervisor-network/internal/inject/seal/sealtest"
	"github.com/splitpod/splitpod/cmd/supervisor-network/internal/relay/origin"
	"github.com/splitpod/splitpod/pkg/core"
)

// send makes one request and returns the answer's status; its connection is kept.
func send(t *testing.T, client *http.Client, method, url string) int {
	t.Helper()
	r, err := http.NewRequestWithContext(t.Context(), method, url, nil)
	if err != nil {
		t.Fatal(err)
	}
	resp, err := client.Do(r)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	if _, err := io.Copy(io.Discard, resp.Body); err != nil {
		t.Fatal(err)
	}
	return resp.StatusCode
}

// versions are those in which clients ask: whether HTTP/2 is one of them. Its first stream
// finds the connection of its tunnel among those that are kept.
func versions(before bool) []bool {
	if before {
		return []bool{false, true}
	}
	return []bool{false}
}

// TestARequestIsRepeatedWhereItsOriginRestarts: on a kept connection, and on the new one
// that a stopping server still took, but not more often, and only if it may be.
func TestARequestIsRepeatedWhereItsOriginRestarts(t *testing.T) {
	for _, tc := range []struct {
		rule, method   string
		kept           bool
		ends           int32 // how many connections end without a word
		thinks         bool  // which comes late
		status, arrive int
	}{
		{"the kept connection", "GET", true, 1, false, 200, 2},
		{"and the new one", "GET", true, 2, false, 200, 3},
		{"and another one", "GET", true, 3, false, 502, 3},
		{"but none that ended late", "GET", true, 3, true, 502, 2},
		{"what is not repeated", "POST", true, 1, false, 502, 1},
		{"no kept connection", "GET", false, 1, false, 502, 1},
	} {
		for _, http2 := range versions(tc.kept) {
			t.Run(fmt.Sprintf("%s, HTTP/2 %v", tc.rule, http2), func(t *testing.T) {
				w := newWorld(t, generous, endpoint("a.example.com", 443, ", protocol: rest, access: full"))
				var ends, arrived atomic.Int32
				w.origin("a.example.com", 443, http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) {
					if arrived.Add(1); ends.Add(-1) >= 0 {
						if tc.thinks {
							time.Sleep(soon)
						}
						panic(http.ErrAbortHandler)
					}
				}), "http/1.1")
				client := w.client(http2)
				if tc.kept {
					if status := send(t, client, "GET", "https://a.example.com/"); status != 200 {
						t.Fatal(status)
					}
					w.until("the connection is kept", func() bool { return w.Pool.Idle() == 1 })
				}
				ends.Store(tc.ends)
				arrived.Store(0)
				if status := send(t, client, tc.method, "https://a.example.com/"); status != tc.status || int(arrived.Load()) != tc.arrive {
					t.Errorf("status %d after %d attempts, want %d after %d", status, arrived.Load(), tc.status, tc.arrive)
				}
			})
		}
	}
}

// TestARequestOfWhichSomethingWasHeardIsNotRepeated, whatever that was.
func TestARequestOfWhichSomethingWasHeardIsNotRepeated(t *testing.T) {
	for _, says := range []string{"H", "HTTP/1.1 200 OK\r\nX: y", "HTTP/1.1 200 OK\r\n", "garbage\r\n\r\n", "HTTP/1.1 200 OK\r\nContent-Length: 1, 2\r\n\r\n"} {
		for _, http2 := range versions(true) {
			t.Run(fmt.Sprintf("%q, HTTP/2 %v", says, http2), func(t *testing.T) {
				w := newWorld(t, generous, endpoint("a.example.com", 443, ", protocol: rest, access: full"))
				var arrived atomic.Int32
				w.origin("a.example.com", 443, http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) {
					if arrived.Add(1) == 1 {
						return
					}
					conn, _, err := http.NewResponseController(rw).Hijack()
					if err != nil {
						t.Error(err)
						return
					}
					_, _ = io.WriteString(conn, says)
					conn.Close()
				}), "http/1.1")
				client := w.client(http2)
				if status := send(t, client, "GET", "https://a.example.com/"); status != 200 {
					t.Fatal(status)
				}
				w.until("the connection is kept", func() bool { return w.Pool.Idle() == 1 })
				if status := send(t, client, "GET", "https://a.example.com/"); status != 502 || arrived.Load() != 2 {
					t.Errorf("status %d after %d attempts", status, arrived.Load()-1)
				}
			})
		}
	}
}

// TestARepeatedRequestTakesTheNewestValue, in every version of HTTP.
func TestARepeatedRequestTakesTheNewestValue(t *testing.T) {
	const host = "a.example.com"
	for _, http2 := range versions(true) {
		t.Run(fmt.Sprintf("HTTP/2 %v", http2), func(t *testing.T) {
			w := newWorld(t, generous, endpoint(host, 443, ", protocol: rest, enforcement: enforce, access: full"))
			w.Vault = keysOf(t, host)
			var came []string // one after the other
			w.origin(host, 443, http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) {
				if came = append(came, r.Header.Get("Authorization")); len(came) == 2 {
					sealtest.Write(t, w.Vault.Current().List()[0].Source, "REALother12345")
					w.Vault.Store.Reload()
					panic(http.ErrAbortHandler)
				}
				_, _ = io.WriteString(rw, came[len(came)-1])
			}), "http/1.1")
			client := w.client(http2)
			for i := range 2 {
				r, err := http.NewRequestWithContext(t.Context(), "GET", "https://"+host+"/", nil)
				if err != nil {
					t.Fatal(err)
				}
				r.Header.Set("Authorization", "Bearer "+marker)
				resp, err := client.Do(r)
				if err != nil {
					t.Fatal(err)
				}
				said, _ := io.ReadAll(resp.Body)
				resp.Body.Close()
				if resp.StatusCode != 200 || string(said) != "Bearer "+marker {
					t.Errorf("%s %s", resp.Status, said)
				}
				if i == 0 {
					w.until("the connection is kept", func() bool { return w.Pool.Idle() == 1 })
				}
			}
			if want := []string{"Bearer REALvalue12345", "Bearer REALvalue12345", "Bearer REALother12345"}; !slices.Equal(came, want) {
				t.Errorf("the origin got %q", came)
			}
		})
	}
}

// stopping ends the next connections as they come.
type stopping struct {
	net.Listener
	ends, ended atomic.Int32
}

func (l *stopping) Accept() (net.Conn, error) {
	for {
		c, err := l.Listener.Accept()
		if err != nil || l.ends.Add(-1) < 0 {
			return c, err
		}
		l.ended.Add(1)
		c.Close()
	}
}

// TestAHandshakeIsTriedAgainWhereItsOriginRestarts: once, for the connection that the
// tunnel was opened with, and once for the one in its place; but for an origin that never
// spoke TLS.
func TestAHandshakeIsTriedAgainWhereItsOriginRestarts(t *testing.T) {
	for _, tc := range []struct {
		rule   string
		spoke  bool
		ends   int32
		status int
		ended  int32
	}{
		{"the tunnel's", true, 1, 200, 1},
		{"and the next one", true, 2, 200, 2},
		{"and another one", true, 3, 502, 3},
		{"an origin that never spoke", false, 1, 502, 1},
	} {
		for _, http2 := range versions(tc.spoke) {
			t.Run(fmt.Sprintf("%s, HTTP/2 %v", tc.rule, http2), func(t *testing.T) {
				w := newWorld(t, generous, endpoint("a.example.com", 443, ", protocol: rest, access: full"))
				s := httptest.NewUnstartedServer(http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) {
					rw.Header().Set("Connection", "close") // nothing is kept
				}))
				l := &stopping{Listener: s.Listener}
				s.Listener = l
				s.StartTLS()
				defer s.Close()
				w.lead("a.example.com", 443, strings.TrimPrefix(s.URL, "https://"))
				if tc.spoke {
					if status := send(t, w.client(http2), "GET", "https://a.example.com/"); status != 200 {
						t.Fatal(status)
					}
				}
				l.ends.Store(tc.ends)
				if status := send(t, w.client(http2), "POST", "https://a.example.com/"); status != tc.status || l.ended.Load() != tc.ended {
					t.Errorf("status %d, %d handshakes were broken off; want %d, %d", status, l.ended.Load(), tc.status, tc.ended)
				}
			})
		}
	}
}

// TestAHandshakeForHTTP2IsTriedAgain once, if it was broken off and not refused.
func TestAHandshakeForHTTP2IsTriedAgain(t *testing.T) {
	for _, tc := range []struct {
		rule     string
		ends     int32
		protocol string
		dials    int64
		want     origin.Kind
	}{
		{"one that ends", 1, "h2", 2, ""},
		{"two that end", 2, "h2", 2, origin.Closed},
		{"one that is refused", 0, "http/1.1", 1, origin.NoProtocol},
	} {
		t.Run(tc.rule, func(t *testing.T) {
			w := newWorld(t, generous, endpoint("a.example.com", 443, ""))
			s := httptest.NewUnstartedServer(http.NotFoundHandler())
			l := &stopping{Listener: s.Listener}
			l.ends.Store(tc.ends)
			s.Listener, s.TLS = l, &tls.Config{NextProtos: []string{tc.protocol}}
			s.Config.ErrorLog = slog.NewLogLogger(slog.DiscardHandler, 0)
			s.StartTLS()
			defer s.Close()
			w.lead("a.example.com", 443, l.Addr().String())
			permit, denial := w.Policy.Current().Connection(t.Context(), decide.Question{Who: &core.Identity{}, Host: "a.example.com", Port: 443})
			if denial != nil {
				t.Fatal(denial.Detail)
			}
			c, err := w.newer.Dial(t.Context(), permit)
			if err == nil {
				c.Close()
			}
			e, _ := errors.AsType[*origin.Error](err)
			if (err == nil) != (tc.want == "") || e != nil && e.Kind != tc.want || w.dials.Load() != tc.dials {
				t.Errorf("%v after %d attempts, want %q after %d", err, w.dials.Load(), tc.want, tc.dials)
			}
		})
	}
}
