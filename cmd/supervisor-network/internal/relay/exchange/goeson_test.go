package exchange

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/splitpod/splitpod/cmd/supervisor-network/internal/decide"
	"github.com/splitpod/splitpod/cmd/supervisor-network/internal/http1"
	"github.com/splitpod/splitpod/cmd/supervisor-network/internal/relay"
	"github.com/splitpod/splitpod/cmd/supervisor-network/internal/relay/pool"
)

// link is a client and an origin that stay, for several exchanges.
type link struct {
	t              *testing.T
	client, origin *net.TCPConn
	fromOrigin     *bufio.Reader
	near           *net.TCPConn
	r              *bufio.Reader
	conn           *pool.Conn
	pool           *pool.Pool
	last           bool
}

func newLink(t *testing.T) *link {
	t.Helper()
	client, near := pair(t)
	origin, far := pair(t)
	p := pool.New(pool.Config{})
	conn, err := p.Destination(decide.Permit{}, false).Wrap(t.Context(), far)
	if err != nil {
		t.Fatal(err)
	}
	return &link{t: t, client: client, origin: origin, fromOrigin: bufio.NewReader(origin), near: near, r: bufio.NewReaderSize(near, 4096), conn: conn, pool: p}
}

// do carries the request that text is; the origin answers with reply when it has read
// the head.
func (l *link) do(text, reply string) (Result, error) {
	l.t.Helper()
	write(l.t, l.client, text)
	head, err := http1.ReadHead(l.r, http1.MaxTunnelHead)
	if err != nil {
		l.t.Fatal(err)
	}
	req, err := http1.ParseRequest(head)
	if err != nil {
		l.t.Fatal(err)
	}
	target, err := req.Origin("ok.test", 443, 443, false)
	if err != nil {
		l.t.Fatal(err)
	}
	watch := relay.NewWatch(time.Second, func() {})
	defer watch.Stop()
	answered := make(chan struct{})
	go func() {
		defer close(answered)
		if _, err := http1.ReadHead(l.fromOrigin, 64<<10); err == nil {
			_, _ = io.WriteString(l.origin, reply)
		}
	}()
	res, err := Do(&Exchange{
		Client:  &Client{R: l.r, W: bufio.NewWriter(l.near), Interrupt: func() { _ = l.near.SetReadDeadline(time.Unix(1, 0)) }, Resume: func() { _ = l.near.SetReadDeadline(time.Time{}) }},
		Request: req, Target: target, DefaultPort: 443, Origin: l.conn, Watch: watch, Last: func() bool { return l.last },
	})
	<-answered
	return res, err
}

func TestWhatGoesOnAfterAnExchange(t *testing.T) {
	const get = "GET / HTTP/1.1\r\nHost: ok.test\r\n\r\n"
	for _, c := range []struct {
		rule, request, reply string
		last                 bool
		client, origin       bool
	}{
		{"a length", get, "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok", false, true, true},
		{"chunks", get, "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n", false, true, true},
		{"no content", get, "HTTP/1.1 204 No Content\r\n\r\n", false, true, true},
		{"a body that is here", "POST / HTTP/1.1\r\nHost: ok.test\r\nContent-Length: 2\r\n\r\nhi", emptyReply, false, true, true},
		{"a body that none expects", "DELETE / HTTP/1.1\r\nHost: ok.test\r\nContent-Length: 2\r\n\r\nhi", emptyReply, false, true, false},
		{"the client closes", "GET / HTTP/1.1\r\nHost: ok.test\r\nConnection: close\r\n\r\n", emptyReply, false, false, true},
		{"an HTTP/1.0 client", "GET / HTTP/1.0\r\nHost: ok.test\r\n\r\n", emptyReply, false, false, true},
		{"the daemon stops", get, emptyReply, true, false, true},
		{"the origin closes", get, "HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 0\r\n\r\n", false, true, false},
		{"an HTTP/1.0 origin", get, "HTTP/1.0 200 OK\r\nContent-Length: 0\r\n\r\n", false, true, false},
	} {
		t.Run(c.rule, func(t *testing.T) {
			l := newLink(t)
			l.last = c.last
			res, err := l.do(c.request, c.reply)
			if err != nil || res.ClientGoesOn != c.client || res.OriginGoesOn != c.origin {
				t.Fatalf("%v: the client goes on %v, the origin %v", err, res.ClientGoesOn, res.OriginGoesOn)
			}
			_ = l.near.CloseWrite()
			out, _ := io.ReadAll(l.client)
			if says := strings.Contains(string(out), "Connection: close\r\n"); says == c.client {
				t.Errorf("the client is told %q", out)
			}
		})
	}
}

