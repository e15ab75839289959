package strictyaml

import (
	"fmt"
	"slices"
	"strconv"
	"strings"
	"unicode/utf8"

	"go.yaml.in/yaml/v3"
)

// Value is one value of a file, with the way to it. Its methods report what is wrong with it.
// The zero Value stands for a key that is absent: only Literal may be called.
type Value struct {
	r    *reader
	path string
	node *yaml.Node
}

func place(n *yaml.Node) Position {
	return Position{Line: max(n.Line, 1), Column: max(n.Column, 1)}
}

// At is where the value stands.
func (v Value) At() Position { return place(v.node) }

// Fail reports an error at the value.
func (v Value) Fail(format string, args ...any) { v.r.report(v.node, v.path, format, args...) }

// Warn reports a warning at the value.
func (v Value) Warn(format string, args ...any) { v.warn(v.path, format, args...) }

// FailKey reports an error about a key below the value, at the value's own place: the key
// may be absent.
func (v Value) FailKey(key, format string, args ...any) {
	v.r.report(v.node, Field(v.path, key), format, args...)
}

// WarnKey reports a warning in the same way.
func (v Value) WarnKey(key, format string, args ...any) {
	v.warn(Field(v.path, key), format, args...)
}

func (v Value) warn(field, format string, args ...any) {
	v.r.add(Problem{At: v.At(), Field: field, Message: fmt.Sprintf(format, args...), Warning: true})
}

// Errors counts the errors that the file has so far, for who goes on only where there was
// no new one.
func (v Value) Errors() int { return v.r.errors }

// Literal is a single value as it stands in the file, unchecked; "" for anything else. It is
// to say more about a value that another method reports, or has accepted.
func (v Value) Literal() string {
	if v.node == nil {
		return ""
	}
	return v.node.Value
}

// IsText reports whether YAML reads the value as text.
func (v Value) IsText() bool { return v.node.Kind == yaml.ScalarNode && v.node.Tag == "!!str" }

// IsEmptyText reports whether the value is text without a character.
func (v Value) IsEmptyText() bool { return v.node.Tag == "!!str" && v.node.Value == "" }

// IsScalar reports whether the value is a scalar: neither a map nor a list.
func (v Value) IsScalar() bool { return v.node.Kind == yaml.ScalarNode }

// IsEmptyList reports whether the value is a list without entries.
func (v Value) IsEmptyList() bool {
	return v.node.Kind == yaml.SequenceNode && len(v.node.Content) == 0
}

// Keys are those of a map as they stand in the file, unchecked; none of anything else.
func (v Value) Keys() []string {
	if v.node.Kind != yaml.MappingNode {
		return nil
	}
	out := make([]string, 0, len(v.node.Content)/2)
	for i := 0; i < len(v.node.Content); i += 2 {
		out = append(out, v.node.Content[i].Value)
	}
	return out
}

// usable reports whether a value may be looked at; for one that may not, another
// problem has been reported.
func (v Value) usable() bool { return v.node.Kind != yaml.AliasNode }

// List returns the elements of a list; false if the value is none.
func (v Value) List() ([]Value, bool) {
	if !v.usable() {
		return nil, false
	}
	if v.node.Kind != yaml.SequenceNode {
		v.Fail("want a list, found %s; write each entry on a line of its own after a dash", kind(v.node))
		return nil, false
	}
	out := make([]Value, len(v.node.Content))
	for i, n := range v.node.Content {
		out[i] = Value{v.r, v.path + "[" + strconv.Itoa(i) + "]", n}
	}
	return out, true
}

// Entry is a key of a map with its value.
type Entry struct {
	Name string
	Key  Value
	Value
}

