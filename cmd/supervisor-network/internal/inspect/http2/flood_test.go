package http2

import (
	"bytes"
	"context"
	"crypto/tls"
	"errors"
	"io"
	"net"
	"net/http"
	"runtime"
	"strconv"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"golang.org/x/net/http2"

	"github.com/splitpod/splitpod/pkg/core"
)

// frames are n times the frame that write writes.
func frames(t testing.TB, n int, write func(*http2.Framer, uint32) error) []byte {
	t.Helper()
	var b bytes.Buffer
	fr := http2.NewFramer(&b, nil)
	fr.AllowIllegalWrites = true
	for i := range n {
		if err := write(fr, uint32(2*i+1)); err != nil {
			t.Fatal(err)
		}
	}
	return b.Bytes()
}

var floods = []struct {
	name  string
	limit int
	write func(*http2.Framer, uint32) error
}{
	{"SETTINGS", glitchBurst, func(fr *http2.Framer, _ uint32) error { return fr.WriteSettings() }},
	{"PING", glitchBurst, func(fr *http2.Framer, _ uint32) error { return fr.WritePing(false, [8]byte{}) }},
	{"PING acknowledgements", glitchBurst, func(fr *http2.Framer, _ uint32) error { return fr.WritePing(true, [8]byte{}) }},
	{"WINDOW_UPDATE", glitchBurst, func(fr *http2.Framer, _ uint32) error { return fr.WriteWindowUpdate(0, 1) }},
	{"PRIORITY", glitchBurst, func(fr *http2.Framer, id uint32) error {
		return fr.WritePriority(id, http2.PriorityParam{StreamDep: 0})
	}},
	{"unknown frames", glitchBurst, func(fr *http2.Framer, _ uint32) error { return fr.WriteRawFrame(0xee, 0, 0, []byte("x")) }},
	{"empty CONTINUATION", glitchBurst, func(fr *http2.Framer, _ uint32) error { return fr.WriteContinuation(1, false, nil) }},
	{"empty DATA", glitchBurst, func(fr *http2.Framer, _ uint32) error { return fr.WriteData(1, false, nil) }},
	{"padded DATA", glitchBurst, func(fr *http2.Framer, _ uint32) error { return fr.WriteDataPadded(1, false, nil, []byte{0}) }},
	{"RST_STREAM", resetBurst, func(fr *http2.Framer, id uint32) error { return fr.WriteRSTStream(id, http2.ErrCodeCancel) }},
	{"HEADERS that no handler sees", glitchBurst, func(fr *http2.Framer, id uint32) error {
		return fr.WriteHeaders(http2.HeadersFrameParam{StreamID: id, EndStream: true, EndHeaders: true})
	}},
}

func TestFloodsEndAtTheirLimit(t *testing.T) {
	for _, f := range floods {
		t.Run(f.name, func(t *testing.T) {
			later := time.Now().Add(time.Hour) // no time passes
			b := append([]byte(http2.ClientPreface), frames(t, f.limit+1, f.write)...)
			size := (len(b) - prefaceSize) / (f.limit + 1)
			if !newMeter(nil, later).count(b[:len(b)-size]) {
				t.Error("the limit itself is a flood")
			}
			if newMeter(nil, later).count(b) {
				t.Error("the limit and one more is no flood")
			}
			split := newMeter(nil, later)
			for i := range b[:len(b)-size] {
				if !split.count(b[i : i+1]) {
					t.Fatal("single bytes are counted otherwise")
				}
			}
			if split.count(b[len(b)-size:]) {
				t.Error("single bytes are counted otherwise")
			}
		})
	}
}

func TestWorkPaysForItsControlFrames(t *testing.T) {
	m := newMeter(nil, time.Now())
	ping := frames(t, 1, floods[1].write)
	m.skip = 0
	for range 10 * glitchBurst {
		m.credit(1)
		if !m.count(ping) {
			t.Fatal("a ping that was paid for is a flood")
		}
	}
}

// TestMalformedStreamsOnlyCost: that they are answered pays for no other frame.
func TestMalformedStreamsOnlyCost(t *testing.T) {
	earned := make(chan int64, 1)
	r := dial(t, serve(t, Options{}, func(ctx context.Context, s *Stream) {
		earned <- s.server.meter.earned.Load()
		hello(ctx, s)
	})).hello()
	for i, list := range [][]field{get("connection", "x"), with(":path", "/%"), with(":authority", "evil.test")} {
		r.headers(uint32(2*i+1), true, list)
		r.answer(uint32(2*i + 1))
	}
	r.alive(7)
	if n := next(t, earned); n != creditStream {
		t.Errorf("%d are earned by one request", n)
	}
}

