package placeholder

import (
	"bytes"
	"encoding/binary"
	"math/bits"
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
		if hasRaw(p[max(0, i-markerBytes+1):end]) {
			return true
		}
		for i < end {
			var q int
			if q, low = dead(p, i, low, end); q == end {
				i = end
				break
			}
			next, ok := harmless(p, low, q)
			if !ok {
				var hit bool
				if next, hit = s.walk(p, q-runBefore(p, low, q), q); hit {
					return true
				}
			}
			i, low = next, next
		}
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
		if p[i] == '%' {
			i += surplus(p[i:])
		}
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

// What may follow a percent sign, by its two bytes.
const (
	risky = 0
	dead1 = 1 // the sign is one for ever
	dead3 = 3 // an escape of a character that no marker has
	inner = 4 // an escape of one that stands in markers, but not at their start
)

// escapes has what may follow. It is the same for a sign that is escaped itself.
var escapes = buildEscapes()

func buildEscapes() *[1 << 16]uint8 {
	out := new([1 << 16]uint8)
	for i := range out {
		a, b := byte(i>>8), byte(i)
		switch {
		case a == '%' || isHex(a) && b == '%':
			out[i] = risky
		case !isHex(a) || !isHex(b):
			out[i] = dead1
		default:
			switch c := unhex(a)<<4 | unhex(b); {
			case !useful[c]:
				out[i] = dead3
			case c != '%' && c != Marker[0] && c != AliasMarker[0]:
				out[i] = inner
			}
		}
	}
	return out
}

// harmless recognises a percent sign, p[q], that is no part of a marker in any
// encoding, and says where to go on.
func harmless(p []byte, low, q int) (next int, ok bool) {
	e := q
	for e+2 < len(p) && p[e+1] == '2' && p[e+2] == '5' {
		e += 2 // an escaped percent sign is one
	}
	if e+2 >= len(p) {
		return 0, false
	}
	switch escapes[uint(p[e+1])<<8|uint(p[e+2])] {
	case dead1:
		return e + 1, true
	case dead3:
		return e + 3, true
	case inner:
		// It is part of a marker only behind the character that the marker has there, which
		// stands for itself: behind an escape nothing else matters, or walk goes on.
		return e + 3, q == low || shifts[uint(p[q-1])<<8|uint(unhex(p[e+1])<<4|unhex(p[e+2]))] == uint8(markerBytes-1)
	}
	if p[e+1] != '%' {
		return 0, false
	}
	// The last of several signs decides about all of them.
	end := e + 1 + signs(p[e+1:])
	return end, end < len(p) && !isHex(p[end])
}

// dead passes what cannot matter, as far as that can be seen at once, and returns the
// first percent sign that may, or end.
func dead(p []byte, i, low, end int) (q, newLow int) {
	for {
		next := bytes.IndexByte(p[i:end], '%')
		if next < 0 {
			return end, low
		}
		i += next
		// Where there is one there are more: eight bytes at a time, until there is none
		// for a while. A bit in has stands for each percent sign.
		for since := 0; since < 8; since++ {
			if i+10 > end {
				return i + indexOr(p[i:end], end-i), low
			}
			const low7 = 0x7f7f7f7f7f7f7f7f
			v := binary.LittleEndian.Uint64(p[i:]) ^ '%'*0x0101010101010101
			for has := ^((v&low7 + low7) | v | low7); has != 0; has &= has - 1 {
				q := i + bits.TrailingZeros64(has)>>3
				switch e := escapes[uint(p[q+1])<<8|uint(p[q+2])]; {
				case e == dead1, e == dead3:
					low = q + int(e)
				case e == inner && q == low:
					low = q + dead3
				default:
					return q, low
				}
				since = -1
			}
			i += 8
		}
	}
}

// indexOr is the index of the first percent sign, or none.
func indexOr(p []byte, none int) int {
	if i := bytes.IndexByte(p, '%'); i >= 0 {
		return i
	}
	return none
}

// signs is how many percent signs p begins with.
func signs(p []byte) (n int) {
	const eight = '%' * 0x0101010101010101
	for len(p)-n >= 8 && binary.LittleEndian.Uint64(p[n:]) == eight {
		n += 8
	}
	for n < len(p) && p[n] == '%' {
		n++
	}
	return n
}

// surplus is how many of the percent signs that p begins with are more than what is
// remembered of them.
func surplus(p []byte) int {
	if len(p) <= 2*stackDepth || p[1] != '%' || p[2*stackDepth] != '%' {
		return 0
	}
	return max(0, signs(p)-stackDepth)
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
//
// Where the next pair is depends on the present one, and a processor waits for that:
// long texts are searched in four places at once.
func hasRaw(p []byte) bool {
	const worth = 1 << 10
	if len(p) < worth {
		return hasRawFrom(p, markerBytes-1, len(p))
	}
	a, b, c, d := markerBytes-1, len(p)/4, len(p)/2, len(p)/4*3
	endA, endB, endC, endD := b, c, d, len(p)
	for a < endA && b < endB && c < endC && d < endD {
		da, db, dc, dd := shiftAt(p, a), shiftAt(p, b), shiftAt(p, c), shiftAt(p, d)
		if da == 0 || db == 0 || dc == 0 || dd == 0 {
			if endsAt(p, a) || endsAt(p, b) || endsAt(p, c) || endsAt(p, d) {
				return true
			}
			da, db, dc, dd = max(da, 1), max(db, 1), max(dc, 1), max(dd, 1)
		}
		a, b, c, d = a+da, b+db, c+dc, d+dd
	}
	return hasRawFrom(p, a, endA) || hasRawFrom(p, b, endB) || hasRawFrom(p, c, endC) || hasRawFrom(p, d, endD)
}

// hasRawFrom looks for markers whose last character is in p[i:end].
func hasRawFrom(p []byte, i, end int) bool {
	for i < end {
		shift := shiftAt(p, i)
		if shift == 0 {
			if endsAt(p, i) {
				return true
			}
			shift = 1
		}
		i += shift
	}
	return false
}

// shiftAt is how far behind p[i] the nearest marker can end that has the pair there.
func shiftAt(p []byte, i int) int { return int(shifts[uint(p[i-1])<<8|uint(p[i])]) }

// endsAt reports whether a marker ends with p[i].
func endsAt(p []byte, i int) bool {
	w := p[i-markerBytes+1 : i+1]
	return string(w) == Marker || string(w) == AliasMarker
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
