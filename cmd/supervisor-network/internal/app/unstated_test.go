package app

import (
	"crypto/tls"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
)

// TestAnUploadWithoutALengthGoesInHTTP2 to origins that speak it, and to others in chunks;
// whether one does is asked once.
func TestAnUploadWithoutALengthGoesInHTTP2(t *testing.T) {
	for _, tc := range []struct {
		rule      string
		protocols []string
		hangsUp   bool // at whoever offers HTTP/2 alone
		stated    bool
		want      string
		dials     int64 // of two uploads, besides the tunnel's
	}{
		{"an origin of both", []string{"h2", "http/1.1"}, false, false, "HTTP/2.0 [] -1 hello", 1},
		{"a stated length", []string{"h2", "http/1.1"}, false, true, "HTTP/1.1 [] 5 hello", 0},
		{"an origin of HTTP/1.1", []string{"http/1.1"}, false, false, "HTTP/1.1 [chunked] -1 hello", 1},
		{"one that knows no names of protocols", nil, false, false, "HTTP/1.1 [chunked] -1 hello", 1},
		{"one that hangs up", []string{"http/1.1"}, true, false, "HTTP/1.1 [chunked] -1 hello", 2},
	} {
		t.Run(tc.rule, func(t *testing.T) {
			w := newWorld(t, generous, endpoint("a.example.com", 443, ", protocol: rest, access: full"))
			s := httptest.NewUnstartedServer(http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) {
				body, _ := io.ReadAll(r.Body)
				fmt.Fprintf(rw, "%s %v %d %s", r.Proto, r.TransferEncoding, r.ContentLength, body)
			}))
			s.EnableHTTP2 = len(tc.protocols) == 2
			s.TLS = &tls.Config{GetConfigForClient: func(hello *tls.ClientHelloInfo) (*tls.Config, error) {
				if tc.hangsUp && len(hello.SupportedProtos) == 1 && hello.SupportedProtos[0] == "h2" {
					hello.Conn.Close()
				}
				config := s.TLS.Clone()
				config.GetConfigForClient, config.NextProtos = nil, tc.protocols
				return config, nil
			}}
			s.Config.ErrorLog = slog.NewLogLogger(slog.DiscardHandler, 0)
			s.StartTLS()
			defer s.Close()
			w.lead("a.example.com", 443, strings.TrimPrefix(s.URL, "https://"))
			client := w.client(true)
			for range 2 {
				r, err := http.NewRequestWithContext(t.Context(), "POST", "https://a.example.com/", io.MultiReader(strings.NewReader("hello")))
				if err != nil {
					t.Fatal(err)
				}
				if tc.stated {
					r.ContentLength = 5
				}
				resp, err := client.Do(r)
				if err != nil {
					t.Fatal(err)
				}
				body, err := io.ReadAll(resp.Body)
				resp.Body.Close()
				if err != nil || string(body) != tc.want {
					t.Errorf("it got %q, %v, want %q", body, err, tc.want)
				}
			}
			if dials := w.dials.Load() - 1; dials != tc.dials {
				t.Errorf("%d more connections, want %d", dials, tc.dials)
			}
		})
	}
}
