package strictyaml

import (
	"slices"
	"strconv"
	"strings"

	"go.yaml.in/yaml/v3"
)

// legacy are the plain words that readers of YAML 1.1 take for something else
// than text.
var legacy = []string{"y", "n", "yes", "no", "on", "off", "true", "false", "null", "~"}

// plain reports whether a scalar has no quotes.
func plain(n *yaml.Node) bool {
	return n.Style&(yaml.DoubleQuotedStyle|yaml.SingleQuotedStyle|yaml.LiteralStyle|yaml.FoldedStyle) == 0
}

// Scalar reports whether the value is a scalar and not null; if not it reports an error, with
// what is wanted.
func (v Value) Scalar(want string) bool {
	if !v.usable() {
		return false
	}
	if v.node.Kind != yaml.ScalarNode {
		v.Fail("want %s, found %s; write a single value", want, kind(v.node))
		return false
	}
	if v.node.Tag == "!!null" && plain(v.node) {
		v.Fail("want %s, found nothing; write a value or remove the key", want)
		return false
	}
	return true
}

// Text reads a string. Plain text that some YAML reader takes for a number, a
// date or a truth value is refused, and so are characters that cannot be seen.
func (v Value) Text() (string, bool) {
	if !v.Scalar("text") {
		return "", false
	}
	s := v.node.Value
	switch {
	case plain(v.node) && v.node.Tag != "!!str" && v.node.Tag != "!!merge",
		plain(v.node) && slices.Contains(legacy, strings.ToLower(s)):
		v.Fail(`want text, found %s, which YAML reads as something else; write "%s" in quotes`, Clip(s), Clip(s))
		return "", false
	case strings.ContainsFunc(s, hidden):
		v.Fail("the text has an invisible character in it; remove it")
		return "", false
	}
	return s, true
}

// Flag reads true or false; otherwise when it is wrong.
func (v Value) Flag(otherwise bool) bool {
	if !v.Scalar("true or false") {
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
	v.Fail("want true or false without quotes, found %s", Quoted(v.node.Value))
	return otherwise
}

// Number reads a decimal number in a range, both ends included.
func (v Value) Number(low, high int64) (int64, bool) {
	if !v.Scalar("a number") {
		return 0, false
	}
	s := v.node.Value
	if !plain(v.node) {
		v.Fail("want a number without quotes, found %s", Quoted(s))
		return 0, false
	}
	digits := strings.TrimPrefix(s, "-")
	if digits == "" || strings.Trim(digits, "0123456789") != "" || len(digits) > 1 && digits[0] == '0' || s == "-0" {
		v.Fail("want a decimal number, found %s; write digits only, without a leading zero", Quoted(s))
		return 0, false
	}
	n, err := strconv.ParseInt(s, 10, 64)
	if err != nil || n < low || n > high {
		v.Fail("%s is out of range; write a number from %d to %d", Clip(s), low, high)
		return 0, false
	}
	return n, true
}

// Word reads one of some words; "" is allowed and means that nothing was said.
func (v Value) Word(words ...string) string {
	if !v.Scalar("text") {
		return ""
	}
	s := v.node.Value
	if s == "" || slices.Contains(words, s) {
		return s
	}
	v.Fail("unknown word %s; %s", Quoted(s), suggest(s, words))
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
