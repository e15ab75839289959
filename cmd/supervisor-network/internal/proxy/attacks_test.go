package proxy

import (
	"bufio"
	"context"
	"crypto/tls"
	"fmt"
	"io"
	"net/http"
	"net/http/httptrace"
	"strings"
	"testing"
	"time"
)

const handshake = "GET %s HTTP/1.1\r\nHost: %s\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n" +
	"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nAccept: text/event-stream\r\n\r\n"

// TestAnUpgradeDoesNotCarryPastRulesAboutContent: behind a handshake bytes pass unread,
// so an endpoint whose rules are about what is inside requests takes none.
func TestAnUpgradeDoesNotCarryPastRulesAboutContent(t *testing.T) {
	for name, tt := range map[string]struct{ options, target string }{
		"graphql": {", protocol: graphql, access: read-only", "/graphql?query=%7Bok%7D"},
		"mcp":     {", protocol: mcp, mcp: {allow_all_known_mcp_methods: true}", "/mcp"},
	} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t, generous, endpoint("a.example.com", 80, tt.options))
			reached := make(chan string, 1)
			w.origin("a.example.com", 80, http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) { reached <- r.Header.Get("Upgrade") }))
			c := w.tunnel("a.example.com", 80)
			fmt.Fprintf(c, handshake, tt.target, "a.example.com")
			resp, body := answer(t, bufio.NewReader(c), "GET")
			if resp.StatusCode != 403 || !strings.Contains(body, "unsupported_l7_protocol") {
				t.Errorf("%d %s", resp.StatusCode, body)
			}
			select {
			case u := <-reached:
				t.Errorf("the origin was asked to upgrade to %q", u)
			default:
			}
		})
	}
}

// TestAStreamIsJudgedByThePolicyItIsSentUnder: its body may have taken longer to come
// than the policy that judged it lasted.
func TestAStreamIsJudgedByThePolicyItIsSentUnder(t *testing.T) {
	const mutations, queries = ", protocol: graphql, enforcement: enforce, access: full", ", protocol: graphql, enforcement: enforce, access: read-only"
	w := newWorld(t, generous, endpoint("a.example.com", 443, mutations))
	reached := make(chan string, 1)
	w.origin("a.example.com", 443, http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		body, _ := io.ReadAll(r.Body)
		reached <- string(body)
	}), "http/1.1")
	r, slow := io.Pipe()
	done := make(chan *http.Response, 1)
	reading := make(chan bool)
	go func() {
		trace := &httptrace.ClientTrace{Got100Continue: func() { close(reading) }}
		req, _ := http.NewRequestWithContext(httptrace.WithClientTrace(t.Context(), trace), "POST", "https://a.example.com/graphql", r)
		req.Header.Set("Content-Type", "application/json")
		req.Header.Set("Expect", "100-continue")
		resp, err := w.client(true).Do(req)
		if err != nil {
			t.Error(err)
		}
		done <- resp
	}()
	<-reading // the policy has been asked what to read
	w.publish(endpoint("a.example.com", 443, queries))
	_, _ = io.WriteString(slow, `{"query":"mutation{delete}"}`)
	slow.Close()
	if resp := <-done; resp != nil && resp.StatusCode != 403 {
		t.Errorf("status %d", resp.StatusCode)
	}
	select {
	case body := <-reached:
		t.Errorf("the origin got %s", body)
	default:
	}
}

// TestTLSWithoutHTTPIsNotCutWhileItMoves: the time that is given to requests is none of
// a tunnel that is not HTTP.
func TestTLSWithoutHTTPIsNotCutWhileItMoves(t *testing.T) {
	const idle = brief
	w := newWorld(t, idle, endpoint("a.example.com", 443, ""))
	w.origin("a.example.com", 443, http.HandlerFunc(func(rw http.ResponseWriter, _ *http.Request) {}), "http/1.1")
	w.echo("a.example.com")
	c := w.secure("a.example.com")
	buf := make([]byte, 1)
	for start := time.Now(); time.Since(start) < idle+idle/2; time.Sleep(idle / 40) {
		if _, err := c.Write([]byte("x")); err != nil {
			t.Fatalf("after %v: %v", time.Since(start), err)
		}
		if _, err := io.ReadFull(c, buf); err != nil {
			t.Fatalf("after %v: %v", time.Since(start), err)
		}
	}
}

