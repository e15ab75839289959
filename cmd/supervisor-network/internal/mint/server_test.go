package mint

import (
	"bytes"
	"context"
	"crypto/ecdh"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/splitpod/splitpod/pkg/core"
)

var bothProtos = []string{"h2", "http/1.1"}

func testServer(t testing.TB, o Options) *Server {
	t.Helper()
	s, err := NewServer(testCA(t), o)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func (s *Server) roots() *x509.CertPool {
	pool := x509.NewCertPool()
	pool.AddCert(s.leaves.ca.cert)
	return pool
}

// loopback is one TCP connection.
func loopback(t testing.TB) (client, server net.Conn) {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	if client, err = net.Dial("tcp", l.Addr().String()); err != nil {
		t.Fatal(err)
	}
	if server, err = l.Accept(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { client.Close(); server.Close() })
	return client, server
}

// outcome is how a handshake ended on both sides.
type outcome struct {
	client, server tls.ConnectionState
	clientErr, err error
}

// handshake runs one handshake for host; the server then says one byte, so that the
// client has read its tickets.
func (s *Server) handshake(t testing.TB, host string, protos []string, cfg *tls.Config, through func(net.Conn) net.Conn) outcome {
	t.Helper()
	near, far := loopback(t)
	defer near.Close()
	if through != nil {
		near = through(near)
	}
	var out outcome
	done := make(chan struct{})
	go func() {
		defer close(done)
		defer far.Close()
		var c *tls.Conn
		if c, out.err = s.Handshake(context.Background(), far, host, protos); out.err == nil {
			out.server = c.ConnectionState()
			c.Write([]byte("x"))
		}
	}()
	client := tls.Client(near, cfg)
	if out.clientErr = client.Handshake(); out.clientErr == nil {
		_, out.clientErr = io.ReadFull(client, make([]byte, 1))
	}
	out.client = client.ConnectionState()
	near.Close()
	<-done
	return out
}

func (o outcome) kind(t testing.TB) Kind {
	t.Helper()
	if o.err == nil {
		return ""
	}
	e, ok := errors.AsType[*Error](o.err)
	if !ok {
		t.Fatalf("failed with %T: %v", o.err, o.err)
	}
	if e.Detail == "" || e.Reason() == "" || strings.ContainsAny(e.Detail, "\x00\n") {
		t.Errorf("detail %q, reason %q", e.Detail, e.Reason())
	}
	return e.Kind
}

// TestTheNameMustBeTheTunnelsHost is B11 and the first half of B13, with ordinary
// clients.
func TestTheNameMustBeTheTunnelsHost(t *testing.T) {
	s := testServer(t, Options{})
	for _, c := range []struct {
		rule, host string
		cfg        *tls.Config
		want       Kind
		alert      string
	}{
		{"the host", "ok.test", &tls.Config{ServerName: "ok.test"}, "", ""},
		{"the host in upper case", "ok.test", &tls.Config{ServerName: "OK.Test"}, "", ""},
		{"another host", "ok.test", &tls.Config{ServerName: "evil.test"}, SNIMismatch, "unrecognized name"},
		{"a host below it", "ok.test", &tls.Config{ServerName: "a.ok.test"}, SNIMismatch, "unrecognized name"},
		{"a host above it", "a.ok.test", &tls.Config{ServerName: "ok.test"}, SNIMismatch, "unrecognized name"},
		{"a longer host", "ok.test", &tls.Config{ServerName: "ok.test2"}, SNIMismatch, "unrecognized name"},
		{"a folded letter", "ok.test", &tls.Config{ServerName: "o\u212a.test", InsecureSkipVerify: true}, SNIMismatch, "unrecognized name"},
		{"no name", "ok.test", &tls.Config{InsecureSkipVerify: true}, NoSNI, "unrecognized name"},
		{"no name for an address", "127.0.0.1", &tls.Config{ServerName: "127.0.0.1"}, "", ""},
		{"no name for a long address", "::1", &tls.Config{ServerName: "::1"}, "", ""},
		{"a name for an address", "127.0.0.1", &tls.Config{ServerName: "ok.test"}, SNIMismatch, "unrecognized name"},
	} {
		for _, version := range []uint16{tls.VersionTLS12, tls.VersionTLS13} {
			t.Run(c.rule+" "+tls.VersionName(version), func(t *testing.T) {
				cfg := c.cfg.Clone()
				cfg.RootCAs, cfg.MaxVersion = s.roots(), version
				got := s.handshake(t, c.host, bothProtos, cfg, nil)
				if kind := got.kind(t); kind != c.want {
					t.Errorf("%q, want %q (%v)", kind, c.want, got.err)
				}
				if (got.clientErr == nil) != (c.want == "") || c.alert != "" && !strings.Contains(got.clientErr.Error(), c.alert) {
					t.Errorf("the client sees %v, want %q", got.clientErr, c.alert)
				}
				if c.want == "" && got.client.PeerCertificates[0].VerifyHostname(c.host) != nil {
					t.Error("the certificate is not the host's")
				}
			})
		}
	}
	if got := (&Error{Kind: SNIMismatch}).Reason(); got != core.ReasonAuthorityMismatch {
		t.Errorf("a mismatch is recorded as %q", got)
	}
}

func TestRefusedNamesCostNoCertificate(t *testing.T) {
	s := testServer(t, Options{})
	s.handshake(t, "ok.test", nil, &tls.Config{ServerName: "evil.test"}, nil)
	s.handshake(t, "ok.test", nil, &tls.Config{ServerName: "ok.test", MaxVersion: tls.VersionTLS11}, nil)
	if n := s.leaves.cache.Len(); n != 0 {
		t.Errorf("%d certificates were signed", n)
	}
}

func TestOldClientsAreRefused(t *testing.T) {
	s := testServer(t, Options{})
	for _, version := range []uint16{tls.VersionTLS10, tls.VersionTLS11} {
		got := s.handshake(t, "ok.test", nil, &tls.Config{ServerName: "ok.test", RootCAs: s.roots(), MinVersion: tls.VersionTLS10, MaxVersion: version}, nil)
		if got.kind(t) != Version || got.clientErr == nil || !strings.Contains(got.clientErr.Error(), "protocol version") {
			t.Errorf("%s: %v; the client sees %v", tls.VersionName(version), got.err, got.clientErr)
		}
	}
}

func TestTheCallerSaysWhichProtocols(t *testing.T) {
	s := testServer(t, Options{})
	for _, c := range []struct {
		rule           string
		offered, asked []string
		version        uint16
		want           string
		kind           Kind
	}{
		{"the preferred one", bothProtos, []string{"http/1.1", "h2"}, tls.VersionTLS13, "h2", ""},
		{"the only one", []string{"http/1.1"}, bothProtos, tls.VersionTLS13, "http/1.1", ""},
		{"a client that says nothing", bothProtos, nil, tls.VersionTLS13, "", ""},
		{"nothing is offered", nil, bothProtos, tls.VersionTLS13, "", ""},
		{"none in common", []string{"http/1.1"}, []string{"h2"}, tls.VersionTLS13, "", ALPN},
		{"none in common, TLS 1.2", []string{"http/1.1"}, []string{"h2"}, tls.VersionTLS12, "", ALPN},
		{"h2 is not given to who asks for less", []string{"h2"}, []string{"http/1.1"}, tls.VersionTLS13, "", ALPN},
	} {
		cfg := &tls.Config{ServerName: "ok.test", RootCAs: s.roots(), NextProtos: c.asked, MaxVersion: c.version}
		got := s.handshake(t, "ok.test", c.offered, cfg, nil)
		if kind := got.kind(t); kind != c.kind || got.server.NegotiatedProtocol != c.want {
			t.Errorf("%s: %q and %q, want %q and %q (%v)", c.rule, kind, got.server.NegotiatedProtocol, c.kind, c.want, got.err)
		}
	}
}

// oneSession offers its one session to everybody, as a hostile client would.
type oneSession struct{ s *tls.ClientSessionState }

func (o *oneSession) Get(string) (*tls.ClientSessionState, bool) { return o.s, o.s != nil }
func (o *oneSession) Put(_ string, s *tls.ClientSessionState) {
	if s != nil {
		o.s = s
	}
}

// TestASessionResumesOnItsHostOnly is B43: a ticket opens only the host it was made
// for, whatever name the client sends, and the same again after a resumption.
func TestASessionResumesOnItsHostOnly(t *testing.T) {
	for _, version := range []uint16{tls.VersionTLS12, tls.VersionTLS13} {
		for _, hosts := range [][2]string{{"ok.test", "other.test"}, {"127.0.0.1", "127.0.0.2"}, {"127.0.0.1", "ok.test"}, {"ok.test", "::1"}} {
			t.Run(fmt.Sprint(tls.VersionName(version), hosts), func(t *testing.T) {
				s := testServer(t, Options{})
				cache := &oneSession{}
				try := func(host string) bool {
					t.Helper()
					got := s.handshake(t, host, bothProtos, &tls.Config{ServerName: host, InsecureSkipVerify: true, ClientSessionCache: cache, MaxVersion: version, NextProtos: bothProtos}, nil)
					if got.err != nil || got.clientErr != nil {
						t.Fatalf("%v; %v", got.err, got.clientErr)
					}
					if got.server.DidResume != got.client.DidResume {
						t.Error("the two sides disagree")
					}
					return got.server.DidResume
				}
				if try(hosts[0]) {
					t.Error("there was nothing to resume")
				}
				for range 3 {
					if !try(hosts[0]) {
						t.Error("it does not resume on its own host")
					}
				}
				first := cache.s
				if try(hosts[1]) {
					t.Error("it resumes on another host")
				}
				cache.s = first
				if !try(hosts[0]) {
					t.Error("it does not resume any more")
				}
			})
		}
	}
}

// TestAnotherDaemonsTicketsOpenNothing: the keys of tickets are one process's.
func TestAnotherDaemonsTicketsOpenNothing(t *testing.T) {
	cache := &oneSession{}
	for range 2 {
		s := testServer(t, Options{})
		got := s.handshake(t, "ok.test", nil, &tls.Config{ServerName: "ok.test", InsecureSkipVerify: true, ClientSessionCache: cache}, nil)
		if got.err != nil || got.server.DidResume {
			t.Errorf("resumed %v, %v", got.server.DidResume, got.err)
		}
	}
}

// TestAResumedSessionIsJudgedLikeAnyOther: a ticket does not spare the client the
// check of its name.
func TestAResumedSessionIsJudgedLikeAnyOther(t *testing.T) {
	s := testServer(t, Options{})
	cache := &oneSession{}
	cfg := &tls.Config{ServerName: "ok.test", InsecureSkipVerify: true, ClientSessionCache: cache}
	if got := s.handshake(t, "ok.test", nil, cfg, nil); got.err != nil {
		t.Fatal(got.err)
	}
	cfg.ServerName = "evil.test"
	if got := s.handshake(t, "ok.test", nil, cfg, nil); got.kind(t) != SNIMismatch {
		t.Errorf("%v", got.err)
	}
}

// splitter writes one byte at a time.
type splitter struct{ net.Conn }

func (s splitter) Write(p []byte) (int, error) {
	for i := range p {
		if _, err := s.Conn.Write(p[i : i+1]); err != nil {
			return i, err
		}
	}
	return len(p), nil
}

// reframer puts the first record's bytes into records of one byte.
type reframer struct {
	net.Conn
	done bool
}

func (r *reframer) Write(p []byte) (int, error) {
	if r.done {
		return r.Conn.Write(p)
	}
	r.done = true
	n := 5 + int(binary.BigEndian.Uint16(p[3:]))
	var out []byte
	for _, b := range p[5:n] {
		out = append(out, p[0], p[1], p[2], 0, 1, b)
	}
	_, err := r.Conn.Write(append(out, p[n:]...))
	return len(p), err
}

// TestAClientHelloMayComeInPieces is B14.
func TestAClientHelloMayComeInPieces(t *testing.T) {
	s := testServer(t, Options{})
	long := []string{"h2"}
	for i := range 120 {
		long = append(long, fmt.Sprintf("%03d%s", i, strings.Repeat("x", 200)))
	}
	for _, c := range []struct {
		rule    string
		through func(net.Conn) net.Conn
		protos  []string
		groups  []tls.CurveID
	}{
		{"segments of a byte", func(c net.Conn) net.Conn { return splitter{c} }, bothProtos, nil},
		{"records of a byte", func(c net.Conn) net.Conn { return &reframer{Conn: c} }, bothProtos, nil},
		{"more than 16 KiB", nil, long, nil},
		{"more than 16 KiB in segments of a byte", func(c net.Conn) net.Conn { return splitter{c} }, long, nil},
		{"a post-quantum share", nil, bothProtos, []tls.CurveID{tls.X25519MLKEM768, tls.X25519}},
	} {
		cfg := &tls.Config{ServerName: "ok.test", RootCAs: s.roots(), NextProtos: c.protos, CurvePreferences: c.groups}
		if got := s.handshake(t, "ok.test", bothProtos, cfg, c.through); got.err != nil || got.clientErr != nil || got.server.NegotiatedProtocol != "h2" {
			t.Errorf("%s: %v; the client sees %v", c.rule, got.err, got.clientErr)
		}
	}
}

// hello is what an ordinary client sends first.
func hello(t *testing.T, cfg *tls.Config) []byte {
	t.Helper()
	near, far := net.Pipe()
	go func() {
		tls.Client(near, cfg).Handshake()
		near.Close()
	}()
	defer far.Close()
	head := make([]byte, 5)
	io.ReadFull(far, head)
	body := make([]byte, binary.BigEndian.Uint16(head[3:]))
	if _, err := io.ReadFull(far, body); err != nil {
		t.Fatal(err)
	}
	return append(head, body...)
}

// with puts an extension before the others of a hello that has no session id other
// than 32 bytes.
func with(hello []byte, id uint16, data ...byte) []byte {
	out := bytes.Clone(hello)
	at := 5 + 4 + 2 + 32
	at += 1 + int(out[at])
	at += 2 + int(binary.BigEndian.Uint16(out[at:]))
	at += 1 + int(out[at])
	ext := binary.BigEndian.AppendUint16(nil, id)
	ext = binary.BigEndian.AppendUint16(ext, uint16(len(data)))
	ext = append(ext, data...)
	grow := func(at int) { binary.BigEndian.PutUint16(out[at:], binary.BigEndian.Uint16(out[at:])+uint16(len(ext))) }
	grow(3)
	grow(7)
	grow(at)
	return slices.Insert(out, at+2, ext...)
}

func serverName(names ...string) []byte {
	var list []byte
	for _, n := range names {
		list = append(list, 0)
		list = binary.BigEndian.AppendUint16(list, uint16(len(n)))
		list = append(list, n...)
	}
	return append(binary.BigEndian.AppendUint16(nil, uint16(len(list))), list...)
}

// noise is what a browser puts into an ECH extension when it has no key: type outer,
// a cipher suite, an id, and random bytes.
func noise() []byte {
	out := append([]byte{0, 0, 1, 0, 1, 7, 0, 32}, make([]byte, 32)...)
	return append(append(out, 0, 144), make([]byte, 144)...)
}

// TestHandmadeHellos is the rest of B13 and of B43: what no ordinary client sends.
func TestHandmadeHellos(t *testing.T) {
	s := testServer(t, Options{})
	nameless := hello(t, &tls.Config{InsecureSkipVerify: true, MinVersion: tls.VersionTLS12})
	named := with(nameless, 0, serverName("ok.test")...)
	export := hello(t, &tls.Config{ServerName: "ok.test", MaxVersion: tls.VersionTLS12, CipherSuites: []uint16{tls.TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256}})
	export = bytes.Replace(export, []byte{0, 2, 0xc0, 0x2b}, []byte{0, 2, 0, 3}, 1)
	for _, c := range []struct {
		rule, host string
		hello      []byte
		want       Kind
		alert      byte // 0: the server goes on
	}{
		{"one name", "ok.test", named, Closed, 0},
		{"two names", "ok.test", with(nameless, 0, serverName("ok.test", "evil.test")...), Malformed, 50},
		{"two equal names", "ok.test", with(nameless, 0, serverName("ok.test", "ok.test")...), Malformed, 50},
		{"two extensions with names", "ok.test", with(named, 0, serverName("evil.test")...), Malformed, 50},
		{"an address as name", "127.0.0.1", with(nameless, 0, serverName("127.0.0.1")...), SNIMismatch, 112},
		{"another address as name", "ok.test", with(nameless, 0, serverName("127.0.0.1")...), SNIMismatch, 112},
		{"a zero in the name", "ok.test", with(nameless, 0, serverName("ok.test\x00.evil.test")...), SNIMismatch, 112},
		{"a dot behind the name", "ok.test", with(nameless, 0, serverName("ok.test.")...), Malformed, 50},
		{"an empty name", "ok.test", with(nameless, 0, serverName("")...), Malformed, 50},
		{"ECH noise and the right name", "ok.test", with(named, extensionECH, noise()...), Closed, 0},
		{"ECH noise and another name", "ok.test", with(with(nameless, 0, serverName("cover.test")...), extensionECH, noise()...), SNIMismatch, 112},
		{"ECH noise and no name", "ok.test", with(nameless, extensionECH, noise()...), NoSNI, 112},
		{"early data", "ok.test", with(named, extensionEarlyData), EarlyData, 110},
		{"an export cipher", "ok.test", export, Malformed, 40},
		{"not TLS", "ok.test", []byte("GET / HTTP/1.1\r\nHost: ok.test\r\n\r\n"), Malformed, 0},
		{"half a hello", "ok.test", named[:50], Closed, 0},
		{"nothing", "ok.test", nil, Closed, 0},
	} {
		t.Run(c.rule, func(t *testing.T) {
			near, far := loopback(t)
			done := make(chan outcome)
			go func() {
				_, err := s.Handshake(context.Background(), far, c.host, bothProtos)
				far.Close()
				done <- outcome{err: err}
			}()
			near.Write(c.hello)
			near.(*net.TCPConn).CloseWrite()
			answer, _ := io.ReadAll(near)
			if kind := (<-done).kind(t); kind != c.want {
				t.Errorf("%q, want %q", kind, c.want)
			}
			if alert := c.alert != 0; alert && (len(answer) != 7 || answer[0] != 21 || answer[6] != c.alert) || !alert && len(answer) > 0 && c.want != Malformed && answer[0] != 22 {
				t.Errorf("the client is sent % x, want alert %d", answer[:min(len(answer), 16)], c.alert)
			}
		})
	}
}

// echList is the configuration a client would find in the DNS for an origin behind
// cover.
func echList(t *testing.T, cover string) []byte {
	t.Helper()
	key, err := ecdh.X25519().GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	body := []byte{7, 0, 0x20, 0, 32}
	body = append(body, key.PublicKey().Bytes()...)
	body = append(body, 0, 4, 0, 1, 0, 1, 64, byte(len(cover)))
	body = append(append(body, cover...), 0, 0)
	config := binary.BigEndian.AppendUint16([]byte{0xfe, 0x0d}, uint16(len(body)))
	config = append(config, body...)
	return append(binary.BigEndian.AppendUint16(nil, uint16(len(config))), config...)
}

// TestAHiddenNameIsNeverServed: a client that hides another name behind the tunnel's
// host is answered as that host and goes away; behind another name it is refused.
func TestAHiddenNameIsNeverServed(t *testing.T) {
	s := testServer(t, Options{})
	client := func(cover string) outcome {
		return s.handshake(t, "ok.test", nil, &tls.Config{ServerName: "evil.test", RootCAs: s.roots(), EncryptedClientHelloConfigList: echList(t, cover)}, nil)
	}
	got := client("ok.test")
	if _, rejected := errors.AsType[*tls.ECHRejectionError](got.clientErr); !rejected || got.server.ServerName != "ok.test" || got.server.ECHAccepted {
		t.Errorf("served %q, %v; the client sees %v", got.server.ServerName, got.err, got.clientErr)
	}
	if got = client("cover.test"); got.kind(t) != SNIMismatch || !strings.Contains(got.err.Error(), "hides the real one") {
		t.Errorf("%v", got.err)
	}
}

func TestAClientWithoutTheCAIsExplained(t *testing.T) {
	s := testServer(t, Options{})
	for _, version := range []uint16{tls.VersionTLS12, tls.VersionTLS13} {
		got := s.handshake(t, "ok.test", nil, &tls.Config{ServerName: "ok.test", RootCAs: x509.NewCertPool(), MaxVersion: version}, nil)
		if got.kind(t) != Untrusted || !strings.Contains(got.err.Error(), "bundle") {
			t.Errorf("%s: %v", tls.VersionName(version), got.err)
		}
	}
}

func TestTooManyNewNamesAreExplained(t *testing.T) {
	s := testServer(t, Options{MintBurst: 1, MintsPerSecond: 1, MintWait: time.Nanosecond})
	cfg := &tls.Config{InsecureSkipVerify: true, ServerName: "a.test"}
	if got := s.handshake(t, "a.test", nil, cfg, nil); got.err != nil {
		t.Fatal(got.err)
	}
	cfg.ServerName = "b.test"
	if got := s.handshake(t, "b.test", nil, cfg, nil); got.kind(t) != Busy || !errors.Is(got.err, ErrBusy) && got.err.(*Error).Reason() != core.ReasonTooManyConnections {
		t.Errorf("%v", got.err)
	}
}

func TestNoCertificateIsOurFault(t *testing.T) {
	s := testServer(t, Options{})
	s.leaves.now = func() time.Time { return s.leaves.ca.cert.NotAfter }
	if got := s.handshake(t, "ok.test", nil, &tls.Config{ServerName: "ok.test"}, nil); got.kind(t) != Internal {
		t.Errorf("%v", got.err)
	}
}

// TestAHandshakeIsBoundedInTime, by its connection: silence and single bytes are the same.
func TestAHandshakeIsBoundedInTime(t *testing.T) {
	whole := hello(t, &tls.Config{ServerName: "ok.test"})
	for _, c := range []struct {
		rule   string
		pause  time.Duration
		cancel bool
		want   Kind
	}{
		{"silence", time.Hour, false, Timeout},
		{"a byte a second", time.Second, false, Timeout},
		{"the daemon stops", time.Second, true, Stopped},
	} {
		t.Run(c.rule, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				s := testServer(t, Options{})
				near, far := net.Pipe()
				_ = far.SetDeadline(time.Now().Add(10 * time.Second))
				ctx, cancel := context.WithCancel(context.Background())
				defer cancel()
				if c.cancel {
					time.AfterFunc(5*time.Second, func() { cancel(); _ = far.SetDeadline(time.Now()) })
				}
				go func() {
					for _, b := range whole {
						select {
						case <-ctx.Done():
							return
						case <-time.After(c.pause):
						}
						if _, err := near.Write([]byte{b}); err != nil {
							return
						}
					}
				}()
				begun := time.Now()
				_, err := s.Handshake(ctx, far, "ok.test", nil)
				near.Close()
				cancel()
				if kind := (outcome{err: err}).kind(t); kind != c.want || time.Since(begun) > 10*time.Second {
					t.Errorf("%v after %v", err, time.Since(begun))
				}
			})
		})
	}
}

func TestConfigurationsArePerHostAndNotPerConnection(t *testing.T) {
	s := testServer(t, Options{})
	l := mustGet(t, s.leaves, "ok.test")
	a := &attempt{host: "ok.test", protos: bothProtos}
	first := l.config(s.base, a)
	if l.config(s.base, a) != first {
		t.Error("two connections have two configurations")
	}
	for i := range 2 * maxConfigs {
		l.config(s.base, &attempt{host: "ok.test", protos: []string{fmt.Sprint(i)}})
	}
	if l.config(s.base, a) != first || len(l.known) != maxConfigs {
		t.Errorf("%d configurations are kept", len(l.known))
	}
}
