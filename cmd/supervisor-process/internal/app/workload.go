package app

import (
	"context"
	"log/slog"
	"reflect"
	"sync"
	"time"

	"github.com/splitpod/splitpod/cmd/supervisor-process/internal/control"
	"github.com/splitpod/splitpod/pkg/core"
)

// workloadState is the snapshot the network daemon sees. Every change is
// published whole.
type workloadState struct {
	link *control.Link // nil without a network daemon

	mu  sync.Mutex
	now core.Workload // guarded by mu
}

func (s *workloadState) change(f func(*core.Workload)) {
	s.mu.Lock()
	defer s.mu.Unlock()
	f(&s.now)
	if s.link != nil {
		s.link.SetWorkload(s.now)
	}
}

func (s *workloadState) get() core.Workload {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.now
}

func (s *workloadState) prepared() {
	s.change(func(w *core.Workload) { w.Phase = core.PhasePrepared })
}

func (s *workloadState) running(pid int) {
	s.change(func(w *core.Workload) { w.Phase, w.EntrypointPID = core.PhaseRunning, pid })
}

func (s *workloadState) exited(exit core.Exit) {
	s.change(func(w *core.Workload) { w.Phase, w.Exit = core.PhaseExited, exit })
}

func (s *workloadState) resolved(generation core.Generation, paths map[string][]string) {
	s.change(func(w *core.Workload) { w.ResolvedGeneration, w.Resolved = generation, paths })
}

// Config implements control.Handler: only the newest configuration matters.
func (d *daemon) Config(c core.Config) {
	d.checkStatic(c)
	d.provided.Store(&c.Environment)
	for {
		select {
		case d.configs <- c:
			return
		default:
		}
		select {
		case <-d.configs: // make room: it is older
		default:
		}
	}
}

// checkStatic reports a policy whose static sections differ from those the
// workload was started with: they cannot change under a running workload.
func (d *daemon) checkStatic(c core.Config) {
	if d.main.Load() == nil || reflect.DeepEqual(c.Static, d.started.Static) && c.AgentProposals == d.started.AgentProposals {
		return
	}
	d.report.Own(core.Event{Kind: core.EventFinding, Stage: core.StageConfig, Severity: core.SeverityMedium, Reason: core.EventStaticPolicyChanged,
		Detail: "filesystem_policy, landlock, process or --agent-proposals changed; the running workload keeps what it was started with; restart it to apply", Generation: c.Generation})
}

// Incompatible implements control.Handler. Before the launch it ends the start;
// afterwards the workload goes on without egress until an image is upgraded.
func (d *daemon) Incompatible(err error) {
	d.report.Own(core.Event{Kind: core.EventFinding, Stage: core.StageControl, Severity: core.SeverityHigh, Reason: core.EventHandshakeRefused, Detail: err.Error()})
	d.log.Error("the network daemon refused the handshake", slog.Any("error", err))
	if d.main.Load() == nil {
		select {
		case d.fatal <- &ConfigError{err}:
		default:
		}
	}
}

// Refused implements control.Handler.
func (d *daemon) Refused(err error) {
	d.report.Own(core.Event{Kind: core.EventFinding, Stage: core.StageControl, Severity: core.SeverityHigh, Reason: core.EventPeerRefused, Detail: err.Error()})
	d.log.Warn("a peer on the contract was refused", slog.Any("error", err))
}

// Events implements control.Handler.
func (d *daemon) Events(evs []core.Event) { d.report.Peer(evs) }

// Identify implements control.Handler. A failed lookup is recorded here too, with
// the request id of the network daemon's own record.
func (d *daemon) Identify(ctx context.Context, id core.RequestID, t core.Tuple) core.Identity {
	r := d.resolver.Load()
	if r == nil {
		return core.Identity{Status: core.IdentityNotReady, Detail: "the sandbox is not prepared yet"}
	}
	who := r.Identify(ctx, t)
	if who.Status != core.IdentityKnown {
		d.report.Here(core.Event{Kind: core.EventFinding, Time: time.Now(), RequestID: id, Instance: d.instance, Stage: core.StageControl,
			Severity: core.SeverityLow, Reason: core.ReasonIdentityUnavailable, Detail: who.Status.String() + ": " + who.Detail})
	}
	return who
}

// resolve looks what the policy's binaries lead to and publishes it.
func (d *daemon) resolve(c core.Config) {
	var paths map[string][]string
	if r := d.resolver.Load(); r != nil {
		paths = r.Resolve(c.Binaries)
	}
	d.workload.resolved(c.Generation, paths)
}

func (d *daemon) workloadEvent(reason core.Reason, pid int, program string, exit core.Exit) {
	d.report.Own(core.Event{Kind: core.EventWorkload, Stage: core.StageLaunch, Severity: core.SeverityInfo, Reason: reason,
		Process: core.ProcessRef{PID: pid}, UID: d.account.UID, Program: core.Program{Path: program}, ExitCode: exit.Code})
}
