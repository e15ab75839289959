package mint

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/splitpod/splitpod/test/need"
)

// serve answers every connection for host like a small origin, and says where.
func serve(t *testing.T, s *Server, host string) (port string) {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	go func() {
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			go func() {
				defer conn.Close()
				c, err := s.Handshake(context.Background(), conn, host, []string{"http/1.1"})
				if err != nil {
					return
				}
				c.SetDeadline(time.Now().Add(time.Minute))
				if _, err := c.Read(make([]byte, 4096)); err == nil {
					fmt.Fprintf(c, "HTTP/1.1 200 OK\r\nContent-Length: 5\r\nConnection: close\r\n\r\nhello")
				}
				c.Close()
			}()
		}
	}()
	_, port, _ = net.SplitHostPort(l.Addr().String())
	return port
}

// TestOtherProgramsAgree: OpenSSL and curl, with our CA file only, see what Go's
// client sees.
func TestOtherProgramsAgree(t *testing.T) {
	openssl, curl := need.Program(t, "openssl"), need.Program(t, "curl")
	s := testServer(t, Options{})
	ca := filepath.Join(t.TempDir(), "ca.pem")
	if err := s.leaves.ca.WriteCertificate(ca); err != nil {
		t.Fatal(err)
	}
	name, address := serve(t, s, "ok.test"), serve(t, s, "127.0.0.1")
	session := filepath.Join(t.TempDir(), "session")
	client := func(port string, more ...string) []string { // -ign_eof: it reads, tickets too, until the server has ended
		return append([]string{openssl, "s_client", "-ign_eof", "-connect", "127.0.0.1:" + port, "-CAfile", ca, "-verify_return_error"}, more...)
	}
	for _, c := range []struct {
		rule    string
		command []string
		want    string
	}{
		{"curl and a name", []string{curl, "-sS", "--cacert", ca, "--resolve", "ok.test:" + name + ":127.0.0.1", "https://ok.test:" + name + "/"}, "hello"},
		{"curl and an address", []string{curl, "-sS", "--cacert", ca, "https://127.0.0.1:" + address + "/"}, "hello"},
		{"curl and another name", []string{curl, "-sS", "--cacert", ca, "--resolve", "evil.test:" + name + ":127.0.0.1", "https://evil.test:" + name + "/"}, "unrecognized name"},
		{"TLS 1.3", client(name, "-servername", "ok.test", "-verify_hostname", "ok.test", "-tls1_3", "-sess_out", session), "Verify return code: 0 (ok)"},
		{"TLS 1.3 resumed", client(name, "-servername", "ok.test", "-tls1_3", "-sess_in", session), "Reused, TLSv1.3"},
		{"a ticket of another host", client(address, "-noservername", "-tls1_3", "-sess_in", session), "New, TLSv1.3"},
		{"no early data in tickets", client(name, "-servername", "ok.test", "-tls1_3"), "Max Early Data: 0"},
		{"TLS 1.2", client(name, "-servername", "ok.test", "-verify_hostname", "ok.test", "-tls1_2", "-sess_out", session), "Verify return code: 0 (ok)"},
		{"TLS 1.2 resumed", client(name, "-servername", "ok.test", "-tls1_2", "-sess_in", session), "Reused, TLSv1.2"},
		{"TLS 1.1", client(name, "-servername", "ok.test", "-tls1_1", "-cipher", "ALL:@SECLEVEL=0"), "alert protocol version"},
		{"TLS 1.0", client(name, "-servername", "ok.test", "-tls1", "-cipher", "ALL:@SECLEVEL=0"), "alert protocol version"},
		{"no name", client(name, "-noservername"), "unrecognized name"},
		{"another name", client(name, "-servername", "evil.test"), "unrecognized name"},
		{"an address as name", client(address, "-servername", "127.0.0.1"), "unrecognized name"},
		{"no protocol in common", client(name, "-servername", "ok.test", "-alpn", "h2"), "alert no application protocol"},
	} {
		t.Run(c.rule, func(t *testing.T) {
			ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
			defer cancel()
			cmd := exec.CommandContext(ctx, c.command[0], c.command[1:]...)
			cmd.Stdin = strings.NewReader("GET / HTTP/1.1\r\nHost: ok.test\r\n\r\n")
			out, _ := cmd.CombinedOutput()
			if !bytes.Contains(out, []byte(c.want)) {
				t.Errorf("no %q in:\n%s", c.want, out)
			}
		})
	}
}

// A client that does not know the sandbox's CA is told apart from a broken one,
// whichever way it says so.
func TestAClientThatDoesNotTrustTheCAIsTold(t *testing.T) {
	curl := need.Program(t, "curl")
	s := testServer(t, Options{})
	for _, version := range [][]string{{"--tlsv1.3"}, {"--tls-max", "1.2"}} {
		l, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		defer l.Close()
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		defer cancel()
		cmd := exec.CommandContext(ctx, curl, append(version, "-sS", "--connect-to", "ok.test:443:"+l.Addr().String(), "https://ok.test/")...)
		done := make(chan struct{})
		go func() { defer close(done); _ = cmd.Run() }()
		c, err := l.Accept()
		if err != nil {
			t.Fatal(err)
		}
		_, err = s.Handshake(ctx, c, "ok.test", []string{"http/1.1"})
		c.Close()
		<-done
		if e, ok := errors.AsType[*Error](err); !ok || e.Kind != Untrusted || !strings.Contains(e.Detail, "CA bundle") {
			t.Errorf("%s: %v", version, err)
		}
	}
}
