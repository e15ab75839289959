package glob

import "fmt"

// isSeparator reports whether the letter at i is a separator.
func (p *parser) isSeparator(i int) bool {
	return p.separated && i >= 0 && i < len(p.in) && p.in[i].b == separator
}

// star reads what follows a `*`. A second `*` has a meaning of its own only when
// the two are a whole component; elsewhere they are worth one.
func (p *parser) star() {
	before := p.pos - 2 // the letter in front of the first star
	if p.pos == len(p.in) || p.in[p.pos].b != '*' {
		p.push(node{kind: nodeStar})
		return
	}
	p.pos++
	top := &p.open[len(p.open)-1]
	if len(*top) == 0 {
		p.leadingStars(top)
		return
	}
	last := &(*top)[len(*top)-1]
	if !p.isSeparator(before) || !endsComponent(last) {
		p.push(node{kind: nodeStar})
		return
	}
	switch {
	case p.pos == len(p.in), len(p.braces) > 0 && (p.in[p.pos].b == ',' || p.in[p.pos].b == '}'):
		if last.kind != nodePrefix {
			*last = node{kind: nodeSuffix}
		}
	case p.isSeparator(p.pos):
		p.pos++
		if last.kind != nodePrefix {
			*last = node{kind: nodeInside}
		}
	default:
		p.push(node{kind: nodeStar})
	}
}

// leadingStars reads `**` where a list of nodes starts.
func (p *parser) leadingStars(top *[]node) {
	switch {
	case p.pos == len(p.in):
		*top = append(*top, node{kind: nodePrefix})
	case p.isSeparator(p.pos):
		p.pos++
		*top = append(*top, node{kind: nodePrefix})
	default:
		*top = append(*top, node{kind: nodeStar})
	}
}

// endsComponent reports whether a node's last symbol is the separator itself.
func endsComponent(n *node) bool {
	switch n.kind {
	case nodeLiteral:
		return n.literal == separator
	case nodePrefix, nodeInside:
		return true
	}
	return false
}

// class reads a bracket expression whose `[` was at the given place. Backslash is
// an ordinary character in it.
func (p *parser) class(at int) error {
	c := &class{}
	if p.pos < len(p.in) && (p.in[p.pos].b == '!' || p.in[p.pos].b == '^') {
		c.negated = true
		p.pos++
	}
	ranging := false
	for first := true; ; first = false {
		if p.pos == len(p.in) {
			return &SyntaxError{at, "this [ is never closed; write [[] for the character itself"}
		}
		l := p.in[p.pos]
		p.pos++
		switch {
		case l.b >= 0x80:
			return &SyntaxError{l.at, "a class can hold ASCII only; write {…,…} instead"}
		case l.b == ']' && !first:
			if ranging {
				c.spans = append(c.spans, span{'-', '-'})
			}
			p.push(node{kind: nodeClass, class: c})
			return nil
		case ranging:
			last := &c.spans[len(c.spans)-1]
			if symbol(l.b) < last.first {
				return &SyntaxError{l.at, fmt.Sprintf("the range %c-%c is backwards", last.first, l.b)}
			}
			last.last, ranging = symbol(l.b), false
		case l.b == '-' && !first:
			ranging = true
		default:
			c.spans = append(c.spans, span{symbol(l.b), symbol(l.b)})
		}
	}
}
