package http1

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"slices"
)

// BodyReader reads the content of one body, for receivers that take it piece by
// piece. It never takes a byte behind the message.
type BodyReader struct {
	c      copier
	kind   BodyKind
	left   int64 // of the body, or of the present chunk
	chunks bool  // a chunk has begun
	err    error // how it ended; io.EOF when it is complete

	trailers  Fields
	request   bool // of which only announced trailers are kept
	announced []string
}

// NewBodyReader reads from r a body that f frames.
func NewBodyReader(r *bufio.Reader, f Framing) *BodyReader {
	b := &BodyReader{c: copier{r: r}, kind: f.Kind, left: f.Length}
	if f.Kind == NoBody {
		b.err = io.EOF
	}
	return b
}

// Content reads the body of a request from r. Of what stands behind it only what was
// announced is one of its Trailers.
func (r *Request) Content(from *bufio.Reader) *BodyReader {
	b := NewBodyReader(from, r.Framing)
	b.request, b.announced = true, r.Trailer
	return b
}

// Complete reports whether the whole body was read.
func (b *BodyReader) Complete() bool { return errors.Is(b.err, io.EOF) }

// Trailers are the fields that came behind the body; there are none before its end.
func (b *BodyReader) Trailers() Fields { return b.trailers }

// Read implements io.Reader. A body that ends too early, or breaks its framing, fails
// with an error that is not io.EOF.
func (b *BodyReader) Read(p []byte) (int, error) {
	if b.err != nil {
		return 0, b.err
	}
	if len(p) == 0 {
		return 0, nil
	}
	if b.kind == Chunked && b.left == 0 {
		if b.err = b.nextChunk(); b.err != nil {
			return 0, b.err
		}
	}
	if b.kind != UntilClose {
		p = p[:min(int64(len(p)), b.left)]
	}
	n, err := b.c.r.Read(p)
	b.left -= int64(n)
	switch {
	case errors.Is(err, io.EOF) && b.kind != UntilClose:
		b.err = fmt.Errorf("%w: it ended too early", ErrBody)
	case err != nil:
		b.err = err
	case b.kind == Length && b.left == 0:
		b.err = io.EOF
	}
	if n > 0 {
		return n, nil // the end shows at the next read
	}
	return 0, b.err
}

// nextChunk reads up to the data of the next chunk.
func (b *BodyReader) nextChunk() error {
	if b.chunks {
		if _, err := b.c.line(len("\r\n")); err != nil {
			return err
		}
	}
	b.chunks = true
	size, err := b.c.chunkSize()
	if err != nil {
		return err
	}
	if size == 0 {
		if b.trailers, err = b.c.trailers(); err != nil {
			return err
		}
		if b.request {
			b.trailers = slices.DeleteFunc(b.trailers, func(f Field) bool { return !named(b.announced, f.Name) })
		}
		return io.EOF
	}
	b.left = size
	return nil
}
