// Package app wires the network daemon: it builds every stage, owns their order
// and their end.
//
// It answers the threat of a daemon that serves before everything it depends on is
// there: the policy is read and compiled first, every listener is bound before
// anything is accepted, and whatever ends ends the whole daemon with its cause.
// It decides nothing itself.
package app

import (
	"context"
	"crypto/sha256"
	"crypto/tls"
	"fmt"
	"io"
	"log/slog"
	"net"
	"os"
	"os/signal"
	"syscall"
	"time"

	"github.com/splitpod/splitpod/api/supervisor/link"
	"github.com/splitpod/splitpod/cmd/supervisor-network/internal/advisor"
	"github.com/splitpod/splitpod/cmd/supervisor-network/internal/config"
	"github.com/splitpod/splitpod/cmd/supervisor-network/internal/control"
	"github.com/splitpod/splitpod/cmd/supervisor-network/internal/decide"
	"github.com/splitpod/splitpod/cmd/supervisor-network/internal/export"
	"github.com/splitpod/splitpod/cmd/supervisor-network/internal/gateway"
	"github.com/splitpod/splitpod/cmd/supervisor-network/internal/inference"
	"github.com/splitpod/splitpod/cmd/supervisor-network/internal/inject/seal"
	"github.com/splitpod/splitpod/cmd/supervisor-network/internal/inspect/hold"
	"github.com/splitpod/splitpod/cmd/supervisor-network/internal/inspect/http2"
	"github.com/splitpod/splitpod/cmd/supervisor-network/internal/inspect/websocket"
	"github.com/splitpod/splitpod/cmd/supervisor-network/internal/listen"
	"github.com/splitpod/splitpod/cmd/supervisor-network/internal/mint"
	"github.com/splitpod/splitpod/cmd/supervisor-network/internal/observe"
	"github.com/splitpod/splitpod/cmd/supervisor-network/internal/policyfile"
	"github.com/splitpod/splitpod/cmd/supervisor-network/internal/proxy"
	"github.com/splitpod/splitpod/cmd/supervisor-network/internal/record"
	"github.com/splitpod/splitpod/cmd/supervisor-network/internal/relay"
	"github.com/splitpod/splitpod/cmd/supervisor-network/internal/relay/h2"
	"github.com/splitpod/splitpod/cmd/supervisor-network/internal/relay/origin"
	"github.com/splitpod/splitpod/cmd/supervisor-network/internal/relay/pool"
	"github.com/splitpod/splitpod/cmd/supervisor-network/internal/view"
	"github.com/splitpod/splitpod/pkg/core"
	"github.com/splitpod/splitpod/pkg/core/outbox"
	"github.com/splitpod/splitpod/pkg/core/policy"
	"github.com/splitpod/splitpod/pkg/core/settings"
	"github.com/splitpod/splitpod/pkg/core/slack"
)

// daemon is everything `serve` runs.
type daemon struct {
	cfg      *config.Config
	instance core.InstanceID
	log      *slog.Logger
	box      *outbox.Outbox // nil without a process daemon
	record   *record.Recorder
	meter    *observe.Meter
	window   *view.Window // of what happens now, for people
	refusals *adminRefusals
	export   *export.Exporter // nil: no collector gets copies of records
	ca       *mint.CA
	mint     *mint.Server
	pool     *pool.Pool
	http2    *h2.Pool
	// assemblies bounds the messages that are put together at one time.
	assemblies *websocket.Assemblies
	engine     *decide.Engine
	dialer     *relay.Dialer
	policies   *policies
	hub        *control.Hub // nil without a process daemon
	inbox      *link.Inbox
	gauge      *listen.Gauge
	live       proxy.Live
	advisor    *advisor.Advisor
	vault      *seal.Vault
	inference  *inference.Router
	gateway    *gateway.Gateway // nil: the policy is a file
	bodies     *hold.Bodies
	answers    *hold.Bodies // of origins of HTTP/2, unread
	places     *proxy.Places
	windows    http2.Windows
	originTLS  *tls.Config // for token endpoints
	state      stateRoom

	attach attachState
}

// ConfigError is a daemon that was not started for what it is configured with.
type ConfigError struct{ err error }

