package e2e_test

import (
	"bytes"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"os/exec"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/net/http2/hpack"

	"github.com/splitpod/splitpod/test/world"

	"github.com/splitpod/splitpod/test/need"
)

// TestNamesThatHideAnother (B1 to B10): what stands in a CONNECT or an absolute target
// is one name, read once, judged before anybody is asked for its address.
func TestNamesThatHideAnother(t *testing.T) {
	a := newSiege(t)
	bad := []string{
		"evil.test\x00.api.demo.test", "api.demo.test\x00", "api.demo.test\r", "api.demo.test\n", "api.demo.test\r\nX: y", "api.demo.test\t", "api.demo.test ", "api.demo.test%00", "api.demo.test%0d%0a",
		"api%2edemo.test", "[evil.test]", "[[evil.test]]", "[evil.test", "evil.test]", "api.demo.test@evil.test", "u:p@api.demo.test", "api。demo。test", "ⓐpi.demo.test", "аpi.demo.test",
		"api.demo.test\xff", "0x7f.1", "0177.0.0.1", "127.1", "0", "2130706433", "1.2.3.4.5", "1.2.3.4.", "256.1.1.1", "fe80::1%25eth0", "[fe80::1%25eth0]", "[::1", "::1", ".api.demo.test", "api..demo.test", "api.demo.test.", "api.demo.test..",
		"-api.demo.test-.", strings.Repeat("a", 64) + ".demo.test", strings.Repeat("a.", 130) + "test", "", "*", "*.demo.test", "api.demo.test/", "api.demo.test#", "api.demo.test?", "api.demo.test\\",
	}
	for _, host := range bad {
		t.Run(fmt.Sprintf("B1-B7 %.30q", host), func(t *testing.T) {
			for _, text := range []string{
				"CONNECT " + host + ":7002 HTTP/1.1\r\nHost: " + host + ":7002\r\n\r\n",
				"GET http://" + host + ":7001/ok/a HTTP/1.1\r\nHost: " + host + ":7001\r\n\r\n",
			} {
				got := a.say(t, absolute, text)
				if len(got) != 1 || got[0].status/100 != 4 && got[0].status != 505 || got[0].reason == "" || got[0].status == 404 {
					t.Errorf("answers %+v to %q", got, text)
					continue
				}
				a.oracle(t, nil, got[0].reason)
			}
		})
	}
	for _, host := range []string{
		"evil.test", "API.demo.test.evil.test", "xn--pi-7kc.demo.test", "0.0.0.0", "127.0.0.1", "169.254.169.254", "[::]", "[::1]", "[::ffff:169.254.169.254]", "[::169.254.169.254]",
		"[64:ff9b::a9fe:a9fe]", "[64:ff9b:1::a9fe:a9fe]", "[2002:a9fe:a9fe::]", "[2001:0:1::1]", "[fe80::1]", "localhost", "metadata.google.internal", "kubernetes.default.svc", "policy.local", "inference.local",
	} {
		t.Run("B8, A29 "+host, func(t *testing.T) {
			got := a.say(t, absolute, "CONNECT "+host+":7002 HTTP/1.1\r\nHost: "+host+":7002\r\n\r\n")
			if len(got) != 1 || got[0].status != 403 || got[0].reason != "policy_denied" {
				t.Errorf("answers %+v", got)
			}
			a.oracle(t, nil, "policy_denied")
		})
	}
	a.settled(t)
}

