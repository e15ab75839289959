package prepare

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// TestWhereALimitOfProcessesGoes: the files of both hierarchies as the kernel shows them to
// a container. Seen with a kernel of its own (6.1, cgroup2 alone, a cgroup namespace), too.
func TestWhereALimitOfProcessesGoes(t *testing.T) {
	const v2 = "sys/fs/cgroup/"
	for name, tt := range map[string]struct {
		files       map[string]string
		want, error string
		moved       string // the last process that had to move
		granted     string // what children may then count
	}{
		"version 1, beside version 2": {
			files: map[string]string{"proc/self/cgroup": "9:name=systemd:/\n8:cpu,pids:/pod/a\n0::/pod/a\n", v2 + "cgroup.controllers": "pids"},
			want:  "sys/fs/cgroup/pids/pod/a"},
		"version 2, with processes in it": {
			files: map[string]string{"proc/self/cgroup": "0::/\n", v2 + "cgroup.controllers": "cpu memory pids\n", v2 + "cgroup.subtree_control": "\n", v2 + "cgroup.procs": "1\n154\n"},
			want:  v2, moved: "154", granted: "+pids"},
		"version 2, by the second daemon": {
			files: map[string]string{"proc/self/cgroup": "0::/splitpod-supervisor\n", v2 + "cgroup.controllers": "cpu pids\n", v2 + "cgroup.subtree_control": "pids\n", v2 + "cgroup.procs": ""},
			want:  v2, granted: "pids\n"},
		"version 2 that counts no processes": {
			files: map[string]string{"proc/self/cgroup": "0::/\n", v2 + "cgroup.controllers": "cpu memory hugetlb\n"},
			error: "no pids controller"},
		"no cgroup file system": {
			files: map[string]string{"proc/self/cgroup": "0::/\n"},
			error: "no pids controller"},
		"no /proc": {error: "proc/self/cgroup"},
	} {
		t.Run(name, func(t *testing.T) {
			root := t.TempDir()
			for file, text := range tt.files {
				path := filepath.Join(root, file)
				if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
					t.Fatal(err)
				}
				if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
					t.Fatal(err)
				}
			}
			got, err := pidsCgroup(root)
			if tt.error != "" {
				if err == nil || !strings.Contains(err.Error(), tt.error) {
					t.Errorf("got %q, %v; want an error with %q", got, err, tt.error)
				}
				return
			}
			if want := filepath.Join(root, tt.want); err != nil || got != want {
				t.Errorf("got %q, %v; want %q", got, err, want)
			}
			moved, _ := os.ReadFile(filepath.Join(root, v2, "splitpod-supervisor/cgroup.procs"))
			if strings.TrimSpace(string(moved)) != tt.moved {
				t.Errorf("%q was moved last, want %q", moved, tt.moved)
			}
			if granted, _ := os.ReadFile(filepath.Join(root, v2, "cgroup.subtree_control")); string(granted) != tt.granted {
				t.Errorf("children count %q, want %q", granted, tt.granted)
			}
		})
	}
}
