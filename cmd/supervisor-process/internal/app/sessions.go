package app

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"os"
	"slices"
	"strings"
	"syscall"

	"github.com/splitpod/splitpod/api/supervisor/link"
	"github.com/splitpod/splitpod/cmd/supervisor-process/internal/app/inside"
	"github.com/splitpod/splitpod/cmd/supervisor-process/internal/isolate/netns"
	"github.com/splitpod/splitpod/cmd/supervisor-process/internal/launch"
	"github.com/splitpod/splitpod/cmd/supervisor-process/internal/launch/exec"
	"github.com/splitpod/splitpod/cmd/supervisor-process/internal/launch/sshd"
	"github.com/splitpod/splitpod/pkg/core"
)

// sshSocket is where SSH is served: to this daemon's own uid and to the network
// daemon's, and, if configured, only with an authorised key.
const sshSocket = "ssh.sock"

// serveExec serves until the returned function is called.
func (d *daemon) serveExec(ctx context.Context) (stop func(), err error) {
	l, err := link.Listen("unixpacket", d.cfg.RunDir, exec.Socket, d.log)
	if err != nil {
		return nil, err
	}
	server := exec.Server{Admit: d.admitExec, Launch: d.launchExec, OpenTerminal: d.openTerminal, Log: d.log}
	ctx, cancel := context.WithCancel(ctx)
	done := make(chan struct{})
	go func() {
		defer close(done)
		if err := server.Run(ctx, l); err != nil {
			d.log.Error("exec ended", slog.Any("error", err))
		}
	}()
	return func() {
		cancel()
		<-done
	}, nil
}

// admitExec lets this daemon's own uid in.
func (d *daemon) admitExec(c net.Conn) error {
	err := link.CheckPeer(c, uint32(os.Geteuid()))
	if err != nil {
		d.Refused(err)
	}
	return err
}

// launchExec launches a program exactly as the workload is launched.
func (d *daemon) launchExec(ctx context.Context, r exec.Request) (launch.Program, error) {
	spec := d.sessionSpec(r.Argv, r.Files, r.Environ)
	spec.Terminal = r.Terminal
	return d.launchSession(ctx, spec, r.Argv[0])
}

// openTerminal opens one that belongs to the workload's user.
func (d *daemon) openTerminal() (*launch.Terminal, error) { return launch.OpenTerminal(d.account.UID) }

// serveSSH serves until the returned function is called.
func (d *daemon) serveSSH(ctx context.Context) (stop func(), err error) {
	if !d.cfg.SSH {
		return func() {}, nil
	}
	server, err := sshd.New(sshd.Config{
		Admit: d.admitSSH, Launch: d.launchSSH, Dial: d.dial, Authorized: d.authorized(), Log: d.log, Record: d.sshEvent,
		Main: d.console, SignalMain: func(sig syscall.Signal) error { return d.main.Load().Signal(sig) },
		OpenTerminal: d.openTerminal,
	})
	if err != nil {
		return nil, err
	}
	l, err := link.Listen("unix", d.cfg.RunDir, sshSocket, d.log)
	if err != nil {
		return nil, err
	}
	d.ssh.Store(server)
	d.log.Info("serving SSH", slog.String("host_key", server.Fingerprint))
	d.sshEvent(core.EventSSHListening, "host key "+server.Fingerprint)
	ctx, cancel := context.WithCancel(ctx)
	done := make(chan struct{})
	go func() {
		defer close(done)
		if err := server.Run(ctx, l); err != nil {
			d.log.Error("SSH ended", slog.Any("error", err))
			d.report.Own(core.Event{Kind: core.EventLifecycle, Stage: core.StageSSH, Severity: core.SeverityCritical, Reason: core.EventSSHFailed, Detail: err.Error()})
		}
	}()
	return func() {
		server.Told(outputPatience)
		cancel()
		<-done
	}, nil
}

// sshEvent records what somebody did, or was refused, by SSH.
func (d *daemon) sshEvent(reason core.Reason, detail string) {
	ev := core.Event{Kind: core.EventLifecycle, Stage: core.StageSSH, Severity: core.SeverityInfo, Reason: reason, Detail: detail}
	switch reason {
	case core.EventSSHFailed:
		ev.Severity = core.SeverityLow
	case core.EventSSHRefused, core.EventSSHUnsupported:
		ev.Severity = core.SeverityMedium
	}
	d.report.Own(ev)
}

