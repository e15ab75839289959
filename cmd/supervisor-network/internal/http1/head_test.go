package http1

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"strings"
	"testing"
	"testing/iotest"

	"github.com/google/go-cmp/cmp"
)

// request makes a head of a request line and fields.
func request(line string, fields ...string) string {
	return line + "\r\n" + strings.Join(append(fields, "\r\n"), "\r\n")
}

func get(fields ...string) string {
	return request("GET http://ok.test/ HTTP/1.1", append([]string{"Host: ok.test"}, fields...)...)
}

// wantStatus checks that err refuses a message with this status; 0 means that it is
// accepted.
func wantStatus(t *testing.T, err error, status int) {
	t.Helper()
	if status == 0 {
		if err != nil {
			t.Fatalf("refused: %v", err)
		}
		return
	}
	e, ok := errors.AsType[*SyntaxError](err)
	if !ok || e.Status != status {
		t.Fatalf("got %v, want status %d", err, status)
	}
	if e.Reason == "" || e.Detail == "" {
		t.Fatalf("a refusal without reason or detail: %+v", e)
	}
}

var requestLines = []struct {
	rule, line string
	status     int
}{
	{"a plain line is accepted", "GET http://ok.test/ HTTP/1.1", 0},
	{"HTTP/1.0 is accepted", "GET http://ok.test/ HTTP/1.0", 0},
	{"methods are any token", "M-SEARCH!~ http://ok.test/ HTTP/1.1", 0},
	{"methods have 32 characters", strings.Repeat("M", MaxMethodBytes) + " / HTTP/1.1", 0},
	{"methods have no 33rd character", strings.Repeat("M", MaxMethodBytes+1) + " / HTTP/1.1", 400},
	{"methods are tokens", "GE(T / HTTP/1.1", 400},
	{"methods are not empty", " / HTTP/1.1", 400},
	{"two spaces are refused", "GET  / HTTP/1.1", 505},
	{"two spaces before the version are refused", "GET /  HTTP/1.1", 505},
	{"a tab is no space", "GET\t/ HTTP/1.1", 400},
	{"a tab in the target is refused", "GET /\ta HTTP/1.1", 400},
	{"a trailing space is refused", "GET / HTTP/1.1 ", 505},
	{"a leading space is refused", " GET / HTTP/1.1", 400},
	{"HTTP/0.9 is refused", "GET /", 400},
	{"HTTP/1.2 is refused", "GET / HTTP/1.2", 505},
	{"HTTP/2.0 is refused", "PRI * HTTP/2.0", 505},
	{"the version is upper-case", "GET / http/1.1", 505},
	{"the version has no leading zero", "GET / HTTP/01.1", 505},
	{"a non-ASCII target is refused", "GET /é HTTP/1.1", 400},
	{"DEL in the target is refused", "GET /\x7f HTTP/1.1", 400},
	{"a target has 4096 bytes", "GET /" + strings.Repeat("a", MaxTargetBytes-1) + " HTTP/1.1", 0},
	{"a target has no 4097th byte", "GET /" + strings.Repeat("a", MaxTargetBytes) + " HTTP/1.1", 414},
}

func TestRequestLineHasOneForm(t *testing.T) {
	for _, c := range requestLines {
		t.Run(c.rule, func(t *testing.T) {
			_, err := ParseRequest([]byte(c.line + "\r\nHost: ok.test\r\n\r\n"))
			wantStatus(t, err, c.status)
		})
	}
}

