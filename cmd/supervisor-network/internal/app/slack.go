package app

import (
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// timerSlack is how much later than asked for the kernel may wake a thread of this
// daemon. Nothing here counts in less than milliseconds, but for the Go runtime: while
// there is work its monitor sleeps 20 us at a time, and a processor without work 3 us,
// before they look whether another one is stuck. With the kernel's own 50 us (prctl(2),
// PR_SET_TIMERSLACK) these looks are a tenth of what a small request costs.
const timerSlack = 500 * time.Microsecond

// relax gives every thread that slack; those to come have it from the one that starts
// them. A kernel that refuses leaves the daemon as right, and slower.
func relax() {
	_, _, _ = syscall.AllThreadsSyscall(syscall.SYS_PRCTL, unix.PR_SET_TIMERSLACK, uintptr(timerSlack), 0)
}
