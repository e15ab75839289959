package hygiene

import (
	"bytes"
	"io"
)

// Writer cleans a body on its way to w.
type Writer struct {
	w      io.Writer
	of     func() (patterns []pattern, limit int)
	held   []byte // what a value may begin with
	looked int    // bytes that were looked at
	count  int
}

// NewWriter makes a Writer for one response body that is to be cleaned as far as
// bodies are.
func (f *Filter) NewWriter(w io.Writer) *Writer {
	return &Writer{w: w, of: func() ([]pattern, int) { return f.inBodies(), MaxBody }}
}

// Count is how many values were found.
func (w *Writer) Count() int { return w.count }

// Write implements io.Writer.
func (w *Writer) Write(p []byte) (int, error) {
	_, limit := w.of()
	if left := max(0, limit-w.looked); left < len(p) {
		if err := w.look(p[:left], true); err != nil {
			return 0, err
		}
		if _, err := w.w.Write(p[left:]); err != nil {
			return left, err
		}
		return len(p), nil
	}
	if err := w.look(p, false); err != nil {
		return 0, err
	}
	return len(p), nil
}

// look cleans the next bytes; last says that none will follow.
func (w *Writer) look(p []byte, last bool) error {
	w.looked += len(p)
	patterns, _ := w.of()
	data := p
	if len(w.held) > 0 {
		data = append(w.held, p...)
		w.held = nil
	}
	out, rest, n := scan(data, patterns)
	w.count += n
	keep := 0
	if !last {
		keep = beginning(rest, patterns)
	}
	ready := rest[:len(rest)-keep]
	if n > 0 {
		ready = append(out, ready...)
	}
	if keep > 0 {
		w.held = bytes.Clone(rest[len(rest)-keep:])
	}
	if len(ready) == 0 {
		return nil
	}
	_, err := w.w.Write(ready)
	return err
}

// beginning is how many bytes at the end of data some pattern may begin with.
func beginning(data []byte, patterns []pattern) int {
	longest := 0
	for _, p := range patterns {
		tail := data[max(0, len(data)-len(p.text)+1):]
		for len(tail) > longest {
			i := bytes.IndexByte(tail, p.text[0])
			if i < 0 || len(tail)-i <= longest {
				break
			}
			if tail = tail[i:]; bytes.HasPrefix(p.text, tail) {
				longest = len(tail)
				break
			}
			tail = tail[1:]
		}
	}
	return longest
}

// Close hands on what is held back. It does not close the writer behind.
func (w *Writer) Close() error { return w.look(nil, true) }
