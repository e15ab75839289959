package origin

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"io"
	"math/big"
	"net"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/splitpod/splitpod/pkg/core"
)

// authority signs certificates of test origins.
type authority struct {
	cert *x509.Certificate
	key  *ecdsa.PrivateKey
}

func newKey(t testing.TB) *ecdsa.PrivateKey {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	return key
}

func sign(t testing.TB, template, parent *x509.Certificate, public *ecdsa.PublicKey, key *ecdsa.PrivateKey) *x509.Certificate {
	t.Helper()
	template.SerialNumber = big.NewInt(time.Now().UnixNano())
	if template.NotAfter.IsZero() {
		template.NotAfter = time.Now().Add(time.Hour)
	}
	if template.NotBefore.IsZero() {
		template.NotBefore = time.Now().Add(-48 * time.Hour)
	}
	if parent == nil {
		parent = template
	}
	der, err := x509.CreateCertificate(rand.Reader, template, parent, public, key)
	if err != nil {
		t.Fatal(err)
	}
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	return cert
}

func newAuthority(t testing.TB) authority {
	key := newKey(t)
	return authority{sign(t, &x509.Certificate{IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign}, nil, &key.PublicKey, key), key}
}

func (a authority) pem() []byte {
	return pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: a.cert.Raw})
}

func (a authority) issue(t testing.TB, template x509.Certificate) tls.Certificate {
	key := newKey(t)
	return tls.Certificate{Certificate: [][]byte{sign(t, &template, a.cert, &key.PublicKey, a.key).Raw}, PrivateKey: key}
}

func write(t testing.TB, data []byte) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "roots.pem")
	if err := os.WriteFile(path, data, 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

func (a authority) client(t testing.TB) *Client {
	t.Helper()
	c, err := New(Config{Roots: []string{write(t, a.pem())}})
	if err != nil {
		t.Fatal(err)
	}
	return c
}

// dial connects to an origin that does as serve says with its one connection.
func dial(t testing.TB, serve func(net.Conn)) net.Conn {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	near, err := net.Dial("tcp", l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	far, err := l.Accept()
	if err != nil {
		t.Fatal(err)
	}
	done := make(chan struct{})
	go func() { defer close(done); defer far.Close(); serve(far) }()
	t.Cleanup(func() { near.Close(); <-done })
	return near
}

// speak is an origin that speaks TLS, and says one byte.
func speak(cfg *tls.Config) func(net.Conn) {
	return func(conn net.Conn) {
		c := tls.Server(conn, cfg)
		if c.Handshake() == nil {
			c.Write([]byte("x"))
			c.Read(make([]byte, 1)) // until the client has seen it
		}
	}
}

var port = regexp.MustCompile(`:[0-9]`)

func checkKind(t *testing.T, err error, want Kind, detail string) {
	t.Helper()
	e, ok := errors.AsType[*Error](err)
	if !ok {
		t.Errorf("%T: %v, want %s", err, err, want)
		return
	}
	if e.Kind != want || !strings.Contains(e.Detail, detail) {
		t.Errorf("%s: %s, want %s: …%s", e.Kind, e.Detail, want, detail)
	}
	if port.MatchString(e.Detail) || strings.Contains(e.Detail, "x509") || strings.Contains(e.Detail, "/") {
		t.Errorf("the detail says too much: %s", e.Detail)
	}
}

var anyHost = x509.Certificate{DNSNames: []string{"ok.test"}, IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1), net.IPv6loopback}}

