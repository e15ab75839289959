package http2

import (
	"math"
	"sync/atomic"
)

// maxWide is how many connections of a process have a wide window at one time. What
// clients send and nobody reads yet, because an origin takes nothing, lies in memory.
const maxWide = 64

// maxDrained is how many refused bodies of a process are taken at one time: their streams
// have given back all other places.
const maxDrained = 256

// Windows gives connections the window in which their clients may send: the first ones
// a wide one, and the rest, of which there can be thousands, the least there is. A
// connection for whose least window there is no room is offered no HTTP/2 at all: who
// has none of it is served in HTTP/1.1, where nothing is read ahead. The zero value is
// ready to use, by many goroutines; nil bounds nothing.
type Windows struct {
	// Limit is for all windows together, in bytes, half of it for wide ones; 0: none. It
	// is set before use. An eighth of it is beside that for sections of fields of which the
	// end is still to come.
	Limit int64

	held, wide atomic.Int64
	sections   atomic.Int64
	unoffered  atomic.Uint64
	drained    atomic.Int64 // bodies that are taken because they were refused
}

// Enter takes the least window for one more connection, which Leave gives back. Without
// one the connection must not speak HTTP/2.
func (w *Windows) Enter() bool {
	if w == nil {
		return true
	}
	if !w.add(narrowWindow, w.most()) {
		w.unoffered.Add(1)
		return false
	}
	return true
}

// Leave gives back what Enter took.
func (w *Windows) Leave() {
	if w != nil {
		w.held.Add(-narrowWindow)
	}
}

// Held is the sum of all windows, in bytes.
func (w *Windows) Held() int64 { return w.held.Load() }

// Unoffered is how often there was no room.
func (w *Windows) Unoffered() uint64 { return w.unoffered.Load() }

func (w *Windows) most() int64 {
	if w.Limit == 0 {
		return math.MaxInt64
	}
	return w.Limit
}

func (w *Windows) add(n, most int64) bool {
	if w.held.Add(n) > most {
		w.held.Add(-n)
		return false
	}
	return true
}

// widen returns the window of a connection that has entered, and what gives back what it
// is wider than the least.
func (w *Windows) widen() (size int, give func()) {
	if w == nil {
		return connectionWindow, func() {}
	}
	const more = connectionWindow - narrowWindow
	if w.wide.Add(1) > maxWide || !w.add(more, w.most()/2) {
		w.wide.Add(-1)
		return narrowWindow, func() {}
	}
	return connectionWindow, func() {
		w.held.Add(-more)
		w.wide.Add(-1)
	}
}

// hold takes n bytes for a section that is not complete, unless there is no room for them.
func (w *Windows) hold(n int64) bool {
	if w == nil || w.Limit == 0 {
		return true
	}
	if w.sections.Add(n) > w.Limit/8 {
		w.sections.Add(-n)
		return false
	}
	return true
}

// release gives back what hold took.
func (w *Windows) release(n int64) {
	if w != nil && w.Limit != 0 {
		w.sections.Add(-n)
	}
}

// drain calls take for a refused body, unless as many as may be are taken already.
func (w *Windows) drain(take func()) {
	if w != nil {
		defer w.drained.Add(-1)
		if w.drained.Add(1) > maxDrained {
			return
		}
	}
	take()
}
