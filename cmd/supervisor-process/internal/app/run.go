package app

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"os"
	"os/signal"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/splitpod/splitpod/cmd/supervisor-process/internal/config"
	"github.com/splitpod/splitpod/cmd/supervisor-process/internal/confine"
	"github.com/splitpod/splitpod/cmd/supervisor-process/internal/confine/landlock"
	"github.com/splitpod/splitpod/cmd/supervisor-process/internal/control"
	"github.com/splitpod/splitpod/cmd/supervisor-process/internal/launch"
	"github.com/splitpod/splitpod/cmd/supervisor-process/internal/observe"
	"github.com/splitpod/splitpod/cmd/supervisor-process/internal/prepare"
	"github.com/splitpod/splitpod/pkg/core"
	"github.com/splitpod/splitpod/pkg/core/outbox"
	"github.com/splitpod/splitpod/pkg/core/policy"
)

func runCommand(ctx context.Context, args []string, stdout, stderr io.Writer) int {
	cfg, argv, code := load("run", args, stderr)
	if code != exitOK {
		return code
	}
	if len(argv) == 0 {
		fmt.Fprintf(stderr, "supervisor-process: run needs a command: run [flags] -- CMD [ARG...]\n")
		return exitUsage
	}
	if err := prepare.CheckCapabilities(); err != nil {
		fmt.Fprintf(stderr, "supervisor-process: %v\n", err)
		return exitPrivilege
	}
	if err := harden(); err != nil {
		return exitCode(err, stderr)
	}
	gather()
	d := &daemon{cfg: cfg, instance: core.NewInstanceID(), environ: config.Environ(),
		configs: make(chan core.Config, 1), fatal: make(chan error, 1), signals: make(chan os.Signal, 16)}
	d.stdout, d.stderr = &stream{out: stdout}, &stream{out: stderr}
	d.log = newLogger(d.stderr, cfg.LogLevel, d.instance)
	exit, err := d.run(ctx, argv)
	if e, ok := errors.AsType[*launch.LaunchError](err); ok {
		fmt.Fprintf(stderr, "supervisor-process: %v\n", e)
		return e.Code
	}
	if err != nil {
		return exitCode(err, stderr)
	}
	return exit.Code
}

