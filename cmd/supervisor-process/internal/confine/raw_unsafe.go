package confine

import (
	"errors"
	"unsafe"

	"golang.org/x/sys/unix"
)

// rawSetgroups sets the supplementary groups of the calling thread only.
func rawSetgroups(groups []uint32) error {
	var p unsafe.Pointer
	if len(groups) > 0 {
		p = unsafe.Pointer(&groups[0])
	}
	if _, _, errno := unix.RawSyscall(unix.SYS_SETGROUPS, uintptr(len(groups)), uintptr(p), 0); errno != 0 {
		return errno
	}
	return nil
}

// resetSignals unblocks every signal and gives it back its default action. Handled
// signals lose their handler by execve itself; ignored ones would stay ignored.
func resetSignals(*work) error {
	var none uint64
	if _, _, errno := unix.RawSyscall6(unix.SYS_RT_SIGPROCMASK, 2 /* SIG_SETMASK */, uintptr(unsafe.Pointer(&none)), 0, 8, 0, 0); errno != 0 {
		return syscallError("rt_sigprocmask", errno)
	}
	var action [4]uint64 // struct sigaction: SIG_DFL, no flags, no restorer, empty mask
	for sig := 1; sig <= 64; sig++ {
		if sig == int(unix.SIGKILL) || sig == int(unix.SIGSTOP) {
			continue
		}
		_, _, errno := unix.RawSyscall6(unix.SYS_RT_SIGACTION, uintptr(sig), uintptr(unsafe.Pointer(&action)), 0, 8, 0, 0)
		if errno != 0 && !errors.Is(errno, unix.EINVAL) {
			return syscallError("rt_sigaction", errno)
		}
	}
	return nil
}
