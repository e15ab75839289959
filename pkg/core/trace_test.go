package core_test

import (
	"strings"
	"testing"

	"github.com/splitpod/splitpod/pkg/core"
)

func TestTraceParentIsTakenInItsOneFormOnly(t *testing.T) {
	const good = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"
	cases := map[string]struct {
		in string
		ok bool
	}{
		"version 00":           {good, true},
		"another version":      {"01" + good[2:], false},
		"version ff":           {"ff" + good[2:], false},
		"capitals":             {strings.ToUpper(good), false},
		"trace of zeros":       {"00-" + strings.Repeat("0", 32) + good[35:], false},
		"span of zeros":        {good[:36] + strings.Repeat("0", 16) + good[52:], false},
		"one byte short":       {good[:54], false},
		"one byte long":        {good + "0", false},
		"a suffix":             {good + "-what", false},
		"blank before":         {" " + good, false},
		"newline behind":       {good + "\n", false},
		"another separator":    {strings.ReplaceAll(good, "-", "_"), false},
		"not hex":              {"00-4bf92f3577b34da6a3ce929d0e0e473g" + good[35:], false},
		"nothing":              {"", false},
		"escape in the middle": {good[:10] + "\x1b" + good[11:], false},
	}
	for name, c := range cases {
		t.Run(name, func(t *testing.T) {
			want := ""
			if c.ok {
				want = c.in
			}
			if got := core.ParseTraceParent(c.in); got != want {
				t.Errorf("ParseTraceParent(%q) = %q, want %q", c.in, got, want)
			}
		})
	}
}

func TestTraceOfARequestIsAValidTraceID(t *testing.T) {
	id := core.NewRequestID()
	if got := core.ParseTraceParent("00-" + id.Trace() + "-" + string(id) + "-01"); got == "" {
		t.Errorf("trace %q and span %q are not a trace context", id.Trace(), id)
	}
	for _, bad := range []core.RequestID{"", "0123", "0123456789ABCDEF", "0123456789abcdef0"} {
		if bad.Trace() != "" {
			t.Errorf("%q has a trace", bad)
		}
	}
}
