package proxy

import (
	"context"
	"encoding/base64"
	"fmt"
	"io"
	"net/http"
	"net/http/httptrace"
	"net/textproto"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// TestInterimResponsesPass, cleaned as answers are, in every combination of versions.
func TestInterimResponsesPass(t *testing.T) {
	const host = "api.example.com"
	for _, client := range []bool{false, true} {
		for _, origin := range []string{"http/1.1", "h2"} {
			t.Run(fmt.Sprintf("to HTTP/2 %t from %s", client, origin), func(t *testing.T) {
				w := newWorld(t, generous, endpoint(host, 443, ", protocol: rest, enforcement: enforce, access: full"))
				w.Vault = keysOf(t, host)
				w.origin(host, 443, http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) {
					key := strings.TrimPrefix(r.Header.Get("Authorization"), "Bearer ")
					for name, value := range map[string]string{"Link": "</style.css>; rel=preload", "X-Echo": key, "Alt-Svc": `h3=":443"`, "Connection": "x-hop", "X-Hop": "1", "Set-Cookie": "k=" + key} {
						rw.Header().Set(name, value)
					}
					rw.WriteHeader(http.StatusEarlyHints)
					clear(rw.Header())
					rw.WriteHeader(http.StatusProcessing)
					rw.Header().Set("X-Last", "1")
					_, _ = io.WriteString(rw, "done")
				}), origin)
				var told []string
				resp := w.traced(client, host, &told)
				if resp.StatusCode != 200 || resp.Header.Get("X-Last") != "1" || resp.Header.Get("Link")+resp.Header.Get("X-Echo") != "" {
					t.Errorf("answered %s %v", resp.Status, resp.Header)
				}
				want := []string{fmt.Sprint(103, map[string][]string{"Link": {"</style.css>; rel=preload"}, "X-Echo": {marker}, "Set-Cookie": {"k=" + marker}}), "102 map[]"}
				if diff := cmp.Diff(want, told); diff != "" {
					t.Error(diff)
				}
			})
		}
	}
}

// traced makes a request, with more fields, and notes the interim responses to it.
func (w *world) traced(http2 bool, host string, told *[]string, more ...string) *http.Response {
	w.t.Helper()
	ctx := httptrace.WithClientTrace(w.t.Context(), &httptrace.ClientTrace{Got1xxResponse: func(code int, h textproto.MIMEHeader) error {
		*told = append(*told, fmt.Sprint(code, map[string][]string(h)))
		return nil
	}})
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, "https://"+host+"/", nil)
	if err != nil {
		w.t.Fatal(err)
	}
	req.Header.Set("Authorization", "Bearer "+marker)
	for i := 0; i < len(more); i += 2 {
		req.Header.Set(more[i], more[i+1])
	}
	resp, err := w.client(http2).Do(req)
	if err != nil {
		w.t.Fatal(err)
	}
	defer resp.Body.Close()
	if _, err := io.Copy(io.Discard, resp.Body); err != nil {
		w.t.Error(err)
	}
	return resp
}

// TestInterimResponsesWithoutEndAreNoAnswer, nor does one switch protocols unasked.
func TestInterimResponsesWithoutEndAreNoAnswer(t *testing.T) {
	const host, most = "api.example.com", 16
	hint := "HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\n"
	for _, client := range []bool{false, true} {
		for rule, c := range map[string]struct {
			says   string
			status int
			told   int
		}{
			"as many as may be":    {strings.Repeat(hint, most) + "HTTP/1.1 204 No Content\r\n\r\n", 204, most},
			"one more":             {strings.Repeat(hint, most+1) + "HTTP/1.1 204 No Content\r\n\r\n", 502, most + 1},
			"a thousand":           {strings.Repeat(hint, 1000), 502, most + 1},
			"an unasked upgrade":   {hint + "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: h2c\r\n\r\n", 502, 1},
			"too large":            {"HTTP/1.1 103 Early Hints\r\nLink: " + strings.Repeat("a", 16<<10) + "\r\n\r\n", 502, 0},
			"with a second answer": {"HTTP/1.1 103 Early Hints\r\nContent-Length: 40\r\nTransfer-Encoding: chunked\r\n\r\n", 502, 0},
		} {
			t.Run(fmt.Sprintf("to HTTP/2 %t %s", client, rule), func(t *testing.T) {
				w := newWorld(t, generous, endpoint(host, 443, ", protocol: rest, enforcement: enforce, access: full"))
				w.Vault = keysOf(t, host)
				w.origin(host, 443, http.HandlerFunc(func(rw http.ResponseWriter, _ *http.Request) {
					conn, _, err := http.NewResponseController(rw).Hijack()
					if err != nil {
						t.Error(err)
						return
					}
					_, _ = io.WriteString(conn, c.says)
					_, _ = io.Copy(io.Discard, conn)
					conn.Close()
				}), "http/1.1")
				var told []string
				if resp := w.traced(client, host, &told); resp.StatusCode != c.status || len(told) != c.told {
					t.Errorf("answered %s behind %d", resp.Status, len(told))
				}
			})
		}
	}
}

