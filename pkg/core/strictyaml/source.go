package strictyaml

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"unicode/utf8"

	"go.yaml.in/yaml/v3"
)

// Limits of a file.
const (
	MaxBytes    = 1 << 20 // of the file
	MaxDepth    = 32      // of maps and lists inside each other
	MaxProblems = 1000    // that are reported; what is above is counted
)

// load turns the bytes into the root node. When it reports nothing and returns
// nil the file is empty.
func (r *reader) load(data []byte) *yaml.Node {
	if len(data) > MaxBytes {
		r.reportAt(Position{1, 1}, "", "the file has more than %d bytes", MaxBytes)
		return nil
	}
	if at, why := badCharacter(data); why != "" {
		r.reportAt(at, "", "%s", why)
		return nil
	}
	dec := yaml.NewDecoder(bytes.NewReader(data))
	var doc yaml.Node
	switch err := dec.Decode(&doc); {
	case errors.Is(err, io.EOF):
		return nil
	case err != nil:
		r.syntax(err, data)
		return nil
	}
	var second yaml.Node
	switch err := dec.Decode(&second); {
	case errors.Is(err, io.EOF):
	case err != nil:
		r.syntax(err, data)
		return nil
	default:
		r.reportAt(place(&second), "", "a second document starts here; write one to a file")
		return nil
	}
	if len(doc.Content) == 0 {
		return nil
	}
	return doc.Content[0]
}

// badCharacter finds the first byte that no file needs and that could make it
// look different from what it is.
func badCharacter(data []byte) (Position, string) {
	at := Position{1, 1}
	for i := 0; i < len(data); {
		c, size := utf8.DecodeRune(data[i:])
		switch {
		case c == utf8.RuneError && size == 1:
			return at, "the file is not UTF-8 here; save it as UTF-8"
		case c == 0:
			return at, "there is a NUL here; remove it"
		case c == '\r' && (i+1 == len(data) || data[i+1] != '\n'):
			return at, "there is a carriage return without a line feed here; end lines with a line feed"
		case c == '\ufeff' && i == 0:
			i += size
			continue
		case hidden(c) && c != '\t' && c != '\n' && c != '\r':
			return at, fmt.Sprintf("there is an invisible character (U+%04X) here; remove it", c)
		}
		if at.Column++; c == '\n' {
			at = Position{at.Line + 1, 1}
		}
		i += size
	}
	return at, ""
}

// hidden reports whether a character does something instead of being seen:
// controls, other line ends, and what changes the direction of writing.
func hidden(c rune) bool {
	switch {
	case c < ' ', 0x7f <= c && c < 0xa0, c == 0xad, c == 0xfeff:
		return true
	case 0x200b <= c && c <= 0x200f, 0x2028 <= c && c <= 0x202e, 0x2060 <= c && c <= 0x206f:
		return true
	}
	return false
}

// structure reports what YAML allows and is not read here, in every part of the
// file, known to the caller or not. It returns false if the file is too deep to be
// looked at any further.
func (r *reader) structure(n *yaml.Node, depth int) bool {
	if depth > MaxDepth {
		r.report(n, "", "maps and lists may be nested %d deep; this is deeper", MaxDepth)
		return false
	}
	switch {
	case n.Kind == yaml.AliasNode:
		r.report(n, "", "*%s is an alias; write the value out", Clip(n.Value))
		return true
	case n.Anchor != "":
		r.report(n, "", "&%s is an anchor; remove it, aliases are not read", Clip(n.Anchor))
	case n.Style&yaml.TaggedStyle != 0:
		r.report(n, "", "%s is a tag; remove it, and quote the value if it is text", Clip(n.Tag))
	}
	for i, c := range n.Content {
		if n.Kind == yaml.MappingNode && i%2 == 0 && c.Kind == yaml.ScalarNode && c.Tag == "!!merge" {
			r.report(c, "", "<< merges another map; write its keys out")
		}
		if !r.structure(c, depth+1) {
			return false
		}
	}
	return true
}
