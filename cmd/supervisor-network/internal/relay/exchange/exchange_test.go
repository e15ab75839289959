package exchange

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"io"
	"net"
	"runtime"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/splitpod/splitpod/cmd/supervisor-network/internal/decide"
	"github.com/splitpod/splitpod/cmd/supervisor-network/internal/http1"
	"github.com/splitpod/splitpod/cmd/supervisor-network/internal/relay"
	"github.com/splitpod/splitpod/cmd/supervisor-network/internal/relay/pool"
	"github.com/splitpod/splitpod/pkg/core"
)

// patience ends a test that hangs; no test waits for it to pass.
const patience = 30 * time.Second

// shortIdle is for tests that wait until it is over; it leaves a loaded machine the
// time to do what comes before.
const shortIdle = 2 * time.Second

func pair(t *testing.T) (client, server *net.TCPConn) {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	c, err := net.Dial("tcp", l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	s, err := l.Accept()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close(); s.Close() })
	_ = c.SetDeadline(time.Now().Add(patience))
	return c.(*net.TCPConn), s.(*net.TCPConn)
}

type outcome struct {
	stats Result
	err   error
}

// exchange is Do on two real connections, with their far ends.
type exchange struct {
	client, origin *net.TCPConn
	fromOrigin     *bufio.Reader
	done           chan outcome
}

// start sends text as the client, reads its head as listen does, and runs Do. A reply
// is there before Do begins.
func start(t *testing.T, ctx context.Context, idle time.Duration, text string, reply ...string) *exchange {
	t.Helper()
	client, proxy := pair(t)
	origin, up := pair(t)
	if _, err := io.WriteString(client, text); err != nil {
		t.Fatal(err)
	}
	for _, part := range reply {
		if _, err := io.WriteString(origin, part); err != nil {
			t.Fatal(err)
		}
	}
	r := bufio.NewReaderSize(proxy, http1.MaxRequestHead)
	head, err := http1.ReadHead(r, http1.MaxRequestHead)
	if err != nil {
		t.Fatal(err)
	}
	req, err := http1.ParseRequest(head)
	if err != nil {
		t.Fatal(err)
	}
	target, err := req.Absolute()
	if err != nil {
		t.Fatal(err)
	}
	kept, err := pool.New(pool.Config{}).Destination(decide.Permit{}, false).Wrap(t.Context(), up)
	if err != nil {
		t.Fatal(err)
	}
	late := func() {
		_ = proxy.SetReadDeadline(time.Unix(1, 0))
		_ = up.SetDeadline(time.Unix(1, 0))
	}
	watch := relay.NewWatch(idle/16, late)
	watch.Begin(idle)
	x := &exchange{client, origin, bufio.NewReader(origin), make(chan outcome, 1)}
	go func() {
		defer watch.Stop()
		defer context.AfterFunc(ctx, func() {
			_ = proxy.SetLinger(0)
			proxy.Close()
			up.Close()
		})()
		result, err := Do(&Exchange{
			Client:  &Client{R: r, W: bufio.NewWriter(proxy), Interrupt: func() { _ = proxy.SetReadDeadline(time.Unix(1, 0)) }, Resume: func() { _ = proxy.SetReadDeadline(time.Time{}) }},
			Request: req, Target: target, DefaultPort: 80, Via: "1.1 splitpod", Origin: kept, Watch: watch, Last: func() bool { return true },
		})
		up.Close()
		x.done <- outcome{result, err}
		if result.Unframed && err != nil {
			_ = proxy.SetLinger(0)
		} else if err == nil {
			linger(proxy)
		}
		proxy.Close() // as app does
	}()
	return x
}

// linger lets the client read before a close with unread bytes resets the connection.
func linger(client *net.TCPConn) {
	_ = client.CloseWrite()
	_ = client.SetReadDeadline(time.Now().Add(patience / 3))
	_, _ = io.Copy(io.Discard, client)
}

func (x *exchange) wait(t *testing.T) outcome {
	t.Helper()
	select {
	case o := <-x.done:
		return o
	case <-time.After(patience):
		t.Fatal("Do did not return")
		return outcome{}
	}
}

func (x *exchange) originReadsHead(t *testing.T) string {
	t.Helper()
	head, err := http1.ReadHead(x.fromOrigin, 64<<10)
	if err != nil {
		t.Fatal(err)
	}
	return string(head)
}