// TestCancelledStreamsAreNoFlood: clients cancel what takes them too long, one after the
// other, and get no budget back for it while it is work that they cancel.
func TestCancelledStreamsAreNoFlood(t *testing.T) {
	judged := make(chan struct{})
	f := serve(t, Options{}, func(ctx context.Context, s *Stream) {
		if s.Path == "/" {
			hello(ctx, s)
			return
		}
		s.ToOrigin(ctx)
		select {
		case judged <- struct{}{}:
		case <-ctx.Done():
		}
		<-ctx.Done()
	})
	r := dial(t, f).hello()
	head := fields(":method", "GET", ":scheme", "https", ":authority", host, ":path", "/slow")
	for i := range uint32(2 * resetBurst) {
		r.ok(r.conn.SetDeadline(time.Now().Add(patience))) // so many streams, one by one, take long on a busy machine
		r.headers(2*i+1, true, head)
		select {
		case <-judged:
		case stats := <-f.stats:
			t.Fatalf("the connection has ended: %+v", stats)
		case <-time.After(patience):
			t.Fatalf("stream %d is not judged", 2*i+1)
		}
		r.ok(r.fr.WriteRSTStream(2*i+1, http2.ErrCodeCancel))
	}
	r.alive(4*resetBurst + 1)
}

// TestOnlyWantedStreamsPayForResets: one that was reset before it was judged did not.
func TestOnlyWantedStreamsPayForResets(t *testing.T) {
	for what, c := range map[string]struct {
		late bool
		do   func(context.Context, *Stream)
		paid int64
	}{
		"sent":              {false, func(ctx context.Context, s *Stream) { s.ToOrigin(ctx) }, 1},
		"answered":          {false, hello, 1},
		"sent and answered": {false, func(ctx context.Context, s *Stream) { s.ToOrigin(ctx); hello(ctx, s) }, 1},
		"refused":           {false, func(_ context.Context, s *Stream) { _ = s.Deny(403, "", "", "", nil) }, 1},
		"not judged":        {false, func(context.Context, *Stream) {}, 0},
		"sent, too late":    {true, func(ctx context.Context, s *Stream) { s.ToOrigin(ctx) }, 0},
		"refused, too late": {true, func(_ context.Context, s *Stream) { _ = s.Deny(403, "", "", "", nil) }, 0},
	} {
		t.Run(what, func(t *testing.T) {
			paid := make(chan int64, 1)
			begun := make(chan struct{})
			f := serve(t, Options{}, func(ctx context.Context, s *Stream) {
				close(begun)
				if c.late {
					<-ctx.Done()
				}
				c.do(ctx, s)
				paid <- s.server.meter.wanted.Load()
			})
			r := dial(t, f).hello()
			r.headers(1, true, get())
			if next(t, begun); c.late {
				r.ok(r.fr.WriteRSTStream(1, http2.ErrCodeCancel))
			}
			if n := next(t, paid); n != c.paid {
				t.Errorf("%d resets are paid for, not %d", n, c.paid)
			}
		})
	}
}

func TestDataIsNoFlood(t *testing.T) {
	m := newMeter(nil, time.Now().Add(time.Hour))
	m.skip = 0
	b := frames(t, 4*glitchBurst, func(fr *http2.Framer, _ uint32) error { return fr.WriteData(1, false, []byte("x")) })
	if !m.count(b) {
		t.Error("data is a flood")
	}
}

