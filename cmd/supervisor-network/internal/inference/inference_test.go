package inference

import (
	"bufio"
	"bytes"
	"compress/gzip"
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"reflect"
	"runtime"
	"strings"
	"testing"
	"time"
	"unicode/utf8"
	"weak"

	"golang.org/x/net/http2"

	"github.com/splitpod/splitpod/pkg/core"
)

// asked makes a call of a body.
func asked(method, path, body string) *Call {
	return &Call{Method: method, Path: path, Header: http.Header{}, Body: func() ([]byte, error) { return []byte(body), nil }}
}

// opened is a Router of routes in which %s is the URL of h.
func opened(t *testing.T, cfg Config, routes string, h http.HandlerFunc) (*Router, string) {
	t.Helper()
	s := httptest.NewUnstartedServer(h)
	s.EnableHTTP2 = true
	s.StartTLS()
	t.Cleanup(s.Close)
	roots := x509.NewCertPool()
	roots.AddCert(s.Certificate())
	dir := t.TempDir()
	write(t, dir+"/routes.yaml", strings.ReplaceAll(strings.ReplaceAll(routes, "URL", s.URL), "DIR", dir))
	cfg.File, cfg.TLS, cfg.Dial = dir+"/routes.yaml", &tls.Config{RootCAs: roots}, new(net.Dialer).DialContext
	r, _, err := Open(cfg)
	if err != nil {
		t.Fatal(err)
	}
	return r, dir
}

