package ocsf

import "unicode/utf8"

// plain says which ASCII bytes stand for themselves in a JSON string. The three that
// HTML gives a meaning do not, as in encoding/json.
var plain = func() (t [utf8.RuneSelf]bool) {
	for c := byte(' '); c < 0x7f; c++ {
		t[c] = c != '"' && c != '\\' && c != '<' && c != '>' && c != '&'
	}
	return t
}()

const hexDigits = "0123456789abcdef"

// escape appends s as the inside of a JSON string. Bytes that are not UTF-8 become
// U+FFFD.
func escape(b []byte, s string) []byte {
	start := 0
	for i := 0; i < len(s); {
		if i+8 <= len(s) && plain8(eight(s[i:i+8])) {
			i += 8
			continue
		}
		c := s[i]
		if c < utf8.RuneSelf {
			if plain[c] {
				i++
				continue
			}
			b = escapeByte(append(b, s[start:i]...), c)
			i++
			start = i
			continue
		}
		r, size := utf8.DecodeRuneInString(s[i:])
		if r == utf8.RuneError && size == 1 || hidden(r) {
			b = escapeRune(append(b, s[start:i]...), r)
			start = i + size
		}
		i += size
	}
	return append(b, s[start:]...)
}

// eight is eight bytes of a string as a number.
func eight(s string) uint64 {
	_ = s[7]
	return uint64(s[0]) | uint64(s[1])<<8 | uint64(s[2])<<16 | uint64(s[3])<<24 |
		uint64(s[4])<<32 | uint64(s[5])<<40 | uint64(s[6])<<48 | uint64(s[7])<<56
}

// plain8 reports that all eight bytes of a word are plain. It may miss that, and then
// returns false. Each line sets the high bit of bytes that are not: those of other
// runes, controls, quotation marks, and so on.
func plain8(w uint64) bool {
	const low, high = 0x0101010101010101, 0x8080808080808080
	bad := w
	bad |= w - low*' '
	bad |= w ^ low*'"' - low
	bad |= w ^ low*'\\' - low
	bad |= (w | low*2) ^ low*'>' - low // < and >
	bad |= w ^ low*'&' - low
	bad |= w + low // DEL
	return bad&high == 0
}

func escapeByte(b []byte, c byte) []byte {
	switch c {
	case '"', '\\':
		return append(b, '\\', c)
	case '\n':
		return append(b, `\n`...)
	case '\r':
		return append(b, `\r`...)
	case '\t':
		return append(b, `\t`...)
	case '\b':
		return append(b, `\b`...)
	case '\f':
		return append(b, `\f`...)
	default:
		return escapeRune(b, rune(c))
	}
}

// escapeRune appends a rune of at most four hex digits.
func escapeRune(b []byte, r rune) []byte {
	return append(b, '\\', 'u', hexDigits[r>>12&15], hexDigits[r>>8&15], hexDigits[r>>4&15], hexDigits[r&15])
}

// hidden are the runes beyond ASCII that move a terminal or a reader instead of being
// seen: C1 controls, line separators, zero-width and direction marks.
func hidden(r rune) bool {
	return r >= 0x80 && r <= 0x9f || r >= 0x200b && r <= 0x200f || r >= 0x2028 && r <= 0x202e ||
		r >= 0x2060 && r <= 0x206f || r == 0x061c || r == 0xfeff
}
