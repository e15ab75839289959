package e2e_test

import (
	"bufio"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptrace"
	"net/textproto"
	"os"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/splitpod/splitpod/test/world"
)

// memory is what the daemon holds, in bytes; peak since the last call of forget.
func (p *pair) memory(peak bool) int64 {
	p.t.Helper()
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", p.network.cmd.Process.Pid))
	must(p.t, err)
	name := "VmRSS:"
	if peak {
		name = "VmHWM:"
	}
	for line := range strings.Lines(string(text)) {
		if rest, ok := strings.CutPrefix(line, name); ok {
			var kib int64
			fmt.Sscan(rest, &kib)
			return kib << 10
		}
	}
	p.t.Fatal("no " + name)
	return 0
}

func (p *pair) forget() {
	must(p.t, os.WriteFile(fmt.Sprintf("/proc/%d/clear_refs", p.network.cmd.Process.Pid), []byte("5"), 0))
}

// TestAGibibyteEachWay: the memory of the daemon does not follow what it carries.
func TestAGibibyteEachWay(t *testing.T) {
	w := newClientWorld(t)
	const gib = 1 << 30
	for _, version := range []int{1, 2} {
		t.Run(fmt.Sprintf("HTTP/%d", version), func(t *testing.T) {
			c := w.client(version)
			_, err := c.Get(siteURL + "/ok/bytes?n=50000000") // what is made once
			must(t, err)
			w.forget()
			before := w.memory(false)
			start := time.Now()
			resp, err := c.Get(fmt.Sprintf("%s/ok/bytes?n=%d", siteURL, gib))
			must(t, err)
			n, err := io.Copy(io.Discard, resp.Body)
			resp.Body.Close()
			if err != nil || n != gib {
				t.Errorf("down: %d bytes, %v", n, err)
			}
			down := time.Since(start)
			start = time.Now()
			resp, err = c.Post(siteURL+"/ok/echo", "", io.LimitReader(zeroes{}, gib))
			must(t, err)
			body, err := io.ReadAll(resp.Body)
			resp.Body.Close()
			if err != nil || string(body) != fmt.Sprint("got ", gib) {
				t.Errorf("up: %s %q, %v", resp.Status, body, err)
			}
			growth := w.memory(true) - before
			t.Logf("down %.1fs, up %.1fs, memory grew by %.1f MiB at most", down.Seconds(), time.Since(start).Seconds(), float64(growth)/(1<<20))
			if growth > 64<<20 {
				t.Errorf("memory grew by %d bytes", growth)
			}
		})
	}
}

// TestEventsAreNotHeldBack: each event arrives before the next is sent.
func TestEventsAreNotHeldBack(t *testing.T) {
	w := newClientWorld(t)
	for _, version := range []int{1, 2} {
		t.Run(fmt.Sprintf("HTTP/%d", version), func(t *testing.T) {
			resp, err := w.client(version).Get(siteURL + "/ok/events")
			must(t, err)
			defer resp.Body.Close()
			r := bufio.NewReader(resp.Body)
			for i := range 5 {
				line, err := r.ReadString('\n')
				if err != nil || line != fmt.Sprintf("data: %d\n", i) {
					t.Fatalf("event %d: %q, %v", i, line, err)
				}
				_, _ = r.ReadString('\n')
				w.site.slow <- struct{}{}
			}
			if _, err := r.ReadByte(); err != io.EOF {
				t.Errorf("the end: %v", err)
			}
		})
	}
}