// Error implements error.
func (e *ConfigError) Error() string { return e.err.Error() }

// Unwrap returns the cause.
func (e *ConfigError) Unwrap() error { return e.err }

// Serve builds the daemon in the order things depend on each other and runs it
// until ctx ends. Nothing is accepted before everything is there.
func Serve(ctx context.Context, cfg *config.Config, stdout, stderr io.Writer) error {
	tuneMemory(ctx)
	slack.Allow()
	signal.Ignore(syscall.SIGPIPE) // a log whose reader is gone is one that cannot be written
	if err := harden(); err != nil {
		return err
	}
	d := &daemon{cfg: cfg, instance: core.NewInstanceID(), engine: &decide.Engine{}, meter: observe.NewMeter(),
		bodies: hold.New(heldLimit()), answers: hold.New(unreadLimit()), places: proxy.NewPlaces(cfg.MaxConnections)}
	d.windows.Limit = windowLimit()
	d.assemblies = websocket.NewAssemblies(d.bodies)
	d.log = settings.Logger(stderr, cfg.LogLevel, Build().Component, d.instance)
	overhear(d.log)
	if cfg.Identity == "process" {
		d.box = outbox.New(outbox.DefaultLimit)
	}
	if err := d.openRecords(stdout); err != nil {
		return &ConfigError{err}
	}
	if err := d.checkToken(); err != nil {
		return &ConfigError{err}
	}
	d.dialer = relay.New(relay.Config{Timeout: cfg.ConnectTimeout, Dialled: d.meter.Dialled})
	d.gauge = listen.NewGauge(cfg.MaxConnections)

	var err error
	// The policy first: a mistake in it starts nothing. A gateway is asked later, and again.
	var file policyfile.File
	if cfg.Gateway == "" {
		file = policyfile.Read(cfg.Policy)
	}
	for _, w := range file.Warnings {
		d.log.Warn("policy warning", slog.String("problem", w.String()))
	}
	if err := d.openState(); err != nil {
		return &ConfigError{fmt.Errorf("--state-dir: %w", err)}
	}
	defer d.inbox.Release()
	if err := d.openCA(); err != nil {
		return &ConfigError{err}
	}
	if d.mint, err = mint.NewServer(d.ca, mint.Options{}); err != nil {
		return &ConfigError{err}
	}
	if err := d.openOrigins(); err != nil {
		return &ConfigError{err}
	}
	if err := d.openVault(); err != nil {
		return &ConfigError{err}
	}
	if err := d.openInference(); err != nil {
		return &ConfigError{err}
	}
	if d.advisor, err = d.openAdvisor(); err != nil {
		return &ConfigError{fmt.Errorf("--state-dir: %w", err)}
	}
	d.policies = d.newPolicies()
	if cfg.Identity == "process" {
		d.hub = control.New(control.Options{
			RunDir: cfg.RunDir, PeerUID: cfg.ProcessUID, Build: Build(), Instance: d.instance,
			Log: d.log, Outbox: d.box, Inbox: d.inbox, Handler: d, Ready: func() bool { return observe.Holds(d.checks()) },
		})
	}
	if err := d.openGateway(); err != nil {
		return &ConfigError{err}
	}
	if d.gateway == nil {
		if err := d.policies.load(ctx, file); err != nil {
			return &ConfigError{fmt.Errorf("the policy is not usable, nothing was started:\n%w", err)}
		}
	}
	return d.run(ctx, file.Digest)
}

// openState makes the state directory this daemon's alone, before anything in it is looked
// at. The ledger is what says so, also without a process daemon whose events it counts.
func (d *daemon) openState() (err error) {
	if err := os.MkdirAll(d.cfg.StateDir, 0o700); err != nil {
		return err
	}
	d.inbox, err = d.openInbox()
	d.state = roomOf(d.cfg.StateDir)
	return err
}

