package app

import (
	"os"

	"golang.org/x/sys/unix"
)

// harden keeps what this process holds in it: no core file is written, whatever the
// node does with those, and nobody of the same user may trace it or read its memory
// (prctl(2), PR_SET_DUMPABLE; core(5): a pipe in core_pattern ignores the limit).
func harden() error {
	if err := unix.Setrlimit(unix.RLIMIT_CORE, &unix.Rlimit{}); err != nil {
		return os.NewSyscallError("setrlimit(RLIMIT_CORE)", err)
	}
	if err := unix.Prctl(unix.PR_SET_DUMPABLE, 0, 0, 0, 0); err != nil {
		return os.NewSyscallError("prctl(PR_SET_DUMPABLE)", err)
	}
	return nil
}
