// Package placeholder knows what stands in for a secret in the workload: its grammar,
// and a scanner that finds it in bytes that are not to contain one.
//
// It answers the threat of a placeholder that is sent on as it is, because it was
// written in a way, or in a place, that nothing replaces: the scanner sees the
// markers raw and percent-encoded in any mix and to any depth, wherever reads split
// them. It does not see through compression, base64 or the \u escapes of JSON; a
// placeholder that leaves in such a form is not a secret and resolves nowhere.
//
// Invariant: bytes without a marker pass unchanged; the last byte of a marker never
// passes.
//
// The forms are those that existing workloads use:
//
//	openshell:resolve:env:KEY             the current value
//	openshell:resolve:env:v<digits>_KEY   of a revision that is still honoured
//	openshell:resolve:env:s<64 hex>_KEY   by a stable handle
//	<prefix>OPENSHELL-RESOLVE-ENV-KEY     for programs that check what a key looks like
package placeholder

import (
	"strconv"
	"strings"
)

// The markers. They have the same length, and no character in common.
const (
	Marker      = "openshell:resolve:env:"
	AliasMarker = "OPENSHELL-RESOLVE-ENV-"
)

// markerBytes is the length of each marker.
const markerBytes = len(Marker)

// MaxKeyBytes bounds a key.
const MaxKeyBytes = 128

// Form is how a placeholder is written.
type Form uint8

// The forms. The zero value is none.
const (
	Canonical Form = iota + 1
	Revision
	Stable
	Alias
)

// Reference is what a placeholder refers to.
type Reference struct {
	Key      string
	Form     Form
	Revision uint64 // of form Revision
	Handle   string // of form Stable: 64 lower-case hexadecimal digits
}

// Parse reads a text that is exactly one placeholder.
func Parse(s string) (Reference, bool) {
	m := marks{s: s, lower: -1, upper: -1}
	ref, start, end, ok := m.next(0)
	if !ok || start != 0 || end != len(s) {
		return Reference{}, false
	}
	return ref, true
}

// Has reports whether a marker stands in s as it is. It is cheap.
func Has(s string) bool {
	return strings.Contains(s, Marker) || strings.Contains(s, AliasMarker)
}

// Replace puts what value returns in the place of each placeholder. It fails with
// the first error of value. A marker that begins no valid placeholder stays.
func Replace(s string, value func(ref Reference, start, end int) (string, error)) (string, error) {
	var out strings.Builder
	done := 0
	m := marks{s: s, lower: -1, upper: -1}
	for at := 0; ; {
		ref, start, end, ok := m.next(at)
		if start < 0 {
			break
		}
		at = end
		if !ok {
			continue
		}
		text, err := value(ref, start, end)
		if err != nil {
			return "", err
		}
		out.WriteString(s[done:start])
		out.WriteString(text)
		done = end
	}
	if done == 0 {
		return s, nil
	}
	out.WriteString(s[done:])
	return out.String(), nil
}

// Redacted stands for a placeholder in what policies, people and bindings see.
const Redacted = "[CREDENTIAL]"

// Redact replaces each placeholder, valid or not, by Redacted.
func Redact(s string) string {
	if !Has(s) {
		return s
	}
	var out strings.Builder
	done := 0
	m := marks{s: s, lower: -1, upper: -1}
	for at := 0; ; {
		_, start, end, _ := m.next(at)
		if start < 0 {
			break
		}
		out.WriteString(s[done:start])
		out.WriteString(Redacted)
		done, at = end, end
	}
	out.WriteString(s[done:])
	return out.String()
}

// marks walks over the markers of a text. It remembers where the next one of each kind
// is: a text with many of one kind is not searched for the other one as often.
type marks struct {
	s            string
	lower, upper int // len(s): there is none; -1: not looked for
}

