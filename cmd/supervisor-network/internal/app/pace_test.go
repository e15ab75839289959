package app

import (
	"runtime"
	"runtime/debug"
	"runtime/metrics"
	"testing"
	"time"
)

func TestThePaceOfTheCollector(t *testing.T) {
	for used, want := range map[uint64]int{0: 400, 1 << 20: 400, 8 << 20: 400, 16 << 20: 200, 32 << 20: 100, 33 << 20: 100, 1 << 40: 100} {
		if got := gcPercent(used); got != want {
			t.Errorf("%d bytes in use: %d %%, want %d", used, got, want)
		}
	}
}

func TestThePaceFollowsWhatIsInUse(t *testing.T) {
	before := debug.SetGCPercent(maxGCPercent)
	defer debug.SetGCPercent(before)
	percent := []metrics.Sample{{Name: "/gc/gogc:percent"}}
	becomes := func(what string, ok func(uint64) bool) {
		t.Helper()
		for deadline := time.Now().Add(patience * 30); ; {
			runtime.GC()
			if metrics.Read(percent); ok(percent[0].Value.Uint64()) {
				return
			}
			if time.Now().After(deadline) {
				t.Fatalf("%s: the pace is %d %%", what, percent[0].Value.Uint64())
			}
		}
	}
	newPace(t.Context(), maxGCPercent)
	held := make([]byte, 64<<20)
	becomes("with much in use", func(percent uint64) bool { return percent == minGCPercent })
	runtime.KeepAlive(held)
	held = nil
	becomes("with less in use", func(percent uint64) bool { return percent > minGCPercent })
}

func TestAQuietDaemonKeepsNoGarbage(t *testing.T) {
	before := debug.SetGCPercent(-1) // nobody else collects
	defer debug.SetGCPercent(before)
	forced := memoryIn("/gc/cycles/forced:gc-cycles")
	for range 4 * worthIt >> 20 {
		waste = make([]byte, 1<<20)
	}
	waste = nil
	newPace(t.Context(), maxGCPercent)
	look := time.NewTicker(50 * time.Millisecond)
	defer look.Stop()
	for deadline := time.After(patience * 30); memoryIn("/gc/cycles/forced:gc-cycles") == forced; {
		select {
		case <-look.C:
		case <-deadline:
			t.Fatal("nothing was collected")
		}
	}
}

var waste []byte
