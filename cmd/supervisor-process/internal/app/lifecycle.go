// Package app wires the process daemon: it builds every stage, and owns their order
// and their end.
//
// It answers the threat of a workload that starts before its fence: the order of
// lifecycle.go is the order in which things become possible, every wait in it has
// a deadline that ends the start, and no step is skipped when one fails. It holds
// no policy and no secret.
package app

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/splitpod/splitpod/api/supervisor/link"
	"github.com/splitpod/splitpod/cmd/supervisor-process/internal/config"
	"github.com/splitpod/splitpod/cmd/supervisor-process/internal/confine/seccomp"
	"github.com/splitpod/splitpod/cmd/supervisor-process/internal/control"
	"github.com/splitpod/splitpod/cmd/supervisor-process/internal/launch"
	"github.com/splitpod/splitpod/cmd/supervisor-process/internal/launch/console"
	"github.com/splitpod/splitpod/cmd/supervisor-process/internal/launch/sshd"
	"github.com/splitpod/splitpod/cmd/supervisor-process/internal/observe"
	"github.com/splitpod/splitpod/cmd/supervisor-process/internal/prepare"
	"github.com/splitpod/splitpod/cmd/supervisor-process/internal/prepare/trust"
	"github.com/splitpod/splitpod/cmd/supervisor-process/internal/report"
	"github.com/splitpod/splitpod/cmd/supervisor-process/internal/watch/calls"
	"github.com/splitpod/splitpod/cmd/supervisor-process/internal/watch/fence"
	"github.com/splitpod/splitpod/cmd/supervisor-process/internal/watch/identity"
	"github.com/splitpod/splitpod/pkg/core"
	"github.com/splitpod/splitpod/pkg/core/outbox"
	"github.com/splitpod/splitpod/pkg/core/slack"
)

// daemon is one run of a workload.
type daemon struct {
	cfg      *config.Config
	instance core.InstanceID
	log      *slog.Logger
	stdout   *stream        // the workload's output, and records
	stderr   *stream        // and the log
	box      *outbox.Outbox // nil without a network daemon
	report   *report.Reporter
	meter    *observe.Meter
	link     *control.Link // nil without a network daemon
	configs  chan core.Config
	fatal    chan error // what ends a start

	signals chan os.Signal
	early   earlySignals
	environ []string           // of the container
	roots   func() trust.Roots // the image's root certificates, looked for once

	started   core.Config                       // what the sandbox was built with
	provided  atomic.Pointer[map[string]string] // what programs started from now on get; nil: what started says
	sandbox   *launch.Sandbox
	account   prepare.Account
	files     prepare.Files
	listeners atomic.Pointer[[]link.Descriptor]
	resolver  atomic.Pointer[identity.Resolver]
	fence     fence.Watch
	calls     *calls.Listener // nil: refused system calls are not told of
	workload  workloadState
	main      atomic.Pointer[launch.Session] // nil until the workload runs

	ssh             atomic.Pointer[sshd.Server]
	console         *console.Console // the workload's; set before main
	restoreTerminal func()           // nil when this daemon has no terminal
	ending          sync.Once        // the grace time has begun
}

// life is the straight line: from nothing to the workload's exit code. Each wait
// in it ends with an error, never with something open.
func (d *daemon) life(ctx context.Context, argv []string) (core.Exit, error) {
	start, cancel := context.WithTimeoutCause(ctx, d.cfg.StartTimeout, errStartTimeout)
	defer cancel()
	go d.handleSignals(ctx, cancel)

	// Init comes up behind its fence meanwhile, and waits to hear what is wanted.
	var err error
	if d.sandbox, err = launch.Spawn(); err != nil {
		return core.Exit{}, err
	}
	defer d.sandbox.End() // its files stay: the contract, which is up for longer, uses their numbers
	if d.roots = sync.OnceValue(func() trust.Roots { return trust.ImageRoots("/") }); d.link != nil {
		go d.roots() // some milliseconds of PEM, which nobody has to wait for
	}

	// prepare: what must be enforced, and as whom.
	first, err := d.awaitConfig(start)
	if err != nil {
		return core.Exit{}, err
	}
	if err := d.prepare(first, argv[0]); err != nil {
		return core.Exit{}, &ConfigError{err}
	}

	// isolate: namespaces, fence verified, listeners open. Nothing runs in them but
	// our own init.
	if err := d.isolate(start, first); err != nil {
		return core.Exit{}, err
	}
	removeLimit, err := d.limitPIDs()
	if err != nil {
		return core.Exit{}, err
	}
	defer removeLimit()
	defer d.sandbox.End() // the cgroup is empty then
	// From here on init starts programs, this process does not, and none has its slack.
	slack.Allow()
	if err := seccomp.ApplyToDaemon(); err != nil {
		return core.Exit{}, err
	}
	stopWatching := sync.OnceFunc(d.watch(ctx))
	defer stopWatching()

	// The network daemon takes the listeners over and says that it serves the very
	// generation we prepared. Only then anything of the workload is executed.
	if err := d.awaitReady(start, first); err != nil {
		return core.Exit{}, err
	}

	// confine and launch.
	session, err := d.launchMain(start, argv)
	if d.restoreTerminal != nil {
		defer d.restoreTerminal()
	}
	if err != nil {
		return core.Exit{}, err
	}
	d.main.Store(session)
	d.early.begin(func(sig syscall.Signal) { d.forward(session, sig) })
	go d.followConfig(ctx)
	stopExec, err := d.serveExec(ctx)
	if err != nil {
		return core.Exit{}, err
	}
	defer stopExec()
	stopSSH, err := d.serveSSH(ctx)
	if err != nil {
		return core.Exit{}, err
	}
	defer stopSSH()
	d.workload.running(session.PID()) // said once sessions are served: a gateway's users come then

	exit, err := d.await(ctx, session)
	if err != nil {
		return core.Exit{}, err
	}
	d.endOutput(exit)
	stopWatching() // what the fence refused last is reported before the end is
	d.finish(argv[0], session.PID(), exit)
	return exit, nil
}

