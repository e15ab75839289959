package h2

import (
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/net/http2"

	"github.com/splitpod/splitpod/cmd/supervisor-network/internal/decide"
)

// budget is a Budget that knows how much was held at most.
type budget struct {
	limit               int64
	held, most, refused atomic.Int64
}

func (b *budget) Take(n int64) bool {
	held := b.held.Add(n)
	if held > b.limit {
		b.held.Add(-n)
		b.refused.Add(1)
		return false
	}
	for most := b.most.Load(); held > most && !b.most.CompareAndSwap(most, held); most = b.most.Load() {
	}
	return true
}

func (b *budget) Give(n int64) { b.held.Add(-n) }

// until waits for what happens beside the test.
func until(t *testing.T, what string, ok func() bool) {
	t.Helper()
	tick := time.NewTicker(time.Millisecond)
	defer tick.Stop()
	for end := time.Now().Add(time.Minute); !ok(); <-tick.C {
		if time.Now().After(end) {
			t.Fatalf("%s: not in time", what)
		}
	}
}

// sized answers with as many bytes as the request asks for.
func sized(w http.ResponseWriter, r *http.Request) {
	n := 0
	_, _ = fmt.Sscan(r.Header.Get("X-Size"), &n)
	w.WriteHeader(http.StatusOK)
	_ = http.NewResponseController(w).Flush()
	for piece := make([]byte, 8<<10); n > 0; n -= len(piece) {
		if _, err := w.Write(piece[:min(n, len(piece))]); err != nil {
			return
		}
	}
}

// begin asks for an answer of n bytes and reads nothing of it.
func begin(t *testing.T, p *Pool, right decide.Permit, n int) io.ReadCloser {
	t.Helper()
	r := request(t, "GET", nil)
	r.Header.Set("X-Size", fmt.Sprint(n))
	resp, err := p.RoundTrip(t.Context(), right, r)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { resp.Body.Close() })
	return resp.Body
}

// TestWhatIsUnreadIsCounted to the byte, but for what net/http returns late, and given
// back as it is read or closed, and when nobody waits for it any more.
func TestWhatIsUnreadIsCounted(t *testing.T) {
	const size = 100 << 10
	b := &budget{limit: 1 << 30}
	p, _ := pool(t, httpOrigin(t, sized, nil), Config{Unread: b})
	right := permit(t, host, 1)
	held := func(n int64) func() bool { return func() bool { return b.held.Load() == n } }
	var answers []io.ReadCloser
	for i := range int64(3) {
		answers = append(answers, begin(t, p, right, size))
		until(t, "it is here", held((i+1)*size-unreturned))
	}
	if n, err := io.Copy(io.Discard, answers[0]); n != size || err != nil {
		t.Errorf("%d bytes, %v", n, err)
	}
	if n := b.held.Load(); n > 2*size || n < 2*size-unreturned {
		t.Errorf("%d bytes are held behind one that was read", n)
	}
	answers[1].Close()
	until(t, "one that is closed is gone", func() bool { n := b.held.Load(); return n <= size && n >= size-unreturned })
	answers[0].Close()
	answers[2].Close()
	if n := b.held.Load(); n != 0 {
		t.Errorf("%d bytes are held for nobody", n)
	}
}

// TestWhatAnEndedConnectionLeftIsCounted until it is read.
func TestWhatAnEndedConnectionLeftIsCounted(t *testing.T) {
	const size = 100 << 10
	b := &budget{limit: 1 << 30}
	conns := make(chan net.Conn, 1)
	p, _ := pool(t, httpOrigin(t, sized, func(hs *http.Server) {
		hs.ConnState = func(c net.Conn, s http.ConnState) {
			if s == http.StateNew {
				conns <- c
			}
		}
	}), Config{Unread: b})
	one, other := begin(t, p, permit(t, host, 1), size), begin(t, p, permit(t, host, 1), size)
	until(t, "both are here", func() bool { return b.held.Load() == 2*size-unreturned })
	(<-conns).Close()
	<-one.(*answer).conn.wire.ended
	if n := b.held.Load(); n != 2*size-unreturned {
		t.Errorf("%d bytes are held", n)
	}
	if n, err := io.Copy(io.Discard, one); n != size || err != nil {
		t.Errorf("%d bytes, %v", n, err)
	}
	one.Close()
	if n := b.held.Load(); n != size-unreturned {
		t.Errorf("%d bytes are held for the other", n)
	}
	if other.Close(); b.held.Load() != 0 {
		t.Errorf("%d bytes are held for nobody", b.held.Load())
	}
}

