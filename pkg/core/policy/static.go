package policy

import (
	"path"
	"regexp"
	"strconv"
	"strings"
)

// Limits of the static sections.
const (
	MaxPaths      = 256  // in filesystem_policy, both lists together
	MaxPathLength = 4096 // characters of one path
)

// static reads the sections that apply once, when a workload is launched.
func (o object) static(doc *Document) {
	doc.Filesystem.IncludeWorkdir = true
	if v, ok := o.fields["filesystem_policy"]; ok {
		doc.Filesystem = v.filesystem()
	}
	doc.Landlock.Compatibility = BestEffort
	if v, ok := o.fields["landlock"]; ok {
		l, _ := v.object("compatibility")
		word := l.word("compatibility", string(BestEffort), string(HardRequirement))
		if l.has("compatibility") && word == "" && l.fields["compatibility"].emptyText() {
			l.fields["compatibility"].fail("write best_effort or hard_requirement, or remove the key")
		}
		if word != "" {
			doc.Landlock.Compatibility = Compatibility(word)
		}
	}
	if v, ok := o.fields["process"]; ok {
		p, _ := v.object("run_as_user", "run_as_group")
		doc.Process.RunAsUser = p.account("run_as_user")
		doc.Process.RunAsGroup = p.account("run_as_group")
	}
}

// emptyText reports whether the value is an empty string.
func (v value) emptyText() bool { return v.node.Tag == "!!str" && v.node.Value == "" }

func (v value) filesystem() Filesystem {
	o, _ := v.object("include_workdir", "read_only", "read_write")
	fs := Filesystem{Present: true, IncludeWorkdir: o.flag("include_workdir", true)}
	only, write := o.texts("read_only"), o.texts("read_write")
	if n := len(only) + len(write); n > MaxPaths {
		o.fail("%d paths are listed; %d are allowed, name directories instead of what is in them", n, MaxPaths)
	}
	fs.ReadOnly = paths(only)
	for _, t := range write {
		p, ok := t.path()
		if ok && p == "/" {
			t.fail("/ may not be read-write; name the directories that the workload writes to")
			continue
		}
		if ok {
			fs.ReadWrite = append(fs.ReadWrite, p)
		}
	}
	return fs
}

func paths(ts []textAt) []string {
	var out []string
	for _, t := range ts {
		if p, ok := t.path(); ok {
			out = append(out, p)
		}
	}
	return out
}

// path checks one path and returns it without doubled slashes, `.` and a slash at
// the end.
func (t textAt) path() (string, bool) {
	switch {
	case len(t.s) > MaxPathLength:
		t.fail("the path has %d characters; %d are allowed", len(t.s), MaxPathLength)
	case !strings.HasPrefix(t.s, "/"):
		t.fail("%s is not absolute; start it with /", quoted(t.s))
	case hasDotDot(t.s):
		t.fail("%s goes up with ..; write the path that is meant", quoted(t.s))
	case strings.ContainsAny(t.s, "*?["):
		t.fail("%s has a wildcard, which is not read here; name the directory, all below it is included", quoted(t.s))
	default:
		return path.Clean(t.s), true
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

// account reads a user or group: a name or a decimal number.
func (o object) account(key string) string {
	v, ok := o.fields[key]
	if !ok {
		return ""
	}
	s, ok := v.text()
	if !ok || s == "" {
		return ""
	}
	if strings.Trim(s, "0123456789") == "" {
		n, err := strconv.ParseUint(s, 10, 64)
		switch {
		case n == 0 && err == nil:
			v.fail("%s is root; write a number from 1 to 4294967294", clip(s))
		case err != nil || n > 4294967294:
			v.fail("%s is out of range; write a number from 1 to 4294967294", clip(s))
		case s[0] == '0':
			v.fail("%s has a leading zero; write %d", quoted(s), n)
		default:
			return s
		}
		return ""
	}
	switch {
	case strings.EqualFold(s, "root"):
		v.fail("the workload may not run as root; name another account")
	case !accountName.MatchString(s):
		v.fail("%s is not a name; write a decimal number, or at most 32 letters, digits, _, . and - that start with a letter or _", quoted(s))
	default:
		return s
	}
	return ""
}