func wantRead(t *testing.T, r io.Reader, want string) {
	t.Helper()
	got := make([]byte, len(want))
	if n, err := io.ReadFull(r, got); err != nil || string(got) != want {
		t.Fatalf("read %q, %v, want %q", got[:n], err, want)
	}
}

func write(t *testing.T, w io.Writer, s string) {
	t.Helper()
	if _, err := io.WriteString(w, s); err != nil {
		t.Fatal(err)
	}
}

// wantRest reads to the end of the connection.
func wantRest(t *testing.T, r io.Reader, want string) {
	t.Helper()
	got, err := io.ReadAll(r)
	if diff := cmp.Diff(want, string(got)); diff != "" || err != nil {
		t.Fatalf("%v\n%s", err, diff)
	}
}

func wantError(t *testing.T, o outcome, status int, reason core.Reason) {
	t.Helper()
	e, ok := errors.AsType[*http1.SyntaxError](o.err)
	if !ok || e.Status != status || e.Reason != reason || o.stats.Answered {
		t.Fatalf("got %v, answered %v, want %d %s", o.err, o.stats.Answered, status, reason)
	}
}

func lines(l ...string) string { return strings.Join(l, "\r\n") + "\r\n\r\n" }

const (
	getHead    = "GET http://ok.test/ HTTP/1.1\r\nHost: ok.test\r\n\r\n"
	emptyReply = "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n"
)

func TestHopByHopFieldsStayHereInBothDirections(t *testing.T) {
	x := start(t, t.Context(), time.Hour, lines(
		"GET http://OK.test:8080/a/../b%2f?q=%&r HTTP/1.1", "Host: ok.test:8080", "Accept: */*",
		"Connection: close, X-Hop", "x-hop: secret", "Keep-Alive: 5", "Proxy-Connection: keep-alive",
		"Proxy-Authorization: Basic c2VjcmV0", "Proxy-Authenticate: Basic", "TE: trailers", "Trailer: X-T", "Upgrade: h2c",
		"HTTP2-Settings: AA", "Via: 1.0 first", "via: 1.1 second", "X-Hop-Not: kept",
	))
	wantHead := lines("GET /a/../b%2f?q=%&r HTTP/1.1", "Host: ok.test:8080", "Accept: */*", "X-Hop-Not: kept",
		"TE: trailers", "Connection: TE", // of this hop
		"Via: 1.0 first, 1.1 second, 1.1 splitpod")
	if diff := cmp.Diff(wantHead, x.originReadsHead(t)); diff != "" {
		t.Error(diff)
	}
	write(t, x.origin, lines("HTTP/1.1 200 Fine", "Server: test", "Connection: keep-alive, X-Origin-Hop", "X-Origin-Hop: secret", "Keep-Alive: 5",
		"Proxy-Authenticate: Basic", "Trailer: X-T", "Upgrade: h2c", `Alt-Svc: h3=":443"`, "Set-Cookie: a=1", "Set-Cookie: b=2", "Content-Length: 2", "Content-Length: 2")+"ok")
	wantRest(t, x.client, lines("HTTP/1.1 200 Fine", "Server: test", "Set-Cookie: a=1", "Set-Cookie: b=2", "Content-Length: 2", "Connection: close")+"ok")
	x.client.Close()
	if o := x.wait(t); o.err != nil || o.stats.Up != 0 || o.stats.Down != 2 || !o.stats.Answered {
		t.Errorf("%+v", o)
	}
}

func TestHostOfTheOriginIsTheTarget(t *testing.T) {
	for target, want := range map[string]string{
		"http://ok.test/":         "ok.test",
		"http://ok.test:80/":      "ok.test",
		"http://ok.test:81/":      "ok.test:81",
		"http://[2001:DB8::1]/":   "[2001:db8::1]",
		"http://[2001:db8::1]:8/": "[2001:db8::1]:8",
	} {
		x := start(t, t.Context(), time.Hour, "GET "+target+" HTTP/1.0\r\n\r\n")
		if head := x.originReadsHead(t); !strings.HasPrefix(head, "GET / HTTP/1.1\r\nHost: "+want+"\r\n") {
			t.Errorf("%s: %q", target, head)
		}
	}
}

