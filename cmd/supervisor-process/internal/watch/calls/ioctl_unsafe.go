package calls

import (
	"errors"
	"unsafe"

	"golang.org/x/sys/unix"
)

// errNobody says that no process has the filter any more.
var errNobody = errors.New("nobody is left")

// receive takes the next call that waits; EAGAIN says that none does. The ioctl itself
// would wait, whatever the file's flags.
func receive(fd int) (notice, error) {
	poll := []unix.PollFd{{Fd: int32(fd), Events: unix.POLLIN}}
	if _, err := unix.Poll(poll, 0); err != nil {
		return notice{}, err
	}
	switch {
	case poll[0].Revents&unix.POLLIN != 0:
	case poll[0].Revents&unix.POLLHUP != 0:
		return notice{}, errNobody
	default:
		return notice{}, unix.EAGAIN
	}
	var b [noticeBytes]byte
	if _, _, errno := unix.Syscall(unix.SYS_IOCTL, uintptr(fd), unix.SECCOMP_IOCTL_NOTIF_RECV, uintptr(unsafe.Pointer(&b))); errno != 0 {
		return notice{}, errno
	}
	return parse(&b), nil
}

// refuse answers a call that waits; ENOENT says that it does not any more.
func refuse(fd int, id uint64) error {
	b := refusal(id)
	if _, _, errno := unix.Syscall(unix.SYS_IOCTL, uintptr(fd), unix.SECCOMP_IOCTL_NOTIF_SEND, uintptr(unsafe.Pointer(&b))); errno != 0 {
		return errno
	}
	return nil
}