func write(t *testing.T, path, text string) {
	t.Helper()
	if err := os.WriteFile(path+".new", []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Rename(path+".new", path); err != nil {
		t.Fatal(err)
	}
}

// TestAProviderIsSpokenToAsItsMakerSays: which field the key is in, and what goes with it.
func TestAProviderIsSpokenToAsItsMakerSays(t *testing.T) {
	var seen *http.Request
	r, dir := opened(t, Config{}, `routes:
- {name: o, endpoint: URL, model: m, api_key_file: DIR/key}
- {name: a, endpoint: URL, model: m, provider_type: anthropic, api_key_file: DIR/key}
`, func(_ http.ResponseWriter, r *http.Request) { seen = r })
	write(t, dir+"/key", "k1\n")
	r.Reload()
	call := func(path, version string) {
		c := asked(http.MethodPost, path, "{}")
		if version != "" {
			c.Header.Set("Anthropic-Version", version)
		}
		a, err := r.Make(t.Context(), c)
		if err != nil {
			t.Fatal(err)
		}
		a.Body.Close()
	}
	call("/v1/chat/completions", "x")
	if seen.Header.Get("Authorization") != "Bearer k1" || seen.Header.Get("Anthropic-Version") != "" || seen.Header.Get("User-Agent") != "" {
		t.Errorf("openai: %v", seen.Header)
	}
	call("/v1/messages", "")
	if seen.Header.Get("X-Api-Key") != "k1" || seen.Header.Get("Authorization") != "" || seen.Header.Get("Anthropic-Version") != "2023-06-01" {
		t.Errorf("anthropic: %v", seen.Header)
	}
	write(t, dir+"/key", "k2\n") // a key is replaced while the daemon runs
	r.Reload()
	call("/v1/messages", "2099-01-01")
	if seen.Header.Get("X-Api-Key") != "k2" || seen.Header.Get("Anthropic-Version") != "2099-01-01" {
		t.Errorf("anthropic, asked for a version: %v", seen.Header)
	}
}

// TestAModelIsCalledByTheRouteThatHasIt: by its name or the route's, else by the first one,
// and by the next one while nobody can be reached; never by a further one when the first
// may have it.
func TestAModelIsCalledByTheRouteThatHasIt(t *testing.T) {
	var models []string
	r, _ := opened(t, Config{}, `routes:
- {name: down, endpoint: "http://127.0.0.1:1", model: m0}
- {name: keyless, endpoint: URL, model: m9, api_key_file: DIR/none}
- {name: one, endpoint: URL, model: m1}
- {name: two, endpoint: URL, model: m2}
- {name: three, endpoint: URL, model: m3, protocols: [openai_embeddings]}
`, func(_ http.ResponseWriter, r *http.Request) {
		var body struct{ Model string }
		_ = json.NewDecoder(r.Body).Decode(&body)
		if models = append(models, body.Model); body.Model == "m2" {
			panic(http.ErrAbortHandler)
		}
	})
	for _, tc := range []struct{ ask, path, want string }{
		{`{}`, "/v1/chat/completions", "m1"},
		{`{"model":"m1"}`, "/v1/chat/completions", "m1"},
		{`{"model":"unknown"}`, "/v1/chat/completions", "m1"},
		{`{"model":7}`, "/v1/chat/completions", "m1"},
		{`{"model":"m3"}`, "/v1/chat/completions", "m1"},
		{`{"model":"three"}`, "/v1/embeddings", "m3"},
		{`{"model":"m0"}`, "/v1/embeddings", "m1"},
		{`{"model":"two"}`, "/v1/chat/completions", "m2"}, // which breaks off
	} {
		models = nil
		a, err := r.Make(t.Context(), asked(http.MethodPost, tc.path, tc.ask))
		if err == nil {
			a.Body.Close()
		}
		if fmt.Sprint(models) != "["+tc.want+"]" || (err != nil) != (tc.want == "m2") {
			t.Errorf("%s to %s: %v, %v; want %s", tc.ask, tc.path, models, err, tc.want)
		}
	}
}

// TestAnAnswerEndsWithinItsLimits: and says so, in events if it is made of them.
func TestAnAnswerEndsWithinItsLimits(t *testing.T) {
	for name, tc := range map[string]struct {
		path, media string
		pieces      int // of a MiB; -1: without end, and nothing comes
		packed      bool
		reason      core.Reason
		said        string
	}{
		"whole":                   {"/v1/chat/completions", "text/event-stream", 1, false, "", ""},
		"events stop":             {"/v1/chat/completions", "text/event-stream", -1, false, core.ReasonUpstreamTimeout, "chunk idle timeout exceeded"},
		"something else stops":    {"/v1/chat/completions", "text/plain", -1, false, core.ReasonUpstreamTimeout, ""},
		"too many events":         {"/v1/chat/completions", "text/event-stream", 33, false, core.ReasonUpstreamInvalid, "response size limit exceeded"},
		"too much of all":         {"/v1/chat/completions", "text/plain", 33, false, core.ReasonUpstreamInvalid, ""},
		"a short one stops":       {"/v1/embeddings", "application/json", -1, false, core.ReasonUpstreamTimeout, ""},
		"a short one is no more":  {"/v1/embeddings", "application/json", 1, false, "", ""},
		"too many events, packed": {"/v1/chat/completions", "text/event-stream", 33, true, core.ReasonUpstreamInvalid, "response size limit exceeded"},
		"too much, packed":        {"/v1/embeddings", "application/json", 33, true, core.ReasonUpstreamInvalid, ""},
		"events, packed":          {"/v1/chat/completions", "text/event-stream", 1, true, "", ""},
	} {
		t.Run(name, func(t *testing.T) {
			stall, timeout := time.Minute, "1m"
			if tc.pieces < 0 { // what goes on has its time on a busy machine, too
				stall, timeout = 200*time.Millisecond, "2s"
			}
			r, dir := opened(t, Config{Stall: stall}, "routes: [{name: r, endpoint: URL, model: m, api_key_file: \"DIR/key\", timeout: "+timeout+"}]", func(w http.ResponseWriter, r *http.Request) {
				w.Header().Set("Content-Type", tc.media)
				to, end := io.Writer(w), func() error { return nil }
				if tc.packed {
					w.Header().Set("Content-Encoding", "gzip")
					z := gzip.NewWriter(w)
					to, end = z, z.Close
				}
				for range max(tc.pieces, 1) {
					_, _ = to.Write(bytes.Repeat([]byte("x"), 1<<20))
				}
				_ = end()
				if _ = http.NewResponseController(w).Flush(); tc.pieces < 0 {
					<-r.Context().Done()
				}
			})
			write(t, dir+"/key", "secret-key")
			r.Reload()
			a, err := r.Make(t.Context(), asked(http.MethodPost, tc.path, "{}"))
			if err != nil {
				t.Fatal(err)
			}
			defer a.Close()
			text, err := io.ReadAll(a.Body)
			failed := a.Failed()
			if (failed == nil) != (tc.reason == "") || failed != nil && failed.Reason != tc.reason {
				t.Errorf("it failed with %+v", failed)
			}
			if events := tc.media == "text/event-stream"; (err == nil) != (events || tc.reason == "") {
				t.Errorf("its body ends with %v", err)
			}
			if len(text) > maxAnswer+200 {
				t.Errorf("%d bytes", len(text))
			}
			end := string(text[max(0, len(text)-200):])
			want := `data: {"error":{"message":"` + tc.said + `","type":"proxy_stream_error"}}` + "\n\n"
			if strings.HasSuffix(end, want) != (tc.said != "") || tc.said == "" && strings.Contains(end, "error") {
				t.Errorf("the end: %q", end)
			}
		})
	}
}

// TestAnAnswerInACodingIsReadOrRefused: where the key may be in it.
func TestAnAnswerInACodingIsReadOrRefused(t *testing.T) {
	for key, want := range map[string]core.Reason{"secret-key": core.ReasonUninspectedResponse, "": ""} {
		more := ""
		if key != "" {
			more = `, api_key_file: "DIR/key"`
		}
		r, dir := opened(t, Config{}, "routes: [{name: r, endpoint: URL, model: m"+more+"}]", func(w http.ResponseWriter, r *http.Request) {
			w.Header().Set("Content-Type", "text/event-stream")
			w.Header().Set("Content-Encoding", "br")
			_, _ = io.WriteString(w, "packed")
		})
		write(t, dir+"/key", key)
		r.Reload()
		a, err := r.Make(t.Context(), asked(http.MethodPost, "/v1/chat/completions", "{}"))
		if err == nil {
			a.Close()
		}
		e, _ := errors.AsType[*Error](err)
		if (e == nil) != (want == "") || e != nil && (e.Reason != want || e.Status != http.StatusBadGateway || !e.Failed) {
			t.Errorf("with the key %q: %+v", key, err)
		}
	}
}

// TestAStreamedAnswerGoesOnWhileSomethingComes: for longer than it may stand still.
func TestAStreamedAnswerGoesOnWhileSomethingComes(t *testing.T) {
	const stall = 2 * time.Second
	r, _ := opened(t, Config{Stall: stall}, "routes: [{name: r, endpoint: URL, model: m, timeout: 1s}]", func(w http.ResponseWriter, r *http.Request) {
		for range 5 {
			_, _ = io.WriteString(w, ".")
			_ = http.NewResponseController(w).Flush()
			time.Sleep(stall / 4)
		}
	})
	a, err := r.Make(t.Context(), asked(http.MethodPost, "/v1/chat/completions", "{}"))
	if err != nil {
		t.Fatal(err)
	}
	defer a.Close()
	if text, err := io.ReadAll(a.Body); err != nil || string(text) != "....." {
		t.Errorf("%q, %v", text, err)
	}
}

// TestAProviderThatDoesNotBeginIsNotWaitedForLonger than its route says.
func TestAProviderThatDoesNotBeginIsNotWaitedForLonger(t *testing.T) {
	r, _ := opened(t, Config{}, "routes: [{name: r, endpoint: URL, model: m, timeout: 1s}]", func(_ http.ResponseWriter, r *http.Request) { <-r.Context().Done() })
	_, err := r.Make(t.Context(), asked(http.MethodPost, "/v1/chat/completions", "{}"))
	if e, ok := errors.AsType[*Error](err); !ok || e.Status != 503 || e.Reason != core.ReasonUpstreamTimeout {
		t.Errorf("%+v", err)
	}
	if wait := (&Route{}).wait(operation{streams: true}); wait != defaultHead {
		t.Errorf("a streamed one is waited for %s", wait)
	}
	if wait := (&Route{}).wait(operation{}); wait != defaultTimeout {
		t.Errorf("a short one is waited for %s", wait)
	}
}

// TestAnInvalidFileChangesNothing: and it is told once, and so is its end.
func TestAnInvalidFileChangesNothing(t *testing.T) {
	var told []string
	var log bytes.Buffer
	r, dir := opened(t, Config{Log: slog.New(slog.NewTextHandler(&log, nil)), Changed: func(routes []*Route, err error) {
		told = append(told, fmt.Sprint(len(routes), " ", err == nil))
	}}, "routes: [{name: r, endpoint: URL, model: m, api_key_file: DIR/key}]", func(http.ResponseWriter, *http.Request) {})
	good, err := os.ReadFile(dir + "/routes.yaml")
	if err != nil {
		t.Fatal(err)
	}
	again := func(step string, want ...string) {
		t.Helper()
		for range 2 { // the second time nothing is new
			r.Reload()
		}
		if fmt.Sprint(told) != fmt.Sprint(want) {
			t.Errorf("%s: told %v, want %v", step, told, want)
		}
		told = nil
	}
	again("without a key")
	if n := strings.Count(log.String(), "no usable key"); n != 1 {
		t.Errorf("a missing key is logged %d times", n)
	}
	write(t, dir+"/key", "secret-key")
	again("a key", "1 true")
	write(t, dir+"/routes.yaml", "routes: [{}]")
	again("invalid", "1 false")
	if r.Invalid() == "" || len(r.Routes()) != 1 || r.Routes()[0].key.Expose() != "secret-key" {
		t.Errorf("%q, %v", r.Invalid(), r.Routes())
	}
	write(t, dir+"/key", "line\nbreak\n")
	again("a key that is none", "1 false")
	write(t, dir+"/key", "a-key-and-a-blank \n") // which would be cut off on the way, and not be found in an answer
	again("another one")
	if r.Routes()[0].Problem() == "" {
		t.Error("a key with a blank at its end is used")
	}
	write(t, dir+"/routes.yaml", string(good))
	again("valid", "1 true")
	if r.Invalid() != "" || r.Routes()[0].Problem() == "" {
		t.Errorf("%q, %q", r.Invalid(), r.Routes()[0].Problem())
	}
	if err := os.Remove(dir + "/routes.yaml"); err != nil {
		t.Fatal(err)
	}
	again("gone", "1 false")
	if strings.Contains(log.String()+fmt.Sprintf("%+v", *r.Routes()[0]), "secret-key") {
		t.Error("a key is in the log, or printed")
	}
}

// TestChangesAreSeen: by the watch.
func TestChangesAreSeen(t *testing.T) {
	changed := make(chan int, 10)
	r, dir := opened(t, Config{Changed: func(routes []*Route, _ error) { changed <- len(routes) }}, "routes: []", func(http.ResponseWriter, *http.Request) {})
	ctx, stop := context.WithCancel(t.Context())
	ended := make(chan bool)
	go func() { r.Run(ctx); close(ended) }()
	n := 0
	for n == 0 { // it may not watch yet
		write(t, filepath.Join(dir, "routes.yaml"), `routes: [{name: r, endpoint: "https://h:8443", model: m}]`)
		select {
		case n = <-changed:
		case <-time.After(300 * time.Millisecond):
		}
	}
	if n != 1 || !r.Named("H", 8443) || r.Named("h", 443) || r.Named("g", 8443) {
		t.Errorf("%d routes, %v", n, r.Routes())
	}
	stop()
	<-ended
}

// TestABodyTakesNoMoreThanIsHeldForIt: whatever is in it.
func TestABodyTakesNoMoreThanIsHeldForIt(t *testing.T) {
	const size = 4 << 20
	for name, body := range map[string]string{
		"a value":          `{"a":"` + strings.Repeat("x", size) + `"}`,
		"a name":           `{"` + strings.Repeat("<", size) + `":1}`,
		"an escaped name":  `{"` + strings.Repeat(`\u003c`, size/6) + `":1}`,
		"a model":          `{"model":"` + strings.Repeat("x", size) + `"}`,
		"a name of blanks": `{"` + strings.Repeat("\u2028", size/3) + `":1}`,
	} {
		c := &Call{Method: http.MethodPost, Body: func() ([]byte, error) { return []byte(body), nil }}
		var before, after runtime.MemStats
		runtime.ReadMemStats(&before)
		content, err := c.content()
		runtime.ReadMemStats(&after)
		if err != nil {
			t.Fatal(err)
		}
		if took := after.TotalAlloc - before.TotalAlloc; took > uint64(len(body)+64<<10) { // the body itself, and what a name and a model are
			t.Errorf("%s: %d bytes of a body take %d", name, len(body), took)
		}
		runtime.KeepAlive(content)
	}
}

// TestABodyThatWentOutIsNotKept: the answer to it may last for an hour.
func TestABodyThatWentOutIsNotKept(t *testing.T) {
	h := func(w http.ResponseWriter, r *http.Request) {
		_, _ = io.Copy(io.Discard, r.Body)
		_ = http.NewResponseController(w).Flush()
		<-r.Context().Done()
	}
	older := httptest.NewServer(http.HandlerFunc(h))
	defer older.Close()
	r, _ := opened(t, Config{}, `routes: [{name: h2, endpoint: URL, model: m}, {name: older, endpoint: "`+older.URL+`", model: older}]`, h)
	for _, model := range []string{"m", "older"} {
		c := asked(http.MethodPost, "/v1/chat/completions", "")
		var kept weak.Pointer[byte]
		c.Body = func() ([]byte, error) {
			body := []byte(`{"model":"` + model + `","messages":"` + strings.Repeat("x", 1<<20) + `"}`)
			kept = weak.Make(&body[0])
			return body, nil
		}
		a, err := r.Make(t.Context(), c)
		if err != nil {
			t.Fatal(err)
		}
		if !a.Sent {
			t.Errorf("%s: it is not known to be sent", model)
		}
		for tries := 0; kept.Value() != nil; tries++ { // whoever sent it may look at it for a moment longer
			if tries > 10_000 {
				t.Fatalf("%s: it is kept", model)
			}
			time.Sleep(time.Millisecond)
			runtime.GC()
		}
		runtime.KeepAlive(c)
		a.Close()
	}
}

// TestABodyIsKeptAsLongAsItIsSent: also behind the head of its answer.
func TestABodyIsKeptAsLongAsItIsSent(t *testing.T) {
	c := asked(http.MethodPost, "/v1/chat/completions", `{"a":1}`)
	body, err := c.content()
	if err != nil {
		t.Fatal(err)
	}
	req := &http.Request{Header: http.Header{}}
	body.of(req, "m")
	first := req.Body
	if _, err := io.ReadAll(first); err != nil {
		t.Fatal(err)
	}
	if req.Body, err = req.GetBody(); err != nil { // for another attempt
		t.Fatal(err)
	}
	if _, err := io.CopyN(io.Discard, req.Body, req.ContentLength-1); err != nil || body.forget() || body.members == nil {
		t.Errorf("%v: it is let go of with a byte to come", err)
	}
	if _, err := io.CopyN(io.Discard, req.Body, 1); err != nil || !body.forget() || body.members != nil {
		t.Errorf("%v: it is kept", err)
	}
}

// TestRoutesAreThoseOfNow: not of when a body began to come.
func TestRoutesAreThoseOfNow(t *testing.T) {
	var got string
	r, dir := opened(t, Config{}, "routes: [{name: r, endpoint: URL, model: m, api_key_file: DIR/key}]", func(_ http.ResponseWriter, r *http.Request) { got = r.Header.Get("Authorization") })
	write(t, dir+"/key", "key-1")
	r.Reload()
	call := func(meanwhile func()) error {
		c := asked(http.MethodPost, "/v1/chat/completions", "")
		c.Body = func() ([]byte, error) {
			meanwhile()
			return []byte("{}"), nil
		}
		a, err := r.Make(t.Context(), c)
		if err == nil {
			a.Close()
		}
		return err
	}
	if err := call(func() { write(t, dir+"/key", "key-2"); r.Reload() }); err != nil || got != "Bearer key-2" {
		t.Errorf("%q, %v", got, err)
	}
	good, dial := r.Routes()[0].Endpoint(), r.transport.DialContext
	r.transport.CloseIdleConnections()
	r.transport.DialContext = func(ctx context.Context, network, address string) (net.Conn, error) {
		if strings.HasPrefix(address, "replaced:") { // in the moment before it is dialled
			write(t, dir+"/routes.yaml", "routes: [{name: r, endpoint: "+good+", model: m}]")
			r.Reload()
			return nil, errors.New("the destination is not configured")
		}
		return dial(ctx, network, address)
	}
	got = "none"
	if err := call(func() {
		write(t, dir+"/routes.yaml", `routes: [{name: r, endpoint: "https://replaced", model: m}]`)
		r.Reload()
	}); err != nil || got != "" {
		t.Errorf("a route that is replaced: %q, %v", got, err)
	}
	err := call(func() { write(t, dir+"/routes.yaml", "routes: []"); r.Reload() })
	if e, ok := errors.AsType[*Error](err); !ok || e.Reason != core.ReasonInferenceUnconfigured {
		t.Errorf("a route that is gone: %v", err)
	}
}

// TestNobodyIsAskedForEver: a call of a provider that cannot be reached is answered, however
// often files are read meanwhile, and however often they change.
func TestNobodyIsAskedForEver(t *testing.T) {
	for name, tc := range map[string]struct {
		model string
		dials int
	}{"read": {"m", 1}, "changed": {"m%d", maxAttempts}} {
		r, dir := opened(t, Config{}, `routes: [{name: r, endpoint: "https://gone", model: m}]`, func(http.ResponseWriter, *http.Request) {})
		dials := 0
		r.transport.DialContext = func(context.Context, string, string) (net.Conn, error) {
			dials++
			model := strings.ReplaceAll(tc.model, "%d", fmt.Sprint(dials))
			write(t, dir+"/routes.yaml", `routes: [{name: r, endpoint: "https://gone", model: `+model+`}]`)
			r.Reload()
			return nil, errors.New("nobody answers")
		}
		_, err := r.Make(t.Context(), asked(http.MethodPost, "/v1/chat/completions", "{}"))
		if e, ok := errors.AsType[*Error](err); !ok || e.Reason != core.ReasonUpstreamUnreachable || dials != tc.dials {
			t.Errorf("%s: %d dials, %v", name, dials, err)
		}
	}
}

// answering is a provider that answers with bytes, in which KEY is the key that it got.
func answering(t *testing.T, answer string) (url string) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			if r, err := http.ReadRequest(bufio.NewReader(c)); err == nil {
				_, _ = io.Copy(io.Discard, r.Body)
				_, _ = io.WriteString(c, strings.ReplaceAll(answer, "KEY", r.Header.Get("Authorization")))
			}
			c.Close()
		}
	}()
	return "http://" + l.Addr().String()
}