func TestRequestBodyIsSentWithItsFramingAndNothingBehindIt(t *testing.T) {
	for _, c := range []struct{ rule, framing, body, wantFraming, wantBody string }{
		{"a length", "Content-Length: 5", "hello", "Content-Length: 5", "hello"},
		{"two equal lengths become one", "Content-Length: 5\r\ncontent-length: 5", "hello", "Content-Length: 5", "hello"},
		{"a length with zeros", "Content-Length: 0005", "hello", "Content-Length: 5", "hello"},
		{"a length of zero", "Content-Length: 0", "", "Content-Length: 0", ""},
		{"chunks", "Transfer-Encoding: CHUNKED", "5;x=y\r\nhello\r\n0\r\nX-T: v\r\n\r\n", "Transfer-Encoding: chunked", "5\r\nhello\r\n0\r\n\r\n"},
	} {
		t.Run(c.rule, func(t *testing.T) {
			x := start(t, t.Context(), time.Hour, "POST http://ok.test/ HTTP/1.1\r\nHost: ok.test\r\n"+c.framing+"\r\n\r\n"+c.body+
				"POST http://evil.test/ HTTP/1.1\r\nHost: evil.test\r\n\r\n")
			if head := x.originReadsHead(t); !strings.HasSuffix(head, "\r\nVia: 1.1 splitpod\r\n"+c.wantFraming+"\r\n\r\n") {
				t.Fatalf("%q", head)
			}
			wantRead(t, x.fromOrigin, c.wantBody) // it is not held back
			write(t, x.origin, emptyReply)
			wantRest(t, x.client, lines("HTTP/1.1 200 OK", "Content-Length: 0", "Connection: close"))
			x.client.Close()
			if o := x.wait(t); o.err != nil || o.stats.Up != int64(len("hello"))*int64(min(len(c.wantBody), 1)) {
				t.Errorf("%+v", o)
			}
			_ = x.origin.CloseWrite()
			wantRest(t, x.fromOrigin, "")
		})
	}
}

// TestABodyThatNoneExpectsIsTheLastOfItsConnection: an origin that does not look for it
// (Python's http.server asks its handler to) takes it for another request.
func TestABodyThatNoneExpectsIsTheLastOfItsConnection(t *testing.T) {
	for method, closes := range map[string]bool{"GET": true, "HEAD": true, "DELETE": true, "OPTIONS": true, "POST": false, "PUT": false, "SEARCH": false} {
		for framing, body := range map[string]string{"Content-Length: 2": "hi", "Transfer-Encoding: chunked": "0\r\n\r\n", "Content-Length: 0": ""} {
			x := start(t, t.Context(), time.Hour, method+" http://ok.test/ HTTP/1.1\r\nHost: ok.test\r\n"+framing+"\r\n\r\n"+body)
			head := x.originReadsHead(t)
			if want := closes && body != ""; strings.Contains(head, "\r\nConnection: close\r\n") != want {
				t.Errorf("close is %v: %q", want, head)
			}
			wantRead(t, x.fromOrigin, body)
			write(t, x.origin, emptyReply)
			x.client.Close()
			x.wait(t)
		}
	}
}

func TestBodiesAreStreamedChunkByChunk(t *testing.T) {
	x := start(t, t.Context(), time.Hour, "POST http://ok.test/ HTTP/1.1\r\nHost: ok.test\r\nTransfer-Encoding: chunked\r\n\r\n")
	x.originReadsHead(t)
	write(t, x.origin, "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")
	wantRead(t, x.client, lines("HTTP/1.1 200 OK", "Transfer-Encoding: chunked", "Connection: close"))
	for range 3 {
		write(t, x.client, "3\r\nabc\r\n")
		wantRead(t, x.fromOrigin, "3\r\nabc\r\n")
		write(t, x.origin, "4;e\r\ndefg\r\n")
		wantRead(t, x.client, "4\r\ndefg\r\n")
	}
	write(t, x.client, "0\r\n\r\n")
	wantRead(t, x.fromOrigin, "0\r\n\r\n")
	write(t, x.origin, "0\r\nX-T: v\r\n\r\n")
	wantRest(t, x.client, "0\r\n\r\n")
	x.client.Close()
	if o := x.wait(t); o.err != nil || o.stats.Up != 9 || o.stats.Down != 12 || !o.stats.Answered {
		t.Errorf("%+v", o)
	}
}

