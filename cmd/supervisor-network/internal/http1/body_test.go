package http1

import (
	"bufio"
	"bytes"
	"errors"
	"io"
	"strings"
	"testing"
	"testing/iotest"
)

// bodies are what stands behind a head; rest is what has to be left over.
var bodies = []struct {
	rule, in   string
	framing    Framing
	want, rest string
	bad        bool
}{
	{"no body takes nothing", "next", Framing{}, "", "next", false},
	{"a length takes exactly that", "hello, next", Framing{Length, 5}, "hello", ", next", false},
	{"a length that is not there", "hell", Framing{Length, 5}, "hell", "", true},
	{"until close takes all", "all of it", Framing{Kind: UntilClose}, "all of it", "", false},
	{"no chunk", "0\r\n\r\nnext", Framing{Kind: Chunked}, "0\r\n\r\n", "next", false},
	{"two chunks", "3\r\nabc\r\n2\r\nde\r\n0\r\n\r\nnext", Framing{Kind: Chunked}, "3\r\nabc\r\n2\r\nde\r\n0\r\n\r\n", "next", false},
	{"sizes are written anew", "0003\r\nabc\r\n000\r\n\r\n", Framing{Kind: Chunked}, "3\r\nabc\r\n0\r\n\r\n", "", false},
	{"sizes in upper case", "A\r\n0123456789\r\n0\r\n\r\n", Framing{Kind: Chunked}, "a\r\n0123456789\r\n0\r\n\r\n", "", false},
	{"line ends inside a chunk are content", "6\r\n\r\n0\r\n\r\r\n0\r\n\r\n", Framing{Kind: Chunked}, "6\r\n\r\n0\r\n\r\r\n0\r\n\r\n", "", false},
	{"extensions are dropped", "3;a=b;c=\"d\"\r\nabc\r\n0;e\r\n\r\n", Framing{Kind: Chunked}, "3\r\nabc\r\n0\r\n\r\n", "", false},
	{"trailers are dropped", "0\r\nX-A: b\r\nContent-Length: 5\r\n\r\nnext", Framing{Kind: Chunked}, "0\r\n\r\n", "next", false},
	{"a size of 15 digits", "00000000000000" + "1\r\na\r\n0\r\n\r\n", Framing{Kind: Chunked}, "1\r\na\r\n0\r\n\r\n", "", false},
	{"a size of 16 digits", "000000000000000" + "1\r\na\r\n0\r\n\r\n", Framing{Kind: Chunked}, "", "", true},
	{"a size that overflows", "ffffffffffffffff\r\n", Framing{Kind: Chunked}, "", "", true},
	{"a size with 0x", "0x3\r\nabc\r\n0\r\n\r\n", Framing{Kind: Chunked}, "", "", true},
	{"a signed size", "+3\r\nabc\r\n0\r\n\r\n", Framing{Kind: Chunked}, "", "", true},
	{"a negative size", "-3\r\nabc\r\n0\r\n\r\n", Framing{Kind: Chunked}, "", "", true},
	{"a size behind a space", " 3\r\nabc\r\n0\r\n\r\n", Framing{Kind: Chunked}, "", "", true},
	{"a size before a space", "3 \r\nabc\r\n0\r\n\r\n", Framing{Kind: Chunked}, "", "", true},
	{"a size before a tab", "3\t;a\r\nabc\r\n0\r\n\r\n", Framing{Kind: Chunked}, "", "", true},
	{"no size", "\r\nabc\r\n0\r\n\r\n", Framing{Kind: Chunked}, "", "", true},
	{"only an extension", ";a\r\nabc\r\n0\r\n\r\n", Framing{Kind: Chunked}, "", "", true},
	{"a size with an underscore", "1_0\r\n", Framing{Kind: Chunked}, "", "", true},
	{"a size line with a bare LF", "3\nabc\r\n0\r\n\r\n", Framing{Kind: Chunked}, "", "", true},
	{"an extension with a bare CR", "3;a\rb\r\nabc\r\n0\r\n\r\n", Framing{Kind: Chunked}, "", "", true},
	{"an extension with a bare LF", "3;a\nabc\r\n0\r\n\r\n", Framing{Kind: Chunked}, "", "", true},
	{"an extension with NUL", "3;\x00\r\nabc\r\n0\r\n\r\n", Framing{Kind: Chunked}, "", "", true},
	{"a chunk line of 8192 bytes", "3;" + strings.Repeat("a", maxChunkLine-4) + "\r\nabc\r\n0\r\n\r\n", Framing{Kind: Chunked}, "3\r\nabc\r\n0\r\n\r\n", "", false},
	{"a chunk line of 8193 bytes", "3;" + strings.Repeat("a", maxChunkLine-3) + "\r\nabc\r\n0\r\n\r\n", Framing{Kind: Chunked}, "", "", true},
	{"a chunk longer than its size", "3\r\nabcd\r\n0\r\n\r\n", Framing{Kind: Chunked}, "3\r\nabc", "", true},
	{"a chunk shorter than its size", "4\r\nabc\r\n0\r\n\r\n", Framing{Kind: Chunked}, "4\r\nabc\r", "", true},
	{"a chunk that ends with a bare LF", "3\r\nabc\n0\r\n\r\n", Framing{Kind: Chunked}, "3\r\nabc", "", true},
	{"a chunk that ends with CR CR LF", "3\r\nabc\r\r\n0\r\n\r\n", Framing{Kind: Chunked}, "3\r\nabc", "", true},
	{"an end inside a chunk", "3\r\nab", Framing{Kind: Chunked}, "3\r\nab", "", true},
	{"an end between chunks", "3\r\nabc\r\n", Framing{Kind: Chunked}, "3\r\nabc\r\n", "", true},
	{"an end before the last line", "0\r\n", Framing{Kind: Chunked}, "", "", true},
	{"an end inside the last line", "0\r\n\r", Framing{Kind: Chunked}, "", "", true},
	{"nothing at all", "", Framing{Kind: Chunked}, "", "", true},
	{"a trailer that is no field", "0\r\nnothing\r\n\r\n", Framing{Kind: Chunked}, "", "", true},
	{"a trailer with a space before the colon", "0\r\nX-A : b\r\n\r\n", Framing{Kind: Chunked}, "", "", true},
	{"a continued trailer", "0\r\nX-A: b\r\n c\r\n\r\n", Framing{Kind: Chunked}, "", "", true},
	{"trailers of 8192 bytes", "0\r\na:" + strings.Repeat("b", maxTrailerBytes-6) + "\r\n\r\n", Framing{Kind: Chunked}, "0\r\n\r\n", "", false},
	{"trailers of 8193 bytes", "0\r\na:" + strings.Repeat("b", maxTrailerBytes-5) + "\r\n\r\n", Framing{Kind: Chunked}, "", "", true},
	{"trailers without end", "0\r\n" + strings.Repeat("a:b\r\n", maxTrailerBytes), Framing{Kind: Chunked}, "", "", true},
}

