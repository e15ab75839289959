// Package trust is what programs of the workload verify TLS with: the image's root
// certificates, and the pod's own CA beside them.
//
// It answers the threat of an image that passes off a file, which only this daemon may read,
// as its root certificates: they become public, and are read with this daemon's rights
// through whatever links the image has, so nothing but the certificates of such a file is
// taken. Whether a certificate deserves trust it does not judge: the image's are the image's.
//
// Sources: RFC 7468 (PEM), keytool(1) (the JKS key store).
package trust

import (
	"bytes"
	"encoding/pem"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"time"

	"github.com/pavlo-v-chernykh/keystore-go/v4"
	"golang.org/x/sys/unix"
)

// maxRoots bounds a file of root certificates, in bytes.
const maxRoots = 4 << 20

// Roots are the root certificates of the workload's image.
type Roots struct {
	File string // where they are, without a link on the way; empty: nowhere
	PEM  []byte // certificates and nothing else; nil: none
}

// ImageRoots finds them below root, in the first file that has one.
func ImageRoots(root string) Roots {
	for _, path := range []string{
		"/etc/ssl/certs/ca-certificates.crt", "/etc/pki/tls/certs/ca-bundle.crt", "/etc/ssl/ca-bundle.pem", "/etc/ssl/cert.pem",
	} {
		at, err := filepath.EvalSymlinks(filepath.Join(root, path))
		if err != nil {
			continue
		}
		f, err := os.OpenFile(at, os.O_RDONLY|unix.O_NONBLOCK, 0)
		if err != nil {
			continue
		}
		st, err := f.Stat()
		var data []byte
		if err == nil && st.Mode().IsRegular() && st.Size() <= maxRoots {
			data, err = io.ReadAll(io.LimitReader(f, maxRoots))
		}
		f.Close()
		if found := certificates(data); err == nil && len(found) > 0 {
			return Roots{at, found}
		}
	}
	return Roots{}
}

// certificates are the certificates of a PEM file, and nothing between them.
func certificates(text []byte) (out []byte) {
	for block, rest := pem.Decode(text); block != nil; block, rest = pem.Decode(rest) {
		if block.Type == "CERTIFICATE" {
			out = append(out, pem.EncodeToMemory(&pem.Block{Type: block.Type, Bytes: block.Bytes})...)
		}
	}
	return out
}

// Bundle is the image's roots, the network daemon's if the image has none, and the CA, all as
// PEM.
func Bundle(image, network, ca []byte) []byte {
	if image == nil {
		image = network
	}
	if len(image) > 0 && image[len(image)-1] != '\n' {
		image = append(slices.Clone(image), '\n')
	}
	return slices.Concat(image, ca)
}

// JavaStore has the certificates of a PEM file as a JKS key store, which is what Java reads;
// nil: they are too large for one.
func JavaStore(trusted []byte, password string) []byte {
	store := keystore.New(keystore.WithOrderedAliases())
	for n := 0; ; n++ {
		var block *pem.Block
		if block, trusted = pem.Decode(trusted); block == nil {
			break
		}
		entry := keystore.TrustedCertificateEntry{CreationTime: time.Unix(0, 0), Certificate: keystore.Certificate{Type: "X.509", Content: block.Bytes}}
		if err := store.SetTrustedCertificateEntry(strconv.Itoa(n), entry); err != nil {
			continue // a certificate without content
		}
	}
	var out bytes.Buffer
	if err := store.Store(&out, []byte(password)); err != nil {
		return nil // only a certificate of 4 GiB has none
	}
	return out.Bytes()
}
