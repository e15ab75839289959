package hygiene

import (
	"bufio"
	"compress/flate"
	"compress/gzip"
	"compress/zlib"
	"io"
	"slices"
	"strings"

	"github.com/splitpod/splitpod/cmd/supervisor-network/internal/http1"
)

// codings are those that are taken off, with what does it.
var codings = map[string]func(io.Reader) (io.Reader, error){
	"":         nil,
	"identity": nil,
	"gzip":     gunzip,
	"x-gzip":   gunzip,
	"deflate":  inflate,
}

// codingOf is what the fields say of the body's coding, lower-case.
func codingOf(fields http1.Fields) string {
	value, n := fields.Get("Content-Encoding")
	if n > 1 {
		return "several"
	}
	return strings.ToLower(strings.Trim(value, " \t"))
}

// partial reports whether a body in a coding is not there from its beginning, or has a
// digest that a client would miss if the coding were taken off.
func partial(fields http1.Fields) bool {
	return slices.ContainsFunc(fields, func(f http1.Field) bool {
		name := strings.ToLower(f.Name)
		return name == "content-range" || strings.HasPrefix(name, "x-amz-checksum-")
	})
}

// Decoded are the fields of a body that a Reader yields.
func Decoded(fields http1.Fields) http1.Fields {
	if codings[codingOf(fields)] == nil {
		return fields
	}
	return fields.Without("content-encoding")
}

// decoded takes the coding off what r yields. It reads nothing before it is read.
func decoded(coding string, r io.Reader) io.Reader {
	if open := codings[coding]; open != nil {
		return &inflated{open: open, r: r}
	}
	return r
}

func gunzip(r io.Reader) (io.Reader, error) { return gzip.NewReader(r) }

// inflate reads deflate as RFC 9110 has it, in zlib's frame, and as some origins do,
// without one.
func inflate(r io.Reader) (io.Reader, error) {
	b := bufio.NewReader(r)
	switch head, err := b.Peek(2); {
	case err != nil && len(head) == 0:
		return nil, err
	case len(head) == 2 && head[0]&0xf == 8 && (uint(head[0])<<8|uint(head[1]))%31 == 0:
		return zlib.NewReader(b)
	}
	return flate.NewReader(b), nil
}

// inflated begins with its first read. A body without a byte is one in every coding.
type inflated struct {
	open func(io.Reader) (io.Reader, error)
	r    io.Reader
	out  io.Reader
	err  error
}

func (i *inflated) Read(p []byte) (int, error) {
	if i.out == nil && i.err == nil {
		i.out, i.err = i.open(i.r)
	}
	if i.err != nil {
		return 0, i.err
	}
	return i.out.Read(p)
}
