package http2

import (
	"bufio"
	"bytes"
	"context"
	"crypto/tls"
	"errors"
	"io"
	"net"
	"net/http"
	"strconv"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/net/http2"
	"google.golang.org/grpc/test/bufconn"

	"github.com/splitpod/splitpod/cmd/supervisor-network/internal/http1"
	"github.com/splitpod/splitpod/pkg/core"
)

// client is Go's, with every connection going to the front.
func client(t testing.TB, f *front) *http.Client {
	t.Helper()
	transport := &http.Transport{
		DialContext: func(ctx context.Context, network, _ string) (net.Conn, error) {
			return new(net.Dialer).DialContext(ctx, network, f.addr)
		},
		TLSClientConfig:    &tls.Config{RootCAs: roots()},
		ForceAttemptHTTP2:  true,
		DisableCompression: true,
	}
	t.Cleanup(transport.CloseIdleConnections)
	return &http.Client{Transport: transport, Timeout: patience}
}

func do(t testing.TB, c *http.Client, method string, body io.Reader) *http.Response {
	t.Helper()
	r, err := http.NewRequestWithContext(t.Context(), method, "https://"+host+"/", body)
	if err != nil {
		t.Fatal(err)
	}
	resp, err := c.Do(r)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { resp.Body.Close() })
	return resp
}