// TestInterimResponses (row 54): 103 arrives, and then the final response; 100 lets a
// client begin that waits for it, and a refusal comes in its place.
func TestInterimResponses(t *testing.T) {
	w := newClientWorld(t)
	var hints []int
	ctx := httptrace.WithClientTrace(t.Context(), &httptrace.ClientTrace{Got1xxResponse: func(code int, _ textproto.MIMEHeader) error {
		hints = append(hints, code)
		return nil
	}})
	req, err := http.NewRequestWithContext(ctx, "GET", siteURL+"/ok/hints", nil)
	must(t, err)
	resp, err := w.client(1).Do(req)
	must(t, err)
	body, err := io.ReadAll(resp.Body)
	if err != nil || string(body) != "final" || len(hints) != 1 || hints[0] != 103 {
		t.Errorf("%q, %v, interim %v", body, err, hints)
	}
	resp.Body.Close()

	for path, status := range map[string]string{"/ok/echo": "HTTP/1.1 100 ", "/denied": "HTTP/1.1 403 "} {
		c, _ := connect(t, "api.demo.test:7011")
		tc := tls.Client(c, &tls.Config{ServerName: "api.demo.test", RootCAs: w.interceptionRoots()})
		_, err := fmt.Fprintf(tc, "POST %s HTTP/1.1\r\nHost: api.demo.test:7011\r\nExpect: 100-continue\r\nContent-Length: 5\r\nConnection: close\r\n\r\n", path)
		must(t, err)
		r := bufio.NewReader(tc)
		line, err := r.ReadString('\n')
		if err != nil || !strings.HasPrefix(line, status) {
			t.Errorf("%s: %q, %v", path, line, err)
		}
		if path == "/denied" {
			continue
		}
		_, err = io.WriteString(tc, "hello")
		must(t, err)
		rest, err := io.ReadAll(r)
		if err != nil || !strings.Contains(string(rest), "HTTP/1.1 200 ") || !strings.HasSuffix(string(rest), "got 5") {
			t.Errorf("%q, %v", rest, err)
		}
	}
}

