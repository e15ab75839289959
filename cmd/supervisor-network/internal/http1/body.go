package http1

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"strconv"
	"strings"
)

// ErrBody is a body that breaks its own framing.
var ErrBody = errors.New("malformed message body")

// ReadHead reads up to and including the empty line that ends a head, and not one
// byte more. io.EOF means that the peer closed before the first byte.
func ReadHead(r *bufio.Reader, limit int) ([]byte, error) {
	var head []byte
	for {
		line, err := r.ReadSlice('\n')
		if len(head)+len(line) > limit || errors.Is(err, bufio.ErrBufferFull) {
			return nil, &SyntaxError{Status: 431, Reason: "header_too_large", Detail: fmt.Sprintf("a message head is at most %d bytes long", limit)}
		}
		head = append(head, line...)
		if err != nil {
			if errors.Is(err, io.EOF) && len(head) > 0 {
				err = io.ErrUnexpectedEOF
			}
			return nil, err
		}
		if string(line) == "\r\n" || string(line) == "\n" {
			return head, nil
		}
	}
}

// CopyBody copies one body from r to w in the framing of w's message and stops
// exactly behind it. Chunked bodies are written anew: no extension and no trailer
// passes. flush is called whenever r has nothing more ready, so that nothing waits
// in a buffer. It returns how many bytes of content it copied.
func CopyBody(w *bufio.Writer, r *bufio.Reader, f Framing) (int64, error) {
	switch f.Kind {
	case NoBody:
		return 0, nil
	case Length:
		n, err := copyFlushing(w, r, f.Length)
		if err == nil && n < f.Length {
			err = fmt.Errorf("%w: it ended before its Content-Length", ErrBody)
		}
		return n, err
	case Chunked:
		return copyChunked(w, r)
	default:
		return copyFlushing(w, r, -1)
	}
}

// copyFlushing copies limit bytes, or all when limit is negative, handing on what
// is there before it waits for more.
func copyFlushing(w *bufio.Writer, r *bufio.Reader, limit int64) (total int64, err error) {
	for limit != total {
		if _, err := r.Peek(1); err != nil {
			if errors.Is(err, io.EOF) {
				return total, w.Flush()
			}
			return total, err
		}
		n := int64(r.Buffered())
		if limit >= 0 {
			n = min(n, limit-total)
		}
		part, err := r.Peek(int(n))
		if err != nil {
			return total, err
		}
		if _, err := w.Write(part); err != nil {
			return total, err
		}
		_, _ = r.Discard(int(n))
		total += n
		if r.Buffered() == 0 {
			if err := w.Flush(); err != nil {
				return total, err
			}
		}
	}
	return total, nil
}

func copyChunked(w *bufio.Writer, r *bufio.Reader) (total int64, err error) {
	for {
		size, err := readChunkSize(r)
		if err != nil {
			return total, err
		}
		if size == 0 {
			if err := skipTrailers(r); err != nil {
				return total, err
			}
			_, err := w.WriteString("0\r\n\r\n")
			return total, errors.Join(err, w.Flush())
		}
		if _, err := fmt.Fprintf(w, "%x\r\n", size); err != nil {
			return total, err
		}
		n, err := copyFlushing(w, r, size)
		total += n
		if err == nil && n < size {
			err = fmt.Errorf("%w: it ended inside a chunk", ErrBody)
		}
		if err == nil {
			err = expectCRLF(r)
		}
		if err != nil {
			return total, err
		}
		if _, err := w.WriteString("\r\n"); err != nil {
			return total, err
		}
	}
}

func readChunkSize(r *bufio.Reader) (int64, error) {
	line, err := readLine(r, maxChunkLine)
	if err != nil {
		return 0, err
	}
	digits, _, _ := strings.Cut(line, ";")
	if digits == "" || len(digits) > 15 || strings.Trim(digits, "0123456789abcdefABCDEF") != "" {
		return 0, fmt.Errorf("%w: a chunk size is 1 to 15 hexadecimal digits", ErrBody)
	}
	return strconv.ParseInt(digits, 16, 64)
}

// skipTrailers reads the trailer section and drops it.
func skipTrailers(r *bufio.Reader) error {
	for left := maxTrailerBytes; left > 0; {
		line, err := readLine(r, left)
		if err != nil || line == "" {
			return err
		}
		name, _, ok := strings.Cut(line, ":")
		if !ok || !isToken(name) {
			return fmt.Errorf("%w: a trailer is a field", ErrBody)
		}
		left -= len(line) + 2
	}
	return fmt.Errorf("%w: too many trailers", ErrBody)
}

func expectCRLF(r *bufio.Reader) error {
	line, err := readLine(r, 2)
	if err == nil && line != "" {
		err = fmt.Errorf("%w: a chunk is longer than its size", ErrBody)
	}
	return err
}

// readLine reads one line of at most limit bytes, terminator included, and returns
// it without CR LF.
func readLine(r *bufio.Reader, limit int) (string, error) {
	var line []byte
	for {
		b, err := r.ReadByte()
		if err != nil {
			if errors.Is(err, io.EOF) {
				err = io.ErrUnexpectedEOF
			}
			return "", err
		}
		line = append(line, b)
		if b == '\n' {
			break
		}
		if len(line) >= limit {
			return "", fmt.Errorf("%w: a line is too long", ErrBody)
		}
	}
	s, ok := strings.CutSuffix(string(line), "\r\n")
	if !ok || strings.ContainsFunc(s, controlByte) || strings.Contains(s, "\r") {
		return "", fmt.Errorf("%w: a line ends with CR LF and has no control character", ErrBody)
	}
	return s, nil
}
