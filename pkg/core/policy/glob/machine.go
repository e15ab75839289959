package glob

import "math/bits"

// maxStates bounds an automaton. With the accepting state a set of states is
// exactly stateWords words.
const (
	stateWords = 16
	maxStates  = stateWords*64 - 1
)

// op is what a state does.
type op uint8

const (
	opStep op = iota // consume one symbol of the set, go to the next state
	opLoop           // consume any number of symbols of the set, or go to the next state
	opFork           // consume nothing, go to every target
)

// state is one state of a machine. Every move without a symbol leads to a higher
// state, so that one ascending pass over a state set finds them all.
type state struct {
	op      op
	set     set
	targets []uint16 // of an opFork
}

// machine is a nondeterministic automaton over symbols. State 0 is the start,
// len(states) accepts.
type machine struct {
	states []state
}

// open reports whether the last state loops over everything: once it is reached,
// the rest of the input does not matter.
func (m *machine) open() bool {
	if len(m.states) == 0 {
		return false
	}
	last := &m.states[len(m.states)-1]
	return last.op == opLoop && last.set.kind == setAll
}

// walk is one pass of some input through a machine. It lives on the stack.
type walk struct {
	m     *machine
	words int // of now and next that can be in use
	now   stateSet
	next  stateSet
}

type stateSet [stateWords]uint64

func (s *stateSet) add(i int)      { s[i/64] |= 1 << (i % 64) }
func (s *stateSet) has(i int) bool { return s[i/64]&(1<<(i%64)) != 0 }

func (m *machine) begin(w *walk) {
	w.m = m
	w.words = len(m.states)/64 + 1
	w.now[0] = 1
}

// step consumes one symbol. It reports false when no continuation can match any
// more.
func (w *walk) step(s symbol) bool {
	var alive uint64
	for i := range w.words {
		w.next[i] = 0
	}
	for word := range w.words {
		w.consume(word, s)
	}
	for i := range w.words {
		w.now[i] = w.next[i]
		alive |= w.next[i]
	}
	return alive != 0
}

// consume takes s in every state of one word of the current set, including those
// that the set gains on the way.
func (w *walk) consume(word int, s symbol) {
	var done uint64
	for {
		left := w.now[word] &^ done
		if left == 0 {
			return
		}
		bit := bits.TrailingZeros64(left)
		done |= 1 << bit
		i := word*64 + bit
		if i == len(w.m.states) {
			continue
		}
		st := &w.m.states[i]
		switch st.op {
		case opStep:
			if st.set.has(s) {
				w.next.add(i + 1)
			}
		case opLoop:
			w.now.add(i + 1)
			if st.set.has(s) {
				w.next.add(i)
			}
		case opFork:
			for _, t := range st.targets {
				w.now.add(int(t))
			}
		}
	}
}

// settle adds the states that can be reached without a symbol.
func (w *walk) settle() {
	for word := range w.words {
		w.settleWord(word)
	}
}

func (w *walk) settleWord(word int) {
	var done uint64
	for {
		left := w.now[word] &^ done
		if left == 0 {
			return
		}
		bit := bits.TrailingZeros64(left)
		done |= 1 << bit
		i := word*64 + bit
		if i == len(w.m.states) {
			continue
		}
		switch st := &w.m.states[i]; st.op {
		case opLoop:
			w.now.add(i + 1)
		case opFork:
			for _, t := range st.targets {
				w.now.add(int(t))
			}
		}
	}
}

// matched reports whether the input so far is a whole match.
func (w *walk) matched() bool {
	w.settle()
	return w.now.has(len(w.m.states))
}

// certain reports whether every continuation of the input matches. Only for a
// machine that is open; a false answer says nothing.
func (w *walk) certain() bool { return w.now.has(len(w.m.states) - 1) }
