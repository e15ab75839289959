package record

import (
	"fmt"
	"maps"
	"slices"
	"strings"
)

// Used notes that the value of a key went into the request, or into a message of a
// WebSocket: each time it is counted.
func (e *Entry) Used(key string) {
	if e.used == nil {
		e.used = make(map[string]int)
	}
	e.used[key]++
}

// Echoed notes values that were taken out of the origin's answer.
func (e *Entry) Echoed(n int) { e.echoed += n }

// noteCredentials says in the record's detail which keys were used, and how often.
func (e *Entry) noteCredentials() {
	if len(e.used) == 0 && e.echoed == 0 {
		return
	}
	var parts []string
	if e.Event.Detail != "" {
		parts = append(parts, e.Event.Detail)
	}
	if len(e.used) > 0 {
		names := make([]string, 0, len(e.used))
		for _, key := range slices.Sorted(maps.Keys(e.used)) {
			names = append(names, fmt.Sprintf("%s (%d)", key, e.used[key]))
		}
		parts = append(parts, "credentials used: "+strings.Join(names, ", "))
	}
	if e.echoed > 0 {
		parts = append(parts, fmt.Sprintf("%d echoed values taken out of the answer", e.echoed))
	}
	e.Event.Detail = strings.Join(parts, "; ")
}
