package app

import (
	"strings"
	"testing"

	"github.com/splitpod/splitpod/cmd/supervisor-process/internal/confine/landlock"
	"github.com/splitpod/splitpod/cmd/supervisor-process/internal/prepare"
	"github.com/splitpod/splitpod/pkg/core"
)

// TestWhatTheKernelDoesNotLimitIsAFinding, whatever best_effort goes on with.
func TestWhatTheKernelDoesNotLimitIsAFinding(t *testing.T) {
	for abi, want := range map[int]string{
		0: "landlock_unavailable: only the workload's user", 1: "landlock_partial: emptying files", landlock.HardABI - 1: "landlock_partial: signals and abstract sockets",
		landlock.HardABI: "", landlock.HardABI + 1: "",
	} {
		var findings []core.Event
		for _, ev := range applied(landlock.Report{ABI: abi, ReadOnly: 1}, prepare.Account{UID: 1, GID: 1}) {
			if ev.Kind == core.EventFinding && ev.Severity >= core.SeverityMedium {
				findings = append(findings, ev)
			}
		}
		reason, detail, _ := strings.Cut(want, ": ")
		if want == "" && len(findings) > 0 || want != "" && (len(findings) != 1 || string(findings[0].Reason) != reason || !strings.Contains(findings[0].Detail, detail)) {
			t.Errorf("ABI %d: %+v, want %q", abi, findings, want)
		}
	}
}