// TestABodyThatNobodyReadsAnyMoreIsGivenBack: an origin of HTTP/2 that answers before
// the request is complete must not leave a reader on the connection, whose buffer soon
// is another one's.
func TestABodyThatNobodyReadsAnyMoreIsGivenBack(t *testing.T) {
	w := newWorld(t, generous, endpoint("a.example.com", 443, ""))
	w.origin("a.example.com", 443, http.HandlerFunc(func(rw http.ResponseWriter, _ *http.Request) {
		_, _ = io.WriteString(rw, "early")
	}), "h2")
	for range 10 {
		c := w.secure("a.example.com", "http/1.1")
		fmt.Fprintf(c, "POST / HTTP/1.1\r\nHost: a.example.com\r\nContent-Length: 100000\r\n\r\nbegin")
		resp, body := answer(t, bufio.NewReader(c), "POST")
		if resp.StatusCode != 200 || body != "early" || !resp.Close {
			t.Errorf("%d %q, close %v", resp.StatusCode, body, resp.Close)
		}
		c.Close()
	}
}

// TestAnAnswerBeforeTheEndOfAStream: both sides of one exchange are counted while the
// other one still moves.
func TestAnAnswerBeforeTheEndOfAStream(t *testing.T) {
	w := newWorld(t, generous, endpoint("a.example.com", 443, ""))
	w.origin("a.example.com", 443, http.HandlerFunc(func(rw http.ResponseWriter, _ *http.Request) {
		_, _ = io.WriteString(rw, "early")
	}), "http/1.1")
	client := w.client(true)
	for range 10 {
		body := io.LimitReader(endless{}, 4<<20)
		resp, err := client.Post("https://a.example.com/", "text/plain", io.NopCloser(body))
		if err != nil {
			continue // the stream may be reset behind its answer
		}
		_, _ = io.Copy(io.Discard, resp.Body)
		resp.Body.Close()
	}
}

type endless struct{}

func (endless) Read(p []byte) (int, error) { return len(p), nil }

// TestALongAnswerOverHTTP2IsNotCutWhileItMoves: to a client of HTTP/1.1.
func TestALongAnswerOverHTTP2IsNotCutWhileItMoves(t *testing.T) {
	const idle = brief
	w := newWorld(t, idle, endpoint("a.example.com", 443, ""))
	w.origin("a.example.com", 443, http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) {
		for start := time.Now(); time.Since(start) < idle+idle/2 && r.Context().Err() == nil; time.Sleep(idle / 40) {
			_, _ = io.WriteString(rw, "x")
			_ = http.NewResponseController(rw).Flush()
		}
		_, _ = io.WriteString(rw, "end")
	}), "h2")
	resp, err := w.client(false).Get("https://a.example.com/")
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	if body, err := io.ReadAll(resp.Body); err != nil || !strings.HasSuffix(string(body), "end") {
		t.Errorf("%q, %v", body, err)
	}
}

// TestTheWaitForAnOriginEndsHoweverItWasReached: the time for the exchange may be over
// when the connection is there at last.
func TestTheWaitForAnOriginEndsHoweverItWasReached(t *testing.T) {
	const idle = 300 * time.Millisecond
	w := newWorld(t, idle, endpoint("a.example.com", 80, ""))
	w.origin("a.example.com", 80, http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		select {
		case <-r.Context().Done():
		case <-time.After(generous / 2): // or the test could not fail
		}
	}))
	w.dialDelay.Store(int64(2 * idle))
	resp, err := w.client(false).Get("http://a.example.com/")
	if err != nil {
		t.Fatal(err)
	}
	resp.Body.Close()
	if resp.StatusCode != 504 {
		t.Errorf("status %d", resp.StatusCode)
	}
}

// TestABodyThatIsJudgedArrivesInTime: in HTTP/2, where a stream may last.
func TestABodyThatIsJudgedArrivesInTime(t *testing.T) {
	const head = brief
	w := newWorld(t, head, endpoint("a.example.com", 443, ", protocol: graphql, access: full"))
	w.Idle = time.Minute
	w.origin("a.example.com", 443, http.NotFoundHandler(), "http/1.1")
	r, slow := io.Pipe()
	defer slow.Close()
	go func() {
		for {
			if _, err := slow.Write([]byte(" ")); err != nil {
				return
			}
			time.Sleep(head / 40)
		}
	}()
	resp, err := w.client(true).Post("https://a.example.com/graphql", "application/json", r)
	if err != nil {
		t.Fatal(err)
	}
	resp.Body.Close()
	if resp.StatusCode != 408 {
		t.Errorf("status %d", resp.StatusCode)
	}
}

