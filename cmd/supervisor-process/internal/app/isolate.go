package app

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"strings"

	"github.com/splitpod/splitpod/api/supervisor/link"
	"github.com/splitpod/splitpod/cmd/supervisor-process/internal/app/inside"
	"github.com/splitpod/splitpod/cmd/supervisor-process/internal/launch"
	"github.com/splitpod/splitpod/cmd/supervisor-process/internal/prepare"
	"github.com/splitpod/splitpod/cmd/supervisor-process/internal/prepare/skill"
	"github.com/splitpod/splitpod/cmd/supervisor-process/internal/prepare/trust"
	"github.com/splitpod/splitpod/cmd/supervisor-process/internal/watch/identity"
	"github.com/splitpod/splitpod/pkg/core"
)

// isolate has init build the namespaces, and finds what this daemon watches them by.
func (d *daemon) isolate(ctx context.Context, c core.Config) error {
	want := inside.Wanted{RunDir: d.cfg.RunDir}
	var files []*os.File
	defer func() {
		for _, f := range files {
			f.Close()
		}
	}()
	public := d.publicFiles(c)
	want.Over = make(map[string]string)
	for path, text := range prepare.AccountFiles("/", d.account) {
		name := filepath.Base(path)
		public[name], want.Over[path] = text, name
	}
	if public[bundleFile] != nil && d.roots().File != "" {
		want.Over[d.roots().File] = bundleFile
	}
	for name, text := range public {
		f, err := launch.MemoryFile(text)
		if err != nil {
			return fmt.Errorf("build the sandbox: %w", err)
		}
		want.Public, files = append(want.Public, name), append(files, f)
	}
	if d.link != nil {
		want.ProxyPort = c.ProxyPort
	}
	if err := d.sandbox.Setup(ctx, want, files...); err != nil {
		return fmt.Errorf("build the sandbox: %w", err)
	}
	if err := d.adopt(d.sandbox); err != nil {
		return fmt.Errorf("build the sandbox: %w", err)
	}
	d.resolve(c)
	d.workload.prepared()
	return nil
}

// adopt takes over what init reported and opened.
func (d *daemon) adopt(sandbox *launch.Sandbox) error {
	var report inside.Report
	if err := json.Unmarshal(sandbox.Report, &report); err != nil {
		return fmt.Errorf("read init's report: %w", err)
	}
	for _, f := range report.Findings {
		d.report.Own(core.Event{Kind: core.EventFinding, Stage: core.StageLaunch, Severity: core.SeverityMedium, Reason: core.EventWeakerIsolation, Detail: f})
		d.log.Warn("isolation is weaker than it could be", slog.String("detail", f))
	}
	for _, n := range report.Notes {
		d.log.Info("a file of the image stays as it is", slog.String("detail", n))
	}
	if report.Untold != "" {
		d.log.Warn("system calls that are refused will not be recorded", slog.String("reason", report.Untold))
	}
	d.fence.Held = report.Held
	where := identity.Config{Diag: sandbox.Files[inside.FileDiag], Proc: sandbox.Files[inside.FileProc], Root: sandbox.Files[inside.FileRoot]}
	if report.SharedProc {
		where.Tree = sandbox.PID()
	}
	r, err := identity.Open(where)
	if err != nil {
		return err
	}
	d.resolver.Store(r)
	var listeners []link.Descriptor
	for name, f := range sandbox.Files {
		if strings.HasPrefix(name, inside.Listeners) {
			listeners = append(listeners, link.Descriptor{Name: name, File: f})
		}
	}
	d.listeners.Store(&listeners)
	return nil
}

// Listeners implements control.Handler.
func (d *daemon) Listeners() ([]link.Descriptor, error) {
	l := d.listeners.Load()
	if l == nil || len(*l) == 0 {
		return nil, errors.New("the sandbox has no listeners (yet)")
	}
	return *l, nil
}

// Names of the public files in the run directory.
const (
	caFile     = "ca.pem"
	bundleFile = "ca-bundle.pem"
	javaFile   = "cacerts.jks"
)

// publicFiles are what the workload may read of ours: certificates, and the guide for
// agents.
func (d *daemon) publicFiles(c core.Config) map[string][]byte {
	files := make(map[string][]byte)
	if c.AgentProposals {
		files[skill.Guide] = []byte(skill.Text())
	}
	if len(c.CAPEM) > 0 {
		trusted := trust.Bundle(d.roots().PEM, c.RootsPEM, c.CAPEM)
		files[caFile], files[bundleFile], files[javaFile] = c.CAPEM, trusted, trust.JavaStore(trusted, launch.JavaPassword)
	}
	return files
}