var heads = []struct {
	rule, head string
	status     int
}{
	{"an ordinary field is accepted", get("Accept: */*"), 0},
	{"an empty value is accepted", get("X-Empty:"), 0},
	{"spaces and tabs around a value are dropped", get("X-A: \t b \t"), 0},
	{"UTF-8 in a value is accepted", get("X-Name: é"), 0},
	{"Latin-1 in a value is refused", get("X-Name: \xe9"), 400},
	{"a tab inside a value is accepted", get("X-A: b\tc"), 0},
	{"a vertical tab in a value is refused", get("X-A: \vb"), 400},
	{"a form feed in a value is refused", get("X-A: b\f"), 400},
	{"DEL in a value is refused", get("X-A: \x7f"), 400},
	{"NUL in a value is refused", get("X-A: a\x00b"), 400},
	{"NUL in a name is refused", get("X\x00A: b"), 400},
	{"a bare LF ends no line", "GET / HTTP/1.1\nHost: a\r\n\r\n", 400},
	{"a bare LF in a field is refused", get("X-A: b\nX-B: c"), 400},
	{"a bare CR is refused", get("X-A: b\rX-B: c"), 400},
	{"a CR before CR LF is refused", get("X-A: b\r"), 400},
	{"a bare LF ends no head", "GET / HTTP/1.1\r\nHost: a\r\n\n", 400},
	{"a leading empty line is refused", "\r\n" + get(), 400},
	{"two empty lines are refused", get() + "\r\n", 400},
	{"a head without end is refused", strings.TrimSuffix(get(), "\r\n"), 400},
	{"a space before the colon is refused", get("X-A : b"), 400},
	{"a tab before the colon is refused", get("X-A\t: b"), 400},
	{"a continued line is refused", get("X-A: b", " c"), 400},
	{"a line continued with a tab is refused", get("X-A: b", "\tc"), 400},
	{"a continued request line is refused", "GET / HTTP/1.1\r\n Host: a\r\n\r\n", 400},
	{"a line without colon is refused", get("nothing"), 400},
	{"an empty name is refused", get(": b"), 400},
	{"a name is a token", get("X(A): b"), 400},
	{"a name with an underscore is accepted", get("api_key: b"), 0},
	{"a Content_Length is refused", get("Content_Length: 5"), 400},
	{"a TRANSFER_encoding is refused", get("TRANSFER_encoding: chunked"), 400},
	{"a Transfer.Encoding is refused", get("Transfer.Encoding: chunked"), 400},
	{"a Proxy!Authorization is refused", get("Proxy!Authorization: a"), 400},
	{"a Transfer_Encodings is only similar", get("Transfer_Encodings: chunked"), 0},
	{"HTTP/1.1 needs a Host", "GET / HTTP/1.1\r\nAccept: a\r\n\r\n", 400},
	{"HTTP/1.0 needs none", "GET / HTTP/1.0\r\nAccept: a\r\n\r\n", 0},
	{"two Host fields are refused", get("Host: ok.test"), 400},
	{"two Host fields are refused in HTTP/1.0", "GET / HTTP/1.0\r\nHost: a\r\nhost: a\r\n\r\n", 400},
	{"Connection names options", get("Connection: close, X-Hop"), 0},
	{"Connection may be empty", get("Connection:"), 0},
	{"Connection has no empty option", get("Connection: close,"), 400},
	{"Connection lists tokens", get("Connection: a b"), 400},
	{"Connection does not name Host", get("Connection: close, hOST"), 400},
	{"Connection does not name Content-Length", get("Connection: Content-Length"), 400},
	{"Connection does not name Transfer-Encoding", get("Connection: close\t,\ttransfer-encoding"), 400},
	{"200 fields are accepted", get(manyFields(MaxFields - 1)...), 0},
	{"201 fields are refused", get(manyFields(MaxFields)...), 431},
}

func manyFields(n int) []string {
	out := make([]string, n)
	for i := range out {
		out[i] = "a: b"
	}
	return out
}

func TestHeadHasOneReading(t *testing.T) {
	for _, c := range heads {
		t.Run(c.rule, func(t *testing.T) {
			_, err := ParseRequest([]byte(c.head))
			wantStatus(t, err, c.status)
		})
	}
}