// TestFloodsEndTheConnection sends each flood on a real connection, with a stream
// open where the frames need one.
func TestFloodsEndTheConnection(t *testing.T) {
	for _, c := range floods {
		t.Run(c.name, func(t *testing.T) {
			left := baseline(t)
			f := serve(t, Options{}, waitForEnd)
			r := dial(t, f).hello()
			switch c.name {
			case "empty DATA", "padded DATA", "WINDOW_UPDATE":
				r.headers(1, false, get())
			case "empty CONTINUATION":
				r.ok(r.fr.WriteHeaders(http2.HeadersFrameParam{StreamID: 1, BlockFragment: r.block(get())}))
			}
			// What is behind the limit is more than a budget gets back within minutes, however
			// slow this machine is to send and to read.
			more := map[int]int{glitchBurst: 200 * glitchRate, resetBurst: 200 * resetRate}[c.limit]
			b := frames(t, c.limit+more, c.write)
			if c.name == "RST_STREAM" { // of streams that are open
				b = frames(t, c.limit+more, func(fr *http2.Framer, id uint32) error {
					if err := fr.WriteHeaders(http2.HeadersFrameParam{StreamID: id, BlockFragment: r.block(get()), EndStream: true, EndHeaders: true}); err != nil {
						return err
					}
					return c.write(fr, id)
				})
			}
			go func() { _, _ = r.conn.Write(b) }()
			r.ended()
			s := next(t, f.stats)
			if !s.Flooded && c.name != "RST_STREAM" && c.name != "PING acknowledgements" { // the library has limits too
				t.Errorf("the connection ended for another reason: %+v", s)
			}
			r.conn.Close()
			f.stop()
			left()
		})
	}
}

// waitForEnd is a handler that does nothing until its stream ends.
func waitForEnd(ctx context.Context, s *Stream) { <-ctx.Done() }

func TestRapidResetRunsNoMoreHandlersThanStreams(t *testing.T) {
	running, most := make(chan int, 1), 0
	running <- 0
	release := make(chan struct{})
	f := serve(t, Options{}, func(context.Context, *Stream) {
		n := <-running + 1
		most = max(most, n)
		running <- n
		held(t, release) // a handler that is slow to notice
		running <- <-running - 1
	})
	r := dial(t, f).hello()
	b := frames(t, 800, func(fr *http2.Framer, id uint32) error {
		if err := fr.WriteHeaders(http2.HeadersFrameParam{StreamID: id, BlockFragment: r.block(get()), EndStream: true, EndHeaders: true}); err != nil {
			return err
		}
		return fr.WriteRSTStream(id, http2.ErrCodeCancel)
	})
	go func() { _, _ = r.conn.Write(b) }()
	if away := r.ended(); away != http2.ErrCodeEnhanceYourCalm {
		t.Errorf("the connection ended with %v", away)
	}
	close(release)
	if s := next(t, f.stats); !s.Flooded {
		t.Errorf("%+v", s)
	}
	if most > MaxStreams {
		t.Errorf("%d handlers ran", most)
	}
}

func TestTheNumberOfStreamsIsLimited(t *testing.T) {
	release := make(chan struct{})
	f := serve(t, Options{}, func(ctx context.Context, s *Stream) {
		held(t, release)
		hello(ctx, s)
	})
	r := dial(t, f).hello()
	for i := range MaxStreams {
		r.headers(uint32(2*i+1), true, get())
	}
	r.headers(2*MaxStreams+1, true, get())
	if a := r.answer(2*MaxStreams + 1); a.reset == 0 {
		t.Fatalf("stream %d was answered: %+v", MaxStreams+1, a)
	}
	close(release)
	if a := r.answer(2*MaxStreams - 1); a.status != "200" {
		t.Fatalf("stream %d was not answered: %+v", MaxStreams, a)
	}
	r.conn.Close()
	if s := next(t, f.stats); s.Refused != 1 || s.Handled != MaxStreams {
		t.Errorf("%+v", s)
	}
}

func TestAStreamThatDependsOnItselfIsRefused(t *testing.T) {
	f := serve(t, Options{}, hello)
	r := dial(t, f).hello()
	r.ok(r.fr.WriteHeaders(http2.HeadersFrameParam{StreamID: 1, BlockFragment: r.block(get()), EndStream: true, EndHeaders: true, Priority: http2.PriorityParam{StreamDep: 1}}))
	if a := r.answer(1); a.reset == 0 {
		t.Errorf("answered: %+v", a)
	}
	r.alive(3)
	r.conn.Close()
	if s := next(t, f.stats); s.Refused != 1 || s.Handled != 1 {
		t.Errorf("%+v", s)
	}
}

