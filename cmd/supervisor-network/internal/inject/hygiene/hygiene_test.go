package hygiene

import (
	"bytes"
	"compress/flate"
	"compress/gzip"
	"compress/zlib"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"io"
	"net/url"
	"strconv"
	"strings"
	"testing"
	"testing/iotest"

	"github.com/google/go-cmp/cmp"

	"github.com/splitpod/splitpod/cmd/supervisor-network/internal/http1"
	"github.com/splitpod/splitpod/cmd/supervisor-network/internal/inject/credentials"
	"github.com/splitpod/splitpod/cmd/supervisor-network/internal/inject/secret"
)

const mark = "openshell:resolve:env:KEY"

func filter(value string) *Filter {
	return New([]credentials.Echo{{Value: secret.New(value), Placeholder: mark, Key: "KEY", Bodies: true}})
}

const value = `s3cret/"with"+parts<&>~ü`

func TestAnEchoedValueIsReplacedInEveryForm(t *testing.T) {
	quoted, _ := json.Marshal(value)
	for name, text := range map[string]string{
		"as it is":                "before " + value + " behind",
		"twice":                   value + value,
		"in a query":              "https://a.test/?a=" + url.QueryEscape(value) + "&b",
		"in a path":               "https://a.test/" + url.PathEscape(value) + "/b",
		"with lower-case escapes": "x=" + lowerEscapes(url.QueryEscape(value)),
		"in JSON":                 `{"a":` + string(quoted) + `}`,
		"in JSON with slashes":    `{"a":` + strings.ReplaceAll(string(quoted), "/", `\/`) + `}`,
		"in Basic":                `"Basic ` + base64.StdEncoding.EncodeToString([]byte("user:"+value)) + `"`,
		"in base64, second place": base64.StdEncoding.EncodeToString([]byte("x" + value + "yz")),
		"in base64, third place":  base64.StdEncoding.EncodeToString([]byte("xy" + value + "z")),
		"in JSON in ASCII":        `{"a":` + strconv.QuoteToASCII(value) + `}`,
		"in base64 for URLs":      base64.RawURLEncoding.EncodeToString([]byte("\xff\xff\xff" + value)),
	} {
		for _, size := range []int{1, 3, 7, 1000} {
			var out bytes.Buffer
			w := filter(value).NewWriter(&out)
			for rest := []byte(text); len(rest) > 0; {
				n := min(size, len(rest))
				if _, err := w.Write(rest[:n]); err != nil {
					t.Fatal(err)
				}
				rest = rest[n:]
			}
			if err := w.Close(); err != nil {
				t.Fatal(err)
			}
			if w.Count() < 1 || !strings.Contains(out.String(), mark) || seen(out.String()) {
				t.Errorf("%s, in parts of %d: %d found: %s", name, size, w.Count(), out.String())
			}
		}
		whole, n := whole(filter(value), text)
		if n < 1 || seen(string(whole)) {
			t.Errorf("%s as a whole: %s", name, whole)
		}
	}
}