// TestTheTunnelsConnectionServesItsFirstStream, and a client that takes trailers gets
// its answer from an origin that has none.
func TestTheTunnelsConnectionServesItsFirstStream(t *testing.T) {
	w := newWorld(t, generous, endpoint("a.example.com", 443, ""))
	w.origin("a.example.com", 443, http.HandlerFunc(func(http.ResponseWriter, *http.Request) {}), "http/1.1")
	req, err := http.NewRequestWithContext(t.Context(), "GET", "https://a.example.com/", nil)
	if err != nil {
		t.Fatal(err)
	}
	req.Header.Set("Te", "trailers")
	resp, err := w.client(true).Do(req)
	if err != nil {
		t.Fatal(err)
	}
	resp.Body.Close()
	if n := w.dials.Load(); resp.StatusCode != 200 || n != 1 {
		t.Errorf("status %d, %d connections", resp.StatusCode, n)
	}
}

// TestATunnelIsRevokedDuringItsHandshake is for the race detector.
func TestATunnelIsRevokedDuringItsHandshake(t *testing.T) {
	w := newWorld(t, generous, endpoint("a.example.com", 443, ", protocol: rest, access: full"))
	w.origin("a.example.com", 443, http.NotFoundHandler(), "http/1.1")
	for i := range 20 {
		w.publish(endpoint("a.example.com", 443, ", protocol: rest, access: full"))
		c := w.tunnel("a.example.com", 443)
		time.AfterFunc(time.Duration(i)*500*time.Microsecond, func() { w.Live.Recheck(context.Background(), nil) })
		tc := tls.Client(c, &tls.Config{RootCAs: w.roots, ServerName: "a.example.com"})
		if tc.Handshake() == nil {
			_, _ = io.ReadAll(tc)
		}
		c.Close()
	}
}

// TestUnreadMessagesEndWithTheRightToReadOnes: nobody reads binary messages, so they may
// pass only as long as text may, also on a WebSocket that is open.
func TestUnreadMessagesEndWithTheRightToReadOnes(t *testing.T) {
	const both = ", protocol: websocket, enforcement: enforce, access: read-write"
	const handshakeOnly = ", protocol: websocket, enforcement: enforce, access: read-only"
	w := newWorld(t, generous, endpoint("ws.example.com", 80, both))
	received := make(chan []byte, 16)
	w.origin("ws.example.com", 80, http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		c, rw, err := http.NewResponseController(w).Hijack()
		if err != nil {
			return
		}
		defer c.Close()
		_, _ = io.WriteString(c, "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n\r\n")
		for {
			frame := make([]byte, 7)
			if _, err := io.ReadFull(rw, frame); err != nil {
				return
			}
			received <- frame
		}
	}))
	c := w.tunnel("ws.example.com", 80)
	fmt.Fprintf(c, handshake, "/", "ws.example.com")
	in := bufio.NewReader(c)
	if resp, _ := answer(t, in, "GET"); resp.StatusCode != 101 {
		t.Fatal(resp.Status)
	}
	binary := []byte("\x82\x81\x00\x00\x00\x00x")
	if _, err := c.Write(binary); err != nil {
		t.Fatal(err)
	}
	if frame := <-received; frame[0] != 0x82 {
		t.Fatalf("the origin got %x", frame)
	}
	w.publish(endpoint("ws.example.com", 80, handshakeOnly))
	_, _ = c.Write(binary)
	closing := make([]byte, 4)
	if _, err := io.ReadFull(in, closing); err != nil || closing[0] != 0x88 || int(closing[2])<<8|int(closing[3]) != 1012 {
		t.Fatalf("the client read %x, %v, want a close frame with 1012", closing, err)
	}
	select {
	case frame := <-received:
		if frame[0] == 0x82 {
			t.Errorf("a binary message passed by the old policy: %x", frame)
		}
	default:
	}
}

