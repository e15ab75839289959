package seal

import (
	"sync/atomic"

	"github.com/splitpod/splitpod/cmd/supervisor-network/internal/decide"
	"github.com/splitpod/splitpod/cmd/supervisor-network/internal/inject"
	"github.com/splitpod/splitpod/cmd/supervisor-network/internal/inject/credentials"
	grants "github.com/splitpod/splitpod/cmd/supervisor-network/internal/inject/exchange"
	"github.com/splitpod/splitpod/cmd/supervisor-network/internal/inject/placeholder"
	"github.com/splitpod/splitpod/cmd/supervisor-network/internal/inject/secret"
	"github.com/splitpod/splitpod/cmd/supervisor-network/internal/inject/sigv4"
)

// Vault is what the daemon has to put credentials into requests with. Without a
// credentials file it knows no key, and requests with a placeholder are refused.
type Vault struct {
	Store  *credentials.Store // nil: there is no credentials file
	Signer *sigv4.Signer
	Tokens *grants.Exchange
	// filters of the newest Snapshot.
	filters atomic.Pointer[filters]
}

// Current is the newest Snapshot; nil knows no key.
func (v *Vault) Current() *credentials.Snapshot {
	if v == nil || v.Store == nil {
		return nil
	}
	return v.Store.Current()
}

// Guarded reports whether an endpoint has credentials, and nothing may go there that
// was not looked into.
func (v *Vault) Guarded(p decide.Permit) bool {
	return !p.AllowsUninspected() && v.Current().Credentialed(p.Host(), p.Port())
}

// resolver yields values for one request.
func (v *Vault) resolver(s *credentials.Snapshot, secure bool) resolver { return resolver{s, secure} }

type resolver struct {
	*credentials.Snapshot
	secure bool // TLS all the way
}

// exposed refuses credentials in the clear on a port of TLS, where a workload that leaves it
// out would show them to whoever stands in between, or is led to by a name server: there is
// no certificate to tell. By convention these ports end in 443.
func exposed(port uint16, secure bool) error {
	if secure || port%1000 != 443 {
		return nil
	}
	return inject.Unavailable("port %d is one of TLS, without which no credential goes there", port)
}

// Resolve implements rewrite.Resolver. Where there is no TLS, only a binding that
// names the endpoint sends a credential.
func (r resolver) Resolve(p decide.Permit, path string, ref placeholder.Reference) (secret.Value, inject.Use, error) {
	if err := exposed(p.Port(), r.secure); err != nil {
		return secret.Value{}, inject.Use{}, err
	}
	if !r.secure && r.Anywhere(ref.Key) {
		return secret.Value{}, inject.Use{}, inject.Unavailable("the key %s has no bindings and goes nowhere without TLS", ref.Key)
	}
	return r.Snapshot.Resolve(p, path, ref)
}
