package proxy

import (
	"bufio"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"os"
	"runtime"
	"runtime/pprof"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/net/http2"
)

//lint:file-ignore SA1019 a client of net/http, which the deprecations lead to, refuses :protocol

// TestStress does everything at once for a while, as many programs would that come, go
// and hang up in the middle, while the policy changes. Every answer belongs to its
// request, every request leaves one record, and in the end nothing is left behind.
func TestStress(t *testing.T) {
	limit := 3 * time.Second
	if s := os.Getenv("SPLITPOD_STRESS"); s != "" {
		var err error
		if limit, err = time.ParseDuration(s); err != nil {
			t.Fatal(err)
		}
	}
	const rest = ", protocol: rest, enforcement: enforce, access: full, deny_rules: [{method: GET, path: /denied}]"
	always := []string{
		endpoint("h1.example.com", 443, rest), endpoint("h2.example.com", 443, rest), endpoint("plain.example.com", 80, rest),
		endpoint("ws.example.com", 80, ", protocol: websocket, enforcement: enforce, access: full"),
		endpoint("ws.example.com", 443, ", protocol: websocket, enforcement: enforce, access: full"),
	}
	sometimes := append([]string{endpoint("raw.example.com", 443, "")}, always...)
	w := newWorld(t, generous, always...)
	echo := http.HandlerFunc(echoRequest)
	w.origin("h1.example.com", 443, echo, "http/1.1")
	w.origin("h2.example.com", 443, echo, "h2")
	w.origin("plain.example.com", 80, echo)
	w.origin("raw.example.com", 443, echo, "http/1.1")
	w.origin("ws.example.com", 80, http.HandlerFunc(echoWebSocket))
	w.origin("ws.example.com", 443, http.HandlerFunc(echoWebSocket), "http/1.1")
	h1, h2 := w.client(false), w.client(true)
	before, descriptors := w.settled()

	s := &stress{world: w, end: time.Now().Add(limit)}
	var wg sync.WaitGroup
	for range 4 {
		for _, work := range []func(*rand.Rand) error{
			func(r *rand.Rand) error { return s.request(r, h1) },
			func(r *rand.Rand) error { return s.request(r, h2) },
			s.pipeline, s.hangUp, s.webSocket, s.webSockets,
		} {
			wg.Go(func() { s.loop(work) })
		}
	}
	wg.Go(func() {
		for time.Now().Before(s.end) {
			w.publish(sometimes...)
			time.Sleep(50 * time.Millisecond)
			w.publish(always...)
			time.Sleep(5 * time.Millisecond)
		}
	})
	wg.Wait()
	t.Logf("%d done, %d cut, %d records", s.done.Load(), s.cut.Load(), len(w.records.list()))

	h1.CloseIdleConnections()
	h2.CloseIdleConnections()
	w.settle(before, descriptors)
}

// stress is work for a while.
type stress struct {
	*world
	end       time.Time
	number    atomic.Int64
	done, cut atomic.Int64
}

func (s *stress) loop(work func(*rand.Rand) error) {
	r := rand.New(rand.NewPCG(1, uint64(s.number.Add(1))))
	for time.Now().Before(s.end) {
		switch err := work(r); {
		case err == nil:
			s.done.Add(1)
		case errors.Is(err, errGaveUp):
			s.cut.Add(1)
		default:
			s.t.Error(err)
			return
		}
	}
}

// errGaveUp ends work in the middle, on purpose.
var errGaveUp = errors.New("given up")