// TestUnreadMessagesNeedTheRightOfTheirMoment: the origin takes its time for a handshake,
// and meanwhile the policy takes the right to messages away, but not that to the handshake.
func TestUnreadMessagesNeedTheRightOfTheirMoment(t *testing.T) {
	w := newWorld(t, generous, endpoint("ws.example.com", 80, anyText))
	asked, goOn, received := make(chan bool, 1), make(chan bool), make(chan byte, 16)
	origin := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		c, rw, err := http.NewResponseController(w).Hijack()
		if err != nil {
			return
		}
		defer c.Close()
		asked <- true
		<-goOn
		_, _ = io.WriteString(c, "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Accept: "+acceptOf(r.Header.Get("Sec-WebSocket-Key"))+"\r\n\r\n")
		first, _ := rw.ReadByte()
		received <- first
	})
	w.origin("ws.example.com", 80, origin)
	w.origin("ws.example.com", 443, origin, "http/1.1")
	both := func(options string) {
		w.publish(endpoint("ws.example.com", 80, options), endpoint("ws.example.com", 443, options))
	}
	meanwhile := func() {
		<-asked
		both(noText)
		goOn <- true
	}
	check := func(form string, code int) {
		t.Helper()
		if first := <-received; code != 1008 || first == 0x82 {
			t.Errorf("%s: the client is told %d, and the origin got a frame of %x", form, code, first)
		}
	}

	both(anyText)
	c := w.tunnel("ws.example.com", 80)
	fmt.Fprintf(c, handshake, "/", "ws.example.com")
	meanwhile()
	in := bufio.NewReader(c)
	if resp, _ := answer(t, in, "GET"); resp.StatusCode != 101 {
		t.Fatal(resp.Status)
	}
	_, _ = io.WriteString(c, "\x82\x81\x00\x00\x00\x00x\x88\x80\x00\x00\x00\x00")
	closing := make([]byte, 4)
	_, _ = io.ReadFull(in, closing)
	check("HTTP/1.1", int(closing[2])<<8|int(closing[3]))

	both(anyText)
	s := w.streams("ws.example.com")
	stream := s.ask("ws.example.com", "/")
	meanwhile()
	if h := s.await(stream, told); h.status != "200" {
		t.Fatal(h.status)
	}
	s.say(stream, 0x82, "x")
	s.say(stream, 0x88, "")
	_, payload := s.hear(stream)
	check("HTTP/2", int(payload[0])<<8|int(payload[1]))
}

// TestABodyThatIsJudgedMayComeInAnyPieces (attack B32): a chunk to each byte, or more than
// may be read, which is refused before the rest of it has come.
func TestABodyThatIsJudgedMayComeInAnyPieces(t *testing.T) {
	w := newWorld(t, generous, endpoint("a.example.com", 80, ", protocol: json-rpc, enforcement: enforce, json_rpc: {max_body_bytes: 100}, rules: [{allow: {method: a}}]"))
	reached := make(chan string, 8)
	w.origin("a.example.com", 80, http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		body, _ := io.ReadAll(r.Body)
		reached <- string(body)
	}))
	pieces := func(text string) string {
		var b strings.Builder
		for _, c := range []byte(text) {
			fmt.Fprintf(&b, "1;x=%c\r\n%c\r\n", '"', c)
		}
		return b.String()
	}
	const allowed, denied = `{"jsonrpc":"2.0","id":1,"method":"a"}`, `{"jsonrpc":"2.0","id":1,"method":"b"}`
	const chunked = "Transfer-Encoding: chunked\r\n\r\n"
	for name, tc := range map[string]struct {
		rest    string
		status  int
		arrives string
	}{
		"allowed, byte by byte":             {chunked + pieces(allowed) + "0\r\n\r\n", 200, allowed},
		"denied, byte by byte":              {chunked + pieces(denied) + "0\r\n\r\n", 403, ""},
		"as long as it may be":              {chunked + pieces(allowed+strings.Repeat(" ", 100-len(allowed))) + "0\r\n\r\n", 200, allowed + strings.Repeat(" ", 100-len(allowed))},
		"one byte longer, and not yet over": {chunked + pieces(allowed+strings.Repeat(" ", 101-len(allowed))), 413, ""},
		"a length of a gibibyte":            {"Content-Length: 1073741824\r\n\r\n" + allowed, 413, ""},
	} {
		resp, body := said(t, w.tunnel("a.example.com", 80), "POST / HTTP/1.1\r\nHost: a.example.com\r\nContent-Type: application/json\r\n"+tc.rest)
		if resp.StatusCode != tc.status {
			t.Errorf("%s: %s %s, want %d", name, resp.Status, body, tc.status)
		}
		select {
		case got := <-reached:
			if got != tc.arrives {
				t.Errorf("%s: the origin got %q", name, got)
			}
		default:
			if tc.arrives != "" {
				t.Errorf("%s: the origin got nothing", name)
			}
		}
	}
}

