package proxy

import (
	"crypto/tls"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync/atomic"
	"testing"

	"golang.org/x/net/http2"
)

// TestAnUploadWithoutALengthGoesInHTTP2 to origins that speak it, and to others in chunks;
// whether one does is asked once.
func TestAnUploadWithoutALengthGoesInHTTP2(t *testing.T) {
	for _, tc := range []struct {
		rule      string
		protocols []string
		hangsUp   bool // at whoever offers HTTP/2 alone
		stated    bool
		authority string // of the client
		want      string
		dials     int64 // of two uploads, besides the tunnel's
	}{
		{"an origin of both", []string{"h2", "http/1.1"}, false, false, "Bearer x", "HTTP/2.0 [] -1 hello", 1},
		{"a stated length", []string{"h2", "http/1.1"}, false, true, "Bearer x", "HTTP/1.1 [] 5 hello", 0},
		{"one that authenticates its connection", []string{"h2", "http/1.1"}, false, false, "Negotiate x", "HTTP/1.1 [chunked] -1 hello", 1},
		{"an origin of HTTP/1.1", []string{"http/1.1"}, false, false, "Bearer x", "HTTP/1.1 [chunked] -1 hello", 1},
		{"one that knows no names of protocols", nil, false, false, "Bearer x", "HTTP/1.1 [chunked] -1 hello", 1},
		{"one that hangs up", []string{"http/1.1"}, true, false, "Bearer x", "HTTP/1.1 [chunked] -1 hello", 2},
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
				r.Header.Set("Authorization", tc.authority)
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

// upload sends hello without its length, and returns what it is answered.
func upload(t *testing.T, client *http.Client) string {
	t.Helper()
	r, err := http.NewRequestWithContext(t.Context(), "POST", "https://a.example.com/", io.MultiReader(strings.NewReader("hello")))
	if err != nil {
		t.Fatal(err)
	}
	resp, err := client.Do(r)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	return fmt.Sprint(resp.StatusCode, " ", string(body))
}

// TestAnUploadThatHasBegunGoesNowhereElse: an origin of HTTP/2 gives one back when it has
// it, and there is none of HTTP/2 any more. Without its beginning it would be another one.
func TestAnUploadThatHasBegunGoesNowhereElse(t *testing.T) {
	for _, hangsUp := range []bool{false, true} {
		t.Run(fmt.Sprintf("where it hangs up %v", hangsUp), func(t *testing.T) {
			w := newWorld(t, generous, endpoint("a.example.com", 443, ", protocol: rest, access: full"))
			var older atomic.Bool
			s := httptest.NewUnstartedServer(http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) {
				body, err := io.ReadAll(r.Body)
				fmt.Fprintf(rw, "%s %q %v", r.Proto, body, err)
			}))
			s.TLS = &tls.Config{GetConfigForClient: func(hello *tls.ClientHelloInfo) (*tls.Config, error) {
				config := s.TLS.Clone()
				config.GetConfigForClient, config.NextProtos = nil, []string{"h2", "http/1.1"}
				if older.Load() {
					config.NextProtos = config.NextProtos[1:]
				}
				if hangsUp && older.Load() && !slices.Contains(hello.SupportedProtos, "http/1.1") {
					hello.Conn.Close()
				}
				return config, nil
			}}
			s.Config.TLSNextProto = map[string]func(*http.Server, *tls.Conn, http.Handler){"h2": func(_ *http.Server, c *tls.Conn, _ http.Handler) {
				givesBack(c, func() { older.Store(true) })
			}}
			s.Config.ErrorLog = slog.NewLogLogger(slog.DiscardHandler, 0)
			s.StartTLS()
			defer s.Close()
			w.lead("a.example.com", 443, strings.TrimPrefix(s.URL, "https://"))
			client := w.client(true)
			if got := upload(t, client); !strings.HasPrefix(got, "502 ") {
				t.Errorf("the upload that had begun is answered %s", got)
			}
			if got, want := upload(t, client), `200 HTTP/1.1 "hello" <nil>`; got != want {
				t.Errorf("the next one is answered %s, want %s", got, want)
			}
		})
	}
}

// givesBack reads one upload of HTTP/2 to its end, calls had, and goes away as if it had
// not begun.
func givesBack(c net.Conn, had func()) {
	defer c.Close()
	if _, err := io.ReadFull(c, make([]byte, len(http2.ClientPreface))); err != nil {
		return
	}
	fr := http2.NewFramer(c, c)
	_ = fr.WriteSettings()
	for {
		f, err := fr.ReadFrame()
		if err != nil {
			return
		}
		if data, ok := f.(*http2.DataFrame); ok && data.StreamEnded() {
			had()
			_ = fr.WriteGoAway(0, http2.ErrCodeNo, nil)
		}
	}
}

// TestAnOriginOfHTTP2IsNotTakenForAnOlderOne because it restarts, for longer than that.
func TestAnOriginOfHTTP2IsNotTakenForAnOlderOne(t *testing.T) {
	w := newWorld(t, generous, endpoint("a.example.com", 443, ", protocol: rest, access: full"))
	s := httptest.NewUnstartedServer(http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) {
		body, _ := io.ReadAll(r.Body)
		rw.Header().Set("Connection", "close") // so that each has a connection of its own
		fmt.Fprintf(rw, "%s %s", r.Proto, body)
	}))
	l := &stopping{Listener: s.Listener}
	s.Listener, s.EnableHTTP2 = l, true
	s.Config.ErrorLog = slog.NewLogLogger(slog.DiscardHandler, 0)
	s.StartTLS()
	defer s.Close()
	w.lead("a.example.com", 443, strings.TrimPrefix(s.URL, "https://"))
	client := w.client(true)
	for i, want := range []string{"200 HTTP/2.0 hello", "200 HTTP/1.1 hello", "200 HTTP/2.0 hello"} {
		if i == 1 {
			l.ends.Store(2) // both handshakes for HTTP/2
		}
		if got := upload(t, client); got != want {
			t.Errorf("upload %d is answered %s, want %s", i, got, want)
		}
	}
}