func TestTheOriginMustBeTheHost(t *testing.T) {
	ours, other := newAuthority(t), newAuthority(t)
	key := newKey(t)
	selfSigned := sign(t, &x509.Certificate{DNSNames: []string{"ok.test"}}, nil, &key.PublicKey, key)
	for _, c := range []struct {
		rule, host string
		cert       tls.Certificate
		want       Kind
		detail     string
	}{
		{"a name", "ok.test", ours.issue(t, anyHost), "", ""},
		{"an address", "127.0.0.1", ours.issue(t, anyHost), "", ""},
		{"a long address", "::1", ours.issue(t, anyHost), "", ""},
		{"a wildcard", "a.ok.test", ours.issue(t, x509.Certificate{DNSNames: []string{"*.ok.test"}}), "", ""},
		{"another name", "evil.test", ours.issue(t, anyHost), WrongHost, "evil.test: the origin's certificate is for another host"},
		{"another address", "127.0.0.2", ours.issue(t, anyHost), WrongHost, "another host"},
		{"an address written as a name", "127.0.0.1", ours.issue(t, x509.Certificate{DNSNames: []string{"127.0.0.1"}}), WrongHost, "another host"},
		{"a name below a wildcard's", "a.b.ok.test", ours.issue(t, x509.Certificate{DNSNames: []string{"*.ok.test"}}), WrongHost, "another host"},
		{"expired", "ok.test", ours.issue(t, x509.Certificate{DNSNames: []string{"ok.test"}, NotAfter: time.Date(2024, 1, 2, 0, 0, 0, 0, time.UTC), NotBefore: time.Date(2023, 1, 2, 0, 0, 0, 0, time.UTC)}), Expired, "expired on 2024-01-02"},
		{"not yet valid", "ok.test", ours.issue(t, x509.Certificate{DNSNames: []string{"ok.test"}, NotBefore: time.Date(2200, 1, 2, 0, 0, 0, 0, time.UTC), NotAfter: time.Date(2201, 1, 2, 0, 0, 0, 0, time.UTC)}), Expired, "not valid before 2200-01-02"},
		{"self-signed", "ok.test", tls.Certificate{Certificate: [][]byte{selfSigned.Raw}, PrivateKey: key}, UnknownAuthority, "authority that is not trusted"},
		{"another authority", "ok.test", other.issue(t, anyHost), UnknownAuthority, "authority that is not trusted"},
		{"for clients only", "ok.test", ours.issue(t, x509.Certificate{DNSNames: []string{"ok.test"}, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth}}), BadCertificate, "not valid"},
	} {
		for _, version := range []uint16{tls.VersionTLS12, tls.VersionTLS13} {
			t.Run(c.rule+" "+tls.VersionName(version), func(t *testing.T) {
				conn := dial(t, speak(&tls.Config{Certificates: []tls.Certificate{c.cert}, MaxVersion: version}))
				got, err := ours.client(t).Handshake(context.Background(), conn, c.host, nil)
				if c.want != "" {
					checkKind(t, err, c.want, c.detail)
					if r := err.(*Error).Reason(); got != nil || r != core.ReasonUpstreamTLS {
						t.Errorf("%v, %q", got, r)
					}
					return
				}
				if err != nil {
					t.Fatal(err)
				}
				if v := got.ConnectionState().Version; v != version {
					t.Errorf("version %x", v)
				}
			})
		}
	}
}

func TestNoHostIsNoHandshake(t *testing.T) {
	_, err := newAuthority(t).client(t).Handshake(context.Background(), nil, "", nil)
	checkKind(t, err, Internal, "no host")
}

// TestTheInterceptionCAIsNoRoot is C13's other side: what we sign for the workload is
// nothing to us, since only the system's roots and the operator's files count.
func TestTheInterceptionCAIsNoRoot(t *testing.T) {
	interception := newAuthority(t)
	c, err := New(Config{})
	if err != nil {
		t.Fatal(err)
	}
	conn := dial(t, speak(&tls.Config{Certificates: []tls.Certificate{interception.issue(t, anyHost)}}))
	_, err = c.Handshake(context.Background(), conn, "ok.test", nil)
	checkKind(t, err, UnknownAuthority, "not trusted")
}

