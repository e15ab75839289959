package placeholder

import (
	"bytes"
	"strings"
)

// Scanner looks for a marker in bytes that come in parts. Its zero value is ready.
//
// What it finds is what repeated percent-decoding could turn into a marker, however
// the escapes are nested. One pass does that: an escape is replaced on a stack as
// soon as its last digit is there, which leaves the same text as decoding over and
// over, because no two escapes can overlap. Most bytes never reach the stack.
type Scanner struct {
	stack [stackDepth]entry
	n     int   // entries in use; 0: nothing that came before matters
	pos   int64 // of the next byte
	found bool
}

// stackDepth bounds what is remembered of the decoded text. It is far more than the
// escapes of one marker character need that anything would decode.
const stackDepth = 256

// entry is a decoded character.
type entry struct {
	c     byte
	state uint8 // of the automaton behind it
	start int64 // where its first byte is
}

// Found reports whether a marker was found.
func (s *Scanner) Found() bool { return s.found }

// Feed reads the next bytes and reports whether a marker has ended in them, or
// before them.
func (s *Scanner) Feed(p []byte) bool {
	if !s.found {
		s.found = s.feed(p)
		s.pos += int64(len(p))
	}
	return s.found
}

// block keeps the passes over the bytes within the processor's cache.
const block = 16 << 10

func (s *Scanner) feed(p []byte) bool {
	low := 0 // nothing in front of it matters
	if s.n > 0 {
		var hit bool
		if low, hit = s.walk(p, 0, 0); hit {
			return true
		}
	}
	for i := low; i < len(p); {
		end := min(i+block, len(p))
		q := bytes.IndexByte(p[i:end], '%')
		if q < 0 {
			if hasRaw(p[max(low, i-markerBytes+1):end]) {
				return true
			}
			i = end
			continue
		}
		if q += i; hasRaw(p[max(low, i-markerBytes+1):q]) {
			return true
		}
		if skip, ok := harmless(p[q:]); ok {
			i, low = q+skip, q+skip
			continue
		}
		var hit bool
		if i, hit = s.walk(p, q-runBefore(p, low, q), q); hit {
			return true
		}
		low = i
	}
	// The end may be the beginning of a marker.
	if from := max(low, len(p)-markerBytes+1); from < len(p) {
		_, hit := s.walk(p, from, len(p))
		return hit
	}
	return false
}

// walk reads p[from:] byte by byte until nothing of it matters any more, and at least
// up to must. It returns where it stopped.
func (s *Scanner) walk(p []byte, from, must int) (int, bool) {
	for i := from; i < len(p); i++ {
		if s.push(p[i], s.pos+int64(i)) {
			return i, true
		}
		if s.idle() {
			s.n = 0
			if i >= must {
				return i + 1, false
			}
		}
	}
	return len(p), false
}

// push adds a byte and reports whether a marker ends with it.
func (s *Scanner) push(c byte, start int64) bool {
	for s.n >= 2 && s.stack[s.n-2].c == '%' && isHex(c) && isHex(s.stack[s.n-1].c) {
		c = unhex(s.stack[s.n-1].c)<<4 | unhex(c)
		start = s.stack[s.n-2].start
		s.n -= 2
	}
	before := uint8(0)
	if s.n > 0 {
		before = s.stack[s.n-1].state
	}
	if s.n == stackDepth {
		s.n = copy(s.stack[:], s.stack[stackDepth/2:])
	}
	state := automaton[before][c]
	s.stack[s.n] = entry{c, state, start}
	s.n++
	return state == lowerDone || state == upperDone
}

// idle reports whether no marker can contain what was read so far.
func (s *Scanner) idle() bool {
	top := &s.stack[s.n-1]
	return top.state == 0 && top.c != '%' && (s.n < 2 || s.stack[s.n-2].c != '%' || !isHex(top.c))
}

