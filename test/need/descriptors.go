package need

import (
	"os"
	"testing"

	"golang.org/x/sys/unix"
)

// NoDescriptors lets this process have no more than it has, until restore is called. No other
// test may run beside.
func NoDescriptors(t testing.TB) (restore func()) {
	t.Helper()
	next, err := os.Open("/dev/null") // it gets the lowest number that is free
	if err != nil {
		t.Fatal(err)
	}
	number := next.Fd()
	next.Close()
	var old unix.Rlimit
	if err := unix.Getrlimit(unix.RLIMIT_NOFILE, &old); err != nil {
		t.Fatal(err)
	}
	if err := unix.Setrlimit(unix.RLIMIT_NOFILE, &unix.Rlimit{Cur: uint64(number), Max: old.Max}); err != nil {
		t.Fatal(err)
	}
	return func() {
		if err := unix.Setrlimit(unix.RLIMIT_NOFILE, &old); err != nil {
			t.Error(err)
		}
	}
}
