package mount

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/splitpod/splitpod/test/need"
)

// seen is what a process in the new namespaces finds.
type seen struct {
	Error     string
	RunDir    []string
	CA        string
	Mode      os.FileMode
	CanWrite  bool
	Processes []string
	Outside   string // content of /proc/OUTSIDE/cmdline
}

// TestMain runs the second half of a test as pid 1 of new namespaces.
func TestMain(m *testing.M) {
	if len(os.Args) != 4 || os.Args[1] != "inside" {
		os.Exit(m.Run())
	}
	var s seen
	_, err := Setup()
	public := map[string][]byte{"ca.pem": []byte("certificate")}
	if n := sizes[filepath.Base(os.Args[2])]; n > 0 {
		public["large"] = make([]byte, n)
	}
	if err := errors.Join(err, Cover(os.Args[2], public)); err != nil {
		s.Error = err.Error()
	} else {
		s.look(os.Args[2], os.Args[3])
	}
	_ = json.NewEncoder(os.Stdout).Encode(s)
	os.Exit(0)
}

// sizes are those of a second public file in folders of these names.
var sizes = map[string]int{"certificates-of-the-largest-image": 12 << 20, "more": 16<<20 + 1}

func (s *seen) look(runDir, outside string) {
	entries, _ := os.ReadDir(runDir)
	for _, e := range entries {
		s.RunDir = append(s.RunDir, e.Name())
	}
	data, _ := os.ReadFile(filepath.Join(runDir, "ca.pem"))
	s.CA = string(data)
	if st, err := os.Stat(filepath.Join(runDir, "ca.pem")); err == nil {
		s.Mode = st.Mode()
	}
	err := os.WriteFile(filepath.Join(runDir, "new"), nil, 0o644)
	s.CanWrite = !errors.Is(err, unix.EROFS)
	entries, _ = os.ReadDir("/proc")
	for _, e := range entries {
		if strings.Trim(e.Name(), "0123456789") == "" {
			s.Processes = append(s.Processes, e.Name())
		}
	}
	data, _ = os.ReadFile("/proc/" + outside + "/cmdline")
	s.Outside = string(data)
}

func inside(t *testing.T, runDir string) seen {
	t.Helper()
	need.Root(t)
	need.NetNS(t)
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(self, "inside", runDir, fmt.Sprint(os.Getpid()))
	cmd.SysProcAttr = &syscall.SysProcAttr{Cloneflags: unix.CLONE_NEWNS | unix.CLONE_NEWPID | unix.CLONE_NEWIPC}
	var out bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, os.Stderr
	if err := cmd.Run(); err != nil {
		t.Fatal(err)
	}
	var s seen
	if err := json.Unmarshal(out.Bytes(), &s); err != nil {
		t.Fatalf("%v: %s", err, out.Bytes())
	}
	return s
}

func TestOnlyPublicFilesAndOwnProcessesAreSeen(t *testing.T) {
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, "process.sock"), nil, 0o666); err != nil {
		t.Fatal(err)
	}
	s := inside(t, dir)
	if s.Error != "" {
		t.Fatal(s.Error)
	}
	if fmt.Sprint(s.RunDir) != "[ca.pem]" || s.CA != "certificate" || s.Mode != 0o444 || s.CanWrite {
		t.Errorf("run directory: %+v", s)
	}
	if fmt.Sprint(s.Processes) != "[1]" || s.Outside != "" {
		t.Errorf("processes: %+v", s)
	}
	if _, err := os.Stat(filepath.Join(dir, "process.sock")); err != nil {
		t.Errorf("outside, the directory changed: %v", err)
	}
}

// TestThereIsRoomForWhatIsPublic: a bundle of roots may have 4 MiB, each of the ways it is
// read in less than as much.
func TestThereIsRoomForWhatIsPublic(t *testing.T) {
	for name := range sizes {
		dir := filepath.Join(t.TempDir(), name)
		if err := os.Mkdir(dir, 0o755); err != nil {
			t.Fatal(err)
		}
		if s := inside(t, dir); (s.Error == "") != (name != "more") || name == "more" && !strings.Contains(s.Error, dir+"/large") {
			t.Errorf("%s: error %q", name, s.Error)
		}
	}
}

func TestALinkOnTheWayIsRefused(t *testing.T) {
	dir := t.TempDir()
	for _, err := range []error{
		os.MkdirAll(filepath.Join(dir, "real", "run"), 0o755),
		os.Symlink("real", filepath.Join(dir, "middle")),
		os.Symlink("real/run", filepath.Join(dir, "last")),
	} {
		if err != nil {
			t.Fatal(err)
		}
	}
	for _, path := range []string{dir + "/middle/run", dir + "/last", dir + "/missing"} {
		if s := inside(t, path); s.Error == "" || !strings.Contains(s.Error, path) {
			t.Errorf("%s: error %q", path, s.Error)
		}
	}
}

func TestPublicNamesStayInTheDirectory(t *testing.T) {
	dir, err := os.Open(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	defer dir.Close()
	for _, name := range []string{"", ".", "..", "a/", "a//b", "a/./b", "a/../b", "a/../../b", "/etc/x", "../x"} {
		if writePublic(dir, name, nil) == nil {
			t.Errorf("%q was written", name)
		}
	}
	for _, name := range []string{"a", "b/c/d", "b/c/e"} {
		if err := writePublic(dir, name, []byte(name)); err != nil {
			t.Errorf("%q: %v", name, err)
		}
		if got, err := os.ReadFile(filepath.Join(dir.Name(), name)); err != nil || string(got) != name {
			t.Errorf("%q holds %q (%v)", name, got, err)
		}
		if err := writePublic(dir, name, nil); err == nil {
			t.Errorf("%q was written twice", name)
		}
	}
}
