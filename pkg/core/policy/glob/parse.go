package glob

import (
	"fmt"
	"unicode/utf8"
)

// Limits of a Pattern's text.
const (
	MaxLength = 4096 // bytes
	MaxDepth  = 8    // of alternatives inside alternatives
)

// The separator that every delimiter is mapped to, and the stand-in for a
// separator of the text that is not the delimiter.
const (
	separator   = '/'
	placeholder = 0
)

// nodeKind is a part of a parsed pattern.
type nodeKind uint8

const (
	nodeLiteral nodeKind = iota
	nodeAny              // ?
	nodeStar             // *
	nodeClass            // [...]
	nodePrefix           // **/ at the start of the pattern or of an alternative
	nodeInside           // /**/
	nodeSuffix           // /** at the end
	nodeChoice           // {a,b}
)

type node struct {
	kind    nodeKind
	literal byte
	class   *class
	choices [][]node
}

// letter is one byte of the mapped pattern and where it came from.
type letter struct {
	b  byte
	at int
}

// SyntaxError is a pattern without a meaning. Offset counts bytes from 0.
type SyntaxError struct {
	Offset int
	Reason string
}

// Error says what is wrong and at which character, counted from 1.
func (e *SyntaxError) Error() string {
	return fmt.Sprintf("at character %d: %s", e.Offset+1, e.Reason)
}

// mapPattern writes the pattern in terms of the separator. A delimiter other than
// `/` becomes three symbols, separator, delimiter, separator: this is why `**.b`
// needs a dot before the b, while `**/b` is content without a slash.
func mapPattern(pattern string, delimiter byte) ([]letter, error) {
	if len(pattern) > MaxLength {
		return nil, &SyntaxError{MaxLength, fmt.Sprintf("a pattern may have %d bytes", MaxLength)}
	}
	if !utf8.ValidString(pattern) {
		return nil, &SyntaxError{0, "the pattern is not valid UTF-8"}
	}
	out := make([]letter, 0, len(pattern))
	for i := range len(pattern) {
		c := pattern[i]
		switch {
		case c == 0:
			return nil, &SyntaxError{i, "a pattern cannot contain a NUL"}
		case delimiter == 0 || delimiter == separator:
			out = append(out, letter{c, i})
		case c == delimiter:
			out = append(out, letter{separator, i}, letter{c, i}, letter{separator, i})
		case c == separator:
			out = append(out, letter{placeholder, i})
		default:
			out = append(out, letter{c, i})
		}
	}
	return out, nil
}

// parser reads a mapped pattern.
type parser struct {
	in        []letter
	pos       int
	separated bool // whether the separator means anything
	// open are the lists of nodes being filled: the pattern itself, and above
	// it, for every open brace, the alternatives so far.
	open   [][]node
	braces []brace
}

// brace is an open `{`: where it stands and the height of open before it.
type brace struct{ at, height int }

func parse(in []letter, separated bool) ([]node, error) {
	p := &parser{in: in, separated: separated, open: [][]node{nil}}
	for p.pos < len(p.in) {
		if err := p.one(); err != nil {
			return nil, err
		}
	}
	if n := len(p.braces); n > 0 {
		return nil, &SyntaxError{p.braces[n-1].at, "this { is never closed; write \\{ for the character itself"}
	}
	return p.open[0], nil
}

func (p *parser) one() error {
	l := p.in[p.pos]
	p.pos++
	switch l.b {
	case '?':
		p.push(node{kind: nodeAny})
	case '*':
		p.star()
	case '[':
		return p.class(l.at)
	case '{':
		return p.openBrace(l.at)
	case '}':
		return p.closeBrace(l.at)
	case ',':
		if len(p.braces) == 0 {
			p.push(node{kind: nodeLiteral, literal: ','})
		} else {
			p.open = append(p.open, nil)
		}
	case '\\':
		if p.pos == len(p.in) {
			return &SyntaxError{l.at, "there is nothing after this \\ to take literally"}
		}
		p.push(node{kind: nodeLiteral, literal: p.in[p.pos].b})
		p.pos++
	default:
		p.push(node{kind: nodeLiteral, literal: l.b})
	}
	return nil
}

func (p *parser) push(n node) {
	top := len(p.open) - 1
	p.open[top] = append(p.open[top], n)
}

func (p *parser) openBrace(at int) error {
	if len(p.braces) == MaxDepth {
		return &SyntaxError{at, fmt.Sprintf("alternatives may be nested %d deep", MaxDepth)}
	}
	p.braces = append(p.braces, brace{at, len(p.open)})
	p.open = append(p.open, nil)
	return nil
}

func (p *parser) closeBrace(at int) error {
	n := len(p.braces)
	if n == 0 {
		return &SyntaxError{at, "this } closes nothing; write \\} for the character itself"}
	}
	height := p.braces[n-1].height
	p.braces = p.braces[:n-1]
	// Alternatives that are empty are dropped, so {a,} is the same as {a}.
	var choices [][]node
	for _, c := range p.open[height:] {
		if !blank(c) {
			choices = append(choices, c)
		}
	}
	p.open = p.open[:height]
	p.push(node{kind: nodeChoice, choices: choices})
	return nil
}

// blank reports whether nodes consume nothing in any way.
func blank(nodes []node) bool {
	for _, n := range nodes {
		if n.kind != nodeChoice || len(n.choices) > 0 {
			return false
		}
	}
	return true
}