// TestAnAllowedNameIsNoWayToAForbiddenAddress (B7, B8, B40): addresses that the
// policy's author allows by name. Most of them are no policy at all.
func TestAnAllowedNameIsNoWayToAForbiddenAddress(t *testing.T) {
	policy := func(host string) string {
		return fmt.Sprintf("version: 1\n"+who+"network_policies:\n  trap:\n    endpoints: [{host: %q, port: 443}]\n    binaries: [{path: /usr/bin/curl}]\n", host)
	}
	for _, host := range []string{"127.0.0.1", "0.0.0.0", "169.254.169.254", "::", "::1", "::ffff:169.254.169.254", "::169.254.169.254", "fe80::1", "127.1", "0x7f.0.0.1", "2130706433"} {
		if code, _, errs := command(t, "supervisor-network", "policy", "check", policyFile(t, policy(host))); code != 78 || !strings.Contains(errs, host) {
			t.Errorf("a policy that allows %s: exit code %d, %q", host, code, errs)
		}
	}
	for _, host := range []string{"64:ff9b::a9fe:a9fe", "64:ff9b:1::a9fe:a9fe", "2002:a9fe:a9fe::", "2001:0:1::1", "::a9fe:a9fe", "loop.demo.test", "metadata.demo.test", "mixed.demo.test"} {
		code, _, errs := command(t, "supervisor-network", "policy", "check", policyFile(t, policy(host)))
		if code != 0 {
			continue
		}
		t.Run(host, func(t *testing.T) {
			standalone(t, policy(host))
			if strings.Contains(host, ":") {
				host = "[" + host + "]"
			}
			out := talk(t, "CONNECT "+host+":443 HTTP/1.1\r\nHost: "+host+":443\r\n\r\n")
			if !strings.HasPrefix(out, "HTTP/1.1 403 ") || !strings.Contains(out, `"ssrf_denied"`) {
				t.Errorf("%q; %s", out, errs)
			}
		})
	}
}

// TestARequestNamesItsTunnelsHost (B10, B12, rows 43 to 45).
func TestARequestNamesItsTunnelsHost(t *testing.T) {
	a := newSiege(t)
	for name, tc := range map[string]struct {
		text    string
		answers []int
		reason  string
		arrives []string
	}{
		"B12 another host":                     {"GET /ok/a HTTP/1.1\r\nHost: other.demo.test:7009\r\n\r\n", []int{403}, "request_authority_mismatch", nil},
		"B12 an allowed host that is another":  {"GET /ok/a HTTP/1.1\r\nHost: git.demo.test:{port}\r\n\r\n", []int{403}, "request_authority_mismatch", nil},
		"B12 another port":                     {"GET /ok/a HTTP/1.1\r\nHost: api.demo.test:7009\r\n\r\n", []int{403}, "request_authority_mismatch", nil},
		"B12 no port":                          {"GET /ok/a HTTP/1.1\r\nHost: api.demo.test\r\n\r\n", []int{403}, "request_authority_mismatch", nil},
		"B12 a suffix":                         {"GET /ok/a HTTP/1.1\r\nHost: {host}.evil.test\r\n\r\n", []int{400}, "bad_request", nil},
		"B12 the second request":               {"GET /ok/a HTTP/1.1\r\nHost: {host}\r\n\r\nGET /ok/b HTTP/1.1\r\nHost: other.demo.test:7009\r\n\r\n", []int{200, 403}, "request_authority_mismatch", []string{"GET /ok/a"}},
		"row 45 absolute form, another host":   {"GET http://other.demo.test:7009/ok/a HTTP/1.1\r\nHost: {host}\r\n\r\n", []int{403}, "request_authority_mismatch", nil},
		"row 45 absolute form, the other Host": {"GET http://{host}/ok/a HTTP/1.1\r\nHost: other.demo.test:7009\r\n\r\n", []int{403}, "request_authority_mismatch", nil},
		"B12 case does not matter":             {"GET /ok/a HTTP/1.1\r\nHost: API.Demo.Test:{port}\r\n\r\n", []int{200}, "", []string{"GET /ok/a"}},
		"B19 CONNECT inside":                   {"CONNECT other.demo.test:7009 HTTP/1.1\r\nHost: other.demo.test:7009\r\n\r\n", []int{400}, "invalid_request_target", nil},
		"B19 CONNECT to oneself":               {"CONNECT {host} HTTP/1.1\r\nHost: {host}\r\n\r\n", []int{400}, "invalid_request_target", nil},
		"B46 a path like a proxy's target":     {"GET /ok/http://169.254.169.254/ HTTP/1.1\r\nHost: {host}\r\n\r\n", []int{200}, "", []string{"GET /ok/http:/169.254.169.254/"}},
		"HTTP/1.0 without Host":                {"GET /ok/a HTTP/1.0\r\n\r\n", []int{200}, "", []string{"GET /ok/a"}},
	} {
		t.Run(name, func(t *testing.T) {
			for _, e := range []entry{inTunnel, inTLS} {
				a.smuggle(t, e, smuggled{tc.text, tc.answers, tc.reason, tc.arrives})
			}
		})
	}
	t.Run("B10 the CONNECT names two hosts", func(t *testing.T) {
		got := a.say(t, absolute, "CONNECT api.demo.test:7002 HTTP/1.1\r\nHost: evil.test:7002\r\n\r\n")
		if len(got) != 1 || got[0].status != 400 {
			t.Errorf("answers %+v", got)
		}
		a.oracle(t, nil, "bad_request")
	})
	t.Run("B10 absolute form names two hosts", func(t *testing.T) {
		got := a.say(t, absolute, "GET {abs}/ok/a HTTP/1.1\r\nHost: other.demo.test:7009\r\n\r\n")
		if len(got) != 1 || got[0].status/100 != 4 {
			t.Errorf("answers %+v", got)
			return
		}
		a.oracle(t, nil, got[0].reason)
	})
	t.Run("B26 another origin on the same connection", func(t *testing.T) {
		a.smuggle(t, absolute, smuggled{"GET {abs}/ok/a HTTP/1.1\r\nHost: {host}\r\n\r\nGET http://other.demo.test:7009/ HTTP/1.1\r\nHost: other.demo.test:7009\r\n\r\nGET {abs}/ok/a HTTP/1.1\r\nHost: {host}\r\n\r\n",
			[]int{200, 403}, "policy_denied", []string{"GET /ok/a"}})
	})
	a.settled(t)
}

