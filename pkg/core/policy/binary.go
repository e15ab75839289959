package policy

import (
	"path"
	"strings"

	"go.yaml.in/yaml/v3"

	"github.com/splitpod/splitpod/pkg/core/policy/glob"
)

// internal are the keys that no file may set.
var internal = []string{"advisor_proposed", "provider_credentialed"}

// withoutInternal reports and removes keys that are not for files, so that they
// are not unknown keys as well.
func (o object) withoutInternal() {
	for _, key := range internal {
		if v, ok := o.fields[key]; ok {
			v.fail("this key is set by the system only; remove it")
		}
	}
}

// binary reads one entry of binaries. The key harness is accepted for the sake of
// older files and has no meaning.
func (v value) binary() Binary {
	b := Binary{At: v.at()}
	if v.node.Kind == yaml.ScalarNode && v.node.Tag == "!!str" {
		v.fail("want a map, found text; write - {path: %s}", clip(v.node.Value))
		return b
	}
	o, ok := v.object("path", "harness", "advisor_proposed")
	if !ok {
		return b
	}
	o.withoutInternal()
	if h, ok := o.fields["harness"]; ok {
		h.scalar("text")
	}
	p, ok := o.fields["path"]
	if !ok {
		o.missing("path", "the path is missing; write the absolute path of a program")
		return b
	}
	if b.Path, ok = p.text(); ok {
		p.checkBinary(b.Path)
	}
	return b
}

func (v value) checkBinary(s string) {
	switch {
	case s == "":
		v.fail("the path is empty; write the absolute path of a program")
	case len(s) > MaxPathLength:
		v.fail("the path has %d characters; %d are allowed", len(s), MaxPathLength)
	case strings.Contains(s, "*"):
		v.checkPathGlob(s)
	case s[0] != '/':
		v.fail("%s is not absolute and would never match; start it with /", quoted(s))
	case path.Clean(s) != s:
		v.fail("%s would never match, programs are compared by their cleaned path; write %s", quoted(s), quoted(path.Clean(s)))
	case strings.ContainsAny(s, "?[{"):
		v.warn("without a * this is compared as plain text, the other wildcards are not read")
	}
}

// checkPathGlob checks a pattern that is compared with absolute paths.
func (v value) checkPathGlob(s string) {
	if _, err := glob.Compile(s, '/'); err != nil {
		v.fail("%s is not a valid pattern: %v", quoted(s), err)
		return
	}
	if !glob.MatchesSomePath(s) {
		v.fail("%s would never match, paths start with / and * stops at it; start the pattern with / or **/", quoted(s))
	}
}
