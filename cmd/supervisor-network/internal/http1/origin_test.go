package http1

import (
	"errors"
	"testing"
)

// originTargets are targets inside a tunnel to ok.test, whose Host fields name it.
var originTargets = []struct {
	rule, target string
	want         Target // zero: refused
	status       int
}{
	{"a path", "/a/./b?c=/../d", Target{"ok.test", 443, "/a/b", "?c=/../d"}, 0},
	{"an empty query", "/a?", Target{"ok.test", 443, "/a", "?"}, 0},
	{"the root", "/", Target{"ok.test", 443, "/", ""}, 0},
	{"absolute", "https://ok.test/a", Target{"ok.test", 443, "/a", ""}, 0},
	{"absolute, in another case", "HTTPS://OK.test/a", Target{"ok.test", 443, "/a", ""}, 0},
	{"absolute, with the port", "https://ok.test:443/a", Target{"ok.test", 443, "/a", ""}, 0},
	{"absolute, as http", "http://ok.test/a", Target{"ok.test", 443, "/a", ""}, 0},
	{"absolute, without a path", "https://ok.test", Target{"ok.test", 443, "/", ""}, 0},
	{"absolute, a query without a path", "https://ok.test?a", Target{"ok.test", 443, "/", "?a"}, 0},
	{"absolute, another host", "https://evil.test/a", Target{}, 403},
	{"absolute, another port", "https://ok.test:444/a", Target{}, 403},
	{"absolute, a host that begins alike", "https://ok.test.evil.test/a", Target{}, 403},
	{"absolute, userinfo", "https://ok.test@evil.test/a", Target{}, 400},
	{"absolute, userinfo with the host", "https://a@ok.test/a", Target{}, 400},
	{"absolute, no host", "https:///a", Target{}, 400},
	{"absolute, a fragment without a path", "https://ok.test#a", Target{}, 400},
	{"another scheme", "ftp://ok.test/a", Target{}, 400},
	{"no scheme", "ok.test/a", Target{}, 400},
	{"authority form", "ok.test:443", Target{}, 400},
	{"the asterisk", "*", Target{}, 400},
	{"a fragment", "/a#b", Target{}, 400},
	{"a fragment behind a query", "/a?b#c", Target{}, 400},
	{"dots above the root", "/../a", Target{}, 400},
}

// TestATargetInATunnelIsTheTunnels: by whatever form, and in agreement with its Host.
func TestATargetInATunnelIsTheTunnels(t *testing.T) {
	for _, c := range originTargets {
		r := &Request{Method: "GET", Target: c.target, Minor: 1, Fields: Fields{{"Host", "ok.test"}}}
		got, err := r.Origin("ok.test", 443, 443, false)
		if got != c.want || status(err) != c.status {
			t.Errorf("%s: %+v, %v, want %+v or %d", c.rule, got, err, c.want, c.status)
		}
	}
	for host, want := range map[string]int{
		"ok.test": 0, "OK.test": 0, "ok.test:443": 0, "ok.test:444": 403, "ok.test:80": 403, "evil.test": 403, "evil.test:443": 403, "ok.test.evil.test": 403,
		"": 400, "a@ok.test": 400, "ok.test:": 400, "ok.test, evil.test": 400, "ok.test.": 400, "ok.test:0443": 400,
	} {
		r := &Request{Method: "GET", Target: "/", Minor: 1, Fields: Fields{{"Host", host}}}
		if _, err := r.Origin("ok.test", 443, 443, false); status(err) != want {
			t.Errorf("Host %q: %v, want %d", host, err, want)
		}
	}
	for name, r := range map[string]struct {
		host       string
		port, want uint16
	}{"the port is left out": {"ok.test", 8443, 403}, "it is there": {"ok.test:8443", 8443, 0}, "an address, its port left out": {"2001:db8::1", 443, 400}} {
		req := &Request{Method: "GET", Target: "/", Minor: 1, Fields: Fields{{"Host", r.host}}}
		if _, err := req.Origin(map[bool]string{true: "ok.test", false: "2001:db8::1"}[r.want != 400], r.port, 443, false); status(err) != int(r.want) {
			t.Errorf("%s: %v, want %d", name, err, r.want)
		}
	}
	if got, err := (&Request{Method: "GET", Target: "/"}).Origin("ok.test", 443, 443, false); err != nil || got.Host != "ok.test" {
		t.Errorf("HTTP/1.0 without a Host: %+v, %v", got, err)
	}
	for target, slash := range map[string]bool{"/a%2Fb": true, "/a%2fb": false} {
		if _, err := (&Request{Method: "GET", Target: target}).Origin("ok.test", 443, 443, slash); (err == nil) != slash {
			t.Errorf("%s: %v", target, err)
		}
	}
}

// TestAPathThatNoRuleReadsIsTakenAsItIs, but in no other form and to no other host.
func TestAPathThatNoRuleReadsIsTakenAsItIs(t *testing.T) {
	for target, want := range map[string]string{
		"/a//b/./c;v=1/%2f%zz\\": "/a//b/./c;v=1/%2f%zz\\", "//a": "//a", "https://ok.test//a": "//a", "/!~": "/!~",
		"/a#b": "", "/\x7f": "", "/\u00e9": "", "/ ": "", "a": "", "*": "", "https://evil.test/a": "",
	} {
		got, err := (&Request{Method: "GET", Target: target, Minor: 1, Fields: Fields{{"Host", "ok.test"}}}).OriginVerbatim("ok.test", 443, 443)
		if got.Path != want || (err == nil) != (want != "") {
			t.Errorf("%q: %+v, %v", target, got, err)
		}
	}
}

func TestAnAuthorityIsHostAndPort(t *testing.T) {
	for authority, want := range map[string]bool{
		"ok.test": true, "OK.test:443": true, "ok.test:444": false, "evil.test": false, "evil.test:443": false, "ok.test.": false, "": false, "a@ok.test": false, "[::1]": false,
	} {
		if got := SameAuthority(authority, "ok.test", 443, 443); got != want {
			t.Errorf("%q: %v", authority, got)
		}
	}
}

// status is what a refusal is answered with; 0: it is none.
func status(err error) int {
	if e, ok := errors.AsType[*SyntaxError](err); ok {
		return e.Status
	}
	if err != nil {
		return -1
	}
	return 0
}
