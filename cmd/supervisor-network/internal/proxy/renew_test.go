package proxy

import (
	"context"
	"crypto/tls"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/splitpod/splitpod/cmd/supervisor-network/internal/decide"
	"github.com/splitpod/splitpod/cmd/supervisor-network/internal/http1"
	"github.com/splitpod/splitpod/cmd/supervisor-network/internal/inject/seal/sealtest"
	"github.com/splitpod/splitpod/cmd/supervisor-network/internal/inspect/hold"
	"github.com/splitpod/splitpod/cmd/supervisor-network/internal/record"
	"github.com/splitpod/splitpod/cmd/supervisor-network/internal/relay/h2"
)

// TestAReplacedValueGoesInAnew: a value that is replaced between sealing and sending
// fails no request. Everything is made anew of what came, and noted once; what has no
// value any more is refused.
func TestAReplacedValueGoesInAnew(t *testing.T) {
	snap, permit := sealtest.Permit(t, ", protocol: rest, access: full, enforcement: enforce, request_body_credential_rewrite: true")
	v, g := keysOf(t, "api.test"), &grant{snap: snap, permit: permit}
	s := &session{p: &Path{Vault: v}, grant: g, ev: &record.Entry{}, defaultPort: 443, tunnel: true}
	body := `{"k":"` + marker + `"}`
	req := &http1.Request{Method: "POST", Target: "/" + marker + "?q=" + marker, Minor: 1, Framing: http1.Framing{Kind: http1.Length, Length: int64(len(body))},
		Fields: http1.Fields{{Name: "Authorization", Value: "Bearer " + marker}, {Name: "Content-Type", Value: "application/json"}}}
	in := &incoming{method: "POST", path: "/[CREDENTIAL]", body: hold.Body{Held: hold.Holding{Of: hold.New(hold.Max)}}}
	in.endpoint, _ = g.snap.Endpoint(g.permit, in.path)
	target := http1.Target{Host: "api.test", Port: 443, Path: "/" + marker, Query: "?q=" + marker}
	sent, refused := s.seal(t.Context(), req, &target, in, func(int) ([]byte, error) { return []byte(body), nil })
	if refused != nil {
		t.Fatal(refused)
	}
	check := func(sent *http1.Request, target http1.Target, refused *refusal, value string) {
		t.Helper()
		if refused != nil {
			t.Fatal(refused)
		}
		auth, _ := sent.Fields.Get("Authorization")
		if diff := cmp.Diff([]string{"Bearer " + value, "/" + value, "?q=" + value, `{"k":"` + value + `"}`}, []string{auth, target.Path, target.Query, string(in.body.Content)}); diff != "" {
			t.Error(diff)
		}
		if cleaned := in.sealed.Interim(http.Header{"X": {value}}); strings.Contains(cleaned.Get("X"), value) {
			t.Errorf("an echo of %s is not found", value)
		}
	}
	check(sent, target, nil, "REALvalue12345")
	file := v.Current().List()[0].Source
	for _, value := range []string{"REALother12345", "REALthird12345"} {
		sealtest.Write(t, file, value)
		v.Store.Reload()
		again, anew, refused := s.renewed(t.Context(), sent, target, in)
		check(again, anew, refused, value)
		before := in.sealed
		if _, _, refused = s.renewed(t.Context(), again, anew, in); refused != nil || in.sealed != before {
			t.Errorf("what did not change is made anew, %v", refused)
		}
		sent, target = again, anew
	}
	if err := os.Remove(file); err != nil {
		t.Fatal(err)
	}
	v.Store.Reload()
	if _, _, refused := s.renewed(t.Context(), sent, target, in); answered(refused) != 500 {
		t.Errorf("without a value: %v", refused)
	}
}