// TestAnOriginsTimeIsNoted: in which it keeps its connection between two requests.
func TestAnOriginsTimeIsNoted(t *testing.T) {
	for fields, want := range map[string]time.Duration{
		"":                                     0,
		"Keep-Alive: timeout=5\r\n":            5 * time.Second,
		"keep-alive: max=100 , Timeout=75\r\n": 75 * time.Second,
		"Keep-Alive: timeout\r\n":              0,
		"Keep-Alive: timeout=-5\r\n":           0,
		"Keep-Alive: timeout=99999999\r\n":     0,
		"Keep-Alive: timeout=5.5, x=\"=\"\r\n": 0,
		"Connection: keep-alive, Keep-Alive\r\nKeep-Alive: timeout=7\r\n": 7 * time.Second,
	} {
		reply := "HTTP/1.1 200 OK\r\n" + fields + "Content-Length: 0\r\n\r\n"
		l := newLink(t)
		if _, err := l.do("GET / HTTP/1.1\r\nHost: ok.test\r\n\r\n", reply); err != nil || l.conn.KeptFor != want {
			t.Errorf("%q: %s, %v", fields, l.conn.KeptFor, err)
		}
		l = newLink(t)
		if _, _, err := l.roundTrip(t.Context(), request("GET", 0, "", nil), reply); err != nil || l.conn.KeptFor != want {
			t.Errorf("%q, as a round trip: %s, %v", fields, l.conn.KeptFor, err)
		}
	}
}

// TestExchangesFollowEachOther: on the same two connections, bodies and pipelining
// included, nothing of one is taken for another's.
func TestExchangesFollowEachOther(t *testing.T) {
	l := newLink(t)
	one := "POST /%s HTTP/1.1\r\nHost: ok.test\r\nTransfer-Encoding: chunked\r\n\r\n2;ext\r\nhi\r\n0\r\nTrailer-Field: x\r\n\r\n"
	write(t, l.client, strings.ReplaceAll(one, "%s", "a")) // pipelined with the next
	for _, reply := range []string{
		"HTTP/1.1 103 Early Hints\r\nLink: </x>\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 1\r\n\r\na",
		"HTTP/1.1 304 Not Modified\r\nContent-Length: 77\r\n\r\n",
		"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n1\r\nc\r\n0\r\nT: v\r\n\r\n",
	} {
		res, err := l.do(strings.ReplaceAll(one, "%s", "n"), reply)
		if err != nil || !res.ClientGoesOn || !res.OriginGoesOn || res.Up != 2 {
			t.Fatalf("%v %+v", err, res)
		}
		wantRead(t, l.fromOrigin, "2\r\nhi\r\n0\r\n\r\n")
	}
	_ = l.near.CloseWrite()
	wantRest(t, l.client, "HTTP/1.1 103 Early Hints\r\nLink: </x>\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 1\r\n\r\na"+
		"HTTP/1.1 304 Not Modified\r\nContent-Length: 77\r\n\r\n"+
		"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n1\r\nc\r\n0\r\n\r\n")
}

