package listen

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/splitpod/splitpod/cmd/supervisor-network/internal/http1"
	"github.com/splitpod/splitpod/pkg/core"
)

// patience ends a test that hangs; no test waits for it to pass.
const patience = time.Minute

// server is Serve on a real listener.
type server struct {
	addr  string
	gauge *Gauge
	stop  context.CancelFunc
	done  chan error
}

func start(t *testing.T, opt Options, handle func(context.Context, *Conn)) *server {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	return startOn(t, l, opt, handle)
}

func startOn(t *testing.T, l net.Listener, opt Options, handle func(context.Context, *Conn)) *server {
	t.Helper()
	if opt.Gauge == nil {
		opt.Gauge = NewGauge(100)
	}
	if opt.HeadTimeout == 0 {
		opt.HeadTimeout = time.Hour
	}
	opt.Log = slog.New(slog.DiscardHandler)
	ctx, stop := context.WithCancel(t.Context())
	s := &server{addr: l.Addr().String(), gauge: opt.Gauge, stop: stop, done: make(chan error, 1)}
	go func() { s.done <- Serve(ctx, l, opt, handle) }()
	t.Cleanup(stop)
	return s
}

func (s *server) wait(t *testing.T) error {
	t.Helper()
	select {
	case err := <-s.done:
		return err
	case <-time.After(patience):
		t.Fatal("Serve did not return")
		return nil
	}
}

func (s *server) dial(t *testing.T) *net.TCPConn {
	t.Helper()
	c, err := net.Dial("tcp", s.addr)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	_ = c.SetDeadline(time.Now().Add(patience))
	return c.(*net.TCPConn)
}

// say connects, sends text, and returns the connection.
func (s *server) say(t *testing.T, text string) *net.TCPConn {
	t.Helper()
	c := s.dial(t)
	if _, err := io.WriteString(c, text); err != nil {
		t.Fatal(err)
	}
	return c
}

// refuse is the handler of tests about refusals.
func refuse(_ context.Context, c *Conn) {
	if c.Err == nil {
		c.Answer(200, http1.ErrorBody{Error: "accepted"})
		return
	}
	c.Answer(c.Err.Status, http1.ErrorBody{Error: c.Err.Reason, Detail: c.Err.Detail, RequestID: string(c.ID)})
}

func readAnswer(t *testing.T, c net.Conn) (status int, body string) {
	t.Helper()
	resp, err := http.ReadResponse(bufio.NewReader(c), nil)
	if err != nil {
		t.Fatal(err)
	}
	data, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	return resp.StatusCode, string(data)
}

const connect = "CONNECT ok.test:443 HTTP/1.1\r\nHost: ok.test:443\r\n\r\n"

func TestServeAnswersWhatItCannotRead(t *testing.T) {
	s := start(t, Options{}, refuse)
	for _, c := range []struct {
		rule, text string
		status     int
		reason     core.Reason
	}{
		{"a CONNECT is accepted", connect, 200, "accepted"},
		{"an absolute target is accepted", "GET http://ok.test/ HTTP/1.1\r\nHost: ok.test\r\n\r\n", 200, "accepted"},
		{"port 0 is refused", "CONNECT ok.test:0 HTTP/1.1\r\nHost: ok.test:0\r\n\r\n", 400, core.ReasonInvalidTarget},
		{"origin form is refused", "GET / HTTP/1.1\r\nHost: ok.test\r\n\r\n", 400, core.ReasonInvalidTarget},
		{"https in absolute form is refused", "GET https://ok.test/ HTTP/1.1\r\nHost: ok.test\r\n\r\n", 400, core.ReasonUnsupportedScheme},
		{"NUL in a name is refused", "CONNECT evil.test\x00.ok.test:443 HTTP/1.1\r\n\r\n", 400, core.ReasonBadRequest},
		{"a TLS hello is refused", "\x16\x03\x01\x00\x05hello\n\r\n", 400, core.ReasonBadRequest},
		{"a head of 8193 bytes is refused", "GET http://ok.test/ HTTP/1.1\r\nA: " + strings.Repeat("a", http1.MaxRequestHead-35) + "\r\n\r\n", 431, core.ReasonHeaderTooLarge},
		{"a line without end is refused", strings.Repeat("a", 3*http1.MaxRequestHead), 431, core.ReasonHeaderTooLarge},
	} {
		t.Run(c.rule, func(t *testing.T) {
			status, body := readAnswer(t, s.say(t, c.text))
			if status != c.status || !strings.Contains(body, fmt.Sprintf("%q", c.reason)) {
				t.Errorf("got %d %s, want %d %s", status, body, c.status, c.reason)
			}
		})
	}
}