// request sends one of many kinds, and gives some up.
func (s *stress) request(r *rand.Rand, client *http.Client) error {
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	if r.IntN(8) == 0 {
		time.AfterFunc(time.Duration(r.IntN(int(5*time.Millisecond))), cancel)
	}
	scheme, host := "https", []string{"h1", "h2", "raw", "plain"}[r.IntN(4)]
	if host == "plain" {
		scheme = "http"
	}
	id := fmt.Sprint(s.number.Add(1))
	size := []int{0, 1, 3000, 200_000}[r.IntN(4)]
	path := []string{"/echo", "/early", "/denied", "/slow"}[r.IntN(4)]
	method := "POST"
	if size == 0 {
		method = "GET"
	}
	req, err := http.NewRequestWithContext(ctx, method, fmt.Sprintf("%s://%s.example.com%s?%s", scheme, host, path, id), strings.NewReader(strings.Repeat("x", size)))
	if err != nil {
		return err
	}
	if size > 0 && r.IntN(2) == 0 {
		req.ContentLength = -1
	}
	resp, err := client.Do(req)
	if err == nil {
		defer resp.Body.Close()
		var body []byte
		if body, err = io.ReadAll(resp.Body); err == nil && host == "raw" && strings.Contains(string(body), "policy") {
			return errGaveUp
		} else if err == nil {
			return check(resp, string(body), method, host, path, id, size)
		}
	}
	if ctx.Err() != nil || path == "/early" && size > 3000 || host == "raw" {
		return errGaveUp // or the rest of the request met the end of the connection, or the policy ended it
	}
	return fmt.Errorf("%s %s to %s, %d bytes: %w", method, path, host, size, err)
}

// check finds a response that belongs to another request.
func check(resp *http.Response, body, method, host, path, id string, size int) error {
	want, status := fmt.Sprintf("%s %s %d", host, id, size), 200
	if path == "/early" {
		want = fmt.Sprintf("%s %s early", host, id)
	}
	if path == "/denied" && method == "GET" && host != "raw" {
		want, status = "policy_denied", 403
	}
	if resp.StatusCode != status || !strings.Contains(body, want) {
		return fmt.Errorf("%s %s to %s: %d %q, want %q", method, path, host, resp.StatusCode, body, want)
	}
	return nil
}

// echoRequest says which request it got.
func echoRequest(w http.ResponseWriter, r *http.Request) {
	host, _, _ := strings.Cut(r.Host, ".")
	switch r.URL.Path {
	case "/early":
		fmt.Fprintf(w, "%s %s early", host, r.URL.RawQuery)
		return
	case "/slow":
		time.Sleep(2 * time.Millisecond)
	}
	n, _ := io.Copy(io.Discard, r.Body)
	fmt.Fprintf(w, "%s %s %d", host, r.URL.RawQuery, n)
}

// pipeline sends many requests at once, the last of them to be refused.
func (s *stress) pipeline(r *rand.Rand) error {
	c, err := s.connect("plain.example.com", 80)
	if err != nil {
		return err
	}
	defer c.Close()
	var b strings.Builder
	var ids []string
	for range 1 + r.IntN(5) {
		ids = append(ids, fmt.Sprint(s.number.Add(1)))
		fmt.Fprintf(&b, "POST /echo?%s HTTP/1.1\r\nHost: plain.example.com:80\r\nContent-Length: 3\r\n\r\nabc", ids[len(ids)-1])
	}
	b.WriteString("GET /denied HTTP/1.1\r\nHost: plain.example.com\r\n\r\nGET /echo?unseen HTTP/1.1\r\nHost: plain.example.com\r\n\r\n")
	if _, err := io.WriteString(c, b.String()); err != nil {
		return err
	}
	in := bufio.NewReader(c)
	for _, id := range append(ids, "") {
		method, path, size := "POST", "/echo", 3
		if id == "" {
			method, path = "GET", "/denied"
		}
		resp, err := http.ReadResponse(in, &http.Request{Method: method})
		if err != nil {
			return fmt.Errorf("pipelined: %w", err)
		}
		body, _ := io.ReadAll(resp.Body)
		if err := check(resp, string(body), method, "plain", path, id, size); err != nil {
			return fmt.Errorf("pipelined: %w", err)
		}
	}
	if rest, _ := io.ReadAll(in); len(rest) > 0 {
		return fmt.Errorf("behind a refusal: %q", rest)
	}
	return nil
}

