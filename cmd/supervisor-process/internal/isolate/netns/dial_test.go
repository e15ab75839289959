package netns

import (
	"context"
	"errors"
	"net"
	"net/netip"
	"testing"
	"testing/synctest"
	"time"

	"golang.org/x/sys/unix"
)

// TestEachFamilyHasItsShareOfTheTime: a listener that answers nothing leaves time for the
// other family, and one that refuses leaves it all.
func TestEachFamilyHasItsShareOfTheTime(t *testing.T) {
	const silent, refuses, answers = "silent", "refuses", "answers"
	for name, tt := range map[string]struct {
		first, second string
		want          string        // of the second, or of none
		after         time.Duration // of the ten seconds there are
	}{
		"the first answers":           {answers, answers, "127.0.0.1:80", 0},
		"the first refuses":           {refuses, answers, "[::1]:80", 0},
		"the first says nothing":      {silent, answers, "[::1]:80", 5 * time.Second},
		"the second says nothing":     {refuses, silent, "", 10 * time.Second},
		"neither says anything":       {silent, silent, "", 10 * time.Second},
		"silence, then a refusal":     {silent, refuses, "", 5 * time.Second},
		"both refuse, and say so now": {refuses, refuses, "", 0},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				start := time.Now()
				both := []netip.AddrPort{netip.MustParseAddrPort("127.0.0.1:80"), netip.MustParseAddrPort("[::1]:80")}
				var reached string
				_, err := dialEach(both, start.Add(10*time.Second), func(to netip.AddrPort, timeout time.Duration) (net.Conn, error) {
					does := tt.first
					if to.Addr().Is6() {
						does = tt.second
					}
					switch does {
					case refuses:
						return nil, unix.ECONNREFUSED
					case silent:
						time.Sleep(timeout)
						return nil, unix.EINPROGRESS
					}
					reached = to.String()
					return nil, nil
				})
				if reached != tt.want || (err == nil) != (tt.want != "") || time.Since(start) != tt.after {
					t.Errorf("reached %q after %v, error %v; want %q after %v", reached, time.Since(start), err, tt.want, tt.after)
				}
			})
		})
	}
}

// TestNobodyDialsAfterTheDeadline: a timeout of nothing would be none at all.
func TestNobodyDialsAfterTheDeadline(t *testing.T) {
	_, err := dialEach([]netip.AddrPort{netip.MustParseAddrPort("127.0.0.1:80")}, time.Now(), func(netip.AddrPort, time.Duration) (net.Conn, error) {
		t.Error("it was dialled")
		return nil, nil
	})
	if !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("got %v", err)
	}
}
