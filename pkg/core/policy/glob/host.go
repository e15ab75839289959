package glob

import "strings"

// Host is the host of a policy endpoint. The zero value matches nothing.
type Host struct {
	kind    hostKind
	text    string // lower-case
	pattern *Pattern
	head    string // before the first star
	tail    string // behind the last star
	machine *machine
}

type hostKind uint8

const (
	hostNone  hostKind = iota
	hostAny            // the empty pattern
	hostExact          // no star: every character stands for itself
	hostWild
)

// CompileHost reads an endpoint's host: empty is any host, a text without `*` is
// exactly that host, anything else is a Pattern with the delimiter '.'. Letter
// case does not count.
func CompileHost(pattern string) (*Host, error) {
	h := &Host{kind: hostExact, text: lower(pattern)}
	switch {
	case pattern == "":
		h.kind = hostAny
		return h, nil
	case !strings.Contains(pattern, "*"):
		return h, nil
	}
	h.kind = hostWild
	var err error
	if h.pattern, err = Compile(h.text, '.'); err != nil {
		return nil, err
	}
	h.head = h.text[:strings.IndexByte(h.text, '*')]
	h.tail = h.text[strings.LastIndexByte(h.text, '*')+1:]
	h.machine = hostMachine(h.text)
	return h, nil
}

// Match reports whether a host name or address fits.
func (h *Host) Match(host string) bool {
	switch h.kind {
	case hostAny:
		return true
	case hostExact:
		return lower(host) == h.text
	case hostWild:
		return h.pattern.Match(lower(host))
	}
	return false
}

// Exact returns the only host that matches, if there is only one.
func (h *Host) Exact() (string, bool) { return h.text, h.kind == hostExact }

// Overlaps reports whether some host could match both. It errs on the side of
// yes: for patterns with other characters than `*` that are special, and for
// those too complex to compare.
func (h *Host) Overlaps(o *Host) bool {
	switch {
	case h.kind == hostNone || o.kind == hostNone:
		return false
	case h.kind == hostAny || o.kind == hostAny:
		return true
	case h.kind == hostExact:
		return o.Match(h.text)
	case o.kind == hostExact:
		return h.Match(o.text)
	case h.machine == nil || o.machine == nil:
		return true
	}
	return !h.endsApart(o) && meet(h.machine, o.machine)
}

// endsApart reports whether what stands before the first star, or behind the last
// one, rules out a common host. It answers for nearly all pairs of a real policy.
func (h *Host) endsApart(o *Host) bool {
	return !strings.HasPrefix(h.head, o.head) && !strings.HasPrefix(o.head, h.head) ||
		!strings.HasSuffix(h.tail, o.tail) && !strings.HasSuffix(o.tail, h.tail)
}

// MayCover reports whether some host could match both the selector and an
// endpoint's host. It errs on the side of yes.
func (s *Selector) MayCover(h *Host) bool {
	switch {
	case s.machine == nil || h.kind == hostNone:
		return false
	case h.kind == hostExact:
		return s.Match(h.text)
	case h.kind == hostAny || h.machine == nil:
		return true
	}
	return meet(s.machine, h.machine)
}

// hostMachine is the automaton of a host pattern over plain bytes, without the
// mapping of the dot, so that it can be compared with a Selector's. It covers at
// least what the pattern matches; nil stands for everything.
func hostMachine(pattern string) *machine {
	if strings.ContainsAny(pattern, `?[]{}\`) {
		return nil
	}
	var b builder
	for i := 0; i < len(pattern); i++ {
		switch {
		case strings.HasPrefix(pattern[i:], "**"):
			b.loop(all())
			i++
		case pattern[i] == '*':
			b.loop(allBut('.'))
		default:
			b.step(one(symbol(pattern[i])))
		}
	}
	m, err := b.machine()
	if err != nil {
		return nil
	}
	return m
}
