package app

import (
	"runtime/debug"
	"testing"

	"github.com/splitpod/splitpod/cmd/supervisor-network/internal/inspect/hold"
)

// TestMemoryIsSharedOutBelowItsLimit, whoever sets that.
func TestMemoryIsSharedOutBelowItsLimit(t *testing.T) {
	const limit = 200 << 20
	defer debug.SetMemoryLimit(debug.SetMemoryLimit(limit))
	if bodies, windows, answers := heldLimit(), windowLimit(), unreadLimit(); bodies != limit/4 || windows != limit/4 || answers != limit/8 {
		t.Errorf("%d for bodies, %d for windows and %d for answers, of %d", bodies, windows, answers, limit)
	}
	debug.SetMemoryLimit(8 << 30)
	if bodies, answers := heldLimit(), unreadLimit(); bodies > hold.Max || answers > hold.Max {
		t.Errorf("%d for bodies and %d for answers", bodies, answers)
	}
}
