package launch

import (
	"errors"
	"fmt"
	"os"
	"runtime"

	"golang.org/x/sys/unix"
)

// Terminal is a pseudoterminal for one program (pty(7)).
type Terminal struct {
	Master *os.File // ours; close it, and the program's terminal hangs up
	Slave  *os.File // the program's three files; close it after the launch
}

// OpenTerminal makes a terminal that belongs to the user, so that its programs can
// open it by name too.
func OpenTerminal(uid uint32) (*Terminal, error) {
	fd, err := openMaster(uid)
	if err != nil {
		return nil, fmt.Errorf("open a terminal: %w", err)
	}
	if err := unix.IoctlSetPointerInt(fd, unix.TIOCSPTLCK, 0); err != nil {
		unix.Close(fd)
		return nil, os.NewSyscallError("ioctl(TIOCSPTLCK)", err)
	}
	slave, _, errno := unix.Syscall(unix.SYS_IOCTL, uintptr(fd), unix.TIOCGPTPEER, unix.O_RDWR|unix.O_NOCTTY|unix.O_CLOEXEC)
	if errno != 0 {
		unix.Close(fd)
		return nil, os.NewSyscallError("ioctl(TIOCGPTPEER)", errno)
	}
	if err := unix.SetNonblock(fd, true); err != nil {
		unix.Close(fd)
		unix.Close(int(slave))
		return nil, os.NewSyscallError("fcntl(O_NONBLOCK)", err)
	}
	return &Terminal{os.NewFile(uintptr(fd), "terminal"), os.NewFile(slave, "terminal")}, nil
}

// openMaster opens the multiplexer with the user's file-system id, which is what
// devpts takes for the owner of the other end.
func openMaster(uid uint32) (int, error) {
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	own := os.Geteuid()
	_, _, _ = unix.RawSyscall(unix.SYS_SETFSUID, uintptr(uid), 0, 0)
	fd, err := unix.Open("/dev/ptmx", unix.O_RDWR|unix.O_NOCTTY|unix.O_CLOEXEC, 0)
	_, _, _ = unix.RawSyscall(unix.SYS_SETFSUID, uintptr(own), 0, 0)
	if now, _, _ := unix.RawSyscall(unix.SYS_SETFSUID, ^uintptr(0), 0, 0); int(now) != own {
		panic("BUG: the file-system id was not set back")
	}
	if err != nil {
		return -1, os.NewSyscallError("open(/dev/ptmx)", err)
	}
	return fd, nil
}

// Resize sets the size in characters, and the program is told. A client without a window
// says zero, which changes nothing (RFC 4254 section 6.2): programs take their usual size
// where none is known, and a window of one column for one.
func (t *Terminal) Resize(columns, rows int) error {
	if columns < 1 || rows < 1 {
		return nil
	}
	clamp := func(n int) uint16 { return uint16(min(n, 65535)) }
	size := unix.Winsize{Col: clamp(columns), Row: clamp(rows)}
	raw, err := t.Master.SyscallConn()
	if err != nil {
		return err
	}
	var resized error
	err = raw.Control(func(fd uintptr) { // while which no other file gets the number
		resized = os.NewSyscallError("ioctl(TIOCSWINSZ)", unix.IoctlSetWinsize(int(fd), unix.TIOCSWINSZ, &size))
	})
	return errors.Join(err, resized)
}