// TestAnEchoIsFoundAsLibrariesEscapeIt: what escapers of several languages make of a value
// whose characters they disagree about, as it was written down of each.
func TestAnEchoIsFoundAsLibrariesEscapeIt(t *testing.T) {
	const value = `K/ab+cd/ef'g"h&i==`
	for name, text := range map[string]string{
		"Go's html":           `K/ab+cd/ef&#39;g&#34;h&amp;i==`,
		"Go's html/template":  `K/ab&#43;cd/ef&#39;g&#34;h&amp;i==`,
		"Python's html":       `K/ab+cd/ef&#x27;g&quot;h&amp;i==`,
		"Django":              `K/ab+cd/ef&#x27;g&quot;h&amp;i==`,
		"Ruby's ERB":          `K/ab+cd/ef&#39;g&quot;h&amp;i==`,
		"PHP":                 `K/ab+cd/ef&#039;g&quot;h&amp;i==`,
		".NET's HtmlEncoder":  `K/ab&#x2B;cd/ef&#x27;g&quot;h&amp;i==`,
		"OWASP":               `K&#x2F;ab+cd&#x2F;ef&#x27;g&quot;h&amp;i==`,
		"Handlebars":          `K/ab+cd/ef&#x27;g&quot;h&amp;i&#x3D;&#x3D;`,
		"Mustache":            `K&#x2F;ab+cd&#x2F;ef&#39;g&quot;h&amp;i&#x3D;&#x3D;`,
		"ESAPI":               `K&#x2f;ab&#x2b;cd&#x2f;ef&#x27;g&quot;h&amp;i&#x3d;&#x3d;`,
		".NET's JSON":         `K/ab\u002Bcd/ef\u0027g\u0022h\u0026i==`,
		"PHP's JSON":          `K\/ab+cd\/ef'g\"h&i==`,
		"Python's quote":      `K/ab%2Bcd/ef%27g%22h%26i%3D%3D`,
		"encodeURIComponent":  `K%2Fab%2Bcd%2Fef'g%22h%26i%3D%3D`,
		"Java's URLEncoder":   `K%2Fab%2Bcd%2Fef%27g%22h%26i%3D%3D`,
		"Go's url.PathEscape": `K%2Fab+cd%2Fef%27g%22h&i==`,
	} {
		body, n := whole(filter(value), "token: "+text+".")
		fields, m := filter(value).Fields(http1.Fields{{Name: "X", Value: text}})
		if string(body) != "token: "+mark+"." || fields[0].Value != mark || n != 1 || m != 1 {
			t.Errorf("%s: %s, %+v", name, body, fields)
		}
	}
}

// seen looks for the value in what is left, in ways of its own.
func seen(s string) bool {
	plain, err := url.QueryUnescape(s)
	for start := range len(s) {
		for _, enc := range []*base64.Encoding{base64.RawStdEncoding, base64.RawURLEncoding} {
			text := s[start:]
			for end := range len(text) {
				if strings.IndexByte("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/-_", text[end]) < 0 {
					text = text[:end]
					break
				}
			}
			if b, err := enc.DecodeString(text[:len(text)/4*4]); err == nil && bytes.Contains(b, []byte("s3cret")) {
				return true
			}
		}
	}
	return strings.Contains(s, "s3cret") || err == nil && strings.Contains(plain, value)
}

// whole cleans a text in one piece, as bodies are.
func whole(f *Filter, text string) ([]byte, int) { return replace([]byte(text), f.inBodies()) }

func TestHeadersAreCleaned(t *testing.T) {
	in := http1.Fields{{Name: "Location", Value: "/x?t=" + url.QueryEscape(value)}, {Name: "Content-Length", Value: "12345678"}, {Name: "X-Echo", Value: value}}
	before := append(http1.Fields(nil), in...)
	out, n := filter(value).Fields(in)
	want := http1.Fields{{Name: "Location", Value: "/x?t=" + mark}, {Name: "Content-Length", Value: "12345678"}, {Name: "X-Echo", Value: mark}}
	if diff := cmp.Diff(want, out) + cmp.Diff(before, in); diff != "" || n != 2 {
		t.Error(n, diff)
	}
	if out, n := filter("12345678").Fields(in); n != 0 || &out[0] != &in[0] {
		t.Error("a field of framing is changed")
	}
	headersOnly := New([]credentials.Echo{{Value: secret.New(value), Placeholder: mark}})
	if _, n := headersOnly.Fields(in); n != 2 {
		t.Error("headers are not cleaned")
	}
	if text, n := whole(headersOnly, value); n != 0 || string(text) != value {
		t.Error("bodies are cleaned although nobody asked for it")
	}
}

func TestShortValuesAreNotLookedFor(t *testing.T) {
	if New([]credentials.Echo{{Value: secret.New("1234567"), Bodies: true}}) != nil || New(nil) != nil {
		t.Error("a filter for nothing")
	}
	if filter("12345678") == nil {
		t.Error("no filter at the limit")
	}
	var none *Filter
	in := http1.Fields{{Name: "A", Value: value}}
	if _, n := none.Fields(in); n != 0 || none.Treatment(in) != Pass || len(none.Uncompressed(in)) != 1 {
		t.Error("a nil filter does something")
	}
}

