package e2e_test

import (
	"bufio"
	"crypto/tls"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/splitpod/splitpod/test/world"
)

// TestAnOriginThatHangsUpUnannounced: the connection is gone when the next request
// comes, and it did not say so. A client that waited a moment does not notice.
func TestAnOriginThatHangsUpUnannounced(t *testing.T) {
	cert, err := origins.Certificate(nil)
	must(t, err)
	l, err := tls.Listen("tcp", net.JoinHostPort(world.Address, "7002"), &tls.Config{Certificates: []tls.Certificate{cert}})
	must(t, err)
	defer l.Close()
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			go func() {
				defer c.Close()
				req, err := http.ReadRequest(bufio.NewReader(c))
				if err != nil {
					return
				}
				n, _ := io.Copy(io.Discard, req.Body)
				body := fmt.Sprint("got ", n)
				fmt.Fprintf(c, "HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%s", len(body), body)
			}()
		}
	}()
	w := &clientWorld{}
	w.pair = standalone(t, attackPolicy)
	for _, version := range []int{1, 2} {
		c := w.client(version)
		for _, pause := range []time.Duration{0, 50 * time.Millisecond} {
			failed := map[string]int{}
			for range 15 {
				for method, body := range map[string]string{"GET": "", "POST": "0123456789"} {
					req, err := http.NewRequest(method, "https://api.demo.test:7002/ok/a", strings.NewReader(body))
					must(t, err)
					resp, err := c.Do(req)
					must(t, err)
					out, _ := io.ReadAll(resp.Body)
					resp.Body.Close()
					if resp.StatusCode != 200 || string(out) != fmt.Sprint("got ", len(body)) {
						failed[method]++
					}
					time.Sleep(pause)
				}
			}
			t.Logf("HTTP/%d, %v between requests: failed of 15: %v", version, pause, failed)
			if failed["GET"] > 0 || failed["POST"] > 0 && pause > 0 || failed["POST"] > 7 {
				t.Errorf("HTTP/%d, %v between requests: failed of 15: %v", version, pause, failed)
			}
		}
	}
}
