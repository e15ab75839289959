// Package need says what a test needs of the machine: root, namespaces, a
// program.
//
// It answers the threat of a green run that tested nothing: without
// SPLITPOD_TEST_REQUIRE a missing need skips the test with its reason; with it
// the test fails. SPLITPOD_TEST_REQUIRE is a comma-separated list of needs
// ("root", "netns", "program:nft"), or "all", which is what CI sets.
package need

import (
	"fmt"
	"os"
	"os/exec"
	"runtime"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// Root needs effective uid 0.
func Root(t testing.TB) {
	t.Helper()
	check(t, "root", func() error {
		if uid := os.Geteuid(); uid != 0 {
			return fmt.Errorf("effective uid is %d", uid)
		}
		return nil
	})
}

// NetNS needs the right to make a network namespace.
func NetNS(t testing.TB) {
	t.Helper()
	check(t, "netns", tryNetNS)
}

// Landlock needs a kernel with at least this Landlock ABI.
func Landlock(t testing.TB, abi int) {
	t.Helper()
	check(t, "landlock", func() error {
		have, _, errno := unix.Syscall(unix.SYS_LANDLOCK_CREATE_RULESET, 0, 0, unix.LANDLOCK_CREATE_RULESET_VERSION)
		if errno != 0 {
			return fmt.Errorf("needs ABI %d: %w", abi, errno)
		}
		if int(have) < abi {
			return fmt.Errorf("needs ABI %d, the kernel has %d", abi, have)
		}
		return nil
	})
}

// Program needs an executable in PATH and returns where it is.
func Program(t testing.TB, name string) string {
	t.Helper()
	var path string
	check(t, "program:"+name, func() (err error) {
		path, err = exec.LookPath(name)
		return err
	})
	return path
}

// File needs a file and returns what is in it.
func File(t testing.TB, path string) (content []byte) {
	t.Helper()
	check(t, "file:"+path, func() (err error) {
		content, err = os.ReadFile(path)
		return err
	})
	return content
}

// tryNetNS unshares on a thread that is never unlocked, so that the runtime ends
// the thread instead of reusing it in the wrong namespace. It starts from a
// fresh goroutine: the main thread must not be the one.
func tryNetNS() error {
	done := make(chan error)
	go func() {
		runtime.LockOSThread()
		old, err := os.Open("/proc/thread-self/ns/net")
		if err != nil {
			done <- err
			return
		}
		defer old.Close()
		if err := unix.Unshare(unix.CLONE_NEWNET); err != nil {
			done <- os.NewSyscallError("unshare(CLONE_NEWNET)", err)
			return
		}
		if err := unix.Setns(int(old.Fd()), unix.CLONE_NEWNET); err != nil {
			done <- os.NewSyscallError("setns", err)
			return
		}
		runtime.UnlockOSThread()
		done <- nil
	}()
	return <-done
}

func check(t testing.TB, need string, has func() error) {
	t.Helper()
	err := has()
	if err == nil {
		return
	}
	required := strings.Split(os.Getenv("SPLITPOD_TEST_REQUIRE"), ",")
	if slices.Contains(required, need) || slices.Contains(required, "all") {
		t.Fatalf("needs %s, which SPLITPOD_TEST_REQUIRE says must be here: %v", need, err)
	}
	t.Skipf("needs %s: %v", need, err)
}

// Folder is a folder for a program whose children still write in it for a moment after it
// has ended, as those of a browser do: they fail no test by that.
func Folder(t testing.TB) string {
	t.Helper()
	dir, err := os.MkdirTemp("", "splitpod-test-")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		for end := time.Now().Add(5 * time.Second); os.RemoveAll(dir) != nil && time.Now().Before(end); {
			time.Sleep(10 * time.Millisecond)
		}
	})
	return dir
}