// TestTLSNamesTheTunnelsHost (B11, B13, B14, B43).
func TestTLSNamesTheTunnelsHost(t *testing.T) {
	a := newSiege(t)
	shake := func(t *testing.T, config *tls.Config, through func(net.Conn) net.Conn) error {
		c, _ := connect(t, "api.demo.test:7002")
		config.RootCAs = a.roots
		tc := tls.Client(through(c), config)
		if err := tc.Handshake(); err != nil {
			return err
		}
		_, err := io.WriteString(tc, "GET /ok/a HTTP/1.1\r\nHost: api.demo.test:7002\r\nConnection: close\r\n\r\n")
		must(t, err)
		if out, _ := io.ReadAll(tc); !strings.HasPrefix(string(out), "HTTP/1.1 200 ") {
			return fmt.Errorf("answer %q", out)
		}
		return nil
	}
	same := func(c net.Conn) net.Conn { return c }
	accept := func(*tls.Config) {}
	for name, tc := range map[string]struct {
		change  func(*tls.Config)
		through func(net.Conn) net.Conn
		allowed bool
	}{
		"the host":                         {accept, same, true},
		"B11 another host":                 {func(c *tls.Config) { c.ServerName = "evil.test" }, same, false},
		"B11 an allowed host, but another": {func(c *tls.Config) { c.ServerName = "git.demo.test" }, same, false},
		"B13 no name":                      {func(c *tls.Config) { c.ServerName, c.InsecureSkipVerify = "", true }, same, false},
		"B13 an address":                   {func(c *tls.Config) { c.ServerName, c.InsecureSkipVerify = world.Address, true }, same, false},
		"B14 one byte at a time":           {accept, func(c net.Conn) net.Conn { return byteWise{c} }, true},
		"B14 a hello in records of a byte": {accept, func(c net.Conn) net.Conn { return &splitHello{Conn: c} }, true},
		"B43 TLS 1.1":                      {func(c *tls.Config) { c.MinVersion, c.MaxVersion = tls.VersionTLS10, tls.VersionTLS11 }, same, false},
		"TLS 1.2":                          {func(c *tls.Config) { c.MaxVersion = tls.VersionTLS12 }, same, true},
		"B43 an export suite only": {func(c *tls.Config) {
			c.MaxVersion, c.CipherSuites = tls.VersionTLS12, []uint16{tls.TLS_RSA_WITH_RC4_128_SHA}
		}, same, false},
		"a protocol that is not served":     {func(c *tls.Config) { c.NextProtos = []string{"imap"} }, same, false},
		"B14 a hello of post-quantum sizes": {func(c *tls.Config) { c.CurvePreferences = []tls.CurveID{tls.X25519MLKEM768, tls.X25519} }, same, true},
	} {
		t.Run(name, func(t *testing.T) {
			config := &tls.Config{ServerName: "api.demo.test"}
			tc.change(config)
			err := shake(t, config, tc.through)
			if (err == nil) != tc.allowed {
				t.Errorf("handshake and request: %v", err)
			}
			if tc.allowed {
				a.oracle(t, []string{"GET /ok/a"}, "")
				return
			}
			found := a.denials(t, 1)
			if len(found) != 1 || found[0].Unmapped.Stage != "tls" {
				t.Errorf("records %+v, want one of the TLS stage", found)
			}
			a.oracle(t, nil, "")
		})
	}
	t.Run("B14 a hello above 16 KiB", func(t *testing.T) {
		c, _ := connect(t, "api.demo.test:7002")
		body := append([]byte{1, 1, 0, 0}, make([]byte, 65536)...)
		for i := 0; i < len(body); i += 16000 {
			part := body[i:min(len(body), i+16000)]
			_, _ = c.Write(append([]byte{0x16, 3, 1, byte(len(part) >> 8), byte(len(part))}, part...)) // it may hang up half-way
		}
		_ = c.CloseWrite()
		_, _ = io.ReadAll(c)
		if found := a.denials(t, 1); len(found) != 1 || found[0].Unmapped.Stage != "tls" {
			t.Errorf("records %+v", found)
		}
		a.oracle(t, nil, "")
	})
	a.settled(t)
}