func TestWhichBodiesAreCleaned(t *testing.T) {
	f := filter(value)
	for _, c := range []struct {
		kind, coding string
		want         Treatment
	}{
		{"text/html; charset=utf-8", "", Replace}, {"application/json", "identity", Replace}, {"application/problem+json", "", Replace}, {"text/event-stream", "", Replace},
		{"application/xml", "", Replace}, {"image/svg+xml", "", Replace}, {"application/json", "gzip", Replace}, {"application/json", "X-GZip", Replace}, {"application/json", "deflate", Replace},
		{"application/json", "br", Refuse}, {"application/json", "ZSTD", Refuse}, {"application/json", "gzip, gzip", Refuse}, {"text/plain;;x=\"", "", Replace}, {"text/plain;;x=\"", "br", Refuse},
		{"image/png", "", Cover}, {"image/png", "gzip", Pass}, {"image/png", "br", Pass}, {"application/octet-stream", "", Cover}, {"multipart/mixed; boundary=x", "", Cover},
		{"", "", Cover}, {"", "gzip", Replace}, {"", "br", Refuse}, {"json", "", Replace}, // of no type may be text
		{"application/grpc", "", Framed}, {"application/GRPC+proto; x=y", "", Framed}, {"application/grpc-web+json", "", Framed}, {"application/grpc-web-text", "", Cover}, {"application/grpcx", "", Cover},
		{"application/grpc", "gzip", Pass},
	} {
		var fields http1.Fields
		if c.kind != "" {
			fields = append(fields, http1.Field{Name: "Content-Type", Value: c.kind})
		}
		if c.coding != "" {
			fields = append(fields, http1.Field{Name: "content-encoding", Value: c.coding})
		}
		if got := f.Treatment(fields); got != c.want {
			t.Errorf("%q %q: %v, want %v", c.kind, c.coding, got, c.want)
		}
	}
	for name, want := range map[string]Treatment{"Content-Range": Pass, "X-Amz-Checksum-CRC32": Pass, "X-Amz-Checksum": Replace, "ETag": Replace} {
		fields := http1.Fields{{Name: "Content-Type", Value: "text/plain"}, {Name: name, Value: "x"}, {Name: "Content-Encoding", Value: "gzip"}}
		if got, plain := f.Treatment(fields), f.Treatment(fields[:2]); got != want || plain != Replace {
			t.Errorf("with %s: in gzip %v, without %v", name, got, plain)
		}
	}
	got := f.Uncompressed(http1.Fields{{Name: "accept-encoding", Value: "gzip"}, {Name: "A", Value: "b"}, {Name: "Grpc-Accept-Encoding", Value: "gzip"}})
	if diff := cmp.Diff(http1.Fields{{Name: "A", Value: "b"}, {Name: "Accept-Encoding", Value: "identity"}}, got); diff != "" {
		t.Error(diff)
	}
}

func TestABodyIsLookedAtUpToTheLimit(t *testing.T) {
	for _, c := range []struct {
		pad  int
		want int
	}{{MaxBody - len(value), 1}, {MaxBody - len(value) + 1, 0}} {
		var out bytes.Buffer
		w := filter(value).NewWriter(&out)
		for _, part := range []string{strings.Repeat("x", c.pad), value, "behind " + value} {
			if _, err := w.Write([]byte(part)); err != nil {
				t.Fatal(err)
			}
		}
		if err := w.Close(); err != nil || w.Count() != c.want || !strings.HasSuffix(out.String(), "behind "+value) {
			t.Errorf("a value that ends %d bytes below the limit: %d found, %v", MaxBody-c.pad-len(value), w.Count(), err)
		}
	}
}

func TestWhatIsNoBeginningPassesAtOnce(t *testing.T) {
	var out bytes.Buffer
	w := filter("secret-value").NewWriter(&out)
	for _, step := range [][2]string{{"data: hello\n\n", "data: hello\n\n"}, {"a sec", "data: hello\n\na "}, {"ond\n", "data: hello\n\na second\n"}} {
		if _, err := w.Write([]byte(step[0])); err != nil || out.String() != step[1] {
			t.Errorf("behind %q: %q, %v", step[0], out.String(), err)
		}
	}
}

