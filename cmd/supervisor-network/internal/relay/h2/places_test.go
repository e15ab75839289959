package h2

import (
	"context"
	"crypto/tls"
	"errors"
	"io"
	"net"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/splitpod/splitpod/cmd/supervisor-network/internal/decide"
)

// post sends a request with a body, and reads its answer.
func post(ctx context.Context, t testing.TB, p *Pool, right decide.Permit, name string) error {
	r := request(t, "POST", strings.NewReader("body"))
	r.Header.Set("X-Name", name)
	resp, err := p.RoundTrip(ctx, right, r)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	_, err = io.Copy(io.Discard, resp.Body)
	return err
}

// posts begins n of them, which have to be answered, and returns what waits for that.
func posts(t testing.TB, p *Pool, n int) (wait func()) {
	t.Helper()
	right := permit(t, host, 1)
	var all sync.WaitGroup
	for range n {
		all.Go(func() {
			if err := post(t.Context(), t, p, right, ""); err != nil {
				t.Error(err)
			}
		})
	}
	return all.Wait
}

// few is an origin that takes some streams at a time, and answers a GET when held is closed.
func few(t testing.TB, limit int, held <-chan bool) string {
	return httpOrigin(t, func(w http.ResponseWriter, r *http.Request) {
		if r.Method != http.MethodGet {
			_, _ = io.Copy(io.Discard, r.Body)
			ok(w, r)
			return
		}
		w.WriteHeader(http.StatusOK)
		_ = http.NewResponseController(w).Flush()
		select {
		case <-held:
		case <-r.Context().Done():
		}
	}, func(hs *http.Server) { hs.HTTP2 = &http.HTTP2Config{MaxConcurrentStreams: limit} })
}

// changing is an origin that takes so many streams at a time, and other ones when it is told.
// It answers none before as many are there as it ever takes.
func changing(t testing.TB, before, after uint32, told <-chan bool) string {
	return unsettled(t, func(f *frames) {
		streams := f.arrivals()
		var all []uint32
		come := func(n uint32) {
			f.limit(n)
			for uint32(len(all)) < n {
				all = append(all, <-streams)
			}
		}
		come(before)
		<-told
		come(after)
		for _, s := range all {
			f.fields(s, true, ":status", "200")
		}
		for s := range streams {
			f.fields(s, true, ":status", "200")
		}
	})
}

// waits is how many requests wait for a place, and taken how many places are taken.
func waits(p *Pool) (waiting, taken int) {
	p.mu.RLock()
	defer p.mu.RUnlock()
	for _, o := range p.origins {
		o.mu.Lock()
		waiting += len(o.waiting)
		for _, c := range o.conns {
			taken += c.used
		}
		o.mu.Unlock()
	}
	return waiting, taken
}

// untilWaiting waits until n requests do.
func untilWaiting(t *testing.T, p *Pool, n int) {
	t.Helper()
	until(t, strconv.Itoa(n)+" requests wait", func() bool { waiting, _ := waits(p); return waiting == n })
}

// TestManyMoreRequestsThanPlaces: nobody waits where it keeps others from theirs, and
// those that give up leave no trace.
func TestManyMoreRequestsThanPlaces(t *testing.T) {
	p, dialled := pool(t, few(t, 3, nil), Config{MaxConns: 1})
	right := permit(t, host, 1)
	posts(t, p, 1)() // a connection that nobody gives up
	var all sync.WaitGroup
	for i := range 40 {
		all.Go(func() {
			for j := range 50 {
				ctx, cancel := context.WithCancel(t.Context())
				if (i+j)%8 == 0 {
					go cancel()
				}
				err := post(ctx, t, p, right, "")
				if err != nil && ctx.Err() == nil {
					t.Error(err)
				}
				cancel()
			}
		})
	}
	all.Wait()
	if waiting, taken := waits(p); waiting > 0 || taken > 0 || dialled.Load() != 1 {
		t.Errorf("%d wait, %d places are taken, %d connections", waiting, taken, dialled.Load())
	}
}

// TestTheFirstRequestNeedsNoLimit: an origin that says its limit late gets one request, and
// the others when it has said it.
func TestTheFirstRequestNeedsNoLimit(t *testing.T) {
	othersWait := make(chan bool)
	addr := unsettled(t, func(f *frames) {
		streams := f.arrivals()
		first := <-streams
		<-othersWait
		f.limit(2)
		f.fields(first, true, ":status", "200")
		for s := range streams {
			f.fields(s, true, ":status", "200")
		}
	})
	p, dialled := pool(t, addr, Config{MaxConns: 1})
	wait := posts(t, p, 10)
	untilWaiting(t, p, 9)
	close(othersWait)
	wait()
	if n := dialled.Load(); n != 1 {
		t.Errorf("%d connections", n)
	}
}

