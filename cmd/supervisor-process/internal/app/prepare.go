package app

import (
	"cmp"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"strings"

	"github.com/splitpod/splitpod/cmd/supervisor-process/internal/launch"
	"github.com/splitpod/splitpod/cmd/supervisor-process/internal/prepare"
	"github.com/splitpod/splitpod/cmd/supervisor-process/internal/prepare/skill"
	"github.com/splitpod/splitpod/pkg/core"
)

// prepare finds out as whom the workload runs and what of the image it may use, makes what
// the policy wants and the image lacks, and refuses what cannot be.
func (d *daemon) prepare(c core.Config, program string) (err error) {
	if d.account, err = d.chooseAccount(c); err != nil {
		return err
	}
	if err := errors.Join(d.checkPIDLimit(), d.checkAuthorized()); err != nil {
		return err
	}
	if err := d.makeDirectories(c); err != nil {
		return err
	}
	d.linkGuide(c)
	d.started = c
	d.files = prepare.PlanFiles("/", c.Static, d.account, d.workdir(), d.cfg.RunDir)
	d.files.Grant("/", program, d.searchPath(), d.workdir())
	d.files.Settle("/", d.account.UID)
	return nil
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
		return nil, &ConfigError{fmt.Errorf("--pids: %w", err)}
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
	d.report.Own(core.Event{Kind: core.EventFinding, Stage: core.StageLaunch, Severity: core.SeverityLow, Reason: core.EventNoPIDLimit, Detail: err.Error()})
	return nil
}

// searchPath is the container's PATH.
func (d *daemon) searchPath() string {
	return cmp.Or(d.variable("PATH"), launch.DefaultPath)
}

// workdir is where the workload starts.
func (d *daemon) workdir() string {
	if d.cfg.Workdir != "" {
		return d.cfg.Workdir
	}
	dir, err := os.Getwd()
	if err != nil {
		return "/"
	}
	return dir
}

// linkGuide makes the guide appear where the network daemon's refusals send agents.
// It lies in the run directory in any case.
func (d *daemon) linkGuide(c core.Config) {
	if !c.AgentProposals {
		return
	}
	if err := skill.Link("/", filepath.Join(d.cfg.RunDir, skill.Guide)); err != nil {
		d.report.Own(core.Event{Kind: core.EventFinding, Stage: core.StageLaunch, Severity: core.SeverityLow, Reason: core.EventGuideNotLinked,
			Detail: fmt.Sprintf("%v; agents find it at %s", err, filepath.Join(d.cfg.RunDir, skill.Guide))})
	}
}