// TestAProvidersOwnWordsAreNotLogged: an answer that cannot be read may be the request.
func TestAProvidersOwnWordsAreNotLogged(t *testing.T) {
	for _, answer := range []string{
		"KEY\r\n\r\n", "HTTP/KEY 200\r\n\r\n", "HTTP/1.1 200 OK\r\nno colon KEY\r\n\r\n", "HTTP/1.1 200 OK\r\nX: KEY\r\x00\r\n\r\n",
		"HTTP/1.1 200 OK\r\nTransfer-Encoding: KEY\r\n\r\n", "HTTP/1.1 200 OK\r\nContent-Length: KEY\r\n\r\n",
	} {
		var log bytes.Buffer
		r, dir := opened(t, Config{Log: slog.New(slog.NewTextHandler(&log, nil))}, "routes: [{name: r, endpoint: "+answering(t, answer)+", model: m, api_key_file: DIR/key}]", nil)
		write(t, dir+"/key", "secret-word")
		r.Reload()
		_, err := r.Make(t.Context(), asked(http.MethodPost, "/v1/chat/completions", "{}"))
		if err == nil || strings.Contains(err.Error()+log.String(), "secret-word") || !strings.Contains(log.String(), "got no answer") {
			t.Errorf("%q: %v, %s", answer, err, log.String())
		}
	}
}

