package hello

import (
	"bufio"
	"bytes"
	"errors"
	"io"
	"net"
	"os"
	"regexp"
	"strings"
	"testing"
	"testing/iotest"
	"time"
)

var beginnings = []struct {
	rule, bytes string
	want        Kind
}{
	{"a TLS 1.2 or 1.3 record", "\x16\x03\x01\x02\x00\x01", TLS},
	{"an SSL 3 record, for the handshake to refuse", "\x16\x03\x00", TLS},
	{"the newest version", "\x16\x03\x04", TLS},
	{"a version beyond", "\x16\x03\x05", Other},
	{"another major version", "\x16\x02\x01", Other},
	{"a record of another type", "\x17\x03\x03", Other},
	{"an SSL 2 hello", "\x80\x2e\x01\x00\x02", Other},
	{"GET", "GET / HTTP/1.1\r\n", HTTP1},
	{"HEAD", "HEAD /", HTTP1},
	{"POST", "POST /", HTTP1},
	{"PUT", "PUT /", HTTP1},
	{"DELETE", "DELETE /", HTTP1},
	{"PATCH", "PATCH /", HTTP1},
	{"OPTIONS", "OPTIONS *", HTTP1},
	{"CONNECT", "CONNECT evil.test:443 HTTP/1.1", HTTP1},
	{"TRACE", "TRACE /", HTTP1},
	{"the space alone", "GET ", HTTP1},
	{"a lower-case method", "get / HTTP/1.1\r\n", Other},
	{"another method", "BREW /", Other},
	{"a longer method", "GETS /", Other},
	{"a tab behind the method", "GET\t/", Other},
	{"a line before the method", "\r\nGET / HTTP/1.1\r\n", Other},
	{"the preface", "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", HTTP2},
	{"the preface's first eight bytes", "PRI * HTxx", HTTP2},
	{"not the preface", "PRI * HX", Other},
	{"SSH", "SSH-2.0-OpenSSH_9.2", Other},
	{"a zero", "\x00", Other},
}

func TestClassify(t *testing.T) {
	for _, c := range beginnings {
		if got, more := Classify([]byte(c.bytes)); got != c.want || more {
			t.Errorf("%s: %v, more %v, want %v", c.rule, got, more, c.want)
		}
		decidedOnce(t, []byte(c.bytes))
	}
	if got, more := Classify(nil); got != Undecided || !more {
		t.Errorf("nothing is %v, more %v", got, more)
	}
}

// decidedOnce: the answer is undecided up to some byte, and then always the same.
func decidedOnce(t *testing.T, data []byte) {
	t.Helper()
	final, _ := Classify(data)
	decided := false
	for i := range len(data) + 1 {
		got, more := Classify(data[:i])
		if more != (got == Undecided) || decided && more || !more && got != final || more && i >= MaxPrefix {
			t.Fatalf("%q is %v after %d bytes (more %v), %v in the end", data, got, i, more, final)
		}
		decided = !more
	}
}

var reference = regexp.MustCompile(`(?s)^(?:(\x16\x03[\x00-\x04])|((?:GET|HEAD|POST|PUT|DELETE|PATCH|OPTIONS|CONNECT|TRACE) )|(PRI \* HT))`)

// FuzzClassify: the answer agrees with a regular expression, whatever the cut, and
// peeking gives the same and leaves every byte.
func FuzzClassify(f *testing.F) {
	for _, c := range beginnings {
		f.Add([]byte(c.bytes))
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		decidedOnce(t, data)
		got, more := Classify(data)
		latin := make([]rune, len(data)) // so that the expression sees bytes
		for i, b := range data {
			latin[i] = rune(b)
		}
		m := reference.FindStringSubmatch(string(latin))
		switch {
		case m == nil && (got == TLS || got == HTTP1 || got == HTTP2),
			m != nil && (m[1] != "" && got != TLS || m[2] != "" && got != HTTP1 || m[3] != "" && got != HTTP2):
			t.Fatalf("%q is %v", data, got)
		}
		if more {
			got = Other // closed before it is decided
		}
		for _, source := range []io.Reader{bytes.NewReader(data), iotest.OneByteReader(bytes.NewReader(data)), iotest.DataErrReader(bytes.NewReader(data))} {
			r := bufio.NewReaderSize(source, 16)
			peeked, err := Peek(r)
			rest, _ := io.ReadAll(r)
			if peeked != got || err != nil || !bytes.Equal(rest, data) {
				t.Fatalf("peeked %v, %v, want %v; left %q of %q", peeked, err, got, rest, data)
			}
		}
	})
}

// TestPeekWaitsForNothingItDoesNotNeed: what is there is judged before more is read,
// and a timeout loses nothing.
func TestPeekWaitsForNothingItDoesNotNeed(t *testing.T) {
	near, far := net.Pipe()
	defer near.Close()
	defer far.Close()
	r := bufio.NewReader(io.MultiReader(strings.NewReader("GE"), far))
	far.SetReadDeadline(time.Now().Add(-time.Second))
	if kind, err := Peek(r); kind != Undecided || !errors.Is(err, os.ErrDeadlineExceeded) {
		t.Errorf("%v, %v", kind, err)
	}
	far.SetReadDeadline(time.Time{})
	go near.Write([]byte("T "))
	for range 2 { // the second time, nothing more will ever come
		if kind, err := Peek(r); kind != HTTP1 || err != nil || r.Buffered() != 4 {
			t.Errorf("%v, %v, %d bytes", kind, err, r.Buffered())
		}
	}
}

func TestKindsHaveNames(t *testing.T) {
	for kind, want := range map[Kind]string{0: "undecided", Other: "other", TLS: "tls", HTTP1: "http/1", HTTP2: "h2c", 99: "undecided"} {
		if got := kind.String(); got != want {
			t.Errorf("%d is %q", kind, got)
		}
	}
}