// hangUp leaves a connection in some state.
func (s *stress) hangUp(r *rand.Rand) error {
	host, port := "h1.example.com", 443
	if r.IntN(2) == 0 {
		host, port = "plain.example.com", 80
	}
	c, err := s.connect(host, port)
	if err != nil {
		return err
	}
	defer c.Close()
	said := []string{"", "\x16\x03\x01\x02\x00\x01", "G", "GET /echo HTTP/1.1\r\nHost: ", "POST /echo HTTP/1.1\r\nHost: plain.example.com\r\nContent-Length: 9\r\n\r\nhal",
		"GET /slow HTTP/1.1\r\nHost: plain.example.com\r\n\r\n", "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"}[r.IntN(7)]
	_, _ = io.WriteString(c, said)
	if tcp, ok := c.(*net.TCPConn); ok && r.IntN(3) == 0 {
		_ = tcp.SetLinger(0)
	}
	time.Sleep(time.Duration(r.IntN(int(3 * time.Millisecond))))
	return errGaveUp
}

// webSocket has a few messages come back.
func (s *stress) webSocket(r *rand.Rand) error {
	c, err := s.connect("ws.example.com", 80)
	if err != nil {
		return err
	}
	defer c.Close()
	fmt.Fprintf(c, handshake, "/", "ws.example.com")
	in := bufio.NewReader(c)
	resp, err := http.ReadResponse(in, nil)
	if err != nil || resp.StatusCode != 101 {
		return fmt.Errorf("handshake: %v %v", resp, err)
	}
	for range r.IntN(4) {
		if _, err := c.Write([]byte("\x81\x82\x00\x00\x00\x00hi")); err != nil {
			return err
		}
		got := make([]byte, 4)
		if _, err := io.ReadFull(in, got); err != nil || string(got) != "\x81\x02hi" {
			return fmt.Errorf("message: %q %v", got, err)
		}
	}
	return nil
}

// webSockets is webSocket for a few streams of one connection; some are given up, and
// some end with their connection.
func (s *stress) webSockets(r *rand.Rand) error {
	tcp, err := s.connect("ws.example.com", 443)
	if err != nil {
		return err
	}
	defer tcp.Close()
	c := tls.Client(tcp, &tls.Config{RootCAs: s.roots, ServerName: "ws.example.com", NextProtos: []string{"h2"}})
	if err := c.Handshake(); err != nil {
		return err
	}
	h2, err := new(http2.Transport).NewClientConn(c)
	if err != nil {
		return err
	}
	defer h2.Close()
	for range 1 + r.IntN(4) {
		if err := s.onStream(r, h2); err != nil {
			return err
		}
	}
	return nil
}

func (s *stress) onStream(r *rand.Rand, h2 *http2.ClientConn) error {
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	body, frames := io.Pipe()
	defer frames.Close()
	req, err := http.NewRequestWithContext(ctx, "CONNECT", "https://ws.example.com/", body)
	if err != nil {
		return err
	}
	req.Header = http.Header{":protocol": {"websocket"}, "Sec-Websocket-Version": {"13"}}
	if r.IntN(8) == 0 {
		time.AfterFunc(time.Duration(r.IntN(int(3*time.Millisecond))), cancel)
	}
	resp, err := h2.RoundTrip(req)
	if ctx.Err() != nil {
		return errGaveUp
	}
	if err != nil || resp.StatusCode != 200 {
		return fmt.Errorf("handshake on a stream: %v %v", resp, err)
	}
	defer resp.Body.Close()
	for range r.IntN(4) {
		_, err := frames.Write([]byte("\x81\x82\x00\x00\x00\x00hi"))
		got := make([]byte, 4)
		if err == nil {
			_, err = io.ReadFull(resp.Body, got)
		}
		if ctx.Err() != nil {
			return errGaveUp
		}
		if err != nil || string(got) != "\x81\x02hi" {
			return fmt.Errorf("message on a stream: %q %v", got, err)
		}
	}
	if r.IntN(4) == 0 {
		return nil // with a reset
	}
	frames.Close()
	if rest, err := io.ReadAll(resp.Body); ctx.Err() == nil && (err != nil || len(rest) > 0) {
		return fmt.Errorf("the end of a stream: %q %v", rest, err)
	}
	return nil
}

