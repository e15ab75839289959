package mint

import (
	"crypto/x509"
	"errors"
	"fmt"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
)

func testCA(t testing.TB) *CA {
	t.Helper()
	ca, err := Open(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	return ca
}

func testLeaves(t testing.TB, o Options) *leaves {
	t.Helper()
	o.defaults()
	l, err := newLeaves(testCA(t), o)
	if err != nil {
		t.Fatal(err)
	}
	return l
}

func mustGet(t *testing.T, l *leaves, host string) *leaf {
	t.Helper()
	got, err := l.get(host)
	if err != nil {
		t.Fatal(err)
	}
	return got
}

func TestALeafIsForOneHost(t *testing.T) {
	l := testLeaves(t, Options{})
	roots := x509.NewCertPool()
	roots.AddCert(l.ca.cert)
	longest := strings.Repeat("a.", 126) + "a"
	for _, c := range []struct{ host, san string }{
		{"ok.test", "DNS ok.test"},
		{"under_score.ok.test", "DNS under_score.ok.test"},
		{longest, "DNS " + longest},
		{"127.0.0.1", "IP 127.0.0.1"},
		{"2001:db8::1", "IP 2001:db8::1"},
		{"::ffff:192.0.2.1", "IP 192.0.2.1"},
	} {
		t.Run(c.host, func(t *testing.T) {
			got := mustGet(t, l, c.host)
			cert := got.cert.Leaf
			var sans []string
			for _, n := range cert.DNSNames {
				sans = append(sans, "DNS "+n)
			}
			for _, a := range cert.IPAddresses {
				sans = append(sans, "IP "+a.String())
			}
			if diff := cmp.Diff([]string{c.san}, sans); diff != "" {
				t.Error(diff)
			}
			if _, err := cert.Verify(x509.VerifyOptions{Roots: roots, DNSName: c.host}); err != nil {
				t.Errorf("a client with our CA refuses it: %v", err)
			}
			if cert.IsCA || cert.KeyUsage != x509.KeyUsageDigitalSignature || len(cert.ExtKeyUsage) != 1 || cert.ExtKeyUsage[0] != x509.ExtKeyUsageServerAuth {
				t.Errorf("it is good for more than a server: CA %v, usage %v, %v", cert.IsCA, cert.KeyUsage, cert.ExtKeyUsage)
			}
			if len(got.cert.Certificate) != 1 {
				t.Error("more is sent than the leaf: clients have the CA")
			}
			if got.cert.PrivateKey != l.key {
				t.Error("it has a key of its own")
			}
		})
	}
}

func TestNoLeafForWhatIsNoHost(t *testing.T) {
	l := testLeaves(t, Options{})
	for name, host := range map[string]string{
		"nothing":          "",
		"one byte too far": strings.Repeat("a.", 126) + "aa",
		"upper case":       "OK.test",
		"a zero":           "ok.test\x00.evil.test",
		"a wildcard":       "*.ok.test",
		"not ASCII":        "o\u212a.test",
		"brackets":         "[::1]",
		"a zone":           "fe80::1%eth0",
		"a port":           "ok.test:443",
		"a last dot":       "ok.test.",
	} {
		if _, err := l.get(host); err == nil {
			t.Errorf("%s: %q got a certificate", name, host)
		}
	}
	if l.cache.Len() != 0 {
		t.Error("a failure is remembered")
	}
}

func TestALeafsLifeIsBounded(t *testing.T) {
	l := testLeaves(t, Options{})
	end := l.ca.cert.NotAfter
	for _, c := range []struct {
		name     string
		now, end time.Time
	}{
		{"ordinary", end.Add(-100 * time.Hour), end.Add(-76 * time.Hour)},
		{"CA ends with it", end.Add(-24 * time.Hour), end},
		{"CA ends before it", end.Add(-time.Hour), end},
		{"CA about to end", end.Add(-time.Second), end},
	} {
		l.now = func() time.Time { return c.now }
		cert := mustGet(t, l, strings.ReplaceAll(strings.ToLower(c.name), " ", "-")).cert.Leaf
		if want := c.now.Add(-time.Hour); !cert.NotBefore.Equal(want) {
			t.Errorf("%s: begins %v, want %v", c.name, cert.NotBefore, want)
		}
		if !cert.NotAfter.Equal(c.end) {
			t.Errorf("%s: ends %v, want %v", c.name, cert.NotAfter, c.end)
		}
	}
	l.now = func() time.Time { return end }
	if _, err := l.get("after.test"); err == nil {
		t.Error("an expired CA signed")
	}
}

func TestALeafIsRenewedBeforeItRunsOut(t *testing.T) {
	l := testLeaves(t, Options{})
	start := time.Now()
	at := func(d time.Duration) *leaf {
		l.now = func() time.Time { return start.Add(d) }
		return mustGet(t, l, "ok.test")
	}
	first := at(0)
	if at(18*time.Hour-time.Minute) != first {
		t.Error("it is not kept for three quarters of its life")
	}
	if second := at(18*time.Hour + time.Second); second == first || l.cache.Len() != 1 {
		t.Error("it is not replaced")
	}
}

func TestLeavesAreBounded(t *testing.T) {
	l := testLeaves(t, Options{Hosts: 3})
	first := mustGet(t, l, "h0.test")
	for i := range 3 {
		mustGet(t, l, fmt.Sprintf("h%d.test", i))
	}
	if mustGet(t, l, "h0.test") != first {
		t.Error("at the limit one is forgotten")
	}
	mustGet(t, l, "h3.test") // h1 was used least lately
	if l.cache.Len() != 3 || !l.cache.Contains("h0.test") || l.cache.Contains("h1.test") {
		t.Errorf("beyond the limit there are %v", l.cache.Keys())
	}
}

func TestOneHostIsSignedOnce(t *testing.T) {
	l := testLeaves(t, Options{})
	got := make([]*leaf, 64)
	var wg sync.WaitGroup
	for i := range got {
		wg.Go(func() { got[i], _ = l.get("ok.test") })
	}
	wg.Wait()
	for _, g := range got {
		if g == nil || g != got[0] {
			t.Fatal("one host has several leaves")
		}
	}
	if left := l.limit.Tokens(); left < 1022 {
		t.Errorf("%v of 1024 signatures are left after one", left)
	}
}

// TestNamesWithoutEndAreBounded: with a burst of 5 and 10 a second, held back for at
// most one second, 15 of many names at one moment are served and the next is not;
// known hosts do not notice.
func TestNamesWithoutEndAreBounded(t *testing.T) {
	for _, c := range []struct{ names, busy int }{{15, 0}, {16, 1}, {10000, 9985}} {
		synctest.Test(t, func(t *testing.T) {
			l := testLeaves(t, Options{MintBurst: 5, MintsPerSecond: 10, MintWait: time.Second})
			known := mustGet(t, l, "known.test")
			time.Sleep(time.Minute) // the bucket is full again
			begun := time.Now()
			var mu sync.Mutex
			busy := 0
			var wg sync.WaitGroup
			for i := range c.names {
				wg.Go(func() {
					switch _, err := l.get(fmt.Sprintf("h%d.test", i)); {
					case errors.Is(err, ErrBusy):
						mu.Lock()
						busy++
						mu.Unlock()
					case err != nil:
						t.Error(err)
					}
				})
			}
			synctest.Wait()
			if got, err := l.get("known.test"); err != nil || got != known {
				t.Errorf("a known host suffers: %v", err)
			}
			wg.Wait()
			if took := time.Since(begun); busy != c.busy || took > time.Second {
				t.Errorf("%d names: %d were sent away in %v, want %d", c.names, busy, took, c.busy)
			}
		})
	}
}
