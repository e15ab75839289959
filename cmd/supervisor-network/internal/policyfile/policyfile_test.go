package policyfile

import (
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/splitpod/splitpod/test/need"
)

// told is a log of which a test waits for a line.
type told chan struct{}

func (l told) Write(p []byte) (int, error) {
	select {
	case l <- struct{}{}:
	default:
	}
	return len(p), nil
}

// TestAWantOfDescriptorsIsNoInvalidPolicy, which might deny everything, and would be called
// the file's fault: it is read when there are some again.
func TestAWantOfDescriptorsIsNoInvalidPolicy(t *testing.T) {
	path, log, changed := filepath.Join(t.TempDir(), "policy.yaml"), make(told, 1), make(chan File, 100)
	put := func(version int) (replace func()) {
		if err := os.WriteFile(path+".new", fmt.Appendf(nil, "version: 1\n# %d", version), 0o600); err != nil {
			t.Fatal(err)
		}
		return func() {
			if err := os.Rename(path+".new", path); err != nil {
				t.Error(err)
			}
		}
	}
	go Watch(t.Context(), path, "", slog.New(slog.NewTextHandler(log, nil)), func(f File) { changed <- f })
	for version, watched := 1, false; !watched; version++ {
		put(version)()
		select {
		case <-changed:
			watched = true
		case <-time.After(2 * settle): // it was not yet
		}
	}

	replace := put(0)
	restore := need.NoDescriptors(t)
	defer func() { restore() }()
	replace()
	for want := "?"; ; {
		select {
		case <-log:
			restore()
			restore, want = func() {}, Read(path).Digest
		case f := <-changed:
			if f.Err != nil {
				t.Fatal(f.Err)
			}
			if f.Digest == want {
				return
			}
		}
	}
}
