package credentials

import (
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/splitpod/splitpod/cmd/supervisor-network/internal/inject/placeholder"
	"github.com/splitpod/splitpod/cmd/supervisor-network/internal/inject/secret"
	"github.com/splitpod/splitpod/pkg/core/strictyaml"
)

// read reads and parses a credentials file.
func read(path string) (*Document, []strictyaml.Problem, error) {
	data, err := strictyaml.Load(path)
	if err != nil {
		return nil, nil, fmt.Errorf("read the credentials: %w", err)
	}
	return Parse(path, data)
}

// identity is what makes a key the same key: after a change of it, revisions and
// handles that were given out before are not honoured.
func (k *Key) identity() [32]byte {
	h := sha256.New()
	fmt.Fprintf(h, "splitpod credential\x00%s\x00%s\x00%v\x00%v\x00", k.Name, k.File, k.Anywhere, k.Environment)
	for _, b := range k.Bindings {
		fmt.Fprintf(h, "%s\x00", b)
	}
	return [32]byte(h.Sum(nil))
}

// history is what is remembered of a key between two snapshots.
type history struct {
	identity [32]byte
	value    secret.Value
	revision uint64
	oldest   uint64
	present  bool // in the last valid file
	usage    *usage
}

// hold reads the value of a key and numbers it.
func (h *history) hold(k Key) *held {
	if h.usage == nil {
		h.usage = &usage{}
	}
	out := &held{Key: k, usage: h.usage}
	file, err := secret.Read(k.File)
	if err == nil {
		out.value, out.changed = file.Value, file.Changed
		out.expires, err = k.Expiry.of(file)
	}
	if err == nil && placeholder.Found(out.value.Expose()) {
		err = errors.New("the value contains a placeholder")
	}
	if err != nil {
		out.value, out.problem = secret.Value{}, err.Error()
	}
	h.number(k.identity(), out)
	return out
}

// number gives a changed value the next revision, and forgets the earlier ones of a
// key that is not the same any more.
func (h *history) number(id [32]byte, k *held) {
	same := h.present && h.identity == id
	if !same || k.problem == "" && !h.value.Equal(k.value) {
		h.revision++
	}
	if !same {
		h.oldest = h.revision
	}
	h.value = k.value
	h.identity, h.present = id, true
	k.revision, k.oldest, k.handle = h.revision, h.oldest, hex.EncodeToString(id[:])
}

// of says when a value stops being used.
func (e Expiry) of(f secret.File) (time.Time, error) {
	switch {
	case e.JWT:
		return TokenExpiry(f.Value.Expose())
	case e.After > 0:
		return f.Changed.Add(e.After), nil
	default:
		return e.At, nil
	}
}

// TokenExpiry reads what a JSON web token says of its own end (RFC 7519, exp). The issuer's
// signature does not matter here: who writes the file may also write its expiry.
func TokenExpiry(token string) (time.Time, error) {
	parts := strings.Split(token, ".")
	if len(parts) != 3 {
		return time.Time{}, errors.New("the value is not a JSON web token")
	}
	payload, err := base64.RawURLEncoding.DecodeString(parts[1])
	if err != nil {
		return time.Time{}, errors.New("the value is not a JSON web token")
	}
	var claims struct {
		Exp *json.Number `json:"exp"`
	}
	if err := json.Unmarshal(payload, &claims); err != nil || claims.Exp == nil {
		return time.Time{}, errors.New("the token has no expiry")
	}
	seconds, err := claims.Exp.Float64()
	if err != nil || seconds <= 0 || seconds > 1<<40 {
		return time.Time{}, errors.New("the token has no readable expiry")
	}
	return time.Unix(int64(seconds), 0), nil
}

// settingsOf sums up what a document says about signing and grants.
func settingsOf(doc *Document) string {
	h := sha256.New()
	for _, s := range doc.Signing {
		fmt.Fprintf(h, "%q\x00", s)
	}
	for _, g := range doc.Grants {
		fmt.Fprintf(h, "%s\x00", g.text())
	}
	return hex.EncodeToString(h.Sum(nil))
}

// text is all that a grant says.
func (g Grant) text() string {
	g.At, g.revision = strictyaml.Position{}, 0
	bindings := g.Bindings
	g.Bindings = nil // they hold pointers
	return fmt.Sprintf("%+v\x00%v", g, bindings)
}
