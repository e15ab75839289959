package trust

import (
	"bytes"
	"encoding/pem"
	"os"
	"path/filepath"
	"testing"

	"github.com/pavlo-v-chernykh/keystore-go/v4"
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
		got := ImageRoots(root)
		if !bytes.Equal(got.PEM, tt.want) {
			t.Errorf("%s: got %q, want %q", name, got.PEM, tt.want)
		}
		if want := filepath.Join(root, "secret"); tt.want != nil && got.File != want || tt.want == nil && got.File != "" {
			t.Errorf("%s: the CA would be put over %q", name, got.File)
		}
	}
}

// TestJavaTrustsWhatOthersTrust: every certificate of the bundle, in any number.
func TestJavaTrustsWhatOthersTrust(t *testing.T) {
	const password = "changeit"
	for _, n := range []int{0, 1, 300} {
		var roots []byte
		want := make(map[string]bool)
		for i := range n {
			der := bytes.Repeat([]byte{byte(i), byte(i >> 8)}, 1+i)
			roots, want[string(der)] = append(roots, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})...), true
		}
		want["ours"] = true
		ca := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: []byte("ours")})
		store := keystore.New()
		if err := store.Load(bytes.NewReader(JavaStore(Bundle(roots, nil, ca), password)), []byte(password)); err != nil {
			t.Fatal(err)
		}
		for _, alias := range store.Aliases() {
			e, err := store.GetTrustedCertificateEntry(alias)
			if err != nil || e.Certificate.Type != "X.509" || !want[string(e.Certificate.Content)] {
				t.Errorf("%s: %+v, %v", alias, e, err)
			}
			delete(want, string(e.Certificate.Content))
		}
		if len(want) > 0 {
			t.Errorf("of %d certificates %d are missing", n+1, len(want))
		}
	}
}

func BenchmarkJavaStore(b *testing.B) {
	roots := ImageRoots("/").PEM
	for b.Loop() {
		JavaStore(roots, "changeit")
	}
}
