package app

import (
	"context"
	"errors"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/splitpod/splitpod/cmd/supervisor-process/internal/watch/nflog"
	"github.com/splitpod/splitpod/test/jump"
)

func TestARefusalSaysWhatWouldWork(t *testing.T) {
	for name, tt := range map[string]struct {
		proto string
		port  uint16
		want  string
	}{
		"a resolver": {"udp", 53, "resolved by the proxy"}, "a resolver over TCP": {"tcp", 53, "resolved by the proxy"},
		"TCP": {"tcp", 443, "NODE_USE_ENV_PROXY"}, "QUIC": {"udp", 443, "QUIC"}, "another protocol": {"sctp", 53, "only TCP"}, "ping": {"icmp", 0, "only TCP"},
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

// Readiness says that the fence was compared lately, whatever somebody does to the clock.
func TestAFenceThatNobodyComparesIsNotFresh(t *testing.T) {
	var f fence
	now := time.Now()
	if f.fresh(now) {
		t.Error("it is fresh before the first comparison")
	}
	f.verified.Store(&now)
	for _, c := range []struct {
		name        string
		passed, set time.Duration
		want        bool
	}{
		{"just compared", 0, 0, true},
		{"at the limit", 10*fenceInterval - time.Nanosecond, 0, true},
		{"beyond it", 10 * fenceInterval, 0, false},
		{"beyond it, and the clock set back", 10 * fenceInterval, -5 * time.Hour, false},
		{"just compared, and the clock set forward", fenceInterval, 5 * time.Hour, true},
	} {
		if got := f.fresh(jump.By(now.Add(c.passed), c.set)); got != c.want {
			t.Errorf("%s: fresh is %v", c.name, got)
		}
	}
	f.damaged.Store(true)
	if f.fresh(now) {
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
