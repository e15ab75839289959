package decide

import (
	"net/url"
	"slices"
	"strings"
	"unicode/utf8"
)

// parameters walks the pairs of a query: percent escapes are decoded, + is a space,
// only & separates. Source: the form encoding of the URL standard (WHATWG), section 5.
type parameters struct {
	rest string
	// semicolons also separate, as HTML 4 wished (appendix B.2.2) and some origins do.
	semicolons bool
}

// twice reports whether a query has two readings, because some origins separate at
// semicolons and others do not.
func twice(query string) bool { return strings.IndexByte(query, ';') >= 0 }

// next returns the next pair as it was sent.
func (p *parameters) next() (key, value string, ok bool) {
	for p.rest != "" {
		var pair string
		pair, p.rest = p.cut()
		if pair != "" {
			key, value, _ = strings.Cut(pair, "=")
			return key, value, true
		}
	}
	return "", "", false
}

func (p *parameters) cut() (pair, rest string) {
	end := strings.IndexByte(p.rest, '&')
	if p.semicolons {
		end = strings.IndexAny(p.rest, "&;")
	}
	if end < 0 {
		return p.rest, ""
	}
	return p.rest[:end], p.rest[end+1:]
}

// decode decodes a key or value. Only what has escapes costs memory.
func decode(s string) string {
	if strings.IndexByte(s, '%') < 0 && strings.IndexByte(s, '+') < 0 {
		return s
	}
	out, _ := url.QueryUnescape(s) // queryReadable has seen it
	return out
}

// isKey reports whether a key as sent is the given one, without making memory.
func isKey(sent, key string) bool {
	for ; sent != ""; key = key[1:] {
		c, n := symbol(sent)
		if key == "" || key[0] != c {
			return false
		}
		sent = sent[n:]
	}
	return key == ""
}

// spelling is a parameter's name, decoded, in the one form in which two names are the same
// to some origin: many find names in any case, PHP leaves out spaces in front and takes a dot
// or a space for an underscore, and to Express and Rack 2 [a] is a, to the latter a] as well.
func spelling(name string) string {
	base, index := strings.TrimLeft(strings.TrimLeft(name, " "), "[]"), ""
	if end := strings.IndexAny(base, "[]"); end >= 0 {
		base, index = base[:end], strings.TrimLeft(base[end:], "]")
	}
	base = strings.Map(func(c rune) rune {
		if c == '.' || c == ' ' {
			return '_'
		}
		return c
	}, base)
	if strings.HasPrefix(index, "[") {
		base += index
	}
	return Folded(base)
}

// spellings are those under which a parameter is found: that without its index as well, as
// a[] and a[x] are a to PHP, Rack and Express, and a[x is a_x to PHP.
func spellings(name string) []string {
	s := spelling(name)
	base, _, _ := strings.Cut(s, "[")
	return []string{s, base, Folded(strings.NewReplacer("[", "_", ".", "_", " ", "_").Replace(strings.TrimLeft(name, " ")))}
}

// spelledAs reports whether a key as sent has a spelling. Of ASCII without brackets it does so
// without making memory.
func spelledAs(sent, spelled string) bool {
	whole, rest := sent, spelled
	for sent != "" {
		c, n := symbol(sent)
		sent = sent[n:]
		switch {
		case c >= utf8.RuneSelf, c == '[', c == ']':
			return slices.Contains(spellings(decode(whole)), spelled)
		case c == ' ' && rest == spelled: // in front
			continue
		case c == '.' || c == ' ':
			c = '_'
		case c >= 'A' && c <= 'Z':
			c += 'a' - 'A'
		}
		if rest == "" || rest[0] != c {
			return false
		}
		rest = rest[1:]
	}
	return rest == ""
}

// symbol is the first character of what was sent, decoded, and how long it is there.
func symbol(s string) (byte, int) {
	switch {
	case s[0] == '+':
		return ' ', 1
	case s[0] == '%' && len(s) > 2 && isHex(s[1]) && isHex(s[2]):
		return unhex(s[1])<<4 | unhex(s[2]), 3
	default:
		return s[0], 1
	}
}

// queryReadable reports whether every reader would find the same parameters in a
// query: each percent sign is an escape, and what it decodes to is text.
func queryReadable(query string) bool {
	for i := 0; i < len(query); i++ {
		c := query[i]
		if c == '%' {
			if i+2 >= len(query) || !isHex(query[i+1]) || !isHex(query[i+2]) {
				return false
			}
			c = unhex(query[i+1])<<4 | unhex(query[i+2])
			i += 2
		}
		switch {
		case c == 0:
			return false
		case c >= utf8.RuneSelf:
			return textReadable(query)
		}
	}
	return true
}

// textReadable is queryReadable for a query that is not plain ASCII.
func textReadable(query string) bool {
	if !escapesReadable(query) {
		return false
	}
	walk := parameters{rest: query}
	for key, value, ok := walk.next(); ok; key, value, ok = walk.next() {
		for _, s := range [2]string{decode(key), decode(value)} {
			if !utf8.ValidString(s) || strings.IndexByte(s, 0) >= 0 {
				return false
			}
		}
	}
	return true
}

func escapesReadable(query string) bool {
	for i := range len(query) {
		if query[i] == '%' && (i+2 >= len(query) || !isHex(query[i+1]) || !isHex(query[i+2])) {
			return false
		}
	}
	return true
}

func isHex(c byte) bool {
	return c >= '0' && c <= '9' || c >= 'a' && c <= 'f' || c >= 'A' && c <= 'F'
}

func unhex(c byte) byte {
	if c <= '9' {
		return c - '0'
	}
	return c&^0x20 - 'A' + 10
}