func TestTheSizeOfAHeaderListIsLimited(t *testing.T) {
	size := func(list []field) (n int) {
		for _, f := range list {
			n += int(f.Size())
		}
		return n
	}
	room := MaxHeaderList - size(get("x", ""))
	f := serve(t, Options{}, hello)
	r := dial(t, f).hello()
	r.headers(1, true, get("x", strings.Repeat("v", room)))
	if a := r.answer(1); a.status != "200" {
		t.Errorf("a list of the limit: %+v", a)
	}
	r.headers(3, true, get("x", strings.Repeat("v", room+1)))
	if a := r.answer(3); a.status != "431" || !strings.Contains(a.body, `"header_too_large"`) {
		t.Errorf("a list of the limit and one byte: %+v", a)
	}
	r.headers(5, true, append(get("x", strings.Repeat("v", room+1)), fields("content-type", "application/grpc")...))
	if a := r.answer(5); a.fields["grpc-status"] != "8" {
		t.Errorf("a call of more: %+v", a)
	}
	var long []string
	for i := range 180 {
		long = append(long, "x-"+strconv.Itoa(i), strings.Repeat("v", 300))
	}
	// What is above that, also in one field or in many frames, ends no other stream.
	for i, list := range [][]field{get("x", strings.Repeat("v", 60000)), get(long...)} {
		stream := uint32(2*i + 7)
		r.continued(stream, list)
		if a := r.answer(stream); a.status != "431" || !strings.Contains(a.body, `"header_too_large"`) {
			t.Errorf("a list of %d bytes: %+v", size(list), a)
		}
	}
	r.alive(11)
}

// continued sends a head in as many frames as it needs.
func (r *raw) continued(stream uint32, list []field) {
	r.t.Helper()
	block := r.block(list)
	part := block[:min(len(block), maxFrame)]
	r.ok(r.fr.WriteHeaders(http2.HeadersFrameParam{StreamID: stream, BlockFragment: part, EndStream: true, EndHeaders: len(part) == len(block)}))
	for len(part) < len(block) {
		block = block[len(part):]
		part = block[:min(len(block), maxFrame)]
		r.ok(r.fr.WriteContinuation(stream, len(part) == len(block), part))
	}
}

// TestHeaderBombsStaySmall: a block of few bytes that stands for very many, and a
// block without an end.
func TestHeaderBombsStaySmall(t *testing.T) {
	t.Run("one table entry, repeated", func(t *testing.T) {
		f := serve(t, Options{}, hello)
		r := dial(t, f).hello()
		r.headers(1, true, get("x", strings.Repeat("v", 3900)))
		if a := r.answer(1); a.status != "200" {
			t.Fatalf("%+v", a)
		}
		before := allocated()
		block := r.block(get())
		for range 15000 {
			block = append(block, 0x80|62) // the newest entry of the dynamic table: 58 MB in all
		}
		r.ok(r.fr.WriteHeaders(http2.HeadersFrameParam{StreamID: 3, BlockFragment: block, EndStream: true, EndHeaders: true}))
		if a := r.answer(3); a.status == "200" {
			t.Errorf("the bomb was served")
		}
		if n := allocated() - before; n > 4<<20 {
			t.Errorf("the bomb took %d bytes", n)
		}
	})
	t.Run("a block without an end", func(t *testing.T) {
		f := serve(t, Options{}, hello)
		r := dial(t, f).hello()
		before, first := allocated(), r.block(get())
		go func() {
			_ = r.fr.WriteHeaders(http2.HeadersFrameParam{StreamID: 1, BlockFragment: first})
			piece := bytes.Repeat([]byte{0x82}, maxFrame) // :method GET
			for r.fr.WriteContinuation(1, false, piece) == nil {
			}
		}()
		if away := r.ended(); away == http2.ErrCodeNo {
			t.Error("no error was given")
		}
		next(t, f.stats)
		if n := allocated() - before; n > 8<<20 {
			t.Errorf("the block took %d bytes", n)
		}
	})
	t.Run("a table larger than offered", func(t *testing.T) {
		f := serve(t, Options{}, hello)
		r := dial(t, f).hello()
		// Dynamic table size update to 1 GiB (RFC 7541 section 6.3).
		r.ok(r.fr.WriteHeaders(http2.HeadersFrameParam{StreamID: 1, BlockFragment: append([]byte{0x3f, 0xe1, 0xff, 0xff, 0xff, 0x03}, r.block(get())...), EndStream: true, EndHeaders: true}))
		if away := r.ended(); away != http2.ErrCodeCompression {
			t.Errorf("ended with %v", away)
		}
	})
}

func allocated() int64 {
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return int64(m.TotalAlloc)
}