func TestTheLongerValueWins(t *testing.T) {
	f := New([]credentials.Echo{
		{Value: secret.New("password"), Placeholder: "SHORT", Bodies: true}, {Value: secret.New("password-and-more"), Placeholder: "LONG", Bodies: true},
	})
	got, n := whole(f, "a password-and-more b password c")
	if string(got) != "a LONG b SHORT c" || n != 2 {
		t.Errorf("%d: %s", n, got)
	}
	if text := fmt.Sprintf("%v %+v %#v %v", f, *f, f, f.NewWriter(nil)); strings.Contains(text, "password") || strings.Contains(text, "112 97 115") {
		t.Errorf("the filter prints %s", text)
	}
}

// FuzzWriter: however a body is split, the result is the one for the whole body, up
// to which of two overlapping values is found; a body without the value is unchanged.
func FuzzWriter(f *testing.F) {
	f.Add([]byte("x secret-value y"), "secret-value", uint8(3))
	f.Add([]byte("secretsecret-valu"), "secretse", uint8(1))
	f.Add([]byte("aaaaaaaaaaaaaaaaaaaa"), "aaaaaaaa", uint8(5))
	f.Add([]byte(base64.StdEncoding.EncodeToString([]byte("u:secret-value"))), "secret-value", uint8(2))
	f.Fuzz(func(t *testing.T, data []byte, value string, size uint8) {
		if len(value) > 100 || len(data) > 4096 || strings.Contains(mark, value) {
			return
		}
		filter := filter(value)
		var out bytes.Buffer
		w := filter.NewWriter(&out)
		for rest := data; len(rest) > 0; {
			n := min(max(1, int(size)), len(rest))
			if _, err := w.Write(rest[:n]); err != nil {
				t.Fatal(err)
			}
			rest = rest[n:]
		}
		if err := w.Close(); err != nil {
			t.Fatal(err)
		}
		_, n := whole(filter, string(data))
		if (n == 0) != (w.Count() == 0) || n == 0 && !bytes.Equal(out.Bytes(), data) {
			t.Fatalf("%q: %d found as a whole, %d in parts: %q", data, n, w.Count(), out.Bytes())
		}
	})
}

func BenchmarkWriter(b *testing.B) {
	body := []byte(strings.Repeat(`{"id":1,"name":"an ordinary answer, of some length","url":"https://api.example.com/x?y=1"},`, 400))
	f := filter("ghp_0123456789abcdefghijklmnopqrstuvwxyz")
	b.SetBytes(int64(len(body)))
	for b.Loop() {
		w := f.NewWriter(&discard{})
		if _, err := w.Write(body); err != nil || w.Close() != nil {
			b.Fatal(err)
		}
	}
}

type discard struct{}

func (*discard) Write(p []byte) (int, error) { return len(p), nil }

// TestAReaderYieldsWhatAWriterWrites in pieces of every size.
func TestAReaderYieldsWhatAWriterWrites(t *testing.T) {
	f := New([]credentials.Echo{{Value: secret.New("REALvalue12345"), Placeholder: "PH", Key: "KEY", Bodies: true}})
	text := "a REALvalue12345 b REALvalue1 c " + strings.Repeat("REALvalue12345", 3) + " REALvalue"
	want := strings.ReplaceAll(text, "REALvalue12345", "PH")
	for size := 1; size < len(text)+1; size++ {
		r := f.NewReader(http1.Fields{{Name: "Content-Type", Value: "text/plain"}}, iotest.DataErrReader(&limitedReads{text, size}))
		got, err := io.ReadAll(r)
		if err != nil || string(got) != want || r.Count() != 4 {
			t.Errorf("in pieces of %d: %q, %d, %v", size, got, r.Count(), err)
		}
	}
}

