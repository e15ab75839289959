package glob

// symbol is what an automaton reads: a byte of a Pattern or Selector, a rune of a
// Scope.
type symbol = rune

// set is a set of symbols. The zero set is empty.
type set struct {
	kind   setKind
	symbol symbol // of one and allBut
	class  *class
}

type setKind uint8

const (
	setNone   setKind = iota
	setOne            // exactly symbol
	setAllBut         // everything except symbol
	setAll
	setClass
)

// class is a bracket expression.
type class struct {
	negated bool
	spans   []span
}

// span is the symbols from first to last, both included.
type span struct{ first, last symbol }

func one(s symbol) set    { return set{kind: setOne, symbol: s} }
func allBut(s symbol) set { return set{kind: setAllBut, symbol: s} }
func all() set            { return set{kind: setAll} }

// has reports whether s is in the set.
func (t *set) has(s symbol) bool {
	switch t.kind {
	case setOne:
		return s == t.symbol
	case setAllBut:
		return s != t.symbol
	case setAll:
		return true
	case setClass:
		return t.class.has(s)
	}
	return false
}

func (c *class) has(s symbol) bool {
	for _, sp := range c.spans {
		if sp.first <= s && s <= sp.last {
			return !c.negated
		}
	}
	return c.negated
}

// edges calls yield with one symbol of every range over which membership in the set does
// not change. Two sets meet if and only if such a symbol of one of them is in both.
func (t *set) edges(yield func(symbol) bool) bool {
	if !yield(0) {
		return false
	}
	switch t.kind {
	case setOne, setAllBut:
		return yield(t.symbol) && yield(t.symbol+1)
	case setClass:
		for _, sp := range t.class.spans {
			if !yield(sp.first) || !yield(sp.last+1) {
				return false
			}
		}
	}
	return true
}

// meets reports whether some symbol is in both sets.
func (t *set) meets(o *set) bool {
	found := false
	probe := func(s symbol) bool {
		found = t.has(s) && o.has(s)
		return !found
	}
	if t.edges(probe) {
		o.edges(probe)
	}
	return found
}
