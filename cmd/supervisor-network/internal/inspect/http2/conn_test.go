package http2

import (
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"errors"
	"io"
	"math/big"
	"net"
	"net/http"
	"runtime"
	"sync"
	"testing"
	"time"

	"golang.org/x/net/http2"
	"golang.org/x/net/http2/hpack"
)

const host = "origin.test"

// patience is what a test has for what comes at once where nothing else runs. It ends a
// test that failed, and is no part of what is asserted.
const patience = 4 * time.Minute

// next is what comes on a channel; the test fails when nothing does.
func next[T any](t testing.TB, from <-chan T) (v T) {
	t.Helper()
	late := time.NewTimer(patience)
	defer late.Stop()
	select {
	case v = <-from:
	case <-late.C:
		t.Fatalf("nothing came\n%s", stacks())
	}
	return v
}

// held keeps a handler until the test lets it go on, or has failed.
func held(t testing.TB, release <-chan struct{}) {
	select {
	case <-release:
	case <-t.Context().Done():
	}
}

func stacks() []byte {
	buf := make([]byte, 1<<20)
	return buf[:runtime.Stack(buf, true)]
}

// certificate makes one for the test's host.
var certificate = sync.OnceValue(func() tls.Certificate {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		panic(err)
	}
	template := &x509.Certificate{SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "test"}, DNSNames: []string{host}, NotAfter: time.Now().Add(time.Hour), IsCA: true, BasicConstraintsValid: true}
	der, err := x509.CreateCertificate(rand.Reader, template, template, &key.PublicKey, key)
	if err != nil {
		panic(err)
	}
	leaf, err := x509.ParseCertificate(der)
	if err != nil {
		panic(err)
	}
	return tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key, Leaf: leaf}
})

func roots() *x509.CertPool {
	pool := x509.NewCertPool()
	pool.AddCert(certificate().Leaf)
	return pool
}

// front serves every connection of a loopback listener as a tunnel to host:443, or to
// the listener's own port of a host that the test names.
type front struct {
	addr   string
	stats  chan Stats
	drain  context.CancelFunc // closes their Options.Stopping
	cancel context.CancelFunc // ends the context of the connections
	stop   func()             // ends everything
}

func serve(t testing.TB, o Options, handle Handler) *front {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	stopping, drain := context.WithCancel(ctx)
	o.Stopping = stopping.Done()
	f := &front{addr: l.Addr().String(), stats: make(chan Stats, 64), drain: drain, cancel: cancel}
	if o.Host == "" {
		o.Host, o.Port = host, 443
	} else {
		o.Port = uint16(l.Addr().(*net.TCPAddr).Port)
	}
	config := &tls.Config{Certificates: []tls.Certificate{certificate()}, NextProtos: []string{"h2"}}
	var running sync.WaitGroup
	running.Go(func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			running.Go(func() {
				conn := tls.Server(c, config)
				if conn.HandshakeContext(ctx) != nil {
					c.Close()
					return
				}
				stats := Serve(ctx, conn, o, handle)
				select {
				case f.stats <- stats:
				default: // a test with many connections reads none
				}
			})
		}
	})
	f.stop = func() {
		cancel()
		l.Close()
		ended := make(chan struct{})
		go func() {
			running.Wait()
			close(ended)
		}()
		select {
		case <-ended:
		case <-time.After(patience):
			t.Errorf("a connection or a handler does not end\n%s", stacks())
		}
	}
	t.Cleanup(f.stop)
	return f
}

// raw is a client that sends frames as it likes.
type raw struct {
	t    testing.TB
	conn *tls.Conn
	fr   *http2.Framer
	buf  bytes.Buffer
	enc  *hpack.Encoder
}

func dial(t testing.TB, f *front) *raw {
	t.Helper()
	conn, err := tls.DialWithDialer(&net.Dialer{Timeout: patience}, "tcp", f.addr, &tls.Config{ServerName: host, RootCAs: roots(), NextProtos: []string{"h2"}})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	conn.SetDeadline(time.Now().Add(patience))
	return newRaw(t, conn)
}

func newRaw(t testing.TB, conn *tls.Conn) *raw {
	r := &raw{t: t, conn: conn, fr: http2.NewFramer(conn, conn)}
	r.enc = hpack.NewEncoder(&r.buf)
	r.fr.ReadMetaHeaders = hpack.NewDecoder(4096, nil)
	r.fr.AllowIllegalWrites = true
	return r
}