// roundTrip sends a request as it would come from HTTP/2; the origin answers reply.
func (l *link) roundTrip(ctx context.Context, r *http.Request, reply string) (*http.Response, string, error) {
	l.t.Helper()
	got := make(chan string, 1)
	go func() {
		raw, _ := http1.ReadHead(l.fromOrigin, 64<<10)
		head, body := string(raw), ""
		if r.ContentLength > 0 {
			b := make([]byte, r.ContentLength)
			_, _ = io.ReadFull(l.fromOrigin, b)
			body = string(b)
		} else if r.ContentLength < 0 {
			b, _ := io.ReadAll(http1.NewBodyReader(l.fromOrigin, http1.Framing{Kind: http1.Chunked}))
			body = "chunks:" + string(b)
		}
		got <- head + body
		_, _ = io.WriteString(l.origin, reply)
	}()
	resp, _, err := RoundTrip(ctx, l.conn, r, nil)
	return resp, <-got, err
}

func request(method string, length int64, body string, header http.Header) *http.Request {
	r := &http.Request{Method: method, URL: &url.URL{Scheme: "https", Host: "ok.test", Opaque: "/a%2Fb", RawQuery: "q=1"}, Host: "ok.test", Header: header, ContentLength: length, Body: http.NoBody}
	if length != 0 {
		r.Body = io.NopCloser(strings.NewReader(body))
	}
	return r
}

func TestRoundTripTranslatesToHTTP11(t *testing.T) {
	header := func() http.Header {
		return http.Header{"Accept": {"a", "b"}, "Cookie": {"x=1", "y=2"}, "Te": {"trailers"}, "Connection": {"x"}, "Host": {"evil.test"}}
	}
	for _, c := range []struct {
		rule   string
		r      *http.Request
		reply  string
		sent   string
		status int
		body   string
		kept   bool
	}{
		{"no body", request("GET", 0, "", header()), "HTTP/1.1 200 OK\r\nContent-Length: 2\r\nKeep-Alive: 5\r\n\r\nok",
			lines("GET /a%2Fb?q=1 HTTP/1.1", "Host: ok.test", "Accept: a", "Accept: b", "Cookie: x=1; y=2"), 200, "ok", true},
		{"a length", request("POST", 2, "hi", nil), "HTTP/1.1 103 Early Hints\r\n\r\nHTTP/1.1 201 Created\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n",
			lines("POST /a%2Fb?q=1 HTTP/1.1", "Host: ok.test", "Content-Length: 2") + "hi", 201, "ok", true},
		{"no length", request("PUT", -1, "hello", nil), "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n",
			lines("PUT /a%2Fb?q=1 HTTP/1.1", "Host: ok.test", "Transfer-Encoding: chunked") + "chunks:hello", 200, "", true},
		{"a body that none expects", request("GET", 2, "hi", nil), "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n",
			lines("GET /a%2Fb?q=1 HTTP/1.1", "Host: ok.test", "Content-Length: 2", "Connection: close") + "hi", 200, "", false},
		{"HEAD", request("HEAD", 0, "", nil), "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\n", lines("HEAD /a%2Fb?q=1 HTTP/1.1", "Host: ok.test"), 200, "", true},
		{"an origin that closes", request("GET", 0, "", nil), "HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 2\r\n\r\nok", lines("GET /a%2Fb?q=1 HTTP/1.1", "Host: ok.test"), 200, "ok", false},
	} {
		t.Run(c.rule, func(t *testing.T) {
			l := newLink(t)
			resp, sent, err := l.roundTrip(t.Context(), c.r, c.reply)
			if err != nil {
				t.Fatal(err)
			}
			body, err := io.ReadAll(resp.Body)
			if err != nil || resp.StatusCode != c.status || string(body) != c.body || sent != c.sent || resp.Header["Keep-Alive"] != nil {
				t.Errorf("%d %q %v, sent %q", resp.StatusCode, body, err, sent)
			}
			resp.Body.Close()
			if kept := l.pool.Idle() == 1; kept != c.kept {
				t.Errorf("the connection is kept: %v", kept)
			}
		})
	}
}

