package prepare

import (
	"maps"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

func TestAccountFilesGetTheRowTheyLack(t *testing.T) {
	const passwd, group = "root:x:0:0:root:/root:/bin/bash\napp:x:7:7::/app:/bin/sh", "root:x:0:\ndocker:x:999:sandbox\n"
	for name, tt := range map[string]struct {
		passwd, group string
		user, gid     string
		change        func(t *testing.T, etc string)
		want          map[string]string // by file, what was added
	}{
		"neither is known": {passwd, group, "4242", "4343", nil, map[string]string{
			"/etc/passwd": "\nsandbox:x:4242:4343::/:\n", "/etc/group": "sandbox:x:4343:\n"}},
		"the group is known": {passwd, group, "4242", "999", nil, map[string]string{"/etc/passwd": "\nsandbox:x:4242:999::/:\n"}},
		"the user is known":  {passwd, group, "7", "4343", nil, map[string]string{"/etc/group": "sandbox:x:4343:\n"}},
		"both are known":     {passwd, group + "app:x:7:\n", "app", "", nil, nil},
		"the name is taken": {passwd + "\nsandbox:x:5:5::/:\n", group + "sandbox:x:5:\n", "4242", "4343", nil, map[string]string{
			"/etc/passwd": "sandbox4242:x:4242:4343::/:\n", "/etc/group": "sandbox4343:x:4343:\n"}},
		"no files": {"", "", "4242", "4343", nil, nil},
		"not everybody's to read": {passwd, group, "4242", "4343", func(t *testing.T, etc string) {
			for _, name := range []string{"/passwd", "/group"} {
				if err := os.Chmod(etc+name, 0o640); err != nil {
					t.Error(err)
				}
			}
		}, nil},
		"links": {passwd, group, "4242", "4343", func(t *testing.T, etc string) {
			for _, name := range []string{"/passwd", "/group"} {
				if err := os.Rename(etc+name, etc+name+".real"); err != nil {
					t.Error(err)
				}
				if err := os.Symlink("."+name+".real", etc+name); err != nil {
					t.Error(err)
				}
			}
		}, nil},
	} {
		t.Run(name, func(t *testing.T) {
			root := image(t, tt.passwd, tt.group)
			if tt.change != nil {
				tt.change(t, filepath.Join(root, "etc"))
			}
			a, err := LookupAccount(root, tt.user, tt.gid, 1)
			if err != nil {
				t.Fatal(err)
			}
			if a.Unlisted && len(a.Groups) > 0 {
				t.Errorf("a user without an entry is in %v", a.Groups)
			}
			got := make(map[string]string)
			for path, data := range AccountFiles(root, a) {
				before, err := os.ReadFile(filepath.Join(root, path))
				if err != nil {
					t.Fatal(err)
				}
				added, kept := strings.CutPrefix(string(data), string(before))
				if !kept {
					t.Errorf("%s was changed: %q", path, data)
				}
				got[path] = added
			}
			if !maps.Equal(got, tt.want) {
				t.Errorf("%+v: added %q, want %q", a, got, tt.want)
			}
		})
	}
}

func TestAHomeThatCannotBeWrittenDownAddsNoRow(t *testing.T) {
	root := image(t, "root:x:0:0::/root:/bin/sh\n", "users:x:100:\n")
	for home, want := range map[string]int{"/home": 1, "/a:b": 0, "/a\nroot2:x:0:0::/:": 0} {
		if got := AccountFiles(root, Account{Name: "sandbox", Unlisted: true, UID: 9, GID: 100, Home: home}); len(got) != want {
			t.Errorf("%q: %q", home, got)
		}
	}
}
