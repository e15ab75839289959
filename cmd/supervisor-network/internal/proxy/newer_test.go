package proxy

import (
	"bufio"
	"fmt"
	"io"
	"net/http"
	"strings"
	"testing"
	"time"
)

// TestAnOriginThatSpokeHTTP2OnlyIsAskedAnew when it speaks it no more: one request is lost
// by that, and not all that come while somebody is connected. A WebSocket always asks.
func TestAnOriginThatSpokeHTTP2OnlyIsAskedAnew(t *testing.T) {
	for _, newer := range []bool{false, true} {
		t.Run(fmt.Sprintf("HTTP/2 %v", newer), func(t *testing.T) {
			w := newWorld(t, generous, endpoint("a.example.com", 443, ", protocol: rest, access: full"))
			c := w.client(newer)
			for i, want := range []struct {
				protocol string
				status   int
			}{{"h2", 200}, {"http/1.1", 502}, {"http/1.1", 200}, {"h2", 200}} {
				w.origin("a.example.com", 443, http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) {
					rw.Header().Set("Connection", "close") // nothing is kept
				}), want.protocol)
				if status := send(t, c, "GET", "https://a.example.com/"); status != want.status {
					t.Errorf("request %d, in %s: status %d, want %d", i+1, want.protocol, status, want.status)
				}
			}
		})
	}
}

// TestWhoseFaultAnExchangeIsDoesNotDependOnItsOrigin: one that speaks nothing but HTTP/2
// is told apart from its client as one of HTTP/1.1 is.
func TestWhoseFaultAnExchangeIsDoesNotDependOnItsOrigin(t *testing.T) {
	const post = "POST /%s HTTP/1.1\r\nHost: a.example.com\r\n"
	for name, tc := range map[string]struct {
		request string
		finish  bool // the client ends its side behind it
		status  int
		reason  string
	}{
		"a body that breaks its framing": {fmt.Sprintf(post, "read") + "Transfer-Encoding: chunked\r\n\r\n5\r\nhello\r\nnonsense\r\n", false, 400, "bad_request"},
		"a body that breaks off":         {fmt.Sprintf(post, "read") + "Content-Length: 10\r\n\r\nhello", true, 400, "bad_request"},
		"a body that does not go on":     {fmt.Sprintf(post, "read") + "Content-Length: 10\r\n\r\nhello", false, 408, "request_timeout"},
		"an origin that does not answer": {fmt.Sprintf(post, "silent") + "Content-Length: 5\r\n\r\nhello", false, 504, "upstream_timeout"},
		"an origin that does not go on":  {fmt.Sprintf(post, "begin") + "Content-Length: 5\r\n\r\nhello", false, 200, "upstream_timeout"},
		"an origin that breaks off":      {fmt.Sprintf(post, "break") + "Content-Length: 5\r\n\r\nhello", false, 200, "upstream_invalid_response"},
	} {
		for _, protocol := range []string{"h2", "http/1.1"} {
			t.Run(name+", "+protocol, func(t *testing.T) {
				w := newWorld(t, 600*time.Millisecond, endpoint("a.example.com", 443, ""))
				over, begun := make(chan bool, 1), make(chan bool)
				w.origin("a.example.com", 443, http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) {
					defer func() { over <- true }()
					_, _ = io.Copy(io.Discard, r.Body)
					if r.URL.Path == "/begin" || r.URL.Path == "/break" {
						_, _ = io.WriteString(rw, "begin")
						_ = http.NewResponseController(rw).Flush()
					}
					if r.URL.Path == "/break" {
						<-begun
						panic(http.ErrAbortHandler)
					}
					<-r.Context().Done()
				}), protocol)
				c := w.secure("a.example.com", "http/1.1")
				_, _ = io.WriteString(c, tc.request)
				if tc.finish {
					_ = c.CloseWrite()
				}
				resp, err := http.ReadResponse(bufio.NewReader(c), &http.Request{Method: "POST"})
				if err != nil {
					t.Fatal(err)
				}
				close(begun)
				_, err = io.ReadAll(resp.Body)
				if resp.StatusCode != tc.status || (err == nil) != (tc.status != 200) {
					t.Errorf("%s, %v", resp.Status, err)
				}
				w.until("a record that says why", func() bool {
					return strings.Contains(fmt.Sprint(w.records.list()), `"`+tc.reason+`"`)
				})
				<-over
			})
		}
	}
}

// TestAPathThatNoRuleReadsIsTheOriginsWhateverItSpeaks: the path arrives as it was sent, from
// a client of either version of HTTP at an origin of either.
func TestAPathThatNoRuleReadsIsTheOriginsWhateverItSpeaks(t *testing.T) {
	for _, protocol := range []string{"h2", "http/1.1"} {
		w := newWorld(t, generous, endpoint("a.example.com", 443, ""))
		got := make(chan string, 1)
		w.origin("a.example.com", 443, http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) { got <- r.RequestURI }), protocol)
		c := w.secure("a.example.com", "http/1.1")
		r := bufio.NewReader(c)
		for _, target := range []string{"/a", "//a//b", "//a.example.com/secret", "//evil.test/%7e%41?", "//a.example.com", "/a;b//../c", "/a|b", "//a|b"} {
			_, _ = io.WriteString(c, "GET "+target+" HTTP/1.1\r\nHost: a.example.com\r\n\r\n")
			resp, err := http.ReadResponse(r, nil)
			if err != nil {
				t.Fatal(err)
			}
			if _, err := io.ReadAll(resp.Body); err != nil || resp.StatusCode != 200 {
				t.Errorf("%s: %s is answered %s, %v", protocol, target, resp.Status, err)
				c = w.secure("a.example.com", "http/1.1")
				r = bufio.NewReader(c)
			} else if sent := <-got; sent != target {
				t.Errorf("%s: %s is sent as %s", protocol, target, sent)
			}
		}
	}
}