// Entries returns what a map holds, in the order of the file; false if the value is none.
// Keys that are not text and keys that repeat are reported and left out.
func (v Value) Entries() ([]Entry, bool) {
	if !v.usable() {
		return nil, false
	}
	if v.node.Kind != yaml.MappingNode {
		v.Fail("want a map, found %s; write key: value lines", kind(v.node))
		return nil, false
	}
	seen := make(map[string]int, len(v.node.Content)/2)
	out := make([]Entry, 0, len(v.node.Content)/2)
	for i := 0; i+1 < len(v.node.Content); i += 2 {
		k := Value{v.r, v.path, v.node.Content[i]}
		if k.node.Tag == "!!merge" {
			continue
		}
		name, ok := k.Text()
		if !ok {
			continue
		}
		k.path = Field(v.path, name)
		if line, dup := seen[name]; dup {
			k.Fail("this key is already set on line %d; keep one of the two", line)
			continue
		}
		seen[name] = k.At().Line
		out = append(out, Entry{name, k, Value{v.r, k.path, v.node.Content[i+1]}})
	}
	return out, true
}

// Object is a map with known keys.
type Object struct {
	Value
	Fields map[string]Value // that are there
}

// Object reads a map and reports every key that is not in known; false if the value is none.
func (v Value) Object(known ...string) (Object, bool) {
	o := Object{v, map[string]Value{}}
	es, ok := v.Entries()
	for _, e := range es {
		if slices.Contains(known, e.Name) {
			o.Fields[e.Name] = e.Value
		} else {
			e.Key.Fail("unknown key; %s", suggest(e.Name, known))
		}
	}
	return o, ok
}

// Has reports whether the key is there.
func (o Object) Has(key string) bool {
	_, ok := o.Fields[key]
	return ok
}

// Text reads a key that holds text; "" when it is absent or wrong.
func (o Object) Text(key string) string {
	if v, ok := o.Fields[key]; ok {
		s, _ := v.Text()
		return s
	}
	return ""
}

// Word reads a key that holds one of some words; "" when it is absent, empty or wrong.
func (o Object) Word(key string, words ...string) string {
	if v, ok := o.Fields[key]; ok {
		return v.Word(words...)
	}
	return ""
}

// Flag reads a key that holds true or false; otherwise when it is absent or wrong.
func (o Object) Flag(key string, otherwise bool) bool {
	if v, ok := o.Fields[key]; ok {
		return v.Flag(otherwise)
	}
	return otherwise
}

// Text is a text of a list with its place.
type Text struct {
	Value
	S string
}

// Texts reads a key that holds a list of texts; wrong entries are left out.
func (o Object) Texts(key string) []Text {
	v, ok := o.Fields[key]
	if !ok {
		return nil
	}
	vs, _ := v.List()
	out := make([]Text, 0, len(vs))
	for _, e := range vs {
		if s, ok := e.Text(); ok {
			out = append(out, Text{e, s})
		}
	}
	return out
}

// Version reads the key version, which has to be 1.
func (o Object) Version() int {
	v, ok := o.Fields["version"]
	if !ok {
		o.FailKey("version", "the version is missing; write version: 1")
		return 0
	}
	n, ok := v.Number(0, 1<<32-1)
	if ok && n != 1 {
		v.Fail("version %d is not known to this build; write version: 1", n)
	}
	return int(n)
}

// Field is the path of a field below another, as messages name it.
func Field(path, key string) string {
	plain := key != ""
	for _, c := range key {
		plain = plain && (c == '_' || c == '-' || '0' <= c && c <= '9' || 'a' <= c && c <= 'z' || 'A' <= c && c <= 'Z')
	}
	switch {
	case !plain || len(key) > 80:
		return path + "[" + Quoted(key) + "]"
	case path == "":
		return key
	}
	return path + "." + key
}

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

// Quoted quotes what a message repeats from a file.
func Quoted(s string) string { return `"` + Clip(s) + `"` }

// Clip shortens what a message repeats from a file to 80 bytes, and shows what cannot be
// seen as U+FFFD.
func Clip(s string) string {
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
