// Package jump makes times as a process sees them after somebody has set its machine's
// clock: the wall clock is another, the monotonic one is not. A test cannot set the
// clock of the machine it shares, and no call of package time tells the two apart.
//
// It answers the threat of a test of clocks that moves both together and so tests
// nothing. It relies on how time.Time is laid out, and says so when that is not true.
package jump

import (
	"time"
	"unsafe"
)

// By returns t with its wall clock moved by d, in whole seconds, and its monotonic one
// where it was. t is of time.Now.
func By(t time.Time, d time.Duration) time.Time {
	if d%time.Second != 0 || t == t.Round(0) {
		panic("BUG: whole seconds of a time with a monotonic clock are moved")
	}
	out := t
	*(*uint64)(unsafe.Pointer(&out)) += uint64(d/time.Second) << 30 // after the nanoseconds come 33 bits of seconds
	if out.Sub(t) != 0 || out.Round(0).Sub(t.Round(0)) != d {
		panic("BUG: time.Time is not laid out as it was")
	}
	return out
}
