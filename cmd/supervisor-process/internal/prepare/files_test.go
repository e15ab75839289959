package prepare

import (
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/splitpod/splitpod/pkg/core"
	"github.com/splitpod/splitpod/test/need"
)

// tree makes directories and files ("name" or "name/") below a new root.
func tree(t *testing.T, names ...string) string {
	t.Helper()
	root := t.TempDir()
	for _, n := range names {
		path := filepath.Join(root, n)
		err := os.MkdirAll(filepath.Dir(path), 0o755)
		if strings.HasSuffix(n, "/") {
			err = errors.Join(err, os.MkdirAll(path, 0o755))
		} else {
			err = errors.Join(err, os.WriteFile(path, nil, 0o644))
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	return root
}

func TestPlanFilesAddsWhatIsThere(t *testing.T) {
	root := tree(t, "usr/", "etc/", "lib64/", "tmp/", "dev/null", "home/me/", "work/")
	a := Account{UID: uint32(os.Getuid()), Home: "/home/me"}
	for _, tt := range []struct {
		name     string
		policy   core.StaticPolicy
		workdir  string
		ro, rw   []string
		findings int
	}{
		{"an empty policy", core.StaticPolicy{IncludeWorkdir: true}, "/work", []string{"/usr", "/lib64", "/etc"}, []string{"/work", "/tmp", "/dev/null", "/home/me"}, 0},
		{"without the working directory", core.StaticPolicy{}, "/work", []string{"/usr", "/lib64", "/etc"}, []string{"/tmp", "/dev/null", "/home/me"}, 0},
		{"the root is never opened for writing", core.StaticPolicy{IncludeWorkdir: true}, "/", []string{"/usr", "/lib64", "/etc"}, []string{"/tmp", "/dev/null", "/home/me"}, 1},
		{"the policy's own entries win", core.StaticPolicy{ReadOnly: []string{"/tmp", "/home/me"}, ReadWrite: []string{"/etc", "/missing"}}, "/work",
			[]string{"/tmp", "/home/me", "/usr", "/lib64"}, []string{"/etc", "/missing", "/dev/null"}, 0},
		{"reading below what is writable anyway", core.StaticPolicy{ReadOnly: []string{"/tmp/x", "/tmpx", "/work/y"}, IncludeWorkdir: true}, "/work",
			[]string{"/tmp/x", "/tmpx", "/work/y", "/usr", "/lib64", "/etc"}, []string{"/work", "/tmp", "/dev/null", "/home/me"}, 2},
	} {
		t.Run(tt.name, func(t *testing.T) {
			got := PlanFiles(root, tt.policy, a, tt.workdir, "/no/run/dir")
			if !slices.Equal(got.ReadOnly, tt.ro) || !slices.Equal(got.ReadWrite, tt.rw) || len(got.Findings) != tt.findings {
				t.Errorf("got %+v", got)
			}
		})
	}
}

func TestPlanFilesOpensDevicesOfAGPU(t *testing.T) {
	root := tree(t, "dev/nvidiactl", "dev/nvidia0", "dev/nvidia-caps/", "dev/dri/", "proc/", "dev/other")
	got := PlanFiles(root, core.StaticPolicy{}, Account{Home: "/"}, "/", "/no/run/dir")
	for _, want := range []string{"/dev/nvidiactl", "/dev/nvidia0", "/dev/nvidia-caps", "/dev/dri", "/proc"} {
		if !slices.Contains(got.ReadWrite, want) {
			t.Errorf("%s is not among %v", want, got.ReadWrite)
		}
	}
	if slices.Contains(got.ReadOnly, "/proc") || slices.Contains(got.ReadWrite, "/dev/other") {
		t.Errorf("got %+v", got)
	}
	if got := PlanFiles(root, core.StaticPolicy{ReadOnly: []string{"/dev/nvidia0"}}, Account{Home: "/"}, "/", "/no"); slices.Contains(got.ReadWrite, "/dev/nvidia0") {
		t.Error("what the policy grants for reading was opened for writing")
	}
	if got := PlanFiles(root, core.StaticPolicy{ReadOnly: []string{"/usr", "/proc"}}, Account{Home: "/"}, "/", "/no"); slices.Contains(got.ReadOnly, "/proc") || !slices.Contains(got.ReadWrite, "/proc") {
		t.Errorf("/proc of a policy: %+v", got)
	}
}

func TestTheWorkloadsProgramIsGranted(t *testing.T) {
	root := tree(t, "srv/prog", "work/prog", "bin/prog", "bin/plain")
	for _, p := range []string{"srv/prog", "work/prog", "bin/prog"} {
		if err := os.Chmod(filepath.Join(root, p), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	for name, want := range map[string]string{
		"/srv/prog": "/srv/prog", "./prog": "/work/prog", "prog": "/bin/prog", "plain": "", "/missing": "", "missing": "", "/srv/../srv/prog": "/srv/prog",
	} {
		var f Files
		f.Grant(root, name, "relative:/sbin:/bin", "/work")
		if got := strings.Join(f.ReadOnly, " "); got != want {
			t.Errorf("%s grants %q, want %q", name, got, want)
		}
	}
}

// TestNamesOfTheImageAreNoPatterns: a home or a program may be called like one.
func TestNamesOfTheImageAreNoPatterns(t *testing.T) {
	root := tree(t, "*/", "etc/secret", "srv/", "[s]rv/prog")
	a := Account{UID: uint32(os.Getuid()), Home: "/*"}
	got := PlanFiles(root, core.StaticPolicy{}, a, "/", "/no/run/dir")
	got.Grant(root, "/[s]rv/prog", "", "/")
	if want := []string{"/*"}; !slices.Equal(got.ReadWrite, want) {
		t.Errorf("writable are %q, want %q", got.ReadWrite, want)
	}
	if want := []string{"/etc", "/[s]rv/prog"}; !slices.Equal(got.ReadOnly, want) {
		t.Errorf("readable are %q, want %q", got.ReadOnly, want)
	}
	home := Account{UID: uint32(os.Getuid()), Home: "/etc/.."}
	got = PlanFiles(root, core.StaticPolicy{}, home, "/", "/no/run/dir")
	got.Settle(root, 1234)
	if slices.Contains(got.ReadWrite, "/") {
		t.Errorf("a home of / in other words is writable: %q", got.ReadWrite)
	}
}

func TestPathsAreSettledOnce(t *testing.T) {
	root := tree(t, "usr/bin/", "usr/lib/x86/", "proc/", "dev/", "work/")
	for link, to := range map[string]string{
		"bin": "usr/bin", "lib": "/usr/lib", "abi": "lib/x86", "dev/stdout": "/proc/self/fd/1", "top": "/", "loop": "loop2", "loop2": "loop",
		"work/up": "../usr/../lib/x86", "gone": "/not/here",
	} {
		if err := os.Symlink(to, filepath.Join(root, link)); err != nil {
			t.Fatal(err)
		}
	}
	for p, want := range map[string]string{
		"/usr": "/usr", "/bin": "/usr/bin", "/lib/x86": "/usr/lib/x86", "/abi": "/usr/lib/x86", "/work/up": "/usr/lib/x86", "/dev/stdout": "/proc/self/fd/1",
		"/proc": "/proc", "/proc/self": "/proc/self", "/top": "/", "/top/bin/sh": "/usr/bin/sh", "/loop/x": "/loop/x", "/gone/x": "/not/here/x", "/missing/x": "/missing/x",
		"/": "/",
	} {
		f := Files{ReadOnly: []string{p}, ReadWrite: []string{p}}
		f.Settle(root, 1234)
		writable := []string{want}
		if want == "/" {
			writable = nil
		}
		if f.ReadOnly[0] != want || !slices.Equal(f.ReadWrite, writable) || (want == "/") != (len(f.Findings) == 1) {
			t.Errorf("%s leads to %+v, want %s", p, f, want)
		}
	}
}

// TestALinkOfTheUsersIsNotFollowed: an earlier workload may have left it on a volume, to be
// granted what it leads to when the container starts again.
func TestALinkOfTheUsersIsNotFollowed(t *testing.T) {
	need.Root(t)
	const user = 1234
	root := tree(t, "secret/", "work/", "usr/bin/prog")
	for link, owner := range map[string]int{"work/theirs": user, "work/roots": 0, "work/prog": user} {
		to := "/secret"
		if link == "work/prog" {
			to = "/usr/bin/prog"
		}
		at := filepath.Join(root, link)
		if err := errors.Join(os.Symlink(to, at), os.Lchown(at, owner, owner)); err != nil {
			t.Fatal(err)
		}
	}
	paths := []string{"/work/theirs", "/work/theirs/deep", "/work/roots", "/work/roots/deep"}
	want := []string{"/work/theirs", "/work/theirs/deep", "/secret", "/secret/deep"}
	f := Files{ReadOnly: slices.Clone(paths), ReadWrite: slices.Clone(paths)}
	f.Settle(root, user)
	if !slices.Equal(f.ReadOnly, want) || !slices.Equal(f.ReadWrite, want) {
		t.Errorf("%q lead to %+v, want %q", paths, f, want)
	}
	// What the container's command is, its user decides in any case.
	f = Files{}
	f.Grant(root, "/work/prog", "", "/")
	f.Settle(root, user)
	if want := []string{"/usr/bin/prog"}; !slices.Equal(f.ReadOnly, want) {
		t.Errorf("the command leads to %q, want %q", f.ReadOnly, want)
	}
}

func TestMissingDirectoriesAreMadeForTheWorkload(t *testing.T) {
	need.Root(t)
	root := tree(t, "there/", "file")
	for link, to := range map[string]string{"link": "/etc", "parent": "there"} {
		if err := os.Symlink(to, filepath.Join(root, link)); err != nil {
			t.Fatal(err)
		}
	}
	a := Account{UID: 1234, GID: 2345}
	made, err := MakeDirectories(root, []string{"/there", "/file", "/new/deep/er", "/there/inside"}, a)
	if err != nil || !slices.Equal(made, []string{"/new", "/new/deep", "/new/deep/er", "/there/inside"}) {
		t.Fatalf("made %v, %v", made, err)
	}
	for path, uid := range map[string]uint32{"there": 0, "new": 1234, "new/deep/er": 1234, "there/inside": 1234} {
		var st unix.Stat_t
		if err := unix.Lstat(filepath.Join(root, path), &st); err != nil || st.Uid != uid {
			t.Errorf("%s: uid %d, want %d (%v)", path, st.Uid, uid, err)
		}
	}
	for path, want := range map[string]string{
		"/link": "symbolic link", "/link/x": "symbolic link", "/parent/x/y": "/parent is a symbolic link", "/file/x": "not a directory",
	} {
		made, err := MakeDirectories(root, []string{path}, a)
		if err == nil || len(made) > 0 || !strings.Contains(err.Error(), want) || !strings.Contains(err.Error(), path) {
			t.Errorf("%s: made %v, %v; want an error with %q", path, made, err, want)
		}
	}
	if _, err := os.Stat(filepath.Join(root, "there/x")); err == nil {
		t.Error("a directory was made through a link")
	}
}

func TestPIDLimit(t *testing.T) {
	for text, want := range map[string]int{"512\n": 512, "max\n": 0, "0": 0, "-1": 0, "": 0, "1e3": 0} {
		root := tree(t, "sys/fs/cgroup/pids.max")
		if err := os.WriteFile(filepath.Join(root, "sys/fs/cgroup/pids.max"), []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
		if n, err := PIDLimit(root); n != want || (err == nil) != (want > 0) {
			t.Errorf("%q: %d, %v", text, n, err)
		}
	}
	if n, err := PIDLimit(t.TempDir()); err == nil {
		t.Errorf("without a cgroup: %d", n)
	}
}

// TestAPathIsFollowedAgainOnlyThroughTheKubeletsLinks: what the workload can write to may
// lead anywhere by now. TestAnUpdatedVolumeIsReadByTheNextProgram has a volume that is
// mounted as the kubelet does.
func TestAPathIsFollowedAgainOnlyThroughTheKubeletsLinks(t *testing.T) {
	root := t.TempDir()
	volume := filepath.Join(root, "volume")
	must := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	must(os.MkdirAll(filepath.Join(volume, "..first"), 0o755))
	must(os.WriteFile(filepath.Join(volume, "..first", "key"), nil, 0o644))
	must(os.WriteFile(filepath.Join(root, "secret"), nil, 0o644))
	must(os.Symlink("..first", filepath.Join(volume, "..data")))
	must(os.Symlink("..data/key", filepath.Join(volume, "key")))
	f := Files{ReadOnly: []string{"/volume/key"}}
	f.Settle(root, 1234)
	const settled = "/volume/..first/key"
	if !slices.Equal(f.ReadOnly, []string{settled}) || len(f.Findings) != 1 || !strings.Contains(f.Findings[0], "name /volume to let them") {
		t.Fatalf("got %+v", f)
	}
	if now := f.Now(root); !slices.Equal(now.ReadOnly, []string{settled}) {
		t.Errorf("while it is there: %v", now.ReadOnly)
	}
	must(os.RemoveAll(filepath.Join(volume, "..first")))
	must(os.Remove(filepath.Join(volume, "key")))
	must(os.Symlink("/secret", filepath.Join(volume, "key")))
	if now := f.Now(root); !slices.Equal(now.ReadOnly, []string{settled}) {
		t.Errorf("a link on a file system that can be written to was followed: %v", now.ReadOnly)
	}
}