// endless is an answer without an end, and says how it ended.
func endless(result chan<- error) Handler {
	return func(ctx context.Context, s *Stream) {
		result <- s.Respond(ctx, &http.Response{StatusCode: 200, Header: http.Header{}, ContentLength: -1, Body: io.NopCloser(zeros{})})
	}
}

type zeros struct{}

func (zeros) Read(p []byte) (int, error) { clear(p); return len(p), nil }

func TestAClientThatOpensNoWindowIsNotWaitedFor(t *testing.T) {
	left := baseline(t)
	result := make(chan error, 1)
	f := serve(t, Options{Stall: 100 * time.Millisecond}, endless(result))
	r := dial(t, f).hello(http2.Setting{ID: http2.SettingInitialWindowSize, Val: 0})
	r.headers(1, true, get())
	if a := r.answer(1); a.reset == 0 {
		t.Errorf("the stream was not reset: %+v", a)
	}
	if err := next(t, result); !errors.Is(err, ErrStalled) {
		t.Errorf("the handler was told %v", err)
	}
	r.conn.Close()
	f.stop()
	left()
}

func TestAClientThatReadsNothingIsNotWaitedFor(t *testing.T) {
	left := baseline(t)
	result := make(chan error, 1)
	f := serve(t, Options{Stall: 200 * time.Millisecond}, endless(result))
	r := dial(t, f).hello(http2.Setting{ID: http2.SettingInitialWindowSize, Val: 1<<31 - 1})
	r.ok(r.fr.WriteWindowUpdate(0, 1<<30))
	r.headers(1, true, get())
	if err := next(t, result); err == nil {
		t.Error("the handler ended without an error")
	}
	next(t, f.stats)
	r.conn.Close()
	f.stop()
	left()
}

func TestWindowsOfOneByteAreAFlood(t *testing.T) {
	result := make(chan error, 1)
	f := serve(t, Options{}, endless(result))
	r := dial(t, f).hello(http2.Setting{ID: http2.SettingInitialWindowSize, Val: 0})
	r.headers(1, true, get())
	go func() {
		for r.fr.WriteWindowUpdate(1, 1) == nil {
		}
	}()
	r.ended()
	if err := next(t, result); err == nil {
		t.Error("the handler ended without an error")
	}
	if s := next(t, f.stats); !s.Flooded {
		t.Errorf("%+v", s)
	}
}

func TestSilenceEnds(t *testing.T) {
	short := time.Second // in which the handshake is over, however busy the machine is
	for _, c := range []struct {
		rule string
		o    Options
		act  func(*raw)
	}{
		{"a connection without a stream", Options{Idle: short}, func(r *raw) { r.hello() }},
		{"a client that answers no ping", Options{Ping: short, Stall: short}, func(r *raw) {
			r.hello()
			r.headers(1, true, get())
		}},
		{"a header block that does not go on", Options{Ping: short, Stall: short}, func(r *raw) {
			r.hello()
			r.headers(1, true, get())
			r.ok(r.fr.WriteHeaders(http2.HeadersFrameParam{StreamID: 3, BlockFragment: r.block(get())}))
		}},
		{"half a frame", Options{Ping: short, Stall: short}, func(r *raw) {
			r.hello()
			_, err := r.conn.Write([]byte{0, 0})
			r.ok(err)
		}},
		{"no settings", Options{}, func(r *raw) {
			_, err := io.WriteString(r.conn, http2.ClientPreface)
			r.ok(err)
		}},
		{"HTTP/1.1 instead of the preface", Options{}, func(r *raw) {
			_, err := io.WriteString(r.conn, "GET / HTTP/1.1\r\nHost: origin.test\r\n\r\n")
			r.ok(err)
		}},
	} {
		t.Run(c.rule, func(t *testing.T) {
			left := baseline(t)
			f := serve(t, c.o, waitForEnd)
			r := dial(t, f)
			c.act(r)
			r.ended()
			next(t, f.stats)
			r.conn.Close()
			f.stop()
			left()
		})
	}
}

// TestAClientThatPausesIsWaitedFor: some read nothing, pings included, while they work on
// what they have read, or are stopped. They have as long as for any answer.
func TestAClientThatPausesIsWaitedFor(t *testing.T) {
	inABubble(t, func(t *testing.T, serve func(Options, Handler) (*front, *raw)) {
		f, r := serve(Options{Idle: time.Hour, Stall: 5 * time.Minute}, hello)
		time.Sleep(5 * time.Minute)
		r.alive(1)
		r.conn.NetConn().Close()
		next(t, f.stats)
	})
}

