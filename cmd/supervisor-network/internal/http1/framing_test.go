package http1

import (
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
)

var requestFramings = []struct {
	rule   string
	fields []string
	want   Framing
	status int
}{
	{"neither means no body", nil, Framing{}, 0},
	{"Content-Length", []string{"Content-Length: 5"}, Framing{Length, 5}, 0},
	{"Content-Length of zero means no body", []string{"Content-Length: 0"}, Framing{}, 0},
	{"the largest Content-Length", []string{"Content-Length: 9223372036854775807"}, Framing{Length, 1<<63 - 1}, 0},
	{"Content-Length overflows", []string{"Content-Length: 9223372036854775808"}, Framing{}, 400},
	{"equal Content-Lengths are one", []string{"Content-Length: 5", "content-length: 5"}, Framing{Length, 5}, 0},
	{"different Content-Lengths", []string{"Content-Length: 5", "Content-Length: 6"}, Framing{}, 400},
	{"Content-Lengths that differ in writing", []string{"Content-Length: 5", "Content-Length: 05"}, Framing{}, 400},
	{"a list of Content-Lengths", []string{"Content-Length: 5, 5"}, Framing{}, 400},
	{"a signed Content-Length", []string{"Content-Length: +5"}, Framing{}, 400},
	{"a negative Content-Length", []string{"Content-Length: -5"}, Framing{}, 400},
	{"a hexadecimal Content-Length", []string{"Content-Length: 0x5"}, Framing{}, 400},
	{"a grouped Content-Length", []string{"Content-Length: 1_0"}, Framing{}, 400},
	{"an empty Content-Length", []string{"Content-Length:"}, Framing{}, 400},
	{"a Content-Length with a space", []string{"Content-Length: 1 0"}, Framing{}, 400},
	{"Arabic digits", []string{"Content-Length: ٥"}, Framing{}, 400},
	{"chunked", []string{"Transfer-Encoding: chunked"}, Framing{Kind: Chunked}, 0},
	{"chunked in any case", []string{"transfer-encoding: Chunked"}, Framing{Kind: Chunked}, 0},
	{"xchunked", []string{"Transfer-Encoding: xchunked"}, Framing{}, 400},
	{"chunked in quotes", []string{`Transfer-Encoding: "chunked"`}, Framing{}, 400},
	{"chunked with a Kelvin sign", []string{"Transfer-Encoding: chun\u212aed"}, Framing{}, 400},
	{"identity", []string{"Transfer-Encoding: identity"}, Framing{}, 400},
	{"chunked and identity", []string{"Transfer-Encoding: chunked, identity"}, Framing{}, 400},
	{"gzip and chunked", []string{"Transfer-Encoding: gzip, chunked"}, Framing{}, 400},
	{"chunked twice in one field", []string{"Transfer-Encoding: chunked, chunked"}, Framing{}, 400},
	{"chunked in two fields", []string{"Transfer-Encoding: chunked", "Transfer-Encoding: chunked"}, Framing{}, 400},
	{"chunked hidden behind an empty field", []string{"Transfer-Encoding:", "Transfer-Encoding: chunked"}, Framing{}, 400},
	{"an empty Transfer-Encoding", []string{"Transfer-Encoding:"}, Framing{}, 400},
	{"a parameter of chunked", []string{"Transfer-Encoding: chunked;q=1"}, Framing{}, 400},
	{"a vertical tab before chunked", []string{"Transfer-Encoding: \vchunked"}, Framing{}, 400},
	{"Content-Length before Transfer-Encoding", []string{"Content-Length: 5", "Transfer-Encoding: chunked"}, Framing{}, 400},
	{"Transfer-Encoding before Content-Length", []string{"Transfer-Encoding: chunked", "Content-Length: 5"}, Framing{}, 400},
	{"Transfer-Encoding with a Content-Length of zero", []string{"Transfer-Encoding: chunked", "Content-Length: 0"}, Framing{}, 400},
	{"a Transfer-Encoding that nobody knows with Content-Length", []string{"Transfer-Encoding: x", "Content-Length: 5"}, Framing{}, 400},
}

