package http1

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httputil"
	"strings"
	"testing"
	"testing/iotest"

	"github.com/google/go-cmp/cmp"
)

func (r *Request) render() string {
	return fmt.Sprintf("%s %s HTTP/1.%d\r\n%s\r\n", r.Method, r.Target, r.Minor, r.Fields.render())
}

func (f Fields) render() string {
	var b strings.Builder
	for _, field := range f {
		fmt.Fprintf(&b, "%s: %s\r\n", field.Name, field.Value)
	}
	return b.String()
}

// FuzzRequestHead: a head that is read stays within the limits; one that is accepted
// means the same when it is written anew, and net/http, where it accepts it too,
// finds the same body.
func FuzzRequestHead(f *testing.F) {
	for _, c := range heads {
		f.Add([]byte(c.head + "rest"))
	}
	for _, c := range requestLines {
		f.Add([]byte(c.line + "\r\nHost: ok.test\r\n\r\n"))
	}
	for _, c := range requestFramings {
		f.Add([]byte(get(c.fields...) + "5\r\nhello\r\n0\r\n\r\n"))
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		in := bufio.NewReaderSize(bytes.NewReader(data), 64)
		head, err := ReadHead(in, MaxRequestHead)
		if err != nil {
			return
		}
		if rest, _ := io.ReadAll(in); len(head) > MaxRequestHead || !bytes.Equal(append(bytes.Clone(head), rest...), data) {
			t.Fatalf("head %q and rest %q are not the input", head, rest)
		}
		r, err := ParseRequest(head)
		if err != nil {
			if _, ok := errors.AsType[*SyntaxError](err); !ok {
				t.Fatalf("refused with %T", err)
			}
			return
		}
		if len(r.Fields) > MaxFields || len(r.Target) > MaxTargetBytes || len(r.Method) > MaxMethodBytes {
			t.Fatalf("beyond the limits: %+v", r)
		}
		again, err := ParseRequest([]byte(r.render()))
		if diff := cmp.Diff(r, again); err != nil || diff != "" {
			t.Fatalf("written anew it differs: %v\n%s", err, diff)
		}
		agreesWithNetHTTP(t, head, r)
	})
}

func agreesWithNetHTTP(t *testing.T, head []byte, r *Request) {
	other, err := http.ReadRequest(bufio.NewReader(bytes.NewReader(head)))
	if err != nil {
		return // stricter or unable to read the target: it forwards nothing
	}
	chunked := len(other.TransferEncoding) > 0
	if other.Method != r.Method || other.RequestURI != r.Target || other.ProtoMinor != r.Minor || chunked != (r.Framing.Kind == Chunked) {
		t.Fatalf("net/http reads %+v, this package %+v", other, r)
	}
	if !chunked && other.ContentLength != r.Framing.Length {
		t.Fatalf("net/http reads a length of %d, this package %d", other.ContentLength, r.Framing.Length)
	}
}

// FuzzResponseHead: the same for responses.
func FuzzResponseHead(f *testing.F) {
	for _, c := range responses {
		f.Add([]byte(c.head), c.method)
	}
	f.Fuzz(func(t *testing.T, head []byte, method string) {
		if len(head) > MaxResponseHead {
			return
		}
		r, err := ParseResponse(head, method)
		if err != nil {
			return
		}
		version := "HTTP/1.1"
		if bytes.HasPrefix(head, []byte("HTTP/1.0")) {
			version = "HTTP/1.0"
		}
		again, err := ParseResponse(fmt.Appendf(nil, "%s %d %s\r\n%s\r\n", version, r.Status, r.Phrase, r.Fields.render()), method)
		if diff := cmp.Diff(r, again); err != nil || diff != "" {
			t.Fatalf("written anew it differs: %v\n%s", err, diff)
		}
		other, err := http.ReadResponse(bufio.NewReader(bytes.NewReader(head)), &http.Request{Method: method})
		if err != nil || method == "HEAD" || r.Status < 200 {
			return // net/http keeps the length of a body that is not sent
		}
		if chunked := len(other.TransferEncoding) > 0; chunked != (r.Framing.Kind == Chunked) && r.Status != 204 && r.Status != 304 {
			t.Fatalf("net/http reads chunks: %v, this package %+v", chunked, r.Framing)
		}
		if r.Framing.Kind == Length && other.ContentLength != r.Framing.Length {
			t.Fatalf("net/http reads a length of %d, this package %d", other.ContentLength, r.Framing.Length)
		}
	})
}

// FuzzConnectAuthority: an accepted target has one spelling, which is read back as
// the same, and net.SplitHostPort sees the same host and port.
func FuzzConnectAuthority(f *testing.F) {
	for _, c := range authorities {
		f.Add(c.target, c.target)
	}
	f.Add("ok.test:443", "o\u212a.test:443")
	f.Add("ok.test:443", "ok.test")
	f.Fuzz(func(t *testing.T, target, host string) {
		r := &Request{Method: "CONNECT", Target: target, Minor: 1, Fields: Fields{{"Host", host}}}
		got, err := r.Authority()
		if err != nil {
			if got != (Target{}) {
				t.Fatalf("a refused target is %+v", got)
			}
			return
		}
		canonical := got.Authority(0)
		again, err := (&Request{Target: canonical}).Authority()
		if err != nil || again != got {
			t.Fatalf("%q is read back as %+v, %v, not %+v", canonical, again, err, got)
		}
		h, p, err := net.SplitHostPort(target)
		if err != nil || p != fmt.Sprint(got.Port) || got.Port == 0 {
			t.Fatalf("net reads %q as %q, %q, %v, this package as %+v", target, h, p, err, got)
		}
		if !strings.Contains(h, ":") && !strings.EqualFold(h, got.Host) {
			t.Fatalf("net reads the host %q, this package %q", h, got.Host)
		}
		if strings.ContainsFunc(got.Host, func(c rune) bool { return !strings.ContainsRune("abcdefghijklmnopqrstuvwxyz0123456789-_.:", c) }) {
			t.Fatalf("host %q", got.Host)
		}
		sameHost, err := parseAuthority(host, got.Port)
		if err != nil || sameHost.Host != got.Host || sameHost.Port != got.Port {
			t.Fatalf("the Host field %q is not %+v", host, got)
		}
	})
}