func TestHeadMustArriveInTime(t *testing.T) {
	s := start(t, Options{HeadTimeout: 20 * time.Millisecond}, refuse)
	for _, text := range []string{"", "CONNECT ok.test:443 HTTP/1.1\r\n"} {
		if status, body := readAnswer(t, s.say(t, text)); status != 408 || !strings.Contains(body, string(core.ReasonRequestTimeout)) {
			t.Errorf("%q: %d %s", text, status, body)
		}
	}
}

// The time-out is about the head: the handler reads on without it.
func TestHeadTimeoutEndsWithTheHead(t *testing.T) {
	t.Parallel()
	const limit = 3 * time.Second // in which a head arrives, however busy the machine is
	s := start(t, Options{HeadTimeout: limit}, func(_ context.Context, c *Conn) {
		if c.Err != nil {
			c.Answer(c.Err.Status, http1.ErrorBody{})
			return
		}
		b, err := c.Reader().ReadByte()
		fmt.Fprintf(c.TCP, "%q %v", b, err)
	})
	c := s.say(t, connect)
	time.Sleep(limit + limit/4) // the deadline has to pass
	_, _ = c.Write([]byte("x"))
	if got, _ := io.ReadAll(c); string(got) != "'x' <nil>" {
		t.Errorf("the handler read %s", got)
	}
}

func TestClientThatClosesEarlyIsHandledOnce(t *testing.T) {
	for _, text := range []string{"", "CONNECT ok"} {
		got := make(chan *Conn, 2)
		s := start(t, Options{}, func(_ context.Context, c *Conn) { got <- c })
		_ = s.say(t, text).CloseWrite()
		if c := <-got; c.Err == nil || c.Err.Reason != core.ReasonClientClosed || c.Target() != (http1.Target{}) {
			t.Errorf("%q: %+v", text, c.Err)
		}
		s.stop()
		if err := s.wait(t); err != nil {
			t.Error(err)
		}
		if len(got) != 0 {
			t.Errorf("%q: the handler was called twice", text)
		}
	}
}

func TestEarlyBytesAreKept(t *testing.T) {
	early, taken := strings.Repeat("\x16\x03\x01 hello", 300), make(chan struct{})
	s := start(t, Options{}, func(_ context.Context, c *Conn) {
		first := c.Early()
		again := c.Early()
		c.Done()
		close(taken)
		rest, _ := io.ReadAll(c.TCP)
		fmt.Fprintf(c.TCP, "%s|%s|%s", first, again, rest)
	})
	c := s.say(t, connect+early)
	<-taken
	_, _ = io.WriteString(c, "late")
	_ = c.CloseWrite()
	if got, _ := io.ReadAll(c); string(got) != early+"||late" {
		t.Errorf("got %q", got)
	}
}

func TestReaderGoesOnBehindTheHead(t *testing.T) {
	s := start(t, Options{}, func(_ context.Context, c *Conn) {
		body := make([]byte, 5)
		_, err := io.ReadFull(c.Reader(), body)
		fmt.Fprintf(c.TCP, "%d %s %v %+v", c.Kind, body, err, c.Target())
	})
	c := s.say(t, "POST http://ok.test/a HTTP/1.1\r\nHost: ok.test\r\nContent-Length: 5\r\n\r\nhe")
	_, _ = io.WriteString(c, "llo")
	want := fmt.Sprintf("%d hello <nil> %+v", Forward, http1.Target{Host: "ok.test", Port: 80, Path: "/a"})
	if got, _ := io.ReadAll(c); string(got) != want {
		t.Errorf("got %s, want %s", got, want)
	}
}

func TestTupleNamesBothEnds(t *testing.T) {
	got := make(chan core.Tuple, 1)
	s := start(t, Options{}, func(_ context.Context, c *Conn) { got <- c.Tuple })
	c := s.say(t, connect)
	if tuple := <-got; tuple.Client.String() != c.LocalAddr().String() || tuple.Server.String() != s.addr {
		t.Errorf("%+v", tuple)
	}
}

func TestConnectionsAboveTheLimitGet503(t *testing.T) {
	inside, leave := make(chan struct{}), make(chan struct{})
	s := start(t, Options{Gauge: NewGauge(1)}, func(ctx context.Context, c *Conn) {
		if c.Err == nil {
			inside <- struct{}{}
			<-leave
		}
		refuse(ctx, c)
	})
	first := s.say(t, connect)
	<-inside
	for range 3 {
		if status, body := readAnswer(t, s.say(t, connect)); status != 503 || !strings.Contains(body, string(core.ReasonTooManyConnections)) {
			t.Errorf("%d %s", status, body)
		}
	}
	if open, refused := s.gauge.Open(), s.gauge.Refused(); open != 1 || refused != 3 {
		t.Errorf("%d open, %d refused", open, refused)
	}
	close(leave)
	if status, _ := readAnswer(t, first); status != 200 {
		t.Errorf("the first got %d", status)
	}
	first.Close()
	go func() { <-inside }()
	for s.gauge.Open() != 0 { // the place is given back just behind the answer
		time.Sleep(time.Millisecond)
	}
	if status, _ := readAnswer(t, s.say(t, connect)); status != 200 {
		t.Errorf("with a free place: %d", status)
	}
}

