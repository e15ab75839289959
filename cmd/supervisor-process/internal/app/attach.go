package app

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"syscall"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/splitpod/splitpod/cmd/supervisor-process/internal/config"
	"github.com/splitpod/splitpod/cmd/supervisor-process/internal/observe"
	"github.com/splitpod/splitpod/cmd/supervisor-process/internal/watch/identity"
	"github.com/splitpod/splitpod/pkg/core"
	"github.com/splitpod/splitpod/pkg/core/outbox"
	"github.com/splitpod/splitpod/pkg/core/slack"
)

// Attach answers for the process tree of cfg.PID, which already runs, in this daemon's own
// namespaces. It confines nothing: there is no fence and no sandbox. It blocks until that
// process ends, ctx ends, or this process gets SIGTERM or SIGINT; none of these is an error.
// It fails with *ConfigError as Run does.
func Attach(ctx context.Context, cfg *config.Config, stdout, stderr io.Writer) error {
	d, err := start(cfg, stderr)
	if err != nil {
		return err
	}
	slack.Allow() // no program is started here
	ctx, stop := signal.NotifyContext(ctx, syscall.SIGTERM, syscall.SIGINT)
	defer stop()
	d.box = outbox.New(outbox.DefaultLimit)
	if err := d.openReport(stdout, stderr); err != nil {
		return &ConfigError{err}
	}
	defer d.runRecords()()
	resolver, err := openAttached(d.cfg.PID)
	if err != nil {
		return err
	}
	d.resolver.Store(resolver)
	g, ctx := errgroup.WithContext(ctx)
	admin, err := d.bindAdmin(ctx)
	if err != nil {
		return err
	}
	if err := d.openLink(core.ModeAttach); err != nil {
		return err
	}
	g.Go(func() error { return d.link.Run(ctx) })
	if admin != nil {
		g.Go(func() error { return observe.New(d.metrics(), d.attachChecks).Run(ctx, admin) })
	}
	g.Go(func() error { d.followConfig(ctx); return nil })
	g.Go(func() error { return ended(ctx, d.cfg.PID) })
	err = g.Wait()
	if errors.Is(err, errAttachedEnded) {
		return nil
	}
	return err
}

func (d *daemon) attachChecks() []observe.Check {
	return d.linkChecks()
}

// openAttached makes a resolver for the tree below pid.
func openAttached(pid int) (*identity.Resolver, error) {
	diag, err := identity.OpenDiag()
	if err != nil {
		return nil, err
	}
	proc, err := os.Open("/proc")
	if err != nil {
		return nil, fmt.Errorf("attach: %w", err)
	}
	root, err := os.Open(fmt.Sprintf("/proc/%d/root", pid))
	if err != nil {
		return nil, fmt.Errorf("attach to pid %d: %w", pid, err)
	}
	return identity.Open(identity.Config{Diag: diag, Proc: proc, Root: root, Tree: pid})
}

var errAttachedEnded = errors.New("the process attached to has ended")

// ended waits until the process is gone.
func ended(ctx context.Context, pid int) error {
	p, err := os.FindProcess(pid)
	if err != nil {
		return fmt.Errorf("attach to pid %d: %w", pid, err)
	}
	defer p.Release()
	tick := time.NewTicker(time.Second)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
			if p.Signal(syscall.Signal(0)) != nil {
				return errAttachedEnded
			}
		}
	}
}
