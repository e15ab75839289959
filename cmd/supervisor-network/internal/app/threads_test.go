package app

import (
	"runtime"
	"testing"
)

// TestThreadsAreSparedWhereNobodySaidHowMany, neither an operator nor a limit of the
// container, which the runtime follows.
func TestThreadsAreSparedWhereNobodySaidHowMany(t *testing.T) {
	processors := runtime.NumCPU()
	for name, c := range map[string]struct {
		set         string
		before, now int
	}{
		"nothing":                   {"", processors, processors + spareThreads},
		"the operator":              {"any", processors, processors},
		"a limit below":             {"", processors + 7, processors + 7}, // other than what there is, as a limit makes it
		"spare threads are no base": {"", processors + spareThreads, processors + spareThreads},
	} {
		t.Run(name, func(t *testing.T) {
			was := runtime.GOMAXPROCS(c.before)
			defer runtime.GOMAXPROCS(was)
			t.Setenv("GOMAXPROCS", c.set)
			spread()
			if got := runtime.GOMAXPROCS(0); got != c.now {
				t.Errorf("%d threads, want %d", got, c.now)
			}
		})
	}
}