// next finds the first marker at or behind from, which never is less than before. start
// is negative if there is none; ok says that s[start:end] is a valid placeholder.
func (m *marks) next(from int) (ref Reference, start, end int, ok bool) {
	s := m.s
	if m.lower < from {
		m.lower = indexFrom(s, Marker, from)
	}
	if m.upper < from {
		m.upper = indexFrom(s, AliasMarker, from)
	}
	switch {
	case m.lower == len(s) && m.upper == len(s):
		return Reference{}, -1, -1, false
	case m.lower < m.upper:
		start = m.lower
		end = keyEnd(s, start+markerBytes)
		ref, ok = reference(s[start+markerBytes : end])
		return ref, start, end, ok
	}
	at := m.upper
	for start = at; start > from && aliasByte(s[start-1]); start-- {
	}
	for end = at + markerBytes; end < len(s) && aliasByte(s[end]); end++ {
	}
	key := s[at+markerBytes : end]
	return Reference{Key: key, Form: Alias}, start, end, start < at && ValidKey(key)
}

// indexFrom is where marker stands in s at or behind from, len(s) if nowhere.
func indexFrom(s, marker string, from int) int {
	if i := strings.Index(s[from:], marker); i >= 0 {
		return from + i
	}
	return len(s)
}

// keyEnd is where the key that starts at i ends: at a character that no key has, or
// where another placeholder begins.
func keyEnd(s string, i int) int {
	for ; i < len(s) && keyByte(s[i]); i++ {
		if s[i] == Marker[0] && strings.HasPrefix(s[i:], Marker) {
			break
		}
	}
	return i
}

// reference reads what stands behind a canonical marker.
func reference(s string) (Reference, bool) {
	if key, handle, ok := cutHandle(s); ok {
		return Reference{Key: key, Form: Stable, Handle: handle}, ValidKey(key)
	}
	if key, digits, ok := cutRevision(s); ok {
		n, err := strconv.ParseUint(digits, 10, 64)
		return Reference{Key: key, Form: Revision, Revision: n}, err == nil && ValidKey(key)
	}
	return Reference{Key: s, Form: Canonical}, ValidKey(s)
}

// ValidKey reports whether a key can be named by every form without being taken for
// another one.
func ValidKey(s string) bool {
	if s == "" || len(s) > MaxKeyBytes {
		return false
	}
	for i := range len(s) {
		if !keyByte(s[i]) {
			return false
		}
	}
	return !Reserved(s)
}

// Reserved reports whether a key starts like a revision or a stable handle.
func Reserved(s string) bool {
	_, _, handle := cutHandle(s)
	_, _, revision := cutRevision(s)
	return handle || revision
}

// HandleBytes is the length of a stable handle.
const HandleBytes = 64

func cutHandle(s string) (key, handle string, ok bool) {
	if len(s) < HandleBytes+2 || s[0] != 's' || s[HandleBytes+1] != '_' || strings.Trim(s[1:HandleBytes+1], "0123456789abcdef") != "" {
		return "", "", false
	}
	return s[HandleBytes+2:], s[1 : HandleBytes+1], true
}

func cutRevision(s string) (key, digits string, ok bool) {
	if len(s) < 3 || s[0] != 'v' {
		return "", "", false
	}
	rest := strings.TrimLeft(s[1:], "0123456789")
	digits = s[1 : len(s)-len(rest)]
	if digits == "" || !strings.HasPrefix(rest, "_") {
		return "", "", false
	}
	return rest[1:], digits, true
}

func keyByte(c byte) bool {
	return c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || c >= '0' && c <= '9' || c == '_'
}

func aliasByte(c byte) bool {
	return keyByte(c) || c == '.' || c == '~' || c == '-'
}

// ValidPrefix reports whether a text can stand in front of an alias marker.
func ValidPrefix(s string) bool {
	for i := range len(s) {
		if !aliasByte(s[i]) {
			return false
		}
	}
	return s != "" && len(s) <= MaxKeyBytes
}

// String writes the placeholder. An alias needs AliasOf.
func (r Reference) String() string {
	switch r.Form {
	case Canonical:
		return Marker + r.Key
	case Revision:
		return Marker + "v" + strconv.FormatUint(r.Revision, 10) + "_" + r.Key
	case Stable:
		return Marker + "s" + r.Handle + "_" + r.Key
	default:
		return ""
	}
}

// AliasOf is the alias of a key with a prefix.
func AliasOf(prefix, key string) string { return prefix + AliasMarker + key }
