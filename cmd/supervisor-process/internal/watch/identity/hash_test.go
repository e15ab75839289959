package identity

import (
	"errors"
	"os"
	"testing"
	"testing/synctest"
	"time"
)

// TestOnlySoManyFilesAreHashedAtATime: a workload that runs ever new large programs makes
// its own questions wait, and nothing here grow.
func TestOnlySoManyFilesAreHashedAtATime(t *testing.T) {
	proc, err := os.Open("/proc")
	if err != nil {
		t.Fatal(err)
	}
	defer proc.Close()
	fs := procfs{fd: int(proc.Fd())}
	self, err := fs.read(os.Getpid())
	if err != nil {
		t.Fatal(err)
	}
	for busy, want := range map[int]error{maxHashing - 1: nil, maxHashing: errHashing} {
		synctest.Test(t, func(t *testing.T) {
			tr := trust{hashing: make(chan struct{}, maxHashing)}
			for range busy {
				tr.hashing <- struct{}{}
			}
			asked := time.Now()
			sum, err := tr.check(t.Context(), fs, &self)
			if !errors.Is(err, want) || (sum == "") != (want != nil) {
				t.Errorf("with %d being hashed: %q, %v", busy, sum, err)
			}
			if waited := time.Since(asked); want != nil && waited != hashPatience {
				t.Errorf("it waited %s", waited)
			}
			if len(tr.hashing) != busy {
				t.Errorf("%d places are taken, were %d", len(tr.hashing), busy)
			}
		})
	}
}
