package proxy

import (
	"bufio"
	"fmt"
	"io"
	"net/http"
	"net/http/httptrace"
	"strings"
	"testing"
)

// TestAClientThatWaitsForLeaveGetsIt when the body is wanted, once, and not when the
// answer comes without it.
func TestAClientThatWaitsForLeaveGetsIt(t *testing.T) {
	const judged = ", protocol: json-rpc, enforcement: enforce, rules: [{allow: {method: ping}}]"
	const call = `{"jsonrpc":"2.0","id":1,"method":"ping"}`
	for _, protocol := range []string{"h2", "http/1.1"} {
		for name, tc := range map[string]struct {
			endpoint, path string
			minor, interim int
			want           string
		}{
			"the origin reads it":         {", protocol: rest, access: full", "/read", 1, 1, "200 " + call},
			"a rule reads it":             {judged, "/read", 1, 1, "200 " + call},
			"nobody reads it":             {", protocol: rest, access: full", "/refuse", 1, 0, "413 no"},
			"a client that knows no such": {", protocol: rest, access: full", "/read", 0, 0, "200 " + call},
		} {
			t.Run(protocol+", "+name, func(t *testing.T) {
				w := newWorld(t, generous, endpoint("a.example.com", 443, tc.endpoint))
				w.origin("a.example.com", 443, http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) {
					if r.URL.Path == "/refuse" {
						http.Error(rw, "no", http.StatusRequestEntityTooLarge)
						return
					}
					body, _ := io.ReadAll(r.Body)
					_, _ = rw.Write(body)
				}), protocol)
				c := w.secure("a.example.com", "http/1.1")
				fmt.Fprintf(c, "POST %s HTTP/1.%d\r\nHost: a.example.com\r\nContent-Type: application/json\r\nContent-Length: %d\r\nExpect: 100-continue\r\n\r\n", tc.path, tc.minor, len(call))
				r := bufio.NewReader(c)
				if tc.minor == 0 {
					fmt.Fprint(c, call)
				}
				resp, err := http.ReadResponse(r, nil)
				for n := 0; err == nil && (resp.StatusCode == 100 || n < tc.interim); n++ {
					if resp.StatusCode != 100 || n == tc.interim {
						t.Fatalf("response %d: %s", n, resp.Status)
					}
					fmt.Fprint(c, call)
					resp, err = http.ReadResponse(r, nil)
				}
				if err != nil {
					t.Fatal(err)
				}
				body, err := io.ReadAll(resp.Body)
				if got := fmt.Sprintf("%d %s", resp.StatusCode, strings.TrimSpace(string(body))); err != nil || got != tc.want {
					t.Errorf("%s, %v, want %s", got, err, tc.want)
				}
			})
		}
	}
}

// TestAClientOfHTTP2ThatWaitsForLeaveGetsIt, too, unless its request is refused.
func TestAClientOfHTTP2ThatWaitsForLeaveGetsIt(t *testing.T) {
	const host, call = "a.example.com", `{"jsonrpc":"2.0","id":1,"method":"ping"}`
	for _, protocol := range []string{"h2", "http/1.1"} {
		for name, tc := range map[string]struct {
			endpoint string
			status   int
			interim  string
		}{
			"the origin reads it": {", protocol: rest, enforcement: enforce, access: full", 200, "100"},
			"a rule reads it":     {", protocol: json-rpc, enforcement: enforce, rules: [{allow: {method: ping}}]", 200, "100"},
			"nobody reads it":     {", protocol: rest, enforcement: enforce, access: read-only", 403, ""},
		} {
			t.Run(protocol+", "+name, func(t *testing.T) {
				w := newWorld(t, generous, endpoint(host, 443, tc.endpoint))
				w.origin(host, 443, http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) {
					if body, _ := io.ReadAll(r.Body); string(body) != call {
						t.Errorf("the origin got %q", body)
					}
				}), protocol)
				var interim string
				ctx := httptrace.WithClientTrace(t.Context(), &httptrace.ClientTrace{Got100Continue: func() { interim += "100" }})
				req, err := http.NewRequestWithContext(ctx, "POST", "https://"+host+"/", strings.NewReader(call))
				if err != nil {
					t.Fatal(err)
				}
				req.Header = http.Header{"Content-Type": {"application/json"}, "Expect": {"100-continue"}}
				client := w.client(true)
				client.Transport.(*http.Transport).ExpectContinueTimeout = 2 * generous // longer than it may take
				resp, err := client.Do(req)
				if err != nil {
					t.Fatal(err)
				}
				resp.Body.Close()
				if resp.StatusCode != tc.status || interim != tc.interim {
					t.Errorf("%s behind %q", resp.Status, interim)
				}
			})
		}
	}
}
