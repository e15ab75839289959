package http1

import (
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// slowHead is what plainHead is measured by.
func slowHead(head []byte) (line string, fields Fields, err error) {
	line, rest, err := splitHead(head)
	if err == nil {
		fields, err = parseFields(rest)
	}
	return line, fields, err
}

// agrees requires that what is read in one pass is read alike in several.
func agrees(t *testing.T, head string) (plain bool) {
	t.Helper()
	line, fields, plain := plainHead([]byte(head), nil)
	if !plain {
		return false
	}
	slowLine, slowFields, err := slowHead([]byte(head))
	if err != nil {
		t.Fatalf("%q is plain, and refused: %v", head, err)
	}
	if diff := cmp.Diff(slowFields, fields); diff != "" || line != slowLine {
		t.Fatalf("%q: line %q and %q\n%s", head, slowLine, line, diff)
	}
	return true
}

func TestOrdinaryHeadsArePlainAndOthersAreNot(t *testing.T) {
	for name, c := range map[string]struct {
		head string
		want bool
	}{
		"no field":                      {"HTTP/1.1 200 OK\r\n\r\n", true},
		"a browser's":                   {browserHead, true},
		"no space, many spaces, tabs":   {"x\r\na:b\r\nc: \t d \t \r\ne:\r\n\r\n", true},
		"the most fields":               {"x\r\n" + strings.Repeat("a: b\r\n", MaxFields) + "\r\n", true},
		"one more":                      {"x\r\n" + strings.Repeat("a: b\r\n", MaxFields+1) + "\r\n", false},
		"a tab in a value":              {"x\r\na: b\tc\r\n\r\n", false},
		"UTF-8 in a value":              {"x\r\na: \u00e9\r\n\r\n", false},
		"not UTF-8":                     {"x\r\na: \xff\r\n\r\n", false},
		"UTF-8 in the first line":       {"HTTP/1.1 200 \u00e9\r\n\r\n", false},
		"a control in the first line":   {"x\x01\r\n\r\n", false},
		"NUL in a value":                {"x\r\na: \x00\r\n\r\n", false},
		"DEL behind eight bytes":        {"x\r\na: 12345678\x7f\r\n\r\n", false},
		"DEL among eight bytes":         {"x\r\na: 1234567\x7f\r\n\r\n", false},
		"a bare LF in a value":          {"x\r\na: b\nc: d\r\n\r\n", false},
		"a bare LF ends the first line": {"x\na: b\r\n\r\n", false},
		"a bare CR in a value":          {"x\r\na: b\rc\r\n\r\n", false},
		"a bare CR behind the line":     {"x\ra: b\r\n\r\n", false},
		"an underscore in a name":       {"x\r\na_b: c\r\n\r\n", false},
		"a dot in a name":               {"x\r\na.b: c\r\n\r\n", false},
		"a space before the colon":      {"x\r\na : b\r\n\r\n", false},
		"no name":                       {"x\r\n: b\r\n\r\n", false},
		"no colon":                      {"x\r\nab\r\n\r\n", false},
		"a continued line":              {"x\r\na: b\r\n c\r\n\r\n", false},
		"an empty line before the end":  {"x\r\n\r\na: b\r\n\r\n", false},
		"no empty line":                 {"x\r\na: b\r\n", false},
		"no end":                        {"x\r\na: b", false},
		"no line":                       {"", false},
		"Connection names a field":      {"x\r\nConnection: a\r\n\r\n", true},
		"Connection names the framing":  {"x\r\nconnection: Content-Length\r\n\r\n", false},
	} {
		if got := agrees(t, c.head); got != c.want {
			t.Errorf("%s: plain is %v", name, got)
		}
	}
}

// FuzzPlainHead states that one pass reads nothing otherwise than several.
func FuzzPlainHead(f *testing.F) {
	for _, c := range heads {
		f.Add(c.head)
	}
	for _, c := range responses {
		f.Add(c.head)
	}
	f.Add(browserHead)
	f.Fuzz(func(t *testing.T, head string) { agrees(t, head) })
}
