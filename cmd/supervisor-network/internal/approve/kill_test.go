package approve

import (
	"bufio"
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"testing"

	"github.com/splitpod/splitpod/cmd/supervisor-network/internal/aggregate"
	"github.com/splitpod/splitpod/pkg/core/policy"
)

const killDir = "SPLITPOD_TEST_APPROVE_DIR"

// TestMain is the child of TestAKillLosesNothingThatWasTaken when it is told so.
func TestMain(m *testing.M) {
	if dir := os.Getenv(killDir); dir != "" {
		takeForEver(dir)
	}
	os.Exit(m.Run())
}

// hits is how many denials the only proposal there is stands for.
func hits(s *Store) uint64 {
	for _, e := range s.List() {
		return e.Hits
	}
	return 0
}

// takeForEver takes one denial after the other and says each number once it is taken.
func takeForEver(dir string) {
	base := &policy.Document{Version: 1}
	s, err := Open(Options{Dir: dir, Base: func() *policy.Document { return base }})
	if err != nil {
		fmt.Println(err)
		os.Exit(1)
	}
	for n := hits(s) + 1; ; n++ {
		d := denial("h.example.com", "/usr/bin/curl", "", "", 1)
		if err := s.Take(context.Background(), &aggregate.Batch{Denials: []aggregate.Summary{d}}); err != nil {
			fmt.Println(err)
			os.Exit(1)
		}
		fmt.Println(n)
	}
}

// A hundred kills, each somewhere in the middle of writing: the file is always whole,
// what was said to be taken is there, and nothing is there twice.
func TestAKillLosesNothingThatWasTaken(t *testing.T) {
	dir := t.TempDir()
	kills := 100
	if testing.Short() {
		kills = 10
	}
	for i := range kills {
		cmd := exec.CommandContext(t.Context(), os.Args[0])
		cmd.Env = append(os.Environ(), killDir+"="+dir)
		out, err := cmd.StdoutPipe()
		if err != nil {
			t.Fatal(err)
		}
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		said := uint64(0)
		lines := bufio.NewScanner(out)
		for n := 0; lines.Scan(); n++ {
			if said, err = strconv.ParseUint(lines.Text(), 10, 64); err != nil {
				t.Fatalf("the child says %q", lines.Text())
			}
			if n == i%7 {
				_ = cmd.Process.Kill()
			}
		}
		_ = cmd.Wait()
		s, err := Open(Options{Dir: dir})
		if err != nil {
			t.Fatalf("after kill %d: %v", i, err)
		}
		if left, _ := filepath.Glob(filepath.Join(dir, ".*")); len(left) != 0 {
			t.Fatalf("%v are left", left)
		}
		// One more than was said may be kept: the kill came before it was.
		if kept := hits(s); kept < said || kept > said+1 || len(s.List()) != 1 {
			t.Fatalf("%d were taken, %d are kept, in %d proposals", said, kept, len(s.List()))
		}
	}
}
