package app

import (
	"bytes"
	"encoding/pem"
	"os"
	"path/filepath"
	"testing"
)

// TestOnlyCertificatesAreMadePublic: the image may lead us to any file that we can read
// and its user cannot.
func TestOnlyCertificatesAreMadePublic(t *testing.T) {
	block := func(kind, text string) []byte {
		return pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: []byte(text)})
	}
	one, two := block("CERTIFICATE", "one"), block("CERTIFICATE", "two")
	for name, tt := range map[string]struct{ file, want []byte }{
		"certificates":                      {bytes.Join([][]byte{one, two}, nil), bytes.Join([][]byte{one, two}, nil)},
		"names of certificates around them": {bytes.Join([][]byte{[]byte("# One\n"), one, []byte("\nTwo\n===\n"), two, []byte("end")}, nil), bytes.Join([][]byte{one, two}, nil)},
		"a private key beside them":         {bytes.Join([][]byte{one, block("PRIVATE KEY", "secret"), two}, nil), bytes.Join([][]byte{one, two}, nil)},
		"a secret in a certificate's head":  {[]byte("-----BEGIN CERTIFICATE-----\nToken: secret\n\nb25l\n-----END CERTIFICATE-----\n"), one},
		"a token":                           {[]byte("secret"), nil},
		"passwords":                         {[]byte("root:$6$secret:1::::::\n"), nil},
		"nothing":                           {nil, nil},
	} {
		root := t.TempDir()
		path := filepath.Join(root, "etc/ssl/certs/ca-certificates.crt")
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(root, "secret"), tt.file, 0o600); err != nil {
			t.Fatal(err)
		}
		if err := os.Symlink(filepath.Join(root, "secret"), path); err != nil {
			t.Fatal(err)
		}
		if got := imageRoots(root); !bytes.Equal(got, tt.want) {
			t.Errorf("%s: got %q, want %q", name, got, tt.want)
		}
	}
}
