package policy

import (
	"slices"
	"strconv"
	"strings"

	"go.yaml.in/yaml/v3"
)

// legacy are the plain words that readers of YAML 1.1 take for something else
// than text.
var legacy = []string{"y", "n", "yes", "no", "on", "off", "true", "false", "null", "~"}

func plain(n *yaml.Node) bool {
	return n.Style&(yaml.DoubleQuotedStyle|yaml.SingleQuotedStyle|yaml.LiteralStyle|yaml.FoldedStyle) == 0
}

// scalar reports whether the value is one, and reports what it is if not.
func (v value) scalar(want string) bool {
	if !v.usable() {
		return false
	}
	if v.node.Kind != yaml.ScalarNode {
		v.fail("want %s, found %s; write a single value", want, kind(v.node))
		return false
	}
	if v.node.Tag == "!!null" && plain(v.node) {
		v.fail("want %s, found nothing; write a value or remove the key", want)
		return false
	}
	return true
}

// text reads a string. Plain text that some YAML reader takes for a number, a
// date or a truth value is refused, and so are characters that cannot be seen.
func (v value) text() (string, bool) {
	if !v.scalar("text") {
		return "", false
	}
	s := v.node.Value
	switch {
	case plain(v.node) && v.node.Tag != "!!str" && v.node.Tag != "!!merge",
		plain(v.node) && slices.Contains(legacy, strings.ToLower(s)):
		v.fail(`want text, found %s, which YAML reads as something else; write "%s" in quotes`, clip(s), clip(s))
		return "", false
	case strings.ContainsFunc(s, hidden):
		v.fail("the text has an invisible character in it; remove it")
		return "", false
	}
	return s, true
}

// flag reads true or false.
func (v value) flag(otherwise bool) bool {
	if !v.scalar("true or false") {
		return otherwise
	}
	if plain(v.node) {
		switch v.node.Value {
		case "true":
			return true
		case "false":
			return false
		}
	}
	v.fail("want true or false without quotes, found %s", quoted(v.node.Value))
	return otherwise
}

// number reads a decimal number in a range.
func (v value) number(low, high int64) (int64, bool) {
	if !v.scalar("a number") {
		return 0, false
	}
	s := v.node.Value
	if !plain(v.node) {
		v.fail("want a number without quotes, found %s", quoted(s))
		return 0, false
	}
	digits := strings.TrimPrefix(s, "-")
	if digits == "" || strings.Trim(digits, "0123456789") != "" || len(digits) > 1 && digits[0] == '0' || s == "-0" {
		v.fail("want a decimal number, found %s; write digits only, without a leading zero", quoted(s))
		return 0, false
	}
	n, err := strconv.ParseInt(s, 10, 64)
	if err != nil || n < low || n > high {
		v.fail("%s is out of range; write a number from %d to %d", clip(s), low, high)
		return 0, false
	}
	return n, true
}

// word reads one of some words; "" is allowed and means that nothing was said.
func (v value) word(words ...string) string {
	if !v.scalar("text") {
		return ""
	}
	s := v.node.Value
	if s == "" || slices.Contains(words, s) {
		return s
	}
	v.fail("unknown word %s; %s", quoted(s), suggest(s, words))
	return ""
}

func (o object) word(key string, words ...string) string {
	if v, ok := o.fields[key]; ok {
		return v.word(words...)
	}
	return ""
}

// suggest says which known word was probably meant, or what the choice is.
func suggest(s string, known []string) string {
	best, distance := "", 3
	if len(s) >= 10 {
		distance = 4
	}
	for _, k := range known {
		if d := edits(s, k); d < distance {
			best, distance = k, d
		}
	}
	switch {
	case best != "":
		return "did you mean " + best + "?"
	case len(known) == 1:
		return "only " + known[0] + " is read here"
	}
	return "write one of " + strings.Join(known, ", ")
}

// edits is the number of single-character changes between two short words; words
// whose lengths are far apart count as far apart.
func edits(a, b string) int {
	if len(a) > len(b)+3 || len(b) > len(a)+3 {
		return 4
	}
	row := make([]int, len(b)+1)
	for j := range row {
		row[j] = j
	}
	for i := range len(a) {
		diagonal := row[0]
		row[0] = i + 1
		for j := range len(b) {
			change := diagonal
			if a[i] != b[j] {
				change++
			}
			diagonal = row[j+1]
			row[j+1] = min(change, row[j]+1, row[j+1]+1)
		}
	}
	return row[len(b)]
}
