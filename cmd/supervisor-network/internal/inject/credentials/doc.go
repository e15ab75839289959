// Package credentials says which keys there are, where their values come from, and
// to which endpoints each may go.
//
// It answers the threats of a credential that is sent to an endpoint it was not
// meant for, of one that outlives its expiry or its removal, and of a credentials
// file that says something else than its author meant. It does not answer an
// operator who binds a key too widely; what looks wide is a warning.
//
// Callers may rely on this: a Snapshot is immutable; it yields a value only for a
// decide.Permit whose host, port and path the key is bound to, before its expiry;
// no method but that one returns a value. When the file, or a secret, is not valid
// any more, its values are gone at once: nothing stale is used.
//
// The file is read as strictly as the policy.
package credentials

import (
	"time"

	"github.com/splitpod/splitpod/cmd/supervisor-network/internal/inject"
	"github.com/splitpod/splitpod/cmd/supervisor-network/internal/inject/placeholder"
	"github.com/splitpod/splitpod/pkg/core/strictyaml"
)

// Document is a valid credentials file.
type Document struct {
	Keys    []Key // in the order of the file
	Signing []Signing
	Grants  []Grant
}

// Key is one credential, as the workload's environment names it.
type Key struct {
	Name string
	File string // absolute path of the secret
	// Environment is false for keys that only this daemon uses: the workload gets no
	// placeholder, and none resolves.
	Environment bool
	Form        placeholder.Form // of the placeholder in the environment
	Prefix      string           // of an alias
	Expiry      Expiry
	Bindings    []Binding
	Anywhere    bool // no binding, and the file says so
	Hygiene     Hygiene
	At          strictyaml.Position
}

// Expiry is when a value stops being used. The zero value is never.
type Expiry struct {
	At    time.Time     // fixed
	After time.Duration // since the file was written
	JWT   bool          // as the token itself says
}

// Hygiene is where an echoed value is replaced in responses.
type Hygiene uint8

// The settings. The zero value is the default.
const (
	HygieneHeaders Hygiene = iota // in headers
	HygieneBodies                 // and in text bodies
	HygieneOff
)

// Signing names the keys that AWS requests are signed with.
type Signing struct {
	Provider                   string // of an endpoint's credential_binding; "" for all others
	AccessKey, Secret, Session string // names of keys; Session may be ""
}

// Grant is a token that is fetched for requests to some endpoints.
type Grant struct {
	Name          string
	Bindings      []Binding
	TokenEndpoint string
	Exchange      bool // RFC 8693 token exchange, else client credentials
	// WorkloadAPI is the address of the SPIFFE Workload API that the identity comes
	// from; else SubjectKey names a key whose value is the identity.
	WorkloadAPI   string
	SubjectKey    string
	SVIDAudience  string // "": derived from the endpoint
	AssertionType string // "": a JWT bearer
	ClientID      string
	Audience      string
	Scopes        []string
	Header        string        // "": Authorization, as a bearer
	TTL           time.Duration // 0: as the answer says
	At            strictyaml.Position
	revision      uint64 // of what it says
}

// Use is that a token of the grant went into a request.
func (g *Grant) Use() inject.Use { return inject.Use{Key: grantUse + g.Name, Revision: g.revision} }

// grantUse is in front of the names of grants where they stand among keys, which have no
// space.
const grantUse = "grant "

// Field is the name of the request field that the token goes into.
func (g *Grant) Field() string {
	if g.Header != "" {
		return g.Header
	}
	return "Authorization"
}