func TestRequestFraming(t *testing.T) {
	for _, c := range requestFramings {
		t.Run(c.rule, func(t *testing.T) {
			r, err := ParseRequest([]byte(get(c.fields...)))
			wantStatus(t, err, c.status)
			if err == nil && r.Framing != c.want {
				t.Errorf("got %+v, want %+v", r.Framing, c.want)
			}
		})
	}
}

func TestHTTP10HasNoTransferEncoding(t *testing.T) {
	_, err := ParseRequest([]byte("POST http://ok.test/ HTTP/1.0\r\nTransfer-Encoding: chunked\r\n\r\n"))
	wantStatus(t, err, 400)
	_, err = ParseResponse([]byte("HTTP/1.0 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"), "GET")
	wantStatus(t, err, 400)
}

var responses = []struct {
	rule, method, head string
	want               Framing
	status             int
}{
	{"Content-Length", "GET", "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\n", Framing{Length, 5}, 0},
	{"chunked", "GET", "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n", Framing{Kind: Chunked}, 0},
	{"neither ends with the connection", "GET", "HTTP/1.1 200 OK\r\n\r\n", Framing{Kind: UntilClose}, 0},
	{"HTTP/1.0 without length ends with the connection", "GET", "HTTP/1.0 200 OK\r\n\r\n", Framing{Kind: UntilClose}, 0},
	{"a length of zero ends at once", "GET", "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n", Framing{}, 0},
	{"the answer to HEAD has no body", "HEAD", "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\n", Framing{}, 0},
	{"the chunked answer to HEAD has no body", "HEAD", "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n", Framing{}, 0},
	{"the answer to head may have one", "head", "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\n", Framing{Length, 5}, 0},
	{"204 has no body", "GET", "HTTP/1.1 204 No Content\r\nContent-Length: 5\r\n\r\n", Framing{}, 0},
	{"205 may have one", "GET", "HTTP/1.1 205 Reset Content\r\nContent-Length: 5\r\n\r\n", Framing{Length, 5}, 0},
	{"304 has no body", "GET", "HTTP/1.1 304 Not Modified\r\nContent-Length: 5\r\n\r\n", Framing{}, 0},
	{"100 has no body", "GET", "HTTP/1.1 100 Continue\r\nContent-Length: 5\r\n\r\n", Framing{}, 0},
	{"an empty phrase", "GET", "HTTP/1.1 204 \r\n\r\n", Framing{}, 0},
	{"no phrase and no space", "GET", "HTTP/1.1 204\r\n\r\n", Framing{}, 0},
	{"both framings", "GET", "HTTP/1.1 200 OK\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n", Framing{}, 400},
	{"both framings to HEAD", "HEAD", "HTTP/1.1 200 OK\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n", Framing{}, 400},
	{"different lengths", "GET", "HTTP/1.1 200 OK\r\nContent-Length: 5\r\nContent-Length: 6\r\n\r\n", Framing{}, 400},
	{"two digits", "GET", "HTTP/1.1 20 OK\r\n\r\n", Framing{}, 400},
	{"four digits", "GET", "HTTP/1.1 2000 OK\r\n\r\n", Framing{}, 400},
	{"below 100", "GET", "HTTP/1.1 099 OK\r\n\r\n", Framing{}, 400},
	{"a sign", "GET", "HTTP/1.1 +20 OK\r\n\r\n", Framing{}, 400},
	{"two spaces", "GET", "HTTP/1.1  200 OK\r\n\r\n", Framing{}, 400},
	{"a control character in the phrase", "GET", "HTTP/1.1 200 O\x01K\r\n\r\n", Framing{}, 400},
	{"a phrase that begins with one", "GET", "HTTP/1.1 200 \x01K\r\n\r\n", Framing{}, 400},
	{"HTTP/2", "GET", "HTTP/2 200\r\n\r\n", Framing{}, 400},
	{"another protocol", "GET", "ICY 200 OK\r\n\r\n", Framing{}, 400},
	{"a banner", "GET", "220 mail.test ESMTP\r\n\r\n", Framing{}, 400},
	{"a continued field", "GET", "HTTP/1.1 200 OK\r\nA: b\r\n c\r\n\r\n", Framing{}, 400},
}

