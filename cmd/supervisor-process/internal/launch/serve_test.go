package launch

import (
	"strings"
	"syscall"
	"testing"

	"github.com/splitpod/splitpod/cmd/supervisor-process/internal/launch/stage"
)

// TestASilentStageSaysHowItEnded, and what usually makes it end so.
func TestASilentStageSaysHowItEnded(t *testing.T) {
	if _, w := hear(strings.NewReader("")); w.Error != silent || w.Code != stage.CodeConfine {
		t.Errorf("got %+v", w)
	}
	for status, want := range map[syscall.WaitStatus]string{9: "signal 9", 2 << 8: "code 2"} {
		if got := how(status); !strings.Contains(got, want) || !strings.Contains(got, "may have no") {
			t.Errorf("%d: %q", status, got)
		}
	}
}
