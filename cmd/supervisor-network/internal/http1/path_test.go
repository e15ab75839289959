package http1

import (
	"net/url"
	"strings"
	"testing"
	"unicode/utf8"
)

func TestCanonicalPath(t *testing.T) {
	for in, want := range map[string]string{
		"/": "/", "/a/b": "/a/b", "/a/./b": "/a/b", "/a/../b": "/b", "/../b": "", "/a//b": "/a/b", "//admin": "/admin", "/a//": "/a/", "//": "/",
		"/a/%2e%2e/b": "/b", "/a/.%2E/b": "/b", "/a;v=1/b": "/a/b", "/a/..;x/b": "/b", "/a/;/b": "/a/b", "/a%2Fb": "", "/a%2f..%2fb": "",
		"/%41": "/A", "/%7e": "/~", "/a%20b": "/a%20b", "/a%252e": "/a%252e", "/a%00": "", "/a%0a": "", "/a%7f": "", "/%c0%ae": "", "/%C3%A9": "/%C3%A9",
		"/a\\b": "", "/a%5cb": "/a%5Cb", "/..%5cb": "", "/a%3bx": "/a%3Bx", "/..%3bx/b": "", "/a/.%3b": "", "/a/%2e%2e%3Bx": "", "/a/x..%3b": "/a/x..%3B", "/a/...%3b": "/a/...%3B", "/a/..%253b": "/a/..%253b", "/a/.": "/a/", "/a/..": "/", "/a/": "/a/", "/.well-known/x": "/.well-known/x",
		"/...": "/...", "/a..b": "/a..b", "/a%zz": "", "/a%2": "", "/a%4z": "", "/a%z4": "", "/az09AZ": "/az09AZ", "/%61%7A%41%5a%30%39": "/azAZ09", "a": "", "": "", "*": "", "/a|b": "/a%7Cb", "/a%7cb": "/a%7Cb", "/[x]{y}": "/%5Bx%5D%7By%7D", "/\"<>^`": "/%22%3C%3E%5E%60", "/a|..": "/a%7C..", "/[]/..": "/", "/a#b": "", "/A/%2b": "/A/+", "/%2e": "/", "/%2e%2e": "", "/a/%2e%2e/%2e%2e": "",
	} {
		got, err := CanonicalPath(in, false)
		if got != want || (err != nil) != (want == "") {
			t.Errorf("%s: %q, %v, want %q", in, got, err, want)
		}
	}
	for in, want := range map[string]string{"/a%2fb": "/a%2Fb", "/a%2f..%2fb": "", "/a%2F%2e": "", "/a%2F;x": "/a%2F", "/%2f": "/%2F", "/a%2f.;x%2fb": "/a%2F."} {
		if got, err := CanonicalPath(in, true); got != want && !(want == "/a%2F." && err != nil) || (err != nil) != (want == "" || want == "/a%2F.") {
			t.Errorf("%s with slashes: %q, %v, want %q", in, got, err, want)
		}
	}
}

// What comes out stays as it is, decodes once to a path without dot segments, and
// has the same meaning as what went in.
func FuzzCanonicalPath(f *testing.F) {
	for _, s := range []string{"/a/../b", "/%2e%2e%2f", "/a;b/..;c/d", "//", "/%C3%A9/%25", "/a%2Fb/..", "/..%5c..%2f", "/.%2e/x", "/a|{}\"^`"} {
		f.Add(s, true)
		f.Add(s, false)
	}
	f.Fuzz(func(t *testing.T, in string, slash bool) {
		out, err := CanonicalPath(in, slash)
		if err != nil || strings.IndexFunc(in, notVisibleASCII) >= 0 {
			return
		}
		again, err := CanonicalPath(out, slash)
		if err != nil || again != out {
			t.Fatalf("%q became %q, and that %q (%v)", in, out, again, err)
		}
		decoded, err := url.PathUnescape(out)
		if err != nil || !utf8.ValidString(decoded) || strings.ContainsRune(decoded, 0) {
			t.Fatalf("%q became %q, which decodes to %q (%v)", in, out, decoded, err)
		}
		for part := range strings.FieldsFuncSeq(decoded, func(c rune) bool { return c == '/' || c == '\\' }) {
			if part, _, _ = strings.Cut(part, ";"); part == "." || part == ".." {
				t.Fatalf("%q became %q, which has a dot segment", in, out)
			}
		}
		if strings.ContainsAny(out, "\"<>[]^`{|}") {
			t.Fatalf("%q became %q, which has another spelling", in, out)
		}
		if strings.Contains(out, "//") || strings.Contains(out, ";") || !slash && strings.Contains(out, "%2F") {
			t.Fatalf("%q became %q", in, out)
		}
	})
}

// TestATunnelHasNoTunnelInside: an origin that answered a CONNECT would read what comes
// next on its connection, and from whom, as no request.
func TestATunnelHasNoTunnelInside(t *testing.T) {
	for _, method := range []string{"CONNECT", "connect"} {
		for _, target := range []string{"/a", "http://ok.test:8080/a"} {
			r := &Request{Method: method, Target: target, Minor: 1, Fields: Fields{{"Host", "ok.test:8080"}}}
			_, err := r.Origin("ok.test", 8080, 80, false)
			wantStatus(t, err, 403)
			_, err = r.OriginVerbatim("ok.test", 8080, 80)
			wantStatus(t, err, 403)
		}
		_, err := (&Request{Method: method, Target: "http://ok.test:8080/a"}).Absolute()
		wantStatus(t, err, 403)
	}
}

// TestAVerbatimPathKeepsItsSpelling: what CanonicalPath refuses or spells anew.
func TestAVerbatimPathKeepsItsSpelling(t *testing.T) {
	for _, c := range []struct {
		target string
		want   string // empty: refused
	}{
		{"/", "/"},
		{"/@scope%2fname", "/@scope%2fname"},
		{"/@scope%2Fname?a=%2f", "/@scope%2Fname?a=%2f"},
		{"/a//b/./c;v=1/../d%41", "/a//b/./c;v=1/../d%41"},
		{"//a", "//a"},
		{"/..", "/.."},
		{"/a%zz%", "/a%zz%"},
		{"http://ok.test:8080//a%2fb?", "//a%2fb?"},
		{"http://ok.test:8080?a", "/?a"},
		{"http://evil.test:8080/a", ""},
		{"", ""},
		{"a", ""},
		{"/a#b", ""},
		{"/a\x00", ""},
		{"/\u00e9", ""},
	} {
		r := &Request{Method: "GET", Target: c.target, Minor: 1, Fields: Fields{{"Host", "ok.test:8080"}}}
		got, err := r.OriginVerbatim("ok.test", 8080, 80)
		if sent := got.Path + got.Query; (err == nil) != (c.want != "") || sent != c.want {
			t.Errorf("%q: %q, %v, want %q", c.target, sent, err, c.want)
		}
	}
}