// TestAnAnswersFieldsHaveNames: net/http also takes what is none, and it would go on.
func TestAnAnswersFieldsHaveNames(t *testing.T) {
	r, _ := opened(t, Config{}, "routes: [{name: r, endpoint: "+answering(t, "HTTP/1.1 200 OK\r\nBearer KEY: v\r\nX-A: v\r\nContent-Length: 0\r\n\r\n")+", model: m}]", nil)
	a, err := r.Make(t.Context(), asked(http.MethodPost, "/v1/chat/completions", "{}"))
	if err != nil {
		t.Fatal(err)
	}
	defer a.Close()
	if len(a.Header) != 2 || a.Header.Get("X-A") != "v" {
		t.Errorf("%q", a.Header)
	}
}

// TestNothingComesBehindAnAnswer: no fields, announced or not.
func TestNothingComesBehindAnAnswer(t *testing.T) {
	r, _ := opened(t, Config{}, `routes:
- {name: h2, endpoint: URL, model: m}
- {name: older, endpoint: "`+answering(t, "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n1\r\nx\r\n0\r\nX-Behind: v\r\n\r\n")+`", model: older}
`, func(w http.ResponseWriter, r *http.Request) {
		_, _ = io.WriteString(w, "x")
		w.Header().Set(http.TrailerPrefix+"X-Behind", "v")
	})
	for _, model := range []string{"m", "older"} {
		a, err := r.Make(t.Context(), asked(http.MethodPost, "/v1/chat/completions", `{"model":"`+model+`"}`))
		if err != nil {
			t.Fatal(err)
		}
		if text, err := io.ReadAll(a.Body); err != nil || string(text) != "x" || len(a.Trailer) > 0 {
			t.Errorf("%s: %q, %v, %v", model, text, err, a.Trailer)
		}
		a.Close()
	}
}

