package rotate_test

import (
	"os"
	"os/signal"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/splitpod/splitpod/pkg/core/rotate"
)

type clock struct{ t time.Time }

func (c *clock) now() time.Time { return c.t }

var noon = time.Date(2026, 11, 25, 12, 0, 0, 0, time.UTC)

func open(t *testing.T, dir string, c *clock, limit int64) *rotate.Writer {
	t.Helper()
	w, err := rotate.Open(rotate.Options{Dir: dir, Name: "records", MaxBytes: limit, Now: c.now})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { w.Close() })
	return w
}

func write(t *testing.T, w *rotate.Writer, s string) {
	t.Helper()
	if n, err := w.Write([]byte(s)); n != len(s) || err != nil {
		t.Fatalf("wrote %d: %v", n, err)
	}
}

func files(t *testing.T, dir string) map[string]string {
	t.Helper()
	out := make(map[string]string)
	entries, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range entries {
		data, err := os.ReadFile(filepath.Join(dir, e.Name()))
		if err != nil {
			t.Fatal(err)
		}
		out[e.Name()] = string(data)
	}
	return out
}

func TestADayIsAFileAndThreeAreKept(t *testing.T) {
	dir, c := t.TempDir(), &clock{noon}
	w := open(t, dir, c, 0)
	for _, s := range []string{"a\n", "b\n", "c\n", "d\n"} {
		write(t, w, s)
		c.t = c.t.Add(24 * time.Hour)
	}
	want := map[string]string{"records.2026-11-26.jsonl": "b\n", "records.2026-11-27.jsonl": "c\n", "records.2026-11-28.jsonl": "d\n"}
	if d := cmp.Diff(want, files(t, dir)); d != "" {
		t.Error(d)
	}
}

func TestAFullFileIsFollowedByAnother(t *testing.T) {
	dir, c := t.TempDir(), &clock{noon}
	w := open(t, dir, c, 8)
	for _, s := range []string{"1234567\n", "2\n", "345678\n", "9\n", "a\n"} {
		write(t, w, s)
	}
	// at the limit: 8 bytes fit, and 2+7 do not
	want := map[string]string{"records.2026-11-25.1.jsonl": "2\n", "records.2026-11-25.2.jsonl": "345678\n", "records.2026-11-25.3.jsonl": "9\na\n"}
	if d := cmp.Diff(want, files(t, dir)); d != "" {
		t.Error(d)
	}
	write(t, w, strings.Repeat("x", 100)+"\n") // longer than a file: it is one then
	if got := files(t, dir)["records.2026-11-25.4.jsonl"]; len(got) != 101 {
		t.Errorf("a long write became %q", got)
	}
}

func TestARestartGoesOnInTheSameFile(t *testing.T) {
	dir, c := t.TempDir(), &clock{noon}
	w := open(t, dir, c, 8)
	for range 11 { // so that 10 comes after 9
		write(t, w, "1234567\n")
	}
	w.Close()
	write(t, open(t, dir, c, 16), "new\n")
	if got := files(t, dir); got["records.2026-11-25.10.jsonl"] != "1234567\nnew\n" || len(got) != 3 {
		t.Errorf("%v", got)
	}
}

func TestAClockThatGoesBackLosesNothing(t *testing.T) {
	dir, c := t.TempDir(), &clock{noon}
	w := open(t, dir, c, 0)
	write(t, w, "a\n")
	c.t = c.t.Add(-48 * time.Hour)
	write(t, w, "b\n")
	if got := files(t, dir); got["records.2026-11-25.jsonl"] != "a\nb\n" || len(got) != 1 {
		t.Errorf("%v", got)
	}
}

