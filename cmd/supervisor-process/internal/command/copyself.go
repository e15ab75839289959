package command

import (
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"
)

// copySelfCommand writes this very binary into a directory, for an init container
// that brings it into the agent's container by a shared volume. It appears there
// whole or not at all, executable by everybody and writable by nobody.
func copySelfCommand(args []string, stderr io.Writer) int {
	if len(args) != 1 || !filepath.IsAbs(args[0]) {
		fmt.Fprintln(stderr, "supervisor-process: copy-self needs one absolute path of a directory: copy-self DIR")
		return exitUsage
	}
	if err := copySelf(args[0]); err != nil {
		fmt.Fprintf(stderr, "supervisor-process: copy-self: %v\n", err)
		return exitFailed
	}
	return exitOK
}

// copySelf copies the open binary and not whatever stands at its path.
func copySelf(dir string) (err error) {
	self, err := os.Open("/proc/self/exe")
	if err != nil {
		return err
	}
	defer self.Close()
	tmp, err := os.CreateTemp(dir, ".supervisor-process-")
	if err != nil {
		return err
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, tmp.Close(), unix.Unlink(tmp.Name()))
		}
	}()
	if _, err := io.Copy(tmp, self); err != nil {
		return err
	}
	if err := errors.Join(tmp.Chmod(0o555), tmp.Sync()); err != nil {
		return err
	}
	if err := os.Rename(tmp.Name(), filepath.Join(dir, "supervisor-process")); err != nil {
		return err
	}
	return tmp.Close()
}