func all(t testing.TB, resp *http.Response) string {
	t.Helper()
	b, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

func TestNothingIsAddedToAnAnswerAndHopFieldsAreRemoved(t *testing.T) {
	f := serve(t, Options{}, func(ctx context.Context, s *Stream) {
		resp := response("<html>", "Connection", "X-Hop, close", "X-Hop", "1", "Keep-Alive", "timeout=5", "Proxy-Authenticate", "Basic",
			"Transfer-Encoding", "chunked", "Upgrade", "h2c", "Alt-Svc", `h3=":443"`, "Location", "http://169.254.169.254/", "X-Kept", "1", "Set-Cookie", "a=1", "Set-Cookie", "b=2")
		resp.StatusCode = 302
		resp.Trailer = http.Header{"X-End": {"1"}, "Alt-Svc": {"h3"}, "Connection": {"x"}, "Set-Cookie": {"a=1"}, "Www-Authenticate": {"Basic"}, "Content-Type": {"x"}, "Content-Length": {"1"}, "If-Match": {"*"}, "Authorization": {"x"}}
		_ = s.Respond(ctx, resp)
	})
	r := dial(t, f).hello()
	r.headers(1, true, get())
	a := r.answer(1)
	want := reply{status: "302", body: "<html>", fields: map[string]string{"location": "http://169.254.169.254/", "x-kept": "1", "set-cookie": "b=2", "trailer": "X-End"},
		trailer: map[string]string{"x-end": "1"}}
	if diff := cmp.Diff(want, a, cmp.AllowUnexported(reply{})); diff != "" {
		t.Error(diff)
	}
}

func TestTheOriginGetsWhatWasJudged(t *testing.T) {
	var got *http.Request
	f := serve(t, Options{}, func(ctx context.Context, s *Stream) {
		got = s.ToOrigin(ctx)
		hello(ctx, s)
	})
	r := dial(t, f).hello()
	r.headers(1, true, append(instead(with(":path", "/a/./b;x=1/%7e?q=%2f&&"), ":authority", "Origin.TEST:443"), fields("x-kept", "1", "te", "trailers", "proxy-authorization", "Basic eA==", "host", "Origin.TEST:443", "cookie", "a=1", "cookie", "b=2",
		"forwarded", "for=a", "x-forwarded-for", "10.0.0.1", "x_forwarded_host", "evil.test", "x-real-ip", "10.0.0.1", "true-client-ip", "10.0.0.1")...))
	r.answer(1)
	want := http.Header{"X-Kept": {"1"}, "Te": {"trailers"}, "Cookie": {"a=1; b=2"}}
	if diff := cmp.Diff(want, got.Header); diff != "" {
		t.Error(diff)
	}
	if got.URL.RequestURI() != "/a/b/~?q=%2f&&" || got.Host != host || got.Method != "GET" || got.Body != http.NoBody {
		t.Errorf("%s %s at %s", got.Method, got.URL.RequestURI(), got.Host)
	}
}

func TestPathsThatDecideNothingAreTheOrigins(t *testing.T) {
	got := make(chan string, 1)
	f := serve(t, Options{Verbatim: true}, func(ctx context.Context, s *Stream) {
		select {
		case got <- s.ToOrigin(ctx).URL.RequestURI():
		case <-ctx.Done(): // one that should have been refused came before
		}
		hello(ctx, s)
	})
	for target, status := range map[string]string{
		"/@scope%2fname": "200", "/@scope%2Fname?x=%2f": "200", "/a//b/./c;v=1/../d": "200", "//a//b": "200", "//evil.test/%7e%41?": "200", "/..": "200",
		"/a#b": "400", "/a b": "400", "/\u00e9": "400",
	} {
		r := dial(t, f).hello()
		r.headers(1, true, with(":path", target))
		if reply := r.answer(1); reply.status != status {
			t.Errorf("%s is answered %s", target, reply.status)
		} else if status == "200" {
			if sent := next(t, got); sent != target {
				t.Errorf("%s is sent as %s", target, sent)
			}
		}
	}
}

func TestAnswersEndAsTheirOriginsDo(t *testing.T) {
	for _, c := range []struct {
		rule   string
		method string
		resp   func() *http.Response
		body   string
		length int64
		broken bool
	}{
		{"a known length", "GET", func() *http.Response { r := response("abc", "Content-Length", "3"); r.ContentLength = 3; return r }, "abc", 3, false},
		{"an unknown length", "GET", func() *http.Response { return response("abc") }, "abc", -1, false},
		{"no body", "GET", func() *http.Response { r := response("", "Content-Length", "0"); r.ContentLength = 0; return r }, "", 0, false},
		{"HEAD has a length and no body", "HEAD", func() *http.Response { r := response("", "Content-Length", "9"); r.ContentLength = 9; return r }, "", 9, false},
		{"204", "GET", func() *http.Response { r := response(""); r.StatusCode = 204; return r }, "", 0, false},
		{"304 with a length", "GET", func() *http.Response {
			r := response("", "Content-Length", "9")
			r.StatusCode, r.ContentLength = 304, 9
			return r
		}, "", 0, false},
		{"less than declared", "GET", func() *http.Response { r := response("abc", "Content-Length", "4"); r.ContentLength = 4; return r }, "", 4, true},
		{"more than declared", "GET", func() *http.Response { r := response("abc", "Content-Length", "2"); r.ContentLength = 2; return r }, "", 2, true},
		{"a length that is not meant", "GET", func() *http.Response { return response("abc", "Content-Length", "7, 3") }, "abc", -1, false},
		{"a broken body", "GET", func() *http.Response {
			r := response("")
			r.Body = io.NopCloser(io.MultiReader(strings.NewReader("abc"), broken{}))
			return r
		}, "", -1, true},
	} {
		t.Run(c.rule, func(t *testing.T) {
			f := serve(t, Options{}, func(ctx context.Context, s *Stream) { _ = s.Respond(ctx, c.resp()) })
			r, err := http.NewRequestWithContext(t.Context(), c.method, "https://"+host+"/", nil)
			if err != nil {
				t.Fatal(err)
			}
			resp, err := client(t, f).Do(r)
			if err != nil {
				if !c.broken {
					t.Fatal(err)
				}
				return
			}
			defer resp.Body.Close()
			b, err := io.ReadAll(resp.Body)
			if (err != nil) != c.broken {
				t.Fatalf("read %q, %v", b, err)
			}
			if !c.broken && (string(b) != c.body || resp.ContentLength != c.length) {
				t.Errorf("read %q of %d", b, resp.ContentLength)
			}
		})
	}
}

type broken struct{}

func (broken) Read([]byte) (int, error) { return 0, errors.New("the origin is gone") }

func TestANonFinalStatusIsNoAnswer(t *testing.T) {
	f := serve(t, Options{}, func(ctx context.Context, s *Stream) {
		resp := response("")
		resp.StatusCode = 101
		if err := s.Respond(ctx, resp); errors.Is(err, ErrStatus) {
			_ = s.Deny(502, core.ReasonUpstreamInvalid, "d", "", http1.ErrorBody{Error: core.ReasonUpstreamInvalid, Detail: "d"})
		}
	})
	if resp := do(t, client(t, f), "GET", nil); resp.StatusCode != 502 {
		t.Errorf("answered %d", resp.StatusCode)
	}
}

func TestEventsAreNotHeldBack(t *testing.T) {
	in, out := io.Pipe()
	defer out.Close()
	defer time.AfterFunc(patience, func() { in.CloseWithError(errors.New("nobody reads")) }).Stop()
	f := serve(t, Options{}, func(ctx context.Context, s *Stream) {
		resp := response("", "Content-Type", "text/event-stream")
		resp.Body = in
		_ = s.Respond(ctx, resp)
	})
	resp := do(t, client(t, f), "GET", nil) // the head comes before any event
	lines := bufio.NewReader(resp.Body)
	for _, event := range []string{"data: 1\n", "data: 2\n"} {
		if _, err := io.WriteString(out, event); err != nil {
			t.Fatal(err)
		}
		if line, err := lines.ReadString('\n'); err != nil || line != event {
			t.Fatalf("read %q, %v", line, err)
		}
	}
	out.Close()
	if rest := all(t, resp); rest != "" {
		t.Errorf("read %q", rest)
	}
}

func TestTrailersPassBothWays(t *testing.T) {
	f := serve(t, Options{}, func(ctx context.Context, s *Stream) {
		out := s.ToOrigin(ctx)
		b, _ := io.ReadAll(out.Body)
		resp := response(string(b))
		resp.Trailer = http.Header{"X-Seen": out.Trailer["X-Sum"], "X-Announced": nil}
		_ = s.Respond(ctx, resp)
	})
	r, err := http.NewRequestWithContext(t.Context(), "POST", "https://"+host+"/", io.MultiReader(strings.NewReader("abc")))
	if err != nil {
		t.Fatal(err)
	}
	r.Trailer = http.Header{"X-Sum": {"3"}}
	resp, err := client(t, f).Do(r)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	if b := all(t, resp); b != "abc" || resp.Trailer.Get("X-Seen") != "3" {
		t.Errorf("read %q with %v", b, resp.Trailer)
	}
}

// call is a gRPC request.
func call(contentType string) []field {
	return append(fields(":method", "POST", ":scheme", "https", ":authority", host, ":path", "/pkg.Service/Method"), fields("content-type", contentType, "te", "trailers")...)
}

func TestADeniedCallIsATrailersOnlyAnswer(t *testing.T) {
	for contentType, want := range map[string]string{
		"application/grpc":            "application/grpc",
		"application/grpc+proto":      "application/grpc",
		"Application/GRPC;charset=x":  "application/grpc",
		"application/grpc-web":        "application/grpc-web+proto",
		"application/grpc-web-text":   "application/grpc-web+proto",
		"application/grpcx":           "",
		"application/json":            "",
		"text/application/grpc":       "",
		"application/grpc-web-texter": "",
	} {
		t.Run(contentType, func(t *testing.T) {
			f := serve(t, Options{}, func(_ context.Context, s *Stream) {
				_ = s.Deny(403, core.ReasonPolicyDenied, "not 100% für\nyou", "id-1", http1.ErrorBody{Error: core.ReasonPolicyDenied, Detail: "not 100% für\nyou", RequestID: "id-1"})
			})
			r := dial(t, f).hello()
			r.headers(1, true, call(contentType))
			a := r.answer(1)
			if want == "" {
				if a.status != "403" || a.fields["content-type"] != "application/json" {
					t.Errorf("%+v", a)
				}
				return
			}
			wanted := reply{status: "200", fields: map[string]string{"content-type": want, "grpc-status": "7",
				"grpc-message": "policy_denied: not 100%25 f%C3%BCr%0Ayou", "x-splitpod-request-id": "id-1"}}
			if diff := cmp.Diff(wanted, a, cmp.AllowUnexported(reply{})); diff != "" {
				t.Error(diff)
			}
		})
	}
}

// TestARevokedStreamEndsInItsOwnForm: with a status for gRPC, with a reset otherwise, and
// where behind a status the answer would be taken for whole, or is malformed.
func TestARevokedStreamEndsInItsOwnForm(t *testing.T) {
	for _, c := range []struct {
		rule   string
		send   []field
		length int64
		want   reply
	}{
		{"gRPC", call("application/grpc"), -1, reply{trailer: map[string]string{"grpc-status": "7", "grpc-message": "policy_changed: no longer"}}},
		{"gRPC with a length", call("application/grpc"), 10, reply{reset: http2.ErrCodeInternal}},
		{"gRPC-web", call("application/grpc-web"), -1, reply{reset: http2.ErrCodeInternal}},
		{"another", get(), -1, reply{reset: http2.ErrCodeInternal}},
	} {
		t.Run(c.rule, func(t *testing.T) {
			result := make(chan error, 1)
			revoke := make(chan struct{})
			f := serve(t, Options{}, func(ctx context.Context, s *Stream) {
				ctx, cancel := context.WithCancelCause(ctx)
				defer cancel(nil)
				go func() { held(t, revoke); cancel(&Revoked{core.ReasonPolicyChanged, "no longer"}) }()
				resp := response("", "Content-Length", strconv.FormatInt(c.length, 10))
				resp.ContentLength = c.length
				resp.Body = io.NopCloser(io.MultiReader(strings.NewReader("begun"), until{ctx}))
				result <- s.Respond(ctx, resp)
			})
			r := dial(t, f).hello()
			r.headers(1, true, c.send)
			for {
				g, err := r.fr.ReadFrame()
				r.ok(err)
				if d, ok := g.(*http2.DataFrame); ok {
					if string(d.Data()) != "begun" {
						t.Errorf("read %q", d.Data())
					}
					break
				}
			}
			close(revoke)
			if diff := cmp.Diff(c.want, r.answer(1), cmp.AllowUnexported(reply{})); diff != "" {
				t.Error(diff)
			}
			if _, ok := errors.AsType[*Revoked](next(t, result)); !ok {
				t.Error("the handler was not told")
			}
		})
	}
}

// until is a body that says nothing until its context ends.
type until struct{ ctx context.Context }

func (u until) Read([]byte) (int, error) { <-u.ctx.Done(); return 0, u.ctx.Err() }

// TestARevokedStreamWaitsForNoWindow: nothing is read by the client.
func TestARevokedStreamWaitsForNoWindow(t *testing.T) {
	result := make(chan error, 1)
	revoke := make(chan struct{})
	f := serve(t, Options{}, func(ctx context.Context, s *Stream) {
		ctx, cancel := context.WithCancelCause(ctx)
		defer cancel(nil)
		go func() { held(t, revoke); cancel(&Revoked{core.ReasonPolicyChanged, "no longer"}) }()
		resp := response("")
		resp.Body = io.NopCloser(zeros{})
		result <- s.Respond(ctx, resp)
	})
	r := dial(t, f).hello(http2.Setting{ID: http2.SettingInitialWindowSize, Val: 10})
	r.headers(1, true, get())
	for got := 0; got < 10; { // the window is used up
		g, err := r.fr.ReadFrame()
		r.ok(err)
		if d, ok := g.(*http2.DataFrame); ok {
			got += len(d.Data())
		}
	}
	close(revoke)
	if a := r.answer(1); a.reset == 0 {
		t.Errorf("%+v", a)
	}
	if _, ok := errors.AsType[*Revoked](next(t, result)); !ok {
		t.Error("the handler was not told")
	}
}

func TestAStreamThatNobodyAnswersIsReset(t *testing.T) {
	for rule, handle := range map[string]Handler{
		"no answer": func(context.Context, *Stream) {},
		"a panic":   func(context.Context, *Stream) { panic("a test's") },
	} {
		t.Run(rule, func(t *testing.T) {
			f := serve(t, Options{}, handle)
			r := dial(t, f).hello()
			r.headers(1, true, get())
			if a := r.answer(1); a.reset != http2.ErrCodeInternal {
				t.Errorf("%+v", a)
			}
		})
	}
}

// TestADeniedUploadIsNotAskedFor: the answer comes before the body is asked for, and
// a short body that comes nevertheless is taken.
func TestADeniedUploadIsNotAskedFor(t *testing.T) {
	f := serve(t, Options{}, func(_ context.Context, s *Stream) {
		_ = s.Deny(403, core.ReasonPolicyDenied, "", "", http1.ErrorBody{Error: core.ReasonPolicyDenied})
	})
	r := dial(t, f).hello()
	r.headers(1, false, append(fields(":method", "POST"), get("content-length", "5", "expect", "100-continue")[1:]...))
	for {
		g, err := r.fr.ReadFrame()
		r.ok(err)
		if h, ok := g.(*http2.MetaHeadersFrame); ok {
			if s := h.PseudoValue("status"); s != "403" {
				t.Fatalf("answered %s first", s)
			}
			break
		}
	}
	r.ok(r.fr.WriteData(1, true, []byte("12345")))
	if a := r.answer(1); a.reset != 0 || a.closed {
		t.Errorf("%+v", a)
	}
}

func TestPercentEncoding(t *testing.T) {
	for in, want := range map[string]string{"": "", "plain text ~": "plain text ~", "100%": "100%25", "a\r\nb": "a%0D%0Ab", "ü\x7f": "%C3%BC%7F"} {
		if got := percentEncode(in); got != want {
			t.Errorf("%q gives %q, want %q", in, got, want)
		}
	}
}

func BenchmarkServe(b *testing.B) {
	body := bytes.Repeat([]byte("x"), 1024)
	f := serve(b, Options{}, func(ctx context.Context, s *Stream) {
		_ = s.ToOrigin(ctx)
		resp := response("", "Content-Length", "1024", "Content-Type", "text/plain")
		resp.ContentLength, resp.Body = 1024, io.NopCloser(bytes.NewReader(body))
		_ = s.Respond(ctx, resp)
	})
	benchmark(b, f)
}

// BenchmarkLibrary is the library's server alone, with the same answer.
func BenchmarkLibrary(b *testing.B) {
	body := bytes.Repeat([]byte("x"), 1024)
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		b.Fatal(err)
	}
	hs := &http.Server{TLSConfig: &tls.Config{Certificates: []tls.Certificate{certificate()}}, Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Length", "1024")
		w.Header().Set("Content-Type", "text/plain")
		_, _ = w.Write(body)
	})}
	go hs.ServeTLS(l, "", "")
	b.Cleanup(func() { hs.Close() })
	benchmark(b, &front{addr: l.Addr().String()})
}

