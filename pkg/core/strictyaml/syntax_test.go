package strictyaml

import (
	"strings"
	"testing"
)

// TestTheLineOfAMistakeIsLookedForWithinLimits has a mistake far behind the line that
// the YAML reader names, and more and more behind the mistake.
func TestTheLineOfAMistakeIsLookedForWithinLimits(t *testing.T) {
	const mistake = 1002
	head := "version: 1\nk:\n" + strings.Repeat("  - a\n", mistake-3) + "   b: c\n"
	behind := func(bytes int) string { return strings.Repeat("x", bytes) + "\n" }
	most := maxRetried - 3*len(head) + len("\n   b: c\n\n") // three parts are read: with the tail, with the mistake, without
	for _, tt := range []struct {
		name, tail string
		line       int
	}{
		{"nothing behind it", "", mistake},
		{"as much as may be read again", behind(most), mistake},
		{"more than may be read again", behind(most + 1), 3},
	} {
		if got := brokenLine([]byte(head+tt.tail), 3); got != tt.line {
			t.Errorf("%s: line %d, want %d", tt.name, got, tt.line)
		}
	}
}
