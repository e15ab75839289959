package proxy

import (
	"bytes"
	"context"
	"crypto/sha1"
	"encoding/base64"
	"encoding/binary"
	"fmt"
	"io"
	"maps"
	"net"
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/coder/websocket"
	"golang.org/x/net/http2"
	"golang.org/x/net/http2/hpack"

	ws "github.com/splitpod/splitpod/cmd/supervisor-network/internal/inspect/websocket"
)

//lint:file-ignore SA1019 a client of net/http, which the deprecations lead to, refuses :protocol

const (
	anyText  = ", protocol: websocket, enforcement: enforce, access: read-write"
	noText   = ", protocol: websocket, enforcement: enforce, access: read-only"
	chatOnly = `, protocol: websocket, enforcement: enforce, rules: [{allow: {method: GET, path: "/chat"}}, {allow: {method: WEBSOCKET_TEXT, path: "/chat"}}]`
)

// streams is a client of HTTP/2 that opens WebSockets as RFC 8441 has it.
type streams struct {
	t     testing.TB
	conn  net.Conn
	fr    *http2.Framer
	block bytes.Buffer
	enc   *hpack.Encoder
	next  uint32
	of    map[uint32]*heard
}

// heard is what a stream was told.
type heard struct {
	status string
	fields map[string]string
	data   []byte
	ended  bool
	reset  bool
}

// streams connects to a host whose daemon offers extended CONNECT.
func (w *world) streams(host string) *streams {
	w.t.Helper()
	conn := w.secure(host, "h2")
	c := &streams{t: w.t, conn: conn, fr: http2.NewFramer(conn, conn), next: 1, of: make(map[uint32]*heard)}
	c.enc = hpack.NewEncoder(&c.block)
	c.fr.ReadMetaHeaders = hpack.NewDecoder(4096, nil)
	_, err := io.WriteString(conn, http2.ClientPreface)
	c.ok(err)
	c.ok(c.fr.WriteSettings())
	f, err := c.fr.ReadFrame()
	c.ok(err)
	settings, ok := f.(*http2.SettingsFrame)
	if !ok {
		w.t.Fatalf("the first frame is %v", f)
	}
	if v, _ := settings.Value(http2.SettingEnableConnectProtocol); v != 1 {
		w.t.Fatal("extended CONNECT is not offered")
	}
	c.ok(c.fr.WriteSettingsAck())
	return c
}

func (c *streams) ok(err error) {
	c.t.Helper()
	if err != nil {
		c.t.Fatal(err)
	}
}

// ask sends a handshake; more are names and values, of which "" sends none.
func (c *streams) ask(host, path string, more ...string) (stream uint32) {
	c.t.Helper()
	all := append([]string{":method", "CONNECT", ":protocol", "websocket", ":scheme", "https", ":authority", host, ":path", path}, more...)
	if !slices.Contains(more, "sec-websocket-version") {
		all = append(all, "sec-websocket-version", "13")
	}
	return c.send(false, all...)
}

// send sends a head; all are names and values, of which "" sends none.
func (c *streams) send(end bool, all ...string) (stream uint32) {
	c.t.Helper()
	c.block.Reset()
	for i := 0; i < len(all); i += 2 {
		if all[i+1] != "" {
			c.ok(c.enc.WriteField(hpack.HeaderField{Name: all[i], Value: all[i+1]}))
		}
	}
	stream = c.next
	c.next += 2
	c.of[stream] = &heard{fields: make(map[string]string)}
	c.ok(c.fr.WriteHeaders(http2.HeadersFrameParam{StreamID: stream, BlockFragment: c.block.Bytes(), EndStream: end, EndHeaders: true}))
	return stream
}

// await reads frames until the stream is as told.
func (c *streams) await(stream uint32, until func(*heard) bool) *heard {
	c.t.Helper()
	for !until(c.of[stream]) {
		f, err := c.fr.ReadFrame()
		c.ok(err)
		h := c.of[f.Header().StreamID]
		switch f := f.(type) {
		case *http2.MetaHeadersFrame:
			h.status, h.ended = f.PseudoValue("status"), f.StreamEnded()
			for _, field := range f.RegularFields() {
				h.fields[field.Name] = field.Value
			}
		case *http2.DataFrame:
			h.data = append(h.data, f.Data()...)
			h.ended = f.StreamEnded()
			if n := uint32(len(f.Data())); n > 0 {
				c.ok(c.fr.WriteWindowUpdate(0, n))
			}
		case *http2.RSTStreamFrame:
			h.ended, h.reset = true, f.ErrCode != http2.ErrCodeNo
		}
	}
	return c.of[stream]
}

