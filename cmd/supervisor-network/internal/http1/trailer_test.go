package http1

import (
	"bufio"
	"fmt"
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

func TestFollows(t *testing.T) {
	for _, name := range []string{"x-sum", "Digest", "Content-MD5", "Repr-Digest", "X_Y", "ETag", "X-Amz-Checksum-Crc32", "Upload-Checksum", "x.y"} {
		if !Follows(name) {
			t.Errorf("%s does not pass", name)
		}
	}
	for _, name := range []string{"", "a b", "a:", "content-length", "Content_Length", "TRANSFER-ENCODING", "transfer.encoding", "trailer", "te", "connection", "keep_alive", "upgrade", "http2-settings", "host",
		"cookie", "authorization", "proxy-authorization", "Proxy.Connection", "content-type", "Content-Encoding", "content-range", "range", "expect", "If-Match", "if_none_match", "max-forwards", "cache-control",
		"x-http-method-override", "X_HTTP_Method", "x-method-override", "x.original.url", "X-Rewrite-URL", "script_name", "X-Script-Name", "Mcp-Method", "mcp_name", "x-forwarded-for", "X_Real_IP", "forwarded"} {
		if Follows(name) {
			t.Errorf("%s passes", name)
		}
	}
}

// TestWhatIsAnnounced is known with the head, of which it is no part.
func TestWhatIsAnnounced(t *testing.T) {
	const chunks = "Transfer-Encoding: chunked"
	var many []string
	for i := range MaxTrailers + 1 {
		many = append(many, fmt.Sprint("x-", i))
	}
	for _, c := range []struct {
		fields []string
		want   []string
		status int
	}{
		{[]string{chunks, "Trailer: X-A, x-b ,,X-a", "trailer:X-C"}, []string{"X-A", "x-b", "X-C"}, 0},
		{[]string{chunks, "Trailer:"}, nil, 0},
		{[]string{chunks}, nil, 0},
		{[]string{"Content-Length: 3", "Trailer: X-A"}, nil, 0}, // nothing can follow
		{[]string{"Trailer: Cookie"}, nil, 0},
		{[]string{chunks, "Trailer: X-A, X-B", "Connection: x-b, close"}, []string{"X-A"}, 0},
		{[]string{chunks, "Trailer: X-A", "Trailer: cookie"}, nil, 400},
		{[]string{chunks, "Trailer: X-A Cookie"}, nil, 400},
		{[]string{chunks, "Trailer: content_length"}, nil, 400},
		{[]string{chunks, "Trailer: " + strings.Join(many[:MaxTrailers], ",")}, many[:MaxTrailers], 0},
		{[]string{chunks, "Trailer: " + strings.Join(many, ",")}, nil, 400},
	} {
		r, err := ParseRequest([]byte(get(c.fields...)))
		wantStatus(t, err, c.status)
		if err != nil {
			continue
		}
		if diff := cmp.Diff(c.want, r.Trailer); diff != "" {
			t.Errorf("%q: %s", c.fields, diff)
		}
		if head := string(AppendRequest(nil, r, Target{}, 80, Outgoing{})); strings.Contains(head, "railer") {
			t.Errorf("%q are passed on as they came: %q", c.fields, head)
		}
	}
}

// TestWhatAnAnswerAnnounces is no more than what may follow, and not without end.
func TestWhatAnAnswerAnnounces(t *testing.T) {
	var many []string
	for i := range MaxTrailers + 1 {
		many = append(many, fmt.Sprint("x-", i))
	}
	got := Fields{{"Trailer", "set-cookie, x-0 ,,X-0"}, {"X", "y"}, {"trailer", strings.Join(many, ",")}}.Trailing()
	if diff := cmp.Diff(many[:MaxTrailers], got); diff != "" {
		t.Error(diff)
	}
}

// TestOnlyAnnouncedTrailersFollow a request, each as often as it came.
func TestOnlyAnnouncedTrailersFollow(t *testing.T) {
	for _, c := range []struct{ announced, want Fields }{
		{nil, Fields{}},
		{Fields{{"Trailer", "x-a"}}, Fields{{"X-A", "1"}, {"x-a", "3"}}},
	} {
		r := Request{Framing: Framing{Kind: Chunked}}
		r.Trailer, _ = c.announced.announced()
		from := bufio.NewReader(strings.NewReader("3\r\nabc\r\n0\r\nX-A:1\r\nCookie: 2\r\nx-a: 3\r\nx_a: 4\r\n\r\nnext"))
		b := r.Content(from)
		if content, err := io.ReadAll(b); err != nil || string(content) != "abc" {
			t.Errorf("%q, %v", content, err)
		}
		if diff := cmp.Diff(c.want, b.Trailers()); diff != "" {
			t.Error(diff)
		}
		if rest, _ := io.ReadAll(from); string(rest) != "next" {
			t.Errorf("%q is left", rest)
		}
	}
}
