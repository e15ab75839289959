package glob

// Overlaps reports whether some path could be inside both scopes. It errs on the
// side of yes.
func (s *Scope) Overlaps(o *Scope) bool {
	switch {
	case s.kind == scopeNone || o.kind == scopeNone:
		return false
	case s.kind == scopeAny || o.kind == scopeAny:
		return true
	case s.kind == scopeExact:
		return o.Match(s.text)
	case o.kind == scopeExact:
		return s.Match(o.text)
	case s.kind == scopeGlob && o.Match(s.text), o.kind == scopeGlob && s.Match(o.text):
		return true
	}
	ms, errS := s.whole()
	mo, errO := o.whole()
	return errS != nil || errO != nil || meet(ms, mo)
}

// whole is the automaton of a subtree or glob.
func (s *Scope) whole() (*machine, error) {
	if s.kind == scopeGlob {
		return s.machine, nil
	}
	var b builder
	for _, r := range s.text {
		b.step(one(r))
	}
	b.maybe(func() {
		b.step(one('/'))
		b.loop(all())
	})
	return b.machine()
}

// pair is a state of each of two machines.
type pair struct{ a, b int }

// meet reports whether two machines accept a common text, by walking both at once.
// The walk sees each pair of states once: at most (maxStates+1)² of them.
func meet(a, b *machine) bool {
	q := meeting{a: a, b: b}
	q.seen = make([]uint64, ((len(a.states)+1)*(len(b.states)+1)+63)/64)
	q.visit(pair{0, 0})
	for len(q.todo) > 0 {
		p := q.todo[len(q.todo)-1]
		q.todo = q.todo[:len(q.todo)-1]
		if p.a == len(a.states) && p.b == len(b.states) {
			return true
		}
		q.follow(p)
	}
	return false
}

type meeting struct {
	a, b *machine
	seen []uint64 // one bit for each pair
	todo []pair
}

func (q *meeting) visit(p pair) {
	i := p.a*(len(q.b.states)+1) + p.b
	if q.seen[i/64]&(1<<(i%64)) == 0 {
		q.seen[i/64] |= 1 << (i % 64)
		q.todo = append(q.todo, p)
	}
}

func (q *meeting) follow(p pair) {
	freeMoves(q.a, p.a, func(t int) { q.visit(pair{t, p.b}) })
	freeMoves(q.b, p.b, func(t int) { q.visit(pair{p.a, t}) })
	if p.a == len(q.a.states) || p.b == len(q.b.states) {
		return
	}
	sa, sb := &q.a.states[p.a], &q.b.states[p.b]
	if sa.op != opFork && sb.op != opFork && sa.set.meets(&sb.set) {
		q.visit(pair{after(sa, p.a), after(sb, p.b)})
	}
}

// after is where consuming a symbol leads from state i.
func after(s *state, i int) int {
	if s.op == opLoop {
		return i
	}
	return i + 1
}

// freeMoves calls to with the states that state i reaches without a symbol.
func freeMoves(m *machine, i int, to func(int)) {
	if i == len(m.states) {
		return
	}
	switch s := &m.states[i]; s.op {
	case opLoop:
		to(i + 1)
	case opFork:
		for _, t := range s.targets {
			to(int(t))
		}
	}
}

// MatchesSomePath reports whether a rule path or binary pattern matches any text
// that starts with a slash. One that does not can never have an effect. It errs
// on the side of yes.
func MatchesSomePath(pattern string) bool {
	m, err := wholeMachine(pattern)
	if err != nil {
		return true
	}
	var b builder
	b.step(one(separator))
	b.loop(all())
	rooted, err := b.machine()
	return err != nil || meet(m, rooted)
}

// wholeMachine is the automaton of a Pattern for paths without the shortcut for its literal
// start.
func wholeMachine(pattern string) (*machine, error) {
	letters, err := mapPattern(pattern, separator)
	if err != nil {
		return nil, err
	}
	nodes, err := parse(letters, true)
	if err != nil {
		return nil, err
	}
	return assemble(nodes, 0, separator)
}

// Meets reports whether some path could be inside the scope and match the pattern of
// a rule. It errs on the side of yes, also for what is not plain ASCII.
func (s *Scope) Meets(pattern string) bool {
	switch {
	case s.kind == scopeAny || !plain(s.text) || !plain(pattern):
		return true
	case s.kind == scopeNone:
		return false
	}
	p, err := Compile(pattern, separator)
	if err != nil || s.kind == scopeExact {
		return err != nil || p.Match(s.text)
	}
	if text, ok := p.Literal(); ok {
		return s.Match(text)
	}
	own, err1 := s.whole()
	other, err2 := wholeMachine(pattern)
	return err1 != nil || err2 != nil || meet(own, other)
}

// plain reports whether a text is ASCII: there, bytes and runes are the same.
func plain(s string) bool {
	for i := range len(s) {
		if s[i] >= 0x80 {
			return false
		}
	}
	return true
}

// PathsOverlap reports whether some text could match both of two rule path or binary
// patterns. It errs on the side of yes.
func PathsOverlap(a, b string) bool {
	ma, errA := wholeMachine(a)
	mb, errB := wholeMachine(b)
	return errA != nil || errB != nil || meet(ma, mb)
}
