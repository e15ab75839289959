package http1

import (
	"strings"
	"testing"
)

var label63 = strings.Repeat("a", 63)

// authorities are CONNECT targets; want is how they render, empty when refused.
var authorities = []struct{ rule, target, want string }{
	{"host and port", "ok.test:443", "ok.test:443"},
	{"upper case is lowered", "OK.Test:443", "ok.test:443"},
	{"the first and last of each kind", "AZ.az09.ZA:443", "az.az09.za:443"},
	{"a single label", "localhost:80", "localhost:80"},
	{"an underscore", "_dmarc.ok.test:80", "_dmarc.ok.test:80"},
	{"punycode", "xn--bcher-kva.test:80", "xn--bcher-kva.test:80"},
	{"port 1", "ok.test:1", "ok.test:1"},
	{"port 65535", "ok.test:65535", "ok.test:65535"},
	{"port 0", "ok.test:0", ""},
	{"port 65536", "ok.test:65536", ""},
	{"port +80", "ok.test:+80", ""},
	{"port -1", "ok.test:-1", ""},
	{"port 080", "ok.test:080", ""},
	{"port 0x50", "ok.test:0x50", ""},
	{"port 8_0", "ok.test:8_0", ""},
	{"no port", "ok.test", ""},
	{"an empty port", "ok.test:", ""},
	{"two ports", "ok.test:443:80", ""},
	{"a service name", "ok.test:https", ""},
	{"no host", ":443", ""},
	{"a path", "ok.test:443/", ""},
	{"a scheme", "http://ok.test:443", ""},
	{"userinfo", "user@ok.test:443", ""},
	{"userinfo with a port", "ok.test:443@evil.test:443", ""},
	{"a trailing dot", "ok.test.:443", ""},
	{"an empty label", "ok..test:443", ""},
	{"a leading dot", ".ok.test:443", ""},
	{"a label of 63", label63 + ".test:443", label63 + ".test:443"},
	{"a label of 64", label63 + "a.test:443", ""},
	{"a name of 253", strings.Repeat(label63+".", 3) + strings.Repeat("a", 61) + ":443", strings.Repeat(label63+".", 3) + strings.Repeat("a", 61) + ":443"},
	{"a name of 254", strings.Repeat(label63+".", 3) + strings.Repeat("a", 62) + ":443", ""},
	{"a leading hyphen", "-ok.test:443", ""},
	{"a trailing hyphen", "ok-.test:443", ""},
	{"an inner hyphen", "o-k.test:443", "o-k.test:443"},
	{"percent-encoding", "ok%2etest:443", ""},
	{"an encoded NUL", "ok%00.test:443", ""},
	{"a comma", "ok.test,evil.test:443", ""},
	{"IPv4", "192.0.2.1:443", "192.0.2.1:443"},
	{"IPv4 with a trailing dot", "192.0.2.1.:443", ""},
	{"IPv4 with octal", "0177.0.0.1:80", ""},
	{"IPv4 with a leading zero", "127.0.0.01:80", ""},
	{"IPv4 with hexadecimal", "0x7f.1:80", ""},
	{"IPv4 as one hexadecimal number", "0x7f000001:80", ""},
	{"IPv4 as one number", "2130706433:80", ""},
	{"IPv4 in two parts", "127.1:80", ""},
	{"zero", "0:80", ""},
	{"IPv4 in five parts", "1.2.3.4.5:80", ""},
	{"an octet of 256", "1.2.3.256:80", ""},
	{"a name that ends in 0x", "ok.0x:80", ""},
	{"a name that ends in a letter behind digits", "1.2.3.4a:80", "1.2.3.4a:80"},
	{"IPv4 in brackets", "[192.0.2.1]:443", ""},
	{"IPv6", "[2001:db8::1]:443", "[2001:db8::1]:443"},
	{"IPv6 is written canonically", "[2001:0DB8:0:0::0001]:443", "[2001:db8::1]:443"},
	{"IPv6 that carries IPv4", "[::ffff:192.0.2.1]:443", "[::ffff:192.0.2.1]:443"},
	{"IPv6 without brackets", "2001:db8::1:443", ""},
	{"IPv6 with a zone", "[fe80::1%eth0]:443", ""},
	{"IPv6 with an encoded zone", "[fe80::1%25eth0]:443", ""},
	{"IPv6 without port", "[::1]", ""},
	{"IPv6 with a port without colon", "[::1]443", ""},
	{"IPv6 with something between", "[::1]x:443", ""},
	{"an unclosed bracket", "[::1:443", ""},
	{"two brackets", "[[::1]]:443", ""},
	{"a name in brackets", "[evil.test]:443", ""},
	{"nothing in brackets", "[]:443", ""},
	{"IPvFuture", "[v1.a]:443", ""},
}