// TestSomebodyMakesRoom: what is written behind that is in a file that can be found, and
// whole.
func TestSomebodyMakesRoom(t *testing.T) {
	for how, tt := range map[string]struct {
		make func(dir, file string) error
		want map[string]string // nil: an error
	}{
		"by removing the file":        {func(_, file string) error { return os.Remove(file) }, map[string]string{"records.2026-11-25.jsonl": "b\n"}},
		"by emptying it":              {func(_, file string) error { return os.Truncate(file, 0) }, map[string]string{"records.2026-11-25.jsonl": "b\n"}},
		"by removing all there is":    {func(dir, _ string) error { return os.RemoveAll(dir) }, nil},
		"by giving it another's name": {func(dir, file string) error { return os.Rename(file, dir+"/x") }, map[string]string{"x": "12345\nb\n"}},
	} {
		t.Run(how, func(t *testing.T) {
			dir := filepath.Join(t.TempDir(), "records")
			if err := os.Mkdir(dir, 0o755); err != nil {
				t.Fatal(err)
			}
			w := open(t, dir, &clock{noon}, 8)
			write(t, w, "12345\n")
			if err := tt.make(dir, filepath.Join(dir, "records.2026-11-25.jsonl")); err != nil {
				t.Fatal(err)
			}
			if tt.want == nil {
				if _, err := w.Write([]byte("b\n")); err == nil {
					t.Error("a record is in no file, and nobody is told")
				}
				return
			}
			write(t, w, "b\n")
			if d := cmp.Diff(tt.want, files(t, dir)); d != "" {
				t.Error(d)
			}
			if how != "by emptying it" {
				return
			}
			write(t, w, "1234\n") // there is room for this in it now
			if got := files(t, dir); len(got) != 1 {
				t.Errorf("%v", got)
			}
		})
	}
}

func TestOnlyOwnFilesAreRemoved(t *testing.T) {
	dir, c := t.TempDir(), &clock{noon}
	foreign := []string{"records.jsonl", "records.2020-01-01.log", "records.2020-01-01.01.jsonl", "records.2020-01-01.0.jsonl", "records.2020-13-01.jsonl",
		"other.2020-01-01.jsonl", "records.2020-01-01.jsonl.bak", "records.2020-01-01.-1.jsonl"}
	for _, name := range append(foreign, "records.2020-01-01.jsonl", "records.2020-01-02.jsonl", "records.2020-01-03.jsonl") {
		if err := os.WriteFile(filepath.Join(dir, name), nil, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	open(t, dir, c, 0)
	got := files(t, dir)
	for _, name := range foreign {
		if _, ok := got[name]; !ok {
			t.Errorf("%s was removed", name)
		}
	}
	if _, ok := got["records.2020-01-01.jsonl"]; ok || len(got) != len(foreign)+3 {
		t.Errorf("%v", slices.Sorted(func(yield func(string) bool) {
			for name := range got {
				if !yield(name) {
					return
				}
			}
		}))
	}
}

func TestALinkIsNotWrittenThrough(t *testing.T) {
	dir, c := t.TempDir(), &clock{noon}
	target := filepath.Join(t.TempDir(), "target")
	for name, to := range map[string]string{"out of the directory": target, "inside it": "inside"} {
		t.Run(name, func(t *testing.T) {
			link := filepath.Join(dir, "records.2026-11-25.jsonl")
			if err := os.Symlink(to, link); err != nil {
				t.Fatal(err)
			}
			defer os.Remove(link)
			if w, err := rotate.Open(rotate.Options{Dir: dir, Name: "records", Now: c.now}); err == nil {
				w.Close()
				t.Error("opened through a link")
			}
		})
	}
	if _, err := os.Stat(target); err == nil {
		t.Error("the target was made")
	}
}

func TestADirectoryThatIsNotThereIsAnError(t *testing.T) {
	if _, err := rotate.Open(rotate.Options{Dir: filepath.Join(t.TempDir(), "none"), Name: "records"}); err == nil {
		t.Error("opened")
	}
}

// A disk that is full in the middle of a record: what is there stays readable, and so is
// what comes when there is room again.
func TestAFullDiskLeavesNoHalfRecord(t *testing.T) {
	dir := t.TempDir()
	w := open(t, dir, &clock{noon}, 1<<20)
	write(t, w, "the first record\n")
	signal.Ignore(syscall.SIGXFSZ)
	defer signal.Reset(syscall.SIGXFSZ)
	var before syscall.Rlimit
	if err := syscall.Getrlimit(syscall.RLIMIT_FSIZE, &before); err != nil {
		t.Fatal(err)
	}
	full := before
	full.Cur = 40 // a file of this process may not grow beyond it
	if err := syscall.Setrlimit(syscall.RLIMIT_FSIZE, &full); err != nil {
		t.Fatal(err)
	}
	n, err := w.Write([]byte("the second record\nthe third record\n"))
	if restore := syscall.Setrlimit(syscall.RLIMIT_FSIZE, &before); restore != nil {
		t.Fatal(restore)
	}
	if n != len("the second record\n") || err == nil {
		t.Errorf("wrote %d, %v", n, err)
	}
	write(t, w, "the fourth record\n")
	want := map[string]string{"records.2026-11-25.jsonl": "the first record\nthe second record\nthe fourth record\n"}
	if diff := cmp.Diff(want, files(t, dir)); diff != "" {
		t.Error(diff)
	}
}