// inABubble has one connection whose time passes when nobody has anything to do, however
// busy the machine is.
func inABubble(t *testing.T, body func(t *testing.T, serve func(Options, Handler) (*front, *raw))) {
	server := &tls.Config{Certificates: []tls.Certificate{certificate()}, NextProtos: []string{"h2"}, SessionTicketsDisabled: true} // a pipe holds none
	client := &tls.Config{RootCAs: roots(), ServerName: host, NextProtos: []string{"h2"}}
	synctest.Test(t, func(t *testing.T) {
		body(t, func(o Options, handle Handler) (*front, *raw) {
			near, far := net.Pipe()
			t.Cleanup(func() { near.Close() })
			ctx, cancel := context.WithCancel(t.Context())
			stopping, stop := context.WithCancel(ctx)
			f := &front{stats: make(chan Stats, 1), drain: stop, cancel: cancel}
			o.Host, o.Port, o.Stopping = host, 443, stopping.Done()
			go func() {
				conn := tls.Server(near, server)
				if err := conn.Handshake(); err != nil {
					t.Error(err)
				}
				f.stats <- Serve(ctx, conn, o, handle)
			}()
			return f, newRaw(t, tls.Client(far, client)).hello()
		})
	})
}

func TestAStreamOnWhichNothingMovesEnds(t *testing.T) {
	cause := make(chan error, 1)
	f := serve(t, Options{StreamIdle: 100 * time.Millisecond}, func(ctx context.Context, s *Stream) {
		<-ctx.Done()
		cause <- context.Cause(ctx)
	})
	r := dial(t, f).hello()
	r.headers(1, false, get())
	if a := r.answer(1); a.reset == 0 {
		t.Errorf("the stream was not reset: %+v", a)
	}
	if err := next(t, cause); !errors.Is(err, ErrIdle) {
		t.Errorf("the handler was told %v", err)
	}
}

func TestTheEndOfTheContextDrains(t *testing.T) {
	t.Run("a stream that ends", func(t *testing.T) {
		started, release := make(chan struct{}), make(chan struct{})
		f := serve(t, Options{}, func(ctx context.Context, s *Stream) {
			close(started)
			held(t, release)
			hello(ctx, s)
		})
		r := dial(t, f).hello()
		r.headers(1, true, get())
		next(t, started)
		f.drain()
		for {
			g, err := r.fr.ReadFrame()
			r.ok(err)
			if away, ok := g.(*http2.GoAwayFrame); ok {
				if away.ErrCode != http2.ErrCodeNo || away.LastStreamID != 1 {
					t.Errorf("went away with %v", away)
				}
				break
			}
		}
		r.headers(3, true, get()) // too late, and not answered
		close(release)
		if a := r.answer(1); a.status != "200" || a.body != "hello" {
			t.Errorf("%+v", a)
		}
		r.ended()
		if s := next(t, f.stats); s.Handled != 1 {
			t.Errorf("%+v", s)
		}
	})
	t.Run("the first stream, which was on its way", func(t *testing.T) {
		inABubble(t, func(t *testing.T, serve func(Options, Handler) (*front, *raw)) {
			f, r := serve(Options{}, hello)
			f.drain()
			for range 3 { // so that a GOAWAY would have come
				r.ok(r.fr.WritePing(false, [8]byte{}))
				for pinged := false; !pinged; {
					g, err := r.fr.ReadFrame()
					r.ok(err)
					_, pinged = g.(*http2.PingFrame)
				}
			}
			r.headers(1, true, get())
			if a := r.answer(1); a.status != "200" || a.body != "hello" {
				t.Errorf("%+v", a)
			}
			r.ended()
			next(t, f.stats)
		})
	})
	t.Run("no stream", func(t *testing.T) {
		f := serve(t, Options{}, hello)
		r := dial(t, f).hello()
		f.drain()
		r.ended()
		next(t, f.stats)
	})
	t.Run("a stream that does not", func(t *testing.T) {
		inABubble(t, func(t *testing.T, serve func(Options, Handler) (*front, *raw)) {
			started, cause := make(chan struct{}), make(chan error, 1)
			f, r := serve(Options{}, func(ctx context.Context, s *Stream) {
				close(started)
				<-ctx.Done()
				cause <- context.Cause(ctx)
				_ = s.Deny(503, core.ReasonShutdown, "it ends", "id", "over")
			})
			r.headers(1, true, get())
			next(t, started)
			f.cancel()
			if a := r.answer(1); a.status != "503" || a.body != `"over"` || a.reset != 0 {
				t.Errorf("%+v", a)
			}
			r.ended()
			if err := next(t, cause); !errors.Is(err, context.Canceled) {
				t.Errorf("the stream was ended for %v", err)
			}
			next(t, f.stats)
		})
	})
	t.Run("a stream whose answer has begun", func(t *testing.T) {
		inABubble(t, func(t *testing.T, serve func(Options, Handler) (*front, *raw)) {
			begun := make(chan struct{})
			f, r := serve(Options{}, func(ctx context.Context, s *Stream) {
				close(begun)
				resp := response("")
				resp.Body = io.NopCloser(until{ctx})
				_ = s.Respond(ctx, resp)
			})
			r.headers(1, true, get())
			next(t, begun)
			synctest.Wait() // until the head is on its way, and the body is waited for
			f.cancel()
			if a := r.answer(1); a.status != "200" || a.reset == 0 {
				t.Errorf("%+v", a)
			}
			r.ended()
			next(t, f.stats)
		})
	})
}

