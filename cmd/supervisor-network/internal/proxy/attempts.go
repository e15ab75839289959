package proxy

import "time"

// attempts says whether a request that an origin ended without a word is sent again: that
// was on a kept connection, or on the new one in its place, and soon. A server that stops
// still takes connections, and ends them at once; one that thought about the request first
// ended the request.
type attempts struct{ second time.Time }

// soon is how long the second attempt may have taken.
const soon = time.Second

// attempt begins one, from 1 on.
func (a *attempts) attempt(n int) {
	if n == 2 {
		a.second = time.Now()
	}
}

// again reports whether there is one behind n, whose connection had been kept or not.
func (a *attempts) again(n int, kept bool) bool {
	return n == 1 && kept || n == 2 && time.Since(a.second) < soon
}
