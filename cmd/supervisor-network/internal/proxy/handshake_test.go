package proxy

import (
	"crypto/tls"
	"fmt"
	"strings"
	"testing"
	"time"
)

// TestATLSHandshakeIsEnded by its time, and by a policy that no longer allows its tunnel:
// this client is in the middle of it until then.
func TestATLSHandshakeIsEnded(t *testing.T) {
	const forbids = `"reason":"policy_changed"`
	for name, tc := range map[string]struct {
		rules string
		idle  time.Duration
		do    func(*world)
		why   string
	}{
		"by its time":                  {", protocol: rest, enforcement: enforce, access: full", 600 * time.Millisecond, func(*world) {}, `"reason":"request_timeout"`},
		"by its time, without rules":   {"", 600 * time.Millisecond, func(*world) {}, `"reason":"request_timeout"`},
		"by a policy":                  {", protocol: rest, enforcement: enforce, access: full", generous, func(w *world) { w.publish(endpoint("b.example.com", 443, "")) }, forbids},
		"by a policy, it had no rules": {"", generous, func(w *world) { w.publish(endpoint("b.example.com", 443, "")) }, forbids},
	} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t, tc.idle, endpoint("a.example.com", 443, tc.rules))
			w.echo("a.example.com")
			c := tls.Client(w.tunnel("a.example.com", 443), &tls.Config{RootCAs: w.roots, ServerName: "a.example.com", VerifyConnection: func(tls.ConnectionState) error {
				tc.do(w)
				w.until("the record says why", func() bool { return strings.Contains(fmt.Sprint(w.records.list()), tc.why) })
				return nil
			}})
			if err := c.Handshake(); err == nil {
				if _, err := c.Read(make([]byte, 1)); err == nil {
					t.Error("the connection goes on")
				}
			}
		})
	}
}
