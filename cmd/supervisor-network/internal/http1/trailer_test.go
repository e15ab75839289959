package http1

import (
	"bufio"
	"io"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// TestTrailersAreThereAtTheEnd of a body in chunks, as they came.
func TestTrailersAreThereAtTheEnd(t *testing.T) {
	b := NewBodyReader(bufio.NewReader(strings.NewReader("3\r\nabc\r\n0\r\nx:1\r\nX:  2\t\r\nContent-Length: 3\r\n\r\nnext")), Framing{Kind: Chunked})
	if _, err := io.ReadFull(b, make([]byte, 3)); err != nil || b.Trailers() != nil {
		t.Errorf("%v, %v before the end", err, b.Trailers())
	}
	_, err := b.Read(make([]byte, 1))
	if diff := cmp.Diff(Fields{{"x", "1"}, {"X", "2"}, {"Content-Length", "3"}}, b.Trailers()); diff != "" || err != io.EOF {
		t.Errorf("%v %s", err, diff)
	}
}

func TestTrails(t *testing.T) {
	for _, name := range []string{"x-sum", "Grpc-Status", "Server-Timing", "Digest", "X_Y", "ETag"} {
		if !Trails(name) {
			t.Errorf("%s does not pass", name)
		}
	}
	for _, name := range []string{"", "a b", "a:", "content-length", "Content_Length", "TRANSFER-ENCODING", "trailer", "te", "connection", "keep-alive", "upgrade", "host", "set-cookie", "Set_Cookie",
		"alt-svc", "www-authenticate", "proxy-authenticate", "proxy-authentication-info", "authorization", "content-type", "Content-Encoding", "cache-control", "If-Match"} {
		if Trails(name) {
			t.Errorf("%s passes", name)
		}
	}
}

func TestTakesTrailers(t *testing.T) {
	for value, want := range map[string]bool{"trailers": true, "gzip;q=0, Trailers ": true, "": false, "gzip": false, "trailers;q=1": false, "xtrailers": false} {
		for minor := range 2 {
			r := Request{Minor: minor, Fields: Fields{{"te", value}}}
			if r.TakesTrailers() != (want && minor == 1) {
				t.Errorf("TE: %s in HTTP/1.%d: %v", value, minor, !want)
			}
		}
	}
}