// TestOnlyWhatIsSentIsJudged: a field that Connection names ends here, so no rule may
// take the request for what that field says of it.
func TestOnlyWhatIsSentIsJudged(t *testing.T) {
	w := newWorld(t, generous, endpoint("a.example.com", 80, ", protocol: mcp, enforcement: enforce, mcp: {allow_all_known_mcp_methods: true}"))
	reached := make(chan string, 8)
	w.origin("a.example.com", 80, http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		reached <- fmt.Sprint(r.Header["Content-Type"], r.Header["Accept"], r.Header["Mcp-Session-Id"], r.Header["X-Mine"])
	}))
	const ping = `{"jsonrpc":"2.0","id":1,"method":"ping"}`
	for name, tc := range map[string]struct {
		head, body string
		status     int
	}{
		"the type of a body":      {"POST / HTTP/1.1\r\nConnection: Content-Type\r\nContent-Type: application/json\r\n", ping, 415},
		"the session it ends":     {"DELETE / HTTP/1.1\r\nConnection: mcp-session-id\r\nMcp-Session-Id: 1\r\n", "", 403},
		"the stream it asks for":  {"GET / HTTP/1.1\r\nAccept: text/event-stream\r\nConnection: close, accept\r\n", "", 403},
		"another field":           {"POST / HTTP/1.1\r\nConnection: X-Mine\r\nX-Mine: 1\r\nContent-Type: application/json\r\n", ping, 200},
		"a field that is not one": {"POST / HTTP/1.1\r\nConnection: keep-alive\r\nContent-Type: application/json\r\n", ping, 200},
	} {
		c := w.tunnel("a.example.com", 80)
		fmt.Fprintf(c, "%sHost: a.example.com\r\nContent-Length: %d\r\n\r\n%s", tc.head, len(tc.body), tc.body)
		if resp, body := answer(t, bufio.NewReader(c), "POST"); resp.StatusCode != tc.status {
			t.Errorf("%s: %s %s, want %d", name, resp.Status, body, tc.status)
		}
		select {
		case got := <-reached:
			if tc.status != 200 || got != "[application/json] [] [] []" {
				t.Errorf("%s: the origin got %s", name, got)
			}
		default:
			if tc.status == 200 {
				t.Errorf("%s: the origin got nothing", name)
			}
		}
	}
}

// TestAMethodThatAFieldAsksForIsJudged, or a parameter, in both versions of HTTP: many
// origins do what it says.
func TestAMethodThatAFieldAsksForIsJudged(t *testing.T) {
	w := newWorld(t, generous, endpoint("a.example.com", 443, ", protocol: rest, enforcement: enforce, access: read-write"))
	reached := make(chan string, 8)
	w.origin("a.example.com", 443, http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		reached <- fmt.Sprint(r.Method, r.Header.Values("X-Http-Method-Override"))
	}), "h2", "http/1.1")
	for _, newer := range []bool{false, true} {
		c := w.client(newer)
		for _, tc := range []struct {
			query  string
			fields []string
			status int
		}{
			{"", nil, 200}, {"", []string{"PATCH"}, 200}, {"", []string{"DELETE"}, 403}, {"", []string{"PUT", "DELETE"}, 403}, {"", []string{"PUT, DELETE"}, 403}, {"", []string{"PUT, PATCH"}, 200},
			{"", []string{"PUT", "PATCH", "GET", "PUT"}, 200}, {"", []string{"PUT", "PATCH", "GET", "PUT", "PATCH"}, 400},
			{"?_method=patch", nil, 200}, {"?a&_method=delete", nil, 403}, {"?%5fmethod=DELETE", nil, 403}, {"?_method=PUT", []string{"DELETE"}, 403},
			{"?_method=PUT", []string{"PUT", "PATCH", "GET", "PUT"}, 400}, {"?method=DELETE", nil, 200},
		} {
			req, err := http.NewRequestWithContext(t.Context(), "POST", "https://a.example.com/"+tc.query, nil)
			if err != nil {
				t.Fatal(err)
			}
			req.Header["X-Http-Method-Override"] = tc.fields
			resp, err := c.Do(req)
			if err != nil {
				t.Fatal(err)
			}
			body, _ := io.ReadAll(resp.Body)
			resp.Body.Close()
			if resp.StatusCode != tc.status || tc.status == 403 && !strings.Contains(string(body), "overrides the method POST") {
				t.Errorf("newer %v: POST taken for %v, %s: %s %s, want %d", newer, tc.fields, tc.query, resp.Status, body, tc.status)
			}
			select {
			case got := <-reached:
				if tc.status != 200 || got != fmt.Sprint("POST", tc.fields) {
					t.Errorf("newer %v: the origin got %s", newer, got)
				}
			default:
				if tc.status == 200 {
					t.Errorf("newer %v: the origin got nothing of %v", newer, tc.fields)
				}
			}
		}
	}
}

