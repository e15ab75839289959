package proxy

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/net/http2"

	"github.com/splitpod/splitpod/cmd/supervisor-network/internal/listen"
	"github.com/splitpod/splitpod/cmd/supervisor-network/internal/relay/exchange"
)

// firstRead calls a function when it is read for the first time.
type firstRead struct {
	io.Reader
	before func()
	given  string        // comes with the first read
	late   time.Duration // how long the second one takes to begin
}

func (f *firstRead) Read(p []byte) (int, error) {
	if before := f.before; before != nil {
		f.before = nil
		before()
		if f.given != "" {
			return copy(p, f.given), nil
		}
	} else if late := f.late; late > 0 {
		f.late = 0
		time.Sleep(late)
	}
	return f.Reader.Read(p)
}

// TestARequestThatBeginsInTheMomentOfADrainIsServed: its first byte may have been read,
// or be on its way, when the drain ends the wait for it.
func TestARequestThatBeginsInTheMomentOfADrainIsServed(t *testing.T) {
	const request = "GET /x HTTP/1.1\r\nHost: a.example.com\r\n\r\n"
	for name, tc := range map[string]struct {
		given int
		late  time.Duration
	}{"it has begun": {given: 1}, "it is on its way": {}, "it is here, and the machine is busy": {late: 2 * onItsWay}} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t, generous, endpoint("a.example.com", 80, ""))
			client, server := pair(t)
			s := w.session(t.Context(), w.Record.Begin("x", time.Now()), &listen.Conn{TCP: server}, nil, nil)
			defer s.release()
			s.client = exchange.Client{Interrupt: s.interrupt, Resume: s.resume}
			s.client.R = bufio.NewReader(&firstRead{server, s.drain, request[:tc.given], tc.late})
			if _, err := io.WriteString(client, request[tc.given:]); err != nil {
				t.Fatal(err)
			}
			req, refused := s.read(t.Context())
			if refused != nil || req == nil || req.Target != "/x" {
				t.Fatalf("%+v, %v", req, refused)
			}
			if !s.ended.Load() {
				t.Error("the response does not say that it is the last")
			}
		})
	}
}

// TestAnEndedDrainSaysWhyARequestWasNotRead: a client that is in the middle of a request
// then is not told that it was slow.
func TestAnEndedDrainSaysWhyARequestWasNotRead(t *testing.T) {
	for name, begin := range map[string]func(w *world) net.Conn{
		"in a tunnel": func(w *world) net.Conn {
			c := w.tunnel("a.example.com", 80)
			fmt.Fprint(c, "GET / HTTP/1.1\r\nHost: a.exa")
			return c
		},
		"in absolute form, the second one": func(w *world) net.Conn {
			c, err := net.Dial("tcp", w.proxy)
			if err != nil {
				w.t.Fatal(err)
			}
			w.t.Cleanup(func() { c.Close() })
			fmt.Fprint(c, "GET http://a.example.com/ HTTP/1.1\r\nHost: a.example.com\r\n\r\nGET http://a.exa")
			return c
		},
		"a body that is judged": func(w *world) net.Conn {
			c := w.tunnel("b.example.com", 80)
			fmt.Fprint(c, "POST / HTTP/1.1\r\nHost: b.example.com\r\nContent-Type: application/json\r\nContent-Length: 100\r\n\r\n{")
			return c
		},
	} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t, generous, endpoint("a.example.com", 80, ", protocol: rest, access: full"),
				endpoint("b.example.com", 80, ", protocol: json-rpc, rules: [{allow: {method: echo}}]"))
			handler := http.HandlerFunc(func(rw http.ResponseWriter, _ *http.Request) {})
			w.origin("a.example.com", 80, handler)
			w.origin("b.example.com", 80, handler)
			c := begin(w)
			_ = c.SetDeadline(time.Now().Add(generous))
			r := bufio.NewReader(c)
			if strings.HasPrefix(name, "in absolute") {
				if resp, body := answer(t, r, "GET"); resp.StatusCode != 200 {
					t.Fatalf("the first one: %s %s", resp.Status, body)
				}
			}
			w.stop()
			resp, body := answer(t, r, "GET")
			if resp.StatusCode != 503 || !resp.Close || !strings.Contains(body, `"shutdown"`) {
				t.Errorf("%s, close %v: %s", resp.Status, resp.Close, body)
			}
		})
	}
}