// run opens everything the life of the workload needs, lives it, and closes
// everything.
func (d *daemon) run(ctx context.Context, argv []string) (core.Exit, error) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	signal.Notify(d.signals, forwarded...)
	defer signal.Stop(d.signals)
	broken := make(chan os.Signal, 1) // a reader of our output that is gone is the workload's affair
	signal.Notify(broken, syscall.SIGPIPE)
	defer signal.Stop(broken)

	if d.cfg.Policy == "" {
		d.box = outbox.New(outbox.DefaultLimit)
	}
	if err := d.openReport(d.stdout, d.stderr); err != nil {
		return core.Exit{}, &problem{exitConfig, err}
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
			return &problem{exitConfig, d.noRunDir()}
		}
		c, err := staticConfig(d.cfg.Policy, d.log)
		if err != nil {
			return &problem{exitConfig, err}
		}
		d.configs <- c
	} else if err := d.openLink(ctx, core.ModeSandbox); err != nil {
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

func (d *daemon) openLink(ctx context.Context, mode core.Mode) error {
	inbox, err := d.openInbox()
	if err != nil {
		return &problem{exitConfig, err}
	}
	l, err := control.Open(ctx, control.Options{
		RunDir: d.cfg.RunDir, PeerUID: d.cfg.NetworkUID, Build: build(), Instance: d.instance, Mode: mode,
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

// chooseAccount finds as whom the workload runs, in the image's own files. A HOME of the
// container is the workload's, unless it is root's, which container runtimes set themselves.
func (d *daemon) chooseAccount(c core.Config) (prepare.Account, error) {
	a, err := prepare.LookupAccount("/", c.Static.RunAsUser, c.Static.RunAsGroup, d.cfg.NetworkUID)
	if home := d.variable("HOME"); err == nil && filepath.IsAbs(home) && filepath.Clean(home) != "/" && filepath.Clean(home) != "/root" {
		a.Home = filepath.Clean(home)
	}
	return a, err
}

// variable is one of the container's.
func (d *daemon) variable(name string) (value string) {
	for _, e := range d.environ {
		if v, ok := strings.CutPrefix(e, name+"="); ok {
			value = v
		}
	}
	return value
}

// makeDirectories creates what the policy's read_write names and the image lacks.
func (d *daemon) makeDirectories(c core.Config) error {
	made, err := prepare.MakeDirectories("/", c.Static.ReadWrite, d.account)
	if len(made) > 0 {
		d.log.Info("directories were created for the workload", slog.Any("paths", made))
	}
	return err
}

// limitPIDs gives the workload a limit of processes of its own, if asked for.
func (d *daemon) limitPIDs() (remove func(), err error) {
	if d.cfg.PIDs == 0 {
		return func() {}, nil
	}
	procs, undo, err := prepare.LimitPIDs("/", "splitpod-"+string(d.instance), d.cfg.PIDs)
	if err != nil {
		return nil, &problem{exitConfig, fmt.Errorf("--pids: %w", err)}
	}
	d.sandbox.Limit(procs)
	return func() {
		if err := undo(); err != nil {
			d.log.Warn("the workload's cgroup is left behind", slog.Any("error", err))
		}
	}, nil
}

// checkPIDLimit records that there is no limit of processes, or refuses it.
func (d *daemon) checkPIDLimit() error {
	_, err := prepare.PIDLimit("/")
	if err == nil || d.cfg.PIDs > 0 {
		return nil
	}
	if d.cfg.RequirePIDLimit {
		return fmt.Errorf("--require-pid-limit: %w", err)
	}
	d.report.Own(core.Event{Kind: core.EventFinding, Stage: core.StageLaunch, Severity: core.SeverityLow, Reason: "no_pid_limit", Detail: err.Error()})
	return nil
}

// searchPath is the container's PATH.
func (d *daemon) searchPath() string {
	return cmp.Or(d.variable("PATH"), launch.DefaultPath)
}

// spec is one program as every program of this sandbox runs.
func (d *daemon) spec(argv []string, files [3]*os.File) launch.Spec {
	c, may := d.started, d.files.Now("/")
	e := launch.Environment{Base: d.environ, Account: d.account, Provided: c.Environment}
	if provided := d.provided.Load(); provided != nil {
		e.Provided = *provided
	}
	if d.link != nil {
		e.ProxyPort = c.ProxyPort
		if len(c.CAPEM) > 0 {
			e.CAFile, e.Bundle, e.JavaStore = d.cfg.RunDir+"/"+caFile, d.cfg.RunDir+"/"+bundleFile, d.cfg.RunDir+"/"+javaFile
		}
	}
	return launch.Spec{Argv: argv, Env: e.Strings(), Files: files, As: confine.Plan{
		UID: d.account.UID, GID: d.account.GID, Groups: d.account.Groups, Dir: d.workdir(),
		Files: landlock.Rules{ReadOnly: may.ReadOnly, ReadWrite: may.ReadWrite, Hard: c.Static.HardLandlock}, Told: d.calls != nil,
	}}
}

// mainSpec is the workload's own program, for which the working directory is there.
func (d *daemon) mainSpec(argv []string, files [3]*os.File) launch.Spec {
	spec := d.spec(argv, files)
	spec.As.Workspace = d.started.Static.IncludeWorkdir && d.workdir() != "/"
	return spec
}

func (d *daemon) launchMain(ctx context.Context, argv []string) (*launch.Session, error) {
	spec := d.mainSpec(argv, [3]*os.File{})
	if err := d.openConsole(&spec); err != nil {
		return nil, fmt.Errorf("launch the workload: %w", err)
	}
	session, err := d.sandbox.Launch(ctx, spec)
	d.console.Launched(os.Stdin, workloads{d.stdout}, workloads{d.stderr})
	if e, ok := errors.AsType[*launch.LaunchError](err); ok {
		d.finish(argv[0], 0, core.Exit{Code: e.Code})
		return nil, e
	}
	if err != nil {
		return nil, fmt.Errorf("launch the workload: %w", err)
	}
	d.confined(session.Applied)
	d.workloadEvent(reasonLaunched, session.PID(), argv[0], core.Exit{})
	return session, nil
}

// confined records what was really applied to the workload.
func (d *daemon) confined(files landlock.Report) {
	for _, ev := range applied(files, d.account) {
		d.report.Own(ev)
	}
	for _, detail := range notGranted(d.files, files) {
		d.report.Own(core.Event{Kind: core.EventFinding, Stage: core.StageLaunch, Severity: core.SeverityLow, Reason: "path_not_granted", Detail: detail})
	}
}

// applied is what was, and what of the kernel's was missing for it.
func applied(files landlock.Report, a prepare.Account) []core.Event {
	ev := core.Event{Kind: core.EventLifecycle, Stage: core.StageLaunch, Severity: core.SeverityInfo, Reason: core.EventConfined, Detail: summary(files, a)}
	lacks := core.Event{Kind: core.EventFinding, Stage: core.StageLaunch, Severity: core.SeverityMedium, Reason: core.EventLandlockPartial,
		Detail: fmt.Sprintf("the kernel's Landlock has ABI %d and does not limit: %s", files.ABI, strings.Join(landlock.Unlimited(files.ABI), "; "))}
	switch {
	case files.ABI == 0:
		ev.Kind, ev.Severity, ev.Reason = core.EventFinding, core.SeverityHigh, core.EventLandlockUnavailable
		ev.Detail = "the kernel has no Landlock, so that only the workload's user limits its files; use landlock: {compatibility: hard_requirement} to refuse this"
		return []core.Event{ev}
	case files.ABI < landlock.HardABI:
		return []core.Event{ev, lacks}
	default:
		return []core.Event{ev}
	}
}

// summary is what was applied, in one line.
func summary(r landlock.Report, a prepare.Account) string {
	return fmt.Sprintf("landlock ABI %d: %d paths read-only, %d read-write, %d skipped; seccomp allow-list; no capability; uid %d, gid %d",
		r.ABI, r.ReadOnly, r.ReadWrite, len(r.Skipped)+r.Unnamed, a.UID, a.GID)
}

// notGranted is what the policy asks for and the workload does not get, with reasons.
func notGranted(f prepare.Files, r landlock.Report) []string {
	out := slices.Concat(f.Findings, r.Skipped)
	if r.Unnamed > 0 {
		out = append(out, fmt.Sprintf("%d more paths", r.Unnamed))
	}
	return out
}

// forwarded are the signals the workload gets from us.
var forwarded = []os.Signal{
	syscall.SIGTERM, syscall.SIGINT, syscall.SIGHUP, syscall.SIGQUIT, syscall.SIGUSR1, syscall.SIGUSR2, syscall.SIGWINCH, syscall.SIGCONT,
}

// handleSignals forwards signals to the workload. Before it runs, one that asks to
// end stops the start.
func (d *daemon) handleSignals(ctx context.Context, stopStart func()) {
	for {
		select {
		case <-ctx.Done():
			return
		case sig := <-d.signals:
			if s := sig.(syscall.Signal); d.early.keeps(s) {
				stopStart()
			}
		}
	}
}

// earlySignals are those that come before the workload can get them. The zero value is
// ready to use.
type earlySignals struct {
	mu   sync.Mutex
	send func(syscall.Signal) // guarded by mu; nil until the workload runs
	last syscall.Signal       // guarded by mu; that asked to end; 0: none
}

// keeps passes a signal on, or, before there is a workload, reports whether it asks to
// end.
func (e *earlySignals) keeps(sig syscall.Signal) bool {
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.send != nil {
		e.send(sig)
		return false
	}
	if ends(sig) {
		e.last = sig
	}
	return ends(sig)
}

// begin says that the workload runs. A signal to end that came too late to stop the
// start, which nobody sends twice, is its first.
func (e *earlySignals) begin(send func(syscall.Signal)) {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.send = send
	if e.last != 0 {
		send(e.last)
	}
}

// ends reports whether a signal asks to end.
func ends(sig syscall.Signal) bool {
	return sig == syscall.SIGTERM || sig == syscall.SIGINT || sig == syscall.SIGQUIT
}

// forward sends a signal to the workload. SIGTERM goes to every process of the
// sandbox, and like every signal that asks to end starts the grace time, after which
// they are killed.
func (d *daemon) forward(session *launch.Session, sig syscall.Signal) {
	if sig == syscall.SIGWINCH && d.console.Terminal() {
		d.resizeTerminal()
		return
	}
	send := session.Signal
	if sig == syscall.SIGTERM {
		send = d.sandbox.SignalAll
	}
	if err := send(sig); err != nil {
		d.log.Warn("a signal was not delivered", slog.String("signal", sig.String()), slog.Any("error", err))
	}
	if ends(sig) {
		d.ending.Do(func() {
			time.AfterFunc(d.cfg.Grace, func() { _ = d.sandbox.SignalAll(syscall.SIGKILL) })
		})
	}
}

// exitTimeout is the exit code of a workload that ran too long, as of timeout(1).
const exitTimeout = 124

// await waits for the workload's end; after --timeout it is ended like by SIGTERM.
func (d *daemon) await(ctx context.Context, session *launch.Session) (core.Exit, error) {
	var late atomic.Bool
	if d.cfg.Timeout > 0 {
		timer := time.AfterFunc(d.cfg.Timeout, func() {
			late.Store(true)
			d.forward(session, syscall.SIGTERM)
		})
		defer timer.Stop()
	}
	exit, err := session.Wait(ctx)
	if err != nil {
		return core.Exit{}, fmt.Errorf("the workload was lost: %w", err)
	}
	if late.Load() {
		d.log.Warn("the workload was ended after --timeout", slog.Duration("timeout", d.cfg.Timeout))
		exit.Code = exitTimeout
	}
	return exit, nil
}
