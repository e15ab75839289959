package app

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/splitpod/splitpod/cmd/supervisor-process/internal/app/inside"
	"github.com/splitpod/splitpod/cmd/supervisor-process/internal/config"
	"github.com/splitpod/splitpod/cmd/supervisor-process/internal/confine/landlock"
	"github.com/splitpod/splitpod/cmd/supervisor-process/internal/launch"
	"github.com/splitpod/splitpod/cmd/supervisor-process/internal/launch/stage"
	"github.com/splitpod/splitpod/cmd/supervisor-process/internal/prepare"
	"github.com/splitpod/splitpod/pkg/core"
)

// Line is one thing that Preflight looked at.
type Line struct {
	Name   string
	Detail string
	Lack   Lack
}

// Lack says what it means that something is not there. The zero value is something that is.
type Lack int

// What is there, and what is missing, the worse the later.
const (
	LackNothing       Lack = iota
	LackExtra              // a start goes on without it
	LackPrivilege          // nothing starts: the kernel or the pod does not give it
	LackConfiguration      // nothing starts: the configuration or the policy is wrong
)

// Preflight says what is there, one line each: the capabilities, whether a sandbox can be
// built, which it tries, and what confines a program in it. It fails when the kernel does
// not even say so.
func Preflight(cfg *config.Config, show func(Line)) error {
	f := flight{show}
	var uts unix.Utsname
	_ = unix.Uname(&uts)
	f.line(true, LackNothing, "kernel", unix.ByteSliceToString(uts.Release[:]))
	have, err := prepare.Effective()
	if err != nil {
		return err
	}
	for _, c := range prepare.Capabilities {
		f.line(have[c.Name], LackPrivilege, c.Name, "for "+c.For)
	}
	abi := landlock.Version()
	detail := fmt.Sprintf("ABI %d; hard_requirement needs %d, best_effort takes what there is", abi, landlock.HardABI)
	if lacks := landlock.Unlimited(abi); len(lacks) > 0 {
		detail += "; not limited: " + strings.Join(lacks, "; ")
	}
	f.line(abi >= landlock.HardABI, LackExtra, "landlock", detail)
	_, err = unix.PrctlRetInt(unix.PR_GET_SECCOMP, 0, 0, 0, 0)
	f.line(err == nil, LackPrivilege, "seccomp", "filters are applied to every program")
	_, err = prepare.PIDLimit("/")
	f.line(err == nil, LackExtra, "process limit", "of the container; without one, set --pids or the pod's")
	f.try(cfg)
	return nil
}

// flight is one Preflight.
type flight struct{ show func(Line) }

// line says that something is there, or is not, which is a lack.
func (f flight) line(ok bool, lack Lack, name, detail string) {
	if ok {
		lack = LackNothing
	}
	f.show(Line{Name: name, Detail: detail, Lack: lack})
}

// try builds a sandbox, confines a program in it as the workload would be, and ends it.
func (f flight) try(cfg *config.Config) {
	if err := prepare.CheckCapabilities(); err != nil {
		f.line(false, LackPrivilege, "sandbox", "not tried: capabilities are missing")
		return
	}
	dir := cfg.RunDir
	if st, err := os.Stat(dir); err != nil || !st.IsDir() {
		if dir, err = os.MkdirTemp("", "splitpod-preflight-"); err != nil {
			f.line(false, LackPrivilege, "sandbox", fmt.Sprintf("there is no %s (--run-dir), and a folder to try it with cannot be made: %v", cfg.RunDir, err))
			return
		}
		defer os.RemoveAll(dir)
	}
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	sandbox, err := launch.Start(ctx, inside.Wanted{RunDir: dir, ProxyPort: core.DefaultProxyPort})
	if err != nil {
		f.line(false, LackPrivilege, "sandbox", err.Error())
		return
	}
	defer sandbox.Close()
	var report inside.Report
	if err := json.Unmarshal(sandbox.Report, &report); err != nil {
		f.line(false, LackPrivilege, "sandbox", fmt.Sprintf("read init's report: %v", err))
		return
	}
	f.line(true, LackNothing, "sandbox", "namespaces, fence and listeners work")
	for _, weaker := range report.Findings {
		f.line(false, LackExtra, "isolation", weaker)
	}
	told := "leave a record, with their program"
	if report.Untold != "" {
		told = report.Untold
	}
	f.line(report.Untold == "", LackExtra, "refused calls", told)
	f.confine(ctx, cfg, sandbox, dir)
}

// confine starts a program of this binary's own that ends at once.
func (f flight) confine(ctx context.Context, cfg *config.Config, sandbox *launch.Sandbox, runDir string) {
	d := &daemon{cfg: cfg}
	c, err := preflightPolicy(cfg)
	if err == nil {
		d.account, err = d.chooseAccount(c)
	}
	if err != nil {
		f.line(false, LackConfiguration, "confinement", err.Error())
		return
	}
	d.started, d.files = c, prepare.PlanFiles("/", c.Static, d.account, d.workdir(), runDir)
	d.files.Settle("/", d.account.UID)
	self, err := os.Executable()
	if err == nil {
		d.files.ReadOnly = append(d.files.ReadOnly, self)
	}
	null, nullErr := os.OpenFile("/dev/null", os.O_RDWR, 0)
	if err := errors.Join(err, nullErr); err != nil {
		f.line(false, LackPrivilege, "confinement", err.Error())
		return
	}
	defer null.Close()
	spec := d.mainSpec(nil, [3]*os.File{null, null, null})
	spec.Builtin = launch.SFTPServer
	session, err := sandbox.Launch(ctx, spec)
	if e, ok := errors.AsType[*launch.LaunchError](err); ok && e.Code == stage.CodeConfiguration {
		f.line(false, LackConfiguration, "confinement", e.Detail)
		return
	}
	if err != nil {
		f.line(false, LackPrivilege, "confinement", err.Error())
		return
	}
	f.line(session.Applied.ABI > 0, LackExtra, "confinement", summary(session.Applied, d.account))
	for _, detail := range notGranted(d.files, session.Applied) {
		f.line(false, LackExtra, "path", detail)
	}
}

// preflightPolicy is that of --policy, or none: then the workload is anybody.
func preflightPolicy(cfg *config.Config) (core.Config, error) {
	if cfg.Policy != "" {
		return staticConfig(cfg.Policy, slog.New(slog.DiscardHandler))
	}
	const somebody = "65534"
	return core.Config{Static: core.StaticPolicy{IncludeWorkdir: true, RunAsUser: somebody, RunAsGroup: somebody}}, nil
}
