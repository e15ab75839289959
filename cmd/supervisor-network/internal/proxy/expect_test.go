package proxy

import (
	"bufio"
	"fmt"
	"io"
	"net/http"
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
