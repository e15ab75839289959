package app

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/splitpod/splitpod/cmd/supervisor-process/internal/app/inside"
	"github.com/splitpod/splitpod/cmd/supervisor-process/internal/config"
	"github.com/splitpod/splitpod/cmd/supervisor-process/internal/confine/landlock"
	"github.com/splitpod/splitpod/cmd/supervisor-process/internal/launch"
	"github.com/splitpod/splitpod/cmd/supervisor-process/internal/prepare"
	"github.com/splitpod/splitpod/pkg/core"
)

// preflightCommand says what is there, one line each: the capabilities, whether a
// sandbox can be built, which it tries, and what confines a program in it.
func preflightCommand(args []string, stdout, stderr io.Writer) int {
	cfg, rest, code := load("preflight", args, stderr)
	if code == exitOK {
		code = noArguments("preflight", rest, stderr)
	}
	if code != exitOK {
		return code
	}
	f := flight{out: stdout, code: exitOK}
	var uts unix.Utsname
	_ = unix.Uname(&uts)
	f.line(true, exitOK, "kernel", unix.ByteSliceToString(uts.Release[:]))
	have, err := prepare.Effective()
	if err != nil {
		fmt.Fprintf(stderr, "supervisor-process: %v\n", err)
		return exitFailed
	}
	for _, c := range prepare.Capabilities {
		f.line(have[c.Name], exitPrivilege, c.Name, "for "+c.For)
	}
	abi := landlock.Version()
	detail := fmt.Sprintf("ABI %d; hard_requirement needs %d, best_effort takes what there is", abi, landlock.HardABI)
	if lacks := landlock.Unlimited(abi); len(lacks) > 0 {
		detail += "; not limited: " + strings.Join(lacks, "; ")
	}
	f.line(abi >= landlock.HardABI, exitOK, "landlock", detail)
	_, err = unix.PrctlRetInt(unix.PR_GET_SECCOMP, 0, 0, 0, 0)
	f.line(err == nil, exitPrivilege, "seccomp", "filters are applied to every program")
	_, err = prepare.PIDLimit("/")
	f.line(err == nil, exitOK, "process limit", "of the container; without one, set --pids or the pod's")
	f.try(cfg)
	return f.code
}

// flight prints lines and remembers the worst.
type flight struct {
	out  io.Writer
	code int
}

// line says that something is there, or is not, which deserves code.
func (f *flight) line(ok bool, code int, name, detail string) {
	word := "ok"
	if !ok {
		word = "missing"
		f.code = max(f.code, code)
	}
	fmt.Fprintf(f.out, "%-8s %-16s %s\n", word, name, detail)
}

// try builds a sandbox, confines a program in it as the workload would be, and ends it.
func (f *flight) try(cfg *config.Config) {
	if err := prepare.CheckCapabilities(); err != nil {
		f.line(false, exitPrivilege, "sandbox", "not tried: capabilities are missing")
		return
	}
	dir := cfg.RunDir
	if st, err := os.Stat(dir); err != nil || !st.IsDir() {
		if dir, err = os.MkdirTemp("", "splitpod-preflight-"); err != nil {
			f.line(false, exitPrivilege, "sandbox", fmt.Sprintf("there is no %s (--run-dir), and a folder to try it with cannot be made: %v", cfg.RunDir, err))
			return
		}
		defer os.RemoveAll(dir)
	}
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	sandbox, err := launch.Start(ctx, inside.Wanted{RunDir: dir, ProxyPort: core.DefaultProxyPort})
	if err != nil {
		f.line(false, exitPrivilege, "sandbox", err.Error())
		return
	}
	defer sandbox.Close()
	var report inside.Report
	if err := json.Unmarshal(sandbox.Report, &report); err != nil {
		f.line(false, exitPrivilege, "sandbox", fmt.Sprintf("read init's report: %v", err))
		return
	}
	f.line(true, exitOK, "sandbox", "namespaces, fence and listeners work")
	for _, weaker := range report.Findings {
		f.line(false, exitOK, "isolation", weaker)
	}
	told := "leave a record, with their program"
	if report.Untold != "" {
		told = report.Untold
	}
	f.line(report.Untold == "", exitOK, "refused calls", told)
	f.confine(ctx, cfg, sandbox, dir)
}

// confine starts a program of this binary's own that ends at once.
func (f *flight) confine(ctx context.Context, cfg *config.Config, sandbox *launch.Sandbox, runDir string) {
	d := &daemon{cfg: cfg}
	c, err := preflightPolicy(cfg)
	if err == nil {
		d.account, err = d.chooseAccount(c)
	}
	if err != nil {
		f.line(false, exitConfig, "confinement", err.Error())
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
		f.line(false, exitPrivilege, "confinement", err.Error())
		return
	}
	defer null.Close()
	spec := d.mainSpec(nil, [3]*os.File{null, null, null})
	spec.Builtin = launch.SFTPServer
	session, err := sandbox.Launch(ctx, spec)
	if e, ok := errors.AsType[*launch.LaunchError](err); ok && e.Code == exitConfig {
		f.line(false, exitConfig, "confinement", e.Detail)
		return
	}
	if err != nil {
		f.line(false, exitPrivilege, "confinement", err.Error())
		return
	}
	f.line(session.Applied.ABI > 0, exitOK, "confinement", summary(session.Applied, d.account))
	for _, detail := range notGranted(d.files, session.Applied) {
		f.line(false, exitOK, "path", detail)
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
