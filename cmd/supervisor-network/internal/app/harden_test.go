package app

import (
	"bufio"
	"bytes"
	"io"
	"log"
	"log/slog"
	"net"
	"net/http"
	"os"
	"strings"
	"testing"
)

// TestWhatALibrarySaysQuotesNobody: net/http logs what comes behind an answer, of which a
// server that repeats its request makes the key of that.
func TestWhatALibrarySaysQuotesNobody(t *testing.T) {
	said, logged := io.Pipe()
	overhear(slog.New(slog.NewTextHandler(logged, nil)))
	defer log.SetOutput(os.Stderr)
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	go func() {
		c, err := l.Accept()
		if err != nil {
			return
		}
		defer c.Close()
		r, err := http.ReadRequest(bufio.NewReader(c))
		if err == nil {
			_, _ = io.WriteString(c, "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n"+r.Header.Get("Authorization"))
		}
		_, _ = io.Copy(io.Discard, c)
	}()
	req, _ := http.NewRequest(http.MethodGet, "http://"+l.Addr().String(), nil)
	req.Header.Set("Authorization", "Bearer secret-key")
	resp, err := new(http.Transport).RoundTrip(req)
	if err != nil {
		t.Fatal(err)
	}
	resp.Body.Close()
	line := make([]byte, 4096)
	n, err := said.Read(line)
	if !bytes.Contains(line[:n], []byte("Unsolicited response")) || strings.Contains(string(line[:n]), "secret-key") {
		t.Errorf("%s, %v", line[:n], err)
	}
}