func TestContinueReachesTheClientBeforeItsBody(t *testing.T) {
	x := start(t, t.Context(), time.Hour, "POST http://ok.test/ HTTP/1.1\r\nHost: ok.test\r\nExpect: 100-continue\r\nContent-Length: 5\r\n\r\n")
	if head := x.originReadsHead(t); !strings.Contains(head, "Expect: 100-continue\r\n") {
		t.Fatalf("%q", head)
	}
	write(t, x.origin, "HTTP/1.1 100 Continue\r\nConnection: X-Hop\r\nX-Hop: a\r\n\r\n")
	wantRead(t, x.client, "HTTP/1.1 100 Continue\r\n\r\n")
	write(t, x.client, "hello")
	wantRead(t, x.fromOrigin, "hello")
	write(t, x.origin, "HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\n"+emptyReply)
	wantRest(t, x.client, "HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\n"+lines("HTTP/1.1 200 OK", "Content-Length: 0", "Connection: close"))
	x.client.Close()
	if o := x.wait(t); o.err != nil {
		t.Error(o.err)
	}
}

func TestOriginMayRefuseWhatExpectsContinue(t *testing.T) {
	x := start(t, t.Context(), time.Hour, "POST http://ok.test/ HTTP/1.1\r\nHost: ok.test\r\nExpect: 100-continue\r\nContent-Length: 5\r\n\r\n")
	x.originReadsHead(t)
	write(t, x.origin, "HTTP/1.1 417 Expectation Failed\r\nContent-Length: 0\r\n\r\n")
	wantRest(t, x.client, lines("HTTP/1.1 417 Expectation Failed", "Content-Length: 0", "Connection: close"))
	x.client.Close()
	if o := x.wait(t); o.err != nil || !o.stats.Answered {
		t.Errorf("%+v", o)
	}
}

func TestResponseBodies(t *testing.T) {
	long := strings.Repeat("v", 10<<10) // a line longer than the reader's buffer
	for _, c := range []struct{ rule, method, reply, want string }{
		{"a length", "GET", "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok", lines("HTTP/1.1 200 OK", "Content-Length: 2", "Connection: close") + "ok"},
		{"what follows a length is dropped", "GET", "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nokHTTP/1.1 200 OK\r\n\r\n", lines("HTTP/1.1 200 OK", "Content-Length: 2", "Connection: close") + "ok"},
		{"chunks", "GET", "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2;a\r\nok\r\n0\r\nA: b\r\n\r\nmore", lines("HTTP/1.1 200 OK", "Transfer-Encoding: chunked", "Connection: close") + "2\r\nok\r\n0\r\n\r\n"},
		{"until close", "GET", "HTTP/1.1 200 OK\r\n\r\nall of it", lines("HTTP/1.1 200 OK", "Connection: close") + "all of it"},
		{"HTTP/1.0 until close", "GET", "HTTP/1.0 200 OK\r\n\r\nall of it", lines("HTTP/1.1 200 OK", "Connection: close") + "all of it"},
		{"HEAD tells a length and has no body", "HEAD", "HTTP/1.1 200 OK\r\nContent-Length: 5\r\nContent-Length: 5\r\n\r\nhello", lines("HTTP/1.1 200 OK", "Content-Length: 5", "Connection: close")},
		{"HEAD of chunks has no body", "HEAD", "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", lines("HTTP/1.1 200 OK", "Connection: close")},
		{"204 has neither length nor body", "GET", "HTTP/1.1 204 No Content\r\nContent-Length: 5\r\n\r\nhello", lines("HTTP/1.1 204 No Content", "Connection: close")},
		{"304 tells a length and has no body", "GET", "HTTP/1.1 304 Not Modified\r\nContent-Length: 5\r\n\r\nhello", lines("HTTP/1.1 304 Not Modified", "Content-Length: 5", "Connection: close")},
		{"a length of an interim response is dropped", "GET", "HTTP/1.1 102 Processing\r\nContent-Length: 5\r\n\r\n" + emptyReply, "HTTP/1.1 102 Processing\r\n\r\n" + lines("HTTP/1.1 200 OK", "Content-Length: 0", "Connection: close")},
		{"a long field passes", "GET", "HTTP/1.1 200 OK\r\nX-Long: " + long + "\r\nContent-Length: 0\r\n\r\n", lines("HTTP/1.1 200 OK", "X-Long: "+long, "Content-Length: 0", "Connection: close")},
	} {
		t.Run(c.rule, func(t *testing.T) {
			x := start(t, t.Context(), time.Hour, c.method+" http://ok.test/ HTTP/1.1\r\nHost: ok.test\r\n\r\n")
			x.originReadsHead(t)
			write(t, x.origin, c.reply)
			_ = x.origin.CloseWrite()
			wantRest(t, x.client, c.want)
			x.client.Close()
			if o := x.wait(t); o.err != nil || !o.stats.Answered {
				t.Errorf("%+v", o)
			}
		})
	}
}