// byteWise writes every byte in a segment of its own.
type byteWise struct{ net.Conn }

func (c byteWise) Write(p []byte) (int, error) {
	for i := range p {
		if _, err := c.Conn.Write(p[i : i+1]); err != nil {
			return i, err
		}
	}
	return len(p), nil
}

// splitHello cuts the first record into records of one byte of content.
type splitHello struct {
	net.Conn
	done bool
}

func (c *splitHello) Write(p []byte) (int, error) {
	if c.done {
		return c.Conn.Write(p)
	}
	c.done = true
	var out bytes.Buffer
	for _, b := range p[5 : 5+int(p[3])<<8+int(p[4])] {
		out.Write([]byte{p[0], p[1], p[2], 0, 1, b})
	}
	_, err := c.Conn.Write(out.Bytes())
	return len(p), err
}

// TestProtocolsThatAreNotInspected (B16, B17, rows 25 to 27): what cannot be read is
// refused in HTTP, and not a byte of it arrives.
func TestProtocolsThatAreNotInspected(t *testing.T) {
	a := newSiege(t)
	upgrade := "Connection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AAMAAABkAAQAAP__\r\n\r\n"
	for name, tc := range map[string]struct {
		text    string
		entries []entry
	}{
		"B16 the preface of HTTP/2":      {"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\x00\x00\x00\x04\x00\x00\x00\x00\x00", []entry{inTunnel}},
		"row 26 bytes of another kind":   {"\x00\x01\x02\x03 not HTTP", []entry{inTunnel}},
		"row 26 SSH":                     {"SSH-2.0-OpenSSH_9.2\r\n", []entry{inTunnel}},
		"B17 an upgrade to h2c":          {"GET {abs}/ok/a HTTP/1.1\r\nHost: {host}\r\n" + upgrade, http1Entries},
		"B17 in a list of upgrades":      {"GET {abs}/ok/a HTTP/1.1\r\nHost: {host}\r\nConnection: upgrade\r\nUpgrade: websocket, h2c\r\n\r\n", http1Entries},
		"B17 in another case":            {"GET {abs}/ok/a HTTP/1.1\r\nHost: {host}\r\nConnection: upgrade\r\nUpgrade: H2C\r\n\r\n", http1Entries},
		"B16 the preface behind a first": {"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", []entry{inTLS}},
	} {
		t.Run(name, func(t *testing.T) {
			for _, e := range tc.entries {
				got := a.say(t, e, tc.text)
				reason := "unsupported_l7_protocol"
				if e == inTLS && strings.HasPrefix(tc.text, "PRI") {
					reason = "bad_request"
				}
				if len(got) != 1 || got[0].status/100 == 2 || got[0].reason != reason {
					t.Errorf("%s: answers %+v", e, got)
				}
				a.oracle(t, nil, reason)
			}
		})
	}
	t.Run("B16 curl, which knows that the origin speaks HTTP/2", func(t *testing.T) {
		out, err := exec.Command(need.Program(t, "curl"), "-sS", "--max-time", "120", "--http2-prior-knowledge", "--proxytunnel", "-x", "http://"+standaloneAddress, "http://api.demo.test:7001/ok/a").CombinedOutput()
		if err == nil {
			t.Errorf("curl says %q", out)
		}
		a.oracle(t, nil, "unsupported_l7_protocol")
	})
	t.Run("row 25 first bytes in pieces", func(t *testing.T) {
		c := a.open(t, inTunnel)
		for _, part := range []string{"G", "E", "T /denied HTTP/1.1\r\nHost: api.demo.test:7001\r\n\r\n"} {
			_, err := io.WriteString(c, part)
			must(t, err)
			time.Sleep(10 * time.Millisecond) // the case is about pauses
		}
		out, _ := io.ReadAll(c)
		if !strings.HasPrefix(string(out), "HTTP/1.1 403 ") {
			t.Errorf("got %q", out)
		}
		a.oracle(t, nil, "policy_denied")
	})
	a.settled(t)
}

