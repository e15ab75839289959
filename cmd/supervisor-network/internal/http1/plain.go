package http1

import (
	"bytes"
	"strings"
)

// plainHead reads an ordinary head in one pass: visible ASCII in lines that end with
// CR LF, and fields of the plainest form. It separates the first line, of which it
// checks no more than that. Of every other head ok is false, whatever the reason: those
// are read by splitHead and parseFields, which know what is allowed besides, and what
// is wrong with the rest. The fields are in the memory of used, if it is large enough.
func plainHead(head []byte, used Fields) (line string, fields Fields, ok bool) {
	s := string(head)
	end := strings.IndexByte(s, '\r')
	if end < 0 || !plainText(s[:end]) {
		return "", nil, false
	}
	line, s = s[:end], s[end:]
	if fields = used[:0]; cap(fields) == 0 {
		fields = make(Fields, 0, min(bytes.Count(head, newline), MaxFields))
	}
	for s != "\r\n\r\n" {
		// s begins with the end of the line before.
		if len(s) < len("\r\nx:\r\n\r\n") || s[1] != '\n' || len(fields) == MaxFields {
			return "", nil, false
		}
		s = s[2:]
		colon := 0
		for colon < len(s) && plainName[s[colon]] {
			colon++
		}
		if colon == 0 || colon == len(s) || s[colon] != ':' {
			return "", nil, false
		}
		end := strings.IndexByte(s[colon:], '\r')
		if end < 0 {
			return "", nil, false
		}
		f := Field{s[:colon], trim(s[colon+1 : colon+end])}
		if !plainText(f.Value) || f.Is("Connection") && checkConnection(f.Value) != nil {
			return "", nil, false
		}
		fields = append(fields, f)
		s = s[colon+end:]
	}
	return line, fields, true
}

var newline = []byte{'\n'}

// plainName are the bytes of tokens that nobody takes for others (AsVariable).
var plainName = func() (t [256]bool) {
	for c := range t {
		t[c] = tokenBytes[c] && AsVariable(string(rune(c))) == string(rune(c))
	}
	return t
}()

// plainText reports whether s is visible ASCII and spaces. Eight bytes are looked at
// at a time: those below a space borrow from their high bit, and DEL carries into it.
func plainText(s string) bool {
	const low, high = 0x0101010101010101, 0x8080808080808080
	for len(s) >= 8 {
		w := uint64(s[0]) | uint64(s[1])<<8 | uint64(s[2])<<16 | uint64(s[3])<<24 |
			uint64(s[4])<<32 | uint64(s[5])<<40 | uint64(s[6])<<48 | uint64(s[7])<<56
		if (w|(w-low*' ')|(w+low))&high != 0 {
			return false
		}
		s = s[8:]
	}
	for i := range len(s) {
		if s[i] < ' ' || s[i] >= 0x7f {
			return false
		}
	}
	return true
}
