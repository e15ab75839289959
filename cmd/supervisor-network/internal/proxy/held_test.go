package proxy

import (
	"bufio"
	"bytes"
	"context"
	"fmt"
	"io"
	"net/http"
	"strings"
	"testing"
	"time"

	ws "github.com/coder/websocket"

	"github.com/splitpod/splitpod/cmd/supervisor-network/internal/inspect/hold"
	"github.com/splitpod/splitpod/cmd/supervisor-network/internal/inspect/websocket"
)

// firstPiece is package hold's.
const firstPiece = 4 << 10

// TestBodiesThatAreJudgedAreHeldWithinOneLimit, whatever connection they come on: one
// too many is answered and recorded, and the next one passes.
func TestBodiesThatAreJudgedAreHeldWithinOneLimit(t *testing.T) {
	for _, http2 := range []bool{false, true} {
		t.Run(fmt.Sprintf("HTTP/2 %v", http2), func(t *testing.T) {
			w := newWorld(t, generous, endpoint("a.example.com", 443, ", protocol: json-rpc, enforcement: enforce, json_rpc: {max_body_bytes: 65536}, rules: [{allow: {method: echo}}]"))
			w.Bodies = hold.New(24 << 10)
			reached, answer := make(chan bool), make(chan bool)
			w.origin("a.example.com", 443, http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) {
				_, _ = io.Copy(io.Discard, r.Body)
				reached <- true
				<-answer
			}), "http/1.1")
			call := `{"jsonrpc":"2.0","id":1,"method":"echo","params":["` + strings.Repeat("x", 10<<10) + `"]}`
			post := func() (int, string) {
				resp, err := w.client(http2).Post("https://a.example.com/", "application/json", strings.NewReader(call))
				if err != nil {
					return 0, err.Error()
				}
				defer resp.Body.Close()
				body, _ := io.ReadAll(resp.Body)
				return resp.StatusCode, string(body)
			}
			first := make(chan int)
			go func() { status, _ := post(); first <- status }()
			<-reached
			if status, body := post(); status != 503 || !strings.Contains(body, `"too_many_bodies"`) || !strings.Contains(body, "try again") {
				t.Errorf("one too many: %d %s", status, body)
			}
			answer <- true
			if status := <-first; status != 200 {
				t.Errorf("the first: %d", status)
			}
			w.until("nothing is held", func() bool { return w.Bodies.Held() == 0 })
			go func() { status, _ := post(); first <- status }()
			<-reached
			answer <- true
			if status := <-first; status != 200 {
				t.Errorf("after it: %d", status)
			}
			w.until("a record of the refusal", func() bool {
				return strings.Contains(strings.Join(w.records.list(), "\n"), "too_many_bodies")
			})
			w.until("nothing is held", func() bool { return w.Bodies.Held() == 0 })
		})
	}
}

// TestWhoSendsSlowlyHoldsLittleAndNotForLong: a length that is stated, and not sent,
// keeps no room from others, and what did come is given back in time.
func TestWhoSendsSlowlyHoldsLittleAndNotForLong(t *testing.T) {
	const head = 2 * brief // all of them begin within it
	w := newWorld(t, head, endpoint("a.example.com", 80, ", protocol: json-rpc, enforcement: enforce, json_rpc: {max_body_bytes: 65536}, rules: [{allow: {method: echo}}]"))
	w.Idle, w.Bodies = time.Minute, hold.New(160<<10)
	w.origin("a.example.com", 80, http.HandlerFunc(func(http.ResponseWriter, *http.Request) {}))
	const post = "POST / HTTP/1.1\r\nHost: a.example.com\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n"
	var slow []*bufio.Reader
	for range 8 {
		c := w.tunnel("a.example.com", 80)
		fmt.Fprintf(c, post+"{", 60<<10)
		slow = append(slow, bufio.NewReader(c))
	}
	w.until("all of them have begun", func() bool { return w.Bodies.Held() == 8*firstPiece })
	call := `{"jsonrpc":"2.0","id":1,"method":"echo","params":["` + strings.Repeat("x", 30<<10) + `"]}`
	c := w.tunnel("a.example.com", 80)
	fmt.Fprintf(c, post+call, len(call))
	if resp, body := answer(t, bufio.NewReader(c), "POST"); resp.StatusCode != 200 {
		t.Errorf("who sends at once: %s %s", resp.Status, body)
	}
	for _, r := range slow {
		if resp, body := answer(t, r, "POST"); resp.StatusCode != 408 {
			t.Errorf("who sends slowly: %s %s", resp.Status, body)
		}
	}
	w.until("nothing is held", func() bool { return w.Bodies.Held() == 0 })
}