// endOutput ends the other programs of the sandbox, as the end of a container's first
// process does, and shows all that was written to whoever looks.
func (d *daemon) endOutput(exit core.Exit) {
	if err := d.sandbox.SignalAll(syscall.SIGKILL); err != nil {
		d.log.Warn("the other programs could not be ended", slog.Any("error", err))
	}
	d.console.Finish(exit, outputPatience)
}

// outputPatience is how long a slow reader of the last output is waited for.
const outputPatience = 2 * time.Second

var errStartTimeout = errors.New("the start took longer than --start-timeout")

// awaitConfig waits for the first configuration.
func (d *daemon) awaitConfig(ctx context.Context) (core.Config, error) {
	select {
	case c := <-d.configs:
		return c, nil
	case err := <-d.fatal:
		return core.Config{}, err
	case <-ctx.Done():
		err := d.gaveUp(ctx, "the network daemon to attach and send a configuration")
		if d.link != nil && d.link.Unattached() != "" {
			err = fmt.Errorf("%w; %s", err, d.link.Unattached())
		}
		return core.Config{}, err
	}
}

// gaveUp explains why a wait of the start ended.
func (d *daemon) gaveUp(ctx context.Context, what string) error {
	if cause := context.Cause(ctx); errors.Is(cause, errStartTimeout) {
		return fmt.Errorf("gave up waiting for %s after %s (--start-timeout); nothing was started", what, d.cfg.StartTimeout)
	}
	return fmt.Errorf("stopped while waiting for %s; nothing was started", what)
}

// awaitReady waits until the network daemon serves our listeners with the newest
// configuration, resolving binaries again when it changes meanwhile.
func (d *daemon) awaitReady(ctx context.Context, c core.Config) error {
	if d.link == nil {
		return nil
	}
	for {
		if c.Ready.Process == d.instance && c.Ready.Generation == c.Generation {
			return nil
		}
		select {
		case next := <-d.configs:
			if next.Generation != c.Generation {
				d.resolve(next)
			}
			c = next
		case err := <-d.fatal:
			return err
		case <-ctx.Done():
			return d.gaveUp(ctx, "the network daemon to serve the sandbox's listeners")
		}
	}
}

// followConfig keeps what the policy's binaries lead to current while the workload
// runs.
func (d *daemon) followConfig(ctx context.Context) {
	var last core.Generation
	var network core.InstanceID
	for {
		select {
		case <-ctx.Done():
			return
		case c := <-d.configs:
			if c.Generation != last || c.NetworkInstance != network {
				last, network = c.Generation, c.NetworkInstance
				d.resolve(c)
			}
		}
	}
}

// finish says how the workload ended and gives the last events a moment to be
// delivered.
func (d *daemon) finish(program string, pid int, exit core.Exit) {
	d.workloadEvent(core.EventExited, pid, program, exit)
	d.workload.exited(exit)
	if d.box == nil {
		return
	}
	deadline := time.Now().Add(d.cfg.ExitTimeout)
	for pause := 250 * time.Microsecond; d.box.Stats().Waiting > 0 && time.Now().Before(deadline); pause = min(2*pause, 5*time.Millisecond) {
		time.Sleep(pause) // an acknowledgement usually takes a millisecond
	}
	if n := d.box.Stats().Waiting; n > 0 {
		d.log.Warn("events were not delivered to the network daemon", slog.Int("count", n))
	}
}
