package app

import (
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"testing"
)

// TestThreadsAreSparedWhereNobodySaidHowMany, neither an operator nor a limit of the
// container, which the runtime follows, though not below two threads.
func TestThreadsAreSparedWhereNobodySaidHowMany(t *testing.T) {
	processors := runtime.NumCPU()
	quota := func(us int) map[string]string { return map[string]string{"cpu.max": fmt.Sprintf("%d 100000\n", us)} }
	older := func(us int) map[string]string {
		return map[string]string{"cpu/cpu.cfs_quota_us": fmt.Sprintf("%d\n", us), "cpu/cpu.cfs_period_us": "100000\n"}
	}
	for name, c := range map[string]struct {
		set         string
		before, now int
		cgroup      map[string]string
	}{
		"nothing":             {"", processors, processors + spareThreads, nil},
		"the operator":        {"any", processors, processors, nil},
		"a limit below":       {"", processors + 7, processors + 7, nil}, // other than what there is, as a limit makes it
		"spare threads, once": {"", processors + spareThreads, processors + spareThreads, nil},

		"a limit of half a processor":            {"", processors, processors, quota(50_000)},
		"a limit just below all processors":      {"", processors, processors, quota(processors*100_000 - 1)},
		"a limit at all processors":              {"", processors, processors + spareThreads, quota(processors * 100_000)},
		"no limit":                               {"", processors, processors + spareThreads, map[string]string{"cpu.max": "max 100000\n"}},
		"version 1: half a processor":            {"", processors, processors, older(50_000)},
		"version 1: just below all processors":   {"", processors, processors, older(processors*100_000 - 1)},
		"version 1: at all processors":           {"", processors, processors + spareThreads, older(processors * 100_000)},
		"version 1: no limit":                    {"", processors, processors + spareThreads, older(-1)},
		"a limit that is none, and nothing else": {"", processors, processors + spareThreads, map[string]string{"cpu.max": ""}},
	} {
		t.Run(name, func(t *testing.T) {
			was := runtime.GOMAXPROCS(c.before)
			defer runtime.GOMAXPROCS(was)
			t.Setenv("GOMAXPROCS", c.set)
			dir := t.TempDir()
			for path, text := range c.cgroup {
				if err := os.MkdirAll(filepath.Dir(filepath.Join(dir, path)), 0o700); err != nil {
					t.Fatal(err)
				}
				if err := os.WriteFile(filepath.Join(dir, path), []byte(text), 0o600); err != nil {
					t.Fatal(err)
				}
			}
			spread(dir)
			if got := runtime.GOMAXPROCS(0); got != c.now {
				t.Errorf("%d threads, want %d", got, c.now)
			}
		})
	}
}

// TestALimitOfARunningPodIsFollowed when it is set, and when it is lifted.
func TestALimitOfARunningPodIsFollowed(t *testing.T) {
	processors := runtime.NumCPU()
	was := runtime.GOMAXPROCS(processors)
	defer runtime.GOMAXPROCS(was)
	t.Setenv("GOMAXPROCS", "")
	dir := t.TempDir()
	for _, c := range []struct {
		limit string
		spare bool
	}{
		{"max 100000\n", true},
		{"50000 100000\n", false},
		{"50000 100000\n", false},
		{"max 100000\n", true},
	} {
		if err := os.WriteFile(filepath.Join(dir, "cpu.max"), []byte(c.limit), 0o600); err != nil {
			t.Fatal(err)
		}
		spread(dir)
		if got := runtime.GOMAXPROCS(0); (got == processors+spareThreads) != c.spare {
			t.Errorf("limit %q: %d threads", c.limit, got)
		}
	}
}
