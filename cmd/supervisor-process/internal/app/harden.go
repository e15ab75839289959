package app

import (
	"os"

	"golang.org/x/sys/unix"
)

// harden keeps what this process holds in it, whatever the image's environment asks the
// Go runtime for (GOTRACEBACK=crash): no core file is written, and none is piped to
// whatever collects them on the node, which ignores the limit (core(5)).
func harden() error {
	if err := unix.Setrlimit(unix.RLIMIT_CORE, &unix.Rlimit{}); err != nil {
		return os.NewSyscallError("setrlimit(RLIMIT_CORE)", err)
	}
	return os.NewSyscallError("prctl(PR_SET_DUMPABLE)", unix.Prctl(unix.PR_SET_DUMPABLE, 0, 0, 0, 0))
}
