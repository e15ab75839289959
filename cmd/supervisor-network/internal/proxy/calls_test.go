package proxy

import (
	"io"
	"net"
	"net/http"
	"net/url"
	"strings"
	"testing"
	"time"
)

// TestACallThatFailsSaysWhy in a status and a message of gRPC, whoever kept it from its
// answer, and under the id of its record.
func TestACallThatFailsSaysWhy(t *testing.T) {
	const host = "a.example.com"
	for name, c := range map[string]struct {
		method string
		whole  bool // is what the client sends
		places int
		status string
		reason string
	}{
		"a rule":                       {"Denied", true, 9, "7", "policy_denied"},
		"a path with two readings":     {"..%2fOpen", true, 9, "13", "invalid_request_target"},
		"other streams":                {"Open", true, 0, "14", "too_many_connections"},
		"an origin that says nothing":  {"Open", true, 9, "14", "upstream_timeout"},
		"an origin that resets it":     {"Reset", true, 9, "13", "upstream_invalid_response"},
		"an origin that hangs up":      {"Gone", true, 9, "14", "upstream_tls_failed"},
		"a client that does not go on": {"Open", false, 9, "2", "request_timeout"},
	} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t, 600*time.Millisecond, endpoint(host, 443, ", protocol: rest, enforcement: enforce, rules: [{allow: {method: POST, path: /s/*}}], deny_rules: [{method: POST, path: /s/Denied}]"))
			w.Places = NewPlaces(c.places)
			w.origin(host, 443, http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) {
				_, _ = io.Copy(io.Discard, r.Body)
				if r.URL.Path == "/s/Reset" {
					panic(http.ErrAbortHandler)
				}
				<-r.Context().Done()
			}), "h2")
			if c.method == "Gone" {
				w.lead(host, 443, hangsUp(t))
			}
			body, sends := io.Pipe()
			defer sends.Close()
			go func() {
				_, _ = io.WriteString(sends, "\x00\x00\x00\x00\x00")
				if c.whole {
					sends.Close()
				}
			}()
			req := (&http.Request{Method: "POST", URL: &url.URL{Scheme: "https", Host: host, Opaque: "//" + host + "/s/" + c.method}, Body: body, ContentLength: -1,
				Header: http.Header{"Content-Type": {"application/grpc"}, "Te": {"trailers"}}}).WithContext(t.Context())
			resp, err := w.client(true).Do(req)
			if err != nil {
				t.Fatal(err)
			}
			defer resp.Body.Close()
			h := resp.Header
			if resp.StatusCode != 200 || h.Get("Grpc-Status") != c.status || !strings.HasPrefix(h.Get("Grpc-Message"), c.reason+": ") {
				t.Errorf("%s %v", resp.Status, h)
			}
			if record := w.recorded(t, `"request_id":"`+h.Get("X-Splitpod-Request-Id")+`"`); !strings.Contains(record, `"reason":"`+c.reason+`"`) {
				t.Errorf("recorded %s", record)
			}
		})
	}
}

// hangsUp is the address of a server that ends every connection.
func hangsUp(t *testing.T) string {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	go func() {
		for c, err := l.Accept(); err == nil; c, err = l.Accept() {
			c.Close()
		}
	}()
	return l.Addr().String()
}