func (d *daemon) openCA() error {
	ca, err := mint.Open(d.cfg.StateDir)
	if err != nil {
		return fmt.Errorf("--state-dir: %w", err)
	}
	d.ca = ca
	cert := ca.Certificate()
	d.record.Own(core.Event{Kind: core.EventLifecycle, Stage: core.StageConfig, Severity: core.SeverityInfo, Reason: core.EventCAEnabled,
		Detail: fmt.Sprintf("sha256 %x, until %s", sha256.Sum256(cert.Raw), cert.NotAfter.UTC().Format(time.RFC3339))})
	if d.cfg.CAOut == "" {
		return nil
	}
	if err := ca.WriteCertificate(d.cfg.CAOut); err != nil {
		return fmt.Errorf("--ca-out: %w", err)
	}
	return nil
}

// openOrigins prepares what connections to origins are made with.
func (d *daemon) openOrigins() error {
	client, err := origin.New(origin.Config{Roots: d.cfg.UpstreamRoots})
	if err != nil {
		return fmt.Errorf("--upstream-roots: %w", err)
	}
	d.originTLS = client.Config()
	handshake := func(ctx context.Context, c net.Conn, host string, protos []string) (*tls.Conn, error) {
		began := time.Now()
		tc, err := client.Handshake(ctx, c, host, protos)
		d.meter.OriginHandshake(time.Since(began), err)
		return tc, err
	}
	d.pool = pool.New(pool.Config{Dial: d.dialer.Dial, Handshake: handshake})
	d.http2 = h2.New(h2.Config{Unread: d.answers, Dial: h2.Dialling(d.dialer.Dial, handshake)})
	return nil
}

func (d *daemon) openAdvisor() (*advisor.Advisor, error) {
	return advisor.Open(advisor.Options{
		StateDir: d.cfg.StateDir, IgnoreBinaries: d.cfg.Identity != "process", Proposals: d.cfg.AgentProposals, Learn: d.cfg.Learn,
		Base:  func() *policy.Document { return d.policies.inForce() },
		Apply: func(ctx context.Context) error { return d.policies.refresh(ctx) }, Record: d.record.Own, Refused: d.refusals.socket, Log: d.log,
	})
}

func (d *daemon) newPolicies() *policies {
	return &policies{
		join: d.advisor.Join, joined: d.advisor.Joined, learnUntil: d.advisor.LearnUntil(),
		ignoreBinaries: d.cfg.Identity != "process",
		refuseBinaries: d.cfg.Identity == "off",
		denyOnInvalid:  d.cfg.InvalidPolicy == "deny",
		engine:         d.engine,
		event:          d.record.Own,
		base: core.Config{
			NetworkInstance: d.instance, ProxyPort: d.cfg.ProxyPort, AgentProposals: d.cfg.AgentProposals,
			CAPEM: d.ca.PEM(), RootsPEM: systemRoots(), Environment: d.vault.Current().Environment(),
		},
		publish: func(c core.Config) {
			if d.hub != nil {
				d.hub.SetConfig(c)
			}
		},
		changed: d.policyChanged,
	}
}

// policyChanged ends the connections that the new policy refuses; with no policy,
// all of them.
func (d *daemon) policyChanged(snap *decide.Snapshot) {
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	if n := d.live.Recheck(ctx, snap); n > 0 {
		d.log.Info("connections ended by the new policy", slog.Int("count", n))
	}
}

func (d *daemon) reload(f policyfile.File) { _ = d.apply(context.Background(), f) }

// apply puts a changed policy in force, or says why not.
func (d *daemon) apply(ctx context.Context, f policyfile.File) error {
	ctx, cancel := context.WithTimeout(ctx, 30*time.Second)
	defer cancel()
	err := d.policies.load(ctx, f)
	if err != nil {
		d.log.Error("the changed policy is not usable", slog.Any("error", err))
	}
	return err
}

func (d *daemon) lifecycle(reason core.Reason, detail string) {
	d.record.Own(core.Event{Kind: core.EventLifecycle, Stage: core.StageControl, Severity: core.SeverityInfo, Reason: reason, Detail: detail})
}

// systemRoots are this image's root certificates, for workload images that bring
// none.
func systemRoots() []byte {
	for _, path := range []string{
		"/etc/ssl/certs/ca-certificates.crt", "/etc/pki/tls/certs/ca-bundle.crt", "/etc/ssl/ca-bundle.pem", "/etc/ssl/cert.pem",
	} {
		if data, err := os.ReadFile(path); err == nil && len(data) < 1<<20 {
			return data
		}
	}
	return nil
}
