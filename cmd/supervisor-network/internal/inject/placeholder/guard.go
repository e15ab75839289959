package placeholder

import (
	"bytes"
	"errors"
	"io"
	"strings"
)

// ErrMarker is a stream with a marker in it.
var ErrMarker = errors.New("a placeholder stands where none is replaced")

// Found reports whether a marker, in any encoding that a Scanner sees, is in s.
func Found(s string) bool {
	if strings.IndexByte(s, '%') < 0 {
		return Has(s)
	}
	return FoundBytes([]byte(s))
}

// FoundBytes is Found for bytes.
func FoundBytes(b []byte) bool {
	if len(b) < markerBytes {
		return false
	}
	if bytes.IndexByte(b, '%') < 0 {
		return hasRaw(b)
	}
	var scan Scanner
	return scan.Feed(b)
}

// maxHeld bounds the bytes that are held back because a marker may begin with them.
// What is above it passes; the marker still does not end.
const maxHeld = 4096

// Reader yields what it reads, but no marker: instead of the bytes that complete one
// there is ErrMarker.
type Reader struct {
	r    io.Reader
	scan Scanner
	buf  []byte // read, not yielded
	safe int    // of these, from the front, may be
	err  error  // behind them
}

// NewReader makes a Reader of r.
func NewReader(r io.Reader) *Reader { return &Reader{r: r} }

// Read implements io.Reader.
func (g *Reader) Read(p []byte) (int, error) {
	if len(p) == 0 {
		return 0, nil
	}
	for g.safe == 0 && g.err == nil {
		g.fill(len(p))
	}
	n := copy(p, g.buf[:g.safe])
	g.buf = g.buf[:copy(g.buf, g.buf[n:])]
	if g.safe -= n; g.safe > 0 || n > 0 {
		return n, nil
	}
	return 0, g.err
}

// fill reads once.
func (g *Reader) fill(want int) {
	from := len(g.buf)
	if need := from + want; cap(g.buf) < need {
		g.buf = append(make([]byte, 0, need), g.buf...)
	}
	n, err := g.r.Read(g.buf[from : from+want])
	g.buf = g.buf[:from+n]
	if g.scan.Feed(g.buf[from:]) {
		g.buf, g.safe, g.err = nil, 0, ErrMarker
		return
	}
	g.err = err
	if g.safe = len(g.buf); err == nil {
		g.safe = max(0, g.safe-int(min(g.scan.Pending(), maxHeld)))
	}
}
