package link

import (
	"errors"
	"fmt"
	"io"
	"os"

	"golang.org/x/sys/unix"
)

// Claim makes a run directory this network daemon's until it is closed. A second one, with a
// state directory of its own, would take the first one's name in it: neither would have the
// process daemon for good, and which one had it for now nobody could tell. The directory
// itself is locked, so that nothing has to be written, and nothing can be removed.
func Claim(runDir string) (io.Closer, error) {
	dir, err := os.Open(runDir)
	if err != nil {
		return nil, err
	}
	if err := unix.Flock(int(dir.Fd()), unix.LOCK_EX|unix.LOCK_NB); err != nil {
		dir.Close()
		if errors.Is(err, unix.EWOULDBLOCK) {
			return nil, fmt.Errorf("%s is in use: another network daemon serves this directory already", runDir)
		}
		return nil, fmt.Errorf("lock %s: %w", runDir, os.NewSyscallError("flock", err))
	}
	return dir, nil
}
