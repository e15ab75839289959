package app

import (
	"context"
	"fmt"
	"log/slog"
	"net/http"
	"net/url"
	"os"
	"reflect"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/splitpod/splitpod/cmd/supervisor-network/internal/inject/credentials"
	grants "github.com/splitpod/splitpod/cmd/supervisor-network/internal/inject/exchange"
	"github.com/splitpod/splitpod/cmd/supervisor-network/internal/inject/seal"
	"github.com/splitpod/splitpod/cmd/supervisor-network/internal/inject/sigv4"
	"github.com/splitpod/splitpod/pkg/core"
)

// openVault reads the credentials file, if there is one.
func (d *daemon) openVault() error {
	d.vault = &seal.Vault{Signer: sigv4.New(nil)}
	d.vault.Tokens = grants.New(grants.Config{Dial: d.dialer.Operator(d.tokenEndpoint), TLS: d.originTLS, Log: d.log, Granted: d.granted})
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
	d.vault.Store = store
	d.recordKeys(store.Current())
	d.warnOfSwap()
	return nil
}

// credentialsChanged tells everybody who depends on the keys.
func (d *daemon) credentialsChanged(s *credentials.Snapshot) {
	d.recordKeys(s)
	d.vault.Tokens.Forget()
	d.policies.placeholders(s.Environment())
	if n := d.live.Gate(s.Credentialed); n > 0 {
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

// tokenEndpoint reports whether a token grant of the credentials file names host and port.
func (d *daemon) tokenEndpoint(host string, port uint16) bool {
	for _, endpoint := range d.vault.Current().TokenEndpoints() {
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

// runVault follows the files until ctx ends.
func (d *daemon) runVault(ctx context.Context) {
	defer d.vault.Tokens.Close()
	if d.vault.Store == nil {
		<-ctx.Done()
		return
	}
	var wg sync.WaitGroup
	wg.Go(func() { d.vault.Store.Run(ctx) })
	wg.Go(func() { d.keepUsage(ctx) })
	wg.Wait()
}

// credentialUses counts uses by key.
func (d *daemon) credentialUses() map[string]float64 {
	out := map[string]float64{}
	for _, l := range d.vault.Current().List() {
		out[l.Key] = float64(l.Uses)
	}
	return out
}

// keepUsage writes what is known of the keys when something of it has changed, and at the end.
func (d *daemon) keepUsage(ctx context.Context) {
	tick := time.NewTicker(5 * time.Second)
	defer tick.Stop()
	var written []credentials.Listing
	said := false
	for {
		keys := d.vault.Current().List()
		if written == nil || !slices.EqualFunc(keys, written, sameListing) {
			switch err := (credentials.Usage{Written: time.Now(), Keys: keys}).Write(d.cfg.StateDir); {
			case err == nil:
				written, said = keys, false
			case !said:
				d.log.Warn("what is known of credentials could not be written; it is tried again", slog.Any("error", err))
				said = true
			}
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			_ = credentials.Usage{Written: time.Now(), Keys: d.vault.Current().List()}.Write(d.cfg.StateDir)
			return
		}
	}
}

func sameListing(a, b credentials.Listing) bool { return reflect.DeepEqual(a, b) }
