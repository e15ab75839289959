package app

import (
	"testing"

	"golang.org/x/sys/unix"
)

func TestNoCoreIsWritten(t *testing.T) {
	if err := harden(); err != nil {
		t.Fatal(err)
	}
	var limit unix.Rlimit
	if err := unix.Getrlimit(unix.RLIMIT_CORE, &limit); err != nil || limit != (unix.Rlimit{}) {
		t.Errorf("the limit of core files is %+v (%v)", limit, err)
	}
	if v, err := unix.PrctlRetInt(unix.PR_GET_DUMPABLE, 0, 0, 0, 0); err != nil || v != 0 {
		t.Errorf("dumpable is %d (%v)", v, err)
	}
}
