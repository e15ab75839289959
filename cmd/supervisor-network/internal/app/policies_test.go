package app

import (
	"errors"
	"strings"
	"testing"

	"github.com/splitpod/splitpod/cmd/supervisor-network/internal/decide"
	"github.com/splitpod/splitpod/cmd/supervisor-network/internal/policyfile"
	"github.com/splitpod/splitpod/pkg/core"
)

// TestWhatDeniesEverythingGoesOn when the next invalid policy is one that would have left
// another in force, and its record says so.
func TestWhatDeniesEverythingGoesOn(t *testing.T) {
	said := ""
	p := &policies{engine: &decide.Engine{}, generation: 1, changed: func(*decide.Snapshot) {}, event: func(e core.Event) { said = e.Detail }}
	for _, deny := range []bool{true, false} {
		if err := p.load(t.Context(), policyfile.File{Err: errors.New("no"), Deny: deny}); err == nil {
			t.Error("it is in force")
		}
		if !strings.Contains(said, "everything is denied") || !p.quarantine {
			t.Errorf("deny %t: %s", deny, said)
		}
	}
}