func TestHTTP10ClientGetsNeitherChunksNorInterimResponses(t *testing.T) {
	x := start(t, t.Context(), time.Hour, "GET http://ok.test/ HTTP/1.0\r\n\r\n")
	x.originReadsHead(t)
	write(t, x.origin, "HTTP/1.1 103 Early Hints\r\n\r\nHTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nab\r\n1\r\nc\r\n0\r\n\r\n")
	wantRest(t, x.client, lines("HTTP/1.1 200 OK", "Connection: close")+"abc")
	x.client.Close()
	if o := x.wait(t); o.err != nil || o.stats.Down != 3 {
		t.Errorf("%+v", o)
	}
}

func TestBadResponsesAre502(t *testing.T) {
	interim := "HTTP/1.1 102 Processing\r\n\r\n"
	for _, c := range []struct{ rule, reply, passed string }{
		{"nothing", "", ""},
		{"a banner", "220 mail.test ESMTP\r\n", ""},
		{"a banner with an empty line", "SSH-2.0-test\r\n\r\n", ""},
		{"half a head", "HTTP/1.1 200 OK\r\nConte", ""},
		{"an unsolicited 101", "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\r\n", ""},
		{"an interim response and then nothing", interim, interim},
		{"an interim response and then 101", interim + "HTTP/1.1 101 Switching Protocols\r\n\r\n", interim},
		{"an interim response and then garbage", interim + "garbage\r\n\r\n", interim},
		{"interim responses without end", strings.Repeat(interim, maxInterim+1), strings.Repeat(interim, maxInterim+1)},
		{"both framings", "HTTP/1.1 200 OK\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", ""},
		{"two lengths", "HTTP/1.1 200 OK\r\nContent-Length: 5\r\nContent-Length: 6\r\n\r\nhello!", ""},
		{"a coding nobody asked for", "HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip, chunked\r\n\r\n", ""},
		{"a continued field", "HTTP/1.1 200 OK\r\nA: b\r\n c\r\n\r\n", ""},
		{"a bare LF", "HTTP/1.1 200 OK\nContent-Length: 0\n\n", ""},
		{"Connection that names Content-Length", "HTTP/1.1 200 OK\r\nConnection: content-length\r\nContent-Length: 5\r\n\r\nhello", ""},
		{"a head without end", "HTTP/1.1 200 OK\r\n" + strings.Repeat("A: b\r\n", http1.MaxResponseHead/6), ""},
		{"a line without end", strings.Repeat("A", http1.MaxResponseHead+1), ""},
	} {
		t.Run(c.rule, func(t *testing.T) {
			x := start(t, t.Context(), time.Hour, getHead)
			x.originReadsHead(t)
			write(t, x.origin, c.reply)
			_ = x.origin.CloseWrite()
			wantError(t, x.wait(t), 502, core.ReasonUpstreamInvalid)
			wantRest(t, x.client, c.passed)
		})
	}
}

func TestSixteenInterimResponsesPass(t *testing.T) {
	x := start(t, t.Context(), time.Hour, getHead)
	x.originReadsHead(t)
	write(t, x.origin, strings.Repeat("HTTP/1.1 102 Processing\r\n\r\n", maxInterim)+emptyReply)
	_, _ = io.Copy(io.Discard, x.client)
	x.client.Close()
	if o := x.wait(t); o.err != nil {
		t.Error(o.err)
	}
}