// TestTrailersAreAnnouncedWhereTheyCanCome: behind chunks.
func TestTrailersAreAnnouncedWhereTheyCanCome(t *testing.T) {
	for reply, want := range map[string]int{
		"HTTP/1.1 200 OK\r\nTrailer: x-sum, X-Late, Set-Cookie\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n": 2,
		"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n":                                       0,
		"HTTP/1.1 200 OK\r\nTrailer: X-Sum\r\nContent-Length: 2\r\n\r\nok":                                     0,
		"HTTP/1.1 204 No Content\r\nTrailer: X-Sum\r\n\r\n":                                                    0,
	} {
		resp, _, err := newLink(t).roundTrip(t.Context(), request("GET", 0, "", nil), reply)
		if err != nil || len(resp.Trailer) != want {
			t.Errorf("%q: %v, %v", reply, resp, err)
		}
	}
}

func TestRoundTripFailsClosed(t *testing.T) {
	for rule, reply := range map[string]string{
		"an unasked upgrade":  "HTTP/1.1 101 Switching Protocols\r\n\r\n",
		"both framings":       "HTTP/1.1 200 OK\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n",
		"garbage":             "garbage\r\n\r\n",
		"interim without end": strings.Repeat("HTTP/1.1 102 Processing\r\n\r\n", maxInterim+1),
	} {
		l := newLink(t)
		if resp, _, err := l.roundTrip(t.Context(), request("GET", 0, "", nil), reply); err == nil {
			t.Errorf("%s: status %d", rule, resp.StatusCode)
		}
		if l.pool.Idle() != 0 {
			t.Errorf("%s: the connection is kept", rule)
		}
	}
	l := newLink(t)
	resp, _, err := l.roundTrip(t.Context(), request("GET", 0, "", nil), "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhel")
	if err != nil {
		t.Fatal(err)
	}
	_ = l.origin.CloseWrite()
	if body, err := io.ReadAll(resp.Body); err == nil {
		t.Errorf("a cut body is complete: %q", body)
	}
	if l.pool.Idle() != 0 {
		t.Error("its connection is kept")
	}
}

// TestAnUnfinishedResponseTakesItsConnectionWithIt: what is left of it must not be the
// next request's answer.
func TestAnUnfinishedResponseTakesItsConnectionWithIt(t *testing.T) {
	l := newLink(t)
	resp, _, err := l.roundTrip(t.Context(), request("GET", 0, "", nil), "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello")
	if err != nil {
		t.Fatal(err)
	}
	_, _ = resp.Body.Read(make([]byte, 2))
	resp.Body.Close()
	if l.pool.Idle() != 0 {
		t.Error("the connection is kept")
	}
}

func TestRespondTranslatesToHTTP11(t *testing.T) {
	for _, c := range []struct {
		rule   string
		method string
		minor  int
		length int64
		status int
		body   string
		want   string
		err    bool
		goesOn bool
	}{
		{"a length", "GET", 1, 2, 200, "ok", lines("HTTP/1.1 200 OK", "X: y", "Content-Length: 2") + "ok", false, true},
		{"no length", "GET", 1, -1, 200, "ok", lines("HTTP/1.1 200 OK", "X: y", "Transfer-Encoding: chunked") + "2\r\nok\r\n0\r\n\r\n", false, true},
		{"no length for HTTP/1.0", "GET", 0, -1, 200, "ok", lines("HTTP/1.1 200 OK", "X: y", "Connection: close") + "ok", false, false},
		{"HEAD", "HEAD", 1, 5, 200, "", lines("HTTP/1.1 200 OK", "X: y", "Content-Length: 5"), false, true},
		{"204", "GET", 1, 0, 204, "", lines("HTTP/1.1 204 No Content", "X: y"), false, true},
		{"shorter than it says", "GET", 1, 5, 200, "ok", lines("HTTP/1.1 200 OK", "X: y", "Content-Length: 5") + "ok", true, true},
		{"longer than it says", "GET", 1, 1, 200, "ok", lines("HTTP/1.1 200 OK", "X: y", "Content-Length: 1"), true, true},
		{"no final status", "GET", 1, 0, 101, "", "", true, false},
	} {
		t.Run(c.rule, func(t *testing.T) {
			var out strings.Builder
			w := bufio.NewWriter(&out)
			resp := &http.Response{StatusCode: c.status, Header: http.Header{"X": {"y"}, "Connection": {"z"}}, ContentLength: c.length, Body: io.NopCloser(strings.NewReader(c.body))}
			res, err := Respond(w, &http1.Request{Method: c.method, Minor: c.minor}, resp, false)
			_ = w.Flush()
			if out.String() != c.want || (err != nil) != c.err || res.ClientGoesOn != c.goesOn {
				t.Errorf("%q, %v, goes on %v", out.String(), err, res.ClientGoesOn)
			}
		})
	}
}

