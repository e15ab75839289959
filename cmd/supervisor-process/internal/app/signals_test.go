package app

import (
	"slices"
	"syscall"
	"testing"
)

// TestASignalThatComesDuringTheStartIsNotLost: it stops the start, and where the program
// was executed at that very moment, the program gets it.
func TestASignalThatComesDuringTheStartIsNotLost(t *testing.T) {
	for name, tt := range map[string]struct{ early, late, want []syscall.Signal }{
		"to end":        {[]syscall.Signal{syscall.SIGTERM}, nil, []syscall.Signal{syscall.SIGTERM}},
		"two to end":    {[]syscall.Signal{syscall.SIGINT, syscall.SIGQUIT}, nil, []syscall.Signal{syscall.SIGQUIT}},
		"for something": {[]syscall.Signal{syscall.SIGUSR1, syscall.SIGHUP}, nil, nil},
		"and later":     {[]syscall.Signal{syscall.SIGTERM}, []syscall.Signal{syscall.SIGUSR1, syscall.SIGTERM}, []syscall.Signal{syscall.SIGTERM, syscall.SIGUSR1, syscall.SIGTERM}},
		"later only":    {nil, []syscall.Signal{syscall.SIGHUP}, []syscall.Signal{syscall.SIGHUP}},
	} {
		var e earlySignals
		var got []syscall.Signal
		for _, sig := range tt.early {
			if e.keeps(sig) != ends(sig) {
				t.Errorf("%s: %v stops the start: %v", name, sig, !ends(sig))
			}
		}
		e.begin(func(sig syscall.Signal) { got = append(got, sig) })
		for _, sig := range tt.late {
			if e.keeps(sig) {
				t.Errorf("%s: %v stops a start that is over", name, sig)
			}
		}
		if !slices.Equal(got, tt.want) {
			t.Errorf("%s: the workload got %v, want %v", name, got, tt.want)
		}
	}
}
