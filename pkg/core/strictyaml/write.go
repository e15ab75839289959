package strictyaml

import (
	"bytes"
	"fmt"
	"slices"
	"unicode/utf8"

	"go.yaml.in/yaml/v3"
)

// Write writes a file that Read reads. The texts of its nodes are KeyNodes and TextNodes,
// in UTF-8; the same nodes give the same bytes.
func Write(root *yaml.Node) []byte {
	var out bytes.Buffer
	enc := yaml.NewEncoder(&out)
	enc.SetIndent(2)
	if err := enc.Encode(root); err != nil {
		panic(fmt.Sprintf("BUG: YAML cannot be written: %v", err))
	}
	return escaped(out.Bytes())
}

// escaped has escapes for what is beyond ASCII, which is in quoted texts alone: letters
// that look like others, and what cannot be seen.
func escaped(text []byte) []byte {
	out := make([]byte, 0, len(text))
	for _, c := range string(text) {
		switch {
		case c < utf8.RuneSelf:
			out = append(out, byte(c))
		case c <= 0xffff:
			out = fmt.Appendf(out, `\u%04X`, c)
		default:
			out = fmt.Appendf(out, `\U%08X`, c)
		}
	}
	return out
}

// KeyNode is a key: plain where it is one of a schema's words, which all are.
func KeyNode(key string) *yaml.Node {
	if len(key) > 0 && len(key) < 80 && bareWord(key) {
		return &yaml.Node{Kind: yaml.ScalarNode, Tag: "!!str", Value: key}
	}
	return TextNode(key)
}

// bareWord reports whether every YAML reader takes s for text: it has lower-case letters,
// underscores, and digits after the first letter, and is none of the legacy words.
func bareWord(s string) bool {
	letter := false
	for i := range len(s) {
		c := s[i]
		switch {
		case c >= 'a' && c <= 'z':
			letter = true
		case c == '_', c >= '0' && c <= '9' && letter:
		default:
			return false
		}
	}
	return letter && !slices.Contains(legacy, s)
}

// TextNode is a text in quotes, whatever is in it.
func TextNode(s string) *yaml.Node {
	return &yaml.Node{Kind: yaml.ScalarNode, Tag: "!!str", Style: yaml.DoubleQuotedStyle, Value: s}
}
