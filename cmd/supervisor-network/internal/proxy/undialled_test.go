package proxy

import (
	"context"
	"testing"

	"github.com/splitpod/splitpod/cmd/supervisor-network/internal/relay"
	"github.com/splitpod/splitpod/pkg/core"
)

// TestWhatCouldNotBeDialledHasItsStatus: only what is refused for its address is a denial.
func TestWhatCouldNotBeDialledHasItsStatus(t *testing.T) {
	for reason, status := range map[core.Reason]int{
		core.ReasonSSRFDenied: 403, core.ReasonUpstreamUnreachable: 502, core.ReasonUpstreamTimeout: 504, core.ReasonTooManyConnections: 503,
	} {
		r := undialled(t.Context(), core.StageConnect, &relay.Error{Reason: reason})
		if r.status != status || r.reason != reason || r.failed == (status == 403) {
			t.Errorf("%s: status %d, reason %s, failed %t", reason, r.status, r.reason, r.failed)
		}
	}
}

// TestADestinationIsNotBlamedForTheEndOfTheDaemon that dials it.
func TestADestinationIsNotBlamedForTheEndOfTheDaemon(t *testing.T) {
	for name, tc := range map[string]struct {
		cause  error
		status int
		reason core.Reason
	}{
		"revoked": {errRevoked, 403, core.ReasonPolicyChanged},
		"stopped": {nil, 503, core.ReasonShutdown},
		"gone":    {errClientGone, 502, core.ReasonClientClosed},
		"unread":  {errUnread, 502, core.ReasonIdle},
	} {
		ctx, cancel := context.WithCancelCause(t.Context())
		cancel(tc.cause)
		r := undialled(ctx, core.StageConnect, &relay.Error{Reason: core.ReasonUpstreamUnreachable, Err: ctx.Err()})
		if r.status != tc.status || r.reason != tc.reason || r.failed == (tc.status == 403) {
			t.Errorf("%s: status %d, reason %s, failed %t", name, r.status, r.reason, r.failed)
		}
	}
}
