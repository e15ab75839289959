package prepare

import (
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

// image makes a root with account files.
func image(t *testing.T, passwd, group string) string {
	t.Helper()
	root := t.TempDir()
	for name, text := range map[string]string{"passwd": passwd, "group": group} {
		if text == "" {
			continue
		}
		if err := os.MkdirAll(filepath.Join(root, "etc"), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(root, "etc", name), []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	return root
}

const (
	passwd = "root:x:0:0:root:/root:/bin/bash\nsandbox:x:998:997::/sandbox:/bin/false\ntoor:x:0:5::/:/bin/sh\n" +
		"broken:x:abc:1::/:\nshort:x:1\nmax:x:4294967295:7::/:\nnogroup:x:55:0::/:\n1234name:x:77:77::/:\ntwice:x:86:86::/:\ntwice:x:87:87::/:\none:x:88:88::/:\nother:x:88:89::/:\n"
	group = "root:x:0:sandbox\nsandbox:x:997:\naudio:x:29:other,sandbox\nvideo:x:44:sandbox\nvideo2:x:44:sandbox\nbig:x:4294967295:sandbox\ntwice:x:90:\ntwice:x:91:\n"
)

// TestAPolicyThatNamesNobodyIsToldWhomItMeans: the name of its default stands nowhere in it.
func TestAPolicyThatNamesNobodyIsToldWhomItMeans(t *testing.T) {
	_, err := LookupAccount(image(t, "root:x:0:0:root:/root:/bin/bash\n", "root:x:0:\n"), "", "", 65532)
	if err == nil || !strings.Contains(err.Error(), `process.run_as_user: the image has no user "sandbox", who is meant where the policy says nothing`) {
		t.Error(err)
	}
}

func TestLookupAccount(t *testing.T) {
	root := image(t, passwd, group)
	for _, tt := range []struct {
		name, user, group string
		uid, gid          uint32
		groups            []uint32
		err               string
	}{
		{"the default user with its group", "", "", 998, 997, []uint32{29, 44}, ""},
		{"a named user in another group", "sandbox", "audio", 998, 29, []uint32{44}, ""},
		{"a number with an entry", "998", "", 998, 997, []uint32{29, 44}, ""},
		{"a number without an entry", "1000", "1000", 1000, 1000, nil, ""},
		{"a number without an entry or group", "1000", "", 0, 0, nil, "group"},
		{"root by name", "root", "sandbox", 0, 0, nil, "uid 0"},
		{"root by number", "0", "5", 0, 0, nil, "uid 0"},
		{"root by another name", "toor", "", 0, 0, nil, "uid 0"},
		{"root written long", "0000", "5", 0, 0, nil, "uid 0"},
		{"the overflow id", "4294967295", "5", 0, 0, nil, "uid 4294967295"},
		{"the overflow id by name", "max", "5", 0, 0, nil, "uid 4294967295"},
		{"a number beyond", "4294967296", "5", 0, 0, nil, "not an id"},
		{"a negative number", "-1", "5", 0, 0, nil, "no user"},
		{"a number with letters", "1000x", "5", 0, 0, nil, "not an id"},
		{"a name that starts with a digit", "1234name", "5", 0, 0, nil, "not an id"},
		{"root's group", "sandbox", "0", 0, 0, nil, "gid 0"},
		{"root's group by name", "sandbox", "root", 0, 0, nil, "gid 0"},
		{"root's group as primary", "nogroup", "", 0, 0, nil, "gid 0"},
		{"the overflow group", "sandbox", "4294967295", 0, 0, nil, "4294967295"},
		{"an unknown user", "nobody-here", "5", 0, 0, nil, "no user"},
		{"an unknown group", "sandbox", "nothing", 0, 0, nil, "no group"},
		{"a malformed entry does not count", "broken", "", 0, 0, nil, "no user"},
		{"a name that is there twice", "twice", "5", 0, 0, nil, "2 entries"},
		{"a number that two names have", "88", "5", 0, 0, nil, "2 entries"},
		{"a group that is there twice", "sandbox", "twice", 0, 0, nil, "2 entries"},
		{"the network daemon's user", "65532", "65532", 0, 0, nil, "network daemon"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			a, err := LookupAccount(root, tt.user, tt.group, 65532)
			if tt.err != "" {
				if err == nil || !strings.Contains(err.Error(), tt.err) || a.UID != 0 {
					t.Fatalf("got %+v, %v; want an error with %q", a, err, tt.err)
				}
				return
			}
			if err != nil || a.UID != tt.uid || a.GID != tt.gid || !slices.Equal(a.Groups, tt.groups) {
				t.Fatalf("got %+v, %v", a, err)
			}
			if !filepath.IsAbs(a.Home) {
				t.Errorf("home %q is not absolute", a.Home)
			}
		})
	}
}

func TestAnImageWithoutAccountFilesNeedsNumbers(t *testing.T) {
	root := image(t, "", "")
	if a, err := LookupAccount(root, "1000", "1001", 1); err != nil || a.UID != 1000 || a.GID != 1001 || a.Shell != "" {
		t.Errorf("got %+v, %v", a, err)
	}
	if _, err := LookupAccount(root, "", "", 1); err == nil {
		t.Error("the default user was found in an empty image")
	}
}

// TestTheShellIsOneThatRunsCommands: the account's own, if it is there, and others in the
// place of one that lets nobody in.
func TestTheShellIsOneThatRunsCommands(t *testing.T) {
	for _, tt := range []struct{ name, shell, there, want string }{
		{"its own", "/opt/zsh", "/opt/zsh /bin/bash /bin/sh", "/opt/zsh"},
		{"one that is not there", "/opt/zsh", "/bin/bash /bin/sh", "/bin/bash"},
		{"none", "", "/bin/sh", "/bin/sh"},
		{"a relative one", "bin/sh", "/bin/bash /bin/sh", "/bin/bash"},
		{"nologin", "/usr/sbin/nologin", "/usr/sbin/nologin /bin/sh", "/bin/sh"},
		{"false", "/bin/false", "/bin/false /bin/bash /bin/sh", "/bin/bash"},
		{"nologin, and nothing else", "/sbin/nologin", "/sbin/nologin", ""},
	} {
		t.Run(tt.name, func(t *testing.T) {
			root := image(t, "agent:x:5:5::/:"+tt.shell+"\n", "")
			for path := range strings.FieldsSeq(tt.there) {
				if err := os.MkdirAll(filepath.Join(root, filepath.Dir(path)), 0o755); err != nil {
					t.Fatal(err)
				}
				if err := os.WriteFile(filepath.Join(root, path), nil, 0o755); err != nil {
					t.Fatal(err)
				}
			}
			if a, err := LookupAccount(root, "agent", "", 1); err != nil || a.Shell != tt.want {
				t.Errorf("the shell is %q (%v), want %q", a.Shell, err, tt.want)
			}
		})
	}
}

func TestHostileAccountFilesAreRefused(t *testing.T) {
	huge := image(t, "sandbox:x:5:5::/:\n"+strings.Repeat("x", maxAccountFile), "")
	pipe := image(t, "", "g:x:1:")
	if err := unix.Mkfifo(filepath.Join(pipe, "etc/passwd"), 0o666); err != nil {
		t.Fatal(err)
	}
	long := image(t, "", "g:x:1:"+strings.Repeat("a,", maxAccountLine/2)+"\n")
	edge := strings.Repeat("#", maxAccountLine-1) + "\nsandbox:x:5:5::/:\n"
	edge += strings.Repeat("\n", maxAccountFile-len(edge))
	if a, err := LookupAccount(image(t, edge, ""), "sandbox", "", 1); err != nil || a.UID != 5 {
		t.Errorf("files at their limits: %+v, %v", a, err)
	}
	many := image(t, "sandbox:x:5:5::/:\n", "")
	var b strings.Builder
	for i := range maxGroups + 1 {
		b.WriteString("g:x:" + string(rune('1'+i/10%10)) + string(rune('0'+i%10)) + ":sandbox\n")
	}
	if err := os.WriteFile(filepath.Join(many, "etc/group"), []byte(b.String()), 0o644); err != nil {
		t.Fatal(err)
	}
	for name, root := range map[string]string{"too large": huge, "a pipe": pipe, "too many groups": many, "a line too long": long} {
		if a, err := LookupAccount(root, "sandbox", "", 1); err == nil {
			t.Errorf("%s: got %+v", name, a)
		}
	}
}

func TestMissingCapabilitiesAreNamedWithTheirUse(t *testing.T) {
	text := (&MissingError{Capabilities[:2]}).Error()
	for _, want := range []string{"SYS_ADMIN", "namespaces", "NET_ADMIN", "fence"} {
		if !strings.Contains(text, want) {
			t.Errorf("%q lacks %q", text, want)
		}
	}
}