// Pending is how many of the bytes read so far, at their end, may be the beginning
// of a marker.
func (s *Scanner) Pending() int64 {
	n := s.n
	for n > 0 { // escapes that are not complete
		switch {
		case s.stack[n-1].c == '%':
			n--
		case n > 1 && s.stack[n-2].c == '%' && isHex(s.stack[n-1].c):
			n -= 2
		default:
			n = max(0, n-int(progress(s.stack[n-1].state)))
			return s.since(n)
		}
	}
	return s.since(0)
}

func (s *Scanner) since(n int) int64 {
	if n >= s.n {
		return 0
	}
	return s.pos - s.stack[n].start
}

// harmless recognises a percent sign, at the start of p, that is no part of a marker
// in any encoding, and how many bytes are done with it.
func harmless(p []byte) (skip int, ok bool) {
	switch {
	case len(p) < 3:
		return 0, false
	case !isHex(p[1]):
		return 1, p[1] != '%'
	case !isHex(p[2]):
		return 1, p[2] != '%'
	}
	return 3, !useful[unhex(p[1])<<4|unhex(p[2])]
}

// useful are the characters of the markers, and the percent sign.
var useful = buildUseful()

func buildUseful() (u [256]bool) {
	for _, c := range []byte(Marker + AliasMarker + "%") {
		u[c] = true
	}
	return u
}

// runBefore is how many characters of a marker stand directly in front of p[q].
func runBefore(p []byte, low, q int) int {
	from := q
	for from > low && q-from < markerBytes-1 && useful[p[from-1]] {
		from--
	}
	return q - from
}

// hasRaw looks for the markers as they are. It looks at pairs of characters, at
// first at the one that would end a marker; shifts says how far the nearest marker
// that contains the pair can end from there (Wu and Manber's search for several
// texts, 1994). Most pairs are in no marker, and 21 bytes are done with.
func hasRaw(p []byte) bool {
	for i := markerBytes - 1; i < len(p); {
		shift := shifts[uint(p[i-1])<<8|uint(p[i])]
		if shift > 0 {
			i += int(shift)
			continue
		}
		if w := p[i-markerBytes+1 : i+1]; string(w) == Marker || string(w) == AliasMarker {
			return true
		}
		i++
	}
	return false
}

var shifts = buildShifts()

func buildShifts() *[1 << 16]uint8 {
	out := new([1 << 16]uint8)
	for i := range out {
		out[i] = uint8(markerBytes - 1)
	}
	for _, m := range []string{Marker, AliasMarker} {
		for i := 1; i < markerBytes; i++ {
			pair := &out[uint(m[i-1])<<8|uint(m[i])]
			*pair = min(*pair, uint8(markerBytes-1-i))
		}
	}
	return out
}

// States of the automaton: how much of a marker has been read.
const (
	lowerDone = uint8(22)
	upperDone = uint8(44)
)

// progress is how many characters of its marker a state stands for.
func progress(state uint8) uint8 {
	if state > lowerDone {
		return state - lowerDone
	}
	return state
}

// automaton has, for each state and character, the state that follows. Both markers
// fit into one, because they share no character.
var automaton = buildAutomaton()

func buildAutomaton() (a [45][256]uint8) {
	for _, m := range []struct {
		text string
		base uint8
	}{{Marker, 0}, {AliasMarker, lowerDone}} {
		for state := range uint8(45) {
			read := ""
			if k := int(state) - int(m.base); k > 0 && k <= markerBytes {
				read = m.text[:k]
			}
			for c := range 256 {
				if k := longestPrefix(m.text, read+string([]byte{byte(c)})); k > 0 {
					a[state][c] = m.base + uint8(k)
				}
			}
		}
	}
	return a
}

// longestPrefix is the length of the longest prefix of marker that s ends with.
func longestPrefix(marker, s string) int {
	for k := min(len(s), len(marker)); k > 0; k-- {
		if strings.HasSuffix(s, marker[:k]) {
			return k
		}
	}
	return 0
}

func isHex(c byte) bool {
	return c >= '0' && c <= '9' || c >= 'a' && c <= 'f' || c >= 'A' && c <= 'F'
}

func unhex(c byte) byte {
	switch {
	case c <= '9':
		return c - '0'
	case c >= 'a':
		return c - 'a' + 10
	default:
		return c - 'A' + 10
	}
}