// echoWebSocket returns messages of two bytes.
func echoWebSocket(w http.ResponseWriter, r *http.Request) {
	c, rw, err := http.NewResponseController(w).Hijack()
	if err != nil {
		return
	}
	defer c.Close()
	_, _ = io.WriteString(c, "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Accept: "+acceptOf(r.Header.Get("Sec-WebSocket-Key"))+"\r\n\r\n")
	for frame := make([]byte, 8); ; {
		if _, err := io.ReadFull(rw, frame); err != nil || frame[0] != 0x81 {
			return
		}
		for i := range 2 {
			frame[6+i] ^= frame[2+i]
		}
		if _, err := c.Write([]byte{0x81, 2, frame[6], frame[7]}); err != nil {
			return
		}
	}
}

// connect is tunnel for goroutines that are not the test's own.
func (s *stress) connect(host string, port int) (net.Conn, error) {
	c, err := net.Dial("tcp", s.proxy)
	if err != nil {
		return nil, err
	}
	_ = c.SetDeadline(time.Now().Add(generous))
	fmt.Fprintf(c, "CONNECT %s:%d HTTP/1.1\r\nHost: %s:%d\r\n\r\n", host, port, host, port)
	answer := make([]byte, len(established))
	if _, err := io.ReadFull(c, answer); err != nil || string(answer) != established {
		c.Close()
		return nil, fmt.Errorf("CONNECT: %q, %v", answer, err)
	}
	return c, nil
}

// settled is what settle compares with. By then a connection was refused and recorded, so
// that everything runs that the daemon starts for itself.
func (w *world) settled() (goroutines, descriptors int) {
	w.t.Helper()
	c, err := net.Dial("tcp", w.proxy)
	if err != nil {
		w.t.Fatal(err)
	}
	defer c.Close()
	fmt.Fprint(c, "CONNECT nobody.example.com:1 HTTP/1.1\r\nHost: nobody.example.com:1\r\n\r\n")
	if _, err := io.ReadAll(c); err != nil {
		w.t.Fatal(err)
	}
	w.recorded(w.t, "nobody.example.com")
	return busy(), openFiles(w.t)
}

// settle empties the pools and waits until goroutines and descriptors are what they were.
func (w *world) settle(goroutines, descriptors int) {
	w.t.Helper()
	w.empty()
	for end := time.Now().Add(generous); ; time.Sleep(10 * time.Millisecond) {
		g, d := busy()-goroutines, openFiles(w.t)-descriptors
		if g <= 0 && d <= 0 && w.Live.count.Load() == 0 {
			return
		}
		if time.Now().After(end) {
			_ = pprof.Lookup("goroutine").WriteTo(os.Stderr, 1)
			w.t.Fatalf("%d goroutines and %d descriptors more than before, %d connections are taken for live", g, d, w.Live.count.Load())
		}
	}
}

// busy is how many goroutines there are, without those that wait for a connection to serve.
func busy() (n int) {
	stacks := make([]byte, 1<<20)
	for runtime.Stack(stacks, true) == len(stacks) {
		stacks = make([]byte, 2*len(stacks))
	}
	for g := range strings.SplitSeq(string(stacks[:runtime.Stack(stacks, true)]), "\n\n") {
		if !strings.Contains(g, "listen.(*workers).run(") || strings.Contains(g, "listen.serveOne(") {
			n++
		}
	}
	return n
}

func openFiles(t testing.TB) int {
	t.Helper()
	entries, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		t.Fatal(err)
	}
	return len(entries)
}
