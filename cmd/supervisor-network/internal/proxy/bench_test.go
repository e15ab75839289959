package proxy

import (
	"bufio"
	"bytes"
	"crypto/tls"
	"io"
	"net"
	"net/http/httptest"
	"strings"
	"testing"
	"time"
)

const (
	benchRequest = "GET /v1/items/17?page=2 HTTP/1.1\r\nHost: api.example.com\r\nUser-Agent: client/1.0\r\nAccept: */*\r\n" +
		"Accept-Encoding: gzip\r\nAuthorization: Bearer abcdefghijklmnop\r\n\r\n"
	benchHead = "HTTP/1.1 200 OK\r\nDate: Mon, 02 Nov 2026 10:00:00 GMT\r\nServer: origin\r\nContent-Type: application/json\r\n" +
		"Cache-Control: no-store\r\nVary: Accept-Encoding\r\nX-Request-Id: 6f1c2f5e-6f0f-4e9c-a9f2-d6f1f0aa1c55\r\n" +
		"Strict-Transport-Security: max-age=31536000\r\nX-Content-Type-Options: nosniff\r\nContent-Length: 1024\r\n\r\n"
)

// benchWorld keeps no records: they would be most of the memory.
func benchWorld(b *testing.B, endpoints ...string) *world {
	w := newWorld(b, time.Minute, endpoints...)
	w.records.mu.Lock()
	w.records.forget = true
	w.records.mu.Unlock()
	return w
}

// inspected has one origin, whose requests are judged.
func inspected(b *testing.B) *world {
	w := benchWorld(b, endpoint("api.example.com", 443, ", protocol: rest, enforcement: enforce, access: read-only, deny_rules: [{method: '*', path: /secret/**}]"))
	w.lead("api.example.com", 443, canned(b))
	return w
}

// BenchmarkKeepAlive is one inspected request on a connection that goes on, with its
// judgement and its record. Client and origin allocate nothing.
func BenchmarkKeepAlive(b *testing.B) {
	c := inspected(b).secure("api.example.com", "http/1.1")
	ask := exchanging(b)
	b.ReportAllocs()
	for b.Loop() {
		ask(c)
	}
}

// BenchmarkHandshake is the same on a connection of its own, from CONNECT to the end. The
// origin's is kept.
func BenchmarkHandshake(b *testing.B) {
	w, ask := inspected(b), exchanging(b)
	b.ReportAllocs()
	for b.Loop() {
		c := w.secure("api.example.com", "http/1.1")
		ask(c)
		c.Close()
	}
}

// exchanging makes one request after the other.
func exchanging(b *testing.B) func(c net.Conn) {
	request, answer := []byte(benchRequest), make([]byte, len(benchHead)+1024)
	return func(c net.Conn) {
		if _, err := c.Write(request); err != nil {
			b.Fatal(err)
		}
		if n, err := io.ReadFull(c, answer); err != nil || !bytes.HasPrefix(answer[:n], []byte("HTTP/1.1 200")) {
			b.Fatalf("%q, %v", answer[:n], err)
		}
	}
}

// BenchmarkStream is the same over HTTP/2, with net/http as the client.
func BenchmarkStream(b *testing.B) {
	client := inspected(b).client(true)
	b.ReportAllocs()
	for b.Loop() {
		resp, err := client.Get("https://api.example.com/v1/items/17?page=2")
		if err != nil {
			b.Fatal(err)
		}
		n, err := io.Copy(io.Discard, resp.Body)
		if resp.Body.Close(); err != nil || n != 1024 || resp.ProtoMajor != 2 {
			b.Fatal(n, err, resp.Proto)
		}
	}
}

// BenchmarkConnect is a raw tunnel to an origin that hangs up, from the client's
// connection to the end of both.
func BenchmarkConnect(b *testing.B) {
	w := benchWorld(b, endpoint("raw.example.com", 9001, ", protocol: tcp"))
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() { l.Close() })
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			c.Close()
		}
	}()
	w.lead("raw.example.com", 9001, l.Addr().String())
	request, answer := []byte("CONNECT raw.example.com:9001 HTTP/1.1\r\nHost: raw.example.com:9001\r\n\r\n"), make([]byte, 256)
	b.ReportAllocs()
	for b.Loop() {
		c, err := net.Dial("tcp", w.proxy)
		if err != nil {
			b.Fatal(err)
		}
		_, _ = c.Write(request)
		if n, err := io.ReadFull(c, answer); n != len(established) || string(answer[:n]) != established {
			b.Fatalf("%q, %v", answer[:n], err)
		}
		c.Close()
	}
}

// canned is an origin that says the same to everybody.
func canned(b *testing.B) string {
	s := httptest.NewUnstartedServer(nil)
	s.TLS = &tls.Config{}
	s.StartTLS() // for its certificate
	config := s.TLS.Clone()
	s.Close()
	config.NextProtos = []string{"http/1.1"}
	l, err := tls.Listen("tcp", "127.0.0.1:0", config)
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() { l.Close() })
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			go sayTheSame(c)
		}
	}()
	return l.Addr().String()
}

func sayTheSame(c net.Conn) {
	defer c.Close()
	r, reply := bufio.NewReader(c), []byte(benchHead+strings.Repeat("x", 1024))
	for {
		line, err := r.ReadSlice('\n')
		if err != nil {
			return
		}
		if len(line) > 2 {
			continue
		}
		if _, err := c.Write(reply); err != nil {
			return
		}
	}
}