func told(h *heard) bool { return h.status != "" || h.ended }
func over(h *heard) bool { return h.ended }

// open opens a WebSocket.
func (c *streams) open(host, path string, more ...string) (stream uint32) {
	c.t.Helper()
	stream = c.ask(host, path, more...)
	if h := c.await(stream, told); h.status != "200" || h.ended {
		c.t.Fatalf("the handshake is answered with %s %v", h.status, h.fields)
	}
	return stream
}

// refused asks for a WebSocket and returns the whole refusal.
func (c *streams) refused(host, path string, more ...string) *heard {
	c.t.Helper()
	return c.await(c.ask(host, path, more...), over)
}

// say sends a frame whose mask is zero; op has the FIN bit.
func (c *streams) say(stream uint32, op byte, payload string) {
	c.t.Helper()
	c.ok(c.fr.WriteData(stream, false, append([]byte{op, 0x80 | byte(len(payload)), 0, 0, 0, 0}, payload...)))
}

// hear reads a short frame of the server.
func (c *streams) hear(stream uint32) (op byte, payload string) {
	c.t.Helper()
	whole := func(h *heard) bool { return len(h.data) >= 2 && len(h.data) >= 2+int(h.data[1]) || h.ended }
	h := c.await(stream, whole)
	if len(h.data) < 2 {
		c.t.Fatalf("the stream ended with %q, reset %t", h.data, h.reset)
	}
	n := 2 + int(h.data[1])
	op, payload = h.data[0], string(h.data[2:n])
	h.data = h.data[n:]
	return op, payload
}

// closed reads a close frame and the end of the stream, which has no error.
func (c *streams) closed(stream uint32) (code int, reason string) {
	c.t.Helper()
	op, payload := c.hear(stream)
	if op != 0x88 || len(payload) < 2 {
		c.t.Fatalf("got the frame %x %q, want a close frame", op, payload)
	}
	c.ok(c.fr.WriteData(stream, true, nil)) // as a client does that has been told
	if h := c.await(stream, over); h.reset {
		c.t.Error("the stream is reset")
	}
	return int(binary.BigEndian.Uint16([]byte(payload))), payload[2:]
}

// echoes is an origin of WebSockets that returns what it is told.
func echoes(t testing.TB, handshakes chan<- *http.Request) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if handshakes != nil {
			handshakes <- r.Clone(context.WithoutCancel(r.Context()))
		}
		w.Header().Set("X-Origin", "1")
		c, err := websocket.Accept(w, r, &websocket.AcceptOptions{Subprotocols: []string{"two"}, CompressionMode: websocket.CompressionNoContextTakeover, CompressionThreshold: 1 << 20, InsecureSkipVerify: true})
		if err != nil {
			return
		}
		defer c.CloseNow()
		for {
			kind, data, err := c.Read(context.WithoutCancel(r.Context()))
			if err != nil {
				return
			}
			if err := c.Write(context.WithoutCancel(r.Context()), kind, data); err != nil {
				return
			}
		}
	})
}