// TestAWebSocketIsToldOfTheEnd of its stream's context, on the stream.
func TestAWebSocketIsToldOfTheEnd(t *testing.T) {
	inABubble(t, func(t *testing.T, serve func(Options, Handler) (*front, *raw)) {
		f, r := serve(Options{}, func(ctx context.Context, s *Stream) {
			d, err := s.Accept(nil)
			if err != nil {
				t.Error(err)
				return
			}
			<-ctx.Done()
			_, _ = d.Write([]byte("bye"))
		})
		r.open(1)
		f.cancel()
		if a := r.answer(1); a.body != "bye" {
			t.Errorf("%+v", a)
		}
		r.ended()
	})
}

// TestStreamsMayRunUntilTheContextEnds, however long a drain is, and no longer than a
// client may take for what it is told then.
func TestStreamsMayRunUntilTheContextEnds(t *testing.T) {
	const day = 24 * time.Hour
	identity := certificate() // by the clock of other tests
	synctest.Test(t, func(t *testing.T) {
		near, far := net.Pipe() // holds nothing: what is not read is not sent
		defer near.Close()
		ctx, cancel := context.WithCancel(t.Context())
		defer cancel()
		stopping, stop := context.WithCancel(ctx)
		started, release, later, ended := make(chan struct{}), make(chan struct{}), make(chan struct{}), make(chan struct{})
		go func() {
			defer close(ended)
			conn := tls.Server(far, &tls.Config{Certificates: []tls.Certificate{identity}, NextProtos: []string{"h2"}})
			if err := conn.HandshakeContext(ctx); err != nil {
				t.Error(err)
				return
			}
			o := Options{Host: host, Port: 443, Stopping: stopping.Done(), StreamIdle: 9 * day, Stall: 9 * day, Ping: 9 * day}
			Serve(ctx, conn, o, func(ctx context.Context, s *Stream) {
				started <- struct{}{}
				if s.Path == "/" {
					<-release
					hello(ctx, s)
					return
				}
				<-ctx.Done()
				if s.Path == "/later" {
					<-later
				}
				_ = s.Deny(503, core.ReasonShutdown, "it ends", "id", "over")
			})
		}()
		r := newRaw(t, tls.Client(near, &tls.Config{ServerName: host, RootCAs: roots(), NextProtos: []string{"h2"}})).hello()
		for i, path := range []string{"/", "/silent", "/later"} {
			r.headers(uint32(2*i+1), true, instead(get(), ":path", path))
			<-started
		}
		stop()
		time.Sleep(day)
		close(release)
		if a := r.answer(1); a.status != "200" || a.body != "hello" || a.reset != 0 {
			t.Errorf("at the end of a long drain: %+v", a)
		}
		end := time.Now()
		cancel()
		if a := r.answer(3); a.status != "503" || a.body != `"over"` || time.Since(end) != 0 {
			t.Errorf("%s behind its end: %+v", time.Since(end), a)
		}
		close(later)
		<-ended // though the client reads no more
		if took := time.Since(end); took > lastAnswers {
			t.Errorf("the connection ends %s behind that", took)
		}
	})
}
