package app

import (
	"context"
	"fmt"
	"log/slog"
	"net/http"
	"net/url"
	"os"
	"strconv"
	"strings"
	"sync/atomic"

	"golang.org/x/sync/errgroup"

	"github.com/splitpod/splitpod/cmd/supervisor-network/internal/decide"
	"github.com/splitpod/splitpod/cmd/supervisor-network/internal/inject"
	"github.com/splitpod/splitpod/cmd/supervisor-network/internal/inject/credentials"
	grants "github.com/splitpod/splitpod/cmd/supervisor-network/internal/inject/exchange"
	"github.com/splitpod/splitpod/cmd/supervisor-network/internal/inject/placeholder"
	"github.com/splitpod/splitpod/cmd/supervisor-network/internal/inject/secret"
	"github.com/splitpod/splitpod/cmd/supervisor-network/internal/inject/sigv4"
	"github.com/splitpod/splitpod/pkg/core"
)

// vault is what the daemon has to put credentials into requests with. Without a
// credentials file it knows no key, and requests with a placeholder are refused.
type vault struct {
	store  *credentials.Store // nil: there is no credentials file
	signer *sigv4.Signer
	tokens *grants.Exchange
	// filters of the newest Snapshot.
	filters atomic.Pointer[filters]
}

// openVault reads the credentials file, if there is one.
func (d *daemon) openVault() error {
	d.vault = &vault{signer: sigv4.New(nil)}
	d.vault.tokens = grants.New(grants.Config{Dial: d.dialer.Operator(d.vault.names), TLS: d.originTLS, Log: d.log, Granted: d.granted})
	if d.cfg.Credentials == "" {
		return nil
	}
	store, warnings, err := credentials.Open(credentials.Config{File: d.cfg.Credentials, Log: d.log, Changed: d.credentialsChanged})
	for _, w := range warnings {
		d.log.Warn("credentials warning", slog.String("problem", w.String()))
	}
	if err != nil {
		return fmt.Errorf("the credentials are not usable, nothing was started:\n%w", err)
	}
	d.vault.store = store
	d.recordKeys(store.Current())
	d.warnOfSwap()
	return nil
}

// credentialsChanged tells everybody who depends on the keys.
func (d *daemon) credentialsChanged(s *credentials.Snapshot) {
	d.recordKeys(s)
	d.vault.tokens.Forget()
	d.policies.placeholders(s.Environment())
	if n := d.live.gate(s.Credentialed); n > 0 {
		d.log.Info("connections ended that nobody looks into, to endpoints that now have credentials", slog.Int("count", n))
	}
}

// recordKeys leaves a record of which keys are in use from now on: how many, and the
// names of those without a value.
func (d *daemon) recordKeys(s *credentials.Snapshot) {
	if err := s.Err(); err != nil {
		d.record.Own(core.Event{Kind: core.EventFinding, Stage: core.StageConfig, Severity: core.SeverityHigh, Reason: core.EventCredentialsInvalid,
			Detail: "no key is in use until the file is valid: " + err.Error()})
		return
	}
	detail, severity := "", core.SeverityInfo
	keys := s.List()
	for _, k := range keys {
		if k.State != credentials.Usable && k.State != credentials.Asked {
			detail, severity = detail+", "+k.Key+" is "+k.State, core.SeverityMedium
		}
	}
	d.record.Own(core.Event{Kind: core.EventLifecycle, Stage: core.StageConfig, Severity: severity, Reason: core.EventCredentialsLoaded,
		Detail: fmt.Sprintf("%d keys and grants%s", len(keys), detail)})
}

// granted leaves a record of a token that this daemon was given. Those that it was not
// given are the refusals of the requests they were for.
func (d *daemon) granted(g grants.Grant) {
	ev := core.Event{Kind: core.EventLifecycle, Stage: core.StageAPI, Severity: core.SeverityInfo, Reason: core.EventTokenGranted, Detail: "grant " + g.Name,
		Method: http.MethodPost, Path: "/", Status: http.StatusOK, UID: uint32(os.Geteuid()), Duration: g.Took}
	if u, err := url.Parse(g.Endpoint); err == nil {
		port, _ := strconv.ParseUint(portOf(u), 10, 16) // the file was checked
		ev.Host, ev.Port, ev.Path = u.Hostname(), uint16(port), u.EscapedPath()
	}
	d.record.Own(ev)
}

// current is the newest Snapshot; nil knows no key.
func (v *vault) current() *credentials.Snapshot {
	if v == nil || v.store == nil {
		return nil
	}
	return v.store.Current()
}

// names reports whether a token grant of the credentials file names host and port.
func (v *vault) names(host string, port uint16) bool {
	for _, endpoint := range v.current().TokenEndpoints() {
		u, err := url.Parse(endpoint)
		if err == nil && strings.EqualFold(u.Hostname(), host) && portOf(u) == strconv.Itoa(int(port)) {
			return true
		}
	}
	return false
}

func portOf(u *url.URL) string {
	switch {
	case u.Port() != "":
		return u.Port()
	case u.Scheme == "https":
		return "443"
	default:
		return "80"
	}
}

// guarded reports whether an endpoint has credentials, and nothing may go there that
// was not looked into.
func (v *vault) guarded(p decide.Permit) bool {
	return !p.AllowsUninspected() && v.current().Credentialed(p.Host(), p.Port())
}

// resolver yields values for one request.
func (v *vault) resolver(s *credentials.Snapshot, secure bool) resolver { return resolver{s, secure} }

type resolver struct {
	*credentials.Snapshot
	secure bool // TLS all the way
}

// Resolve implements rewrite.Resolver. Where there is no TLS, only a binding that
// names the endpoint sends a credential.
func (r resolver) Resolve(p decide.Permit, path string, ref placeholder.Reference) (secret.Value, inject.Use, error) {
	if !r.secure && r.Anywhere(ref.Key) {
		return secret.Value{}, inject.Use{}, inject.Unavailable("the key %s has no bindings and goes nowhere without TLS", ref.Key)
	}
	return r.Snapshot.Resolve(p, path, ref)
}

// runVault follows the files until ctx ends.
func (d *daemon) runVault(ctx context.Context) error {
	defer d.vault.tokens.Close()
	if d.vault.store == nil {
		<-ctx.Done()
		return nil
	}
	g, ctx := errgroup.WithContext(ctx)
	g.Go(func() error { return d.vault.store.Run(ctx) })
	g.Go(func() error { d.keepUsage(ctx); return nil })
	return g.Wait()
}

// credentialUses counts uses by key.
func (d *daemon) credentialUses() map[string]float64 {
	out := map[string]float64{}
	for _, l := range d.vault.current().List() {
		out[l.Key] = float64(l.Uses)
	}
	return out
}
