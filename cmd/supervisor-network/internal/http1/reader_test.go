package http1

import (
	"bufio"
	"errors"
	"io"
	"strings"
	"testing"
	"testing/iotest"
)

func TestBodyReaderReadsExactlyOneBody(t *testing.T) {
	for _, c := range []struct {
		rule    string
		framing Framing
		in      string
		want    string
		rest    string
		err     error // nil: io.EOF
	}{
		{"none", Framing{}, "next", "", "next", nil},
		{"a length", Framing{Kind: Length, Length: 5}, "hellonext", "hello", "next", nil},
		{"chunks", Framing{Kind: Chunked}, "3;x\r\nhel\r\n2\r\nlo\r\n0\r\nT: v\r\n\r\nnext", "hello", "next", nil},
		{"until close", Framing{Kind: UntilClose}, "hello", "hello", "", nil},
		{"a length that is cut", Framing{Kind: Length, Length: 5}, "hel", "hel", "", ErrBody},
		{"a chunk that is cut", Framing{Kind: Chunked}, "5\r\nhel", "hel", "", ErrBody},
		{"an end between chunks", Framing{Kind: Chunked}, "3\r\nhel\r\n", "hel", "", ErrBody},
		{"a chunk longer than its size", Framing{Kind: Chunked}, "3\r\nhello\r\n0\r\n\r\n", "hel", "\r\n0\r\n\r\n", ErrBody},
		{"a size that is none", Framing{Kind: Chunked}, "0x3\r\nhel\r\n0\r\n\r\n", "", "hel\r\n0\r\n\r\n", ErrBody},
	} {
		for _, one := range []bool{false, true} {
			in := io.Reader(strings.NewReader(c.in))
			if one {
				in = iotest.OneByteReader(in)
			}
			r := bufio.NewReaderSize(in, 64)
			b := NewBodyReader(r, c.framing)
			got, err := io.ReadAll(b)
			rest, _ := io.ReadAll(r)
			if string(got) != c.want || !errors.Is(err, c.err) || b.Complete() != (c.err == nil) || string(rest) != c.rest {
				t.Errorf("%s: read %q, %v, complete %v, left %q", c.rule, got, err, b.Complete(), rest)
			}
		}
	}
}
