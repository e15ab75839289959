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
	ready bytes.Buffer
	piece []byte
	err   error
	ended bool
}

// NewReader makes a Reader for one response body that the Filter Wants.
func (f *Filter) NewReader(fields http1.Fields, r io.Reader) *Reader {
	c := &Reader{r: decoded(codingOf(fields), r), piece: make([]byte, 16<<10)}
	c.w = f.NewWriter(&c.ready)
	patterns, limit := f.of(fields)
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
	for c.ready.Len() == 0 && c.err == nil {
		n, err := c.r.Read(c.piece)
		_, _ = c.w.Write(c.piece[:n]) // a buffer takes everything
		if c.err = err; err == io.EOF && !c.ended {
			c.ended = true
			_ = c.w.Close()
		}
	}
	if c.ready.Len() > 0 {
		return c.ready.Read(p)
	}
	return 0, c.err
}