// TestAStreamWithoutAnAnswerIsToldOfTheEnd, by the id of its record, as a request in
// HTTP/1.1 is. One whose answer has begun only ends, but for a call, which has its status
// behind it.
func TestAStreamWithoutAnAnswerIsToldOfTheEnd(t *testing.T) {
	w := newWorld(t, generous, endpoint("old.example.com", 443, ""), endpoint("new.example.com", 443, ""),
		endpoint("rpc.example.com", 443, ", protocol: json-rpc, rules: [{allow: {method: echo}}]"))
	reached := make(chan string, 9)
	silent := http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) {
		if strings.HasSuffix(r.URL.Path, "/begun") {
			_ = http.NewResponseController(rw).Flush()
		}
		reached <- r.URL.Path
		_, _ = io.Copy(io.Discard, r.Body) // or nothing shows here that the client is gone
		<-r.Context().Done()
	})
	w.origin("old.example.com", 443, silent, "http/1.1")
	w.origin("new.example.com", 443, silent, "h2")
	w.origin("rpc.example.com", 443, silent, "http/1.1")
	cases := map[string]struct {
		method, url, kind string
		part              bool // of the body is sent
		fails             bool
		begun             bool
	}{
		"no body":                        {method: "GET", url: "https://old.example.com/"},
		"no body, to HTTP/2":             {method: "GET", url: "https://new.example.com/"},
		"a whole body":                   {method: "POST", url: "https://old.example.com/whole", kind: "text/plain"},
		"an upload":                      {method: "POST", url: "https://old.example.com/part", kind: "text/plain", part: true},
		"an upload, to HTTP/2":           {method: "POST", url: "https://new.example.com/part", kind: "text/plain", part: true},
		"a body that is judged":          {method: "POST", url: "https://rpc.example.com/", kind: "application/json", part: true},
		"a call":                         {method: "POST", url: "https://new.example.com/s/Call", kind: "application/grpc"},
		"a call with more to say":        {method: "POST", url: "https://new.example.com/s/More", kind: "application/grpc", part: true},
		"an answer that has begun":       {method: "GET", url: "https://old.example.com/begun", fails: true},
		"a call's answer that has begun": {method: "POST", url: "https://new.example.com/s/begun", kind: "application/grpc", begun: true},
	}
	client := w.client(true)
	var running sync.WaitGroup
	begun := make(chan bool, len(cases))
	for name, c := range cases {
		running.Go(func() {
			req, err := http.NewRequestWithContext(t.Context(), c.method, c.url, nil)
			if err != nil {
				t.Error(err)
				return
			}
			if c.kind != "" {
				body, sends := io.Pipe()
				defer sends.Close()
				go func() {
					_, _ = io.WriteString(sends, "{")
					if begun <- true; !c.part {
						sends.Close()
					}
				}()
				req.Body, req.ContentLength = body, -1
				req.Header.Set("Content-Type", c.kind)
			} else {
				begun <- true
			}
			resp, err := client.Do(req)
			if err != nil {
				t.Errorf("%s: %v", name, err)
				return
			}
			defer resp.Body.Close()
			text, err := io.ReadAll(resp.Body)
			h, known := resp.Header, `"request_id":"`+resp.Header.Get("X-Splitpod-Request-Id")+`"`
			if c.begun {
				h, known = resp.Trailer, req.URL.Path // the head was the origin's
			}
			switch {
			case c.fails:
				if resp.StatusCode != 200 || err == nil {
					t.Errorf("%s: %s, %v", name, resp.Status, err)
				}
				return
			case c.kind == "application/grpc":
				if h.Get("Grpc-Status") != "14" || h.Get("Grpc-Message") != "shutdown: the daemon is stopping" || err != nil {
					t.Errorf("%s: %s %v, %v", name, resp.Status, h, err)
				}
			case resp.StatusCode != 503 || !strings.Contains(string(text), `"error":"shutdown"`) || !strings.Contains(string(text), known) || err != nil:
				t.Errorf("%s: %s %s, %v", name, resp.Status, text, err)
			}
			if record := w.recorded(t, known); !strings.Contains(record, `"reason":"shutdown"`) {
				t.Errorf("%s: recorded %s", name, record)
			}
		})
	}
	for range cases {
		<-begun
	}
	for range len(cases) - 1 { // but the one whose body is judged
		<-reached
	}
	w.stop()
	running.Wait()
}

