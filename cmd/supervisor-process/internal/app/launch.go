package app

import (
	"context"
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"

	"github.com/splitpod/splitpod/cmd/supervisor-process/internal/confine"
	"github.com/splitpod/splitpod/cmd/supervisor-process/internal/confine/landlock"
	"github.com/splitpod/splitpod/cmd/supervisor-process/internal/launch"
	"github.com/splitpod/splitpod/cmd/supervisor-process/internal/prepare"
	"github.com/splitpod/splitpod/pkg/core"
)

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
	d.workloadEvent(core.EventLaunched, session.PID(), argv[0], core.Exit{})
	return session, nil
}

// confined records what was really applied to the workload.
func (d *daemon) confined(files landlock.Report) {
	for _, ev := range applied(files, d.account) {
		d.report.Own(ev)
	}
	for _, detail := range notGranted(d.files, files) {
		d.report.Own(core.Event{Kind: core.EventFinding, Stage: core.StageLaunch, Severity: core.SeverityLow, Reason: core.EventPathNotGranted, Detail: detail})
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