// TestStreamsAreJudgedOneByOne (B20).
func TestStreamsAreJudgedOneByOne(t *testing.T) {
	a := newSiege(t)
	type fields = []hpack.HeaderField
	pseudo := func(method, authority, path string) fields {
		return fields{{Name: ":method", Value: method}, {Name: ":scheme", Value: "https"}, {Name: ":authority", Value: authority}, {Name: ":path", Value: path}}
	}
	get := func(more ...hpack.HeaderField) fields {
		return append(pseudo("GET", "api.demo.test:7002", "/ok/a"), more...)
	}
	for name, tc := range map[string]struct {
		fields fields
		reason string // of the record, and of the answer unless the body is what is wrong
		body   string
	}{
		"allowed":                          {get(), "", ""},
		"B20 coalescing, a denied host":    {pseudo("GET", "other.demo.test:7009", "/ok/a"), "request_authority_mismatch", ""},
		"B20 coalescing, an allowed host":  {pseudo("GET", "git.demo.test:7002", "/ok/a"), "request_authority_mismatch", ""},
		"B20 another port":                 {pseudo("GET", "api.demo.test:7009", "/ok/a"), "request_authority_mismatch", ""},
		"B20 :authority is not host":       {get(hpack.HeaderField{Name: "host", Value: "other.demo.test:7009"}), "bad_request", ""},
		"B20 two paths":                    {get(hpack.HeaderField{Name: ":path", Value: "/denied"}), "bad_request", ""},
		"B20 upper case in a name":         {get(hpack.HeaderField{Name: "X-Upper", Value: "a"}), "bad_request", ""},
		"B20 a path without a slash":       {pseudo("GET", "api.demo.test:7002", "ok/a"), "invalid_request_target", ""},
		"B20 an empty path":                {pseudo("GET", "api.demo.test:7002", ""), "bad_request", ""},
		"B20 no method":                    {get()[1:], "bad_request", ""},
		"B20 an unknown pseudo-field":      {append(fields{{Name: ":protocolx", Value: "a"}}, get()...), "bad_request", ""},
		"B20 a pseudo-field behind others": {append(fields{{Name: "a", Value: "b"}}, get()...), "bad_request", ""},
		"B20 a line feed in a value":       {get(hpack.HeaderField{Name: "x", Value: "a\r\ny: b"}), "bad_request", ""},
		"B20 transfer-encoding":            {get(hpack.HeaderField{Name: "transfer-encoding", Value: "chunked"}), "bad_request", ""},
		"B20 connection":                   {get(hpack.HeaderField{Name: "connection", Value: "close"}), "bad_request", ""},
		"B17 an upgrade":                   {get(hpack.HeaderField{Name: "upgrade", Value: "h2c"}), "bad_request", ""},
		"B20 a length that is not true":    {append(pseudo("POST", "api.demo.test:7002", "/ok/a"), hpack.HeaderField{Name: "content-length", Value: "1"}), "client_closed", "abc"},
		"B20 scheme http":                  {append(fields{{Name: ":method", Value: "GET"}, {Name: ":scheme", Value: "http"}}, get()[2:]...), "bad_request", ""},
		"B19 CONNECT":                      {fields{{Name: ":method", Value: "CONNECT"}, {Name: ":authority", Value: "other.demo.test:7009"}}, "unsupported_l7_protocol", ""},
		"B19 extended CONNECT":             {append(fields{{Name: ":protocol", Value: "websocket"}}, pseudo("CONNECT", "api.demo.test:7002", "/ok/a")...), "bad_request", ""},
		"B19 connect-udp":                  {append(fields{{Name: ":protocol", Value: "connect-udp"}}, pseudo("CONNECT", "api.demo.test:7002", "/.well-known/masque/udp/10.0.0.1/53/")...), "unsupported_l7_protocol", ""},
		"B19 connect-ip":                   {append(fields{{Name: ":protocol", Value: "connect-ip"}}, pseudo("CONNECT", "api.demo.test:7002", "/.well-known/masque/ip/*/*/")...), "unsupported_l7_protocol", ""},
		"a denied path":                    {pseudo("GET", "api.demo.test:7002", "/denied"), "policy_denied", ""},
	} {
		t.Run(name, func(t *testing.T) {
			got := a.askHTTP2(t, tc.fields, tc.body)
			var arrived []string
			switch {
			case tc.reason == "":
				arrived = []string{"GET /ok/a"}
				if got.status != 200 {
					t.Errorf("answered %+v", got)
				}
			case got.reason != tc.reason && tc.body == "":
				t.Errorf("answered %+v, want %s", got, tc.reason)
			}
			if tc.body != "" {
				a.broken(t, tc.reason)
				return
			}
			a.oracle(t, arrived, tc.reason)
		})
	}
	a.settled(t)
}

