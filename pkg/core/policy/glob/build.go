package glob

import "errors"

// errStates is what a pattern with too many parts gets.
var errStates = errors.New("the pattern is too complex; write several simpler patterns")

// builder assembles a machine front to back.
type builder struct {
	states []state
	err    error
}

func (b *builder) add(s state) int {
	if len(b.states) == maxStates {
		b.err = errStates
		return len(b.states) - 1
	}
	b.states = append(b.states, s)
	return len(b.states) - 1
}

func (b *builder) step(s set) { b.add(state{op: opStep, set: s}) }
func (b *builder) loop(s set) { b.add(state{op: opLoop, set: s}) }

// fork emits a state whose targets are set later.
func (b *builder) fork() int { return b.add(state{op: opFork}) }

// from makes the state after the last one a target of a fork.
func (b *builder) from(fork int) {
	if b.err == nil {
		b.states[fork].targets = append(b.states[fork].targets, uint16(len(b.states)))
	}
}

// maybe emits body, or nothing in its place.
func (b *builder) maybe(body func()) {
	f := b.fork()
	b.from(f)
	body()
	b.from(f)
}

// either emits the alternatives of a choice.
func (b *builder) either(n int, body func(int)) {
	f := b.fork()
	ends := make([]int, 0, n)
	for i := range n {
		b.from(f)
		body(i)
		ends = append(ends, b.fork())
	}
	for _, e := range ends {
		b.from(e)
	}
}

func (b *builder) machine() (*machine, error) {
	if b.err != nil {
		return nil, b.err
	}
	return &machine{states: b.states}, nil
}
