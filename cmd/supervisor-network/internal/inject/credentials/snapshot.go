package credentials

import (
	"slices"
	"strings"
	"sync/atomic"
	"time"

	"github.com/splitpod/splitpod/cmd/supervisor-network/internal/decide"
	"github.com/splitpod/splitpod/cmd/supervisor-network/internal/inject"
	"github.com/splitpod/splitpod/cmd/supervisor-network/internal/inject/placeholder"
	"github.com/splitpod/splitpod/cmd/supervisor-network/internal/inject/secret"
)

// Retained is how many revisions before the current one a placeholder may name.
const Retained = 8

// Snapshot is one version of the keys and their values. Immutable and safe for
// concurrent use; a nil Snapshot knows no key.
type Snapshot struct {
	keys     map[string]*held
	names    []string // in the order of the file
	signing  []Signing
	grants   []Grant
	settings string               // what grants are made of
	gates    map[uint16][]Binding // by port
	err      error
	now      func() time.Time
}

// held is a key with its value.
type held struct {
	Key
	value    secret.Value
	problem  string // why there is no value
	changed  time.Time
	expires  time.Time // zero: never
	revision uint64
	oldest   uint64 // revision since the key is bound and stored as it is
	handle   string
	usage    *usage
}

// usage outlives snapshots.
type usage struct {
	count atomic.Uint64
	last  atomic.Int64 // Unix nanoseconds
}

// Err is why the file is not in use; nil if it is.
func (s *Snapshot) Err() error {
	if s == nil {
		return nil
	}
	return s.err
}

// Resolve returns the value that a placeholder stands for in a request on the
// permitted connection; path is canonical, without query, and redacted. The error
// is an *inject.Error.
//
// A revision names a version of the key, not of the value: what it yields is always
// the current value, so no replaced secret is kept.
func (s *Snapshot) Resolve(p decide.Permit, path string, ref placeholder.Reference) (secret.Value, inject.Use, error) {
	none := func(err *inject.Error) (secret.Value, inject.Use, error) { return secret.Value{}, inject.Use{}, err }
	if !carries(p) {
		return none(inject.Unavailable(notCarried))
	}
	k := s.key(ref.Key)
	switch {
	case k == nil || !k.Environment:
		return none(inject.Unavailable("no credential with the key %s is known", ref.Key))
	case !k.boundTo(p, path):
		return none(inject.Mismatch(ref.Key))
	case ref.Form == placeholder.Revision && (ref.Revision > k.revision || ref.Revision < k.oldest || k.revision-ref.Revision > Retained):
		return none(inject.Unavailable("the revision %d of the key %s is not honoured any more", ref.Revision, ref.Key))
	case ref.Form == placeholder.Stable && ref.Handle != k.handle:
		return none(inject.Unavailable("the handle of the key %s is not honoured any more", ref.Key))
	}
	return k.use(s.now())
}

const notCarried = "credentials go only into requests that are inspected, to endpoints that a rule of the policy permits"

// carries reports whether a Permit is one that credentials may go with: a rule gave it
// and requests are seen.
func carries(p decide.Permit) bool { return p.Valid() && !p.Opaque() && !p.Learned() }

// Value is Resolve for a key that this daemon itself puts into a request.
func (s *Snapshot) Value(p decide.Permit, path, key string) (secret.Value, inject.Use, error) {
	k := s.key(key)
	switch {
	case !carries(p):
		return secret.Value{}, inject.Use{}, inject.Unavailable(notCarried)
	case k == nil:
		return secret.Value{}, inject.Use{}, inject.Unavailable("no credential with the key %s is known", key)
	case !k.boundTo(p, path):
		return secret.Value{}, inject.Use{}, inject.Mismatch(key)
	}
	return k.use(s.now())
}

// Subject is the value of the key that a grant proves its identity with.
func (s *Snapshot) Subject(g *Grant) (secret.Value, error) {
	k := s.key(g.SubjectKey)
	if k == nil {
		return secret.Value{}, inject.Unavailable("no credential with the key %s is known", g.SubjectKey)
	}
	v, _, err := k.use(s.now())
	return v, err
}

func (s *Snapshot) key(name string) *held {
	if s == nil {
		return nil
	}
	return s.keys[name]
}

func (k *held) boundTo(p decide.Permit, path string) bool {
	return k.Anywhere || matching(k.Bindings, p.Host(), p.Port(), path)
}

func (k *held) use(now time.Time) (secret.Value, inject.Use, error) {
	switch {
	case k.problem != "":
		return secret.Value{}, inject.Use{}, inject.Unavailable("the credential with the key %s has no usable value at present", k.Name)
	case k.expired(now):
		return secret.Value{}, inject.Use{}, inject.Unavailable("the credential with the key %s has expired", k.Name)
	case strings.ContainsAny(k.value.Expose(), "\r\n\x00"):
		return secret.Value{}, inject.Use{}, inject.Unavailable("the value of the key %s contains CR, LF or NUL and is not used", k.Name)
	}
	k.usage.count.Add(1)
	k.usage.last.Store(now.UnixNano())
	return k.value, inject.Use{Key: k.Name, Revision: k.revision}, nil
}

func (k *held) expired(now time.Time) bool { return !k.expires.IsZero() && !now.Before(k.expires) }

