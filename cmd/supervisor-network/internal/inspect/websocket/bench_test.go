package websocket

import (
	"errors"
	"io"
	"runtime"
	"strings"
	"sync/atomic"
	"testing"
	"time"
)

var errStop = errors.New("the benchmark is over")

// loop is a stream whose peer says the same frames again and again, one read each, and
// takes what it is sent.
type loop struct {
	frames []byte
	at     int
	left   int
	over   chan struct{} // closed when it has nothing more to say
	wait   chan struct{} // what it waits for before it ends
}

func (l *loop) Read(p []byte) (int, error) {
	if l.left == 0 {
		if l.over != nil {
			close(l.over)
			l.over = nil
		}
		if l.wait != nil {
			<-l.wait
		}
		return 0, errStop
	}
	n := copy(p, l.frames[l.at:])
	if l.at += n; l.at == len(l.frames) {
		l.at = 0
		l.left--
	}
	return n, nil
}

func (l *loop) Write(p []byte) (int, error)      { return len(p), nil }
func (l *loop) SetReadDeadline(time.Time) error  { return nil }
func (l *loop) SetWriteDeadline(time.Time) error { return nil }
func (l *loop) Close() error                     { return nil }

func benchmark(b *testing.B, up, down []byte) {
	b.Helper()
	b.ReportAllocs()
	b.SetBytes(int64(len(up) + len(down)))
	over := make(chan struct{})
	client, server := &loop{frames: up, left: b.N, over: over}, &loop{frames: down, wait: over}
	if len(down) > 0 {
		client, server = &loop{wait: over}, &loop{frames: down, left: b.N, over: over}
	}
	s := &Session{Client: client, Upstream: server, Judge: allow, Binary: true, Deflate: true, Assemblies: NewAssemblies(nil)}
	stats, err := s.Run(b.Context())
	if !errors.Is(err, errStop) || stats.Up.Bytes+stats.Down.Bytes == 0 {
		b.Fatal(stats, err)
	}
}

func BenchmarkText64(b *testing.B)   { benchmark(b, masked(text, strings.Repeat("x", 64)), nil) }
func BenchmarkPing(b *testing.B)     { benchmark(b, masked(ping, "12345678"), nil) }
func BenchmarkBinary64(b *testing.B) { benchmark(b, masked(bin, strings.Repeat("x", 64)), nil) }
func BenchmarkText4K(b *testing.B)   { benchmark(b, masked(text, strings.Repeat("x", 4096)), nil) }
func BenchmarkText1M(b *testing.B)   { benchmark(b, masked(text, strings.Repeat("x", 1<<20)), nil) }
func BenchmarkBinary1M(b *testing.B) { benchmark(b, masked(bin, strings.Repeat("x", 1<<20)), nil) }
func BenchmarkDeflate4K(b *testing.B) {
	benchmark(b, masked(compressed, deflated(noise[:4096])), nil)
}
func BenchmarkDown64(b *testing.B) { benchmark(b, nil, plain(text, strings.Repeat("x", 64))) }
func BenchmarkDown1M(b *testing.B) { benchmark(b, nil, plain(bin, strings.Repeat("x", 1<<20))) }

// BenchmarkEchoTCP64 is a short message there and back over real sockets.
func BenchmarkEchoTCP64(b *testing.B) {
	client, near := tcp(b)
	server, upstream := tcp(b)
	s := &Session{Client: near, Upstream: upstream, Judge: allow}
	done := make(chan struct{})
	go func() { defer close(done); _, _ = s.Run(b.Context()) }()
	up, down := masked(text, strings.Repeat("x", 64)), plain(text, strings.Repeat("x", 64))
	go func() {
		buf := make([]byte, len(up))
		for {
			if _, err := io.ReadFull(server, buf); err != nil {
				server.Close()
				return
			}
			_, _ = server.Write(down)
		}
	}()
	buf := make([]byte, len(down))
	b.ReportAllocs()
	for b.Loop() {
		_, _ = client.Write(up)
		if _, err := io.ReadFull(client, buf); err != nil {
			b.Fatal(err)
		}
	}
	client.Close()
	<-done
}

// silent is a stream on which nothing happens until it is closed. It counts what is written.
type silent struct {
	closed  chan struct{}
	written *atomic.Int64
}

func (s silent) Read([]byte) (int, error)         { <-s.closed; return 0, io.EOF }
func (s silent) Write(p []byte) (int, error)      { s.written.Add(int64(len(p))); return len(p), nil }
func (s silent) SetReadDeadline(time.Time) error  { return nil }
func (s silent) SetWriteDeadline(time.Time) error { return nil }
func (s silent) Close() error                     { return nil }

func memory() uint64 {
	runtime.GC()
	runtime.GC()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return m.HeapInuse + m.StackInuse
}

// maxIdle is what one session may hold while nothing happens, its two goroutines'
// stacks included: some 11 KiB, and half as much again under the race detector.
const maxIdle = 24 << 10

// An idle session that has carried a large message has given its buffers back.
func TestIdleSessionsHoldLittle(t *testing.T) {
	const sessions = 500
	closed := make(chan struct{})
	done := make(chan struct{}, sessions)
	before := memory()
	big := masked(text, strings.Repeat("x", 100_000))
	var carried, unused atomic.Int64
	for range sessions {
		s := &Session{Client: silent{closed, &unused}, Upstream: silent{closed, &carried}, ClientEarly: append([]byte(nil), big...), Judge: allow, Assemblies: NewAssemblies(nil)}
		go func() { _, _ = s.Run(t.Context()); done <- struct{}{} }()
	}
	// Every session has both its goroutines and has carried its message before it counts
	// as idle; what it holds then may take a moment to be collected.
	idle := func() bool {
		n := runtime.NumGoroutine()
		return n >= 2*sessions && n <= 2*sessions+20 && carried.Load() == int64(sessions*len(big))
	}
	var each uint64
	for end := time.Now().Add(time.Minute); ; time.Sleep(time.Millisecond) {
		is := idle()
		if each = (max(memory(), before) - before) / sessions; is && each <= maxIdle {
			break
		}
		if time.Now().After(end) {
			t.Errorf("an idle session holds %d bytes; %d goroutines for %d sessions, %d bytes carried of %d",
				each, runtime.NumGoroutine(), sessions, carried.Load(), sessions*len(big))
			break
		}
	}
	t.Logf("an idle session holds %d bytes", each)
	close(closed)
	for range sessions {
		<-done
	}
}

func TestShortMessagesAllocateNothing(t *testing.T) {
	const messages = 100_000
	for name, frames := range map[string][]byte{"text": masked(text, strings.Repeat("x", 64)), "ping": masked(ping, "12345678"), "binary": masked(bin, strings.Repeat("x", 64))} {
		over := make(chan struct{})
		s := &Session{Client: &loop{frames: frames, left: messages, over: over}, Upstream: &loop{wait: over}, Judge: allow, Binary: true}
		var before, after runtime.MemStats
		runtime.ReadMemStats(&before)
		stats, _ := s.Run(t.Context())
		runtime.ReadMemStats(&after)
		if n := after.Mallocs - before.Mallocs; n > messages/10 || stats.Up.Bytes != int64(messages*len(frames)) {
			t.Errorf("%s: %d allocations for %d messages, %+v", name, n, messages, stats)
		}
	}
}
