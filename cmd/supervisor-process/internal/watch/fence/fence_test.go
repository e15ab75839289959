package fence

import (
	"context"
	"errors"
	"io"
	"log/slog"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/splitpod/splitpod/cmd/supervisor-process/internal/watch/nflog"
	"github.com/splitpod/splitpod/pkg/core"
	"github.com/splitpod/splitpod/test/jump"
)

func TestARefusalSaysWhatWouldWork(t *testing.T) {
	for name, tt := range map[string]struct {
		proto string
		port  uint16
		want  string
	}{
		"a resolver": {"udp", 53, "resolved by the proxy"}, "a resolver over TCP": {"tcp", 53, "resolved by the proxy"},
		"TCP": {"tcp", 443, "NODE_USE_ENV_PROXY"}, "a database": {"tcp", 6379, "relay (policy-cookbook.md)"}, "QUIC": {"udp", 443, "QUIC"}, "another protocol": {"sctp", 53, "only TCP"}, "ping": {"icmp", 0, "only TCP"},
	} {
		if got := hint(tt.proto, tt.port); !strings.Contains(got, tt.want) || !strings.Contains(got, "prox") {
			t.Errorf("%s: %q does not say %q", name, got, tt.want)
		}
	}
}

// TestAnAnswerIsNotCalledADirectConnection: nobody connected, so that no proxy would help.
func TestAnAnswerIsNotCalledADirectConnection(t *testing.T) {
	if got := detail(nflog.Packet{Proto: "tcp", Reply: true}); !strings.Contains(got, "an answer") || strings.Contains(got, "prox") {
		t.Errorf("got %q", got)
	}
	if got := detail(nflog.Packet{Proto: "tcp"}); !strings.Contains(got, "direct connection") {
		t.Errorf("got %q", got)
	}
}

// TestADamagedFenceEndsTheSandboxWhoeverReadsTheLog, or does not.
func TestADamagedFenceEndsTheSandboxWhoeverReadsTheLog(t *testing.T) {
	unread, log := io.Pipe()
	defer unread.Close()
	killed := make(chan struct{})
	w := &Watch{Report: func(core.Event) {}, Kill: func() { close(killed) }, Logger: slog.New(slog.NewTextHandler(log, nil))}
	go w.judge("a rule is gone")
	select {
	case <-killed:
	case <-time.After(time.Minute):
		t.Error("the sandbox goes on")
	}
}

// Readiness says that the fence was compared lately, whatever somebody does to the clock.
func TestAFenceThatNobodyComparesIsNotFresh(t *testing.T) {
	var f Watch
	now := time.Now()
	if f.Fresh(now) {
		t.Error("it is fresh before the first comparison")
	}
	f.verified.Store(&now)
	for _, c := range []struct {
		name        string
		passed, set time.Duration
		want        bool
	}{
		{"just compared", 0, 0, true},
		{"at the limit", 10*interval - time.Nanosecond, 0, true},
		{"beyond it", 10 * interval, 0, false},
		{"beyond it, and the clock set back", 10 * interval, -5 * time.Hour, false},
		{"just compared, and the clock set forward", interval, 5 * time.Hour, true},
	} {
		if got := f.Fresh(jump.By(now.Add(c.passed), c.set)); got != c.want {
			t.Errorf("%s: fresh is %v", c.name, got)
		}
	}
	f.damaged.Store(true)
	if f.Fresh(now) {
		t.Error("it is fresh although it is damaged")
	}
}

// TestWhatFailsIsTriedAgain: the fence's log, whose reader must not stop at one error,
// because it ends the connections that the fence holds.
func TestWhatFailsIsTriedAgain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithCancel(t.Context())
		began, tries := time.Now(), 0
		again(ctx, time.Second, func() error {
			if tries++; tries < 4 {
				return errors.New("no memory")
			}
			cancel()
			return nil
		})
		if waited := time.Since(began); tries != 4 || waited != 3*time.Second {
			t.Errorf("%d tries within %s", tries, waited)
		}
		again(ctx, time.Second, func() error { t.Error("tried after the end"); return nil })
	})
}

// TestEveryRefusalIsReportedOnce: by the log, which has details, or by the counters.
func TestEveryRefusalIsReportedOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var state State
		var reported []core.Event
		kills := 0
		w := Watch{
			Query:  func(context.Context) (State, error) { return state, nil },
			Report: func(ev core.Event) { reported = append(reported, ev) },
			Kill:   func() { kills++ }, Logger: slog.New(slog.DiscardHandler),
		}
		check := func(step string, counts ...uint64) {
			t.Helper()
			reported = nil
			w.check(t.Context())
			var got []uint64
			for _, ev := range reported {
				got = append(got, ev.Count)
			}
			if !slices.Equal(got, counts) {
				t.Errorf("%s: %d were reported, want %d", step, got, counts)
			}
		}
		check("nothing")
		w.refused(nflog.Packet{Proto: "udp"}, nil)
		state.Refused = map[string]uint64{"udp": 1}
		check("one, by the log")
		state.Refused = map[string]uint64{"udp": 4, "tcp": 2}
		check("five more than the log has", 5)
		check("the same")
		w.refused(nflog.Packet{Proto: "udp"}, nil)
		state.Refused["udp"] += 3
		check("of three the log has one", 2)
		if !w.Fresh(time.Now()) || w.Damaged() || kills > 0 {
			t.Errorf("fresh %v, damaged %v, ended %d times", w.Fresh(time.Now()), w.Damaged(), kills)
		}
		state.Damage = "a rule is gone"
		check("damage, a finding", 0)
		check("the same damage")
		if w.Fresh(time.Now()) || !w.Damaged() || kills != 1 {
			t.Errorf("fresh %v, damaged %v, ended %d times", w.Fresh(time.Now()), w.Damaged(), kills)
		}
	})
}
