// Package rewrite puts values in the place of placeholders in one request, in the
// way that each part of it needs.
//
// It answers the threats of a value that breaks out of the place it is put in (a
// quote in JSON, a slash in a path, a semicolon in a cookie), and of a placeholder
// that leaves as it is: after rewriting, a marker in any encoding, anywhere, refuses
// the request. It does not answer a value that means something to the origin at a
// place where the workload rightly put it.
//
// Invariant: everything or nothing. A Job returns parts in which every placeholder
// is replaced, or an *inject.Error; parts without a placeholder are returned
// unchanged, without copying. Names (of fields, parameters, JSON members) are never
// rewritten.
//
// A placeholder inside JSON is found also when it is spelled with \u escapes; in a
// body that is not rewritten such a spelling passes, and resolves nowhere.
package rewrite

import (
	"slices"

	"github.com/splitpod/splitpod/cmd/supervisor-network/internal/decide"
	"github.com/splitpod/splitpod/cmd/supervisor-network/internal/inject"
	"github.com/splitpod/splitpod/cmd/supervisor-network/internal/inject/placeholder"
	"github.com/splitpod/splitpod/cmd/supervisor-network/internal/inject/secret"
)

// Limits of what is rewritten.
const (
	MaxBody   = 256 << 10 // of a body before it is rewritten
	MaxOutput = 1 << 20   // of one part behind it
	maxUses   = 64        // different keys in one request
)

// Resolver yields values. It decides for which requests.
type Resolver interface {
	Resolve(p decide.Permit, path string, ref placeholder.Reference) (secret.Value, inject.Use, error)
}

// Job rewrites one request, or the messages of one WebSocket. Not safe for
// concurrent use.
type Job struct {
	permit   decide.Permit
	path     string
	resolver Resolver
	uses     []inject.Use
}

// New begins a request that p permits. The path is canonical and redacted, without
// its query (see Redact). A nil resolver knows no key.
func New(p decide.Permit, path string, r Resolver) *Job {
	return &Job{permit: p, path: path, resolver: r}
}

// Uses lists the keys whose values went into the request, each once.
func (j *Job) Uses() []inject.Use { return j.uses }

// check says what a value must not contain at its place; "" if it fits.
type check func(value string) (problem string)

// value resolves a reference for a place.
func (j *Job) value(ref placeholder.Reference, fits check) (string, error) {
	if !j.permit.Valid() || j.permit.Opaque() {
		return "", inject.Unavailable("credentials go only into requests that are inspected and permitted")
	}
	if j.resolver == nil {
		return "", inject.Unavailable("no credential with the key %s is known", ref.Key)
	}
	v, use, err := j.resolver.Resolve(j.permit, j.path, ref)
	if err != nil {
		return "", err
	}
	text := v.Expose()
	if problem := fits(text); problem != "" {
		return "", inject.Unavailable("the value of the key %s cannot stand here: %s", ref.Key, problem)
	}
	if !slices.Contains(j.uses, use) {
		if len(j.uses) == maxUses {
			return "", inject.Unavailable("more than %d credentials are in one request", maxUses)
		}
		j.uses = append(j.uses, use)
	}
	return text, nil
}

// replace replaces the placeholders of a text. Each value is checked, then written
// by the given function.
func (j *Job) replace(s string, fits check, write func(string) string) (string, error) {
	size := len(s)
	return placeholder.Replace(s, func(ref placeholder.Reference, _, _ int) (string, error) {
		text, err := j.value(ref, fits)
		if err != nil {
			return "", err
		}
		text = write(text)
		if size += len(text); size > MaxOutput {
			return "", tooLarge()
		}
		return text, nil
	})
}

func asIs(s string) string { return s }

func tooLarge() *inject.Error { return inject.Unavailable("with its values the request is too large") }

// clean requires that no marker is left in a part of the request.
func clean(s, where string) error {
	if placeholder.Found(s) {
		return inject.Misplaced(where)
	}
	return nil
}

func cleanBytes(b []byte, where string) error {
	if placeholder.FoundBytes(b) {
		return inject.Misplaced(where)
	}
	return nil
}