func TestAWebSocketOnAStreamIsOneOfHTTP1ToItsOrigin(t *testing.T) {
	w := newWorld(t, generous, endpoint("ws.example.com", 443, anyText))
	handshakes := make(chan *http.Request, 1)
	w.origin("ws.example.com", 443, echoes(t, handshakes), "http/1.1")
	c := w.streams("ws.example.com")
	s := c.open("ws.example.com", "/chat?room=1", "origin", "https://ws.example.com", "sec-websocket-protocol", "one, two", "sec-websocket-extensions",
		"permessage-deflate; client_no_context_takeover; server_no_context_takeover, x-other", "cookie", "a=1", "cookie", "b=2")
	r := <-handshakes
	if r.Method != "GET" || r.Proto != "HTTP/1.1" || r.RequestURI != "/chat?room=1" || r.Host != "ws.example.com" {
		t.Errorf("the origin got %s %s %s for %s", r.Method, r.RequestURI, r.Proto, r.Host)
	}
	for name, want := range map[string]string{"Origin": "https://ws.example.com", "Sec-Websocket-Protocol": "one, two", "Cookie": "a=1; b=2",
		"Sec-Websocket-Extensions": "permessage-deflate; client_no_context_takeover; server_no_context_takeover", "Sec-Websocket-Version": "13",
		"Connection": "Upgrade", "Upgrade": "websocket", "Te": "", "Trailer": ""} {
		if got := strings.Join(r.Header[name], " | "); got != want {
			t.Errorf("%s is %q, want %q", name, got, want)
		}
	}
	got := c.of[s].fields
	delete(got, "date")
	want := map[string]string{"x-origin": "1", "sec-websocket-protocol": "two", "sec-websocket-extensions": "permessage-deflate; client_no_context_takeover; server_no_context_takeover"}
	if !maps.Equal(got, want) {
		t.Errorf("the client got %v, want %v", got, want)
	}
	for _, op := range []byte{0x81, 0x82} {
		c.say(s, op, "hello")
		if got, text := c.hear(s); got != op || text != "hello" {
			t.Errorf("got the frame %x %q", got, text)
		}
	}
	c.say(s, 0x88, "\x03\xe8bye")
	if code, _ := c.closed(s); code != 1000 {
		t.Errorf("closed with %d", code)
	}
	record := w.recorded(t, "/chat")
	source := fmt.Sprintf(`"port":%d`, c.conn.LocalAddr().(*net.TCPAddr).Port)
	for _, part := range []string{`"GET"`, `"code":101`, `"Allowed"`, source} {
		if !strings.Contains(record, part) {
			t.Errorf("the record has no %s: %s", part, record)
		}
	}
}

// recorded is the last record that names part; it is written when its stream has
// ended, which the client may know first.
func (w *world) recorded(t testing.TB, part string) string {
	t.Helper()
	for end := time.Now().Add(generous); ; time.Sleep(time.Millisecond) {
		list := slices.DeleteFunc(w.records.list(), func(s string) bool { return !strings.Contains(s, part) })
		if len(list) > 0 {
			return list[len(list)-1]
		}
		if time.Now().After(end) {
			t.Fatalf("no record names %s: %q", part, w.records.list())
		}
	}
}

// TestHandshakesAreJudgedAlikeInBothForms: by HTTP/1.1 and on a stream the same rule
// decides, and says the same.
func TestHandshakesAreJudgedAlikeInBothForms(t *testing.T) {
	endpoints := map[string]string{
		"chat":    chatOnly,
		"audit":   strings.Replace(chatOnly, ": enforce", ": audit", 1),
		"queries": `, protocol: websocket, enforcement: enforce, rules: [{allow: {method: GET, path: "/**", query: {room: "1"}}}]`,
		"rest":    ", protocol: rest, enforcement: enforce, access: full",
		"post":    `, protocol: rest, enforcement: enforce, rules: [{allow: {method: POST, path: "/**"}}]`,
		"graphql": ", protocol: graphql, access: read-only",
		"mcp":     ", protocol: mcp, mcp: {allow_all_known_mcp_methods: true}",
		"jsonrpc": `, protocol: json-rpc, enforcement: enforce, rules: [{allow: {method: "ping"}}]`,
		"open":    "",
	}
	var policies []string
	for name, options := range endpoints {
		policies = append(policies, endpoint(name+".example.com", 443, options))
	}
	w := newWorld(t, generous, policies...)
	for name := range endpoints {
		w.origin(name+".example.com", 443, echoes(t, nil), "http/1.1")
	}
	passed := 0
	for name := range endpoints {
		host := name + ".example.com"
		older, newer := w.client(false), w.streams(host)
		for _, target := range []string{"/chat", "/other", "/chat/../other", "/x?room=1", "/x?room=2", "/..%2fchat", "/graphql?query=%7Bok%7D"} {
			for kind, field := range map[string][2]string{
				"well-formed":              {"accept", "text/event-stream"},
				"without a version":        {"sec-websocket-version", ""},
				"with another version":     {"sec-websocket-version", "8"},
				"with a subprotocol twice": {"sec-websocket-protocol", "a, a"},
				"with a broken extension":  {"sec-websocket-extensions", "a;;"},
			} {
				one, two := w.verdict(older, host, target, field), newer.verdict(host, target, field[:]...)
				if one == "200" {
					passed++
				}
				if one != two {
					t.Errorf("%s%s %s:\nHTTP/1.1 %s\nHTTP/2   %s", host, target, kind, one, two)
				}
			}
		}
	}
	if passed < 10 {
		t.Errorf("only %d handshakes passed", passed)
	}
}

