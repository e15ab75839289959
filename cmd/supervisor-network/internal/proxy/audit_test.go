package proxy

import (
	"bufio"
	"fmt"
	"io"
	"net/http"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/splitpod/splitpod/cmd/supervisor-network/internal/decide"
)

// TestMessagesThatPassAlthoughRulesRefuseThemAreRecorded: the first one at once, and
// what came behind it in one record.
func TestMessagesThatPassAlthoughRulesRefuseThemAreRecorded(t *testing.T) {
	w := newWorld(t, generous, endpoint("ws.example.com", 80, ", protocol: websocket, enforcement: audit, access: read-only"),
		endpoint("all.example.com", 80, ", protocol: websocket, enforcement: audit, access: full"))
	w.origin("ws.example.com", 80, http.HandlerFunc(echoWebSocket))
	w.origin("all.example.com", 80, http.HandlerFunc(echoWebSocket))
	audited := func(host string) (out []string) {
		for _, r := range w.records.list() {
			if strings.Contains(r, "would be denied: WEBSOCKET_TEXT /") && strings.Contains(r, host) {
				out = append(out, r)
			}
		}
		return out
	}
	for _, host := range []string{"all.example.com", "ws.example.com"} {
		c := w.tunnel(host, 80)
		fmt.Fprintf(c, handshake, "/", host)
		in := bufio.NewReader(c)
		if resp, _ := answer(t, in, "GET"); resp.StatusCode != 101 {
			t.Fatal(resp.Status)
		}
		say := func() {
			t.Helper()
			echo := make([]byte, 4)
			_, _ = io.WriteString(c, "\x81\x82\x00\x00\x00\x00hi")
			if _, err := io.ReadFull(in, echo); err != nil || string(echo) != "\x81\x02hi" {
				t.Fatalf("%q, %v", echo, err)
			}
		}
		say()
		if host == "ws.example.com" {
			w.until("a record of the first one", func() bool { return len(audited(host)) == 1 })
		}
		for range 4 {
			say()
		}
		c.Close()
	}
	w.until("a record of those behind it", func() bool { return len(audited("ws.example.com")) == 2 })
	first, rest := audited("ws.example.com")[0], audited("ws.example.com")[1]
	if !strings.Contains(first, `"action":"Allowed"`) || strings.Contains(first, `"count"`) || !strings.Contains(rest, `"count":4`) {
		t.Errorf("records:\n%s\n%s", first, rest)
	}
	if got := audited("all.example.com"); len(got) > 0 {
		t.Errorf("messages that rules allow: %s", got)
	}
}

// TestBinaryMessagesThatPassAlthoughTextWouldNotAreRecorded, by number.
func TestBinaryMessagesThatPassAlthoughTextWouldNotAreRecorded(t *testing.T) {
	w := newWorld(t, generous, endpoint("ws.example.com", 80, ", protocol: websocket, enforcement: audit, access: read-only"))
	seen := make(chan byte, 8)
	w.origin("ws.example.com", 80, http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		c, rw, err := http.NewResponseController(w).Hijack()
		if err != nil {
			return
		}
		defer c.Close()
		_, _ = io.WriteString(c, "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n\r\n")
		for frame := make([]byte, 8); ; {
			if _, err := io.ReadFull(rw, frame); err != nil {
				return
			}
			if frame[0] == 0x88 {
				return
			}
			seen <- frame[0]
		}
	}))
	c := w.tunnel("ws.example.com", 80)
	fmt.Fprintf(c, handshake, "/", "ws.example.com")
	if resp, _ := answer(t, bufio.NewReader(c), "GET"); resp.StatusCode != 101 {
		t.Fatal(resp.Status)
	}
	for _, frame := range []string{"\x82\x82\x00\x00\x00\x00hi", "\x81\x82\x00\x00\x00\x00hi", "\x82\x82\x00\x00\x00\x00hi"} {
		_, _ = io.WriteString(c, frame)
		if got := <-seen; got != frame[0] {
			t.Fatalf("the origin got a frame of %x", got)
		}
	}
	c.Close()
	w.until("a record of two", func() bool {
		for _, r := range w.records.list() {
			if strings.Contains(r, "would be denied: binary messages pass unread") && strings.Contains(r, `"count":2`) {
				return true
			}
		}
		return false
	})
}

// TestAuditsAreBounded in number and time.
func TestAuditsAreBounded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var got []string
		a := &audits{write: func(r decide.Ruling, n uint64) { got = append(got, fmt.Sprint(n, " ", r.Detail)) }}
		want := func(what string, lines ...string) {
			t.Helper()
			if diff := cmp.Diff(lines, got); diff != "" {
				t.Errorf("%s (-want +got):\n%s", what, diff)
			}
			got = nil
		}
		say := func(n int, detail string) {
			for range n {
				a.add(decide.Ruling{Detail: detail})
			}
		}
		say(1000, "a")
		want("the first one", "1 a")
		time.Sleep(auditEvery - 1)
		say(1, "a")
		want("within a minute")
		time.Sleep(time.Nanosecond)
		say(1, "a")
		want("after it", "1001 a")
		for i := range maxAudits - 1 {
			say(1, fmt.Sprint(i))
		}
		got = nil
		say(1, "one too many")
		say(2, "and another")
		want("more reasons than are told apart", "1 messages, for more reasons than are told apart")
		say(3, "a")
		a.end()
		a.end()
		want("the end", "3 a", "2 messages, for more reasons than are told apart")
	})
}