// until waits for what happens beside the test.
func (w *world) until(what string, ok func() bool) {
	w.t.Helper()
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	for end := time.Now().Add(generous); !ok(); <-tick.C {
		if time.Now().After(end) {
			w.t.Fatalf("%s: not in time", what)
		}
	}
}

// TestAHeldBodyArrivesWhole, however it is handed to the origin: short ones go with the
// head, and those above 64 KiB behind it.
func TestAHeldBodyArrivesWhole(t *testing.T) {
	w := newWorld(t, generous, endpoint("a.example.com", 443, ", protocol: json-rpc, enforcement: enforce, json_rpc: {max_body_bytes: 131072}, rules: [{allow: {method: echo}}]"))
	w.origin("a.example.com", 443, http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) {
		body, _ := io.ReadAll(r.Body)
		_, _ = rw.Write(body)
	}), "http/1.1")
	for _, http2 := range []bool{false, true} {
		client := w.client(http2)
		for _, size := range []int{100, 64 << 10, 64<<10 + 1, 128 << 10} {
			const begin, end = `{"jsonrpc":"2.0","id":1,"method":"echo","params":["`, `"]}`
			call := begin + strings.Repeat("x", size-len(begin+end)) + end
			resp, err := client.Post("https://a.example.com/", "application/json", strings.NewReader(call))
			if err != nil {
				t.Fatal(err)
			}
			got, err := io.ReadAll(resp.Body)
			resp.Body.Close()
			if err != nil || string(got) != call {
				t.Errorf("HTTP/2 %v, %d bytes: %s, %d arrived, %v", http2, size, resp.Status, len(got), err)
			}
		}
	}
}

// TestMessagesAndBodiesShareOneLimit: a WebSocket's message for which there is no room
// closes it with 1013 and a record, and holds nothing; one that fits passes.
func TestMessagesAndBodiesShareOneLimit(t *testing.T) {
	w := newWorld(t, generous, endpoint("ws.example.com", 443, anyText))
	w.Bodies = hold.New(512 << 10)
	w.Assemblies = websocket.NewAssemblies(w.Bodies)
	got, answer := make(chan int, 1), make(chan bool)
	w.origin("ws.example.com", 443, http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) {
		c, err := ws.Accept(rw, r, nil)
		if err != nil {
			return
		}
		defer c.CloseNow()
		c.SetReadLimit(4 << 20)
		for {
			_, text, err := c.Read(context.WithoutCancel(r.Context()))
			if err != nil {
				return
			}
			got <- len(text)
			<-answer
		}
	}), "http/1.1")
	open := func() *ws.Conn {
		c, _, err := ws.Dial(t.Context(), "wss://ws.example.com/", &ws.DialOptions{HTTPClient: w.client(false)})
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { c.CloseNow() })
		return c
	}
	say := func(c *ws.Conn, n int) {
		if err := c.Write(t.Context(), ws.MessageText, bytes.Repeat([]byte("a"), n)); err != nil {
			t.Error(err)
		}
	}
	first := open()
	say(first, 300<<10)
	if n := <-got; n != 300<<10 {
		t.Errorf("%d bytes arrived", n)
	}
	w.until("nothing is held", func() bool { return w.Bodies.Held() == 0 })
	other := &hold.Holding{Of: w.Bodies} // a request's body
	if !other.UpTo(400 << 10) {
		t.Fatal("there is no room for it")
	}
	second := open()
	say(second, 300<<10)
	_, _, err := second.Read(t.Context())
	if ws.CloseStatus(err) != ws.StatusTryAgainLater {
		t.Errorf("one for which there is no room: %v", err)
	}
	w.until("a record of it", func() bool {
		return strings.Contains(strings.Join(w.records.list(), "\n"), `"reason":"too_many_bodies"`)
	})
	w.until("what it had is given back", func() bool { return w.Bodies.Held() == 400<<10 })
	other.Release()
	answer <- true
	say(first, 300<<10)
	if n := <-got; n != 300<<10 {
		t.Errorf("%d bytes arrived behind it", n)
	}
	answer <- true
}
