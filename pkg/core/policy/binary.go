package policy

import (
	"path"
	"strings"

	"github.com/splitpod/splitpod/pkg/core/policy/glob"
	"github.com/splitpod/splitpod/pkg/core/strictyaml"
)

// internal are the keys that no file may set.
var internal = []string{"advisor_proposed", "provider_credentialed"}

// proposed reads the mark of what the workload proposed. Marks in a file are reported here,
// and as known keys, so that the message says why.
func (n *network) proposed(o strictyaml.Object) bool {
	if n.composed {
		return o.Flag("advisor_proposed", false)
	}
	for _, key := range internal {
		if v, ok := o.Fields[key]; ok {
			v.Fail("this key is set by the system only; remove it")
		}
	}
	return false
}

// binary reads one entry of binaries. The key harness is accepted for the sake of
// older files and has no meaning.
func (n *network) binary(v strictyaml.Value) Binary {
	b := Binary{At: v.At()}
	if v.IsText() {
		v.Fail("want a map, found text; write - {path: %s}", strictyaml.Clip(v.Literal()))
		return b
	}
	o, ok := v.Object("path", "harness", "advisor_proposed")
	if !ok {
		return b
	}
	b.AdvisorProposed = n.proposed(o)
	if h, ok := o.Fields["harness"]; ok {
		h.Scalar("text")
	}
	p, ok := o.Fields["path"]
	if !ok {
		o.FailKey("path", "the path is missing; write the absolute path of a program")
		return b
	}
	if b.Path, ok = p.Text(); ok {
		checkBinary(p, b.Path)
	}
	return b
}

func checkBinary(v strictyaml.Value, s string) {
	switch {
	case s == "":
		v.Fail("the path is empty; write the absolute path of a program")
	case len(s) > MaxPathLength:
		v.Fail("the path has %d characters; %d are allowed", len(s), MaxPathLength)
	case strings.Contains(s, "*"):
		checkPathGlob(v, s)
	case s[0] != '/':
		v.Fail("%s is not absolute and would never match; start it with /", strictyaml.Quoted(s))
	case path.Clean(s) != s:
		v.Fail("%s would never match, programs are compared by their cleaned path; write %s", strictyaml.Quoted(s), strictyaml.Quoted(path.Clean(s)))
	case strings.ContainsAny(s, "?[{"):
		v.Warn("without a * this is compared as plain text, the other wildcards are not read")
	}
}

// checkPathGlob checks a pattern that is compared with absolute paths.
func checkPathGlob(v strictyaml.Value, s string) {
	if _, err := glob.Compile(s, '/'); err != nil {
		v.Fail("%s is not a valid pattern: %v", strictyaml.Quoted(s), err)
		return
	}
	if !glob.MatchesSomePath(s) {
		v.Fail("%s would never match, paths start with / and * stops at it; start the pattern with / or **/", strictyaml.Quoted(s))
	}
}