func TestConnectAuthority(t *testing.T) {
	for _, c := range authorities {
		t.Run(c.rule, func(t *testing.T) {
			r, err := ParseRequest([]byte("CONNECT " + c.target + " HTTP/1.1\r\nHost: " + c.target + "\r\n\r\n"))
			if err != nil {
				t.Fatal(err)
			}
			got, err := r.Authority()
			if c.want == "" {
				wantStatus(t, err, 400)
				if got != (Target{}) {
					t.Errorf("a refused target is %+v", got)
				}
				return
			}
			if err != nil || got.Authority(0) != c.want {
				t.Errorf("got %q, %v, want %q", got.Authority(0), err, c.want)
			}
		})
	}
}

func TestConnectRefusesPortZero(t *testing.T) {
	r := &Request{Method: "CONNECT", Target: "ok.test:0", Minor: 0}
	_, err := r.Authority()
	wantStatus(t, err, 400)
}

func TestHostFieldNamesTheTarget(t *testing.T) {
	for _, c := range []struct {
		rule, target, host  string
		connect, absoluteOK bool
	}{
		{"the same", "ok.test:443", "ok.test:443", true, true},
		{"another case", "ok.test:443", "OK.test:443", true, true},
		{"another host", "ok.test:443", "evil.test:443", false, false},
		{"another port", "ok.test:443", "ok.test:444", false, false},
		{"the port left out is the default", "ok.test:443", "ok.test", true, false},
		{"port 80 left out", "ok.test:80", "ok.test", true, true},
		{"an empty field", "ok.test:443", "", false, false},
		{"a Kelvin sign is no k", "ok.test:443", "o\u212a.test:443", false, false},
		{"a dotless i is no i", "i.test:443", "\u0131.test:443", false, false},
		{"a full-width dot is no dot", "ok.test:443", "ok\uff0etest:443", false, false},
		{"a trailing dot", "ok.test:443", "ok.test.:443", false, false},
		{"a list", "ok.test:443", "ok.test:443, evil.test:443", false, false},
		{"userinfo", "ok.test:443", "evil@ok.test:443", false, false},
		{"IPv6 in another spelling", "[::1]:443", "[0::1]:443", true, true},
		{"this proxy", "ok.test:443", "127.0.0.1:3128", true, true},
		{"this proxy, in IPv6", "ok.test:443", "[::1]:3128", true, true},
		{"this proxy, by its name", "ok.test:443", "LocalHost:3128", true, true},
		{"no proxy, but a name that begins like it", "ok.test:443", "localhost.evil.test:3128", false, false},
		{"no proxy, but a number that one could read like it", "ok.test:443", "127.1:3128", false, false},
		{"another address", "ok.test:443", "128.0.0.1:3128", false, false},
	} {
		t.Run(c.rule, func(t *testing.T) {
			for _, form := range []struct {
				target string
				want   bool
				parse  func(*Request) (Target, error)
			}{{c.target, c.connect, (*Request).Authority}, {"http://" + c.target + "/", c.absoluteOK, (*Request).Absolute}} {
				got, err := form.parse(&Request{Target: form.target, Minor: 1, Fields: Fields{{"Host", c.host}}})
				if (err == nil) != form.want {
					t.Errorf("%s with Host %q: %v", form.target, c.host, err)
				}
				if err != nil && got != (Target{}) {
					t.Errorf("a refused target is %+v", got)
				}
			}
		})
	}
}

func TestConnectHasNoBody(t *testing.T) {
	for fields, status := range map[string]int{
		"":                               0,
		"Content-Length: 0\r\n":          0,
		"Content-Length: 1\r\n":          400,
		"Transfer-Encoding: chunked\r\n": 400,
	} {
		r, err := ParseRequest([]byte("CONNECT ok.test:443 HTTP/1.1\r\nHost: ok.test:443\r\n" + fields + "\r\n"))
		if err != nil {
			t.Fatal(err)
		}
		_, err = r.Authority()
		wantStatus(t, err, status)
	}
}