// A flood of refused connections must not keep the places of those that ended.
func TestRefusedConnectionsTakeNoPlace(t *testing.T) {
	refused, release := make(chan struct{}), make(chan struct{})
	inside, leave := make(chan struct{}), make(chan struct{})
	s := start(t, Options{Gauge: NewGauge(1)}, func(ctx context.Context, c *Conn) {
		if c.Err != nil {
			refused <- struct{}{}
			<-release
			return
		}
		inside <- struct{}{}
		<-leave
	})
	defer close(release)
	first := s.say(t, connect)
	<-inside
	for range 3 {
		s.say(t, connect)
		<-refused
	}
	leave <- struct{}{}
	if _, err := io.ReadAll(first); err != nil { // its end: the place is free
		t.Fatal(err)
	}
	s.say(t, connect)
	select {
	case <-inside:
		close(leave)
	case <-refused:
		t.Error("refused connections hold the only place")
	}
}

func TestOnlySoManyRefusalsLinger(t *testing.T) {
	g := NewGauge(0)
	var leaves []func()
	for i := range maxLingering + 1 {
		admitted, linger, leave := g.enter()
		if admitted || linger != (i < maxLingering) {
			t.Fatalf("refusal %d: admitted %v, lingers %v", i, admitted, linger)
		}
		leaves = append(leaves, leave)
	}
	for _, leave := range leaves {
		leave()
	}
	if _, linger, _ := g.enter(); !linger {
		t.Error("places to linger are not given back")
	}
}

// An answer written before the client has finished sending must still arrive.
func TestAnswerReachesAClientThatStillSends(t *testing.T) {
	s := start(t, Options{}, refuse)
	c := s.say(t, "POST /origin-form HTTP/1.1\r\nHost: ok.test\r\n\r\n"+strings.Repeat("x", 100<<10))
	if status, _ := readAnswer(t, c); status != 400 {
		t.Errorf("got %d", status)
	}
}

func TestAnswerToRefusedHeadRequestHasNoBody(t *testing.T) {
	s := start(t, Options{}, refuse)
	got, err := io.ReadAll(s.say(t, "HEAD https://ok.test/ HTTP/1.1\r\nHost: ok.test\r\n\r\n"))
	if err != nil || !bytes.HasSuffix(got, []byte("\r\n\r\n")) {
		t.Errorf("%q, %v", got, err)
	}
}

func TestBackoff(t *testing.T) {
	const ms = time.Millisecond
	scarce := &net.OpError{Op: "accept", Err: syscall.EMFILE}
	for _, c := range []struct {
		rule  string
		errs  []error
		waits []time.Duration
		fatal bool // of the last
	}{
		{"want of descriptors waits longer and longer", []error{scarce, scarce, scarce, scarce, scarce, scarce, scarce, scarce}, []time.Duration{100 * ms, 200 * ms, 400 * ms, 800 * ms, 1600 * ms, 3200 * ms, 5000 * ms, 5000 * ms}, false},
		{"every kind of want counts", []error{syscall.EMFILE, syscall.ENFILE, syscall.ENOBUFS, syscall.ENOMEM}, []time.Duration{100 * ms, 200 * ms, 400 * ms, 800 * ms}, false},
		{"a connection that went away is short", []error{syscall.ECONNABORTED, syscall.ECONNABORTED}, []time.Duration{100 * ms, 100 * ms}, false},
		{"a firewall's refusal is short", []error{syscall.EPERM}, []time.Duration{100 * ms}, false},
		{"a closed listener is fatal", []error{net.ErrClosed}, []time.Duration{0}, true},
		{"a wrapped closed listener is fatal", []error{&net.OpError{Op: "accept", Err: net.ErrClosed}}, []time.Duration{0}, true},
		{"a bad descriptor is fatal", []error{syscall.EBADF}, []time.Duration{0}, true},
		{"four unknown errors are not fatal", []error{io.EOF, io.EOF, io.EOF, io.EOF}, []time.Duration{100 * ms, 100 * ms, 100 * ms, 100 * ms}, false},
		{"the fifth is", []error{io.EOF, io.EOF, io.EOF, io.EOF, io.EOF}, []time.Duration{100 * ms, 100 * ms, 100 * ms, 100 * ms, 100 * ms}, true},
	} {
		t.Run(c.rule, func(t *testing.T) {
			var b backoff
			for i, err := range c.errs {
				wait, fatal := b.after(err)
				if wait != c.waits[i] || fatal != (c.fatal && i == len(c.errs)-1) {
					t.Errorf("error %d: wait %s, fatal %v, want %s", i, wait, fatal, c.waits[i])
				}
			}
		})
	}
	b := backoff{}
	for range 1000 { // the shift does not overflow
		if wait, fatal := b.after(scarce); wait <= 0 || wait > 5*time.Second || fatal {
			t.Fatalf("wait %s, fatal %v", wait, fatal)
		}
	}
}