// TestOnlyWhatMayBeRepeatedIsCalledUnheard: the origin closes a kept connection without a
// word, and may have done before what it was asked for.
func TestOnlyWhatMayBeRepeatedIsCalledUnheard(t *testing.T) {
	for _, c := range []struct {
		r    *http.Request
		want bool
	}{
		{request("GET", 0, "", nil), true},
		{request("DELETE", 0, "", nil), true},
		{request("PUT", 2, "hi", nil), false},
		{request("POST", 0, "", nil), false},
		{request("PATCH", 0, "", nil), false},
	} {
		l := newLink(t)
		go func() {
			_, _ = http1.ReadHead(l.fromOrigin, 64<<10)
			l.origin.Close()
		}()
		if _, unheard, err := RoundTrip(t.Context(), l.conn, c.r, nil); err == nil || unheard != c.want {
			t.Errorf("%s: %v, unheard %v, want %v", c.r.Method, err, unheard, c.want)
		}
	}
}

// TestInterimResponsesAreGivenOn without what belongs to one hop, and as they come. Leave
// to send the body is not: nobody else asked for it.
func TestInterimResponsesAreGivenOn(t *testing.T) {
	reply := "HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early Hints\r\nLink: </a>\r\nLink: </b>\r\nConnection: x-hop\r\nX-Hop: 1\r\nKeep-Alive: 5\r\nContent-Length: 5\r\n\r\n" +
		"HTTP/1.1 102 Processing\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"
	l := newLink(t)
	go func() {
		_, _ = http1.ReadHead(l.fromOrigin, 64<<10)
		_, _ = io.WriteString(l.origin, reply)
	}()
	var got []string
	resp, _, err := RoundTrip(t.Context(), l.conn, request("GET", 0, "", nil), func(status int, h http.Header) error {
		got = append(got, fmt.Sprint(status, h))
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	if diff := cmp.Diff([]string{"103 map[Link:[</a> </b>]]", "102 map[]"}, got); diff != "" || resp.StatusCode != 200 {
		t.Errorf("%d\n%s", resp.StatusCode, diff)
	}
}

// TestBehindAnInterimResponseNothingMayBeRepeated: the origin has begun with the request.
func TestBehindAnInterimResponseNothingMayBeRepeated(t *testing.T) {
	for rule, interim := range map[string]Interim{
		"nobody is told":               nil,
		"who is told":                  func(int, http.Header) error { return nil },
		"who is told cannot be either": func(int, http.Header) error { return io.ErrClosedPipe },
	} {
		l := newLink(t)
		l.conn.Reused = true
		go func() {
			_, _ = http1.ReadHead(l.fromOrigin, 64<<10)
			_, _ = io.WriteString(l.origin, "HTTP/1.1 102 Processing\r\n\r\n")
			l.origin.Close()
		}()
		if _, unheard, err := RoundTrip(t.Context(), l.conn, request("GET", 0, "", nil), interim); err == nil || unheard {
			t.Errorf("%s: %v, unheard %v", rule, err, unheard)
		}
	}
}