// benchmark keeps 64 streams busy on one connection. The client's share is counted
// too.
func benchmark(b *testing.B, f *front) {
	c := client(b, f)
	do(b, c, "GET", nil).Body.Close()
	b.ReportAllocs()
	b.SetParallelism(32)
	b.RunParallel(func(pb *testing.PB) {
		for pb.Next() {
			r, _ := http.NewRequest("GET", "https://"+host+"/", nil)
			resp, err := c.Do(r)
			if err != nil {
				b.Error(err)
				return
			}
			if _, err := io.Copy(io.Discard, resp.Body); err != nil {
				b.Error(err)
			}
			resp.Body.Close()
		}
	})
	b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "req/s")
}

// TestADeniedUploadIsTaken: clients that send all of it first get to the answer, without a
// reset behind it.
func TestADeniedUploadIsTaken(t *testing.T) {
	for name, length := range map[string]string{"of no known length": "", "of more than a window": strconv.Itoa(streamWindow + 1)} {
		t.Run(name, func(t *testing.T) {
			f := serve(t, Options{}, func(_ context.Context, s *Stream) {
				_ = s.Deny(403, core.ReasonPolicyDenied, "", "", http1.ErrorBody{Error: core.ReasonPolicyDenied})
			})
			r := dial(t, f).hello()
			head := append(fields(":method", "POST"), get()[1:]...)
			if length != "" {
				head = append(head, fields("content-length", length)...)
			}
			r.headers(1, false, head)
			until := func(found func(http2.Frame) bool) {
				for {
					g, err := r.fr.ReadFrame()
					if r.ok(err); found(g) {
						return
					}
					if _, reset := g.(*http2.RSTStreamFrame); reset {
						t.Fatal("nobody takes the rest")
					}
				}
			}
			until(func(g http2.Frame) bool { _, is := g.(*http2.MetaHeadersFrame); return is })
			for range streamWindow / maxFrame {
				r.ok(r.fr.WriteData(1, false, make([]byte, maxFrame)))
			}
			until(func(g http2.Frame) bool { _, is := g.(*http2.WindowUpdateFrame); return is && g.Header().StreamID == 1 })
			r.ok(r.fr.WriteData(1, true, []byte("x")))
			if a := r.answer(1); a.reset != 0 || a.closed {
				t.Errorf("%+v", a)
			}
		})
	}
}