// hello completes the exchange of settings.
func (r *raw) hello(settings ...http2.Setting) *raw {
	r.t.Helper()
	_, err := io.WriteString(r.conn, http2.ClientPreface)
	r.ok(err)
	r.ok(r.fr.WriteSettings(settings...))
	for acked := false; !acked; {
		f, err := r.fr.ReadFrame()
		r.ok(err)
		if s, ok := f.(*http2.SettingsFrame); ok {
			if acked = s.IsAck(); !acked {
				r.ok(r.fr.WriteSettingsAck())
			}
		}
	}
	return r
}

func (r *raw) ok(err error) {
	r.t.Helper()
	if err != nil {
		r.t.Fatal(err)
	}
}

// field is a header field; its order and spelling are kept.
type field = hpack.HeaderField

func fields(pairs ...string) []field {
	var out []field
	for i := 0; i < len(pairs); i += 2 {
		out = append(out, field{Name: pairs[i], Value: pairs[i+1]})
	}
	return out
}

// get is a well-formed request, with more fields behind it.
func get(more ...string) []field {
	return append(fields(":method", "GET", ":scheme", "https", ":authority", host, ":path", "/"), fields(more...)...)
}

func (r *raw) block(list []field) []byte {
	r.buf.Reset()
	for _, f := range list {
		r.ok(r.enc.WriteField(f))
	}
	return bytes.Clone(r.buf.Bytes())
}

func (r *raw) headers(stream uint32, end bool, list []field) {
	r.t.Helper()
	r.ok(r.fr.WriteHeaders(http2.HeadersFrameParam{StreamID: stream, BlockFragment: r.block(list), EndStream: end, EndHeaders: true}))
}

// reply is how a stream, or the connection, was answered.
type reply struct {
	status  string
	fields  map[string]string
	body    string
	trailer map[string]string
	reset   http2.ErrCode // 0 when it was not reset
	away    http2.ErrCode // of a GOAWAY
	closed  bool          // the connection ended
}

// answer reads until the stream has ended.
func (r *raw) answer(stream uint32) (out reply) {
	r.t.Helper()
	for {
		f, err := r.fr.ReadFrame()
		if err != nil {
			if ne, ok := errors.AsType[net.Error](err); ok && ne.Timeout() {
				r.t.Fatal("the stream was not answered")
			}
			out.closed = true
			return out
		}
		switch f := f.(type) {
		case *http2.GoAwayFrame:
			out.away = f.ErrCode
		case *http2.RSTStreamFrame:
			if f.StreamID == stream {
				out.reset = f.ErrCode
				return out
			}
		case *http2.MetaHeadersFrame:
			if f.StreamID != stream {
				continue
			}
			m := make(map[string]string)
			for _, hf := range f.RegularFields() {
				m[hf.Name] = hf.Value
			}
			if s := f.PseudoValue("status"); s != "" {
				out.status, out.fields = s, m
			} else {
				out.trailer = m
			}
			if f.StreamEnded() {
				return out
			}
		case *http2.DataFrame:
			if f.StreamID != stream {
				continue
			}
			out.body += string(f.Data())
			if f.StreamEnded() {
				return out
			}
		}
	}
}

// alive shows that the connection still serves.
func (r *raw) alive(stream uint32) {
	r.t.Helper()
	r.headers(stream, true, get())
	if a := r.answer(stream); a.status != "200" {
		r.t.Fatalf("the connection serves no more: %+v", a)
	}
}

// ended shows that the connection has ended.
func (r *raw) ended() (away http2.ErrCode) {
	r.t.Helper()
	for {
		f, err := r.fr.ReadFrame()
		if ne, ok := errors.AsType[net.Error](err); ok && ne.Timeout() {
			r.t.Fatal("the connection did not end")
		}
		if err != nil {
			return away
		}
		if g, ok := f.(*http2.GoAwayFrame); ok {
			away = g.ErrCode
		}
	}
}

// hello answers every stream.
func hello(ctx context.Context, s *Stream) {
	_ = s.Respond(ctx, response("hello", "Content-Type", "text/plain"))
}

// response is what an origin answers.
func response(body string, headers ...string) *http.Response {
	h := make(http.Header)
	for i := 0; i < len(headers); i += 2 {
		h.Add(headers[i], headers[i+1])
	}
	return &http.Response{StatusCode: 200, Header: h, ContentLength: -1, Body: io.NopCloser(bytes.NewReader([]byte(body)))}
}

// baseline returns a check that no goroutine of this test is left.
func baseline(t *testing.T) func() {
	before := runtime.NumGoroutine()
	return func() {
		t.Helper()
		deadline := time.Now().Add(patience)
		for runtime.NumGoroutine() > before {
			if time.Now().After(deadline) {
				t.Fatalf("%d goroutines, before %d\n%s", runtime.NumGoroutine(), before, stacks())
			}
			runtime.Gosched()
			time.Sleep(time.Millisecond) // not a wait for an event: the check is repeated
		}
	}
}
