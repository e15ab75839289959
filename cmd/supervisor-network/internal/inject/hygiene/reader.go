package hygiene

import (
	"bytes"
	"io"

	"github.com/splitpod/splitpod/cmd/supervisor-network/internal/http1"
)

// Reader cleans a body as it is read.
type Reader struct {
	r     io.Reader
	w     *Writer
	in    io.WriteCloser // w, or what divides messages in front of it
	ready bytes.Buffer
	piece []byte
	err   error
	ended bool
}

// NewReader makes a Reader for one response body, whose Treatment is Replace, Cover or
// Framed.
func (f *Filter) NewReader(fields http1.Fields, r io.Reader) *Reader {
	c := &Reader{r: decoded(codingOf(fields), r), piece: make([]byte, 16<<10)}
	c.w = f.NewWriter(&c.ready)
	patterns, limit := f.of(fields)
	c.in = c.w
	switch f.Treatment(fields) {
	case Framed:
		patterns, limit = f.unstated()
		c.in = newFrames(c.w)
	case Cover:
		c.w.cover, c.w.prompt = true, true
	}
	c.w.of = func() ([]pattern, int) { return patterns, limit }
	return c
}

// Count is how many values were found.
func (c *Reader) Count() int { return c.w.Count() }

// Read implements io.Reader.
func (c *Reader) Read(p []byte) (int, error) {
	if len(p) == 0 {
		return 0, nil
	}
	if c.ready.Len() == 0 && c.err == nil && c.in == io.WriteCloser(c.w) && c.w.over() {
		return c.r.Read(p)
	}
	for c.ready.Len() == 0 && c.err == nil {
		n, err := c.r.Read(c.piece)
		_, c.err = c.in.Write(c.piece[:n])
		if c.err == nil {
			c.err = err
		}
		if c.err == io.EOF && !c.ended {
			c.ended = true
			_ = c.in.Close() // a buffer takes everything
		}
	}
	if c.ready.Len() > 0 {
		return c.ready.Read(p)
	}
	return 0, c.err
}