func TestCutResponsesDoNotLookComplete(t *testing.T) {
	for _, c := range []struct {
		rule, version, reply, want string
		reset                      bool // how the origin ends
		wantReset                  bool // how the client sees it end
	}{
		{"a length", "1.1", "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhel", lines("HTTP/1.1 200 OK", "Content-Length: 5", "Connection: close") + "hel", false, false},
		{"chunks, inside one", "1.1", "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhel", lines("HTTP/1.1 200 OK", "Transfer-Encoding: chunked", "Connection: close") + "5\r\nhel", false, false},
		{"chunks, between two", "1.1", "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nhel\r\n", lines("HTTP/1.1 200 OK", "Transfer-Encoding: chunked", "Connection: close") + "3\r\nhel\r\n", false, false},
		{"chunks, malformed", "1.1", "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nhello\r\n", lines("HTTP/1.1 200 OK", "Transfer-Encoding: chunked", "Connection: close") + "3\r\nhel", false, false},
		{"until close, with a reset", "1.1", "HTTP/1.1 200 OK\r\n\r\nhel", lines("HTTP/1.1 200 OK", "Connection: close") + "hel", true, true},
		{"chunks to HTTP/1.0", "1.0", "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nhel\r\n", lines("HTTP/1.1 200 OK", "Connection: close") + "hel", false, true},
	} {
		t.Run(c.rule, func(t *testing.T) {
			x := start(t, t.Context(), time.Hour, "GET http://ok.test/ HTTP/"+c.version+"\r\nHost: ok.test\r\n\r\n")
			x.originReadsHead(t)
			write(t, x.origin, c.reply)
			wantRead(t, x.client, c.want)
			if c.reset {
				_ = x.origin.SetLinger(0)
			}
			x.origin.Close()
			if o := x.wait(t); o.err == nil || !o.stats.Answered {
				t.Errorf("%+v", o)
			}
			_, err := x.client.Read(make([]byte, 1))
			if errors.Is(err, syscall.ECONNRESET) != c.wantReset || err != io.EOF && !c.wantReset {
				t.Errorf("the client read %v", err)
			}
		})
	}
}

func TestMalformedRequestBodyIs400AndNeverComplete(t *testing.T) {
	for _, c := range []struct{ rule, framing, body, passed string }{
		{"a bad size", "Transfer-Encoding: chunked", "3\r\nabc\r\nzz\r\n", "3\r\nabc\r\n"},
		{"a chunk longer than its size", "Transfer-Encoding: chunked", "3\r\nabcdef\r\n0\r\n\r\n", "3\r\nabc"},
		{"an end between chunks", "Transfer-Encoding: chunked", "3\r\nabc\r\n", "3\r\nabc\r\n"},
		{"an end inside a length", "Content-Length: 5", "abc", "abc"},
	} {
		t.Run(c.rule, func(t *testing.T) {
			x := start(t, t.Context(), time.Hour, "POST http://ok.test/ HTTP/1.1\r\nHost: ok.test\r\n"+c.framing+"\r\n\r\n"+c.body)
			_ = x.client.CloseWrite()
			wantError(t, x.wait(t), 400, core.ReasonBadRequest)
			// The reset may take with it what the origin has not read yet.
			got, err := io.ReadAll(x.fromOrigin)
			if err == nil {
				t.Error("the origin saw an orderly end")
			}
			if _, body, ok := bytes.Cut(got, []byte("\r\n\r\n")); ok && !strings.HasPrefix(c.passed, string(body)) {
				t.Errorf("the origin got %q", body)
			}
		})
	}
}

func TestClientThatResetsInsideItsBodyEndsTheExchange(t *testing.T) {
	x := start(t, t.Context(), time.Hour, "POST http://ok.test/ HTTP/1.1\r\nHost: ok.test\r\nContent-Length: 5\r\n\r\nab")
	x.originReadsHead(t)
	wantRead(t, x.fromOrigin, "ab")
	_ = x.client.SetLinger(0)
	x.client.Close()
	wantError(t, x.wait(t), 400, core.ReasonClientClosed)
}

