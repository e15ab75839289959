package main

import (
	"bytes"
	"encoding/pem"

	"golang.org/x/crypto/x509roots/fallback/bundle"
)

// rootsPath is where the network daemon looks for the roots it verifies origins by.
const rootsPath = "etc/ssl/certs/ca-certificates.crt"

// roots are the root certificates of Mozilla's list, as pinned in go.mod, so that an
// image does not depend on the machine that packs it. One that is trusted only in
// part is left out: a PEM file cannot say so.
func roots() []byte {
	var b bytes.Buffer
	for r := range bundle.Roots() {
		if r.Constraint == nil {
			_ = pem.Encode(&b, &pem.Block{Type: "CERTIFICATE", Bytes: r.Certificate}) // to memory
		}
	}
	return b.Bytes()
}
