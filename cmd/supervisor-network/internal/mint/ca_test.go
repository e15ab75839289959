package mint

import (
	"bytes"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// TestADamagedCAIsNamedAndNotReplaced: clients trust the old one, and somebody has to look.
func TestADamagedCAIsNamedAndNotReplaced(t *testing.T) {
	for _, file := range []string{keyFile, certFile} {
		for how, damage := range map[string]func([]byte) []byte{
			"empty":        func([]byte) []byte { return nil },
			"something":    func([]byte) []byte { return []byte("\x00\x00\x00") },
			"cut":          func(b []byte) []byte { return b[:len(b)/2] },
			"another file": func([]byte) []byte { return []byte("-----BEGIN X-----\nAAAA\n-----END X-----\n") },
		} {
			t.Run(file+" "+how, func(t *testing.T) {
				dir := t.TempDir()
				if _, err := Open(dir); err != nil {
					t.Fatal(err)
				}
				path := filepath.Join(dir, file)
				whole, err := os.ReadFile(path)
				if err != nil {
					t.Fatal(err)
				}
				left := damage(whole)
				if err := os.WriteFile(path, left, 0o600); err != nil {
					t.Fatal(err)
				}
				if _, err := Open(dir); err == nil || !strings.Contains(err.Error(), path) || !strings.Contains(err.Error(), "remove") {
					t.Errorf("%v", err)
				}
				if now, err := os.ReadFile(path); err != nil || !bytes.Equal(now, left) {
					t.Errorf("the file is another one now, %v", err)
				}
			})
		}
	}
}
