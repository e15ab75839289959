package launch

import (
	"errors"
	"fmt"
	"os"
	"sync"
	"testing"
	"time"

	"github.com/splitpod/splitpod/cmd/supervisor-process/internal/launch/stage"
	"github.com/splitpod/splitpod/cmd/supervisor-process/internal/prepare"
)

// TestABombDoesNotReachInit: a workload that has every process it may have is refused
// more, and does not take init, which would end everything, the threads it needs.
func TestABombDoesNotReachInit(t *testing.T) {
	s := startSandbox(t)
	procs, remove, err := prepare.LimitPIDs("/", fmt.Sprintf("splitpod-test-%d", os.Getpid()), 40)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		s.Close()
		if err := remove(); err != nil {
			t.Error(err)
		}
	})
	s.Limit(procs)
	if _, err := start(t, s, "bash", "-c", "trap '' CHLD; while :; do sleep 1000 & done"); err != nil {
		t.Fatal(err)
	}
	for deadline := time.Now().Add(60 * time.Second); ; {
		var n int
		if err := s.Query(t.Context(), "processes", &n); err != nil {
			t.Fatal(err)
		}
		if n >= 40 {
			break
		}
		if time.Now().After(deadline) {
			t.Fatalf("only %d processes", n)
		}
	}
	null, err := os.OpenFile("/dev/null", os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer null.Close()
	var wg sync.WaitGroup
	for range 20 {
		wg.Go(func() {
			for range 10 {
				_, err := s.Launch(t.Context(), Spec{Argv: []string{"true"}, Env: []string{"PATH=/usr/bin:/bin"}, As: someUser, Files: [3]*os.File{null, null, null}})
				if e, ok := errors.AsType[*LaunchError](err); err != nil && (!ok || e.Code != stage.CodeConfine) {
					t.Error(err)
					return
				}
			}
		})
	}
	wg.Wait()
	var n int
	if err := s.Query(t.Context(), "processes", &n); err != nil {
		t.Error(err)
	}
}