func TestALimitThatRisesIsUsed(t *testing.T) {
	othersWait := make(chan bool)
	p, _ := pool(t, changing(t, 1, 10, othersWait), Config{MaxConns: 1})
	wait := posts(t, p, 10)
	untilWaiting(t, p, 9)
	close(othersWait)
	wait()
}

// TestALimitThatFallsHoldsNobodyUp: there are fewer places than requests that were given
// one.
func TestALimitThatFallsHoldsNobodyUp(t *testing.T) {
	othersWait := make(chan bool)
	p, _ := pool(t, changing(t, 8, 1, othersWait), Config{MaxConns: 1})
	wait := posts(t, p, 30)
	untilWaiting(t, p, 22)
	close(othersWait)
	wait()
}

// TestAConnectionThatGoesAwayIsNotWaitedFor, though it has an answer to finish.
func TestAConnectionThatGoesAwayIsNotWaitedFor(t *testing.T) {
	otherWaits, otherDone := make(chan bool), make(chan bool)
	old := make(chan bool, 1)
	old <- true
	addr := unsettled(t, func(f *frames) {
		f.limit(1)
		streams := f.arrivals()
		first := <-streams
		select {
		case <-old:
			<-otherWaits
			_ = f.WriteGoAway(first, 0, nil)
			<-otherDone
		default:
			defer close(otherDone)
		}
		f.fields(first, true, ":status", "200")
	})
	p, dialled := pool(t, addr, Config{MaxConns: 1})
	wait := posts(t, p, 2)
	untilWaiting(t, p, 1)
	close(otherWaits)
	wait()
	if n := dialled.Load(); n != 2 {
		t.Errorf("%d connections", n)
	}
}

// TestAConnectionThatBreaksIsNotWaitedFor: what it carried is lost, but not what waits.
func TestAConnectionThatBreaksIsNotWaitedFor(t *testing.T) {
	breaks := make(chan bool)
	old := make(chan bool, 1)
	old <- true
	addr := unsettled(t, func(f *frames) {
		f.limit(1)
		streams := f.arrivals()
		first := <-streams
		select {
		case <-old:
			<-breaks
			f.conn.Close()
			return
		default:
		}
		for s := first; s != 0; s = <-streams {
			f.fields(s, true, ":status", "200")
		}
	})
	p, dialled := pool(t, addr, Config{MaxConns: 1})
	right := permit(t, host, 1)
	var lost atomic.Int32
	var all sync.WaitGroup
	for range 4 {
		all.Go(func() {
			if post(t.Context(), t, p, right, "") != nil {
				lost.Add(1)
			}
		})
	}
	untilWaiting(t, p, 3)
	close(breaks)
	all.Wait()
	if lost.Load() != 1 || dialled.Load() != 2 {
		t.Errorf("%d of 4 are lost, %d connections", lost.Load(), dialled.Load())
	}
}

func TestPlacesGoToWhoCameFirst(t *testing.T) {
	held := make(chan bool)
	var mu sync.Mutex
	var order []string
	addr := httpOrigin(t, func(_ http.ResponseWriter, r *http.Request) {
		mu.Lock()
		order = append(order, r.Header.Get("X-Name"))
		mu.Unlock()
		<-held
	}, func(hs *http.Server) { hs.HTTP2 = &http.HTTP2Config{MaxConcurrentStreams: 1} })
	p, _ := pool(t, addr, Config{MaxConns: 1})
	right := permit(t, host, 1)
	names := []string{"0", "1", "2", "3", "4", "5", "6"}
	var all sync.WaitGroup
	for i, name := range names {
		all.Go(func() {
			if err := post(t.Context(), t, p, right, name); err != nil {
				t.Error(err)
			}
		})
		until(t, "it is there", func() bool { waiting, taken := waits(p); return waiting+taken == i+1 })
	}
	close(held)
	all.Wait()
	if !slices.Equal(order, names) {
		t.Errorf("they came as %q", order)
	}
}