// TestAnotherVersionIsToldTheOneThereIs (RFC 6455 section 4.4), and nothing else is.
func TestAnotherVersionIsToldTheOneThereIs(t *testing.T) {
	const host = "chat.example.com"
	w := newWorld(t, generous, endpoint(host, 443, `, protocol: rest, enforcement: enforce, rules: [{allow: {method: GET, path: "/chat"}}]`))
	w.origin(host, 443, echoes(t, nil), "http/1.1")
	for _, c := range []struct{ path, version, key, status, says string }{
		{"/chat", "8", "dGhlIHNhbXBsZSBub25jZQ==", "426", "13"},
		{"/chat", "", "dGhlIHNhbXBsZSBub25jZQ==", "426", "13"},
		{"/other", "8", "dGhlIHNhbXBsZSBub25jZQ==", "403", ""},
		{"/chat", "13", "short", "400", ""},
	} {
		conn := w.secure(host, "http/1.1")
		fmt.Fprintf(conn, "GET %s HTTP/1.1\r\nHost: %s\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: %s\r\nSec-WebSocket-Key: %s\r\n\r\n", c.path, host, c.version, c.key)
		raw, err := io.ReadAll(conn) // it ends with the answer
		if err != nil {
			t.Fatal(err)
		}
		head, _, _ := strings.Cut(string(raw), "\r\n\r\n")
		lines := strings.Split(head, "\r\n")
		if !strings.HasPrefix(head, "HTTP/1.1 "+c.status) || !slices.Contains(lines, "Connection: close") {
			t.Errorf("%v: answered %q", c, head)
		}
		for _, field := range []string{"Sec-WebSocket-Version: 13", "Upgrade: websocket", "Connection: Upgrade"} {
			if slices.Contains(lines, field) != (c.says != "") {
				t.Errorf("%v: %s is wrong in %q", c, field, head)
			}
		}
		if c.key == "short" {
			continue // there is no key in HTTP/2
		}
		h := w.streams(host).refused(host, c.path, "sec-websocket-version", c.version)
		if h.status != c.status || h.fields["sec-websocket-version"] != c.says || h.fields["upgrade"]+h.fields["connection"] != "" {
			t.Errorf("%v: in HTTP/2 answered %s with %v", c, h.status, h.fields)
		}
	}
}

// verdict is streams.verdict in HTTP/1.1, with the status that HTTP/2 has for it.
func (w *world) verdict(client *http.Client, host, target string, field [2]string) string {
	w.t.Helper()
	req, err := http.NewRequestWithContext(w.t.Context(), "GET", "https://"+host+"/", nil)
	if err != nil {
		w.t.Fatal(err)
	}
	path, query, _ := strings.Cut(target, "?")
	req.URL.Opaque, req.URL.RawQuery = path, query
	for _, f := range [][2]string{{"connection", "Upgrade"}, {"upgrade", "websocket"}, {"sec-websocket-version", "13"}, {"sec-websocket-key", "dGhlIHNhbXBsZSBub25jZQ=="}, field} {
		req.Header.Set(f[0], f[1])
		if f[1] == "" {
			req.Header.Del(f[0])
		}
	}
	resp, err := client.Do(req)
	if err != nil {
		w.t.Fatal(err)
	}
	defer resp.Body.Close()
	if resp.StatusCode == 101 {
		return "200"
	}
	body, err := io.ReadAll(resp.Body)
	if err != nil {
		w.t.Fatal(err)
	}
	return fmt.Sprint(resp.StatusCode, " ", plain(string(body)))
}

// verdict asks for a WebSocket, and hangs up if it gets one.
func (c *streams) verdict(host, target string, fields ...string) string {
	c.t.Helper()
	stream := c.ask(host, target, fields...)
	if h := c.await(stream, told); h.status == "200" {
		c.ok(c.fr.WriteRSTStream(stream, http2.ErrCodeCancel))
		return "200"
	}
	h := c.await(stream, over)
	return h.status + " " + plain(string(h.data))
}

// plain is a refusal without what is another one's each time.
func plain(body string) string {
	head, _, _ := strings.Cut(body, `"request_id"`)
	return head
}

