package relay

import (
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"io"
	"math/rand/v2"
	"net"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"syscall"
	"testing"
	"testing/synctest"
	"time"
)

// patience ends a test that hangs; no test waits for it to pass.
const patience = 30 * time.Second

// pair is one TCP connection over loopback.
func pair(tb testing.TB) (client, server *net.TCPConn) {
	tb.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		tb.Fatal(err)
	}
	defer l.Close()
	c, err := net.Dial("tcp", l.Addr().String())
	if err != nil {
		tb.Fatal(err)
	}
	s, err := l.Accept()
	if err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(func() { c.Close(); s.Close() })
	_ = c.SetDeadline(time.Now().Add(patience)) // the tunnel's end has none
	return c.(*net.TCPConn), s.(*net.TCPConn)
}

// running is a tunnel with the far ends of its two connections.
type running struct {
	*Tunnel
	client, origin *net.TCPConn
	done           chan error
}

func tunnel(t *testing.T, ctx context.Context, early string) *running {
	t.Helper()
	client, a := pair(t)
	origin, b := pair(t)
	r := &running{&Tunnel{Client: a, Upstream: b, Early: []byte(early), Idle: time.Hour}, client, origin, make(chan error, 1)}
	over := make(chan struct{})
	go func() {
		defer close(over)
		r.done <- r.Run(ctx)
	}()
	t.Cleanup(func() {
		client.Close()
		origin.Close()
		<-over
	})
	return r
}

func (r *running) wait(t *testing.T) error {
	t.Helper()
	select {
	case err := <-r.done:
		return err
	case <-time.After(patience):
		t.Fatal("the tunnel did not end")
		return nil
	}
}

// until waits for what happens soon but tells nobody.
func until(t *testing.T, what string, is func() bool) {
	t.Helper()
	for end := time.Now().Add(patience); !is(); time.Sleep(time.Millisecond) {
		if time.Now().After(end) {
			t.Fatal("never: " + what)
		}
	}
}

func wantRead(t *testing.T, c net.Conn, want string) {
	t.Helper()
	got := make([]byte, len(want))
	if _, err := io.ReadFull(c, got); err != nil || string(got) != want {
		t.Fatalf("read %q, %v, want %q", got, err, want)
	}
}

func wantEnd(t *testing.T, c net.Conn) {
	t.Helper()
	if n, err := c.Read(make([]byte, 1)); n != 0 || err != io.EOF {
		t.Fatalf("read %d bytes, %v, want the end", n, err)
	}
}

func wantReset(t *testing.T, c net.Conn) {
	t.Helper()
	if _, err := io.Copy(io.Discard, c); !errors.Is(err, syscall.ECONNRESET) {
		t.Fatalf("got %v, want a reset", err)
	}
}

func write(t *testing.T, c net.Conn, s string) {
	t.Helper()
	if _, err := io.WriteString(c, s); err != nil {
		t.Fatal(err)
	}
}

func TestTunnelPassesOnTheHalfCloseOfEachSide(t *testing.T) {
	for name, swap := range map[string]bool{"client first": false, "origin first": true} {
		t.Run(name, func(t *testing.T) {
			r := tunnel(t, t.Context(), "")
			first, second := r.client, r.origin
			if swap {
				first, second = second, first
			}
			write(t, first, "question")
			_ = first.CloseWrite()
			wantRead(t, second, "question")
			wantEnd(t, second)
			for range 3 { // the other direction goes on
				write(t, second, "answer")
				wantRead(t, first, "answer")
			}
			select {
			case err := <-r.done:
				t.Fatalf("it ended with one direction: %v", err)
			default:
			}
			_ = second.CloseWrite()
			wantEnd(t, first)
			if err := r.wait(t); err != nil {
				t.Error(err)
			}
			if err := r.Client.SetDeadline(time.Time{}); !errors.Is(err, net.ErrClosed) {
				t.Error("the client's connection is left open")
			}
			if err := r.Upstream.SetDeadline(time.Time{}); !errors.Is(err, net.ErrClosed) {
				t.Error("the upstream's connection is left open")
			}
		})
	}
}

func TestTunnelSendsEarlyBytesFirstAndCountsThem(t *testing.T) {
	r := tunnel(t, t.Context(), "early ")
	write(t, r.client, "late")
	wantRead(t, r.origin, "early late")
	write(t, r.origin, "back")
	wantRead(t, r.client, "back")
	_ = r.client.CloseWrite()
	_ = r.origin.CloseWrite()
	if err := r.wait(t); err != nil {
		t.Error(err)
	}
	if up, down := r.Moved(); up != 10 || down != 4 {
		t.Errorf("moved %d and %d", up, down)
	}
}

func TestTunnelWithoutAnyByteEnds(t *testing.T) {
	r := tunnel(t, t.Context(), "")
	_ = r.client.CloseWrite()
	_ = r.origin.CloseWrite()
	if err := r.wait(t); err != nil {
		t.Error(err)
	}
}

