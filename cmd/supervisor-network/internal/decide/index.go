package decide

import (
	"slices"
	"strings"
)

// httpRules are rules about HTTP requests, indexed by the text that the paths they
// match start with: of thousands of rules a request meets a handful.
type httpRules struct {
	rules  []httpRule // in the order of their groups
	groups []group    // sorted by start
}

// group is the rules whose paths start with the same text.
type group struct {
	start    string
	parent   int // the group with the longest other start that this one starts with; none
	from, to int // of rules
}

func start(m *httpRule) string {
	if m.path == nil {
		return ""
	}
	return m.path.Head()
}

func indexRules(rules []httpRule) httpRules {
	rules = slices.Clone(rules)
	slices.SortStableFunc(rules, func(a, b httpRule) int { return strings.Compare(start(&a), start(&b)) })
	x := httpRules{rules: rules}
	for i := range rules {
		s, last := start(&rules[i]), len(x.groups)-1
		if last >= 0 && x.groups[last].start == s {
			x.groups[last].to = i + 1
			continue
		}
		parent := last
		for parent >= 0 && !strings.HasPrefix(s, x.groups[parent].start) {
			parent = x.groups[parent].parent
		}
		x.groups = append(x.groups, group{start: s, parent: parent, from: i, to: i + 1})
	}
	return x
}

// nearest is the last group whose start does not sort behind the path. Every start
// that the path begins with is that group's or one of its parents'.
func (x *httpRules) nearest(path string) int {
	low, high := 0, len(x.groups)
	for low < high {
		if middle := (low + high) / 2; x.groups[middle].start <= path {
			low = middle + 1
		} else {
			high = middle
		}
	}
	return low - 1
}

// allows reports whether a rule allows the request.
func (x *httpRules) allows(r *Request) bool {
	for g := x.nearest(r.Path); g >= 0; g = x.groups[g].parent {
		if !strings.HasPrefix(r.Path, x.groups[g].start) {
			continue
		}
		for i := x.groups[g].from; i < x.groups[g].to; i++ {
			if x.rules[i].allows(r) {
				return true
			}
		}
	}
	return false
}

// denies tries every reading that an origin could have of the path: many take no notice of
// letter case or of a slash at the end, and some undo escapes too early.
func (x *httpRules) denies(r *Request) bool {
	if len(x.rules) == 0 {
		return false
	}
	return x.deniesEither(r, r.Path) || slices.ContainsFunc(decodings(r.Path), func(path string) bool { return x.deniesEither(r, path) })
}

// deniesEither tries a path as it is and in lower case.
func (x *httpRules) deniesEither(r *Request, path string) bool {
	lower := strings.ToLower(path)
	return x.deniesOpen(r, path) || lower != path && x.deniesOpen(r, lower)
}

// deniesOpen tries a path with and without a slash at its end.
func (x *httpRules) deniesOpen(r *Request, path string) bool {
	return x.deniesAs(r, path) || len(path) > 1 && path[len(path)-1] == '/' && x.deniesAs(r, path[:len(path)-1])
}

func (x *httpRules) deniesAs(r *Request, path string) bool {
	for g := x.nearest(path); g >= 0; g = x.groups[g].parent {
		if !strings.HasPrefix(path, x.groups[g].start) {
			continue
		}
		for i := x.groups[g].from; i < x.groups[g].to; i++ {
			if x.rules[i].denies(r, path) {
				return true
			}
		}
	}
	return false
}
