package prepare

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"
)

// MakeDirectories creates the read-write directories of a policy that are missing
// below root, with their parents, for the account. What is there is left alone, but
// a symbolic link is refused: it would be whoever made the image who chooses what is
// created or granted. It returns what it made.
func MakeDirectories(root string, paths []string, a Account) (made []string, err error) {
	for _, p := range paths {
		st, err := os.Lstat(filepath.Join(root, p))
		switch {
		case err == nil && st.Mode()&os.ModeSymlink != 0:
			return made, fmt.Errorf("filesystem_policy.read_write: %s is a symbolic link in the image; name the directory it leads to", p)
		case err == nil:
			continue
		case !errors.Is(err, os.ErrNotExist):
			return made, fmt.Errorf("filesystem_policy.read_write: %w", err)
		}
		new, err := makeDirectory(root, p, a)
		made = append(made, new...)
		if err != nil {
			return made, fmt.Errorf("filesystem_policy.read_write: create %s: %w", p, err)
		}
	}
	return made, nil
}

// makeDirectory walks down, one directory after the other, through no link.
func makeDirectory(root, p string, a Account) (made []string, err error) {
	at, err := unix.Open(root, unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, os.NewSyscallError("open", err)
	}
	defer func() { unix.Close(at) }()
	walked := ""
	for name := range strings.SplitSeq(strings.Trim(p, "/"), "/") {
		walked += "/" + name
		next, err := openBelow(at, name)
		if errors.Is(err, unix.ENOENT) {
			next, err = createBelow(at, name, a)
			made = append(made, walked)
		}
		if errors.Is(err, unix.ELOOP) {
			return made, fmt.Errorf("%s is a symbolic link in the image", walked)
		}
		if err != nil {
			return made, err
		}
		unix.Close(at)
		at = next
	}
	return made, nil
}

func openBelow(at int, name string) (int, error) {
	return unix.Openat2(at, name, &unix.OpenHow{
		Flags: unix.O_RDONLY | unix.O_DIRECTORY | unix.O_CLOEXEC, Resolve: unix.RESOLVE_NO_SYMLINKS | unix.RESOLVE_BENEATH,
	})
}

// createBelow makes one directory and gives it to the account.
func createBelow(at int, name string, a Account) (int, error) {
	if err := unix.Mkdirat(at, name, 0o755); err != nil {
		return -1, os.NewSyscallError("mkdirat", err)
	}
	fd, err := openBelow(at, name)
	if err != nil {
		return -1, err
	}
	if err := unix.Fchown(fd, int(a.UID), int(a.GID)); err != nil {
		unix.Close(fd)
		_ = unix.Unlinkat(at, name, unix.AT_REMOVEDIR)
		if errors.Is(err, unix.EPERM) {
			return -1, errors.New("it cannot be given to the workload's user; add the CHOWN capability, or create it in the image")
		}
		return -1, os.NewSyscallError("fchown", err)
	}
	return fd, nil
}
