package seccomp

import (
	"os"
	"runtime"
	"unsafe"

	"golang.org/x/net/bpf"
	"golang.org/x/sys/unix"
)

// load installs a program on the calling thread, or with SECCOMP_FILTER_FLAG_TSYNC on
// all; then a result that is not 0 names a thread that cannot take it. With
// SECCOMP_FILTER_FLAG_NEW_LISTENER the result is a descriptor.
func load(raw []bpf.RawInstruction, flags uintptr) (result int, err error) {
	filter := make([]unix.SockFilter, len(raw))
	for i, r := range raw {
		filter[i] = unix.SockFilter{Code: r.Op, Jt: r.Jt, Jf: r.Jf, K: r.K}
	}
	prog := unix.SockFprog{Len: uint16(len(filter)), Filter: &filter[0]}
	n, _, errno := unix.RawSyscall(unix.SYS_SECCOMP, unix.SECCOMP_SET_MODE_FILTER, flags, uintptr(unsafe.Pointer(&prog)))
	runtime.KeepAlive(filter)
	if errno != 0 {
		return 0, os.NewSyscallError("seccomp(SET_MODE_FILTER)", errno)
	}
	return int(n), nil
}
