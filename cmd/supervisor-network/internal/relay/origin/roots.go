package origin

import (
	"bytes"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"os"
)

// maxRootsBytes bounds one file of roots; the bundles of operating systems have a
// quarter of a megabyte.
const maxRootsBytes = 8 << 20

// loadRoots is the system's roots and those in files. All files that cannot be used
// are named.
func loadRoots(files []string) (*x509.CertPool, error) {
	pool, err := x509.SystemCertPool()
	if err != nil {
		return nil, fmt.Errorf("read the system's roots: %w", err)
	}
	var errs []error
	for _, file := range files {
		if err := addRoots(pool, file); err != nil {
			errs = append(errs, fmt.Errorf("read the roots in %q: %w", file, err))
		}
	}
	return pool, errors.Join(errs...)
}

// Roots are the certificate authorities in a file, without those of the system, for a
// peer that has its own.
func Roots(file string) (*x509.CertPool, error) {
	pool := x509.NewCertPool()
	if err := addRoots(pool, file); err != nil {
		return nil, fmt.Errorf("read the roots in %q: %w", file, err)
	}
	return pool, nil
}

func addRoots(pool *x509.CertPool, file string) error {
	f, err := os.Open(file)
	if err != nil {
		return err
	}
	defer f.Close()
	data, err := io.ReadAll(io.LimitReader(f, maxRootsBytes+1))
	if err != nil {
		return err
	}
	if len(data) > maxRootsBytes {
		return fmt.Errorf("it has more than %d bytes", maxRootsBytes)
	}
	certs, err := parseRoots(data)
	for _, c := range certs {
		pool.AddCert(c)
	}
	return err
}

var begin = []byte("-----BEGIN ")

// parseRoots takes certificates with any text between them, and nothing else: a
// block that is damaged must not be missed in silence.
func parseRoots(data []byte) ([]*x509.Certificate, error) {
	var out []*x509.Certificate
	for n := 1; ; n++ {
		at := bytes.Index(data, begin)
		if at < 0 {
			break
		}
		block, rest := pem.Decode(data[at:])
		if block == nil || bytes.Count(data[at:len(data)-len(rest)], begin) != 1 {
			return nil, fmt.Errorf("PEM block %d is damaged", n)
		}
		if block.Type != "CERTIFICATE" {
			return nil, fmt.Errorf("PEM block %d is %q, not CERTIFICATE", n, block.Type)
		}
		cert, err := x509.ParseCertificate(block.Bytes)
		if err != nil {
			return nil, fmt.Errorf("certificate %d: %w", n, err)
		}
		out = append(out, cert)
		data = rest
	}
	if len(out) == 0 {
		return nil, errors.New("there is no certificate in it")
	}
	return out, nil
}