// Both directions at once, long enough for splice, with pieces of every size.
func TestTunnelChangesNoByte(t *testing.T) {
	r := tunnel(t, t.Context(), "")
	const size = 24 << 20
	type result struct {
		name      string
		sent, got [32]byte
		err       error
	}
	results := make(chan result, 2)
	transfer := func(name string, seed byte, from, to *net.TCPConn) {
		hash, errs := sha256.New(), make(chan error, 1)
		go func() {
			source := io.TeeReader(io.LimitReader(rand.NewChaCha8([32]byte{seed}), size), hash)
			for n := int64(1); ; n = n*3%200_000 + 1 {
				if moved, err := io.CopyN(from, source, n); err != nil && moved == 0 {
					errs <- from.CloseWrite()
					return
				}
			}
		}()
		got := sha256.New()
		_, err := io.Copy(got, to)
		err = errors.Join(err, <-errs)
		results <- result{name, [32]byte(hash.Sum(nil)), [32]byte(got.Sum(nil)), err}
	}
	go transfer("up", 1, r.client, r.origin)
	go transfer("down", 2, r.origin, r.client)
	for range 2 {
		if res := <-results; res.err != nil || res.sent != res.got {
			t.Errorf("%s: the bytes differ: %v", res.name, res.err)
		}
	}
	if err := r.wait(t); err != nil {
		t.Error(err)
	}
	if up, down := r.Moved(); up != size || down != size {
		t.Errorf("moved %d and %d, want %d", up, down, size)
	}
}

func TestTunnelEndsWithItsContextAndItsCause(t *testing.T) {
	cause := errors.New("the policy changed")
	ctx, cancel := context.WithCancelCause(t.Context())
	r := tunnel(t, ctx, "")
	write(t, r.client, "x")
	wantRead(t, r.origin, "x")
	cancel(cause)
	if err := r.wait(t); !errors.Is(err, cause) {
		t.Errorf("got %v", err)
	}
	wantReset(t, r.client) // a cut tunnel is not a complete one
	wantReset(t, r.origin)
}

func TestTunnelEndsWithItsContextWhileAPeerDoesNotRead(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	r := tunnel(t, ctx, "")
	go func() { _, _ = io.Copy(r.client, rand.NewChaCha8([32]byte{})) }()
	for last := int64(-1); ; { // until the origin's buffers are full
		time.Sleep(50 * time.Millisecond)
		up, _ := r.Moved()
		if up == last && up > 0 {
			break
		}
		last = up
	}
	cancel()
	if err := r.wait(t); !errors.Is(err, context.Canceled) {
		t.Errorf("got %v", err)
	}
}

func TestTunnelPassesOnAReset(t *testing.T) {
	r := tunnel(t, t.Context(), "")
	_ = r.origin.SetLinger(0)
	r.origin.Close()
	if err := r.wait(t); !errors.Is(err, syscall.ECONNRESET) {
		t.Errorf("got %v", err)
	}
	wantReset(t, r.client)
}

func TestTunnelEndsWhenIdle(t *testing.T) {
	client, a := pair(t)
	origin, b := pair(t)
	tn := Tunnel{Client: a, Upstream: b, Idle: 20 * time.Millisecond}
	if err := tn.Run(t.Context()); err != ErrIdle {
		t.Errorf("got %v", err)
	}
	wantReset(t, client)
	wantReset(t, origin)
}

// watched runs watch in fake time until it ends the tunnel, and says after how long.
func watched(t *testing.T, tn *Tunnel, traffic func()) (after time.Duration, err error) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		start, done := time.Now(), make(chan struct{})
		defer tn.watch(func(e error) {
			after, err = time.Since(start), e
			close(done)
		})()
		traffic()
		<-done
	})
	return after, err
}

func TestIdleTimeCountsFromTheLastByte(t *testing.T) {
	const idle, active = time.Hour, 5 * time.Hour
	tn := &Tunnel{Idle: idle}
	after, err := watched(t, tn, func() {
		for range 10 {
			time.Sleep(active / 10)
			tn.down.moved.Add(1)
		}
	})
	if err != ErrIdle || after < active+idle || after > active+2*idle {
		t.Errorf("ended after %s with %v", after, err)
	}
}

func TestHalfClosedTunnelsEndSooner(t *testing.T) {
	half := func(idle time.Duration) *Tunnel {
		tn := &Tunnel{Idle: idle}
		tn.up.over.Store(true)
		return tn
	}
	after, err := watched(t, half(24*time.Hour), func() {})
	if err != ErrIdle || after < HalfClosedIdle || after > 2*HalfClosedIdle {
		t.Errorf("ended after %s with %v", after, err)
	}
	after, err = watched(t, half(time.Minute), func() {})
	if err != ErrIdle || after > 2*time.Minute {
		t.Errorf("a shorter idle time: ended after %s with %v", after, err)
	}
}

