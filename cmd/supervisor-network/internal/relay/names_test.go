package relay

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"github.com/splitpod/splitpod/cmd/supervisor-network/internal/relay/address"
	"github.com/splitpod/splitpod/pkg/core"
)

// TestALongAnswerIsNotRemembered: a thousand of them would be hundreds of megabytes, which
// who may choose names and answer for them could ask for.
func TestALongAnswerIsNotRemembered(t *testing.T) {
	for addresses, asked := range map[int]int64{maxKnown: 1, maxKnown + 1: 2} {
		a := &answers{lists: [][]string{slices.Repeat([]string{"1.0.0.1"}, addresses)}}
		a.lists = append(a.lists, a.lists[0])
		n := newNames(a)
		for range 2 {
			if got, err := n.lookup(t.Context(), "a.test", time.Second); err != nil || len(got) != addresses {
				t.Errorf("%d addresses, %v; want %d", len(got), err, addresses)
			}
		}
		if got := a.asked.Load(); int64(got) != asked {
			t.Errorf("%d addresses: asked %d times, want %d", addresses, got, asked)
		}
	}
}

func TestAddressesAreUsedAgainForAMomentOnly(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a := &answers{lists: [][]string{{"::ffff:1.0.0.1"}, {"1.0.0.2"}, {}, {"1.0.0.3"}}}
		n := newNames(a)
		ask := func(host, want string) {
			t.Helper()
			got, err := n.lookup(t.Context(), host, time.Second)
			if err != nil || fmt.Sprint(got) != want {
				t.Errorf("%v, %v; want %s", got, err, want)
			}
		}
		ask("a.test", "[1.0.0.1]")
		time.Sleep(namesLast - time.Nanosecond)
		ask("a.test", "[1.0.0.1]")
		time.Sleep(time.Nanosecond)
		ask("a.test", "[1.0.0.2]")
		n.forget("a.test")
		ask("a.test", "[]") // and nothing is remembered of that
		ask("a.test", "[1.0.0.3]")
		if asked := a.asked.Load(); asked != 4 {
			t.Errorf("asked %d times", asked)
		}
	})
}

func TestOnlySoManyNamesAreRemembered(t *testing.T) {
	n := newNames(&answers{lists: [][]string{{"1.0.0.1"}}})
	for i := range 3*maxNames + 1 {
		if _, err := n.lookup(t.Context(), fmt.Sprintf("h%d.test", i), time.Minute); err != nil {
			t.Fatal(err)
		}
		if len(n.known) > maxNames {
			t.Fatalf("%d names", len(n.known))
		}
	}
	if len(n.known) != 1 {
		t.Errorf("%d names are left", len(n.known))
	}
}

// A name whose remembered address is dead is asked for again by the next connection.
func TestANameThatCouldNotBeReachedIsAskedForAgain(t *testing.T) {
	l, port := listenOn(t, "127.0.2.1:0")
	d, a := testDialer(Config{}, []string{"127.0.2.2"}, []string{"127.0.2.1"})
	d.names.last = time.Hour // longer than a busy machine takes
	d.restarts.time = 0      // one attempt each
	to := destination{host: "h.test", port: port}
	_, err := d.dial(t.Context(), to)
	wantReason(t, err, core.ReasonUpstreamUnreachable)
	for range 3 {
		c, err := d.dial(t.Context(), to)
		if err != nil {
			t.Fatal(err)
		}
		c.Close()
	}
	l.Close()
	_, err = d.dial(t.Context(), to)
	wantReason(t, err, core.ReasonUpstreamUnreachable)
	if asked := a.asked.Load(); asked != 2 {
		t.Errorf("asked %d times", asked)
	}
}

// What is remembered is judged by each connection's own permit.
func TestARememberedAddressIsJudgedAgain(t *testing.T) {
	_, port := listenOn(t, "127.0.2.3:0")
	d, a := testDialer(Config{}, []string{"127.0.2.3"})
	d.names.last = time.Hour // longer than a busy machine takes
	c, err := d.dial(t.Context(), destination{host: "h.test", port: port})
	if err != nil {
		t.Fatal(err)
	}
	c.Close()
	d.classify = func(netip.Addr) (address.Class, string) { return address.Blocked, "now it is" }
	_, err = d.dial(t.Context(), destination{host: "h.test", port: port})
	wantReason(t, err, core.ReasonSSRFDenied)
	if asked := a.asked.Load(); asked != 1 {
		t.Errorf("asked %d times", asked)
	}
}

func TestADialEndsWithItsContext(t *testing.T) {
	port := deafPort(t, "127.0.2.4")
	d, _ := testDialer(Config{}, []string{"127.0.2.4"})
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error)
	go func() {
		_, err := d.dial(ctx, destination{host: "h.test", port: port})
		done <- err
	}()
	cancel()
	if err := <-done; !errors.Is(err, context.Canceled) {
		t.Errorf("got %v", err)
	}
}

// slow answers after a while.
type slow time.Duration

func (s slow) LookupNetIP(ctx context.Context, _, _ string) ([]netip.Addr, error) {
	select {
	case <-ctx.Done():
		return nil, ctx.Err()
	case <-time.After(time.Duration(s)):
		return []netip.Addr{netip.MustParseAddr("1.0.0.1")}, nil
	}
}

// TestALostDatagramIsAskedAgain: the resolver waits five seconds for each, and asks twice.
func TestALostDatagramIsAskedAgain(t *testing.T) {
	for took, want := range map[time.Duration]core.Reason{
		5*time.Second + time.Millisecond:  "",
		10*time.Second + time.Millisecond: "",
		20*time.Second + time.Millisecond: core.ReasonUpstreamTimeout,
	} {
		synctest.Test(t, func(t *testing.T) {
			_, err := New(Config{Resolver: slow(took)}).resolve(t.Context(), destination{host: "a.test"})
			var why *Error
			if errors.As(err, &why); want == "" && err != nil || want != "" && (why == nil || why.Reason != want) {
				t.Errorf("after %s: %v", took, err)
			}
		})
	}
}