var absolutes = []struct {
	rule, target string
	want         Target // zero: refused
}{
	{"the default port", "http://ok.test/a", Target{"ok.test", 80, "/a", ""}},
	{"an own port", "http://ok.test:8080/a", Target{"ok.test", 8080, "/a", ""}},
	{"scheme and host in upper case", "HTTP://OK.test/A", Target{"ok.test", 80, "/A", ""}},
	{"no path", "http://ok.test", Target{"ok.test", 80, "/", ""}},
	{"a query without path", "http://ok.test?a=b", Target{"ok.test", 80, "/", "?a=b"}},
	{"a query", "http://ok.test/a?b=c?d", Target{"ok.test", 80, "/a", "?b=c?d"}},
	{"an empty query", "http://ok.test/?", Target{"ok.test", 80, "/", "?"}},
	{"a second scheme in the query", "http://ok.test/?u=http://evil.test/", Target{"ok.test", 80, "/", "?u=http://evil.test/"}},
	{"a query is not judged", `http://ok.test/?q=100%&p=\`, Target{"ok.test", 80, "/", `?q=100%&p=\`}},
	{"escapes in a path stay", "http://ok.test/%41%2f", Target{"ok.test", 80, "/%41%2f", ""}},
	{"a broken escape in a path", "http://ok.test/%4", Target{}},
	{"a broken escape before a query", "http://ok.test/%4?1", Target{}},
	{"an escape that is not hexadecimal", "http://ok.test/%zz", Target{}},
	{"an escape that is half hexadecimal", "http://ok.test/%4z", Target{}},
	{"an escape whose second half is", "http://ok.test/%z4", Target{}},
	{"the edges of hexadecimal", "http://ok.test/%09%af%AF", Target{"ok.test", 80, "/%09%af%AF", ""}},
	{"an escape just beside them", "http://ok.test/%4g", Target{}},
	{"a backslash in a path", `http://ok.test/\evil`, Target{}},
	{"a backslash in the authority", `http://ok.test\@evil.test/`, Target{}},
	{"a fragment", "http://ok.test/#a", Target{}},
	{"a fragment behind the query", "http://ok.test/?a#b", Target{}},
	{"a fragment without path", "http://ok.test#@evil.test/", Target{}},
	{"userinfo", "http://user:pass@ok.test/", Target{}},
	{"userinfo that looks like a host", "http://ok.test:80@evil.test/", Target{}},
	{"an at sign in the path", "http://ok.test/@evil.test", Target{"ok.test", 80, "/@evil.test", ""}},
	{"IPv6", "http://[2001:db8::1]:81/", Target{"2001:db8::1", 81, "/", ""}},
	{"port 0", "http://ok.test:0/", Target{}},
	{"port 65536", "http://ok.test:65536/", Target{}},
	{"an empty port", "http://ok.test:/", Target{}},
	{"no host", "http:///a", Target{}},
	{"https", "https://ok.test/", Target{}},
	{"ftp", "ftp://ok.test/", Target{}},
	{"origin form", "/a", Target{}},
	{"origin form with a scheme inside", "/http://ok.test/", Target{}},
	{"asterisk form", "*", Target{}},
	{"authority form", "ok.test:80", Target{}},
	{"one slash", "http:/ok.test/", Target{}},
}

func TestAbsoluteTarget(t *testing.T) {
	for _, c := range absolutes {
		t.Run(c.rule, func(t *testing.T) {
			got, err := (&Request{Method: "GET", Target: c.target}).Absolute()
			if got != c.want {
				t.Errorf("got %+v, want %+v", got, c.want)
			}
			if c.want == (Target{}) {
				wantStatus(t, err, 400)
			} else if err != nil {
				t.Error(err)
			}
		})
	}
}

func TestAuthorityLeavesOutOnlyTheDefaultPort(t *testing.T) {
	for want, target := range map[string]Target{
		"ok.test":    {Host: "ok.test", Port: 80},
		"ok.test:81": {Host: "ok.test", Port: 81},
		"[::1]":      {Host: "::1", Port: 80},
		"[::1]:443":  {Host: "::1", Port: 443},
	} {
		if got := target.Authority(80); got != want {
			t.Errorf("got %q, want %q", got, want)
		}
	}
}
