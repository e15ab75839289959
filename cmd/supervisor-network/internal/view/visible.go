package view

import (
	"strconv"
	"strings"
	"unicode"
	"unicode/utf8"
)

// Visible is s with everything escaped that moves a terminal or a reader instead of
// being seen: controls, direction and zero-width marks, marks that stack on other
// characters, and bytes that are no UTF-8. What is visible already stays as it is.
func Visible(s string) string {
	if strings.IndexFunc(s, unseen) < 0 {
		return s
	}
	var b strings.Builder
	for i, r := range s {
		switch {
		case r == utf8.RuneError:
			b.WriteString(`\x` + strconv.FormatUint(uint64(s[i]), 16)) // a byte that is no UTF-8
		case unseen(r):
			b.WriteString(`\u{` + strconv.FormatInt(int64(r), 16) + "}")
		default:
			b.WriteRune(r)
		}
	}
	return b.String()
}

func unseen(r rune) bool {
	return r == utf8.RuneError || !unicode.IsPrint(r) || unicode.Is(unicode.M, r)
}

// clip is Visible of s, in at most n bytes and a mark that there was more.
func clip(s string, n int) string {
	out := Visible(s[:min(len(s), n+utf8.UTFMax)]) // no more of it can be shown
	if len(out) <= n && len(s) <= n {
		return out
	}
	n = min(n, len(out))
	for n > 0 && n < len(out) && !utf8.RuneStart(out[n]) {
		n--
	}
	return out[:n] + "…"
}
