package mint

import (
	"context"
	"crypto/tls"
	"fmt"
	"net"
	"testing"
)

// BenchmarkMint is a new host: one signature, and the library's check of it.
func BenchmarkMint(b *testing.B) {
	l := testLeaves(b, Options{})
	n := 0
	for b.Loop() {
		if _, err := l.mint(fmt.Sprintf("h%d.test", n)); err != nil {
			b.Fatal(err)
		}
		n++
	}
}

// BenchmarkKnownHost is every connection after the first.
func BenchmarkKnownHost(b *testing.B) {
	l := testLeaves(b, Options{})
	b.ReportAllocs()
	for b.Loop() {
		if _, err := l.get("ok.test"); err != nil {
			b.Fatal(err)
		}
	}
}

// BenchmarkHandshake is both sides of one handshake over loopback, with its TCP
// connection.
func BenchmarkHandshake(b *testing.B) {
	for name, cache := range map[string]tls.ClientSessionCache{"full": nil, "resumed": tls.NewLRUClientSessionCache(1)} {
		b.Run(name, func(b *testing.B) {
			s := testServer(b, Options{})
			client := &tls.Config{ServerName: "ok.test", RootCAs: s.roots(), NextProtos: bothProtos, ClientSessionCache: cache}
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
					if c, err := s.Handshake(context.Background(), far, "ok.test", bothProtos); err == nil {
						c.Write([]byte("x"))
					}
					far.Close()
				}
			}()
			resumed := 0
			b.ReportAllocs()
			for b.Loop() {
				c, err := tls.Dial("tcp", l.Addr().String(), client)
				if err != nil {
					b.Fatal(err)
				}
				if _, err := c.Read(make([]byte, 1)); err != nil {
					b.Fatal(err)
				}
				if c.ConnectionState().DidResume {
					resumed++
				}
				c.Close()
			}
			if cache == nil && resumed > 0 || cache != nil && resumed < b.N-1 {
				b.Errorf("%d of %d resumed", resumed, b.N)
			}
		})
	}
}
