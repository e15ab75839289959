package app

import (
	"bufio"
	"fmt"
	"io"
	"net/http"
	"strings"
	"testing"
	"time"
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
				w.headTimeout = 500 * time.Millisecond
				w.vault = keysOf(t, "other.example.com")
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

// lateHead sends half a head, and returns when it was told that the rest is late.
func (w *world) lateHead(t *testing.T) {
	c := w.secure("a.example.com", "http/1.1")
	_, _ = io.WriteString(c, "GET / HTTP/1.1\r\n")
	if line, err := bufio.NewReader(c).ReadString('\n'); !strings.Contains(line, " 408 ") {
		t.Errorf("half a head is answered with %q, %v", line, err)
	}
}
