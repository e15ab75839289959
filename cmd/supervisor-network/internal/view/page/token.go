package page

import (
	"crypto/sha256"
	"crypto/subtle"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"strings"
)

// Limits of a token. Whoever can ask may guess as often as they like, so that a short
// one is none.
const (
	MinToken = 32
	MaxToken = 512
)

// ErrToken is that a request does not show the token.
var ErrToken = errors.New("the view wants the admin token; it is in the file that --admin-token names")

// Token is a secret in a file, which is read for every question, so that a changed one
// counts at once.
type Token string

// Check reports whether the file holds a token. The error does not repeat what it holds.
func (t Token) Check() error {
	_, err := t.read()
	return err
}

// read returns the token: the file's one line, of printable characters without a space.
func (t Token) read() (string, error) {
	f, err := os.Open(string(t))
	if err != nil {
		return "", fmt.Errorf("read the admin token: %w", err)
	}
	defer f.Close()
	data, err := io.ReadAll(io.LimitReader(f, MaxToken+3))
	if err != nil {
		return "", fmt.Errorf("read the admin token: %w", err)
	}
	text := strings.TrimSuffix(strings.TrimSuffix(string(data), "\n"), "\r")
	if len(text) < MinToken || len(text) > MaxToken || strings.ContainsFunc(text, func(c rune) bool { return c <= ' ' || c > '~' }) {
		return "", fmt.Errorf("the admin token in %s: say %d to %d characters of ASCII on one line, without spaces; for example openssl rand -hex 32", string(t), MinToken, MaxToken)
	}
	return text, nil
}

// Shown returns nil if a request shows the token, ErrToken if it does not, and another
// error if that cannot be said.
func (t Token) Shown(r *http.Request) error {
	want, err := t.read()
	if err != nil {
		return err
	}
	got, ok := strings.CutPrefix(r.Header.Get("Authorization"), "Bearer ")
	a, b := sha256.Sum256([]byte(got)), sha256.Sum256([]byte(want)) // of one length, whatever was sent
	if subtle.ConstantTimeCompare(a[:], b[:]) != 1 || !ok || len(r.Header["Authorization"]) != 1 {
		return ErrToken
	}
	return nil
}

// Bearer is the value of the Authorization field for the token.
func (t Token) Bearer() (string, error) {
	text, err := t.read()
	return "Bearer " + text, err
}
