// Package secret holds values that must not be seen, and reads them from files.
//
// It answers the threat of a value that slips out by accident: printed with any
// verb, also as a field of something else, logged, marshalled, compared with ==, or
// kept in an error about the file it came from. It does not answer a program that
// calls Expose and prints that, nor a reader of this process's memory.
//
// Invariant: a Value is reached through Expose alone; reflection finds a function.
//
// Files are read as the kubelet writes Secrets and projected tokens: through links
// that are swapped as a whole.
package secret

import (
	"crypto/subtle"
	"errors"
	"fmt"
	"log/slog"
)

// Value is a secret. The zero Value is no secret. Values are immutable, safe for
// concurrent use, and cannot be compared with ==.
type Value struct{ expose func() string }

// New makes a Value of a text.
func New(text string) Value { return Value{func() string { return text }} }

// Expose returns the secret itself; "" for the zero Value.
func (v Value) Expose() string {
	if v.expose == nil {
		return ""
	}
	return v.expose()
}

// Equal compares without telling by its duration where two secrets differ.
func (v Value) Equal(o Value) bool {
	return subtle.ConstantTimeCompare([]byte(v.Expose()), []byte(o.Expose())) == 1
}

// redacted is what a Value looks like.
const redacted = "REDACTED"

// errMarshal keeps encoders that would write a Value from writing anything.
var errMarshal = errors.New("a secret is not marshalled")

// Format implements fmt.Formatter for every verb.
func (v Value) Format(f fmt.State, _ rune) { _, _ = f.Write([]byte(redacted)) }

// String implements fmt.Stringer.
func (v Value) String() string { return redacted }

// GoString implements fmt.GoStringer.
func (v Value) GoString() string { return redacted }

// LogValue implements slog.LogValuer.
func (v Value) LogValue() slog.Value { return slog.StringValue(redacted) }

// MarshalJSON implements json.Marshaler.
func (v Value) MarshalJSON() ([]byte, error) { return []byte(`"` + redacted + `"`), nil }

// MarshalText implements encoding.TextMarshaler.
func (v Value) MarshalText() ([]byte, error) { return []byte(redacted), nil }

// MarshalYAML implements the YAML package's Marshaler.
func (v Value) MarshalYAML() (any, error) { return redacted, nil }

// MarshalBinary implements encoding.BinaryMarshaler.
func (v Value) MarshalBinary() ([]byte, error) { return nil, errMarshal }

// GobEncode implements gob.GobEncoder.
func (v Value) GobEncode() ([]byte, error) { return nil, errMarshal }
