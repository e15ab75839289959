package hygiene

import (
	"bytes"
	"io"
)

// Writer cleans a body on its way to w.
type Writer struct {
	w      io.Writer
	of     func() (patterns []pattern, limit int)
	cover  bool   // with asterisks, so that the length stays
	prompt bool   // what is shorter than telling is not held back
	held   []byte // what a value may begin with
	passed int    // how much of it was passed on
	looked int    // bytes that were looked at
	count  int
}

// telling is how much of a value is held back where others may wait for the bytes:
// random bytes hardly ever begin like that, and so few are no secret.
const telling = 4

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
	data, gone := p, w.passed
	if len(w.held) > 0 {
		data = append(w.held, p...)
		w.held, w.passed = nil, 0
	}
	out, rest, n := scan(data, patterns, w.cover)
	w.count += n
	keep := 0
	if !last {
		keep = beginning(rest, patterns)
	}
	if keep > 0 {
		w.held = bytes.Clone(rest[len(rest)-keep:])
		w.passed = max(0, gone-(len(data)-keep))
	}
	if w.prompt && keep < telling {
		w.passed, keep = keep, 0
	}
	ready := rest[:len(rest)-keep]
	if n > 0 {
		ready = append(out, ready...)
	}
	if ready = ready[min(gone, len(ready)):]; len(ready) == 0 {
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

// next ends one text, and makes ready for another one.
func (w *Writer) next() error {
	w.looked = 0
	if len(w.held) == 0 {
		return nil
	}
	return w.look(nil, true)
}

// over reports whether whatever follows passes as it is.
func (w *Writer) over() bool {
	_, limit := w.of()
	return w.looked >= limit && len(w.held) == 0
}
