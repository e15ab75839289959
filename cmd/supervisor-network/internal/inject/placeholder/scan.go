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
	stack stack
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

// stretch is how far behind a suspicious sign every byte is read: who makes signs
// suspicious makes many, and to begin with each of them anew takes longer.
const stretch = 24

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
				if next, hit = s.walk(p, q-runBefore(p, low, q), q+stretch); hit {
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
// up to must. It returns where it stopped. It is what a sender can make slow, so it is
// one loop in which nothing is called for most bytes.
func (s *Scanner) walk(p []byte, from, must int) (int, bool) {
	n, stack := s.n, &s.stack
	for i := from; i < len(p); i++ {
		c, start := p[i], s.pos+int64(i)
		switch {
		case n >= 2 && stack[n-2].c == '%' && hex[c] < none && hex[stack[n-1].c] < none:
			c, start, n = stack.reduce(n, c)
		case c == '%' && !stack.open(n):
			i += surplus(p[i:])
			start = s.pos + int64(i)
			c, i = whole(p, i)
		}
		before := uint8(0)
		if n > 0 {
			before = stack[n-1].state
		}
		if n == stackDepth {
			n = copy(stack[:], stack[stackDepth/2:])
		}
		state := automaton[before][c]
		stack[n] = entry{c, state, start}
		if n++; state != 0 {
			if state == lowerDone || state == upperDone {
				return i, true
			}
			continue
		}
		if c != '%' && (n < 2 || stack[n-2].c != '%' || hex[c] == none) { // no marker contains it
			if n = 0; i >= must {
				s.n = 0
				return i + 1, false
			}
		}
	}
	s.n = n
	return len(p), false
}

// stack is decoded text.
type stack [stackDepth]entry

// reduce decodes the escape that c completes, and those that are completed by that. It
// returns the character, where it starts, and what is left in front of it.
func (s *stack) reduce(n int, c byte) (byte, int64, int) {
	start := int64(0)
	for n >= 2 && s[n-2].c == '%' && hex[c] < none && hex[s[n-1].c] < none {
		c = hex[s[n-1].c]<<4 | hex[c]
		start = s[n-2].start
		n -= 2
	}
	return c, start, n
}

// open reports whether the first n characters end with an escape that is not complete.
func (s *stack) open(n int) bool {
	return n > 0 && s[n-1].c == '%' || n > 1 && s[n-2].c == '%' && hex[s[n-1].c] < none
}

// whole decodes the escape that begins with the percent sign p[i], if all of it is there
// and it is written in the usual way, and returns where it ends. Most are.
func whole(p []byte, i int) (c byte, end int) {
	e := i
	for e+2 < len(p) && p[e+1] == '2' && p[e+2] == '5' {
		e += 2 // an escaped percent sign is one
	}
	if e+2 < len(p) && hex[p[e+1]] < none && hex[p[e+2]] < none {
		return hex[p[e+1]]<<4 | hex[p[e+2]], e + 2
	}
	return '%', i
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
	near:
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
					next, ok := harmless(p, low, q)
					if !ok || next+10 > end {
						return q, low
					}
					i, low, since = next, next, -1
					continue near
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

// hex has the values of hexadecimal digits, and none for other characters.
var hex = buildHex()

const none = 16

func buildHex() (out [256]uint8) {
	for c := range out {
		out[c] = none
	}
	for i := range 16 {
		out["0123456789abcdef"[i]], out["0123456789ABCDEF"[i]] = uint8(i), uint8(i)
	}
	return out
}

func isHex(c byte) bool { return hex[c] < none }

func unhex(c byte) byte { return hex[c] }