// TestAClientMayTakeItsTime: it is the provider that must not stand still.
func TestAClientMayTakeItsTime(t *testing.T) {
	const stall = time.Second
	r, _ := opened(t, Config{Stall: stall}, "routes: [{name: r, endpoint: URL, model: m}]", func(w http.ResponseWriter, r *http.Request) {
		_, _ = io.WriteString(w, "ab")
		_ = http.NewResponseController(w).Flush()
		<-r.Context().Done()
	})
	a, err := r.Make(t.Context(), asked(http.MethodPost, "/v1/chat/completions", "{}"))
	if err != nil {
		t.Fatal(err)
	}
	defer a.Close()
	for _, want := range []string{"a", "b"} {
		p := make([]byte, 1)
		if _, err := io.ReadFull(a.Body, p); err != nil || string(p) != want || a.ctx.Err() != nil {
			t.Fatalf("%q, %v, %v", p, err, context.Cause(a.ctx))
		}
		time.Sleep(2 * stall)
	}
	if _, err := io.ReadAll(a.Body); err == nil || a.Failed().Reason != core.ReasonUpstreamTimeout {
		t.Errorf("then nothing comes: %v, %+v", err, a.Failed())
	}
}

// TestAProviderIsHeldBack by a client that does not read: over HTTP/2, where it might send
// megabytes of each answer ahead.
func TestAProviderIsHeldBack(t *testing.T) {
	windows := make(chan uint32, 1)
	s := httptest.NewUnstartedServer(nil)
	s.TLS = &tls.Config{NextProtos: []string{"h2"}}
	s.Config.TLSNextProto = map[string]func(*http.Server, *tls.Conn, http.Handler){"h2": func(_ *http.Server, c *tls.Conn, _ http.Handler) {
		_, _ = io.ReadFull(c, make([]byte, len(http2.ClientPreface)))
		f, _ := http2.NewFramer(c, c).ReadFrame()
		settings, ok := f.(*http2.SettingsFrame)
		if size, said := uint32(0), false; ok {
			if size, said = settings.Value(http2.SettingInitialWindowSize); !said {
				size = 65535 // RFC 9113 section 6.5.2
			}
			windows <- size
		}
	}}
	s.StartTLS()
	defer s.Close()
	dir := t.TempDir()
	write(t, dir+"/routes.yaml", "routes: [{name: r, endpoint: "+s.URL+", model: m}]")
	r, _, err := Open(Config{File: dir + "/routes.yaml", TLS: &tls.Config{InsecureSkipVerify: true}, Dial: new(net.Dialer).DialContext})
	if err != nil {
		t.Fatal(err)
	}
	if a, err := r.Make(t.Context(), asked(http.MethodPost, "/v1/chat/completions", "{}")); err == nil {
		a.Close()
	}
	if size := <-windows; size > maxUnread {
		t.Errorf("it may send %d bytes", size)
	}
}