// FuzzAbsoluteTarget: path and query are the end of the target, and the authority is
// read back as the same.
func FuzzAbsoluteTarget(f *testing.F) {
	for _, c := range absolutes {
		f.Add(c.target)
	}
	f.Fuzz(func(t *testing.T, target string) {
		got, err := (&Request{Method: "GET", Target: target}).Absolute()
		if err != nil {
			if got != (Target{}) {
				t.Fatalf("a refused target is %+v", got)
			}
			return
		}
		if !strings.HasPrefix(got.Path, "/") || strings.ContainsAny(got.Path, "?#\\") || got.Query != "" && got.Query[0] != '?' {
			t.Fatalf("%+v", got)
		}
		again, err := (&Request{Target: "http://" + got.Authority(80) + got.Path + got.Query}).Absolute()
		if err != nil || again != got {
			t.Fatalf("read back as %+v, %v, not %+v", again, err, got)
		}
	})
}

// decodeChunked is a slow and simple reader of a whole chunked body.
func decodeChunked(data string) (content, rest string, ok bool) {
	for {
		size, extension, n := 0, 0, strings.Index(data, "\r\n")
		if n < 0 || n+2 > maxChunkLine {
			return "", "", false
		}
		line := data[:n]
		data = data[n+2:]
		if extension = strings.IndexByte(line, ';'); extension < 0 {
			extension = len(line)
		}
		if extension == 0 || extension > 15 || hasControl(line) {
			return "", "", false
		}
		for _, c := range line[:extension] {
			digit := strings.IndexRune("0123456789abcdef", c)
			if digit < 0 {
				digit = strings.IndexRune("0123456789ABCDEF", c)
			}
			if digit < 0 {
				return "", "", false
			}
			size = size*16 + digit
		}
		if size == 0 {
			rest, ok := afterTrailers(data)
			return content, rest, ok
		}
		if size > len(data)-2 || data[size:size+2] != "\r\n" {
			return "", "", false
		}
		content += data[:size]
		data = data[size+2:]
	}
}

func hasControl(line string) bool {
	for _, b := range []byte(line) {
		if b < 32 && b != '\t' || b == 127 {
			return true
		}
	}
	return false
}

func afterTrailers(data string) (rest string, ok bool) {
	for total := 0; ; {
		n := strings.Index(data, "\r\n")
		if n < 0 {
			return "", false
		}
		if total += n + 2; total > maxTrailerBytes {
			return "", false
		}
		line := data[:n]
		data = data[n+2:]
		if line == "" {
			return data, true
		}
		name, _, found := strings.Cut(line, ":")
		if !found || hasControl(line) || name == "" || strings.Trim(name, "!#$%&'*+-.^_`|~0123456789abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ") != "" {
			return "", false
		}
	}
}

// FuzzChunkedBody: the copier accepts what the slow reader accepts, leaves the same
// behind, and what it writes is the same content to net/http's reader.
func FuzzChunkedBody(f *testing.F) {
	for _, c := range bodies {
		f.Add([]byte(c.in), true)
		f.Add([]byte(c.in), false)
	}
	f.Fuzz(func(t *testing.T, data []byte, slowly bool) {
		content, rest, ok := decodeChunked(string(data))
		var source io.Reader = bytes.NewReader(data)
		if slowly {
			source = iotest.HalfReader(source)
		}
		in := bufio.NewReaderSize(source, 32)
		var out bytes.Buffer
		n, err := CopyBody(bufio.NewWriterSize(&out, 32), in, Framing{Kind: Chunked})
		if (err == nil) != ok {
			t.Fatalf("%q: %v, the slow reader says %v", data, err, ok)
		}
		if !ok {
			if !errors.Is(err, ErrBody) {
				t.Fatalf("refused with %v", err)
			}
			return
		}
		left, _ := io.ReadAll(in)
		if string(left) != rest || n != int64(len(content)) {
			t.Fatalf("%q: left %q, want %q; %d bytes, want %d", data, left, rest, n, len(content))
		}
		got, err := io.ReadAll(httputil.NewChunkedReader(bufio.NewReader(&out)))
		if err != nil || string(got) != content {
			t.Fatalf("%q: net/http reads %q, %v, want %q", data, got, err, content)
		}
	})
}

// FuzzFramedBody: a body of a known length is that many bytes and no more.
func FuzzFramedBody(f *testing.F) {
	f.Add([]byte("hello, next"), int64(5))
	f.Add([]byte("hell"), int64(5))
	f.Add([]byte(""), int64(1)<<62)
	f.Fuzz(func(t *testing.T, data []byte, length int64) {
		if length <= 0 {
			return // ParseRequest makes NoBody of these
		}
		in := bufio.NewReaderSize(iotest.HalfReader(bytes.NewReader(data)), 32)
		var out bytes.Buffer
		n, err := CopyBody(bufio.NewWriterSize(&out, 32), in, Framing{Length, length})
		want := min(length, int64(len(data)))
		if n != want || out.String() != string(data[:want]) || (err == nil) != (want == length) {
			t.Fatalf("copied %d, %v: %q", n, err, out.String())
		}
		if left, _ := io.ReadAll(in); string(left) != string(data[want:]) {
			t.Fatalf("left %q", left)
		}
	})
}
