package app

import (
	"runtime"
	"runtime/debug"
	"runtime/metrics"
	"sync"
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
		for deadline := time.Now().Add(30 * time.Second); ; {
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
	for range 32 {
		waste = make([]byte, 1<<20)
	}
	waste = nil
	newPace(t.Context(), maxGCPercent)
	await(t, "nothing was collected", func() bool { return memoryIn("/gc/cycles/forced:gc-cycles") > forced })
}

var waste []byte

// TestAQuietDaemonKeepsNoEmptyStacks: one in which much lives, so that it does not collect
// without a reason, and next to no garbage.
func TestAQuietDaemonKeepsNoEmptyStacks(t *testing.T) {
	defer debug.SetGCPercent(debug.SetGCPercent(-1)) // nobody else collects
	held := make([]byte, garbage+1<<20)
	defer runtime.KeepAlive(held)
	runtime.GC()
	over := make(chan struct{})
	defer close(over)
	var deep sync.WaitGroup
	for range 4000 { // more than a quarter of whatever else lives in this process
		deep.Add(1)
		go func() {
			useStack()
			deep.Done()
			<-over
		}()
	}
	deep.Wait()
	before, forced := emptyStack(), memoryIn("/gc/cycles/forced:gc-cycles")
	if before < 1<<20 {
		t.Fatalf("stacks have %d bytes that nothing uses", before)
	}
	looks(t)
	if memoryIn("/gc/cycles/forced:gc-cycles") == forced {
		t.Error("nothing was collected")
	}
	if after := emptyStack(); after > before/2 {
		t.Errorf("of %d bytes that nothing used %d are left", before, after)
	}
}

// TestAQuietDaemonComesToRest: whatever it has not given back by then.
func TestAQuietDaemonComesToRest(t *testing.T) {
	defer debug.SetGCPercent(debug.SetGCPercent(-1)) // nobody else collects
	runtime.GC()
	forced := memoryIn("/gc/cycles/forced:gc-cycles")
	looks(t)
	if n := memoryIn("/gc/cycles/forced:gc-cycles") - forced; n > atMost {
		t.Errorf("%d collections", n)
	}
}

// looks is several looks of a daemon, of which the first sees much work.
func looks(t *testing.T) {
	p := &pace{ctx: t.Context(), quiet: time.NewTimer(time.Hour)}
	for range 2 + atMost {
		p.giveBack()
	}
}

const stackNeeded = 12 << 10

//go:noinline
func useStack() byte {
	var room [stackNeeded]byte
	for i := range room {
		room[i] = byte(i)
	}
	return room[len(room)-1]
}

// await looks for a state that comes by itself.
func await(t *testing.T, missing string, there func() bool) {
	t.Helper()
	look := time.NewTicker(50 * time.Millisecond)
	defer look.Stop()
	for deadline := time.After(30 * time.Second); !there(); {
		select {
		case <-look.C:
		case <-deadline:
			t.Fatal(missing)
		}
	}
}
