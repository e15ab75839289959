// Package slack lets the kernel wake the threads of a daemon a little late.
//
// It answers the threat of a supervisor that eats the processors it shares with its
// workload. While there is work, the monitor of Go's runtime sleeps 20 us at a time, and a
// processor without work 3 us, before they look whether another one is stuck. With the
// kernel's own slack of 50 us these looks are a tenth of what a small request costs.
package slack

import (
	"syscall"
	"time"
)

// Late is how much later than asked for the kernel may wake a thread. Nothing in the
// daemons counts in less than milliseconds.
const Late = 500 * time.Microsecond

// prSetTimerSlack is PR_SET_TIMERSLACK (prctl(2)).
const prSetTimerSlack = 29

// Allow gives every thread of this process that slack; those to come have it from the one
// that starts them, and so has whatever program this process starts from now on. A kernel
// that refuses leaves the process as right, and slower.
func Allow() {
	_, _, _ = syscall.AllThreadsSyscall(syscall.SYS_PRCTL, prSetTimerSlack, uintptr(Late), 0)
}