// TestTextIsCleanedOfEveryValueUpToALimit: whatever the key says of bodies.
func TestTextIsCleanedOfEveryValueUpToALimit(t *testing.T) {
	heads := New([]credentials.Echo{{Value: secret.New("REALvalue12345"), Placeholder: "PH", Key: "KEY"}})
	bodies := New([]credentials.Echo{{Value: secret.New("REALvalue12345"), Placeholder: "PH", Key: "KEY", Bodies: true}})
	const text = "a REALvalue12345"
	far := strings.Repeat("x", MaxSmall-len(text))
	for name, tc := range map[string]struct {
		f                    *Filter
		kind, length, coding string
		body                 string
		want                 string // "": it is not touched
	}{
		"at the limit":                        {heads, "application/json", fmt.Sprint(MaxSmall), "", far + text, far + "a PH"},
		"above it":                            {heads, "application/json", fmt.Sprint(MaxSmall + 1), "", far + "x" + text, ""},
		"above it, for bodies":                {bodies, "application/json", fmt.Sprint(MaxSmall + 1), "", far + "x" + text, far + "xa PH"},
		"no length, at the limit":             {heads, "application/json", "", "", far + text + text, far + "a PH" + text},
		"no length, above it":                 {heads, "application/json", "", "", far + "x" + text, far + "x" + text},
		"no length, for bodies":               {bodies, "text/event-stream", "", "", far + "x" + text, far + "xa PH"},
		"no text":                             {heads, "application/octet-stream", fmt.Sprint(MaxSmall), "", far + text, far + "a **************"},
		"no text, above the limit":            {heads, "application/octet-stream", fmt.Sprint(MaxSmall + 1), "", far + "x" + text, ""},
		"no text, without a length":           {heads, "image/png", "", "", far + text + text, far + "a **************" + text},
		"no text, for bodies":                 {bodies, "image/png", "", "", far + text + text, far + "a **************a **************"},
		"an HTTP message":                     {heads, "message/http", "20", "", text, "a PH"},
		"gzip":                                {heads, "application/json", "40", "gzip", coded("gzip", text), "a PH"},
		"gzip, small, of much":                {heads, "application/json", "2000", "gzip", coded("gzip", far+far+text), far + far + "a PH"},
		"gzip without a length":               {heads, "application/json", "", "GZIP", coded("gzip", far+text+text), far + "a PH" + text},
		"deflate":                             {heads, "application/json", "40", "deflate", coded("deflate", text), "a PH"},
		"deflate without the frame of zlib":   {heads, "application/json", "40", "deflate", coded("flate", text), "a PH"},
		"another coding":                      {heads, "application/json", "20", "br", text, ""},
		"two codings":                         {heads, "application/json", "40", "gzip, deflate", coded("gzip", text), ""},
		"nothing, which is in every coding":   {heads, "application/json", "", "gzip", "", "nothing"},
		"another value, which stays as it is": {heads, "text/plain", "30", "", "a REALvalue1234", "a REALvalue1234"},
	} {
		var fields http1.Fields
		for _, field := range []http1.Field{{Name: "Content-Type", Value: tc.kind}, {Name: "Content-Length", Value: tc.length}, {Name: "content-encoding", Value: tc.coding}} {
			if field.Value != "" {
				fields = append(fields, field)
			}
		}
		if got := tc.f.Treatment(fields); (got != Pass && got != Refuse) != (tc.want != "") {
			t.Errorf("%s: the treatment is %v", name, got)
			continue
		}
		if tc.want == "" {
			continue
		}
		for _, size := range []int{1, 100, 1 << 20} {
			if size == 1 && strings.Contains(tc.want, "*") {
				continue // covered from the fourth byte on: TestBinariesKeepTheirLength
			}
			out, err := io.ReadAll(tc.f.NewReader(fields, iotest.DataErrReader(&limitedReads{tc.body, size})))
			if err != nil || string(out) != strings.Replace(tc.want, "nothing", "", 1) {
				t.Errorf("%s, in pieces of %d: %d bytes that end with %q, %v", name, size, len(out), out[max(0, len(out)-40):], err)
			}
		}
		if _, n := Decoded(fields).Get("Content-Encoding"); n != 0 {
			t.Errorf("%s: the coding is named that was taken off", name)
		}
	}
}

