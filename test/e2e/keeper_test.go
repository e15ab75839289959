package e2e_test

import (
	"bufio"
	"bytes"
	"crypto/tls"
	"fmt"
	"io"
	"net"
	"net/http"
	"slices"
	"sync"
	"testing"

	"github.com/splitpod/splitpod/test/world"
)

// keeper is an origin that keeps every byte it gets, beneath TLS where it speaks that,
// and answers what it takes for requests.
type keeper struct {
	mu          sync.Mutex
	bytes       bytes.Buffer
	requests    []string // "METHOD target", as they came
	connections int
	open        []net.Conn
}

// watch opens a keeper; without a config it speaks plain HTTP.
func watch(t *testing.T, port int, config *tls.Config) *keeper {
	t.Helper()
	l, err := net.Listen("tcp", net.JoinHostPort(world.Address, fmt.Sprint(port)))
	must(t, err)
	c := &keeper{}
	t.Cleanup(func() { l.Close(); c.hangUp() })
	go func() {
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			c.mu.Lock()
			c.connections++
			c.open = append(c.open, conn)
			c.mu.Unlock()
			if config != nil {
				conn = tls.Server(conn, config)
			}
			go c.serve(conn)
		}
	}()
	return c
}

// Write keeps bytes that arrived.
func (c *keeper) Write(p []byte) (int, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.bytes.Write(p)
}

func (c *keeper) serve(conn net.Conn) {
	defer conn.Close()
	r := bufio.NewReader(io.TeeReader(conn, c))
	for {
		req, err := http.ReadRequest(r)
		if err != nil {
			return
		}
		c.mu.Lock()
		c.requests = append(c.requests, req.Method+" "+req.RequestURI)
		c.mu.Unlock()
		if _, err := io.Copy(io.Discard, req.Body); err != nil {
			return
		}
		body := "arrived"
		if req.Method == "HEAD" {
			body = ""
		}
		if _, err := fmt.Fprintf(conn, "HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%s", len("arrived"), body); err != nil {
			return
		}
	}
}

// seen is what arrived since the last call.
func (c *keeper) seen() (requests []string, raw string, connections int) {
	c.mu.Lock()
	defer c.mu.Unlock()
	requests, raw, connections = slices.Clone(c.requests), c.bytes.String(), c.connections
	c.requests, c.connections = nil, 0
	c.bytes.Reset()
	return requests, raw, connections
}

// hangUp closes every connection.
func (c *keeper) hangUp() {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, conn := range c.open {
		conn.Close()
	}
	c.open = nil
}
