package openshell

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/base64"
	"encoding/pem"
	"fmt"
	"math/big"
	"os"
	"path/filepath"
	"testing"
	"time"
)

// Token is one that ends at a time, as a gateway makes them; name tells them apart.
func Token(name string, end time.Time) string {
	part := func(s string) string { return base64.RawURLEncoding.EncodeToString([]byte(s)) }
	return part(`{"alg":"EdDSA"}`) + "." + part(fmt.Sprintf(`{"sub":%q,"exp":%d}`, name, end.Unix())) + "." + part("no signature of "+name)
}

// Certificates makes an authority and writes its certificate, and one of a client, to files;
// the server's own is for name, and wants the client's if that is demanded.
func Certificates(t testing.TB, dir, name string, demand bool) (server *tls.Config, ca, cert, key string) {
	t.Helper()
	now := time.Now()
	template := func(n int64) *x509.Certificate {
		return &x509.Certificate{SerialNumber: big.NewInt(n), Subject: pkix.Name{CommonName: "test"}, NotBefore: now.Add(-time.Hour), NotAfter: now.Add(time.Hour)}
	}
	authorityKey, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	must(t, err)
	authority := template(1)
	authority.IsCA, authority.BasicConstraintsValid, authority.KeyUsage = true, true, x509.KeyUsageCertSign
	der, err := x509.CreateCertificate(rand.Reader, authority, authority, authorityKey.Public(), authorityKey)
	must(t, err)
	write := func(file, kind string, data []byte) string {
		path := filepath.Join(dir, file)
		must(t, os.WriteFile(path, pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: data}), 0o644))
		return path
	}
	ca = write("gateway-ca.pem", "CERTIFICATE", der)
	issue := func(c *x509.Certificate) (tls.Certificate, []byte) {
		k, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
		must(t, err)
		der, err := x509.CreateCertificate(rand.Reader, c, authority, k.Public(), authorityKey)
		must(t, err)
		private, err := x509.MarshalPKCS8PrivateKey(k)
		must(t, err)
		return tls.Certificate{Certificate: [][]byte{der}, PrivateKey: k}, private
	}
	own := template(2)
	own.DNSNames, own.ExtKeyUsage = []string{name}, []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth}
	serving, _ := issue(own)
	client := template(3)
	client.ExtKeyUsage = []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth}
	shown, private := issue(client)
	cert, key = write("gateway-cert.pem", "CERTIFICATE", shown.Certificate[0]), write("gateway-key.pem", "PRIVATE KEY", private)
	server = &tls.Config{MinVersion: tls.VersionTLS12, Certificates: []tls.Certificate{serving}}
	if demand {
		server.ClientCAs, server.ClientAuth = x509.NewCertPool(), tls.RequireAndVerifyClientCert
		parsed, err := x509.ParseCertificate(der)
		must(t, err)
		server.ClientCAs.AddCert(parsed)
	}
	return server, ca, cert, key
}

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}
