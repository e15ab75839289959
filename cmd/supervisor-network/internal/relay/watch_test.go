package relay

import (
	"fmt"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"
)

// TestAWatchRestsWhileNothingIsUnderWay: it looks when its limit has passed, and again in
// its own pace as soon as something begins.
func TestAWatchRestsWhileNothingIsUnderWay(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var looks, ended atomic.Int64
		var busy atomic.Bool
		began := time.Now()
		w := NewWatch(time.Second, func() { ended.Store(int64(time.Since(began))) })
		w.Each(func() bool { looks.Add(1); return busy.Load() })
		w.Begin(time.Hour)
		passes := func(d time.Duration, want int64) {
			t.Helper()
			looks.Store(0)
			time.Sleep(d)
			synctest.Wait()
			if n := looks.Load(); n != want {
				t.Errorf("%d looks within %v, want %d", n, d, want)
			}
		}
		passes(30*time.Minute+time.Millisecond, 2) // the first one, and whether that may be the last
		busy.Store(true)
		w.Wake()
		passes(10*time.Second, 10)
		busy.Store(false)
		passes(10*time.Second, 2)
		w.Begin(10 * time.Second) // a shorter phase
		passes(5*time.Second, 2)
		w.Mark()
		passes(8*time.Second, 2)
		if w.Expired() {
			t.Error("it is over before its limit")
		}
		passes(3*time.Second, 1)
		if want := 30*time.Minute + time.Millisecond + 35*time.Second; !w.Expired() || ended.Load() != int64(want) {
			t.Errorf("it ended after %v, want %v", time.Duration(ended.Load()), want)
		}
		passes(time.Hour, 0)
	})
}

// TestAWatchSeesWhatBeginsAsItGoesToRest, whoever is first, and rests no more when it has
// been stopped.
func TestAWatchSeesWhatBeginsAsItGoesToRest(t *testing.T) {
	for name, tc := range map[string]struct {
		begin func(w *Watch, busy *atomic.Bool)
		looks [2]int64 // in 3.5 seconds, when it begins during the first look or while the watch makes sure
		ends  bool     // in 5.5
	}{
		"a phase":            {func(w *Watch, _ *atomic.Bool) { w.Begin(3 * time.Second) }, [2]int64{3, 4}, true},
		"a phase as before":  {func(w *Watch, _ *atomic.Bool) { w.Begin(time.Hour) }, [2]int64{3, 4}, false},
		"something to watch": {func(w *Watch, busy *atomic.Bool) { busy.Store(true); w.Wake() }, [2]int64{4, 4}, false},
		"the end":            {func(w *Watch, _ *atomic.Bool) { w.Stop() }, [2]int64{2, 2}, false},
	} {
		for during, want := range tc.looks {
			t.Run(fmt.Sprint(name, " ", during), func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) {
					var looks atomic.Int64
					var busy atomic.Bool
					w := NewWatch(time.Second, func() {})
					w.Each(func() bool {
						said := busy.Load()
						if looks.Add(1) == int64(during)+1 {
							tc.begin(w, &busy)
						}
						return said
					})
					w.Begin(time.Hour)
					time.Sleep(3500 * time.Millisecond)
					synctest.Wait()
					if n := looks.Load(); n != want {
						t.Errorf("%d looks, want %d", n, want)
					}
					time.Sleep(2 * time.Second)
					if w.Expired() != tc.ends {
						t.Errorf("expired: %v", w.Expired())
					}
					if name == "the end" && w.timer.Load().Stop() {
						t.Error("its timer goes on")
					}
					w.Stop()
				})
			})
		}
	}
}
