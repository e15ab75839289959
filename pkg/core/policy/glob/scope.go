package glob

import (
	"fmt"
	"strings"
	"unicode/utf8"
)

// Scope is the path scope of an endpoint. The zero value matches nothing.
type Scope struct {
	kind    scopeKind
	text    string // the pattern; for a subtree, the part before /**
	machine *machine
	open    bool
	weight  int
	err     error
}

type scopeKind uint8

const (
	scopeNone    scopeKind = iota
	scopeAny               // "", ** and /**
	scopeExact             // no wildcard, or a pattern without a meaning
	scopeSubtree           // X/**: X itself and all below it, X literal
	scopeGlob
)

// CompileScope reads an endpoint path. There is no pattern that it refuses: one
// that is not a valid glob stands for exactly its own text, and Err says why.
func CompileScope(pattern string) *Scope {
	s := &Scope{kind: scopeExact, text: pattern, weight: weigh(pattern)}
	switch {
	case pattern == "", pattern == "**", pattern == "/**":
		s.kind = scopeAny
	case len(pattern) > MaxLength:
		s.err = &SyntaxError{MaxLength, fmt.Sprintf("a pattern may have %d bytes", MaxLength)}
	case strings.HasSuffix(pattern, "/**"):
		s.kind, s.text = scopeSubtree, strings.TrimSuffix(pattern, "/**")
	case strings.ContainsAny(pattern, "*?["):
		s.compile(pattern)
	}
	return s
}

func (s *Scope) compile(pattern string) {
	m, err := scopeMachine(pattern)
	if err != nil {
		s.err = err
		return
	}
	s.kind, s.machine, s.open = scopeGlob, m, m.open()
}

// weigh counts the characters that are not a star.
func weigh(pattern string) int {
	return utf8.RuneCountInString(pattern) - strings.Count(pattern, "*")
}

// Specificity orders scopes that match the same path: the higher one wins. It is
// the number of characters of the pattern that are not `*`.
func (s *Scope) Specificity() int { return s.weight }

// Err says why the pattern is compared as plain text although it looks like a
// glob; nil if it is what it looks like.
func (s *Scope) Err() error { return s.err }

// Match reports whether a request path is inside the scope.
func (s *Scope) Match(path string) bool {
	switch s.kind {
	case scopeAny:
		return true
	case scopeExact:
		return path == s.text
	case scopeSubtree:
		return s.matchSubtree(path)
	case scopeGlob:
		return path == s.text || s.matchGlob(path)
	}
	return false
}

func (s *Scope) matchSubtree(path string) bool {
	rest, ok := strings.CutPrefix(path, s.text)
	return ok && (rest == "" || rest[0] == '/' || rest == "/**")
}

func (s *Scope) matchGlob(path string) bool {
	var w walk
	s.machine.begin(&w)
	for _, r := range path {
		if s.open && w.certain() {
			return true
		}
		if !w.step(r) {
			return false
		}
	}
	return w.matched()
}

// scopeMachine builds the automaton of a scope glob.
func scopeMachine(pattern string) (*machine, error) {
	if !utf8.ValidString(pattern) {
		return nil, &SyntaxError{0, "the pattern is not valid UTF-8"}
	}
	p := scopeParser{in: []rune(pattern)}
	for p.pos < len(p.in) && p.b.err == nil {
		if err := p.one(); err != nil {
			return nil, err
		}
	}
	return p.b.machine()
}

type scopeParser struct {
	in  []rune
	pos int
	b   builder
	// recursive says that the last thing read was a ** component, which makes
	// another one right behind it redundant.
	recursive bool
}

func (p *scopeParser) one() error {
	was := p.recursive
	p.recursive = false
	switch r := p.in[p.pos]; r {
	case '*':
		return p.star(was)
	case '[':
		return p.class()
	case '?':
		p.b.step(all())
	default:
		p.b.step(one(r))
	}
	p.pos++
	return nil
}

func (p *scopeParser) star(was bool) error {
	from := p.pos
	for p.pos < len(p.in) && p.in[p.pos] == '*' {
		p.pos++
	}
	n := p.pos - from
	if n == 1 {
		p.b.loop(all())
		return nil
	}
	atEnd := p.pos == len(p.in)
	starts := from == 0 || p.in[from-1] == '/'
	if n > 2 || !starts || !atEnd && p.in[p.pos] != '/' {
		return &SyntaxError{p.offset(from), "** must be a whole path component; write * which crosses / as well"}
	}
	p.recursive = true
	switch {
	case atEnd:
		p.b.loop(all())
	case was:
		p.pos++
	default:
		p.pos++
		p.b.maybe(func() {
			p.b.loop(all())
			p.b.step(one('/'))
		})
	}
	return nil
}

// offset is the byte offset of a rune of the pattern.
func (p *scopeParser) offset(i int) int { return len(string(p.in[:i])) }

// class reads a bracket expression: `]` right behind the opening is a member, a
// member is a character or a range, `!` negates.
func (p *scopeParser) class() error {
	from := p.pos
	body := from + 1
	c := &class{}
	if body < len(p.in) && p.in[body] == '!' {
		c.negated = true
		body++
	}
	end := body + 1
	for end < len(p.in) && p.in[end] != ']' {
		end++
	}
	if end >= len(p.in) {
		return &SyntaxError{p.offset(from), "this [ is never closed; write [[] for the character itself"}
	}
	for i := body; i < end; {
		if i+2 < end && p.in[i+1] == '-' {
			c.spans = append(c.spans, span{p.in[i], p.in[i+2]})
			i += 3
			continue
		}
		c.spans = append(c.spans, span{p.in[i], p.in[i]})
		i++
	}
	p.b.step(set{kind: setClass, class: c})
	p.pos = end + 1
	return nil
}
