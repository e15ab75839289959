package h2

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"io"
	"math/big"
	"net"
	"net/http"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/splitpod/splitpod/cmd/supervisor-network/internal/decide"
	"github.com/splitpod/splitpod/cmd/supervisor-network/internal/http1"
	"github.com/splitpod/splitpod/cmd/supervisor-network/internal/inspect/http2"
	"github.com/splitpod/splitpod/pkg/core"
	"github.com/splitpod/splitpod/pkg/core/policy"
)

const host = "origin.test"

// permit is the right to reach host:443, decided as ever.
func permit(t testing.TB, name string, generation core.Generation) decide.Permit {
	t.Helper()
	doc, _, err := policy.Parse("policy.yaml", []byte(`
version: 1
network_policies:
  origins:
    endpoints:
      - { host: origin.test, port: 443 }
      - { host: other.test, port: 443 }
    binaries: [ { path: /bin/agent } ]
`))
	if err != nil {
		t.Fatal(err)
	}
	s, err := decide.Compile(t.Context(), doc, decide.Options{Generation: generation})
	if err != nil {
		t.Fatal(err)
	}
	who := &core.Identity{Status: core.IdentityKnown, Program: core.Program{Path: "/bin/agent"}}
	p, denial := s.Connection(t.Context(), decide.Question{Who: who, Host: name, Port: 443})
	if denial != nil {
		t.Fatal(denial.Detail)
	}
	return p
}

var certificate = sync.OnceValue(func() tls.Certificate {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		panic(err)
	}
	template := &x509.Certificate{SerialNumber: big.NewInt(1), DNSNames: []string{host, "other.test"}, NotAfter: time.Now().Add(time.Hour), IsCA: true, BasicConstraintsValid: true}
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

func listen(t testing.TB) net.Listener {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	return l
}

func secured(l net.Listener, protocols ...string) net.Listener {
	return tls.NewListener(l, &tls.Config{Certificates: []tls.Certificate{certificate()}, NextProtos: protocols})
}

// pool is a Pool whose connections all go to addr, and the number it dialled.
func pool(t testing.TB, addr string, cfg Config) (*Pool, *atomic.Int32) {
	t.Helper()
	dialled := new(atomic.Int32)
	if cfg.Dial == nil {
		cfg.Dial = func(ctx context.Context, p decide.Permit) (*tls.Conn, error) {
			dialled.Add(1)
			d := tls.Dialer{Config: &tls.Config{ServerName: p.Host(), RootCAs: roots(), NextProtos: []string{"h2"}}}
			c, err := d.DialContext(ctx, "tcp", addr)
			if err != nil {
				return nil, err
			}
			return c.(*tls.Conn), nil
		}
	}
	p := New(cfg)
	t.Cleanup(p.Close)
	return p, dialled
}

// origin is an HTTP/2 server.
func httpOrigin(t testing.TB, h http.HandlerFunc, change func(*http.Server)) string {
	t.Helper()
	l := listen(t)
	hs := &http.Server{Handler: h, TLSConfig: &tls.Config{Certificates: []tls.Certificate{certificate()}, NextProtos: []string{"h2"}}}
	if change != nil {
		change(hs)
	}
	done := make(chan struct{})
	go func() {
		defer close(done)
		_ = hs.ServeTLS(l, "", "")
	}()
	t.Cleanup(func() {
		hs.Close()
		<-done
	})
	return l.Addr().String()
}

// tunnel serves loopback connections as a workload's tunnel to host:443: what judge
// lets pass goes to the pool. judge may give the stream a context of its own.
func tunnel(t testing.TB, p *Pool, judge func(context.Context, *http2.Stream) (context.Context, *http1.ErrorBody)) string {
	t.Helper()
	right := permit(t, host, 1)
	l := secured(listen(t), "h2")
	ctx, cancel := context.WithCancel(context.Background())
	var running sync.WaitGroup
	running.Go(func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			running.Go(func() {
				conn := c.(*tls.Conn)
				if conn.HandshakeContext(ctx) != nil {
					conn.Close()
					return
				}
				http2.Serve(ctx, conn, http2.Options{Host: host, Port: 443}, func(ctx context.Context, s *http2.Stream) {
					if judge != nil {
						var denied *http1.ErrorBody
						if ctx, denied = judge(ctx, s); denied != nil {
							_ = s.Deny(http.StatusForbidden, denied.Error, denied.Detail, core.RequestID(denied.RequestID), *denied)
							return
						}
					}
					resp, err := p.RoundTrip(ctx, right, s.ToOrigin(ctx))
					if err != nil {
						s.Lost(err)
						_ = s.Deny(http.StatusBadGateway, core.ReasonUpstreamInvalid, err.Error(), "", http1.ErrorBody{Error: core.ReasonUpstreamInvalid, Detail: err.Error()})
						return
					}
					_ = s.Respond(ctx, resp)
				})
			})
		}
	})
	t.Cleanup(func() {
		cancel()
		l.Close()
		running.Wait()
	})
	return l.Addr().String()
}

func request(t testing.TB, method string, body io.Reader) *http.Request {
	t.Helper()
	r, err := http.NewRequestWithContext(t.Context(), method, "https://"+host+"/", body)
	if err != nil {
		t.Fatal(err)
	}
	return r
}

// get sends a GET and reads its answer.
func get(t testing.TB, p *Pool, right decide.Permit) (*http.Response, string) {
	t.Helper()
	resp, err := p.RoundTrip(t.Context(), right, request(t, "GET", nil))
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	return resp, string(b)
}