func TestEarlyResponseReachesAClientThatStillSends(t *testing.T) {
	const declared = 64 << 20
	x := start(t, t.Context(), time.Hour, "POST http://ok.test/ HTTP/1.1\r\nHost: ok.test\r\nContent-Length: 67108864\r\n\r\n")
	x.originReadsHead(t)
	sent := make(chan struct{})
	go func() { // until nobody takes any more
		defer close(sent)
		_, _ = x.client.Write(make([]byte, declared))
	}()
	if _, err := x.fromOrigin.Peek(1); err != nil { // the body is on its way
		t.Fatal(err)
	}
	write(t, x.origin, "HTTP/1.1 413 Content Too Large\r\nContent-Length: 3\r\n\r\nbig")
	x.origin.Close() // with unread bytes: a reset
	wantRead(t, x.client, lines("HTTP/1.1 413 Content Too Large", "Content-Length: 3", "Connection: close")+"big")
	x.client.Close()
	<-sent
	if o := x.wait(t); o.err != nil || !o.stats.Answered || o.stats.Down != 3 || o.stats.Up >= declared {
		t.Errorf("%+v", o)
	}
}

// A client that goes on sending after its request does not lose the response to a
// reset.
func TestPipelinedBytesDoNotCutTheResponse(t *testing.T) {
	x := start(t, t.Context(), time.Hour, getHead+strings.Repeat(getHead, 1000))
	x.originReadsHead(t)
	body := strings.Repeat("x", 1<<20)
	go func() { _, _ = io.WriteString(x.origin, "HTTP/1.1 200 OK\r\nContent-Length: 1048576\r\n\r\n"+body) }()
	wantRest(t, x.client, lines("HTTP/1.1 200 OK", "Content-Length: 1048576", "Connection: close")+body)
	x.client.Close()
	if o := x.wait(t); o.err != nil {
		t.Error(o.err)
	}
}

func TestSilentOriginIs504(t *testing.T) {
	x := start(t, t.Context(), shortIdle, getHead)
	wantError(t, x.wait(t), 504, core.ReasonUpstreamTimeout)
}

func TestSilentClientIs408(t *testing.T) {
	x := start(t, t.Context(), shortIdle, "POST http://ok.test/ HTTP/1.1\r\nHost: ok.test\r\nContent-Length: 5\r\n\r\nab")
	wantError(t, x.wait(t), 408, core.ReasonRequestTimeout)
}

func TestOriginThatStopsInsideItsResponseIsCut(t *testing.T) {
	x := start(t, t.Context(), shortIdle, getHead, "HTTP/1.1 200 OK\r\n\r\nhel")
	if o := x.wait(t); o.err == nil {
		t.Error("a cut response is no success")
	}
	if _, err := io.Copy(io.Discard, x.client); !errors.Is(err, syscall.ECONNRESET) {
		t.Errorf("the client read %v", err)
	}
}

func TestDoEndsWithItsContext(t *testing.T) {
	for _, reply := range []string{"", "HTTP/1.1 200 OK\r\n\r\nhel"} {
		ctx, cancel := context.WithCancel(t.Context())
		x := start(t, ctx, time.Hour, getHead)
		x.originReadsHead(t)
		write(t, x.origin, reply)
		if reply != "" {
			wantRead(t, x.client, lines("HTTP/1.1 200 OK", "Connection: close")+"hel")
		}
		cancel()
		if o := x.wait(t); o.err == nil {
			t.Error("a cut exchange is no success")
		}
		if _, err := io.Copy(io.Discard, x.client); !errors.Is(err, syscall.ECONNRESET) {
			t.Errorf("the client read %v", err)
		}
	}
}

func TestDoLeavesNoGoroutine(t *testing.T) {
	before := runtime.NumGoroutine()
	ctx, cancel := context.WithCancel(t.Context())
	var running []*exchange
	for i := range 12 {
		x := start(t, ctx, time.Hour, "POST http://ok.test/ HTTP/1.1\r\nHost: ok.test\r\nContent-Length: 5\r\n\r\nab")
		x.originReadsHead(t)
		switch i % 4 {
		case 0:
			x.client.Close()
		case 1:
			write(t, x.origin, emptyReply)
			x.client.Close()
		case 2:
			x.origin.Close()
		default: // the context ends it
		}
		running = append(running, x)
	}
	cancel()
	for _, x := range running {
		x.wait(t)
		x.client.Close()
	}
	for end := time.Now().Add(patience); runtime.NumGoroutine() > before; time.Sleep(time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("%d goroutines, %d before", runtime.NumGoroutine(), before)
		}
	}
}