func TestOriginsThatFailAreExplained(t *testing.T) {
	ours := newAuthority(t)
	cert := []tls.Certificate{ours.issue(t, anyHost)}
	answer := func(s string) func(net.Conn) {
		return func(c net.Conn) {
			c.Read(make([]byte, 4096))
			io.WriteString(c, s)
		}
	}
	for _, c := range []struct {
		rule   string
		serve  func(net.Conn)
		want   Kind
		detail string
	}{
		{"only TLS 1.1", speak(&tls.Config{Certificates: cert, MinVersion: tls.VersionTLS10, MaxVersion: tls.VersionTLS11}), Version, "1.2"},
		{"HTTP without TLS", answer("HTTP/1.1 400 Bad Request\r\n\r\n"), NotTLS, "does not speak TLS"},
		{"SSH", answer("SSH-2.0-x\r\n"), NotTLS, "does not speak TLS"},
		{"closes", answer(""), Closed, "closed"},
		{"closes at once", func(net.Conn) {}, Closed, "closed"},
		{"no such host there", answer("\x15\x03\x03\x00\x02\x02\x70"), Refused, "does not serve this host"},
		{"a general refusal", answer("\x15\x03\x03\x00\x02\x02\x28"), Refused, "handshake failure"},
		{"an internal error", answer("\x15\x03\x03\x00\x02\x02\x50"), Refused, "internal error"},
		{"garbage in records", answer("\x16\x03\x03\x00\x08\x02\x00\x00\x04abcd"), Refused, "failed"},
		{"no protocol in common", speak(&tls.Config{Certificates: cert, NextProtos: []string{"other"}}), NoProtocol, "none of the protocols"},
		{"a client certificate, TLS 1.2", speak(&tls.Config{Certificates: cert, MaxVersion: tls.VersionTLS12, ClientAuth: tls.RequireAnyClientCert}), ClientCert, "client certificate"},
	} {
		t.Run(c.rule, func(t *testing.T) {
			conn := dial(t, c.serve)
			got, err := ours.client(t).Handshake(context.Background(), conn, "ok.test", []string{"http/1.1"})
			checkKind(t, err, c.want, c.detail)
			if got != nil {
				t.Error("there is a connection")
			}
			conn.Close()
		})
	}
}

// TestAClientCertificateIsExplainedLate: in TLS 1.3 the refusal is the answer to the
// first read.
func TestAClientCertificateIsExplainedLate(t *testing.T) {
	ours := newAuthority(t)
	cert := []tls.Certificate{ours.issue(t, anyHost)}
	conn := dial(t, speak(&tls.Config{Certificates: cert, ClientAuth: tls.RequireAnyClientCert}))
	c, err := ours.client(t).Handshake(context.Background(), conn, "ok.test", nil)
	if err != nil {
		t.Fatal(err)
	}
	_, err = c.Read(make([]byte, 1))
	late := Explain("ok.test", err)
	if late == nil {
		t.Fatalf("%v is not explained", err)
	}
	checkKind(t, late, ClientCert, "client certificate")
	for _, err := range []error{nil, io.EOF, os.ErrDeadlineExceeded, &net.OpError{Op: "read", Err: errors.New("x")}} {
		if got := Explain("ok.test", err); got != nil {
			t.Errorf("%v is no answer to the handshake: %v", err, got)
		}
	}
}

func TestAnOriginMayAskForACertificateAndDoWithout(t *testing.T) {
	ours := newAuthority(t)
	for _, version := range []uint16{tls.VersionTLS12, tls.VersionTLS13} {
		conn := dial(t, speak(&tls.Config{Certificates: []tls.Certificate{ours.issue(t, anyHost)}, ClientAuth: tls.RequestClientCert, MaxVersion: version}))
		c, err := ours.client(t).Handshake(context.Background(), conn, "ok.test", nil)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := c.Read(make([]byte, 1)); err != nil {
			t.Error(err)
		}
		c.Close()
	}
}