// TestOriginsThatMisbehave (H5, rows 23, 48, 51, 53): every failure is an answer that
// the client can read, inside TLS; what an unframed response says arrives whole.
func TestOriginsThatMisbehave(t *testing.T) {
	bad := func(port int, cert tls.Certificate, answer string, ends bool, change ...func(*tls.Config)) {
		config := &tls.Config{Certificates: []tls.Certificate{cert}}
		for _, c := range change {
			c(config)
		}
		l, err := tls.Listen("tcp", net.JoinHostPort(world.Address, fmt.Sprint(port)), config)
		must(t, err)
		t.Cleanup(func() { l.Close() })
		go func() {
			for {
				c, err := l.Accept()
				if err != nil {
					return
				}
				go func() {
					defer c.Close()
					for r := bufio.NewReader(c); ; {
						if _, err := http.ReadRequest(r); err != nil {
							return
						}
						if _, err := io.WriteString(c, answer); err != nil || ends {
							return
						}
					}
				}()
			}
		}()
	}
	issue := func(change func(*x509.Certificate)) tls.Certificate {
		cert, err := origins.Certificate(change)
		must(t, err)
		return cert
	}
	good := issue(nil)
	const fine = "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nhi"
	bad(7031, issue(func(c *x509.Certificate) { c.NotAfter = time.Now().Add(-time.Hour) }), fine, false)
	bad(7032, issue(func(c *x509.Certificate) { c.DNSNames = []string{"other.demo.test"} }), fine, false)
	bad(7033, selfSigned(t), fine, false)
	older := func(c *tls.Config) { c.MaxVersion = tls.VersionTLS12 }
	bad(7034, good, fine, false, func(c *tls.Config) { c.ClientAuth = tls.RequireAnyClientCert })
	bad(7047, good, fine, false, older, func(c *tls.Config) { c.ClientAuth = tls.RequireAnyClientCert })
	bad(7048, good, fine, false, func(c *tls.Config) { c.ClientAuth = tls.RequestClientCert })
	bad(7035, good, "", false)                                                                                   // silent
	bad(7036, good, "", true)                                                                                    // hangs up
	bad(7037, good, "HTTP/1.1 101 Switching Protocols\r\nUpgrade: foo\r\nConnection: upgrade\r\n\r\nraw", false) // unasked
	bad(7038, good, "HTTP/1.0 200 OK\r\n\r\n"+strings.Repeat("x", 100000), true)                                 // unframed
	bad(7039, good, "HTTP/1.1 200 OK\r\nContent-Length: 5\r\nContent-Length: 6\r\n\r\nhello!", false)
	bad(7040, good, "HTTP/1.1 200 OK\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", false)
	bad(7041, good, "nonsense\r\n\r\n", false)
	bad(7042, good, "HTTP/1.1 302 Found\r\nLocation: http://169.254.169.254/\r\nAlt-Svc: h3=\":443\"\r\nContent-Length: 0\r\n\r\n", false)
	bad(7043, good, strings.Repeat("HTTP/1.1 103 Early Hints\r\n\r\n", 1000)+fine, false)
	bad(7044, good, "HTTP/1.1 200 OK\r\nX: "+strings.Repeat("a", 20000)+"\r\nContent-Length: 0\r\n\r\n", false)
	plain, err := net.Listen("tcp", net.JoinHostPort(world.Address, "7045")) // says nothing, not even TLS
	must(t, err)
	t.Cleanup(func() { plain.Close() })

	policy := "version: 1\n" + who + "network_policies:\n  bad:\n    endpoints:\n"
	for port := 7031; port <= 7048; port++ {
		policy += fmt.Sprintf("      - {host: api.demo.test, port: %d, protocol: rest, enforcement: enforce, access: full}\n", port)
	}
	w := &clientWorld{}
	w.pair = standalone(t, policy+"    binaries: [{path: /usr/bin/curl}]\n", "--idle-timeout", "12s", "--connect-timeout", "12s") // in which whoever answers does
	var wg sync.WaitGroup                                                                                                         // all at one time, because the silent take all of theirs
	for name, tc := range map[string]struct {
		port, status int
		reason       string
		body         int // bytes
	}{
		"a certificate that has expired":        {7031, 502, "upstream_tls_failed", 0},
		"a certificate for another host":        {7032, 502, "upstream_tls_failed", 0},
		"a certificate it signed itself":        {7033, 502, "upstream_tls_failed", 0},
		"a certificate of ours, demanded":       {7034, 502, "upstream_tls_failed", 0},
		"the same in TLS 1.2":                   {7047, 502, "upstream_tls_failed", 0},
		"a certificate of ours, asked for":      {7048, 200, "", len("hi")},
		"silence":                               {7035, 504, "upstream_timeout", 0},
		"no answer, the connection ends":        {7036, 502, "", 0},
		"row 51 a switch nobody asked for":      {7037, 502, "upstream_invalid_response", 0},
		"row 53 a response that ends by itself": {7038, 200, "", 100000},
		"two lengths":                           {7039, 502, "upstream_invalid_response", 0},
		"length and chunks":                     {7040, 502, "upstream_invalid_response", 0},
		"nonsense":                              {7041, 502, "upstream_invalid_response", 0},
		"B41 a redirect to the metadata":        {7042, 302, "", 0},
		"interim responses without end":         {7043, 502, "upstream_invalid_response", 0},
		"a head above 16 KiB":                   {7044, 502, "upstream_invalid_response", 0},
		"silence in the handshake":              {7045, 504, "upstream_timeout", 0},
	} {
		for _, version := range []int{1, 2} {
			c := w.client(version)
			c.CheckRedirect = func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }
			wg.Go(func() {
				resp, err := c.Get(fmt.Sprintf("https://api.demo.test:%d/x", tc.port))
				if err != nil {
					t.Errorf("%s: HTTP/%d: %v", name, version, err)
					return
				}
				body, err := io.ReadAll(resp.Body)
				resp.Body.Close()
				got := answerOf(resp.StatusCode, resp.Header, body)
				if err != nil || got.status != tc.status || tc.reason != "" && got.reason != tc.reason || got.status >= 400 && got.reason == "" || tc.body > 0 && len(body) != tc.body {
					t.Errorf("%s: HTTP/%d: %s %.200s %v, want %d %s", name, version, resp.Status, body, err, tc.status, tc.reason)
				}
				if resp.Header.Get("Alt-Svc") != "" {
					t.Errorf("%s: HTTP/%d: Alt-Svc arrived", name, version)
				}
			})
		}
	}
	wg.Wait()
	t.Run("row 48 nobody listens", func(t *testing.T) {
		_, resp := connect(t, "api.demo.test:7046")
		if resp.StatusCode != 502 {
			t.Errorf("the CONNECT is answered %s", resp.Status)
		}
	})
}

// selfSigned is a certificate of nobody's.
func selfSigned(t *testing.T) tls.Certificate {
	t.Helper()
	cert, err := origins.Certificate(nil)
	must(t, err)
	leaf, err := x509.ParseCertificate(cert.Certificate[0])
	must(t, err)
	der, err := x509.CreateCertificate(rand.Reader, leaf, leaf, leaf.PublicKey, cert.PrivateKey)
	must(t, err)
	return tls.Certificate{Certificate: [][]byte{der}, PrivateKey: cert.PrivateKey}
}