// TestTakingADeniedUploadEnds after a silence, and after a while.
func TestTakingADeniedUploadEnds(t *testing.T) {
	const silence, while = time.Second, 5 * time.Second // those of http1.Linger
	cert, trusted := certificate(), roots()
	for name, c := range map[string]struct{ every, lasts time.Duration }{
		"a slow client":          {silence - time.Millisecond, while},
		"one that is slower":     {silence + time.Millisecond, silence},
		"one that stays, silent": {time.Hour, silence},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				l := bufconn.Listen(1 << 16)
				var served sync.WaitGroup
				served.Go(func() {
					conn, err := l.Accept()
					if err != nil {
						t.Error(err)
						return
					}
					tc := tls.Server(conn, &tls.Config{Certificates: []tls.Certificate{cert}, NextProtos: []string{"h2"}})
					if err := tc.Handshake(); err != nil {
						t.Error(err)
						return
					}
					Serve(t.Context(), tc, Options{Host: host, Port: 443}, func(_ context.Context, s *Stream) {
						_ = s.Deny(403, core.ReasonPolicyDenied, "", "", http1.ErrorBody{Error: core.ReasonPolicyDenied})
					})
				})
				conn, err := l.Dial()
				if err != nil {
					t.Fatal(err)
				}
				t.Cleanup(func() {
					conn.Close()
					served.Wait()
				})
				tc := tls.Client(conn, &tls.Config{ServerName: host, RootCAs: trusted, NextProtos: []string{"h2"}})
				r := newRaw(t, tc).hello()
				start := time.Now()
				r.headers(1, false, append(fields(":method", "POST"), get()[1:]...))
				served.Go(func() {
					for err := error(nil); err == nil; err = r.fr.WriteData(1, false, []byte("x")) {
						<-time.After(c.every)
					}
				})
				if a := r.answer(1); a.status != "403" || time.Since(start) != c.lasts {
					t.Errorf("it lasts %s, want %s: %+v", time.Since(start), c.lasts, a)
				}
			})
		})
	}
}

