package proxy

import (
	"bufio"
	"context"
	"crypto/tls"
	"fmt"
	"io"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/splitpod/splitpod/cmd/supervisor-network/internal/decide"
	"github.com/splitpod/splitpod/cmd/supervisor-network/internal/inject/seal/sealtest"
	"github.com/splitpod/splitpod/cmd/supervisor-network/internal/relay/h2"
)

// TestASlowBodyIsWaitedForWhereItIsOnlySearched: a credentials file alone makes no client
// hurry; a rule that is about bodies does.
func TestASlowBodyIsWaitedForWhereItIsOnlySearched(t *testing.T) {
	for name, tc := range map[string]struct {
		more   string // of the endpoint
		body   string
		status int
	}{
		"searched": {"", "0123456789", 200},
		"judged":   {", protocol: json-rpc, enforcement: enforce, rules: [{allow: {method: a}}]", `{"jsonrpc":"2.0","id":1,"method":"a"}`, 408},
	} {
		for _, newer := range []bool{false, true} {
			t.Run(fmt.Sprintf("%s with HTTP2 %v", name, newer), func(t *testing.T) {
				t.Parallel()
				w := newWorld(t, generous, endpoint("a.example.com", 443, tc.more))
				w.HeadTimeout = 500 * time.Millisecond
				w.Vault = keysOf(t, "other.example.com")
				w.origin("a.example.com", 443, http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) { _, _ = io.Copy(rw, r.Body) }), "http/1.1")
				r, body := io.Pipe()
				req, err := http.NewRequestWithContext(t.Context(), "POST", "https://a.example.com/", r)
				if err != nil {
					t.Fatal(err)
				}
				req.ContentLength = int64(len(tc.body))
				req.Header.Set("Content-Type", "application/json")
				client, over := w.client(newer), make(chan bool)
				go func() {
					defer close(over)
					resp, err := client.Do(req)
					if err != nil {
						t.Error(err)
						return
					}
					defer resp.Body.Close()
					if data, err := io.ReadAll(resp.Body); err != nil || resp.StatusCode != tc.status || tc.status == 200 && string(data) != tc.body {
						t.Errorf("%s %q %v", resp.Status, data, err)
					}
				}()
				_, _ = io.WriteString(body, tc.body[:5])
				if tc.status == 200 {
					w.lateHead(t)
					w.lateHead(t) // so the time for a head is over
					_, _ = io.WriteString(body, tc.body[5:])
					body.Close()
				}
				<-over
				body.Close()
			})
		}
	}
}

// TestAnOriginIsWaitedForAlsoWhenTheBodyWasReadLate: for want of room it is not read ahead
// at first, and is when a value that goes in was replaced. Its origin has the time that
// origins have.
func TestAnOriginIsWaitedForAlsoWhenTheBodyWasReadLate(t *testing.T) {
	const host = "a.example.com"
	for _, protocol := range []string{"http/1.1", "h2"} {
		t.Run("in "+protocol, func(t *testing.T) {
			t.Parallel()
			w := newWorld(t, generous, endpoint(host, 443, ", protocol: rest, enforcement: enforce, access: full"))
			w.HeadTimeout = 500 * time.Millisecond
			w.Vault = keysOf(t, host)
			arrived, late := make(chan bool), make(chan bool)
			handler := http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) {
				if r.Method == http.MethodGet { // on the connection that the tunnel was opened with
					rw.Header().Set("Connection", "close")
					return
				}
				_, _ = io.Copy(io.Discard, r.Body)
				arrived <- true
				<-late
			})
			crowd := w.Bodies.Limit() / 2
			w.Bodies.Take(crowd)
			var once sync.Once
			replaced := func() {
				once.Do(func() {
					w.Bodies.Give(crowd)
					sealtest.Write(t, w.Vault.Current().List()[0].Source, "REALother12345")
					w.Vault.Store.Reload()
				})
			}
			client, over := w.client(false), make(chan bool)
			if protocol == "h2" {
				w.origin(host, 443, handler, protocol)
				dial := w.newer.Dial
				w.newer.Dial = func(ctx context.Context, p decide.Permit) (*tls.Conn, error) {
					replaced()
					return dial(ctx, p)
				}
				w.HTTP2 = h2.New(w.newer)
			} else {
				var met atomic.Bool
				w.originThatSees(host, func() {
					if met.Load() {
						replaced()
					}
				}, handler)
				if status := send(t, client, "GET", "https://"+host+"/"); status != 200 {
					t.Fatal(status)
				}
				met.Store(true)
			}
			req, err := http.NewRequestWithContext(t.Context(), "POST", "https://"+host+"/", strings.NewReader("body"))
			if err != nil {
				t.Fatal(err)
			}
			req.Header.Set("Authorization", "Bearer "+marker)
			go func() {
				defer close(over)
				resp, err := client.Do(req)
				if err != nil {
					t.Error(err)
					return
				}
				if resp.Body.Close(); resp.StatusCode != 200 {
					t.Error(resp.Status)
				}
			}()
			<-arrived
			w.lateHead(t)
			w.lateHead(t) // so the time for a head is over
			close(late)
			<-over
		})
	}
}

// lateHead sends half a head, and returns when it was told that the rest is late.
func (w *world) lateHead(t *testing.T) {
	c := w.secure("a.example.com", "http/1.1")
	_, _ = io.WriteString(c, "GET / HTTP/1.1\r\n")
	if line, err := bufio.NewReader(c).ReadString('\n'); !strings.Contains(line, " 408 ") {
		t.Errorf("half a head is answered with %q, %v", line, err)
	}
}
