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
	each   atomic.Pointer[func()]
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
	if each := w.each.Load(); each != nil {
		(*each)()
	}
	if w.Quiet() >= time.Duration(w.limit.Load()) {
		w.late.Store(true)
		w.expire()
		return
	}
	if t := w.timer.Load(); t != nil {
		t.Reset(w.step)
		return
	}
	time.AfterFunc(w.step, w.look) // NewWatch is still about to store the first one
}

// Begin starts a phase that may be quiet for limit.
func (w *Watch) Begin(limit time.Duration) {
	w.Mark()
	w.limit.Store(int64(limit))
}

// Mark notes that something moved.
func (w *Watch) Mark() { w.moved.Store(int64(time.Since(w.start))) }

// Each makes every look begin with f, also while things move.
func (w *Watch) Each(f func()) { w.each.Store(&f) }

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