func TestResponseFraming(t *testing.T) {
	for _, c := range responses {
		t.Run(c.rule, func(t *testing.T) {
			r, err := ParseResponse([]byte(c.head), c.method)
			wantStatus(t, err, c.status)
			if err == nil && r.Framing != c.want {
				t.Errorf("got %+v, want %+v", r.Framing, c.want)
			}
		})
	}
}

func TestResponseClose(t *testing.T) {
	for head, want := range map[string]bool{
		"HTTP/1.1 200 OK\r\n\r\n":                              false,
		"HTTP/1.1 200 OK\r\nConnection: keep-alive\r\n\r\n":    false,
		"HTTP/1.1 200 OK\r\nConnection: closed\r\n\r\n":        false,
		"HTTP/1.1 200 OK\r\nConnection: x, CLOSE\r\n\r\n":      true,
		"HTTP/1.0 200 OK\r\n\r\n":                              true,
		"HTTP/1.1 200 OK\r\nX: a\r\nconnection: close\r\n\r\n": true,
	} {
		r, err := ParseResponse([]byte(head), "GET")
		if err != nil || r.Close != want {
			t.Errorf("%q: %v, %+v", head, err, r)
		}
	}
}

// Memory that was used shows nothing of what was in it.
func TestAResponseIsReadAlikeInUsedMemory(t *testing.T) {
	used := &Response{}
	for _, head := range []string{
		"HTTP/1.1 200 OK\r\nA: 1\r\nB: 2\r\nConnection: close\r\nContent-Length: 3\r\n\r\n",
		"HTTP/1.1 204 No Content\r\n\r\n",
		"HTTP/1.0 200\r\nC: \u00e9\r\n\r\n", // not of the plainest form
		"HTTP/1.1 200 OK\r\n" + strings.Repeat("D: x\r\n", 40) + "\r\n",
		"HTTP/1.1 2000 OK\r\nA: 1\r\n\r\n",
		"HTTP/1.1 304 Not Modified\r\nE: 5\r\n\r\n",
	} {
		fresh, freshErr := ParseResponse([]byte(head), "GET")
		got, err := ParseResponseIn(used, []byte(head), "GET")
		if diff := cmp.Diff(fresh, got, cmpopts.EquateEmpty()); diff != "" || (err == nil) != (freshErr == nil) {
			t.Errorf("%.40q: %v, %v\n%s", head, err, freshErr, diff)
		}
	}
}

// TestAResponseMayBeInLatin1: its fields go to the client as they are. A request may not,
// which rules read.
func TestAResponseMayBeInLatin1(t *testing.T) {
	const fields = "Content-Disposition: attachment; filename=\xe9\r\nContent-Length: 0\r\n\r\n"
	r, err := ParseResponse([]byte("HTTP/1.1 200 \xd6K\r\n"+fields), "GET")
	if err != nil {
		t.Fatal(err)
	}
	if got := string(AppendResponse(nil, r, Outgoing{ZeroLength: true})); got != "HTTP/1.1 200 \xd6K\r\n"+fields {
		t.Errorf("it is passed on as %q", got)
	}
	for _, bad := range []string{"\x00", "\x7f", "\r", "\n", "\x1b"} {
		if _, err := ParseResponse([]byte("HTTP/1.1 200 \xd6K\r\nX: \xe9"+bad+"\r\n\r\n"), "GET"); err == nil {
			t.Errorf("%q in it is accepted", bad)
		}
	}
	_, err = ParseRequest([]byte("GET / HTTP/1.1\r\nHost: a\r\nX: \xe9\r\n\r\n"))
	wantStatus(t, err, 400)
}
