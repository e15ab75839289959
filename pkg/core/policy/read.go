package policy

import (
	"fmt"
	"slices"
	"strconv"
	"strings"
	"unicode/utf8"

	"go.yaml.in/yaml/v3"
)

// reader collects problems while a file is turned into a Document.
type reader struct {
	file     string
	problems []Problem
	more     int // problems above MaxProblems
	errors   int // problems that are not warnings
}

func place(n *yaml.Node) Position {
	return Position{Line: max(n.Line, 1), Column: max(n.Column, 1)}
}

func (r *reader) add(p Problem) {
	if !p.Warning {
		r.errors++
	}
	if len(r.problems) >= MaxProblems {
		r.more++
		return
	}
	p.File = r.file
	r.problems = append(r.problems, p)
}

func (r *reader) reportAt(at Position, field, format string, args ...any) {
	r.add(Problem{At: at, Field: field, Message: fmt.Sprintf(format, args...)})
}

func (r *reader) report(n *yaml.Node, field, format string, args ...any) {
	r.reportAt(place(n), field, format, args...)
}

// value is a node with the way to it.
type value struct {
	r    *reader
	path string
	node *yaml.Node
}

func (v value) at() Position { return place(v.node) }

// fail reports an error at the value.
func (v value) fail(format string, args ...any) { v.r.report(v.node, v.path, format, args...) }

// warn reports a warning at the value.
func (v value) warn(format string, args ...any) {
	v.r.add(Problem{At: v.at(), Field: v.path, Message: fmt.Sprintf(format, args...), Warning: true})
}

// clip shortens and quotes what a message repeats from the file.
func clip(s string) string {
	const limit = 80
	if len(s) <= limit {
		return strings.Map(visible, s)
	}
	cut := limit
	for cut > 0 && !utf8.RuneStart(s[cut]) {
		cut--
	}
	return strings.Map(visible, s[:cut]) + "…"
}

func visible(c rune) rune {
	if hidden(c) {
		return utf8.RuneError
	}
	return c
}

func quoted(s string) string { return `"` + clip(s) + `"` }

// kind says what a node is, for messages.
func kind(n *yaml.Node) string {
	switch {
	case n.Kind == yaml.MappingNode:
		return "a map"
	case n.Kind == yaml.SequenceNode:
		return "a list"
	case n.Tag == "!!null":
		return "nothing"
	case n.Tag == "!!bool":
		return n.Value
	case n.Tag == "!!int" || n.Tag == "!!float":
		return "a number"
	case n.Tag == "!!timestamp":
		return "a date"
	}
	return "text"
}

// usable reports whether a value may be looked at; for one that may not, another
// problem has been reported.
func (v value) usable() bool { return v.node.Kind != yaml.AliasNode }

// list returns the elements of a list.
func (v value) list() ([]value, bool) {
	if !v.usable() {
		return nil, false
	}
	if v.node.Kind != yaml.SequenceNode {
		v.fail("want a list, found %s; write each entry on a line of its own after a dash", kind(v.node))
		return nil, false
	}
	out := make([]value, len(v.node.Content))
	for i, n := range v.node.Content {
		out[i] = value{v.r, v.path + "[" + strconv.Itoa(i) + "]", n}
	}
	return out, true
}

// entry is a key with its value.
type entry struct {
	name string
	key  value
	value
}

// entries returns what a map holds, in the order of the file. Keys that are not
// text and keys that repeat are reported and left out.
func (v value) entries() ([]entry, bool) {
	if !v.usable() {
		return nil, false
	}
	if v.node.Kind != yaml.MappingNode {
		v.fail("want a map, found %s; write key: value lines", kind(v.node))
		return nil, false
	}
	seen := make(map[string]int, len(v.node.Content)/2)
	out := make([]entry, 0, len(v.node.Content)/2)
	for i := 0; i+1 < len(v.node.Content); i += 2 {
		k := value{v.r, v.path, v.node.Content[i]}
		if k.node.Tag == "!!merge" {
			continue
		}
		name, ok := k.text()
		if !ok {
			continue
		}
		k.path = join(v.path, name)
		if line, dup := seen[name]; dup {
			k.fail("this key is already set on line %d; keep one of the two", line)
			continue
		}
		seen[name] = k.at().Line
		out = append(out, entry{name, k, value{v.r, k.path, v.node.Content[i+1]}})
	}
	return out, true
}

// join adds a key to a field path.
func join(path, key string) string {
	plain := key != ""
	for _, c := range key {
		plain = plain && (c == '_' || c == '-' || '0' <= c && c <= '9' || 'a' <= c && c <= 'z' || 'A' <= c && c <= 'Z')
	}
	switch {
	case !plain || len(key) > 80:
		return path + "[" + quoted(key) + "]"
	case path == "":
		return key
	}
	return path + "." + key
}

// object is a map with known keys.
type object struct {
	value
	fields map[string]value
}

// object reads a map and reports every key that is not in known.
func (v value) object(known ...string) (object, bool) {
	o := object{v, map[string]value{}}
	es, ok := v.entries()
	for _, e := range es {
		if slices.Contains(known, e.name) {
			o.fields[e.name] = e.value
		} else {
			e.key.fail("unknown key; %s", suggest(e.name, known))
		}
	}
	return o, ok
}

func (o object) has(key string) bool {
	_, ok := o.fields[key]
	return ok
}

// missing reports that a key is not there.
func (o object) missing(key, format string, args ...any) {
	o.r.report(o.node, join(o.path, key), format, args...)
}

// text reads a key that holds text; "" when it is absent or wrong.
func (o object) text(key string) string {
	if v, ok := o.fields[key]; ok {
		s, _ := v.text()
		return s
	}
	return ""
}

// flag reads a key that holds true or false.
func (o object) flag(key string, otherwise bool) bool {
	if v, ok := o.fields[key]; ok {
		return v.flag(otherwise)
	}
	return otherwise
}

// texts reads a key that holds a list of texts; wrong entries are left out.
func (o object) texts(key string) []textAt {
	v, ok := o.fields[key]
	if !ok {
		return nil
	}
	vs, _ := v.list()
	out := make([]textAt, 0, len(vs))
	for _, e := range vs {
		if s, ok := e.text(); ok {
			out = append(out, textAt{e, s})
		}
	}
	return out
}

// textAt is a text with its place.
type textAt struct {
	value
	s string
}