func TestTheEndOfAWebSocketOnAStreamIsSaidInIt(t *testing.T) {
	for rule, c := range map[string]struct {
		options string
		cause   func(*world, *streams, uint32)
		code    int
		record  []string
	}{
		"a message that rules refuse": {noText, func(_ *world, c *streams, s uint32) { c.say(s, 0x81, "x") }, 1008, []string{`"WEBSOCKET_TEXT"`, `"Denied"`, "127.0.0.1"}},
		"a binary message where text is refused": {noText, func(_ *world, c *streams, s uint32) { c.say(s, 0x82, "x") }, 1008,
			[]string{`"WEBSOCKET_TEXT"`, `"Denied"`}},
		"a policy that forbids the endpoint": {anyText, func(w *world, _ *streams, _ uint32) { w.publish(endpoint("other.example.com", 443, "")) }, 1012, []string{"policy_changed"}},
		"a policy that forbids the handshake": {anyText, func(w *world, _ *streams, _ uint32) {
			w.publish(endpoint("ws.example.com", 443, strings.ReplaceAll(chatOnly, "/chat", "/x")))
		}, 1012,
			[]string{"policy_changed"}},
		"the end of the daemon":   {anyText, func(w *world, _ *streams, _ uint32) { w.stop() }, 1001, []string{`"shutdown"`}},
		"nothing that moves":      {anyText, func(*world, *streams, uint32) {}, 1001, []string{`"idle`}},
		"a frame without a mask":  {anyText, func(_ *world, c *streams, s uint32) { c.ok(c.fr.WriteData(s, false, []byte("\x81\x01x"))) }, 1002, []string{`"bad_request"`}},
		"a text that is no UTF-8": {anyText, func(_ *world, c *streams, s uint32) { c.say(s, 0x81, "\xff") }, 1007, []string{`"bad_request"`}},
	} {
		t.Run(rule, func(t *testing.T) {
			idle := generous
			if c.code == 1001 && strings.HasPrefix(rule, "nothing") {
				idle = brief
			}
			w := newWorld(t, idle, endpoint("ws.example.com", 443, c.options))
			w.origin("ws.example.com", 443, echoes(t, nil), "http/1.1")
			client := w.streams("ws.example.com")
			s := client.open("ws.example.com", "/chat")
			c.cause(w, client, s)
			if code, _ := client.closed(s); code != c.code {
				t.Errorf("closed with %d, want %d", code, c.code)
			}
			for _, part := range c.record {
				w.recorded(t, part)
			}
		})
	}
}

// TestOnlyWhatTheOriginAgreedToIsOpened: whatever else it answers is no success to the
// client.
func TestOnlyWhatTheOriginAgreedToIsOpened(t *testing.T) {
	const accept = "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Accept: "
	for rule, c := range map[string]struct {
		answer string // in which {accept} is what belongs to the key
		status string
		says   string
	}{
		"it agrees":                      {accept + "{accept}\r\n\r\n", "200", ""},
		"it is a page":                   {"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello", "502", `"upstream_invalid_response"`},
		"it is no content":               {"HTTP/1.1 204 No Content\r\n\r\n", "502", `"upstream_invalid_response"`},
		"it is a part of a page":         {"HTTP/1.1 206 Partial Content\r\nContent-Length: 5\r\n\r\nhello", "502", `"upstream_invalid_response"`},
		"it refuses":                     {"HTTP/1.1 401 Unauthorized\r\nContent-Length: 3\r\nWWW-Authenticate: Basic\r\n\r\nwho", "401", "who"},
		"it leads elsewhere":             {"HTTP/1.1 302 Found\r\nLocation: /x\r\nContent-Length: 0\r\n\r\n", "302", ""},
		"it accepts another key":         {accept + "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n\r\n", "502", "does not belong to the key"},
		"it switches to something else":  {"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: h2c\r\nSec-WebSocket-Accept: {accept}\r\n\r\n", "502", "another protocol"},
		"it chooses another subprotocol": {accept + "{accept}\r\nSec-WebSocket-Protocol: three\r\n\r\n", "502", "was not offered"},
		"it chooses another extension":   {accept + "{accept}\r\nSec-WebSocket-Extensions: x-other\r\n\r\n", "502", "was not offered"},
		"it says nothing":                {"", "502", `"upstream_invalid_response"`},
		"it is not HTTP":                 {"220 smtp\r\n\r\n", "502", `"upstream_invalid_response"`},
		"it has a length and agrees":     {accept + "{accept}\r\nContent-Length: 0\r\n\r\n", "200", ""},
	} {
		t.Run(rule, func(t *testing.T) {
			w := newWorld(t, generous, endpoint("ws.example.com", 443, anyText))
			w.origin("ws.example.com", 443, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				conn, _, err := http.NewResponseController(w).Hijack()
				if err != nil {
					return
				}
				defer conn.Close()
				_, _ = io.WriteString(conn, strings.ReplaceAll(c.answer, "{accept}", acceptOf(r.Header.Get("Sec-WebSocket-Key"))))
				if c.status == "200" {
					_, _ = io.ReadAll(conn)
				}
			}), "http/1.1")
			client := w.streams("ws.example.com")
			s := client.ask("ws.example.com", "/chat", "sec-websocket-protocol", "two", "content-type", "application/grpc")
			h := client.await(s, func(h *heard) bool { return h.ended || h.status == "200" })
			if h.status != c.status || !strings.Contains(string(h.data), c.says) || h.reset || h.status == "200" && h.fields["content-length"] != "" {
				t.Errorf("answered with %s %s, want %s %s", h.status, h.data, c.status, c.says)
			}
		})
	}
}

