package strictyaml

import (
	"errors"
	"io/fs"
	"os"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// TestAFileIsReadByStrictRules reads a small file of some kind.
func TestAFileIsReadByStrictRules(t *testing.T) {
	read := func(source string) (keys []string, lines []string) {
		warnings, err := Read("f", []byte(source), func(top Value) {
			o, _ := top.Object("version", "list", "map")
			o.Version()
			if o.Has("map") {
				es, _ := o.Fields["map"].Entries()
				for _, e := range es {
					keys = append(keys, e.Name)
					if _, ok := e.Text(); ok && e.At().Line != e.Key.At().Line {
						e.Warn("on another line")
					}
				}
			}
			if o.Has("list") {
				vs, _ := o.Fields["list"].List()
				for _, n := range vs {
					if _, ok := n.Number(1, 9); !ok {
						n.Fail("no digit")
					}
				}
			}
		})
		var problems Problems
		if err != nil && !errors.As(err, &problems) {
			t.Fatalf("the error is a %T", err)
		}
		for _, p := range append(warnings, problems...) {
			lines = append(lines, p.String())
		}
		return keys, lines
	}
	for _, c := range []struct {
		name, source string
		keys, lines  []string
	}{
		{"a good one", "version: 1\nlist: [1, 9]\nmap: {a: b, c: d}\n", []string{"a", "c"}, nil},
		{"a warning", "version: 1\nmap:\n  a:\n    b\n", []string{"a"}, []string{"f:4:5: warning: map.a: on another line"}},
		{"everything at once", "version: 2\nlist: [0]\nmap: {a: 1, a: b}\nother: x\n", []string{"a"}, []string{
			"f:1:10: version: version 2 is not known to this build; write version: 1",
			`f:2:8: list[0]: 0 is out of range; write a number from 1 to 9`, "f:2:8: list[0]: no digit",
			`f:3:10: map.a: want text, found 1, which YAML reads as something else; write "1" in quotes`,
			"f:3:13: map.a: this key is already set on line 3; keep one of the two",
			"f:4:1: other: unknown key; write one of version, list, map",
		}},
		{"an alias", "version: &v 1\nlist: [*v]\n", nil, []string{"f:1:10: &v is an anchor; remove it, aliases are not read", "f:2:8: *v is an alias; write the value out", "f:2:8: list[0]: no digit"}},
		{"nothing", "", nil, []string{"f:1:1: the file is empty; write version: 1 at least"}},
	} {
		keys, lines := read(c.source)
		if diff := cmp.Diff(c.keys, keys) + cmp.Diff(c.lines, lines); diff != "" {
			t.Errorf("%s:\n%s", c.name, diff)
		}
	}
}

// TestAFileIsReadNoFurtherThanItMayBeLong: whatever stands there.
func TestAFileIsReadNoFurtherThanItMayBeLong(t *testing.T) {
	path := t.TempDir() + "/f"
	for size, want := range map[int]string{MaxBytes: "", 3 * MaxBytes: "f:1:1: the file has more than 1048576 bytes"} {
		if err := os.WriteFile(path, []byte("version: 1"+strings.Repeat("\n", size-len("version: 1"))), 0o600); err != nil {
			t.Fatal(err)
		}
		data, err := Load(path)
		if err != nil || len(data) > MaxBytes+1 {
			t.Errorf("of %d bytes: %d, %v", size, len(data), err)
		}
		if _, err := Read("f", data, func(Value) {}); (err == nil) != (want == "") || err != nil && err.Error() != want {
			t.Errorf("%d bytes: %v", size, err)
		}
	}
	if _, err := Load(path + "none"); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("no file: %v", err)
	}
}