// TestStreamsRunUntilTheDrainIsOver, as everything else does: no connection of HTTP/2 has
// a time of its own. While the daemon stops, a WebSocket goes on and a request is waited
// for, and both are told when handlers have to end.
func TestStreamsRunUntilTheDrainIsOver(t *testing.T) {
	w := newWorld(t, generous, endpoint("ws.example.com", 443, anyText), endpoint("a.example.com", 443, ""))
	reached, release := make(chan bool), make(chan bool)
	w.origin("ws.example.com", 443, echoes(t, nil), "http/1.1")
	w.origin("a.example.com", 443, http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		reached <- true
		if r.URL.Path == "/slow" {
			<-release
			return
		}
		<-r.Context().Done()
	}), "http/1.1")
	end := w.ends()
	socket, requests := w.streams("ws.example.com"), w.streams("a.example.com")
	get := func(path string) (stream uint32) {
		defer func() { <-reached }()
		return requests.send(true, ":method", "GET", ":scheme", "https", ":authority", "a.example.com", ":path", path)
	}
	chat := socket.open("ws.example.com", "/chat")
	slow, silent := get("/slow"), get("/silent")
	w.stop()
	for _, c := range []*streams{socket, requests} {
		for away := false; !away; {
			f, err := c.fr.ReadFrame()
			c.ok(err)
			_, away = f.(*http2.GoAwayFrame)
		}
	}
	socket.say(chat, 0x81, "still")
	if _, text := socket.hear(chat); text != "still" {
		t.Errorf("while the daemon stops, %q comes back", text)
	}
	close(release)
	if h := requests.await(slow, over); h.status != "200" {
		t.Errorf("while the daemon stops, a request is told %+v", h)
	}
	end()
	if code, _ := socket.closed(chat); code != 1001 {
		t.Errorf("the WebSocket is closed with %d", code)
	}
	if h := requests.await(silent, over); h.status != "503" {
		t.Errorf("a request that has no answer is told %+v", h)
	}
}

// ends makes a new listener the proxy's, of which the test says when a drain is over.
func (w *world) ends() (end context.CancelFunc) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		w.t.Fatal(err)
	}
	w.proxy = l.Addr().String()
	limit, end := context.WithCancel(context.Background())
	served := make(chan struct{})
	go func() {
		defer close(served)
		opt := listen.Options{HeadTimeout: generous, DrainTimeout: time.Hour, Gauge: listen.NewGauge(1000), Log: slog.New(slog.DiscardHandler)}
		_ = listen.Serve(w.Stopping, l, opt, func(ctx context.Context, c *listen.Conn) {
			ctx, cancel := context.WithCancel(ctx)
			defer cancel()
			defer context.AfterFunc(limit, cancel)()
			w.Serve(ctx, c)
		})
	}()
	w.t.Cleanup(func() {
		w.stop()
		end()
		<-served
	})
	return end
}

// pair is a TCP connection on the loopback.
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
	accepted, err := l.Accept()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close(); accepted.Close() })
	return c.(*net.TCPConn), accepted.(*net.TCPConn)
}