func TestTheCallerSaysWhichProtocols(t *testing.T) {
	ours := newAuthority(t)
	client := ours.client(t)
	for _, c := range []struct {
		offered []string
		want    string
	}{{[]string{"h2", "http/1.1"}, "h2"}, {[]string{"http/1.1"}, "http/1.1"}, {nil, ""}, {[]string{"h2", "http/1.1"}, "h2"}} {
		conn := dial(t, speak(&tls.Config{Certificates: []tls.Certificate{ours.issue(t, anyHost)}, NextProtos: []string{"h2", "http/1.1"}}))
		got, err := client.Handshake(context.Background(), conn, "ok.test", c.offered)
		if err != nil || got.ConnectionState().NegotiatedProtocol != c.want {
			t.Errorf("%q: %v, %v", c.offered, got, err)
		}
		conn.Close()
	}
}

func TestGroupsAreAsConfigured(t *testing.T) {
	ours := newAuthority(t)
	for _, c := range []struct {
		groups []tls.CurveID
		want   tls.CurveID
	}{{nil, tls.X25519MLKEM768}, {[]tls.CurveID{tls.X25519}, tls.X25519}} {
		client, err := New(Config{Roots: []string{write(t, ours.pem())}, Groups: c.groups})
		if err != nil {
			t.Fatal(err)
		}
		conn := dial(t, speak(&tls.Config{Certificates: []tls.Certificate{ours.issue(t, anyHost)}}))
		got, err := client.Handshake(context.Background(), conn, "ok.test", nil)
		if err != nil || got.ConnectionState().CurveID != c.want {
			t.Errorf("%v: %v, %v", c.groups, got, err)
		}
		conn.Close()
	}
}

// TestSessionsResumePerHost: the second connection to a host resumes, in both
// versions; a session of one host is not offered to another.
func TestSessionsResumePerHost(t *testing.T) {
	ours := newAuthority(t)
	for _, version := range []uint16{tls.VersionTLS12, tls.VersionTLS13} {
		client := ours.client(t)
		server := &tls.Config{MaxVersion: version, Certificates: []tls.Certificate{ours.issue(t, x509.Certificate{DNSNames: []string{"ok.test", "other.test"}})}}
		for _, c := range []struct {
			host string
			want bool
		}{{"ok.test", false}, {"ok.test", true}, {"other.test", false}, {"ok.test", true}, {"other.test", true}} {
			conn := dial(t, speak(server))
			got, err := client.Handshake(context.Background(), conn, c.host, nil)
			if err != nil {
				t.Fatal(err)
			}
			if _, err := got.Read(make([]byte, 1)); err != nil { // tickets come with it
				t.Fatal(err)
			}
			if resumed := got.ConnectionState().DidResume; resumed != c.want {
				t.Errorf("%s, %s: resumed %v", tls.VersionName(version), c.host, resumed)
			}
			conn.Close()
		}
	}
}

func TestAHandshakeIsBoundedInTime(t *testing.T) {
	for _, c := range []struct {
		rule   string
		drip   bool
		cancel bool
		want   Kind
		reason core.Reason
	}{
		{"silence", false, false, Timeout, core.ReasonUpstreamTimeout},
		{"a byte a second", true, false, Timeout, core.ReasonUpstreamTimeout},
		{"the daemon stops", false, true, Stopped, core.ReasonShutdown},
	} {
		t.Run(c.rule, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				client := newAuthority(t).client(t)
				near, far := net.Pipe()
				ctx, cancel := context.WithCancel(context.Background())
				defer cancel()
				if c.cancel {
					time.AfterFunc(5*time.Second, cancel)
				}
				go io.Copy(io.Discard, far)
				if c.drip {
					go func() {
						record := append([]byte("\x16\x03\x03\x40\x00\x02\x00\x3f\xfc"), make([]byte, 100)...)
						for _, b := range record {
							select {
							case <-ctx.Done():
								return
							case <-time.After(time.Second):
								far.Write([]byte{b})
							}
						}
					}()
				}
				begun := time.Now()
				_, err := client.Handshake(ctx, near, "ok.test", nil)
				checkKind(t, err, c.want, "")
				if took := time.Since(begun); took > 10*time.Second || err.(*Error).Reason() != c.reason {
					t.Errorf("after %v: %q", took, err.(*Error).Reason())
				}
				cancel()
				near.Close()
				far.Close()
			})
		})
	}
}