// A stream that was fast and then falls quiet is seen byte by byte, and holds no
// pipe.
func TestTunnelCountsWhatFollowsABurst(t *testing.T) {
	r := tunnel(t, t.Context(), "")
	burst := strings.Repeat("x", 3<<20)
	go func() { _, _ = io.WriteString(r.client, burst) }()
	wantRead(t, r.origin, burst)
	for i := range 3 {
		until(t, "the counter is complete", func() bool { up, _ := r.Moved(); return up == int64(len(burst)+i) })
		write(t, r.client, "y")
		wantRead(t, r.origin, "y")
	}
}

// descriptors lists what this process has open of a kind ("socket" or "pipe") and
// is not in without.
func descriptors(kind string, without map[string]bool) map[string]bool {
	paths, _ := filepath.Glob("/proc/self/fd/*")
	out := map[string]bool{}
	for _, p := range paths {
		if to, err := os.Readlink(p); err == nil && strings.HasPrefix(to, kind+":") && !without[to] {
			out[to] = true
		}
	}
	return out
}

// inherited are the pipes of whoever runs the tests.
var inherited = descriptors("pipe", nil)

func TestIdleTunnelHoldsTwoDescriptors(t *testing.T) {
	before := descriptors("socket", nil)
	r := tunnel(t, t.Context(), "")
	const ends = 2 // the test's own
	check := func(when string, want int) {
		t.Helper()
		var sockets, pipes map[string]bool
		defer func() {
			if t.Failed() {
				t.Log(sockets, pipes)
			}
		}()
		until(t, when, func() bool {
			runtime.GC() // a pipe that nobody holds waits for it
			sockets, pipes = descriptors("socket", before), descriptors("pipe", inherited)
			return len(sockets) == want && len(pipes) == 0
		})
	}
	check("a new tunnel holds two", ends+2)
	burst := bytes.Repeat([]byte("x"), 4<<20)
	for _, direction := range [][2]*net.TCPConn{{r.client, r.origin}, {r.origin, r.client}} {
		go func() { _, _ = direction[0].Write(burst) }()
		if _, err := io.CopyN(io.Discard, direction[1], int64(len(burst))); err != nil {
			t.Fatal(err)
		}
	}
	check("it holds two after bursts", ends+2)
	_ = r.client.CloseWrite()
	wantEnd(t, r.origin)
	check("it holds two when it is half closed", ends+2)
	_ = r.origin.CloseWrite()
	if err := r.wait(t); err != nil {
		t.Error(err)
	}
	check("it holds none when it has ended", ends)
}

func TestTunnelsLeaveNoGoroutine(t *testing.T) {
	before := runtime.NumGoroutine()
	ctx, cancel := context.WithCancel(t.Context())
	for i := range 20 {
		r := tunnel(t, ctx, "early")
		wantRead(t, r.origin, "early")
		switch i % 4 {
		case 0:
			r.client.Close()
			r.origin.Close()
		case 1:
			_ = r.client.SetLinger(0)
			r.client.Close()
		case 2:
			_ = r.client.CloseWrite()
			_ = r.origin.CloseWrite()
		default: // the context ends it
		}
	}
	cancel()
	until(t, "the goroutines are gone", func() bool { return runtime.NumGoroutine() <= before })
}

// stream sends b.N mebibytes through the four connections that relay joins.
func stream(b *testing.B, relay func(client, upstream *net.TCPConn)) {
	client, x := pair(b)
	origin, y := pair(b)
	for _, c := range []*net.TCPConn{client, origin} {
		_ = c.SetDeadline(time.Time{})
	}
	go relay(x, y)
	received := make(chan int64)
	go func() {
		n, _ := io.Copy(io.Discard, struct{ io.Reader }{origin})
		received <- n
	}()
	part := make([]byte, 1<<20)
	b.SetBytes(int64(len(part)))
	var sent int64
	for b.Loop() {
		n, err := client.Write(part)
		if err != nil {
			b.Fatal(err)
		}
		sent += int64(n)
	}
	_ = client.CloseWrite()
	if got := <-received; got != sent {
		b.Fatalf("received %d of %d bytes", got, sent)
	}
	origin.Close()
}

func BenchmarkTunnel(b *testing.B) {
	stream(b, func(client, upstream *net.TCPConn) {
		tn := Tunnel{Client: client, Upstream: upstream, Idle: time.Hour}
		_ = tn.Run(context.Background())
	})
}

// BenchmarkBareSplice is what the tunnel is measured against.
func BenchmarkBareSplice(b *testing.B) {
	stream(b, func(client, upstream *net.TCPConn) {
		go func() { _, _ = io.Copy(client, upstream) }()
		_, _ = io.Copy(upstream, client)
		_ = upstream.CloseWrite()
	})
}