// TestFieldsOfProxiesDoNotArrive (B31, B41, row 42).
func TestFieldsOfProxiesDoNotArrive(t *testing.T) {
	a := newSiege(t)
	forwarding := []string{"X-Forwarded-For: 10.9.9.9", "Forwarded: for=10.9.9.9", "X_Forwarded_Host: evil.test", "X-Real-IP: 10.9.9.9", "True-Client-IP: 10.9.9.9", "CF-Connecting-IP: 10.9.9.9"}
	arrivedWithout := func(e entry) {
		_, plain, _ := a.plain.seen()
		_, secure, _ := a.secure.seen()
		arrived := strings.ToLower(plain + secure)
		for _, never := range []string{"proxy-", "x-secret", "keep-alive", "upgrade", "foo", "forwarded", "10.9.9.9", "evil.test"} {
			if strings.Contains(arrived, never) {
				t.Errorf("%s: %q arrived: %q", e, never, arrived)
			}
		}
		if !strings.Contains(arrived, "x-kept: yes") {
			t.Errorf("%s: an ordinary field did not: %q", e, arrived)
		}
		a.denials(t, 0)
	}
	for _, e := range http1Entries {
		got := a.say(t, e, "GET {abs}/ok/a HTTP/1.1\r\nHost: {host}\r\nProxy-Authorization: Basic c2VjcmV0\r\nProxy-Connection: keep-alive\r\nConnection: x-secret, keep-alive\r\nX-Secret: a\r\n"+
			"Keep-Alive: timeout=5\r\nTE: trailers\r\nUpgrade: foo\r\n"+strings.Join(forwarding, "\r\n")+"\r\nX-Kept: yes\r\n\r\n")
		if len(got) != 1 || got[0].status != 200 {
			t.Errorf("%s: answers %+v", e, got)
		}
		arrivedWithout(e)
	}
	fields := []hpack.HeaderField{{Name: ":method", Value: "GET"}, {Name: ":scheme", Value: "https"}, {Name: ":authority", Value: "api.demo.test:7002"}, {Name: ":path", Value: "/ok/a"},
		{Name: "proxy-authorization", Value: "Basic c2VjcmV0"}, {Name: "te", Value: "trailers"}, {Name: "x-kept", Value: "yes"}}
	for _, f := range forwarding {
		name, value, _ := strings.Cut(f, ": ")
		fields = append(fields, hpack.HeaderField{Name: strings.ToLower(name), Value: value})
	}
	if got := a.askHTTP2(t, fields, ""); got.status != 200 {
		t.Errorf("%s: answer %+v", inHTTP2, got)
	}
	arrivedWithout(inHTTP2)
	a.settled(t)
}