// TestANearbyServerIsNotMetAsItCloses: what it keeps it closes after seconds, and a call
// that is on its way then is lost.
func TestANearbyServerIsNotMetAsItCloses(t *testing.T) {
	from := make(chan string, 2)
	s := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) { from <- r.RemoteAddr }))
	defer s.Close()
	r, _ := opened(t, Config{}, "routes: [{name: r, endpoint: "+s.URL+", model: m}]", nil)
	for range 2 {
		a, err := r.Make(t.Context(), asked(http.MethodPost, "/v1/chat/completions", "{}"))
		if err != nil {
			t.Fatal(err)
		}
		_, _ = io.ReadAll(a.Body)
		a.Close()
	}
	if first, second := <-from, <-from; first == second {
		t.Errorf("both came from %s", first)
	}
}

// FuzzModel: whatever the body of a call is, it is refused, or the provider gets an object
// with one model, the route's, and every other member as it was.
func FuzzModel(f *testing.F) {
	for _, seed := range []string{`{}`, `{"model":"x"}`, `{"a":1,"model":"x","MODEL":2,"b":[{"model":"y"}]}`, ` { "a" : 1e400 , "\u006dodel":"x"}`, `{"\u006D\u004f\u0064\u0065\u006c":"x"}`, `{"a":1,}`, `[]`, `{"":{}}`, `{"a":1}x`, "\ufeff{}", `{"a":"` + "\xff" + `"}`, `{"mod` + "\xff" + `el":1}`, `{ "a\"}" : [{"model":1},"]"] , "m\\u006fdel" :{"b":2}}`, `{"a":{"model":"x"}, "<\u2028":"\\"}`, `{ }`} {
		f.Add([]byte(seed))
	}
	f.Fuzz(func(t *testing.T, body []byte) {
		c := &Call{Method: http.MethodPost, Body: func() ([]byte, error) { return bytes.Clone(body), nil }}
		content, err := c.content()
		if err != nil {
			if json.Valid(body) && utf8.Valid(body) && bytes.HasPrefix(bytes.TrimLeft(body, " \t\r\n"), []byte("{")) {
				t.Fatalf("an object is refused: %q", body)
			}
			return
		}
		req := &http.Request{Header: http.Header{}}
		content.of(req, `big"model`)
		sent, _ := io.ReadAll(req.Body)
		if !utf8.Valid(body) {
			t.Fatalf("%q is taken, of which servers make different objects", body)
		}
		if len(content.members) > len(body)+1 {
			t.Fatalf("%d bytes of a body are %d", len(body), len(content.members))
		}
		if int64(len(sent)) != req.ContentLength {
			t.Fatalf("%d bytes are announced, %d come", req.ContentLength, len(sent))
		}
		var before, after map[string]json.RawMessage
		if err := errors.Join(json.Unmarshal(body, &before), json.Unmarshal(sent, &after)); err != nil {
			t.Fatalf("%q became %q: %v", body, sent, err)
		}
		if string(after["model"]) != `"big\"model"` {
			t.Fatalf("%q became %q", body, sent)
		}
		delete(after, "model")
		for name := range before {
			if strings.EqualFold(name, "model") {
				delete(before, name)
			}
		}
		if len(before) != len(after) || len(before) > 0 && !reflect.DeepEqual(compact(before), compact(after)) {
			t.Fatalf("%q became %q", body, sent)
		}
	})
}

func compact(m map[string]json.RawMessage) map[string]string {
	out := map[string]string{}
	for name, value := range m {
		out[name] = string(value)
	}
	return out
}