// coded is a text in a coding.
func coded(coding, text string) string {
	var b bytes.Buffer
	var w io.WriteCloser
	switch coding {
	case "gzip":
		w = gzip.NewWriter(&b)
	case "deflate":
		w = zlib.NewWriter(&b)
	default:
		w, _ = flate.NewWriter(&b, flate.BestCompression)
	}
	_, _ = io.WriteString(w, text)
	_ = w.Close()
	return b.String()
}

// TestABrokenCodingIsNoShortBody: what cannot be inflated to its end does not look whole.
func TestABrokenCodingIsNoShortBody(t *testing.T) {
	body := coded("gzip", strings.Repeat("a REALvalue12345 ", 100))
	fields := http1.Fields{{Name: "Content-Type", Value: "text/plain"}, {Name: "Content-Encoding", Value: "gzip"}}
	for name, body := range map[string]string{"cut": body[:len(body)-9], "no gzip": "plain text", "something behind it": body + "REALvalue12345", "cut in its head": body[:5]} {
		out, err := io.ReadAll(filter("REALvalue12345").NewReader(fields, strings.NewReader(body)))
		if err == nil || strings.Contains(string(out), "REALvalue") {
			t.Errorf("%s: %q, %v", name, out, err)
		}
	}
}

// TestInflatedTextComesAsItIsSent: an origin that flushes is not waited for.
func TestInflatedTextComesAsItIsSent(t *testing.T) {
	r, w := io.Pipe()
	defer w.Close()
	go func() {
		z := gzip.NewWriter(w)
		_, _ = io.WriteString(z, "data: hello\n\n")
		_ = z.Flush() // and nothing follows
	}()
	fields := http1.Fields{{Name: "Content-Type", Value: "text/event-stream"}, {Name: "Content-Encoding", Value: "gzip"}}
	buf := make([]byte, 100)
	if n, err := io.ReadAtLeast(filter("REALvalue12345").NewReader(fields, r), buf, 13); err != nil || string(buf[:n]) != "data: hello\n\n" {
		t.Errorf("%q, %v", buf[:n], err)
	}
}

// TestMessagesAreCleaned in pieces of every size, of values that come to be known.
func TestMessagesAreCleaned(t *testing.T) {
	f := New([]credentials.Echo{{Value: secret.New("REALvalue12345"), Placeholder: "PH", Key: "KEY"}})
	for size := 1; size < 40; size++ {
		m := NewMessages(func() *Filter { return f })
		for _, tc := range [][2]string{{"a REALvalue12345 b", "a PH b"}, {"REALvalue", "REALvalue"}, {"12345", "12345"}, {"", ""}, {"REALvalue12345REALvalue12345", "PHPH"}} {
			got, found := "", 0
			for rest, last := tc[0], false; !last; {
				n := min(size, len(rest))
				last = n == len(rest)
				out, k := m.Next([]byte(rest[:n]), true, last)
				got, found, rest = got+string(out), found+k, rest[n:]
			}
			if got != tc[1] || found != strings.Count(tc[1], "PH") {
				t.Errorf("%q in pieces of %d: %q, %d", tc[0], size, got, found)
			}
		}
	}
	var now *Filter
	m := NewMessages(func() *Filter { return now })
	got := ""
	for i, piece := range []string{"REALvalue12345 ", "REALvalue12345 ", "REALvalue12345"} {
		out, _ := m.Next([]byte(piece), true, i == 2)
		got, now = got+string(out), f
	}
	if got != "REALvalue12345 PH PH" {
		t.Errorf("a value that comes to be known in the middle of a message: %q", got)
	}
	far := strings.Repeat("x", MaxSmall-len("REALvalue12345"))
	for pad, want := range map[string]int{far: 1, far + "x": 0} {
		if _, n := m.Next([]byte(pad+"REALvalue12345"), true, true); n != want {
			t.Errorf("behind %d bytes: %d found", len(pad), n)
		}
	}
}

type limitedReads struct {
	text string
	size int
}

func (l *limitedReads) Read(p []byte) (int, error) {
	if l.text == "" {
		return 0, io.EOF
	}
	n := copy(p, l.text[:min(l.size, len(l.text))])
	l.text = l.text[n:]
	return n, nil
}
