package secret

import (
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"time"
)

// MaxBytes bounds a secret.
const MaxBytes = 64 << 10

// File is a secret as a file holds it.
type File struct {
	Value   Value
	Changed time.Time // when the file was written
}

// Read reads one secret. One line end at the end of the file is not part of it:
// editors and echo put it there. An empty file is no secret. An error names the
// file, and nothing of what is in it.
func Read(path string) (File, error) {
	fail := func(err error) (File, error) {
		return File{}, fmt.Errorf("read the secret %s: %w", path, plain(err))
	}
	// Not blocking, because a pipe in place of the file would never open.
	f, err := os.OpenFile(path, os.O_RDONLY|syscall.O_NONBLOCK|syscall.O_CLOEXEC, 0)
	if err != nil {
		return fail(err)
	}
	defer f.Close()
	info, err := f.Stat()
	switch {
	case err != nil:
		return fail(err)
	case !info.Mode().IsRegular():
		return fail(errors.New("it is not a regular file"))
	}
	// Two more for the line end, one more to see that there is too much.
	data, err := io.ReadAll(io.LimitReader(f, MaxBytes+3))
	if err != nil {
		return fail(err)
	}
	text := strings.TrimSuffix(string(data), "\n")
	if text != string(data) {
		text = strings.TrimSuffix(text, "\r")
	}
	switch {
	case text == "":
		return fail(errors.New("it is empty"))
	case len(text) > MaxBytes:
		return fail(fmt.Errorf("it is longer than %d bytes", MaxBytes))
	}
	return File{New(text), info.ModTime()}, nil
}

// plain takes the path out of an error: the caller names it.
func plain(err error) error {
	if pe, ok := errors.AsType[*os.PathError](err); ok {
		return pe.Err
	}
	return err
}

// Folders lists the folders to watch for the given files, each once.
func Folders(paths []string) []string {
	seen := make(map[string]bool, len(paths))
	var out []string
	for _, p := range paths {
		if dir := filepath.Dir(p); !seen[dir] {
			seen[dir] = true
			out = append(out, dir)
		}
	}
	return out
}
