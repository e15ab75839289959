package relay

import (
	"sync/atomic"
	"time"
)

// Watch ends a connection in which nothing moves for too long. One timer serves a
// whole connection, whatever phases it goes through: moving bytes costs a store.
// Make it with NewWatch, give it back with Stop.
type Watch struct {
	start  time.Time
	limit  atomic.Int64 // nanoseconds of quiet that the present phase allows
	moved  atomic.Int64 // monotonic nanoseconds since start
	late   atomic.Bool
	over   atomic.Bool
	timer  atomic.Pointer[time.Timer]
	step   time.Duration
	expire func()
	each   atomic.Pointer[func() bool]
	rests  atomic.Bool // the next look is put off
}

// NewWatch looks every step, and calls expire once when the phase's limit has
// passed. Limits are therefore kept to within a step.
func NewWatch(step time.Duration, expire func()) *Watch {
	w := &Watch{start: time.Now(), step: max(step, time.Millisecond), expire: expire}
	w.limit.Store(int64(time.Hour))
	w.timer.Store(time.AfterFunc(w.step, w.look))
	return w
}

func (w *Watch) look() {
	if w.over.Load() {
		return
	}
	moved, each := w.moved.Load(), w.each.Load()
	rests := each != nil && !(*each)()
	left := time.Duration(w.limit.Load()) - w.Quiet()
	if left <= 0 {
		w.late.Store(true)
		w.expire()
		return
	}
	t := w.timer.Load()
	switch {
	case t == nil:
		time.AfterFunc(w.step, w.look) // NewWatch is still about to store the first one
	case rests:
		w.rest(t, moved, left)
	default:
		t.Reset(w.step)
	}
}

// rest puts the next look off until the limit: thousands of connections on which nothing
// happens would wake a processor each, again and again. Whoever begins something in this
// moment either sees that the watch rests, or is seen.
func (w *Watch) rest(t *time.Timer, moved int64, left time.Duration) {
	w.rests.Store(true)
	if w.moved.Load() != moved || (*w.each.Load())() {
		w.rests.Store(false)
		left = w.step
	}
	t.Reset(left)
	if !w.rests.Load() {
		t.Reset(w.step)
	}
	if w.over.Load() {
		t.Stop()
	}
}

// Wake ends a rest: there is something to look at.
func (w *Watch) Wake() {
	if w.rests.Load() && w.rests.CompareAndSwap(true, false) {
		w.timer.Load().Reset(w.step)
	}
}

// Begin starts a phase that may be quiet for limit.
func (w *Watch) Begin(limit time.Duration) {
	w.Mark()
	w.limit.Store(int64(limit))
	w.Wake()
}

// Mark notes that something moved.
func (w *Watch) Mark() { w.moved.Store(int64(time.Since(w.start))) }

// Each makes every look begin with f, also while things move. When f says that there is
// nothing to look at the watch rests until the limit, or until Wake or Begin.
func (w *Watch) Each(f func() (goesOn bool)) { w.each.Store(&f) }

// Quiet is how long nothing has moved.
func (w *Watch) Quiet() time.Duration {
	return time.Since(w.start) - time.Duration(w.moved.Load())
}

// Expired reports whether a limit has passed.
func (w *Watch) Expired() bool { return w.late.Load() }

// Stop ends the watch.
func (w *Watch) Stop() {
	w.over.Store(true)
	w.timer.Load().Stop()
}
