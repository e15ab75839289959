package world

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"fmt"
	"io"
	"math/big"
	"net"
	"net/http"
	"net/http/cgi"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync/atomic"
	"time"
)

// Origins are the servers of a world.
type Origins struct {
	CAFile string       // PEM of the CA their certificates come from
	Hits   atomic.Int64 // requests they answered
	// Mux answers; tests may add to it.
	Mux    *http.ServeMux
	issuer *issuer
	close  []io.Closer
	git    http.Handler
}

// Git serves the repository under /repo.git by CGI, which takes no chunks.
func (o *Origins) Git() http.Handler { return o.git }

// Certificate signs a certificate for the names of the world, after change had a look
// at it; nil changes nothing.
func (o *Origins) Certificate(change func(*x509.Certificate)) (tls.Certificate, error) {
	return o.issuer.sign(change)
}

// Start opens HTTP on ports 80 and 8080, HTTPS on 443 and 8443 of both addresses,
// with a git repository under /repo.git, and leaves its files in dir.
func Start(dir string) (*Origins, error) {
	issuer, err := newIssuer()
	if err != nil {
		return nil, fmt.Errorf("make the origins' CA: %w", err)
	}
	o := &Origins{CAFile: filepath.Join(dir, "origin-ca.pem"), Mux: http.NewServeMux(), issuer: issuer}
	if err := os.WriteFile(o.CAFile, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: issuer.ca.Raw}), 0o644); err != nil {
		return nil, err
	}
	cert, err := o.Certificate(nil)
	if err != nil {
		return nil, fmt.Errorf("make the origins' certificate: %w", err)
	}
	if err := makeRepository(dir); err != nil {
		return nil, err
	}
	srv := &http.Server{Handler: o.handler(dir), ReadHeaderTimeout: time.Minute}
	for _, port := range []string{"80", "8080", "443", "8443"} {
		for _, addr := range []string{Address, Address6} {
			l, err := net.Listen("tcp", net.JoinHostPort(addr, port))
			if err != nil {
				return nil, err
			}
			if strings.HasSuffix(port, "443") {
				l = tls.NewListener(l, &tls.Config{Certificates: []tls.Certificate{cert}})
			}
			go func() { _ = srv.Serve(l) }()
		}
	}
	o.close = append(o.close, srv)
	return o, nil
}

// Close ends the origins.
func (o *Origins) Close() {
	for _, c := range o.close {
		c.Close()
	}
}

func (o *Origins) handler(dir string) http.Handler {
	mux := o.Mux
	o.git = &cgi.Handler{
		Path: gitBackend(), Root: "/", Dir: dir,
		Env: []string{"GIT_PROJECT_ROOT=" + dir, "GIT_HTTP_EXPORT_ALL=1"},
	}
	mux.Handle("/repo.git/", o.git)
	mux.HandleFunc("/echo", func(w http.ResponseWriter, r *http.Request) {
		body, _ := io.ReadAll(io.LimitReader(r.Body, 1<<20))
		fmt.Fprintf(w, "%s %s host=%s via=%q len=%d body=%s", r.Method, r.URL, r.Host, r.Header.Get("Via"), len(body), body)
	})
	mux.HandleFunc("/bytes", func(w http.ResponseWriter, r *http.Request) {
		var n int64
		fmt.Sscan(r.URL.Query().Get("n"), &n)
		w.Header().Set("Content-Length", fmt.Sprint(n))
		_, _ = io.CopyN(w, zeros{}, n)
	})
	mux.HandleFunc("/", func(w http.ResponseWriter, r *http.Request) { fmt.Fprintln(w, "hello from", r.Host) })
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		o.Hits.Add(1)
		mux.ServeHTTP(w, r)
	})
}

type zeros struct{}

func (zeros) Read(p []byte) (int, error) { clear(p); return len(p), nil }

func gitBackend() string {
	out, err := exec.Command("git", "--exec-path").Output()
	if err != nil {
		return ""
	}
	return filepath.Join(strings.TrimSpace(string(out)), "git-http-backend")
}

// makeRepository makes dir/repo.git with one commit.
func makeRepository(dir string) error {
	script := `set -e
git init -q --bare repo.git
git init -q work
cd work
echo hello > README
git add README
git -c user.name=demo -c user.email=demo@demo.test commit -qm first
git push -q ../repo.git HEAD:refs/heads/main
cd ../repo.git && git symbolic-ref HEAD refs/heads/main && git config http.receivepack true`
	cmd := exec.Command("sh", "-c", script)
	cmd.Dir = dir
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("make the git repository: %w: %s", err, out)
	}
	return nil
}

// issuer is the CA of a world.
type issuer struct {
	ca  *x509.Certificate
	key *ecdsa.PrivateKey
}

func newIssuer() (*issuer, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, err
	}
	ca := &x509.Certificate{SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "demo origins"}, IsCA: true,
		BasicConstraintsValid: true, NotBefore: time.Now().Add(-72 * time.Hour), NotAfter: time.Now().Add(24 * time.Hour), KeyUsage: x509.KeyUsageCertSign}
	der, err := x509.CreateCertificate(rand.Reader, ca, ca, &key.PublicKey, key)
	if err != nil {
		return nil, err
	}
	ca, err = x509.ParseCertificate(der)
	return &issuer{ca, key}, err
}

func (i *issuer) sign(change func(*x509.Certificate)) (tls.Certificate, error) {
	leaf := &x509.Certificate{SerialNumber: big.NewInt(2), Subject: pkix.Name{CommonName: "origin"}, DNSNames: []string{"*.demo.test", "*.wild.demo.test"},
		IPAddresses: []net.IP{net.ParseIP(Address), net.ParseIP(Address6)}, NotBefore: i.ca.NotBefore, NotAfter: i.ca.NotAfter}
	if change != nil {
		change(leaf)
	}
	der, err := x509.CreateCertificate(rand.Reader, leaf, i.ca, &i.key.PublicKey, i.key)
	return tls.Certificate{Certificate: [][]byte{der, i.ca.Raw}, PrivateKey: i.key}, err
}