// TestUnreadAnswersHaveOneLimit: at it nobody is ended, and above it the one of which
// nothing was read for the longest time, so that others go on.
func TestUnreadAnswersHaveOneLimit(t *testing.T) {
	const size = 100 << 10
	b := &budget{limit: 3*size - unreturned}
	p, _ := pool(t, httpOrigin(t, sized, nil), Config{Unread: b, Patience: time.Millisecond})
	right := permit(t, host, 1)
	var answers []io.ReadCloser
	for i := range int64(3) {
		answers = append(answers, begin(t, p, right, size))
		until(t, "it is here", func() bool { return b.held.Load() == (i+1)*size-unreturned })
	}
	if b.refused.Load() != 0 {
		t.Fatal("there was no room for three")
	}
	var one [1]byte
	if _, err := answers[0].Read(one[:]); err != nil {
		t.Fatal(err) // of the second nothing was read for longer now
	}
	last := begin(t, p, right, 1)
	if n, err := io.Copy(io.Discard, last); n != 1 || err != nil {
		t.Errorf("one byte more: %d, %v", n, err)
	}
	if _, err := io.Copy(io.Discard, answers[1]); !errors.Is(err, ErrUnread) {
		t.Errorf("what was unread longest: %v", err)
	}
	for i, want := range map[int]int64{0: size - 1, 2: size} {
		if n, err := io.Copy(io.Discard, answers[i]); n != want || err != nil {
			t.Errorf("number %d: %d bytes, %v", i+1, n, err)
		}
	}
	if b.most.Load() > b.limit || b.refused.Load() == 0 {
		t.Errorf("%d bytes were held, refused %d times", b.most.Load(), b.refused.Load())
	}
}

// TestWhoReadsIsNotEnded, however little room there is: its origin waits.
func TestWhoReadsIsNotEnded(t *testing.T) {
	const size = 2 << 20
	b := &budget{limit: 32 << 10}
	p, _ := pool(t, httpOrigin(t, sized, nil), Config{Unread: b, Patience: time.Minute})
	right := permit(t, host, 1)
	var all sync.WaitGroup
	for range 8 {
		all.Go(func() {
			body := begin(t, p, right, size)
			if n, err := io.Copy(io.Discard, body); n != size || err != nil {
				t.Errorf("%d bytes, %v", n, err)
			}
			body.Close()
		})
	}
	all.Wait()
	if b.most.Load() > b.limit || b.most.Load() == 0 || b.held.Load() != 0 {
		t.Errorf("%d bytes were held at most, %d are now", b.most.Load(), b.held.Load())
	}
}

// TestWhoWaitsForMoreIsNotEnded, however long, while another is that does not read.
func TestWhoWaitsForMoreIsNotEnded(t *testing.T) {
	more := make(chan bool)
	b := &budget{limit: 64 << 10}
	p, _ := pool(t, httpOrigin(t, func(w http.ResponseWriter, r *http.Request) {
		if r.Header.Get("X-Size") == "1" {
			w.WriteHeader(http.StatusOK)
			_ = http.NewResponseController(w).Flush()
			<-more
		}
		sized(w, r)
	}, nil), Config{Unread: b, Patience: time.Millisecond})
	right := permit(t, host, 1)
	waits, result := begin(t, p, right, 1), make(chan error, 1)
	go func() {
		_, err := io.Copy(io.Discard, waits)
		result <- err
	}()
	until(t, "it is read", func() bool { return waits.(*answer).since.Load() == reading })
	unread := begin(t, p, right, 1<<20)
	until(t, "the other is ended", unread.(*answer).ended.Load)
	close(more)
	if err := <-result; err != nil {
		t.Error(err)
	}
}

// TestWhatBelongsToNoAnswerIsNotHeld: DATA in the answer to HEAD, which net/http drops
// without giving it back.
func TestWhatBelongsToNoAnswerIsNotHeld(t *testing.T) {
	b := &budget{limit: 1 << 30}
	sent := make(chan bool)
	p, _ := pool(t, scripted(t, func(f *frames) {
		stream := f.head()
		f.fields(stream, false, ":status", "200")
		_ = f.WriteData(stream, false, make([]byte, 16<<10))
		close(sent)
	}), Config{Unread: b})
	resp, err := p.RoundTrip(t.Context(), permit(t, host, 1), request(t, "HEAD", nil))
	if err != nil {
		t.Fatal(err)
	}
	<-sent
	until(t, "it has come", func() bool { return b.most.Load() == 16<<10-unreturned })
	resp.Body.Close()
	until(t, "it is dropped", func() bool { return b.held.Load() == 0 })
}