// TestATargetInAFieldIsNotCarriedPastRules: some origins take it for the request's own.
// Where no rule reads targets it passes.
func TestATargetInAFieldIsNotCarriedPastRules(t *testing.T) {
	w := newWorld(t, generous, endpoint("a.example.com", 443, ", protocol: rest, enforcement: enforce, access: full"), endpoint("b.example.com", 443, ""))
	reached := make(chan string, 8)
	for _, host := range []string{"a.example.com", "b.example.com"} {
		w.origin(host, 443, http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) { reached <- r.Host }), "h2", "http/1.1")
	}
	for _, tc := range []struct {
		host, field string
		status      int
	}{
		{"a.example.com", "X-Original-URL", 400}, {"a.example.com", "x-rewrite-url", 400}, {"a.example.com", "X_Rewrite_URL", 400}, {"a.example.com", "X.Original.URL", 400},
		{"a.example.com", "SCRIPT_NAME", 400}, {"a.example.com", "x-script-name", 400}, {"a.example.com", "Script-Names", 200},
		{"a.example.com", "X-Original-URLs", 200}, {"a.example.com", "X-Original-Host", 200}, {"b.example.com", "X-Original-URL", 200},
	} {
		for _, newer := range []bool{false, true} {
			req, err := http.NewRequestWithContext(t.Context(), "GET", "https://"+tc.host+"/", nil)
			if err != nil {
				t.Fatal(err)
			}
			req.Header[tc.field] = []string{"/admin"}
			resp, err := w.client(newer).Do(req)
			if err != nil {
				t.Fatal(err)
			}
			body, _ := io.ReadAll(resp.Body)
			resp.Body.Close()
			if resp.StatusCode != tc.status || tc.status == 400 && !strings.Contains(string(body), `"invalid_request_target"`) {
				t.Errorf("newer %v: %s at %s: %s %s, want %d", newer, tc.field, tc.host, resp.Status, body, tc.status)
			}
			select {
			case got := <-reached:
				if tc.status != 200 || got != tc.host {
					t.Errorf("newer %v: %s: %s was reached", newer, tc.field, got)
				}
			default:
				if tc.status == 200 {
					t.Errorf("newer %v: %s: nothing was reached", newer, tc.field)
				}
			}
		}
	}
}

// TestAnEncodedSlashIsForTheEndpointThatTakesIt, and for no other of the same host: a rule
// about one segment would allow several.
func TestAnEncodedSlashIsForTheEndpointThatTakesIt(t *testing.T) {
	strict := endpoint("a.example.com", 443, `, protocol: rest, enforcement: enforce, path: "/a/**", rules: [{allow: {method: GET, path: "/a/*"}}]`)
	loose := "  loose" + endpoint("a.example.com", 443, `, protocol: rest, enforcement: enforce, path: "/b/**", allow_encoded_slash: true, rules: [{allow: {method: GET, path: "/b/*"}}]`)[2:]
	w := newWorld(t, generous, strict, loose)
	reached := make(chan string, 8)
	w.origin("a.example.com", 443, http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) { reached <- r.RequestURI }), "h2", "http/1.1")
	for target, status := range map[string]int{"/a/x": 200, "/a/x%2Fy": 400, "/a/x%2fy": 400, "/a%2Fx": 403, "/b/x%2Fy": 200, "/b/x": 200, "/b/x/y": 403, "/c%2Fd": 403} {
		for _, newer := range []bool{false, true} {
			req, err := http.NewRequestWithContext(t.Context(), "GET", "https://a.example.com"+target, nil)
			if err != nil {
				t.Fatal(err)
			}
			resp, err := w.client(newer).Do(req)
			if err != nil {
				t.Fatal(err)
			}
			resp.Body.Close()
			if resp.StatusCode != status {
				t.Errorf("newer %v: %s: %s, want %d", newer, target, resp.Status, status)
			}
			if resp.StatusCode == 200 {
				if got := <-reached; got != target {
					t.Errorf("newer %v: %s arrived as %s", newer, target, got)
				}
			}
		}
	}
}