// TestFewDeniedUploadsAreTaken at one time, by all connections: they hold memory, and the
// places that bound it for other streams are given back.
func TestFewDeniedUploadsAreTaken(t *testing.T) {
	for name, c := range map[string]struct {
		others int64
		taken  bool
	}{
		"the last that may be": {maxDrained - 1, true},
		"one too many":         {maxDrained, false},
	} {
		t.Run(name, func(t *testing.T) {
			var w Windows
			w.drained.Store(c.others)
			f := serve(t, Options{Windows: &w}, func(_ context.Context, s *Stream) {
				_ = s.Deny(403, core.ReasonPolicyDenied, "", "", http1.ErrorBody{Error: core.ReasonPolicyDenied})
			})
			r := dial(t, f).hello()
			r.headers(1, false, append(fields(":method", "POST"), get()[1:]...))
			sent := make([]byte, maxFrame)
			for range 4 {
				r.ok(r.fr.WriteData(1, false, sent))
			}
			taken, ended, status := false, false, ""
			for !ended {
				g, err := r.fr.ReadFrame()
				r.ok(err)
				switch g := g.(type) {
				case *http2.MetaHeadersFrame:
					status = g.PseudoValue("status")
				case *http2.WindowUpdateFrame:
					if g.StreamID == 1 && !taken {
						taken = true
						r.ok(r.fr.WriteData(1, true, sent))
					}
				case *http2.DataFrame:
					ended = g.StreamEnded()
				case *http2.RSTStreamFrame:
					t.Fatal("it is reset before its end")
				}
			}
			if status != "403" || taken != c.taken {
				t.Errorf("%s, taken: %t", status, taken)
			}
			r.conn.Close()
			next(t, f.stats)
			if n := w.drained.Load(); n != c.others {
				t.Errorf("%d places are taken, %d before", n, c.others)
			}
		})
	}
}