// acceptOf is the answer to a key, RFC 6455 section 4.2.2.
func acceptOf(key string) string {
	sum := sha1.Sum([]byte(key + "258EAFA5-E914-47DA-95CA-C5AB0DC85B11"))
	return base64.StdEncoding.EncodeToString(sum[:])
}

// TestAnOriginThatSaysNothingOpensNoWebSocket, which clients of both versions are told.
func TestAnOriginThatSaysNothingOpensNoWebSocket(t *testing.T) {
	w := newWorld(t, 600*time.Millisecond, endpoint("ws.example.com", 443, anyText))
	w.origin("ws.example.com", 443, http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) { <-r.Context().Done() }), "http/1.1")
	for version, got := range map[string]string{
		"HTTP/1.1": w.verdict(w.client(false), "ws.example.com", "/chat", [2]string{"x", "y"}),
		"HTTP/2":   w.streams("ws.example.com").verdict("ws.example.com", "/chat"),
	} {
		if !strings.HasPrefix(got, "504 ") || !strings.Contains(got, `"upstream_timeout"`) {
			t.Errorf("%s: answered with %s", version, got)
		}
	}
}

func TestAnOriginOfHTTP2AloneOpensNoWebSocket(t *testing.T) {
	w := newWorld(t, generous, endpoint("ws.example.com", 443, anyText))
	w.origin("ws.example.com", 443, http.NotFoundHandler(), "h2")
	for range 2 {
		if h := w.streams("ws.example.com").refused("ws.example.com", "/chat"); h.status != "502" || !strings.Contains(string(h.data), "HTTP/2 only") {
			t.Errorf("answered with %s %s", h.status, h.data)
		}
	}
	w.origin("ws.example.com", 443, http.NotFoundHandler(), "http/1.1")
	if h := w.streams("ws.example.com").refused("ws.example.com", "/chat"); h.status != "404" {
		t.Errorf("when it speaks HTTP/1.1: answered with %s %s", h.status, h.data)
	}
	if got := w.verdict(w.client(false), "ws.example.com", "/chat", [2]string{"x", "y"}); !strings.HasPrefix(got, "404") {
		t.Errorf("when it speaks HTTP/1.1: answered with %s", got)
	}
}

// TestAWebSocketThatNoRuleIsAboutPassesUnread, also on a stream: whatever is said
// behind the handshake.
func TestAWebSocketThatNoRuleIsAboutPassesUnread(t *testing.T) {
	for name, options := range map[string]string{"rest": ", protocol: rest, enforcement: enforce, access: full", "no protocol": ""} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t, generous, endpoint("ws.example.com", 443, options))
			w.origin("ws.example.com", 443, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				conn, rw, err := http.NewResponseController(w).Hijack()
				if err != nil {
					return
				}
				defer conn.Close()
				// The first bytes come with the answer.
				_, _ = io.WriteString(conn, "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Accept: "+acceptOf(r.Header.Get("Sec-WebSocket-Key"))+"\r\n\r\nfirst")
				_, _ = io.Copy(conn, rw)
			}), "http/1.1")
			c := w.streams("ws.example.com")
			s := c.open("ws.example.com", "/chat")
			text := "first" + strings.Repeat("no frames", 1000)
			c.ok(c.fr.WriteData(s, true, []byte(text[5:])))
			if h := c.await(s, over); string(h.data) != text || h.reset {
				t.Errorf("%d bytes came back, reset %t", len(h.data), h.reset)
			}
		})
	}
}

