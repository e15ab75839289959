package policy

import (
	"path"
	"regexp"
	"strconv"
	"strings"

	"github.com/splitpod/splitpod/pkg/core/strictyaml"
)

// Limits of the static sections.
const (
	MaxPaths      = 256  // in filesystem_policy, both lists together
	MaxPathLength = 4096 // characters of one path
)

// readStatic reads the sections that apply once, when a workload is launched.
func readStatic(o strictyaml.Object, doc *Document) {
	doc.Filesystem.IncludeWorkdir = true
	if v, ok := o.Fields["filesystem_policy"]; ok {
		doc.Filesystem = readFilesystem(v)
	}
	doc.Landlock.Compatibility = BestEffort
	if v, ok := o.Fields["landlock"]; ok {
		l, _ := v.Object("compatibility")
		word := l.Word("compatibility", string(BestEffort), string(HardRequirement))
		if l.Has("compatibility") && word == "" && l.Fields["compatibility"].IsEmptyText() {
			l.Fields["compatibility"].Fail("write best_effort or hard_requirement, or remove the key")
		}
		if word != "" {
			doc.Landlock.Compatibility = Compatibility(word)
		}
	}
	if v, ok := o.Fields["process"]; ok {
		p, _ := v.Object("run_as_user", "run_as_group")
		doc.Process.RunAsUser = readAccount(p, "run_as_user")
		doc.Process.RunAsGroup = readAccount(p, "run_as_group")
	}
}

func readFilesystem(v strictyaml.Value) Filesystem {
	o, _ := v.Object("include_workdir", "read_only", "read_write")
	fs := Filesystem{Present: true, IncludeWorkdir: o.Flag("include_workdir", true)}
	only, write := o.Texts("read_only"), o.Texts("read_write")
	if n := len(only) + len(write); n > MaxPaths {
		o.Fail("%d paths are listed; %d are allowed, name directories instead of what is in them", n, MaxPaths)
	}
	fs.ReadOnly = paths(only)
	for _, t := range write {
		p, ok := checkPath(t)
		if ok && p == "/" {
			t.Fail("/ may not be read-write; name the directories that the workload writes to")
			continue
		}
		if ok {
			fs.ReadWrite = append(fs.ReadWrite, p)
		}
	}
	return fs
}

func paths(ts []strictyaml.Text) []string {
	var out []string
	for _, t := range ts {
		if p, ok := checkPath(t); ok {
			out = append(out, p)
		}
	}
	return out
}

// checkPath checks one path and returns it without doubled slashes, `.` and a slash at
// the end.
func checkPath(t strictyaml.Text) (string, bool) {
	switch {
	case len(t.S) > MaxPathLength:
		t.Fail("the path has %d characters; %d are allowed", len(t.S), MaxPathLength)
	case !strings.HasPrefix(t.S, "/"):
		t.Fail("%s is not absolute; start it with /", strictyaml.Quoted(t.S))
	case hasDotDot(t.S):
		t.Fail("%s goes up with ..; write the path that is meant", strictyaml.Quoted(t.S))
	case strings.ContainsAny(t.S, "*?["):
		t.Fail("%s has a wildcard, which is not read here; name the directory, all below it is included", strictyaml.Quoted(t.S))
	default:
		return path.Clean(t.S), true
	}
	return "", false
}

func hasDotDot(p string) bool {
	for part := range strings.SplitSeq(p, "/") {
		if part == ".." {
			return true
		}
	}
	return false
}

var accountName = regexp.MustCompile(`^[A-Za-z_][A-Za-z0-9_.-]{0,31}$`)

// readAccount reads a user or group: a name or a decimal number.
func readAccount(o strictyaml.Object, key string) string {
	v, ok := o.Fields[key]
	if !ok {
		return ""
	}
	s, ok := v.Text()
	if !ok || s == "" {
		return ""
	}
	if strings.Trim(s, "0123456789") == "" {
		n, err := strconv.ParseUint(s, 10, 64)
		switch {
		case n == 0 && err == nil:
			v.Fail("%s is root; write a number from 1 to 4294967294", strictyaml.Clip(s))
		case err != nil || n > 4294967294:
			v.Fail("%s is out of range; write a number from 1 to 4294967294", strictyaml.Clip(s))
		case s[0] == '0':
			v.Fail("%s has a leading zero; write %d", strictyaml.Quoted(s), n)
		default:
			return s
		}
		return ""
	}
	switch {
	case strings.EqualFold(s, "root"):
		v.Fail("the workload may not run as root; name another account")
	case !accountName.MatchString(s):
		v.Fail("%s is not a name; write a decimal number, or at most 32 letters, digits, _, . and - that start with a letter or _", strictyaml.Quoted(s))
	default:
		return s
	}
	return ""
}
