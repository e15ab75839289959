package http1

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io"
	"strconv"
	"strings"
	"sync"

	"github.com/splitpod/splitpod/pkg/core"
)

// ErrBody is a body that breaks its own framing.
var ErrBody = errors.New("malformed message body")

// WriteError is a body that could not be handed on; every other error of a copy is
// about its source.
type WriteError struct{ Err error }

// Error implements error.
func (e *WriteError) Error() string { return "write message body: " + e.Err.Error() }

// Unwrap implements errors.Unwrap.
func (e *WriteError) Unwrap() error { return e.Err }

// ReadHead reads up to and including the empty line that ends a head, and not one
// byte more. io.EOF means that the peer closed before the first byte. The head is
// valid until the next read from r.
func ReadHead(r *bufio.Reader, limit int) ([]byte, error) {
	if head := bufferedHead(r, limit); head != nil {
		return head, nil
	}
	var head []byte
	lineStart := 0
	for {
		part, err := r.ReadSlice('\n')
		if len(head)+len(part) > limit {
			return nil, &SyntaxError{Status: 431, Reason: core.ReasonHeaderTooLarge, Detail: fmt.Sprintf("a message head is at most %d bytes long", limit)}
		}
		head = append(head, part...)
		switch {
		case errors.Is(err, bufio.ErrBufferFull):
			continue // a line may be longer than the reader's buffer, not than the limit
		case errors.Is(err, io.EOF) && len(head) > 0:
			return nil, io.ErrUnexpectedEOF
		case err != nil:
			return nil, err
		}
		if line := string(head[lineStart:]); line == "\r\n" || line == "\n" {
			return head, nil
		}
		lineStart = len(head)
	}
}

// bufferedHead takes a head that lies in r's buffer as a whole, as most do, without
// copying it.
func bufferedHead(r *bufio.Reader, limit int) []byte {
	if r.Buffered() == 0 {
		if _, err := r.Peek(1); err != nil {
			return nil // the slow way meets the same error
		}
	}
	part, _ := r.Peek(r.Buffered()) // it is buffered
	end := bytes.Index(part, emptyLine)
	if end < 0 || end+len(emptyLine) > limit {
		return nil
	}
	_, _ = r.Discard(end + len(emptyLine))
	return part[:end+len(emptyLine)]
}

var emptyLine = []byte("\r\n\r\n")

// CopyBody copies one body from r to w in the framing of w's message, flushes it
// and stops exactly behind it. Chunked bodies are written anew: no extension and no
// trailer passes. It returns how many bytes of content it copied. It fails with
// ErrBody, with *WriteError, or with the error of r.
func CopyBody(w *bufio.Writer, r *bufio.Reader, f Framing) (int64, error) {
	return copyBody(&copier{w: w, r: r, chunks: true}, f)
}

// CopyContent is CopyBody for a receiver that knows no chunks: it writes the content
// alone, and the end of the connection has to end it.
func CopyContent(w *bufio.Writer, r *bufio.Reader, f Framing) (int64, error) {
	return copyBody(&copier{w: w, r: r}, f)
}

func copyBody(c *copier, f Framing) (int64, error) {
	var err error
	switch f.Kind {
	case NoBody:
	case Length:
		err = c.exactly(f.Length)
	case Chunked:
		err = c.chunked()
	case UntilClose:
		err = c.copy(-1)
	default:
		panic(fmt.Sprintf("BUG: body kind %d", f.Kind))
	}
	// What arrived is handed on even when the rest is missing: the receiver sees
	// from the framing that it is not complete.
	if flushErr := c.flush(); err == nil {
		err = flushErr
	}
	return c.total, err
}

// copier moves one body.
type copier struct {
	w      *bufio.Writer // nil: nothing is written
	r      *bufio.Reader
	chunks bool  // w gets chunks when r has them
	total  int64 // content bytes written
}

func (c *copier) flush() error {
	if c.w == nil {
		return nil
	}
	if err := c.w.Flush(); err != nil {
		return &WriteError{err}
	}
	return nil
}

// fill waits for the next byte of r, and hands on what was written before it waits,
// so that nothing is held back in a buffer.
func (c *copier) fill() error {
	if c.r.Buffered() > 0 {
		return nil
	}
	if err := c.flush(); err != nil {
		return err
	}
	_, err := c.r.Peek(1)
	return err
}

// exactly copies n bytes.
func (c *copier) exactly(n int64) error {
	before := c.total
	err := c.copy(n)
	if err == nil && c.total-before < n {
		err = fmt.Errorf("%w: it ended too early", ErrBody)
	}
	return err
}