// TestWhatAServerSaysBehindTheEndOfItsClientArrives: a client may end its direction of the
// stream first, whether its messages are read or not.
func TestWhatAServerSaysBehindTheEndOfItsClientArrives(t *testing.T) {
	const frame, frames = "\x81\x7e\x04\x00", 50
	late := strings.Repeat(frame+strings.Repeat("x", 1024), frames)
	for name, options := range map[string]string{"read": anyText, "unread": ", protocol: rest, enforcement: enforce, access: full"} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t, 5*time.Second, endpoint("ws.example.com", 443, options))
			heard := make(chan int, 1)
			w.origin("ws.example.com", 443, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				conn, rw, err := http.NewResponseController(w).Hijack()
				if err != nil {
					return
				}
				defer conn.Close()
				_, _ = io.WriteString(conn, "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Accept: "+acceptOf(r.Header.Get("Sec-WebSocket-Key"))+"\r\n\r\n")
				all, _ := io.ReadAll(rw)
				heard <- len(all)
				_, _ = io.WriteString(conn, late)
			}), "http/1.1")
			c := w.streams("ws.example.com")
			s := c.open("ws.example.com", "/chat")
			c.say(s, 0x81, "last")
			c.ok(c.fr.WriteData(s, true, nil))
			if n := <-heard; n != 6+len("last") {
				t.Errorf("%d bytes reached the server", n)
			}
			if h := c.await(s, over); string(h.data) != late || h.reset {
				t.Errorf("%d of %d bytes came back, reset %t", len(h.data), len(late), h.reset)
			}
		})
	}
}

// TestTheEndOfOneSideIsThatOfTheOther: of a WebSocket on a stream, and of nothing else
// on its connection.
func TestTheEndOfOneSideIsThatOfTheOther(t *testing.T) {
	w := newWorld(t, generous, endpoint("ws.example.com", 443, anyText))
	ended, hangUp := make(chan error, 1), make(chan bool)
	w.origin("ws.example.com", 443, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		c, err := websocket.Accept(w, r, nil)
		if err != nil {
			return
		}
		if r.URL.Path == "/hang-up" {
			<-hangUp
			c.CloseNow()
			return
		}
		_, _, err = c.Read(context.WithoutCancel(r.Context()))
		ended <- err
		c.CloseNow()
	}), "http/1.1")
	c := w.streams("ws.example.com")
	for name, end := range map[string]func(stream uint32){
		"a reset":          func(s uint32) { c.ok(c.fr.WriteRSTStream(s, http2.ErrCodeCancel)) },
		"an end of stream": func(s uint32) { c.ok(c.fr.WriteData(s, true, nil)) },
		"an end by trailers": func(s uint32) {
			c.ok(c.fr.WriteHeaders(http2.HeadersFrameParam{StreamID: s, EndHeaders: true, EndStream: true}))
		},
	} {
		end(c.open("ws.example.com", "/chat"))
		if err := <-ended; websocket.CloseStatus(err) != -1 {
			t.Errorf("%s is told to the origin as %v", name, err)
		}
	}
	s := c.open("ws.example.com", "/hang-up")
	close(hangUp)
	if h := c.await(s, over); h.reset || len(h.data) != 0 {
		t.Errorf("an origin that hangs up is told as %+v", h)
	}
	s = c.open("ws.example.com", "/hang-up")
	if h := c.await(s, over); h.reset {
		t.Errorf("the connection does not go on: %+v", h)
	}
}

