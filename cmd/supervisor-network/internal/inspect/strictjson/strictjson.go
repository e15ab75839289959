// Package strictjson reads JSON texts that every reader reads alike, one value after
// the other and without building a tree.
//
// It answers the threat of a key that stands twice, is spelt with an escape, or
// differs from a known one only in case: readers choose differently between such
// keys, encoding/json even takes them for one. It does not answer readers that round
// numbers or normalise texts; nothing here depends on either.
//
// Invariant: a text that is read to its End without an error is JSON in valid UTF-8,
// no object of it has a key twice (nor, where names are given, in two cases), no
// text of it contains NUL or half a surrogate pair. What a member function does not
// read is checked all the same.
//
// Sources: RFC 8259; RFC 7493 section 2.
package strictjson

import (
	"fmt"
	"strings"
	"unicode/utf8"
)

// MaxDepth is how deep arrays and objects may lie in one another.
const MaxDepth = 128

// Error is a text that is refused. Detail names the rule that is broken, never the
// bytes that break it.
type Error struct {
	Detail string
	Offset int // byte at which it was noticed
}

// Error implements error.
func (e *Error) Error() string { return fmt.Sprintf("%s (byte %d)", e.Detail, e.Offset) }

// Kind is what a value is. Kinds can be joined into a set.
type Kind uint8

// The kinds of values. Zero is no value.
const (
	Object Kind = 1 << iota
	Array
	String
	Number
	Bool
	Null
)

// Reader reads one text. It must not be used by two goroutines.
type Reader struct {
	text  string
	pos   int
	depth int
	keys  []string // of the objects that are open, the innermost last
}

// New returns a Reader of data, which it copies.
func New(data []byte) (*Reader, error) {
	switch {
	case !utf8.Valid(data):
		return nil, &Error{Detail: "JSON is UTF-8"}
	case strings.HasPrefix(string(data[:min(len(data), 3)]), "\ufeff"):
		return nil, &Error{Detail: "JSON begins without a byte order mark"}
	}
	return &Reader{text: string(data)}, nil
}

func (r *Reader) fail(detail string) error { return &Error{detail, r.pos} }

func (r *Reader) space() {
	for r.pos < len(r.text) {
		switch r.text[r.pos] {
		case ' ', '\t', '\n', '\r':
			r.pos++
		default:
			return
		}
	}
}

// next is the next byte that is not white space, 0 at the end.
func (r *Reader) next() byte {
	r.space()
	if r.pos == len(r.text) {
		return 0
	}
	return r.text[r.pos]
}

// Kind is what the next value begins like; 0 if nothing begins so.
func (r *Reader) Kind() Kind {
	switch c := r.next(); {
	case c == '{':
		return Object
	case c == '[':
		return Array
	case c == '"':
		return String
	case c == '-' || c >= '0' && c <= '9':
		return Number
	case c == 't' || c == 'f':
		return Bool
	case c == 'n':
		return Null
	default:
		return 0
	}
}

// Later returns a Reader of the next value, for when r has been read to its End.
func (r *Reader) Later() *Reader { return &Reader{text: r.text, pos: r.pos, depth: r.depth} }

// End refuses anything but white space behind the value.
func (r *Reader) End() error {
	if r.space(); r.pos != len(r.text) {
		return r.fail("nothing follows the JSON value")
	}
	return nil
}

// Skip reads over the next value and checks it.
func (r *Reader) Skip() error {
	switch r.Kind() {
	case Object:
		return r.Object(nil, nil)
	case Array:
		return r.Array(nil)
	case String:
		_, err := r.String()
		return err
	case Number:
		_, err := r.Number()
		return err
	case Bool:
		if r.text[r.pos] == 't' {
			return r.word("true")
		}
		return r.word("false")
	case Null:
		return r.word("null")
	default:
		if r.pos == len(r.text) {
			return r.fail("the JSON text ends before its value does")
		}
		return r.fail("a value is an object, an array, a text, a number, true, false or null")
	}
}

func (r *Reader) word(w string) error {
	if !strings.HasPrefix(r.text[r.pos:], w) {
		return r.fail("a value is an object, an array, a text, a number, true, false or null")
	}
	r.pos += len(w)
	return nil
}

// Number reads a number and returns it as it is written.
func (r *Reader) Number() (string, error) {
	r.space()
	start := r.pos
	r.accept("-")
	if !r.accept("0") && r.digits() == 0 {
		return "", r.fail("a number is written as JSON writes it")
	}
	if r.accept(".") && r.digits() == 0 {
		return "", r.fail("a number is written as JSON writes it")
	}
	if r.accept("eE") {
		r.accept("+-")
		if r.digits() == 0 {
			return "", r.fail("a number is written as JSON writes it")
		}
	}
	return r.text[start:r.pos], nil
}

func (r *Reader) accept(set string) bool {
	if r.pos == len(r.text) || strings.IndexByte(set, r.text[r.pos]) < 0 {
		return false
	}
	r.pos++
	return true
}

func (r *Reader) digits() int {
	start := r.pos
	for r.pos < len(r.text) && r.text[r.pos] >= '0' && r.text[r.pos] <= '9' {
		r.pos++
	}
	return r.pos - start
}
