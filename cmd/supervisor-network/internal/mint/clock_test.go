package mint

import (
	"crypto/x509"
	"testing"
	"time"

	"github.com/splitpod/splitpod/test/jump"
)

// A machine that slept, or whose clock somebody set: clients compare a certificate with
// the wall clock, and what was signed by another one is signed anew.
func TestALeafFollowsTheClockThatClientsRead(t *testing.T) {
	l := testLeaves(t, Options{})
	roots := x509.NewCertPool()
	roots.AddCert(l.ca.cert)
	start := time.Now()
	for _, c := range []struct {
		name string
		by   time.Duration
		kept bool
	}{
		{"not at all", 0, true},
		{"forward, within its life", 17 * time.Hour, true},
		{"forward, close to its end", 19 * time.Hour, false},
		{"forward, past its end", 50 * time.Hour, false},
		{"back, within what it is dated back", -50 * time.Minute, true},
		{"back by hours", -3 * time.Hour, false},
		{"back by days, as far as the CA goes", -backdate + time.Hour, false},
	} {
		l.cache.Purge()
		l.now = func() time.Time { return start }
		before := mustGet(t, l, "ok.test")
		now := jump.By(start, c.by)
		l.now = func() time.Time { return now }
		after := mustGet(t, l, "ok.test")
		if (before == after) != c.kept {
			t.Errorf("%s: kept is %v, want %v", c.name, before == after, c.kept)
		}
		if _, err := after.cert.Leaf.Verify(x509.VerifyOptions{Roots: roots, DNSName: "ok.test", CurrentTime: now}); err != nil {
			t.Errorf("%s: a client refuses it: %v", c.name, err)
		}
	}
}

func TestTheCAIsGoodByTheWallClock(t *testing.T) {
	ca := testCA(t)
	now := time.Now()
	for by, want := range map[time.Duration]bool{
		0: true, -backdate + time.Hour: true, -backdate - time.Hour: false, lifetime - time.Hour: true, lifetime + time.Hour: false,
	} {
		if got := ca.Valid(jump.By(now, by)); got != want {
			t.Errorf("%s away it is valid: %v", by, got)
		}
	}
}