// scarceListener has no descriptor left for its first calls.
type scarceListener struct {
	net.Listener
	left atomic.Int32
}

func (l *scarceListener) Accept() (net.Conn, error) {
	if l.left.Add(-1) >= 0 {
		return nil, &net.OpError{Op: "accept", Err: syscall.EMFILE}
	}
	return l.Listener.Accept()
}

func TestServeSurvivesWantOfDescriptors(t *testing.T) {
	inner, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	l := &scarceListener{Listener: inner}
	l.left.Store(2)
	s := startOn(t, l, Options{}, refuse)
	if status, _ := readAnswer(t, s.say(t, connect)); status != 200 {
		t.Errorf("got %d", status)
	}
}

func TestServeReportsAListenerThatIsGone(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	s := startOn(t, l, Options{}, refuse)
	l.Close()
	if err := s.wait(t); !errors.Is(err, net.ErrClosed) {
		t.Errorf("got %v", err)
	}
}

func TestDrainLetsHandlersFinish(t *testing.T) {
	inside, leave := make(chan context.Context), make(chan struct{})
	s := start(t, Options{DrainTimeout: time.Hour}, func(ctx context.Context, c *Conn) {
		if c.Err != nil {
			return // a probe of below
		}
		inside <- ctx
		<-leave
		refuse(ctx, c)
	})
	c := s.say(t, connect)
	ctx := <-inside
	s.stop()
	for { // the listener closes first
		probe, err := net.Dial("tcp", s.addr)
		if err != nil {
			break
		}
		probe.Close()
		time.Sleep(time.Millisecond)
	}
	if ctx.Err() != nil {
		t.Error("the handler's context ended with the listener's")
	}
	select {
	case <-s.done:
		t.Fatal("Serve returned before its handler")
	default:
	}
	close(leave)
	if status, _ := readAnswer(t, c); status != 200 {
		t.Errorf("got %d", status)
	}
	c.Close()
	if err := s.wait(t); err != nil {
		t.Error(err)
	}
}

func TestDrainTimeoutEndsHandlers(t *testing.T) {
	inside := make(chan struct{})
	s := start(t, Options{DrainTimeout: time.Millisecond}, func(ctx context.Context, c *Conn) {
		close(inside)
		<-ctx.Done()
	})
	s.say(t, connect)
	<-inside
	s.stop()
	if err := s.wait(t); err != nil {
		t.Error(err)
	}
}

func TestSilentClientsDoNotHoldUpTheEnd(t *testing.T) {
	got := make(chan *http1.SyntaxError, 1)
	s := start(t, Options{DrainTimeout: time.Millisecond}, func(_ context.Context, c *Conn) { got <- c.Err })
	s.say(t, "CONNECT ok.te")
	for s.gauge.Open() == 0 {
		time.Sleep(time.Millisecond)
	}
	s.stop()
	if err := s.wait(t); err != nil {
		t.Error(err)
	}
	if e := <-got; e == nil || e.Status != 503 || e.Reason != core.ReasonShutdown {
		t.Errorf("got %v", e)
	}
}

// The host's choice may be one that paces by timers.
func TestConnectionsOfTheWorkloadAreNotPaced(t *testing.T) {
	chosen := make(chan string, 1)
	s := start(t, Options{}, func(_ context.Context, c *Conn) {
		raw, err := c.TCP.SyscallConn()
		if err != nil {
			t.Error(err)
		}
		_ = raw.Control(func(fd uintptr) {
			name, err := unix.GetsockoptString(int(fd), unix.IPPROTO_TCP, unix.TCP_CONGESTION)
			if err != nil {
				t.Error(err)
			}
			chosen <- name
		})
	})
	connection := func() string {
		t.Helper()
		c, err := net.Dial("tcp", s.addr)
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		fmt.Fprint(c, "CONNECT a.test:443 HTTP/1.1\r\nHost: a.test:443\r\n\r\n")
		return <-chosen
	}
	connection() // may have come before Serve began
	if got := connection(); got != "reno" {
		t.Errorf("congestion control is %s", got)
	}
}