func TestCopyBody(t *testing.T) {
	for _, c := range bodies {
		t.Run(c.rule, func(t *testing.T) {
			for name, r := range map[string]io.Reader{"at once": strings.NewReader(c.in), "byte by byte": iotest.OneByteReader(strings.NewReader(c.in))} {
				var out bytes.Buffer
				in := bufio.NewReaderSize(r, 16)
				_, err := CopyBody(bufio.NewWriterSize(&out, 16), in, c.framing)
				if errors.Is(err, ErrBody) != c.bad || !c.bad && err != nil {
					t.Fatalf("%s: got %v, want a malformed body: %v", name, err, c.bad)
				}
				if out.String() != c.want {
					t.Errorf("%s: wrote %q, want %q", name, out.String(), c.want)
				}
				if rest, _ := io.ReadAll(in); !c.bad && string(rest) != c.rest {
					t.Errorf("%s: left %q, want %q", name, rest, c.rest)
				}
			}
		})
	}
}

func TestCopyContentWritesNoChunks(t *testing.T) {
	var out bytes.Buffer
	n, err := CopyContent(bufio.NewWriter(&out), bufio.NewReader(strings.NewReader("3\r\nabc\r\n2;x\r\nde\r\n0\r\na: b\r\n\r\n")), Framing{Kind: Chunked})
	if err != nil || n != 5 || out.String() != "abcde" {
		t.Errorf("%d, %v, %q", n, err, out.String())
	}
}

func TestCopyBodyCountsContent(t *testing.T) {
	n, err := CopyBody(bufio.NewWriter(io.Discard), bufio.NewReader(strings.NewReader("3\r\nabc\r\n2;x\r\nde\r\n0\r\na: b\r\n\r\n")), Framing{Kind: Chunked})
	if err != nil || n != 5 {
		t.Errorf("%d, %v", n, err)
	}
}

