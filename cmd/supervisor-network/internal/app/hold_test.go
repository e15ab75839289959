package app

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"
	"testing"
	"time"

	ws "github.com/coder/websocket"

	"github.com/splitpod/splitpod/cmd/supervisor-network/internal/decide"
	"github.com/splitpod/splitpod/cmd/supervisor-network/internal/http1"
	"github.com/splitpod/splitpod/cmd/supervisor-network/internal/inspect"
	"github.com/splitpod/splitpod/cmd/supervisor-network/internal/inspect/websocket"
)

// TestABodyIsHeldAsItComes: at the limit it is read, above it is not, and a length that
// is only stated takes no room.
func TestABodyIsHeldAsItComes(t *testing.T) {
	const size = 3 * firstPiece
	body := strings.Repeat("x", size)
	for name, tc := range map[string]struct {
		room, length int64
		limit        int
		want         string
	}{
		"of known length, with room":       {size + 1, size, size, ""},
		"of known length, one byte less":   {size, size, size, string(errCrowded.Reason)},
		"of unknown length, with room":     {size + 1, -1, size, ""},
		"of unknown length, one byte less": {size, -1, size, string(errCrowded.Reason)},
		"above what may be read":           {1 << 20, -1, size - 1, "body_too_large"},
		"above by its own word":            {1 << 20, size, size - 1, "body_too_large"},
	} {
		h := &holding{of: newBodies(tc.room)}
		got, err := h.read(strings.NewReader(body), tc.length, tc.limit)
		if tc.want == "" && (err != nil || string(got) != body) {
			t.Errorf("%s: %d bytes, %v", name, len(got), err)
		}
		if tc.want != "" && (err == nil || string(unreadable(err).reason) != tc.want) {
			t.Errorf("%s: %v", name, err)
		}
		if crowded := tc.want == string(errCrowded.Reason); crowded != (h.of.refused.Load() == 1) {
			t.Errorf("%s: %d requests found no room", name, h.of.refused.Load())
		}
		if h.of.held.Load() != h.n || h.n > tc.room {
			t.Errorf("%s: %d bytes are held, of %d", name, h.of.held.Load(), h.n)
		}
		if h.release(); h.of.held.Load() != 0 {
			t.Errorf("%s: %d bytes stay", name, h.of.held.Load())
		}
	}
	h := &holding{of: newBodies(1 << 20)}
	if _, err := h.read(iotestError{}, 1<<19, 1<<19); err == nil || h.n != firstPiece {
		t.Errorf("a stated length takes %d bytes: %v", h.n, err)
	}
}

type iotestError struct{}

func (iotestError) Read([]byte) (int, error) { return 0, errors.New("nothing comes") }

// TestOneHoldingForTheBodyAndWhatItSays: what stays of a body until its request is over
// is held, too.
func TestOneHoldingForTheBodyAndWhatItSays(t *testing.T) {
	var body strings.Builder
	body.WriteString(`{"jsonrpc":"2.0","id":1,"method":"x","params":{`)
	for i := range 1000 {
		fmt.Fprintf(&body, `"%d":"",`, i)
	}
	body.WriteString(`"x":""}}`)
	r := decide.Request{}
	e := decide.Endpoint{Protocol: "json-rpc", MaxBody: 1 << 20}
	head := inspect.Head{Method: "POST", Fields: http1.Fields{{Name: "Content-Type", Value: "application/json"}}, Body: true}
	if err := inspect.Fill(e, head, []byte(body.String()), &r); err != nil {
		t.Fatal(err)
	}
	h := &holding{of: newBodies(1 << 20)}
	if !h.weigh([]byte(body.String()), &r) || h.n < 100*1000 {
		t.Errorf("%d bytes are held for %d", h.n, body.Len())
	}
	h = &holding{of: newBodies(int64(body.Len()))}
	if h.weigh([]byte(body.String()), &r) {
		t.Error("what it says takes no room")
	}
}