// TestAnEncodedSlashArrivesWhereItMay (row 37): as it was written, on one endpoint.
func TestAnEncodedSlashArrivesWhereItMay(t *testing.T) {
	a := newSiege(t)
	for target, want := range map[string]string{"/a%2Fb": "/a%2Fb", "/a%2fb": "/a%2Fb", "/a%2f..%2fb": "", "/a%2F%2e%2e%2Fb": "", "/a/..%2fb": ""} {
		got := a.say(t, absolute, "GET http://git.demo.test:7001"+target+" HTTP/1.1\r\nHost: git.demo.test:7001\r\n\r\n")
		var arrived []string
		reason := "invalid_request_target"
		if want != "" {
			arrived, reason = []string{"GET " + want}, ""
		}
		if len(got) != 1 || (got[0].status == 200) != (want != "") {
			t.Errorf("%s: answers %+v", target, got)
		}
		a.oracle(t, arrived, reason)
	}
	a.settled(t)
}

// TestAPathThatNoRuleReadsIsTheOrigins: what canonical paths lose arrives on an endpoint
// without rules, as with npm's scoped packages.
func TestAPathThatNoRuleReadsIsTheOrigins(t *testing.T) {
	need.Program(t, "curl")
	a := newSiege(t)
	for _, target := range []string{"/@scope%2fname", "/@scope%2Fname?a=%2f", "/a//b/./c;v=1/../%41", "//a"} {
		for _, way := range [][]string{{"http://a.wild.demo.test:7001"}, {"http://a.wild.demo.test:7001", "-p"}, {"https://a.wild.demo.test:7002", "--http1.1"}, {"https://a.wild.demo.test:7002", "--http2"}} {
			args := append([]string{"-sS", "--max-time", "120", "--path-as-is", "--cacert", a.caFile(), "-x", "http://" + standaloneAddress, "-o", "/dev/null", "-w", "%{http_code}", way[0] + target}, way[1:]...)
			out, err := exec.Command("curl", args...).CombinedOutput()
			if err != nil || string(out) != "200" {
				t.Errorf("%s %v: %v %s", target, way, err, out)
			}
			a.oracle(t, []string{"GET " + target}, "")
		}
	}
	a.settled(t)
}

