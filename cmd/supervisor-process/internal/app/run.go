package app

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"os"
	"os/signal"
	"syscall"

	"golang.org/x/sync/errgroup"

	"github.com/splitpod/splitpod/cmd/supervisor-process/internal/config"
	"github.com/splitpod/splitpod/cmd/supervisor-process/internal/control"
	"github.com/splitpod/splitpod/cmd/supervisor-process/internal/launch"
	"github.com/splitpod/splitpod/cmd/supervisor-process/internal/observe"
	"github.com/splitpod/splitpod/pkg/core"
	"github.com/splitpod/splitpod/pkg/core/outbox"
	"github.com/splitpod/splitpod/pkg/core/policy"
	"github.com/splitpod/splitpod/pkg/core/settings"
)

// ConfigError is a daemon that was not started for what it is configured with.
type ConfigError struct{ err error }

// Error implements error.
func (e *ConfigError) Error() string { return e.err.Error() }

// Unwrap returns the cause.
func (e *ConfigError) Unwrap() error { return e.err }

// Run runs argv as the workload of a sandbox, and returns how that ended. It blocks until
// then; signals that this process gets are the workload's. The workload's output, the records
// and the log go to stdout and stderr, as cfg says, which is valid. It fails with
// *launch.LaunchError when the program was not executed, and with *ConfigError for what cfg,
// the policy or the other daemon's build does not allow; then nothing of the workload ran.
func Run(ctx context.Context, cfg *config.Config, argv []string, stdout, stderr io.Writer) (core.Exit, error) {
	out, log := &stream{out: stdout}, &stream{out: stderr}
	d, err := start(cfg, log)
	if err != nil {
		return core.Exit{}, err
	}
	d.stdout, d.stderr, d.signals = out, log, make(chan os.Signal, 16)
	return d.run(ctx, argv)
}

// start makes a daemon that logs to log, and this process fit for one.
func start(cfg *config.Config, log io.Writer) (*daemon, error) {
	if err := harden(); err != nil {
		return nil, err
	}
	gather()
	d := &daemon{cfg: cfg, instance: core.NewInstanceID(), environ: config.Environ(),
		configs: make(chan core.Config, 1), fatal: make(chan error, 1)}
	d.log = settings.Logger(log, cfg.LogLevel, Build().Component, d.instance)
	return d, nil
}

// run opens everything the life of the workload needs, lives it, and closes
// everything.
func (d *daemon) run(ctx context.Context, argv []string) (core.Exit, error) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	signal.Notify(d.signals, launch.Forwarded()...)
	defer signal.Stop(d.signals)
	broken := make(chan os.Signal, 1) // a reader of our output that is gone is the workload's affair
	signal.Notify(broken, syscall.SIGPIPE)
	defer signal.Stop(broken)

	if d.cfg.Policy == "" {
		d.box = outbox.New(outbox.DefaultLimit)
	}
	if err := d.openReport(d.stdout, d.stderr); err != nil {
		return core.Exit{}, &ConfigError{err}
	}

	defer d.runRecords()()
	g, gctx := errgroup.WithContext(ctx)
	if err := d.open(gctx, g); err != nil {
		return core.Exit{}, err
	}
	exit, err := d.life(ctx, argv)
	cancel()
	return exit, errors.Join(err, g.Wait())
}

// open binds what can be taken already, then serves it: the contract, or the static
// sections of a file in its place, and the admin listener.
func (d *daemon) open(ctx context.Context, g *errgroup.Group) error {
	admin, err := d.bindAdmin(ctx)
	if err != nil {
		return err
	}
	if d.cfg.Policy != "" {
		if st, err := os.Stat(d.cfg.RunDir); err != nil || !st.IsDir() {
			return &ConfigError{d.noRunDir()}
		}
		c, err := staticConfig(d.cfg.Policy, d.log)
		if err != nil {
			return &ConfigError{err}
		}
		d.configs <- c
	} else if err := d.openLink(core.ModeSandbox); err != nil {
		return err
	}
	if d.link != nil {
		g.Go(func() error { return d.endsStart(d.link.Run(ctx)) })
	}
	if admin != nil {
		g.Go(func() error { return d.endsStart(observe.New(d.metrics(), d.checks).Run(ctx, admin)) })
	}
	return nil
}

// bindAdmin takes the address of health and metrics; nil when there is none.
func (d *daemon) bindAdmin(ctx context.Context) (net.Listener, error) {
	if d.cfg.AdminListen == "" {
		return nil, nil
	}
	var lc net.ListenConfig
	l, err := lc.Listen(ctx, "tcp", d.cfg.AdminListen)
	if err != nil {
		return nil, fmt.Errorf("bind %s (--admin-listen): %w", d.cfg.AdminListen, err)
	}
	return l, nil
}

// endsStart makes the failure of a part end a start that waits for it. A workload that
// runs goes on, and is not ready any more.
func (d *daemon) endsStart(err error) error {
	if err != nil {
		d.log.Error("a part of this daemon has failed; restart the sandbox", slog.Any("error", err))
		select {
		case d.fatal <- err:
		default:
		}
	}
	return err
}

func (d *daemon) openLink(mode core.Mode) error {
	inbox, err := d.openInbox()
	if err != nil {
		return &ConfigError{err}
	}
	l, err := control.Open(control.Options{
		RunDir: d.cfg.RunDir, PeerUID: d.cfg.NetworkUID, Build: Build(), Instance: d.instance, Mode: mode,
		Log: d.log, Outbox: d.box, Inbox: inbox, Handler: d, Ready: func() bool { return observe.Holds(d.checks()) },
	})
	if err != nil {
		return fmt.Errorf("open the contract's sockets: %w", err)
	}
	d.link, d.workload.link = l, l
	d.workload.change(func(w *core.Workload) { w.Instance = d.instance })
	return nil
}

// staticConfig takes the static sections of a policy file. The workload has no
// network then, whatever the file says about it.
func staticConfig(path string, log *slog.Logger) (core.Config, error) {
	data, err := os.ReadFile(path)
	if err != nil {
		return core.Config{}, fmt.Errorf("read the policy: %w", err)
	}
	doc, warnings, err := policy.Parse(path, data)
	if err != nil {
		return core.Config{}, err
	}
	for _, w := range warnings {
		log.Warn("policy warning", slog.String("problem", w.String()))
	}
	if len(doc.Network) > 0 {
		log.Warn("network_policies are not used: without a network daemon the workload has no network")
	}
	return core.Config{Generation: 1, Static: core.StaticPolicy{
		ReadOnly: doc.Filesystem.ReadOnly, ReadWrite: doc.Filesystem.ReadWrite, IncludeWorkdir: doc.Filesystem.IncludeWorkdir,
		HardLandlock: doc.Landlock.Compatibility == policy.HardRequirement,
		RunAsUser:    doc.Process.RunAsUser, RunAsGroup: doc.Process.RunAsGroup,
	}}, nil
}
