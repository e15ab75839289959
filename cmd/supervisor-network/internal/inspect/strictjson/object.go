package strictjson

import (
	"slices"
	"strings"
	"unicode"
)

// Names are the keys of an object that mean something. In an object that is read
// with names, even without any, no two keys are case variants of each other, and
// none is a case variant of a name.
type Names []string

// Array reads an array. element is called for each value, and reads it or leaves
// it; nil leaves all.
func (r *Reader) Array(element func(i int) error) error {
	if r.next() != '[' {
		return r.fail("an array begins with a bracket")
	}
	if err := r.enter(); err != nil {
		return err
	}
	for i := 0; ; i++ {
		if c := r.next(); i == 0 && c == ']' {
			break
		}
		before := r.pos
		if element != nil {
			if err := element(i); err != nil {
				return err
			}
		}
		if err := r.rest(before); err != nil {
			return err
		}
		if !r.more() {
			break
		}
	}
	return r.leave(']')
}

// Object reads an object. member is called for each key and reads its value or
// leaves it; nil leaves all. Without names the object is data of somebody else, and
// only a key that stands twice is refused.
func (r *Reader) Object(names Names, member func(key string) error) error {
	if r.next() != '{' {
		return r.fail("an object begins with a brace")
	}
	if err := r.enter(); err != nil {
		return err
	}
	seen := keySet{base: len(r.keys), names: names}
	for first := true; ; first = false {
		if first && r.next() == '}' {
			break
		}
		if err := r.member(&seen, member); err != nil {
			return err
		}
		if !r.more() {
			break
		}
	}
	r.keys = r.keys[:seen.base]
	return r.leave('}')
}

func (r *Reader) member(seen *keySet, member func(key string) error) error {
	r.space()
	key, err := r.String()
	if err != nil {
		return err
	}
	if err := r.once(seen, key); err != nil {
		return err
	}
	if r.next() != ':' {
		return r.fail("a key is followed by a colon")
	}
	r.pos++
	r.space()
	before := r.pos
	if member != nil {
		if err := member(key); err != nil {
			return err
		}
	}
	return r.rest(before)
}

// rest skips the value at before if nobody has read it.
func (r *Reader) rest(before int) error {
	if r.pos != before {
		return nil
	}
	return r.Skip()
}

// more reads the comma in front of a further value.
func (r *Reader) more() bool {
	if r.next() != ',' {
		return false
	}
	r.pos++
	return true
}

func (r *Reader) enter() error {
	if r.depth == MaxDepth {
		return r.fail("arrays and objects lie at most 128 deep in one another")
	}
	r.depth++
	r.pos++
	return nil
}

func (r *Reader) leave(bracket byte) error {
	if r.next() != bracket {
		return r.fail("values are separated by commas and end with their bracket")
	}
	r.depth--
	r.pos++
	return nil
}

// keySet is the keys of an open object: few on the Reader's stack, many in a map.
type keySet struct {
	base  int
	names Names
	many  map[string]struct{}
}

const fewKeys = 16

// once refuses a key that its object already has.
func (r *Reader) once(s *keySet, key string) error {
	id := key
	if s.names != nil {
		for _, name := range s.names {
			if name != key && strings.EqualFold(name, key) {
				return r.fail("a key that means something is written in its own case")
			}
		}
		id = folded(key)
	}
	twice := false
	if s.many != nil {
		_, twice = s.many[id]
		s.many[id] = struct{}{}
	} else {
		twice = slices.Contains(r.keys[s.base:], id)
		r.keys = append(r.keys, id)
	}
	if twice {
		return r.fail("a key stands once in its object")
	}
	if s.many == nil && len(r.keys)-s.base > fewKeys {
		s.many = make(map[string]struct{}, 4*fewKeys)
		for _, k := range r.keys[s.base:] {
			s.many[k] = struct{}{}
		}
		r.keys = r.keys[:s.base]
	}
	return nil
}

// folded is one text for all case variants of s, as strings.EqualFold sees them.
func folded(s string) string {
	for i := range len(s) {
		if c := s[i]; c >= 0x80 || c >= 'A' && c <= 'Z' {
			return strings.Map(foldedRune, s)
		}
	}
	return s
}

// foldedRune is the smallest of a rune's case variants, or the small letter where
// that is an ASCII capital.
func foldedRune(c rune) rune {
	least := c
	for f := unicode.SimpleFold(c); f != c; f = unicode.SimpleFold(f) {
		least = min(least, f)
	}
	if least >= 'A' && least <= 'Z' {
		least += 'a' - 'A'
	}
	return least
}