// authorized reads --ssh-authorized-keys anew for every connection, so that a key that
// is taken out of it is worth nothing any more; nil without one.
func (d *daemon) authorized() func() (*sshd.Authorized, error) {
	path := d.cfg.SSHAuthorizedKeys
	if path == "" {
		return nil
	}
	return func() (*sshd.Authorized, error) {
		text, err := os.ReadFile(path)
		if err != nil {
			return nil, fmt.Errorf("--ssh-authorized-keys: %w", err)
		}
		a, err := sshd.ParseAuthorized(text)
		if err != nil {
			return nil, fmt.Errorf("--ssh-authorized-keys: %s: %w", path, err)
		}
		return a, nil
	}
}

// checkAuthorized reports a file that lets nobody in before anything runs.
func (d *daemon) checkAuthorized() error {
	read := d.authorized()
	if read == nil || !d.cfg.SSH {
		return nil
	}
	_, err := read()
	return err
}

func (d *daemon) admitSSH(c net.Conn) error {
	own := link.CheckPeer(c, uint32(os.Geteuid()))
	if own == nil {
		return nil
	}
	if err := link.CheckPeer(c, d.cfg.NetworkUID); err != nil {
		d.Refused(err)
		return err
	}
	return nil
}

// launchSSH launches a session exactly as the workload is launched.
func (d *daemon) launchSSH(ctx context.Context, r sshd.Request) (launch.Program, error) {
	spec := d.sessionSpec(nil, r.Files, r.Environ)
	spec.Terminal = r.Terminal
	name := d.account.Shell
	switch {
	case r.SFTP:
		self, err := os.Executable()
		if err != nil {
			return nil, fmt.Errorf("find this binary: %w", err)
		}
		spec.Builtin, name = launch.SFTPServer, launch.SFTPServer
		spec.As.Files.ReadOnly = append(slices.Clone(spec.As.Files.ReadOnly), self)
	case name == "":
		return nil, errors.New("the image has no shell; only sftp is served")
	case r.Command == "":
		spec.Argv = []string{name, "-l"}
	default:
		spec.Argv = []string{name, "-c", r.Command}
	}
	return d.launchSession(ctx, spec, name)
}

// sessionSpec is a program beside the workload, with variables of its caller's.
func (d *daemon) sessionSpec(argv []string, files [3]*os.File, environ []string) launch.Spec {
	spec := d.spec(argv, files)
	spec.Env = append(slices.DeleteFunc(spec.Env, func(e string) bool { return setBy(environ, e) }), environ...)
	return spec
}

// setBy reports whether list sets the variable of entry.
func setBy(list []string, entry string) bool {
	return slices.ContainsFunc(list, func(e string) bool { return nameOf(e) == nameOf(entry) })
}

func nameOf(entry string) string {
	name, _, _ := strings.Cut(entry, "=")
	return name
}

// launchSession launches what is recorded as name, and records its end.
func (d *daemon) launchSession(ctx context.Context, spec launch.Spec, name string) (*session, error) {
	s, err := d.sandbox.Launch(ctx, spec)
	if err != nil {
		return nil, err
	}
	d.workloadEvent(core.EventLaunched, s.PID(), name, core.Exit{})
	return &session{s, d, name}, nil
}

// session records its end.
type session struct {
	*launch.Session
	d    *daemon
	name string
}

// Wait implements launch.Program.
func (s *session) Wait(ctx context.Context) (core.Exit, error) {
	exit, err := s.Session.Wait(ctx)
	if err == nil {
		s.d.workloadEvent(core.EventExited, s.PID(), s.name, exit)
	}
	return exit, err
}

// OpenRelay implements control.Handler.
func (d *daemon) OpenRelay(ctx context.Context, target core.RelayTarget, port uint16) (net.Conn, error) {
	if d.main.Load() == nil {
		return nil, errors.New("the workload does not run (yet)")
	}
	if target == core.RelayLoopback {
		return d.dial(ctx, "localhost", port)
	}
	server := d.ssh.Load()
	if server == nil {
		return nil, errors.New("SSH is not served here")
	}
	ours, theirs := net.Pipe()
	go server.Serve(theirs)
	return ours, nil
}

// dial connects inside the workload's network namespace.
func (d *daemon) dial(ctx context.Context, host string, port uint16) (net.Conn, error) {
	return netns.Dial(ctx, d.sandbox.Files[inside.FileNet], host, port)
}
