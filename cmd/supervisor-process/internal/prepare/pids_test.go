package prepare

import (
	"errors"
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
			files: map[string]string{"proc/self/cgroup": "9:name=systemd:/\n8:cpu,pids:/pod/a\n0::/pod/a\n", v2 + "cgroup.controllers": "pids", v2 + "pids/pod/a/pids.max": "max\n"},
			want:  "sys/fs/cgroup/pids/pod/a"},
		"version 1, of which the container sees its own part": {
			files: map[string]string{"proc/self/cgroup": "8:pids:/kubepods/pod1/a\n", v2 + "pids/pids.max": "max\n"},
			want:  "sys/fs/cgroup/pids"},
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

// TestTheContainersLimitOfProcesses, wherever the kernel shows it.
func TestTheContainersLimitOfProcesses(t *testing.T) {
	const v1 = "8:cpu,pids:/kubepods/a\n"
	for name, tt := range map[string]struct {
		own   string // /proc/self/cgroup
		files map[string]string
		limit int
		error string
	}{
		"version 2":                          {"0::/\n", map[string]string{"pids.max": "512\n"}, 512, ""},
		"version 2, none":                    {"0::/\n", map[string]string{"pids.max": "max\n"}, 0, `pids.max is "max"`},
		"version 2, nonsense":                {"0::/\n", map[string]string{"pids.max": "-1\n"}, 0, `pids.max is "-1"`},
		"version 1":                          {v1, map[string]string{"pids/kubepods/a/pids.max": "99\n", "pids/pids.max": "max\n"}, 99, ""},
		"version 1, the container's part":    {v1, map[string]string{"pids/pids.max": "77\n"}, 77, ""},
		"version 1, none":                    {v1, map[string]string{"pids/pids.max": "max\n"}, 0, `pids.max is "max"`},
		"no cgroup file system":              {"0::/\n", nil, 0, "cannot be read"},
		"no /proc, and a limit of version 2": {"", map[string]string{"pids.max": "5\n"}, 5, ""},
		"version 1, without its file system": {v1, nil, 0, "cannot be read"},
	} {
		t.Run(name, func(t *testing.T) {
			root := t.TempDir()
			files := map[string]string{"proc/self/cgroup": tt.own}
			if tt.own == "" {
				files = map[string]string{}
			}
			for file, text := range tt.files {
				files["sys/fs/cgroup/"+file] = text
			}
			for file, text := range files {
				path := filepath.Join(root, file)
				if err := errors.Join(os.MkdirAll(filepath.Dir(path), 0o755), os.WriteFile(path, []byte(text), 0o644)); err != nil {
					t.Fatal(err)
				}
			}
			n, err := PIDLimit(root)
			if n != tt.limit || (err == nil) != (tt.error == "") || err != nil && !strings.Contains(err.Error(), tt.error) {
				t.Errorf("%d, %v; want %d, %q", n, err, tt.limit, tt.error)
			}
		})
	}
}
