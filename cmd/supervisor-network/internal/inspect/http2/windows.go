package http2

import "sync/atomic"

// maxWide is how many connections of a process have a wide window at one time. What
// clients send and nobody reads yet, because an origin takes nothing, lies in memory.
const maxWide = 64

// Windows gives connections the window in which their clients may send: the first ones
// a wide one, and the rest, of which there can be thousands, the least there is. The
// zero value is ready to use, by many goroutines.
type Windows struct{ wide atomic.Int64 }

// take returns a connection's window, and what gives it back.
func (w *Windows) take() (size int, give func()) {
	if w == nil {
		return connectionWindow, func() {}
	}
	if w.wide.Add(1) > maxWide {
		w.wide.Add(-1)
		return narrowWindow, func() {}
	}
	return connectionWindow, func() { w.wide.Add(-1) }
}
