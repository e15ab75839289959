package command

import (
	"bytes"
	"os"
	"path/filepath"
	"testing"
)

func TestCopySelfWritesThisBinaryWhole(t *testing.T) {
	dir := t.TempDir()
	for range 2 { // again over itself, as an init container that runs twice
		var out bytes.Buffer
		if code := copySelfCommand([]string{dir}, &out); code != exitOK {
			t.Fatalf("exit code %d: %s", code, out.String())
		}
	}
	want, err := os.ReadFile("/proc/self/exe")
	if err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(dir, "supervisor-process")
	got, err := os.ReadFile(path)
	if err != nil || !bytes.Equal(got, want) {
		t.Errorf("the copy differs (%v)", err)
	}
	if info, err := os.Stat(path); err != nil || info.Mode() != 0o555 {
		t.Errorf("mode %v, %v", info.Mode(), err)
	}
	if entries, _ := os.ReadDir(dir); len(entries) != 1 {
		t.Errorf("the folder has %v", entries)
	}
}

func TestCopySelfRefusesWhatItCannotDo(t *testing.T) {
	for name, tc := range map[string]struct {
		args []string
		code int
	}{
		"no directory":        {nil, exitUsage},
		"two":                 {[]string{"/a", "/b"}, exitUsage},
		"a relative one":      {[]string{"here"}, exitUsage},
		"one that is missing": {[]string{t.TempDir() + "/missing"}, exitFailed},
	} {
		t.Run(name, func(t *testing.T) {
			var out bytes.Buffer
			if code := copySelfCommand(tc.args, &out); code != tc.code || out.Len() == 0 {
				t.Errorf("exit code %d, want %d, %q", code, tc.code, out.String())
			}
		})
	}
}
