package proxy

import (
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