// TestBoundsOfARequest (B44): each bound at its limit and one beyond.
func TestBoundsOfARequest(t *testing.T) {
	a := newSiege(t, "--head-timeout", "6s")
	fields := func(n int) string { return strings.Repeat("A: b\r\n", n) }
	for name, tc := range map[string]struct {
		text   string
		status int
		reason string
	}{
		"200 fields":                      {"GET {abs}/ok/a HTTP/1.1\r\nHost: {host}\r\n" + fields(199) + "\r\n", 200, ""},
		"201 fields":                      {"GET {abs}/ok/a HTTP/1.1\r\nHost: {host}\r\n" + fields(200) + "\r\n", 431, "header_too_large"},
		"10 000 fields":                   {"GET {abs}/ok/a HTTP/1.1\r\nHost: {host}\r\n" + fields(10000) + "\r\n", 431, "header_too_large"},
		"a line of 64 KiB":                {"GET {abs}/ok/a HTTP/1.1\r\nHost: {host}\r\nA: " + strings.Repeat("a", 65536) + "\r\n\r\n", 431, "header_too_large"},
		"a URI of 2 MiB":                  {"GET {abs}/ok/" + strings.Repeat("a", 2<<20) + " HTTP/1.1\r\nHost: {host}\r\n\r\n", 431, "header_too_large"},
		"a target that fits the head":     {"GET {abs}/ok/" + strings.Repeat("a", 4000) + " HTTP/1.1\r\nHost: {host}\r\n\r\n", 200, ""},
		"a target above 4096":             {"GET {abs}/ok/" + strings.Repeat("a", 4096) + " HTTP/1.1\r\nHost: {host}\r\n\r\n", 414, "invalid_request_target"},
		"a method of 33 letters":          {strings.Repeat("G", 33) + " {abs}/ok/a HTTP/1.1\r\nHost: {host}\r\n\r\n", 400, "bad_request"},
		"lines without end, no line feed": {strings.Repeat("G", 100000), 431, "header_too_large"},
	} {
		t.Run(name, func(t *testing.T) {
			for _, e := range http1Entries {
				got := a.say(t, e, tc.text)
				status, reason := tc.status, tc.reason
				if len(got) != 1 || got[0].status != status || got[0].reason != reason {
					t.Errorf("%s: answers %+v, want %d %s", e, got, status, reason)
				}
				var arrived []string
				if tc.reason == "" {
					arrived = []string{"GET " + strings.NewReplacer("{abs}", "").Replace(strings.Fields(tc.text)[1])}
				}
				a.oracle(t, arrived, reason)
			}
		})
	}
	t.Run("heads that never end", func(t *testing.T) {
		var wg sync.WaitGroup
		for _, e := range http1Entries { // together, because each takes its whole time
			c := a.open(t, e)
			_, err := io.WriteString(c, e.write("GET {abs}/ok/a HTTP/1.1\r\n"))
			must(t, err)
			stop := make(chan struct{})
			go func() {
				for i := 0; ; i++ {
					select {
					case <-stop:
						return
					case <-time.After(100 * time.Millisecond):
						if _, err := fmt.Fprintf(c, "A%d: b\r\n", i); err != nil {
							return
						}
					}
				}
			}()
			wg.Go(func() {
				out, err := io.ReadAll(c)
				close(stop)
				if !strings.HasPrefix(string(out), "HTTP/1.1 408 ") && !(len(out) == 0 && errors.Is(err, io.EOF)) {
					t.Errorf("%s: got %q, %v", e, out, err)
				}
			})
		}
		wg.Wait()
		found := a.denials(t, len(http1Entries))
		if len(found) != len(http1Entries) || slices.ContainsFunc(found, func(r record) bool { return r.Unmapped.Reason != "request_timeout" }) {
			t.Errorf("records of refusals %+v, want %d", found, len(http1Entries))
		}
		a.oracle(t, nil, "")
	})
	a.settled(t)
}
