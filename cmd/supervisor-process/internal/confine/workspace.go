package confine

import (
	"errors"
	"fmt"
	"os"
	"strconv"

	"golang.org/x/sys/unix"
)

// checkWorkspace finds out whether the working directory, which is the current one by
// now, can be written to. Modes, ACLs, read-only mounts and Landlock all have a say, so
// it tries, and leaves nothing behind.
func checkWorkspace(w *work) error {
	if !w.Workspace {
		return nil
	}
	err := writable()
	switch {
	case err == nil:
	case w.Plan.Files.Hard:
		return fmt.Errorf("%w: include_workdir: --workdir %s cannot be written to as uid %d: %w", ErrConfiguration, w.Dir, w.UID, err)
	default:
		w.files.Skip("include_workdir: the working directory "+w.Dir+" cannot be written to", err)
	}
	return nil
}

// writable makes a file without a name in the current directory.
func writable() error {
	fd, err := unix.Open(".", unix.O_TMPFILE|unix.O_RDWR|unix.O_CLOEXEC, 0o600)
	if errors.Is(err, unix.EOPNOTSUPP) || errors.Is(err, unix.EISDIR) || errors.Is(err, unix.EINVAL) {
		return writableByName() // network file systems have no files without a name
	}
	if err != nil {
		return os.NewSyscallError("open(O_TMPFILE)", err)
	}
	return unix.Close(fd)
}

func writableByName() error {
	const tries = 16
	name := ".splitpod-" + strconv.Itoa(os.Getpid()) + "-"
	for i := range tries {
		fd, err := unix.Open(name+strconv.Itoa(i), unix.O_CREAT|unix.O_EXCL|unix.O_NOFOLLOW|unix.O_RDWR|unix.O_CLOEXEC, 0o600)
		if errors.Is(err, unix.EEXIST) {
			continue
		}
		if err != nil {
			return os.NewSyscallError("open(O_CREAT)", err)
		}
		return errors.Join(unix.Close(fd), unix.Unlink(name+strconv.Itoa(i)))
	}
	return errors.New("every name that was tried is taken")
}