// TestWhoGivesUpTakesNoPlace, also when it is given one at the same moment.
func TestWhoGivesUpTakesNoPlace(t *testing.T) {
	right := permit(t, host, 1)
	for range 100 {
		held := make(chan bool)
		p, _ := pool(t, few(t, 1, held), Config{MaxConns: 1})
		resp, err := p.RoundTrip(t.Context(), right, request(t, "GET", nil))
		if err != nil {
			t.Fatal(err)
		}
		ctx, cancel := context.WithCancel(t.Context())
		var all sync.WaitGroup
		for range 3 {
			all.Go(func() {
				if err := post(ctx, t, p, right, ""); err != nil && !errors.Is(err, context.Canceled) {
					t.Error(err)
				}
			})
		}
		untilWaiting(t, p, 3)
		go cancel()
		close(held)
		resp.Body.Close()
		all.Wait()
		posts(t, p, 1)()
		if waiting, taken := waits(p); waiting > 0 || taken > 0 {
			t.Fatalf("%d wait, %d places are taken", waiting, taken)
		}
		p.Close()
	}
}

// TestAConnectionThatIsNotToBeHad fails only those who have no other one to wait for.
func TestAConnectionThatIsNotToBeHad(t *testing.T) {
	t.Run("and no other", func(t *testing.T) {
		p, _ := pool(t, "", Config{})
		p.cfg.Dial = func(context.Context, decide.Permit) (*tls.Conn, error) {
			untilWaiting(t, p, 3)
			return nil, errUnreachable
		}
		right := permit(t, host, 1)
		var failed atomic.Int32
		var all sync.WaitGroup
		for range 4 {
			all.Go(func() {
				if post(t.Context(), t, p, right, "") == errUnreachable {
					failed.Add(1)
				}
			})
		}
		all.Wait()
		if failed.Load() != 4 || len(p.origins) != 0 {
			t.Errorf("%d of 4 are told, %d destinations are remembered", failed.Load(), len(p.origins))
		}
	})
	t.Run("and one that is full", func(t *testing.T) {
		right := permit(t, host, 1)
		held, refuse := make(chan bool), make(chan bool)
		p, dialled := pool(t, few(t, 1, held), Config{MaxConns: 2})
		dial := p.cfg.Dial
		p.cfg.Dial = func(ctx context.Context, right decide.Permit) (*tls.Conn, error) {
			if dialled.Load() > 0 {
				<-refuse
				return nil, errUnreachable
			}
			return dial(ctx, right)
		}
		resp, err := p.RoundTrip(t.Context(), right, request(t, "GET", nil))
		if err != nil {
			t.Fatal(err)
		}
		defer resp.Body.Close()
		wait := posts(t, p, 4)
		untilWaiting(t, p, 3)
		close(refuse)
		untilWaiting(t, p, 4)
		close(held)
		resp.Body.Close()
		wait()
	})
}

func TestCloseEndsTheWait(t *testing.T) {
	right := permit(t, host, 1)
	p, dialled := pool(t, few(t, 1, nil), Config{MaxConns: 1})
	resp, err := p.RoundTrip(t.Context(), right, request(t, "GET", nil))
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	told := make(chan error)
	go func() { told <- post(t.Context(), t, p, right, "") }()
	untilWaiting(t, p, 1)
	p.Close()
	if err := <-told; !errors.Is(err, ErrClosed) || dialled.Load() != 1 {
		t.Errorf("%v, %d connections", err, dialled.Load())
	}
}

// TestALimitThatIsSaidAtOnce, when nobody knows the connection yet, is known.
func TestALimitThatIsSaidAtOnce(t *testing.T) {
	othersWait, allThere := make(chan bool), make(chan bool)
	var there atomic.Int32
	p, conns := pool(t, httpOrigin(t, func(http.ResponseWriter, *http.Request) {
		if there.Add(1) == 4 {
			close(allThere)
		}
		<-allThere
	}, func(hs *http.Server) { hs.HTTP2 = &http.HTTP2Config{MaxConcurrentStreams: 10} }), Config{})
	p.transport.DialTLSContext = func(ctx context.Context, _, _ string) (net.Conn, error) {
		<-othersWait
		w := ctx.Value(dialled{}).(*wire)
		w.settled.Store(true)
		w.look()
		return w, nil
	}
	wait := posts(t, p, 4)
	untilWaiting(t, p, 3)
	close(othersWait)
	wait()
	if n := conns.Load(); n != 1 {
		t.Errorf("%d connections", n)
	}
}