// Recheck reports whether what was used is still what would be used. It is asked of
// the newest Snapshot, directly before the first byte is sent.
func (s *Snapshot) Recheck(uses []inject.Use) error {
	for _, u := range uses {
		if strings.HasPrefix(u.Key, grantUse) { // a token, which was just checked
			if !s.grantsAs(u) {
				return inject.Unavailable("the %s changed while the request was prepared", u.Key)
			}
			continue
		}
		k := s.key(u.Key)
		if k == nil || k.revision != u.Revision || k.problem != "" || k.expired(s.now()) {
			return inject.Unavailable("the credential with the key %s changed while the request was prepared", u.Key)
		}
	}
	return nil
}

// grantsAs reports whether a grant is still as it was when it was used.
func (s *Snapshot) grantsAs(u inject.Use) bool {
	return s != nil && slices.ContainsFunc(s.grants, func(g Grant) bool { return g.Use() == u })
}

// Credentialed reports whether credentials are bound to some path of host and port:
// what goes there has to be inspected. Keys that are bound to nothing do not count:
// they would leave no tunnel uninspected.
func (s *Snapshot) Credentialed(host string, port uint16) bool {
	if s == nil {
		return false
	}
	for _, b := range s.gates[port] {
		if b.host.Match(host) {
			return true
		}
	}
	return false
}

// gated sorts everything that some key or grant is bound to by port.
func gated(doc *Document) map[uint16][]Binding {
	out := map[uint16][]Binding{}
	add := func(bindings []Binding) {
		for _, b := range bindings {
			for _, port := range b.Ports {
				out[port] = append(out[port], b)
			}
		}
	}
	for _, k := range doc.Keys {
		add(k.Bindings)
	}
	for _, g := range doc.Grants {
		add(g.Bindings)
	}
	return out
}

// Has reports whether the file has a key.
func (s *Snapshot) Has(key string) bool { return s.key(key) != nil }

// Anywhere reports whether a key is bound to no endpoint.
func (s *Snapshot) Anywhere(key string) bool {
	k := s.key(key)
	return k != nil && k.Anywhere
}

// Signing returns which keys sign for a provider. For "" they are by default those
// that the AWS programs look for; another one has to be in the file.
func (s *Snapshot) Signing(provider string) (Signing, bool) {
	out := Signing{AccessKey: "AWS_ACCESS_KEY_ID", Secret: "AWS_SECRET_ACCESS_KEY"}
	if s.key("AWS_SESSION_TOKEN") != nil {
		out.Session = "AWS_SESSION_TOKEN"
	}
	if s == nil {
		return out, provider == ""
	}
	for _, e := range s.signing {
		if e.Provider == provider {
			return e, true
		}
	}
	return out, provider == ""
}

// Grant selects the token grant for a request: the one with the most specific host,
// then path. Two that are equally specific are an error: one request gets one token.
func (s *Snapshot) Grant(p decide.Permit, path string) (*Grant, error) {
	if s == nil || !carries(p) {
		return nil, nil
	}
	var best *Grant
	bestHost, bestPath, tie := -1, -1, false
	for i := range s.grants {
		g := &s.grants[i]
		for _, b := range g.Bindings {
			if !b.Match(p.Host(), p.Port(), path) {
				continue
			}
			h, w := b.weight()
			switch {
			case h > bestHost || h == bestHost && w > bestPath:
				best, bestHost, bestPath, tie = g, h, w, false
			case h == bestHost && w == bestPath && g != best:
				tie = true
			}
		}
	}
	if tie {
		return nil, inject.Unavailable("two token grants are for this request")
	}
	return best, nil
}

// Echo is a value to take out of responses.
type Echo struct {
	Value       secret.Value
	Placeholder string // what the workload gets in its place
	Key         string
	Bodies      bool // also from text bodies
}

// Same reports whether two look for the same value, to be replaced by the same.
func (e Echo) Same(o Echo) bool {
	return e.Placeholder == o.Placeholder && e.Bodies == o.Bodies && e.Value.Equal(o.Value)
}

// Echoes lists the values to take out of the response to a request that used keys.
func (s *Snapshot) Echoes(uses []inject.Use) (out []Echo) {
	for _, u := range uses {
		if k := s.key(u.Key); k != nil && k.Hygiene != HygieneOff && k.problem == "" {
			out = append(out, Echo{k.value, k.placeholder(), k.Name, k.Hygiene == HygieneBodies})
		}
	}
	return out
}

// Environment is what the workload's environment holds: placeholders.
func (s *Snapshot) Environment() map[string]string {
	out := map[string]string{}
	if s == nil {
		return out
	}
	for name, k := range s.keys {
		if k.Environment {
			out[name] = k.placeholder()
		}
	}
	return out
}

func (k *held) placeholder() string {
	if k.Form == placeholder.Alias {
		return placeholder.AliasOf(k.Prefix, k.Name)
	}
	return placeholder.Reference{Key: k.Name, Form: k.Form, Revision: k.revision, Handle: k.handle}.String()
}

// TokenEndpoints are the URLs that tokens are fetched from.
func (s *Snapshot) TokenEndpoints() []string {
	if s == nil {
		return nil
	}
	out := make([]string, len(s.grants))
	for i := range s.grants {
		out[i] = s.grants[i].TokenEndpoint
	}
	return out
}