// TestManyHandshakesThatAreGivenUpLeaveNothing: neither here nor at the origin.
func TestManyHandshakesThatAreGivenUpLeaveNothing(t *testing.T) {
	w := newWorld(t, generous, endpoint("ws.example.com", 443, anyText))
	w.origin("ws.example.com", 443, echoes(t, nil), "http/1.1")
	goroutines, descriptors := w.settled()
	c := w.streams("ws.example.com")
	for i := range 200 {
		s := c.ask("ws.example.com", "/chat")
		switch i % 4 {
		case 0:
			c.say(s, 0x81, "early")
		case 1:
			c.ok(c.fr.WriteDataPadded(s, false, []byte("\x81\x85\x00"), make([]byte, 255)))
		case 2:
			c.ok(c.fr.WriteData(s, true, nil))
		}
		c.ok(c.fr.WriteRSTStream(s, http2.ErrCodeCancel))
	}
	s := c.open("ws.example.com", "/chat")
	c.say(s, 0x81, "still")
	if _, text := c.hear(s); text != "still" {
		t.Errorf("got %q", text)
	}
	c.conn.Close()
	w.settle(goroutines, descriptors)
}

// TestMessagesOnAStreamAreAsLongAsTheyMayBe, whatever the windows of HTTP/2 are.
func TestMessagesOnAStreamAreAsLongAsTheyMayBe(t *testing.T) {
	w := newWorld(t, generous, endpoint("ws.example.com", 443, anyText))
	w.origin("ws.example.com", 443, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		c, err := websocket.Accept(w, r, nil)
		if err != nil {
			return
		}
		defer c.CloseNow()
		c.SetReadLimit(ws.MaxText + 1)
		_, data, err := c.Read(context.WithoutCancel(r.Context()))
		if err == nil {
			_ = c.Close(websocket.StatusNormalClosure, fmt.Sprint(len(data)))
		}
	}), "http/1.1")
	for _, tt := range []struct {
		bytes  int
		code   uint16
		reason string
	}{{ws.MaxText, 1000, fmt.Sprint(ws.MaxText)}, {ws.MaxText + 1, 1009, "a text message is at most 4 MiB long"}} {
		h2, err := new(http2.Transport).NewClientConn(w.secure("ws.example.com", "h2"))
		if err != nil {
			t.Fatal(err)
		}
		body, frames := io.Pipe()
		req, err := http.NewRequestWithContext(t.Context(), "CONNECT", "https://ws.example.com/chat", body)
		if err != nil {
			t.Fatal(err)
		}
		req.Header = http.Header{":protocol": {"websocket"}, "Sec-Websocket-Version": {"13"}}
		resp, err := h2.RoundTrip(req)
		if err != nil {
			t.Fatal(err)
		}
		go func() {
			_, _ = frames.Write(binary.BigEndian.AppendUint64([]byte{0x81, 0xff}, uint64(tt.bytes)))
			_, _ = frames.Write(make([]byte, 4+tt.bytes)) // the mask, and the text; it fails where the stream ends first
		}()
		got, err := io.ReadAll(io.LimitReader(resp.Body, int64(4+len(tt.reason))))
		if err != nil || len(got) < 4 || binary.BigEndian.Uint16(got[2:]) != tt.code || string(got[4:]) != tt.reason {
			t.Errorf("%d bytes are answered with %q, %v", tt.bytes, got, err)
		}
		frames.Close()
		h2.Close()
	}
}

// TestARevokedWebSocketWaitsForNoWindow: a client that takes nothing does not keep what
// it may no longer have.
func TestARevokedWebSocketWaitsForNoWindow(t *testing.T) {
	w := newWorld(t, generous, endpoint("ws.example.com", 443, anyText))
	gone := make(chan error, 1)
	w.origin("ws.example.com", 443, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		c, err := websocket.Accept(w, r, nil)
		if err != nil {
			return
		}
		defer c.CloseNow()
		c.CloseRead(context.WithoutCancel(r.Context()))
		for err == nil {
			err = c.Write(context.WithoutCancel(r.Context()), websocket.MessageBinary, make([]byte, 32<<10))
		}
		gone <- err
	}), "http/1.1")
	c := w.streams("ws.example.com")
	s := c.open("ws.example.com", "/chat")
	for len(c.of[s].data) < 65535 { // the window of a client that names none
		f, err := c.fr.ReadFrame() // without a word about windows
		c.ok(err)
		if d, ok := f.(*http2.DataFrame); ok {
			c.of[s].data = append(c.of[s].data, d.Data()...)
		}
	}
	w.publish(endpoint("other.example.com", 443, ""))
	if h := c.await(s, over); !h.reset {
		t.Error("the stream ends as if it were complete")
	}
	<-gone
	w.recorded(t, "/chat")
	if n := w.Live.count.Load(); n > 1 {
		t.Errorf("%d connections and streams are taken for live", n)
	}
}