// TestBodiesThatAreJudgedAreHeldWithinOneLimit, whatever connection they come on: one
// too many is answered and recorded, and the next one passes.
func TestBodiesThatAreJudgedAreHeldWithinOneLimit(t *testing.T) {
	for _, http2 := range []bool{false, true} {
		t.Run(fmt.Sprintf("HTTP/2 %v", http2), func(t *testing.T) {
			w := newWorld(t, generous, endpoint("a.example.com", 443, ", protocol: json-rpc, enforcement: enforce, json_rpc: {max_body_bytes: 65536}, rules: [{allow: {method: echo}}]"))
			w.bodies = newBodies(24 << 10)
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
			w.until("nothing is held", func() bool { return w.bodies.held.Load() == 0 })
			go func() { status, _ := post(); first <- status }()
			<-reached
			answer <- true
			if status := <-first; status != 200 {
				t.Errorf("after it: %d", status)
			}
			w.until("a record of the refusal", func() bool {
				return strings.Contains(strings.Join(w.records.list(), "\n"), "too_many_bodies")
			})
			w.until("nothing is held", func() bool { return w.bodies.held.Load() == 0 })
		})
	}
}

// TestWhoSendsSlowlyHoldsLittleAndNotForLong: a length that is stated, and not sent,
// keeps no room from others, and what did come is given back in time.
func TestWhoSendsSlowlyHoldsLittleAndNotForLong(t *testing.T) {
	const head = 2 * brief // all of them begin within it
	w := newWorld(t, head, endpoint("a.example.com", 80, ", protocol: json-rpc, enforcement: enforce, json_rpc: {max_body_bytes: 65536}, rules: [{allow: {method: echo}}]"))
	w.idle, w.bodies = time.Minute, newBodies(160<<10)
	w.origin("a.example.com", 80, http.HandlerFunc(func(http.ResponseWriter, *http.Request) {}))
	const post = "POST / HTTP/1.1\r\nHost: a.example.com\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n"
	var slow []*bufio.Reader
	for range 8 {
		c := w.tunnel("a.example.com", 80)
		fmt.Fprintf(c, post+"{", 60<<10)
		slow = append(slow, bufio.NewReader(c))
	}
	w.until("all of them have begun", func() bool { return w.bodies.held.Load() == 8*firstPiece })
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
	w.until("nothing is held", func() bool { return w.bodies.held.Load() == 0 })
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

// TestWhatBodiesAndWindowsTakeIsMeasured, with what was refused for them.
func TestWhatBodiesAndWindowsTakeIsMeasured(t *testing.T) {
	d := viewed(t)
	d.bodies, d.answers, d.windows.Limit = newBodies(2000), newBodies(3000), 100_000
	one, other := &holding{of: d.bodies}, &holding{of: d.bodies}
	if !one.upTo(1500) || other.upTo(501) || !d.answers.Take(2500) || !d.windows.Enter() || d.windows.Enter() {
		t.Fatal("the limits are others")
	}
	said := local(d, "/metrics").Body.String()
	for _, line := range []string{
		"splitpod_bodies_held_bytes 1500", "splitpod_bodies_limit_bytes 2000", "splitpod_bodies_refused_total 1",
		"splitpod_answers_unread_bytes 2500", "splitpod_answers_limit_bytes 3000", "splitpod_answers_ended_total 0",
		"splitpod_http2_windows_bytes 65535", "splitpod_http2_unoffered_total 1",
	} {
		if !strings.Contains(said, line+"\n") {
			t.Errorf("not said: %s", line)
		}
	}
}

// TestMessagesAndBodiesShareOneLimit: a WebSocket's message for which there is no room
// closes it with 1013 and a record, and holds nothing; one that fits passes.
func TestMessagesAndBodiesShareOneLimit(t *testing.T) {
	w := newWorld(t, generous, endpoint("ws.example.com", 443, anyText))
	w.bodies = newBodies(512 << 10)
	w.assemblies = websocket.NewAssemblies(w.bodies)
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
	w.until("nothing is held", func() bool { return w.bodies.held.Load() == 0 })
	other := &holding{of: w.bodies} // a request's body
	if !other.upTo(400 << 10) {
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
	w.until("what it had is given back", func() bool { return w.bodies.held.Load() == other.n })
	other.release()
	answer <- true
	say(first, 300<<10)
	if n := <-got; n != 300<<10 {
		t.Errorf("%d bytes arrived behind it", n)
	}
	answer <- true
}
