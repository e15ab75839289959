package glob

import "strings"

// Pattern is a compiled policy glob. The zero value matches nothing.
type Pattern struct {
	delimiter byte
	head      string // literal text every match starts with
	tail      string // literal text every match ends with, behind head
	inside    string // literal text every match has between the two
	shape     shape
	rest      *machine // nil: nothing may follow head
	valid     bool
	open      bool
	// wide is the same pattern without a delimiter, for deny rules.
	wide *Pattern
}

// Compile reads a pattern whose `*` and `?` stop at the delimiter: '/' for paths,
// '.' for hosts, query values and names, 0 for nothing at all. An error is a
// *SyntaxError, or says that the pattern is too complex. A text with a NUL never
// matches a pattern that has a delimiter.
func Compile(pattern string, delimiter byte) (*Pattern, error) {
	letters, err := mapPattern(pattern, delimiter)
	if err != nil {
		return nil, err
	}
	nodes, err := parse(letters, delimiter != 0)
	if err != nil {
		return nil, err
	}
	p := &Pattern{delimiter: delimiter, valid: true}
	var n int
	p.head, n = literalHead(nodes, delimiter)
	if n == len(nodes) {
		return p, nil
	}
	if p.rest, err = assemble(nodes, n, delimiter); err != nil {
		return nil, err
	}
	p.open = p.rest.open()
	p.tail = literalTail(nodes[n:], delimiter)
	p.shape = shapeOf(nodes[n:], delimiter)
	p.inside = longestLiteral(withoutTail(nodes[n:]), delimiter)
	return p, nil
}

// CompileDeny is Compile for a deny rule: what it returns also matches everything
// that the pattern matches when no character stops its wildcards, so that
// `delete*` denies `delete.all`.
func CompileDeny(pattern string, delimiter byte) (*Pattern, error) {
	p, err := Compile(pattern, delimiter)
	if err != nil || delimiter == 0 {
		return p, err
	}
	if p.wide, err = Compile(pattern, 0); err != nil {
		return nil, err
	}
	return p, nil
}

// Literal reports whether the pattern matches one text only, and which.
func (p *Pattern) Literal() (string, bool) {
	return p.head, p.valid && p.rest == nil
}

// Head is text that everything the pattern matches starts with. It may be empty. What
// CompileDeny returned matches more.
func (p *Pattern) Head() string { return p.head }

// Match reports whether the whole of s fits the pattern.
func (p *Pattern) Match(s string) bool {
	return p.narrow(s) || p.wide != nil && p.wide.narrow(s)
}

func (p *Pattern) narrow(s string) bool {
	if !p.valid || !strings.HasPrefix(s, p.head) {
		return false
	}
	if p.rest == nil {
		return len(s) == len(p.head)
	}
	if len(s) < len(p.head)+len(p.tail) || !strings.HasSuffix(s, p.tail) {
		return false
	}
	if p.delimiter != 0 && strings.IndexByte(s, 0) >= 0 {
		return false
	}
	if matches, decided := p.matchesShape(s[len(p.head) : len(s)-len(p.tail)]); decided {
		return matches
	}
	var w walk
	p.rest.begin(&w)
	return p.walk(&w, s[len(p.head):])
}

func (p *Pattern) walk(w *walk, s string) bool {
	for i := range len(s) {
		if p.open && w.certain() {
			return true
		}
		if !p.feed(w, s[i]) {
			return false
		}
	}
	return w.matched()
}

// feed maps one byte of the text as mapPattern does and takes it.
func (p *Pattern) feed(w *walk, c byte) bool {
	switch {
	case p.delimiter == 0 || p.delimiter == separator:
		return w.step(symbol(c))
	case c == p.delimiter:
		return w.step(separator) && w.step(symbol(c)) && w.step(separator)
	case c == separator:
		return w.step(placeholder)
	}
	return w.step(symbol(c))
}

// literalHead collects the text that the nodes start with, up to the first
// wildcard, and how many nodes that is.
func literalHead(nodes []node, delimiter byte) (string, int) {
	var head []byte
	literal := func(i int, c byte) bool {
		return i < len(nodes) && nodes[i].kind == nodeLiteral && nodes[i].literal == c
	}
	i := 0
	for i < len(nodes) && nodes[i].kind == nodeLiteral {
		c := nodes[i].literal
		switch {
		case delimiter == 0 || delimiter == separator:
			head = append(head, c)
			i++
		case c == placeholder:
			head = append(head, separator)
			i++
		case c == separator:
			if !literal(i+1, delimiter) || !literal(i+2, separator) {
				return string(head), i
			}
			head = append(head, delimiter)
			i += 3
		default:
			head = append(head, c)
			i++
		}
	}
	return string(head), i
}

// literalTail is the text that the nodes end with, behind their last wildcard.
func literalTail(nodes []node, delimiter byte) string {
	from := len(nodes)
	for from > 0 && nodes[from-1].kind == nodeLiteral {
		from--
	}
	// What is left of a delimiter that a wildcard took a part of is no text.
	for ; from < len(nodes); from++ {
		if text, n := literalHead(nodes[from:], delimiter); n == len(nodes)-from {
			return text
		}
	}
	return ""
}

// assemble builds the automaton of the nodes from the given one on.
func assemble(nodes []node, from int, delimiter byte) (*machine, error) {
	var b builder
	e := emitter{b: &b, within: allBut(separator)}
	if delimiter == 0 {
		e.within = all()
	}
	if len(nodes) == 1 && nodes[0].kind == nodePrefix {
		b.loop(all())
		return b.machine()
	}
	e.list(nodes[from:])
	return b.machine()
}

// emitter turns nodes into states. within is what `*` and `?` consume.
type emitter struct {
	b      *builder
	within set
}

func (e *emitter) list(nodes []node) {
	for i := range nodes {
		if e.b.err != nil {
			return
		}
		e.node(&nodes[i])
	}
}

func (e *emitter) node(n *node) {
	switch n.kind {
	case nodeLiteral:
		e.b.step(one(symbol(n.literal)))
	case nodeAny:
		e.b.step(e.within)
	case nodeStar:
		e.b.loop(e.within)
	case nodeClass:
		e.b.step(set{kind: setClass, class: n.class})
	case nodePrefix:
		e.b.maybe(e.upToSeparator)
	case nodeInside:
		e.b.step(one(separator))
		e.b.maybe(e.upToSeparator)
	case nodeSuffix:
		e.b.step(one(separator))
		e.b.loop(all())
	case nodeChoice:
		if len(n.choices) > 0 {
			e.b.either(len(n.choices), func(i int) { e.list(n.choices[i]) })
		}
	}
}

func (e *emitter) upToSeparator() {
	e.b.loop(all())
	e.b.step(one(separator))
}
