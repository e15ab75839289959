package proxy

import (
	"net/http"
	"net/http/httptest"
	"testing"

	"golang.org/x/net/http2"
)

//lint:file-ignore SA1019 a client of net/http, which the deprecations lead to, makes another connection by itself

// TestAConnectionThatLeadsNowhereGoesAway: calls that wait for their server wait for a
// connection. Other requests want to be told.
func TestAConnectionThatLeadsNowhereGoesAway(t *testing.T) {
	for contentType, goes := range map[string]bool{"application/grpc": true, "text/plain": false} {
		t.Run(contentType, func(t *testing.T) {
			w := newWorld(t, generous, endpoint("a.example.com", 443, ", protocol: rest, access: full"))
			s := httptest.NewUnstartedServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) {}))
			s.EnableHTTP2 = true
			s.StartTLS()
			defer s.Close()
			w.lead("a.example.com", 443, s.Listener.Addr().String())
			h2, err := new(http2.Transport).NewClientConn(w.secure("a.example.com", "h2"))
			if err != nil {
				t.Fatal(err)
			}
			call := func() (status int) {
				req, err := http.NewRequest("POST", "https://a.example.com/", nil)
				if err != nil {
					t.Fatal(err)
				}
				req.Header.Set("Content-Type", contentType)
				resp, err := h2.RoundTrip(req)
				if err != nil {
					return 0
				}
				resp.Body.Close()
				return resp.StatusCode
			}
			if status := call(); status != 200 || !h2.CanTakeNewRequest() {
				t.Errorf("while the origin is there: %d", status)
			}
			s.CloseClientConnections()
			s.Close()
			if goes {
				w.until("the connection goes away", func() bool { call(); return !h2.CanTakeNewRequest() })
				return
			}
			w.until("the origin is gone", func() bool { return call() == 502 })
			if status := call(); status != 502 || !h2.CanTakeNewRequest() {
				t.Errorf("the next request: %d", status)
			}
		})
	}
}