// TestAWebSocketIsToldNothingBefore: what an origin says before it opens one is no answer to
// an extended CONNECT.
func TestAWebSocketIsToldNothingBefore(t *testing.T) {
	const host = "chat.example.com"
	w := newWorld(t, generous, endpoint(host, 443, anyText))
	w.origin(host, 443, http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) {
		rw.WriteHeader(http.StatusEarlyHints)
		echoes(t, nil).ServeHTTP(rw, r.WithContext(context.WithoutCancel(r.Context())))
	}), "http/1.1")
	c := w.streams(host)
	s := c.open(host, "/chat")
	c.say(s, 0x81, "hello")
	if _, said := c.hear(s); said != "hello" {
		t.Errorf("it says %q", said)
	}
}

// TestTrailersOfAnswers pass to clients of HTTP/2, and to those of HTTP/1.1 that say they
// take them, without those that would be of the head, and cleaned as it is.
func TestTrailersOfAnswers(t *testing.T) {
	const host = "api.example.com"
	for _, origin := range []string{"http/1.1", "h2"} {
		for client, c := range map[string]struct {
			http2 bool
			te    []string
			takes bool
		}{
			"HTTP/1.1":                    {false, nil, false},
			"HTTP/1.1 that takes others":  {false, []string{"Te", "gzip"}, false},
			"HTTP/1.1 that takes them":    {false, []string{"Te", "deflate;q=0.5, trailers"}, true},
			"HTTP/1.1 that says it twice": {false, []string{"Te", "trailers", "Connection", "TE"}, true},
			"HTTP/2":                      {true, nil, true},
			"HTTP/2 that says it":         {true, []string{"Te", "trailers"}, true},
		} {
			t.Run(fmt.Sprintf("from %s to %s", origin, client), func(t *testing.T) {
				w := newWorld(t, generous, endpoint(host, 443, ", protocol: rest, enforcement: enforce, access: full"))
				w.Vault = keysOf(t, host)
				w.origin(host, 443, http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) {
					if takes := c.takes && (origin == "h2" || !c.http2) && c.te != nil; (r.Header.Get("Te") == "trailers") != takes {
						t.Errorf("the origin is told %q", r.Header["Te"])
					}
					key := strings.TrimPrefix(r.Header.Get("Authorization"), "Bearer ")
					rw.Header().Set("Trailer", "X-Sum, X-Echo, "+base64.StdEncoding.EncodeToString([]byte(key)))
					_, _ = io.WriteString(rw, "done")
					rw.Header().Set("X-Sum", "1")
					rw.Header().Set("X-Echo", key)
					for name, value := range map[string]string{"Content-Length": "999", "Transfer-Encoding": "chunked", "Set-Cookie": "k=" + key, "Www-Authenticate": "Basic", "Alt-Svc": "h3", "X-Late": "2"} {
						rw.Header().Set(http.TrailerPrefix+name, value)
					}
				}), origin)
				resp := w.traced(c.http2, host, new([]string), c.te...)
				want := http.Header(nil)
				if c.takes {
					want = http.Header{"X-Sum": {"1"}, "X-Echo": {marker}, "X-Late": {"2"}}
				}
				if diff := cmp.Diff(want, resp.Trailer); diff != "" || resp.StatusCode != 200 {
					t.Errorf("%s\n%s", resp.Status, diff)
				}
			})
		}
	}
}

// TestGRPCWebNeedsNoHTTP2: it was made for what browsers have. gRPC itself needs it.
func TestGRPCWebNeedsNoHTTP2(t *testing.T) {
	const host = "api.example.com"
	for kind, want := range map[string]string{"application/grpc-web+proto": "", "application/grpc-web-text": "", "application/grpc": "14", "application/grpc+proto": "14"} {
		t.Run(kind, func(t *testing.T) {
			w := newWorld(t, generous, endpoint(host, 443, ", protocol: rest, enforcement: enforce, access: full"))
			w.origin(host, 443, http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) {
				rw.Header().Set("Content-Type", r.Header.Get("Content-Type"))
				_, _ = io.Copy(rw, r.Body)
			}), "http/1.1")
			for range 2 {
				resp, err := w.client(true).Post("https://"+host+"/pkg.Service/Method", kind, strings.NewReader("call"))
				if err != nil {
					t.Fatal(err)
				}
				body, err := io.ReadAll(resp.Body)
				resp.Body.Close()
				if got := resp.Header.Get("Grpc-Status"); err != nil || got != want || (string(body) == "call") != (want == "") {
					t.Errorf("%s %v %q %v", resp.Status, resp.Header, body, err)
				}
			}
		})
	}
}
