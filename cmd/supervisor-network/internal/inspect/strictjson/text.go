package strictjson

import (
	"strings"
	"unicode/utf16"
	"unicode/utf8"
)

// String reads a text. Without escapes it is a part of the input, not a copy.
func (r *Reader) String() (string, error) {
	if r.next() != '"' {
		return "", r.fail("a text begins with a quotation mark")
	}
	r.pos++
	start := r.pos
	for r.pos < len(r.text) {
		switch c := r.text[r.pos]; {
		case c == '"':
			s := r.text[start:r.pos]
			r.pos++
			return s, nil
		case c == '\\':
			return r.escaped(start)
		case c < ' ':
			return "", r.fail("a text contains no control character")
		default:
			r.pos++
		}
	}
	return "", r.fail("the JSON text ends before its value does")
}

// escaped reads on in a text from its first escape.
func (r *Reader) escaped(start int) (string, error) {
	var b strings.Builder
	b.WriteString(r.text[start:r.pos])
	for r.pos < len(r.text) {
		c := r.text[r.pos]
		switch {
		case c == '"':
			r.pos++
			return b.String(), nil
		case c == '\\':
			decoded, err := r.escape()
			if err != nil {
				return "", err
			}
			b.WriteRune(decoded)
			continue
		case c < ' ':
			return "", r.fail("a text contains no control character")
		}
		b.WriteByte(c)
		r.pos++
	}
	return "", r.fail("the JSON text ends before its value does")
}

// plain are the escapes of one character, and what each stands for.
const plain, meant = `"\/bfnrt`, "\"\\/\b\f\n\r\t"

// escape reads one escape, or the two of a surrogate pair.
func (r *Reader) escape() (rune, error) {
	r.pos++
	if r.pos == len(r.text) {
		return 0, r.fail("the JSON text ends before its value does")
	}
	if i := strings.IndexByte(plain, r.text[r.pos]); i >= 0 {
		r.pos++
		return rune(meant[i]), nil
	}
	c, ok := r.unicode()
	switch {
	case !ok:
		return 0, r.fail("an escape is one that JSON knows")
	case c == 0:
		return 0, r.fail("a text contains no NUL")
	case !utf16.IsSurrogate(c):
		return c, nil
	}
	if strings.HasPrefix(r.text[r.pos:], `\`) {
		r.pos++
		if low, ok := r.unicode(); ok {
			if c = utf16.DecodeRune(c, low); c != utf8.RuneError {
				return c, nil
			}
		}
	}
	return 0, r.fail("a text contains no half of a surrogate pair")
}

// unicode reads what follows the backslash of \uXXXX.
func (r *Reader) unicode() (c rune, ok bool) {
	if len(r.text)-r.pos < 5 || r.text[r.pos] != 'u' {
		return 0, false
	}
	for _, h := range []byte(r.text[r.pos+1 : r.pos+5]) {
		switch {
		case h >= '0' && h <= '9':
			h -= '0'
		case h >= 'a' && h <= 'f':
			h -= 'a' - 10
		case h >= 'A' && h <= 'F':
			h -= 'A' - 10
		default:
			return 0, false
		}
		c = c<<4 | rune(h)
	}
	r.pos += 5
	return c, true
}