// TestAConnectionThatBreaksMakesRoomForAnother, when one is left that stays full.
func TestAConnectionThatBreaksMakesRoomForAnother(t *testing.T) {
	breaks, done := make(chan bool), make(chan bool)
	var conns atomic.Int32
	addr := unsettled(t, func(f *frames) {
		f.limit(1)
		n := conns.Add(1)
		first := f.head()
		switch n {
		case 1:
			<-breaks
			f.conn.Close()
			return
		case 2:
			<-done
		}
		f.fields(first, true, ":status", "200")
	})
	p, _ := pool(t, addr, Config{MaxConns: 2})
	right := permit(t, host, 1)
	lost := make(chan error)
	go func() { lost <- post(t.Context(), t, p, right, "") }()
	until(t, "one is opened", func() bool { return conns.Load() == 1 })
	waitSecond := posts(t, p, 1)
	until(t, "another is opened", func() bool { return conns.Load() == 2 })
	waitThird := posts(t, p, 1)
	untilWaiting(t, p, 1)
	close(breaks)
	if <-lost == nil {
		t.Error("a connection that broke has answered")
	}
	waitThird()
	close(done)
	waitSecond()
}

// TestAConnectionThatIsWaitedForIsKept, also when there are many.
func TestAConnectionThatIsWaitedForIsKept(t *testing.T) {
	held := make(chan bool)
	p, dialled := pool(t, few(t, 1, held), Config{MaxConns: 2})
	right := permit(t, host, 1)
	var full []*http.Response
	for range 2 {
		resp, err := p.RoundTrip(t.Context(), right, request(t, "GET", nil))
		if err != nil {
			t.Fatal(err)
		}
		defer resp.Body.Close()
		full = append(full, resp)
	}
	p.conns.Add(maxKept) // to others
	wait := posts(t, p, 1)
	untilWaiting(t, p, 1)
	full[0].Body.Close()
	wait()
	if n := dialled.Load(); n != 2 {
		t.Errorf("%d connections", n)
	}
}

// TestAnUnusedConnectionThatGoesAwayIsClosed: with others of its kind it would take the
// place of those that are of use.
func TestAnUnusedConnectionThatGoesAwayIsClosed(t *testing.T) {
	for name, early := range map[string]bool{"when it is unused": false, "when its last answer is read still": true} {
		t.Run(name, func(t *testing.T) {
			goAway, ended := make(chan bool), make(chan bool)
			addr := scripted(t, func(f *frames) {
				defer close(ended)
				s := f.head()
				f.fields(s, false, ":status", "200")
				_ = f.WriteData(s, true, []byte("body"))
				<-goAway
				_ = f.WriteGoAway(s, 0, nil)
				f.head() // or the end
			})
			p, _ := pool(t, addr, Config{})
			right := permit(t, host, 1)
			resp, err := p.RoundTrip(t.Context(), right, request(t, "GET", nil))
			if err != nil {
				t.Fatal(err)
			}
			o, err := p.origin(keyOf(right))
			if err != nil {
				t.Fatal(err)
			}
			c := o.conns[0]
			until(t, "its stream has ended", func() bool { return c.InFlight() == 0 })
			if early {
				close(goAway)
				until(t, "it goes away", c.wire.leaving.Load)
			}
			resp.Body.Close()
			if !early {
				close(goAway)
			}
			<-ended
			until(t, "it is forgotten", func() bool { p.mu.RLock(); defer p.mu.RUnlock(); return len(p.origins) == 0 })
		})
	}
}

// TestSettingsThatComeInPieces are known when the last one has come, whatever came of the
// frame behind it.
func TestSettingsThatComeInPieces(t *testing.T) {
	settings := []byte{0, 0, 6, 4, 0, 0, 0, 0, 0, 0, 3, 0, 0, 0, 2}
	behind := []byte{0, 0, 4, 0xfa, 0, 0, 0, 0, 0} // and four bytes
	for _, piece := range []int{1, 8, 9, 10, 14} {
		t.Run(strconv.Itoa(piece), func(t *testing.T) {
			othersWait := make(chan bool)
			var most atomic.Int32
			addr := unsettled(t, func(f *frames) {
				_, _ = f.conn.Write(settings[:piece])
				streams := f.arrivals()
				all := []uint32{<-streams}
				<-othersWait
				_, _ = f.conn.Write(append(settings[piece:len(settings):len(settings)], behind...))
				all = append(all, <-streams)
				_, _ = f.conn.Write(make([]byte, 4))
				for range 4 {
					most.Store(max(most.Load(), int32(len(all)+len(streams))))
					f.fields(all[0], true, ":status", "200")
					all = append(all[1:], <-streams)
				}
				for _, s := range all {
					f.fields(s, true, ":status", "200")
				}
			})
			p, _ := pool(t, addr, Config{MaxConns: 1})
			wait := posts(t, p, 6)
			untilWaiting(t, p, 5)
			close(othersWait)
			wait()
			if n := most.Load(); n > 2 {
				t.Errorf("%d came at a time", n)
			}
		})
	}
}