// TestTheNewestValueGoesInWhenThereIsAPlace: a request to an origin of HTTP/2 waits for a
// connection, and the key is replaced, or loses its value, meanwhile.
func TestTheNewestValueGoesInWhenThereIsAPlace(t *testing.T) {
	const host = "api.example.com"
	for _, newer := range []bool{false, true} {
		for _, length := range []int64{0, 4, -1} {
			for _, value := range []string{"REALother12345", ""} {
				t.Run(fmt.Sprintf("HTTP2 %v length %d to %s", newer, length, value), func(t *testing.T) {
					w := newWorld(t, generous, endpoint(host, 443, ", protocol: rest, enforcement: enforce, access: full"))
					w.Vault = keysOf(t, host)
					came := make(chan string, 4)
					w.origin(host, 443, http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
						body, _ := io.ReadAll(r.Body)
						came <- r.Header.Get("Authorization") + " " + string(body)
					}), "h2")
					dial := w.newer.Dial
					w.newer.Dial = func(ctx context.Context, p decide.Permit) (*tls.Conn, error) {
						sealtest.Write(t, w.Vault.Current().List()[0].Source, value)
						w.Vault.Store.Reload()
						return dial(ctx, p)
					}
					w.HTTP2 = h2.New(w.newer)
					sent := "body"[:max(length, -4*length)]
					req, err := http.NewRequestWithContext(t.Context(), http.MethodPost, "https://"+host+"/", io.NopCloser(strings.NewReader(sent)))
					if err != nil {
						t.Fatal(err)
					}
					req.ContentLength = length
					if length == 0 {
						req.Body = http.NoBody
					}
					req.Header.Set("Authorization", "Bearer "+marker)
					resp, err := w.client(newer).Do(req)
					if err != nil {
						t.Fatal(err)
					}
					resp.Body.Close()
					if value == "" {
						if resp.StatusCode != 500 || len(came) > 0 {
							t.Errorf("without a value: %s, %d requests came", resp.Status, len(came))
						}
						return
					}
					if resp.StatusCode != 200 {
						t.Fatal(resp.Status)
					}
					if got := <-came; got != "Bearer "+value+" "+sent {
						t.Errorf("the origin got %q", got)
					}
				})
			}
		}
	}
}

// TestAHandshakeTakesTheNewestValue: a key is replaced, or loses its value, while a
// WebSocket waits for the connection to its origin. The forms of HTTP/1.1 and HTTP/2 come
// to the same.
func TestAHandshakeTakesTheNewestValue(t *testing.T) {
	const host = "api.example.com"
	for form, newer := range map[string]bool{"HTTP/1.1": false, "HTTP/2": true} {
		for value, want := range map[string]string{"REALother12345": "200", "": "500"} {
			t.Run(fmt.Sprintf("%s to %q", form, value), func(t *testing.T) {
				w := newWorld(t, generous, endpoint(host, 443, ", protocol: rest, enforcement: enforce, access: full"))
				w.Vault = keysOf(t, host)
				came := make(chan *http.Request, 2)
				var replaces atomic.Bool
				w.originThatSees(host, func() {
					if replaces.Load() {
						sealtest.Write(t, w.Vault.Current().List()[0].Source, value)
						w.Vault.Store.Reload()
					}
				}, http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) {
					if r.URL.Path == "/no" { // on the connection that the tunnel was opened with
						rw.Header().Set("Connection", "close")
						http.Error(rw, "no", http.StatusForbidden)
						return
					}
					echoes(t, came).ServeHTTP(rw, r)
				}))
				ask := w.asker(host, newer)
				if got := ask("/no", "Bearer "+marker); !strings.HasPrefix(got, "403 ") {
					t.Fatalf("the first is answered %s", got)
				}
				replaces.Store(true)
				if got := ask("/chat", "Bearer "+marker); !strings.HasPrefix(got, want) {
					t.Errorf("answered %s, want %s", got, want)
				}
				close(came)
				r := <-came
				if value == "" && r != nil {
					t.Error("without a value it came to the origin")
				}
				if value != "" && (r == nil || r.Header.Get("Authorization") != "Bearer "+value || r.Header.Get("Te") != "" || r.Method != http.MethodGet) {
					t.Errorf("the origin got %v", r)
				}
			})
		}
	}
}

// asker is a client that asks for WebSockets, on one connection.
func (w *world) asker(host string, newer bool) func(path, authorization string) string {
	if newer {
		c := w.streams(host)
		return func(path, authorization string) string { return c.verdict(host, path, "authorization", authorization) }
	}
	c := w.client(false)
	return func(path, authorization string) string {
		return w.verdict(c, host, path, [2]string{"authorization", authorization})
	}
}

// originThatSees is an origin of HTTP/1.1 that calls met for each connection, before its
// handshake.
func (w *world) originThatSees(host string, met func(), handler http.Handler) {
	s := httptest.NewUnstartedServer(handler)
	s.Config.ErrorLog = slog.NewLogLogger(slog.DiscardHandler, 0)
	s.Config.ConnState = func(_ net.Conn, state http.ConnState) {
		if state == http.StateNew {
			met()
		}
	}
	s.TLS = &tls.Config{NextProtos: []string{"http/1.1"}}
	s.StartTLS()
	w.t.Cleanup(s.Close)
	w.lead(host, 443, s.Listener.Addr().String())
}