// What a peer waits for must not wait in our buffer. The pipes block, so that a
// missing flush is a deadlock.
func TestCopyBodyHandsOnWhatItHasBeforeItWaits(t *testing.T) {
	for _, c := range []struct {
		rule, first, want, second string
		framing                   Framing
	}{
		{"a complete chunk", "5\r\nhello\r\n", "5\r\nhello\r\n", "0\r\n\r\n", Framing{Kind: Chunked}},
		{"a chunk and half a size", "5\r\nhello\r\n1", "5\r\nhello\r\n", "0\r\n0123456789abcdef\r\n0\r\n\r\n", Framing{Kind: Chunked}},
		{"a part of a chunk", "5\r\nhel", "5\r\nhel", "lo\r\n0\r\n\r\n", Framing{Kind: Chunked}},
		{"a part of a length", "hel", "hel", "lo", Framing{Length, 5}},
		{"a part until close", "hel", "hel", "lo", Framing{Kind: UntilClose}},
	} {
		t.Run(c.rule, func(t *testing.T) {
			inR, inW := io.Pipe()
			outR, outW := io.Pipe()
			done := make(chan error, 1)
			go func() {
				_, err := CopyBody(bufio.NewWriterSize(outW, 4096), bufio.NewReaderSize(inR, 4096), c.framing)
				outW.Close()
				done <- err
			}()
			io.WriteString(inW, c.first)
			got := make([]byte, len(c.want))
			if _, err := io.ReadFull(outR, got); err != nil || string(got) != c.want {
				t.Fatalf("%q, %v", got, err)
			}
			go io.Copy(io.Discard, outR)
			io.WriteString(inW, c.second)
			inW.Close()
			if err := <-done; err != nil {
				t.Error(err)
			}
		})
	}
}

func TestCopyBodyFlushesBeforePipelinedBytes(t *testing.T) {
	var out bytes.Buffer
	if _, err := CopyBody(bufio.NewWriter(&out), bufio.NewReader(strings.NewReader("helloGET /next")), Framing{Length, 5}); err != nil {
		t.Fatal(err)
	}
	if out.String() != "hello" {
		t.Errorf("wrote %q", out.String())
	}
}

type brokenWriter struct{}

func (brokenWriter) Write([]byte) (int, error) { return 0, io.ErrClosedPipe }

func TestCopyBodyTellsWriteErrorsFromReadErrors(t *testing.T) {
	for _, f := range []Framing{{Length, 5}, {Kind: Chunked}, {Kind: UntilClose}} {
		_, err := CopyBody(bufio.NewWriterSize(brokenWriter{}, 16), bufio.NewReader(strings.NewReader("5\r\nhello\r\n0\r\n\r\n")), f)
		if _, ok := errors.AsType[*WriteError](err); !ok || !errors.Is(err, io.ErrClosedPipe) {
			t.Errorf("%+v: a broken writer gives %v", f, err)
		}
		_, err = CopyBody(bufio.NewWriter(io.Discard), bufio.NewReader(iotest.ErrReader(io.ErrClosedPipe)), f)
		if _, ok := errors.AsType[*WriteError](err); ok || !errors.Is(err, io.ErrClosedPipe) {
			t.Errorf("%+v: a broken reader gives %v", f, err)
		}
	}
}

// records gives what TLS gives: a piece of a record with every read.
type records struct {
	left, record, limit int
}

func (r *records) Read(p []byte) (int, error) {
	if r.left == 0 {
		return 0, io.EOF
	}
	if r.record == 0 {
		r.record = r.limit
	}
	n := min(len(p), r.left, r.record)
	r.left, r.record = r.left-n, r.record-n
	return n, nil
}

// writes counts what would be a record, and a system call, each.
type writes struct{ sizes []int }

func (w *writes) Write(p []byte) (int, error) {
	w.sizes = append(w.sizes, len(p))
	return len(p), nil
}

func TestALongBodyIsWrittenInAsFewPiecesAsItCame(t *testing.T) {
	const size, record = 64 << 10, 16 << 10
	for name, f := range map[string]Framing{"a length": {Kind: Length, Length: size}, "until close": {Kind: UntilClose}} {
		var to writes
		w := bufio.NewWriterSize(&to, 8192)
		_, _ = w.Write(make([]byte, 500)) // its head
		r := bufio.NewReaderSize(&records{left: size, limit: record}, 4096)
		_, _ = r.Peek(1) // its first bytes came with the head
		n, err := CopyBody(w, r, f)
		if err != nil || n != size || len(to.sizes) > size/record+1 {
			t.Errorf("%s: %d bytes in %d pieces %d, %v", name, n, len(to.sizes), to.sizes, err)
		}
	}
}
