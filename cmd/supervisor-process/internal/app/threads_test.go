package app

import "testing"

func TestThisDaemonRunsOnFewThreads(t *testing.T) {
	for processors, want := range map[int]int{1: 1, 2: 1, 3: 1, 4: 2, 8: 4, 64: 4} {
		if got := fewer(processors); got != want {
			t.Errorf("of %d processors %d, want %d", processors, got, want)
		}
	}
}
