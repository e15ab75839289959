// Package mint is the daemon's TLS towards the workload: the interception CA, one
// P-256 key per pod that is made once and kept in the daemon's own state directory,
// the leaves it signs, and the server that ends the workload's TLS with them.
//
// It answers these threats: a CA key that leaves this container (the file is
// private, only the certificate is ever handed out); a restart that breaks every
// client's trust (the same key is loaded again); a tunnel permitted for one host
// that is used for another (the permit's host chooses the certificate, and the
// client's name has to be that host); a session of one host that is resumed on
// another; names without end that eat the processor. It does not look at what is
// carried, and it trusts whoever holds the CA's certificate no further than TLS.
//
// Invariant: a connection that Server hands out was asked for under the host it was
// permitted for, in TLS 1.2 or newer, with nothing sent before the handshake ended.
//
// Sources: RFC 5280 sections 4.2.1.3, 4.2.1.6, 4.2.1.9; RFC 6066 section 3; RFC 8446
// sections 4.2.10, 4.6.1; RFC 9849 sections 6.1.6, 6.2; SEC 1 curves through
// crypto/ecdsa.
package mint

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"fmt"
	"io/fs"
	"math/big"
	"os"
	"path/filepath"
	"time"
)

// Names of the files in the state directory.
const (
	keyFile  = "ca.key"
	certFile = "ca.pem"
)

// lifetime of a CA: longer than any pod, short enough not to be kept around.
const lifetime = 365 * 24 * time.Hour

// backdate is how far a clock may be set back before clients say that the CA is not
// valid yet. The key is new, whenever its certificate says that it began.
const backdate = 30 * 24 * time.Hour

// CA is the certificate authority of one pod.
type CA struct {
	cert *x509.Certificate
	key  *ecdsa.PrivateKey // signs leaves here, and is never handed out
	pem  []byte
}

// Open loads the CA from dir, or makes it when there is none. Half a CA, one that
// expired and files others may read are errors: nothing is silently replaced.
func Open(dir string) (*CA, error) {
	ca, err := load(dir)
	if errors.Is(err, fs.ErrNotExist) {
		return create(dir)
	}
	return ca, err
}

// Valid reports whether a client whose clock is this node's takes the certificate now.
func (c *CA) Valid(now time.Time) bool {
	return !now.Before(c.cert.NotBefore) && !now.After(c.cert.NotAfter)
}

// PEM is the certificate, public. The caller must not change it.
func (c *CA) PEM() []byte { return c.pem }

// Certificate is the parsed certificate.
func (c *CA) Certificate() *x509.Certificate { return c.cert }

func load(dir string) (*CA, error) {
	keyPath, certPath := filepath.Join(dir, keyFile), filepath.Join(dir, certFile)
	info, err := os.Stat(keyPath)
	if err != nil {
		return nil, fmt.Errorf("load the CA key: %w", err)
	}
	if perm := info.Mode().Perm(); perm&0o077 != 0 {
		return nil, fmt.Errorf("the CA key %s has mode %04o; nobody else may read it: make it 0600", keyPath, perm)
	}
	keyPEM, err := os.ReadFile(keyPath)
	if err != nil {
		return nil, fmt.Errorf("load the CA key: %w", err)
	}
	certPEM, err := os.ReadFile(certPath)
	if err != nil {
		return nil, fmt.Errorf("load the CA certificate (its key is there; remove %s to make a new CA): %v", keyPath, err)
	}
	return parse(dir, keyPEM, certPEM)
}

func parse(dir string, keyPEM, certPEM []byte) (*CA, error) {
	damaged := func(file string) error { // the cause could quote the key
		return fmt.Errorf("load the CA: %s is damaged; remove %s to make a new CA", filepath.Join(dir, file), filepath.Join(dir, keyFile))
	}
	keyBlock, _ := pem.Decode(keyPEM)
	if keyBlock == nil {
		return nil, damaged(keyFile)
	}
	key, err := x509.ParseECPrivateKey(keyBlock.Bytes)
	if err != nil {
		return nil, damaged(keyFile)
	}
	certBlock, _ := pem.Decode(certPEM)
	if certBlock == nil {
		return nil, damaged(certFile)
	}
	cert, err := x509.ParseCertificate(certBlock.Bytes)
	if err != nil {
		return nil, damaged(certFile)
	}
	if pub, ok := cert.PublicKey.(*ecdsa.PublicKey); !ok || !pub.Equal(&key.PublicKey) {
		return nil, fmt.Errorf("load the CA in %s: key and certificate do not belong together", dir)
	}
	if time.Now().After(cert.NotAfter) {
		return nil, fmt.Errorf("the CA in %s expired at %s: remove it to make a new one", dir, cert.NotAfter.Format(time.RFC3339))
	}
	return &CA{cert: cert, key: key, pem: certPEM}, nil
}

// create writes the certificate first and the key last, so that a key on disk
// always has its certificate.
func create(dir string) (*CA, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, fmt.Errorf("make the CA key: %w", err)
	}
	serial, err := rand.Int(rand.Reader, new(big.Int).Lsh(big.NewInt(1), 127))
	if err != nil {
		return nil, fmt.Errorf("make the CA serial: %w", err)
	}
	template := &x509.Certificate{
		SerialNumber:          serial,
		Subject:               pkix.Name{CommonName: "Splitpod Sandbox CA", Organization: []string{"Splitpod"}},
		NotBefore:             time.Now().Add(-backdate),
		NotAfter:              time.Now().Add(lifetime),
		KeyUsage:              x509.KeyUsageCertSign | x509.KeyUsageCRLSign,
		BasicConstraintsValid: true,
		IsCA:                  true,
		MaxPathLenZero:        true,
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, &key.PublicKey, key)
	if err != nil {
		return nil, fmt.Errorf("sign the CA certificate: %w", err)
	}
	keyDER, err := x509.MarshalECPrivateKey(key)
	if err != nil {
		return nil, fmt.Errorf("encode the CA key: %w", err)
	}
	certPEM := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})
	keyPEM := pem.EncodeToMemory(&pem.Block{Type: "EC PRIVATE KEY", Bytes: keyDER})
	if err := write(filepath.Join(dir, certFile), certPEM, 0o644); err != nil {
		return nil, fmt.Errorf("store the CA certificate: %w", err)
	}
	if err := write(filepath.Join(dir, keyFile), keyPEM, 0o600); err != nil {
		return nil, fmt.Errorf("store the CA key: %w", err)
	}
	return parse(dir, keyPEM, certPEM)
}

// write replaces path in one step, so that a crash leaves the old file or the new
// one.
func write(path string, data []byte, mode fs.FileMode) error {
	tmp, err := os.CreateTemp(filepath.Dir(path), ".new-*")
	if err != nil {
		return err
	}
	defer os.Remove(tmp.Name())
	_, err = tmp.Write(data)
	err = errors.Join(err, tmp.Chmod(mode), tmp.Sync(), tmp.Close())
	if err != nil {
		return err
	}
	return os.Rename(tmp.Name(), path)
}

// WriteCertificate puts the public certificate where --ca-out says.
func (c *CA) WriteCertificate(path string) error {
	if err := write(path, c.pem, 0o644); err != nil {
		return fmt.Errorf("write the CA certificate: %w", err)
	}
	return nil
}