func TestParseRequestKeepsOrderAndCase(t *testing.T) {
	got, err := ParseRequest([]byte("POST http://OK.test/ HTTP/1.1\r\nhOST: ok.test\r\nX-B: \t2 \r\nX-A: 1\r\nx-b: 3\r\nContent-Length: 007\r\n\r\n"))
	if err != nil {
		t.Fatal(err)
	}
	want := &Request{
		Method: "POST", Target: "http://OK.test/", Minor: 1,
		Fields:  Fields{{"hOST", "ok.test"}, {"X-B", "2"}, {"X-A", "1"}, {"x-b", "3"}, {"Content-Length", "007"}},
		Framing: Framing{Kind: Length, Length: 7},
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
}

// TestARequestHasNoFieldsThatConnectionNames: what is not sent is not read, either.
func TestARequestHasNoFieldsThatConnectionNames(t *testing.T) {
	var many strings.Builder
	for i := range 40 {
		fmt.Fprintf(&many, "x-%d, ", i)
	}
	for name, tc := range map[string]struct {
		in   string
		want Fields
	}{
		"one":                       {"Connection: content-type\r\nContent-Type: text/plain\r\nX-Y: z\r\n", Fields{{"X-Y", "z"}}},
		"before and behind it":      {"X-A: 1\r\nConnection: X-A\r\nx-a: 2\r\nX-Y: z\r\n", Fields{{"X-Y", "z"}}},
		"of several":                {"Connection: close, X-A\r\nConnection: upgrade , X-B\r\nX-A: 1\r\nX-B: 1\r\nUpgrade: x\r\n", Fields{{"Connection", "close"}, {"Connection", "upgrade"}, {"Upgrade", "x"}}},
		"what is about one hop":     {"Connection: Upgrade, TE, close\r\nUpgrade: websocket\r\nTE: trailers\r\n", Fields{{"Connection", "Upgrade, TE, close"}, {"Upgrade", "websocket"}, {"TE", "trailers"}}},
		"keep-alive":                {"Connection: keep-alive\r\nKeep-Alive: 3\r\n", Fields{{"Connection", "keep-alive"}, {"Keep-Alive", "3"}}},
		"many":                      {"Connection: " + many.String() + "x-y\r\nX-7: 1\r\nX-Y: 1\r\nX-Z: 1\r\n", Fields{{"X-Z", "1"}}},
		"a field that is not there": {"Connection: X-None\r\nX-Y: z\r\n", Fields{{"X-Y", "z"}}},
	} {
		r, err := ParseRequest([]byte("GET / HTTP/1.1\r\nHost: a\r\n" + tc.in + "\r\n"))
		if err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		if diff := cmp.Diff(append(Fields{{"Host", "a"}}, tc.want...), r.Fields); diff != "" {
			t.Errorf("%s (-want +got):\n%s", name, diff)
		}
	}
}

// TestFieldsOfProxiesEndHere: what is not sent is not judged.
func TestFieldsOfProxiesEndHere(t *testing.T) {
	const gone = "Forwarded: for=127.0.0.1\r\nX-Forwarded-For: 10.0.0.1\r\nx-forwarded-host: evil.test\r\nX-Forwarded-Client-Cert: a\r\nX_Forwarded_Proto: https\r\nX-Real-IP: 10.0.0.1\r\n" +
		"True-Client-IP: a\r\nX-Client-IP: a\r\nclient_ip: a\r\nX-Cluster-Client-IP: a\r\nCF-Connecting-IP: a\r\ncf-connecting-ipv6: a\r\nFastly-Client-IP: a\r\n" +
		"X-Original-Forwarded-For: a\r\nX-Azure-ClientIP: a\r\nX-Remote-IP: a\r\nX-Remote-Addr: a\r\nWL-Proxy-Client-IP: a\r\nProxy_Client_IP: a\r\nX.Forwarded.For: a\r\nX-Real~IP: a\r\n" +
		"X-Host: evil.test\r\nx_original_host: evil.test\r\nX-HTTP-Host-Override: evil.test\r\n"
	const kept = "X-Hos: a\r\nX-Hosts: a\r\nX-Forwarded: a\r\nX-Forwarded-: a\r\nForward: a\r\nX-Real-IPs: a\r\nClient: a\r\nMy-Client-IP: a\r\nSkip: a\r\nVia: 1.1 a\r\n"
	r, err := ParseRequest([]byte("GET / HTTP/1.1\r\nHost: a\r\n" + gone + kept + "\r\n"))
	if err != nil {
		t.Fatal(err)
	}
	want := Fields{{"Host", "a"}, {"X-Hos", "a"}, {"X-Hosts", "a"}, {"X-Forwarded", "a"}, {"X-Forwarded-", "a"}, {"Forward", "a"}, {"X-Real-IPs", "a"}, {"Client", "a"}, {"My-Client-IP", "a"}, {"Skip", "a"}, {"Via", "1.1 a"}}
	if diff := cmp.Diff(want, r.Fields); diff != "" {
		t.Error(diff)
	}
}

func TestAppendLeavesOutWhatConnectionNames(t *testing.T) {
	many := Fields{{"Connection", strings.Repeat("x-m, ", 20) + "x-two"}, {"X-M", ""}, {"X-Two", ""}, {"X-Four", "4"}}
	for name, f := range map[string]Fields{
		"several Connection fields": {{"Connection", "X-One , x-two"}, {"X-One", ""}, {"connection", "X-Three"}, {"X-Four", "4"}, {"Upgrade", "h2c"}, {"HTTP2-Settings", "AA"}, {"X-Three", ""}},
		"keep-alive names no field": {{"Connection", "keep-alive"}, {"Keep-Alive", "3"}, {"X-Four", "4"}},
		"thousands":                 many,
	} {
		got := string(AppendRequest(nil, &Request{Method: "GET", Fields: f}, Target{Host: "ok.test", Port: 80, Path: "/"}, 80, Outgoing{Omit: []string{"x-none"}}))
		if want := "GET / HTTP/1.1\r\nHost: ok.test\r\nX-Four: 4\r\n\r\n"; got != want {
			t.Errorf("%s: %q, want %q", name, got, want)
		}
	}
}

func TestAppendWritesFramingAnew(t *testing.T) {
	f := Fields{{"Content-Length", "007"}, {"Via", "1.0 a"}, {"Host", "evil.test"}, {"X-Drop", "1"}, {"Proxy-Authorization", "x"}}
	out := Outgoing{Framing: Framing{Kind: Length, Length: 7}, Close: true, Via: "1.1 b", Omit: []string{"x-drop"}, Add: Fields{{"X-New", "n"}}}
	got := string(AppendRequest(nil, &Request{Method: "PUT", Fields: f}, Target{Host: "::1", Port: 8080, Path: "/a", Query: "?b"}, 80, out))
	want := "PUT /a?b HTTP/1.1\r\nHost: [::1]:8080\r\nX-New: n\r\nVia: 1.0 a, 1.1 b\r\nContent-Length: 7\r\nConnection: close\r\n\r\n"
	if got != want {
		t.Errorf("%q, want %q", got, want)
	}
	resp := &Response{Status: 200, Phrase: "OK", Fields: Fields{{"Alt-Svc", "h3"}, {"Transfer-Encoding", "chunked"}, {"X", "y"}}}
	if got, want := string(AppendResponse(nil, resp, Outgoing{Framing: Framing{Kind: Chunked}})), "HTTP/1.1 200 OK\r\nX: y\r\nTransfer-Encoding: chunked\r\n\r\n"; got != want {
		t.Errorf("%q, want %q", got, want)
	}
}

func TestReadHeadStopsBehindTheHead(t *testing.T) {
	for _, size := range []int{16, 64, MaxRequestHead} { // lines longer than the buffer too
		r := bufio.NewReaderSize(iotest.OneByteReader(strings.NewReader(get("X-Long: "+strings.Repeat("a", 100))+"rest")), size)
		head, err := ReadHead(r, MaxRequestHead)
		if err != nil {
			t.Fatal(err)
		}
		if string(head) != get("X-Long: "+strings.Repeat("a", 100)) {
			t.Errorf("buffer %d: head is %q", size, head)
		}
		if rest, _ := io.ReadAll(r); string(rest) != "rest" {
			t.Errorf("buffer %d: rest is %q", size, rest)
		}
	}
}

// A line whose part behind a full buffer is CR LF is no empty line.
func TestReadHeadDoesNotMistakeTheEndOfALongLineForTheEndOfTheHead(t *testing.T) {
	const size = 16
	head := strings.Repeat("a", 2*size) + "\r\nb: c\r\n\r\n"
	got, err := ReadHead(bufio.NewReaderSize(strings.NewReader(head), size), 1024)
	if err != nil || string(got) != head {
		t.Errorf("got %q, %v", got, err)
	}
}

func TestReadHeadLimit(t *testing.T) {
	atLimit := "GET / HTTP/1.1\r\nA: "
	atLimit += strings.Repeat("a", MaxRequestHead-len(atLimit)-4) + "\r\n\r\n"
	for _, c := range []struct {
		rule, in string
		status   int
	}{
		{"8192 bytes are accepted", atLimit, 0},
		{"8193 bytes are refused", "G" + atLimit, 431},
		{"a line without end is refused", strings.Repeat("a", 2*MaxRequestHead), 431},
		{"lines without end are refused", strings.Repeat("a: b\r\n", MaxRequestHead), 431},
	} {
		for _, size := range []int{64, MaxRequestHead, 2 * MaxRequestHead} {
			_, err := ReadHead(bufio.NewReaderSize(strings.NewReader(c.in), size), MaxRequestHead)
			t.Run(c.rule, func(t *testing.T) { wantStatus(t, err, c.status) })
		}
	}
}

func TestReadHeadTellsAnEarlyEndFromNone(t *testing.T) {
	for in, want := range map[string]error{
		"":                     io.EOF,
		"G":                    io.ErrUnexpectedEOF,
		"GET / HTTP/1.1\r\n":   io.ErrUnexpectedEOF,
		"GET / HTTP/1.1\r\n\r": io.ErrUnexpectedEOF,
	} {
		if _, err := ReadHead(bufio.NewReader(strings.NewReader(in)), 100); !errors.Is(err, want) {
			t.Errorf("%q: got %v, want %v", in, err, want)
		}
	}
}

func TestAnswerToHeadHasNoBody(t *testing.T) {
	for method, hasBody := range map[string]bool{"": true, "GET": true, "HEAD": false} {
		var out strings.Builder
		if err := Answer(&out, method, 403, "00", ErrorBody{Error: "policy_denied", Detail: "<no>"}); err != nil {
			t.Fatal(err)
		}
		head, body, _ := strings.Cut(out.String(), "\r\n\r\n")
		resp, err := ParseResponse([]byte(head+"\r\n\r\n"), "GET")
		if err != nil || resp.Status != 403 || !resp.Close {
			t.Fatalf("%v %+v", err, resp)
		}
		if hasBody && int64(len(body)) != resp.Framing.Length || !hasBody && body != "" || resp.Framing.Length == 0 {
			t.Errorf("%q: body %q, length %d", method, body, resp.Framing.Length)
		}
	}
}

// TestARefusedTunnelSaysWhyInItsStatusLine, on one line whatever is refused.
func TestARefusedTunnelSaysWhyInItsStatusLine(t *testing.T) {
	for _, tt := range []struct{ method, detail, want string }{
		{"CONNECT", "endpoint a.test:443 is not allowed", "Forbidden (policy_denied: endpoint a.test:443 is not allowed, request 00)"},
		{"CONNECT", "a\r\nSet-Cookie: b\x00é", "Forbidden (policy_denied: a??Set-Cookie: b??, request 00)"},
		{"CONNECT", strings.Repeat("x", 1000), "Forbidden (policy_denied: " + strings.Repeat("x", 512) + ", request 00)"},
		{"GET", "endpoint a.test:80 is not allowed", "Forbidden"},
	} {
		var out strings.Builder
		if err := Answer(&out, tt.method, 403, "00", ErrorBody{Error: "policy_denied", Detail: tt.detail}); err != nil {
			t.Fatal(err)
		}
		head, _, _ := strings.Cut(out.String(), "\r\n\r\n")
		resp, err := ParseResponse([]byte(head+"\r\n\r\n"), "GET")
		if err != nil || resp.Phrase != tt.want || len(resp.Fields) != 4 {
			t.Errorf("%s %q: %v %q %v", tt.method, tt.detail, err, resp.Phrase, resp.Fields)
		}
	}
}
