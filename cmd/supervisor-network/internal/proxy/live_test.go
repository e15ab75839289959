package proxy

import (
	"io"
	"testing"
	"time"

	"github.com/splitpod/splitpod/cmd/supervisor-network/internal/decide"
	"github.com/splitpod/splitpod/cmd/supervisor-network/internal/inject/seal/sealtest"
	"github.com/splitpod/splitpod/pkg/core"
)

// TestWhatIsUnderWayIsShownAtOnce, and is gone when it ends.
func TestWhatIsUnderWayIsShownAtOnce(t *testing.T) {
	var l Live
	q := decide.Question{Who: &core.Identity{Program: core.Program{Path: "/usr/bin/curl"}}, Host: "api.test", Port: 443}
	_, permit := sealtest.Permit(t, "")
	before := time.Now()
	_, one := l.add(t.Context(), q, permit)
	_, two := l.add(t.Context(), q, permit)
	two.uninspected.Store(true)
	a := l.Active()
	if len(a.Rows) != 1 || a.Rows[0].Since.Before(before.Add(-time.Second)) || a.Rows[0].Since.After(time.Now()) {
		t.Fatalf("%+v", a)
	}
	if r := a.Rows[0]; r.Host != "api.test" || r.Port != 443 || r.Program != "/usr/bin/curl" || r.Count != 2 || r.Unread != 1 {
		t.Errorf("%+v", r)
	}
	one.leave()
	two.leave()
	if a := l.Active(); len(a.Rows) != 0 || a.Others != 0 {
		t.Errorf("%+v", a)
	}
}

// TestATunnelThatIsRevokedBeforeItsFirstRequestSaysSo, and one that waits for it when the
// daemon ends.
func TestATunnelThatIsRevokedBeforeItsFirstRequestSaysSo(t *testing.T) {
	const rest = ", protocol: rest, enforcement: enforce, access: full"
	revoke := func(w *world) { w.publish(endpoint("b.example.com", 443, rest)) }
	for name, tc := range map[string]struct {
		protocol string
		end      func(*world)
		reason   core.Reason
	}{
		"revoked, HTTP/1.1": {"http/1.1", revoke, core.ReasonPolicyChanged},
		"revoked, HTTP/2":   {"h2", revoke, core.ReasonPolicyChanged},
		"stopped":           {"http/1.1", func(w *world) { w.stop() }, core.ReasonShutdown},
	} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t, generous, endpoint("a.example.com", 443, rest))
			w.echo("a.example.com")
			c := w.secure("a.example.com", tc.protocol)
			tc.end(w)
			_, _ = io.Copy(io.Discard, c) // until it has ended
			w.recorded(t, `"reason":"`+string(tc.reason)+`"`)
		})
	}
}