// copy copies limit bytes, or all when limit is negative, or fewer when r ends.
func (c *copier) copy(limit int64) error {
	for limit != 0 {
		if err := c.fill(); errors.Is(err, io.EOF) {
			return nil
		} else if err != nil {
			return err
		}
		n := int64(c.r.Buffered())
		if limit >= 0 {
			n = min(n, limit)
			limit -= n
		}
		part, _ := c.r.Peek(int(n)) // it is buffered
		if _, err := c.w.Write(part); err != nil {
			return &WriteError{err}
		}
		_, _ = c.r.Discard(int(n))
		c.total += n
		if int(n) >= c.r.Size()/2 && (limit < 0 || limit >= int64(c.r.Size())) {
			var err error
			if limit, err = c.bulk(limit); err != nil {
				return err
			}
		}
	}
	return nil
}

// bulkBytes is the step of a body that streams: two TLS records.
const bulkBytes = 32 << 10

var bulks = sync.Pool{New: func() any { b := make([]byte, bulkBytes); return &b }}

// bulk copies in large steps, past both buffers, for as long as there is much to
// read at a time. A body that pauses gives the memory back.
func (c *copier) bulk(limit int64) (left int64, err error) {
	if err := c.flush(); err != nil {
		return limit, err
	}
	buf := bulks.Get().(*[]byte)
	defer bulks.Put(buf)
	for limit != 0 {
		p := *buf
		if limit > 0 {
			p = p[:min(limit, bulkBytes)]
		}
		n, err := c.r.Read(p)
		if n > 0 {
			if _, werr := c.w.Write(p[:n]); werr != nil {
				return limit, &WriteError{werr}
			}
			if err := c.flush(); err != nil { // a short read stayed in the buffer
				return limit, err
			}
			c.total += int64(n)
			if limit > 0 {
				limit -= int64(n)
			}
		}
		switch {
		case errors.Is(err, io.EOF) || err == nil && n < bulkBytes/8:
			return limit, nil // the end shows again at the next read
		case err != nil:
			return limit, err
		}
	}
	return limit, nil
}

func (c *copier) chunked() error {
	for {
		size, err := c.chunkSize()
		if err != nil {
			return err
		}
		if size == 0 {
			if _, err := c.trailers(); err != nil {
				return err
			}
			return c.frame("0\r\n\r\n")
		}
		if err := c.chunk(size); err != nil {
			return err
		}
	}
}

// chunk copies the data of one chunk and the line end behind it.
func (c *copier) chunk(size int64) error {
	if err := c.frame(strconv.FormatInt(size, 16) + "\r\n"); err != nil {
		return err
	}
	if err := c.exactly(size); err != nil {
		return err
	}
	if _, err := c.line(len("\r\n")); err != nil {
		return err
	}
	return c.frame("\r\n")
}

// frame writes a part of the chunked framing.
func (c *copier) frame(s string) error {
	if !c.chunks {
		return nil
	}
	if _, err := c.w.WriteString(s); err != nil {
		return &WriteError{err}
	}
	return nil
}

func (c *copier) chunkSize() (int64, error) {
	line, err := c.line(maxChunkLine)
	if err != nil {
		return 0, err
	}
	digits, _, _ := strings.Cut(line, ";")
	if digits == "" || len(digits) > 15 || strings.Trim(digits, "0123456789abcdefABCDEF") != "" {
		return 0, fmt.Errorf("%w: a chunk size is 1 to 15 hexadecimal digits", ErrBody)
	}
	return strconv.ParseInt(digits, 16, 64)
}

// line reads one line of at most limit bytes, terminator included, and returns it
// without CR LF.
func (c *copier) line(limit int) (string, error) {
	var line []byte
	for {
		if err := c.fill(); errors.Is(err, io.EOF) {
			return "", fmt.Errorf("%w: it ended before its last chunk", ErrBody)
		} else if err != nil {
			return "", err
		}
		b, _ := c.r.ReadByte() // it is buffered
		line = append(line, b)
		if b == '\n' {
			break
		}
		if len(line) >= limit {
			return "", fmt.Errorf("%w: a line of its framing is too long", ErrBody)
		}
	}
	s, ok := strings.CutSuffix(string(line), "\r\n")
	if !ok || strings.ContainsFunc(s, controlByte) {
		return "", fmt.Errorf("%w: a line of its framing ends with CR LF and has no control character", ErrBody)
	}
	return s, nil
}
