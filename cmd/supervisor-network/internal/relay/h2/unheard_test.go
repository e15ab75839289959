package h2

import (
	"context"
	"crypto/tls"
	"net"
	"sync"
	"testing"

	"github.com/splitpod/splitpod/cmd/supervisor-network/internal/decide"
)

// Places that net/http has, and does not tell of.

// gated is a connection whose writes wait while the gate is held.
type gated struct {
	net.Conn
	gate *sync.Mutex
}

func (g gated) Write(p []byte) (int, error) {
	g.gate.Lock()
	defer g.gate.Unlock()
	return g.Conn.Write(p)
}

// gatedPool is a pool of one connection, and the gate before that one's writes.
func gatedPool(t testing.TB, addr string) (*Pool, *sync.Mutex) {
	t.Helper()
	gate := new(sync.Mutex)
	p, _ := pool(t, addr, Config{MaxConns: 1, Dial: func(ctx context.Context, p decide.Permit) (*tls.Conn, error) {
		c, err := new(net.Dialer).DialContext(ctx, "tcp", addr)
		if err != nil {
			return nil, err
		}
		tc := tls.Client(gated{c, gate}, &tls.Config{ServerName: p.Host(), RootCAs: roots(), NextProtos: []string{"h2"}})
		return tc, tc.HandshakeContext(ctx)
	}})
	return p, gate
}

// TestAStreamThatEndsAfterItsPlaceIsGivenBack: its reset is still to be written when nobody
// waits for it any more, and another one began meanwhile that is not answered.
func TestAStreamThatEndsAfterItsPlaceIsGivenBack(t *testing.T) {
	secondThere, done := make(chan bool), make(chan bool)
	addr := unsettled(t, func(f *frames) {
		f.limit(2)
		streams := f.arrivals()
		f.fields(<-streams, false, ":status", "200")
		second := <-streams
		close(secondThere)
		f.fields(<-streams, true, ":status", "200")
		<-done
		f.fields(second, true, ":status", "200")
	})
	p, gate := gatedPool(t, addr)
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	resp, err := p.RoundTrip(ctx, permit(t, host, 1), request(t, "GET", nil))
	if err != nil {
		t.Fatal(err)
	}
	waitSecond := posts(t, p, 1)
	<-secondThere
	waitThird := posts(t, p, 1)
	untilWaiting(t, p, 1)
	gate.Lock()
	cancel()
	resp.Body.Close()
	if waiting, taken := waits(p); waiting != 1 || taken != 1 {
		t.Errorf("%d wait, %d places are taken", waiting, taken)
	}
	gate.Unlock()
	waitThird()
	close(done)
	waitSecond()
}

// TestALimitThatRisesALittleIsUsed, also when fewer places become free than there once were.
func TestALimitThatRisesALittleIsUsed(t *testing.T) {
	othersWait := make(chan bool)
	p, _ := pool(t, changing(t, 5, 8, othersWait), Config{MaxConns: 1})
	wait := posts(t, p, 8)
	untilWaiting(t, p, 3)
	close(othersWait)
	wait()
}

// TestALimitOfZeroIsForAWhile, also for the first request of a connection, which waits in
// net/http if the limit is known before it begins.
func TestALimitOfZeroIsForAWhile(t *testing.T) {
	rise := make(chan bool)
	addr := unsettled(t, func(f *frames) {
		f.limit(0)
		<-rise
		f.limit(2)
		for s := range f.arrivals() {
			f.fields(s, true, ":status", "200")
		}
	})
	p, _ := pool(t, addr, Config{MaxConns: 1})
	p.transport.DialTLSContext = func(ctx context.Context, _, _ string) (net.Conn, error) {
		w := ctx.Value(dialled{}).(*wire)
		o, err := p.origin(keyOf(permit(t, host, 1)))
		o.mu.Lock()
		go func() {
			defer o.mu.Unlock()
			until(t, "the limit is known", w.settled.Load)
		}()
		return w, err
	}
	wait := posts(t, p, 3)
	until(t, "one has its place", func() bool { _, taken := waits(p); return taken == 1 })
	untilWaiting(t, p, 2)
	close(rise)
	wait()
}

// TestAConnectionThatBrokeUnusedTakesNothing: net/http says it would take one request, which
// fails, while it is being closed.
func TestAConnectionThatBrokeUnusedTakesNothing(t *testing.T) {
	for range 20 { // half of the requests that have ended count as the first
		breaks := make(chan bool)
		first := make(chan bool, 1)
		first <- true
		addr := scripted(t, func(f *frames) {
			select {
			case <-first:
				<-breaks
				f.conn.Close()
			default:
				f.fields(f.head(), true, ":status", "200")
			}
		})
		p, gate := gatedPool(t, addr)
		ctx, cancel := context.WithCancel(t.Context())
		dial := p.cfg.Dial
		p.cfg.Dial = func(ctx context.Context, right decide.Permit) (*tls.Conn, error) {
			defer cancel()
			return dial(ctx, right)
		}
		if err := post(ctx, t, p, permit(t, host, 1), ""); err == nil {
			t.Fatal("a request that has ended is answered")
		}
		o, err := p.origin(keyOf(permit(t, host, 1)))
		if err != nil {
			t.Fatal(err)
		}
		c := o.conns[0]
		until(t, "it is settled", c.wire.settled.Load)
		gate.Lock()
		close(breaks)
		until(t, "it broke", func() bool { return c.Err() != nil })
		told := make(chan error, 1)
		go func() { told <- post(t.Context(), t, p, permit(t, host, 1), "") }()
		until(t, "the next one waits, or opens another connection if that one is gone already", func() bool {
			o, err := p.origin(o.key) // the destination is forgotten with its last connection
			if err != nil {
				t.Fatal(err)
			}
			o.mu.Lock()
			defer o.mu.Unlock()
			return len(o.waiting) == 1 || o.dialling || len(told) == 1
		})
		gate.Unlock()
		if err := <-told; err != nil {
			t.Fatal(err)
		}
	}
}