// TestAnOriginKeepsToItsWindow, or the connection ends, whoever counts besides.
func TestAnOriginKeepsToItsWindow(t *testing.T) {
	w := newWire(nil, New(Config{}))
	w.enter()
	if err := w.receive(connectionWindow + 1<<16 - 1); err != nil {
		t.Errorf("all that it may send: %v", err)
	}
	if err := w.receive(2); !errors.Is(err, errOverrun) {
		t.Errorf("more: %v", err)
	}
}

// TestFramesAreFoundHoweverTheyAreCut.
func TestFramesAreFoundHoweverTheyAreCut(t *testing.T) {
	var b sink
	fr := http2.NewFramer(&b, nil)
	fr.AllowIllegalWrites = true
	_ = fr.WriteSettings(http2.Setting{ID: http2.SettingEnablePush})
	_ = fr.WriteWindowUpdate(0, 70000)
	_ = fr.WriteData(5, false, []byte("some"))
	_ = fr.WriteData(5, true, nil)
	_ = fr.WriteRawFrame(http2.FrameWindowUpdate, 0, 0, []byte("short"))
	_ = fr.WriteWindowUpdate(7, 1)
	want := []string{"4 0 6", "8 0 4 +70000", "0 5 4", "0 5 0", "8 0 5", "8 7 4 +1"}
	for cut := range b {
		for second := cut; second <= len(b); second++ {
			var f walker
			var got []string
			for _, part := range [][]byte{b[:cut], b[cut:second], b[second:]} {
				for seen := false; len(part) > 0; {
					if part, seen = f.next(part); seen {
						s := fmt.Sprint(f.kind(), f.stream(), f.length())
						if f.kind() == typeWindowUpdate && f.length() == incrementSize {
							s += fmt.Sprintf(" +%d", f.increment())
						}
						got = append(got, s)
					}
				}
			}
			if !slices.Equal(got, want) {
				t.Fatalf("cut at %d and %d: %q", cut, second, got)
			}
		}
	}
}

type sink []byte

func (s *sink) Write(p []byte) (int, error) {
	*s = append(*s, p...)
	return len(p), nil
}

// TestUnusedConnectionsAreKeptUpToALimit, to all destinations together.
func TestUnusedConnectionsAreKeptUpToALimit(t *testing.T) {
	p, dialled := pool(t, httpOrigin(t, ok, nil), Config{})
	right := permit(t, host, 1)
	p.conns.Store(maxKept - 1) // to others
	get(t, p, right)
	get(t, p, right)
	if n := dialled.Load(); n != 1 || p.conns.Load() != maxKept {
		t.Errorf("the last that is kept: %d were opened, of %d", n, p.conns.Load())
	}
	p.conns.Add(1)
	get(t, p, right)
	until(t, "one above is closed", func() bool { return p.conns.Load() == maxKept })
	get(t, p, right)
	if n := dialled.Load(); n != 2 {
		t.Errorf("%d were opened", n)
	}
}

// TestARequestKeepsItsScheme, although net/http is told that the connection is not TLS.
func TestARequestKeepsItsScheme(t *testing.T) {
	schemes := make(chan string, 1)
	p, _ := pool(t, scripted(t, func(f *frames) {
		for {
			fr, err := f.ReadFrame()
			if err != nil {
				return
			}
			if h, ok := fr.(*http2.MetaHeadersFrame); ok {
				schemes <- h.PseudoValue("scheme")
				f.fields(h.StreamID, true, ":status", "204")
			}
		}
	}), Config{})
	resp, err := p.RoundTrip(t.Context(), permit(t, host, 1), request(t, "GET", nil))
	if err != nil {
		t.Fatal(err)
	}
	resp.Body.Close()
	if s := <-schemes; s != "https" {
		t.Errorf("%q", s)
	}
}

// TestWhatComesAfterTheEndIsNotHeld: who reads the connection had it in hand when that
// was closed, and nobody is left to give it back.
func TestWhatComesAfterTheEndIsNotHeld(t *testing.T) {
	b := &budget{limit: 1 << 30}
	c, _ := net.Pipe()
	w := newWire(tls.Client(c, &tls.Config{}), New(Config{Unread: b}))
	_ = w.Close()
	if err := w.receive(16 << 10); !errors.Is(err, net.ErrClosed) || b.held.Load() != 0 {
		t.Errorf("%d bytes are held, %v", b.held.Load(), err)
	}
}
