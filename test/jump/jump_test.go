package jump

import (
	"testing"
	"time"
)

func TestOneClockMovesAndTheOtherDoesNot(t *testing.T) {
	now := time.Now()
	for _, d := range []time.Duration{0, time.Second, -time.Second, 50 * time.Hour, -50 * time.Hour} {
		moved := By(now, d)
		if moved.Sub(now) != 0 {
			t.Errorf("%s: the monotonic clock moved by %s", d, moved.Sub(now))
		}
		if wall := moved.Round(0).Sub(now.Round(0)); wall != d {
			t.Errorf("%s: the wall clock moved by %s", d, wall)
		}
	}
}
