package e2e_test

import (
	"bufio"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"io"
	"net/http"
	"slices"
	"testing"
	"time"
)

// TestTheCertificateThatClientsSee (row 22): one of the sandbox's CA for the tunnel's host
// alone where TLS is terminated, the origin's own where it is skipped, in both versions of
// TLS; a session is resumed, and what a skipped tunnel carries arrives untouched.
func TestTheCertificateThatClientsSee(t *testing.T) {
	const host = "api.demo.test"
	cert, err := origins.Certificate(nil)
	must(t, err)
	terminated, rules, skipped := keeperInTLS(t, 7031, cert), keeperInTLS(t, 7032, cert), keeperInTLS(t, 7033, cert)
	p := standalone(t, "version: 1\n"+who+`network_policies:
  all:
    endpoints:
      - {host: api.demo.test, port: 7031}
      - {host: api.demo.test, port: 7032, protocol: rest, enforcement: enforce, access: read-only}
      - {host: api.demo.test, port: 7033, tls: skip}
    binaries: [{path: /usr/bin/curl}]
`)
	roots := p.interceptionRoots()
	for port, origin := range map[int]*keeper{7031: terminated, 7032: rules, 7033: skipped} {
		for _, version := range []uint16{tls.VersionTLS12, tls.VersionTLS13} {
			t.Run(fmt.Sprintf("port %d, %s", port, tls.VersionName(version)), func(t *testing.T) {
				config := &tls.Config{ServerName: host, InsecureSkipVerify: true, MinVersion: version, MaxVersion: version, ClientSessionCache: tls.NewLRUClientSessionCache(2)}
				sent := fmt.Sprintf("GET /a HTTP/1.1\r\nhOST:%s:%d\r\nConnection: close\r\n\r\n", host, port)
				for _, resumed := range []bool{false, true} {
					c, _ := connect(t, fmt.Sprintf("%s:%d", host, port))
					tc := tls.Client(c, config)
					must(t, tc.Handshake())
					_, err := io.WriteString(tc, sent)
					must(t, err)
					resp, err := http.ReadResponse(bufio.NewReader(tc), nil)
					must(t, err)
					if body, err := io.ReadAll(resp.Body); err != nil || resp.StatusCode != 200 || string(body) != "arrived" {
						t.Errorf("the answer is %s %q, %v", resp.Status, body, err)
					}
					if state := tc.ConnectionState(); state.Version != version || state.DidResume != resumed {
						t.Errorf("%s, resumed %v, want %v", tls.VersionName(state.Version), state.DidResume, resumed)
					}
					c.Close()
					leaf := tc.ConnectionState().PeerCertificates[0]
					if port == 7033 {
						if !slices.Equal(leaf.Raw, cert.Certificate[0]) {
							t.Errorf("not the origin's certificate: issued by %s", leaf.Issuer)
						}
					} else {
						ofTheSandbox(t, leaf, roots, host)
					}
					requests, raw, _ := origin.seen()
					if !slices.Equal(requests, []string{"GET /a"}) || (raw == sent) != (port == 7033) {
						t.Errorf("the origin got %q", raw)
					}
				}
			})
		}
	}
}

// keeperInTLS is a keeper that answers inside TLS, and resumes sessions.
func keeperInTLS(t *testing.T, port int, cert tls.Certificate) *keeper {
	t.Helper()
	return watch(t, port, &tls.Config{Certificates: []tls.Certificate{cert}})
}

// ofTheSandbox checks a certificate that the daemon made.
func ofTheSandbox(t *testing.T, leaf *x509.Certificate, roots *x509.CertPool, host string) {
	t.Helper()
	if _, err := leaf.Verify(x509.VerifyOptions{DNSName: host, Roots: roots}); err != nil {
		t.Error(err)
	}
	if leaf.Issuer.CommonName != "Splitpod Sandbox CA" || !slices.Equal(leaf.DNSNames, []string{host}) || len(leaf.IPAddresses)+len(leaf.URIs)+len(leaf.EmailAddresses) > 0 || leaf.IsCA {
		t.Errorf("issued by %s for %v, %v", leaf.Issuer, leaf.DNSNames, leaf.IPAddresses)
	}
	if life := leaf.NotAfter.Sub(leaf.NotBefore); life > 8*24*time.Hour || time.Since(leaf.NotBefore) < 30*time.Minute {
		t.Errorf("good from %s for %s", leaf.NotBefore, life)
	}
	if key, ok := leaf.PublicKey.(*ecdsa.PublicKey); !ok || key.Curve != elliptic.P256() {
		t.Errorf("its key is %T", leaf.PublicKey)
	}
}