func TestRootsAreReadStrictly(t *testing.T) {
	a, b := newAuthority(t), newAuthority(t)
	key, err := x509.MarshalPKCS8PrivateKey(a.key)
	if err != nil {
		t.Fatal(err)
	}
	keyPEM := pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: key})
	both := append(append([]byte("# two of ours\n"), a.pem()...), b.pem()...)
	for _, c := range []struct {
		rule string
		file []byte
		want int
		err  string
	}{
		{"one", a.pem(), 1, ""},
		{"two with text around", append(both, "the end\n"...), 2, ""},
		{"Windows line ends", []byte(strings.ReplaceAll(string(both), "\n", "\r\n")), 2, ""},
		{"nothing", nil, 0, "no certificate"},
		{"only text", []byte("hello\n"), 0, "no certificate"},
		{"DER", a.cert.Raw, 0, "no certificate"},
		{"a key", append(a.pem(), keyPEM...), 0, `PEM block 2 is "PRIVATE KEY"`},
		{"a block that does not end", a.pem()[:200], 0, "block 1 is damaged"},
		{"a damaged one between two", append(append(a.pem(), a.pem()[:200]...), b.pem()...), 0, "block 2 is damaged"},
		{"a certificate of zeros", pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: make([]byte, 64)}), 0, "certificate 1"},
	} {
		got, err := parseRoots(c.file)
		if c.err == "" && (err != nil || len(got) != c.want) || c.err != "" && (err == nil || !strings.Contains(err.Error(), c.err) || got != nil) {
			t.Errorf("%s: %d, %v; want %d, %q", c.rule, len(got), err, c.want, c.err)
		}
	}
}

// TestEveryBadFileOfRootsIsNamed: one that is good does not make up for others.
func TestEveryBadFileOfRootsIsNamed(t *testing.T) {
	good := write(t, newAuthority(t).pem())
	empty, missing, folder := write(t, nil), filepath.Join(t.TempDir(), "missing"), t.TempDir()
	large := write(t, append(make([]byte, maxRootsBytes), newAuthority(t).pem()...))
	_, err := New(Config{Roots: []string{good, empty, missing, folder, large}})
	if err == nil {
		t.Fatal("bad files are taken")
	}
	for _, want := range []string{empty, missing, folder, large, "no certificate", "no such file", "more than"} {
		if !strings.Contains(err.Error(), want) {
			t.Errorf("%q is not in %v", want, err)
		}
	}
	if strings.Contains(err.Error(), good) {
		t.Errorf("a good file is named: %v", err)
	}
}

// BenchmarkHandshake is both sides of one handshake over loopback.
func BenchmarkHandshake(b *testing.B) {
	ours := newAuthority(b)
	server := &tls.Config{Certificates: []tls.Certificate{ours.issue(b, anyHost)}}
	for _, name := range []string{"full", "resumed"} {
		b.Run(name, func(b *testing.B) {
			client := ours.client(b)
			if name == "full" {
				client.base.ClientSessionCache = nil
			}
			l, err := net.Listen("tcp", "127.0.0.1:0")
			if err != nil {
				b.Fatal(err)
			}
			defer l.Close()
			go func() {
				for {
					far, err := l.Accept()
					if err != nil {
						return
					}
					c := tls.Server(far, server)
					c.Write([]byte("x"))
					far.Close()
				}
			}()
			b.ReportAllocs()
			resumed := 0
			for b.Loop() {
				conn, err := net.Dial("tcp", l.Addr().String())
				if err != nil {
					b.Fatal(err)
				}
				c, err := client.Handshake(context.Background(), conn, "ok.test", nil)
				if err != nil {
					b.Fatal(err)
				}
				c.Read(make([]byte, 1))
				if c.ConnectionState().DidResume {
					resumed++
				}
				conn.Close()
			}
			if name == "full" && resumed > 0 || name == "resumed" && resumed < b.N-1 {
				b.Errorf("%d of %d resumed", resumed, b.N)
			}
		})
	}
}
