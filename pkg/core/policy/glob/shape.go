package glob

import "strings"

// shape is what follows the literal start of a Pattern, where that is something that
// needs no automaton: most patterns of real policies end so.
type shape uint8

const (
	shapeAny   shape = iota // anything else
	shapeStar               // one * and then text
	shapeBelow              // /** and no more
)

// shapeOf knows the shape of nodes whose text is what it is mapped to.
func shapeOf(nodes []node, delimiter byte) shape {
	if delimiter != 0 && delimiter != separator {
		return shapeAny
	}
	switch {
	case nodes[0].kind == nodeSuffix && len(nodes) == 1:
		return shapeBelow
	case nodes[0].kind == nodeStar && literals(nodes[1:]) == len(nodes)-1:
		return shapeStar
	}
	return shapeAny
}

// literals counts the literal nodes that a list starts with.
func literals(nodes []node) int {
	n := 0
	for n < len(nodes) && nodes[n].kind == nodeLiteral {
		n++
	}
	return n
}

// longestLiteral is the longest text in the nodes that every match has to contain.
func longestLiteral(nodes []node, delimiter byte) string {
	best := ""
	if delimiter != 0 && delimiter != separator {
		return best
	}
	for i := 0; i < len(nodes); {
		n := literals(nodes[i:])
		if n > len(best) {
			best, _ = literalHead(nodes[i:i+n], delimiter)
		}
		i += max(n, 1)
	}
	return best
}

// withoutTail leaves out the literal nodes that a list ends with.
func withoutTail(nodes []node) []node {
	for len(nodes) > 0 && nodes[len(nodes)-1].kind == nodeLiteral {
		nodes = nodes[:len(nodes)-1]
	}
	return nodes
}

// matchesShape decides about what stands between the literal ends of a text. The
// second result is false if the automaton has to.
func (p *Pattern) matchesShape(middle string) (matches, decided bool) {
	switch p.shape {
	case shapeStar:
		return p.delimiter == 0 || strings.IndexByte(middle, p.delimiter) < 0, true
	case shapeBelow:
		return middle != "" && middle[0] == separator, true
	}
	return false, !strings.Contains(middle, p.inside)
}
