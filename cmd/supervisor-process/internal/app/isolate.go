package app

import (
	"bytes"
	"context"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/pavlo-v-chernykh/keystore-go/v4"
	"golang.org/x/sys/unix"

	"github.com/splitpod/splitpod/api/supervisor/link"
	"github.com/splitpod/splitpod/cmd/supervisor-process/internal/app/inside"
	"github.com/splitpod/splitpod/cmd/supervisor-process/internal/launch"
	"github.com/splitpod/splitpod/cmd/supervisor-process/internal/prepare"
	"github.com/splitpod/splitpod/cmd/supervisor-process/internal/prepare/skill"
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
	if public[bundleFile] != nil && d.roots().file != "" {
		want.Over[d.roots().file] = bundleFile
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
		d.report.Own(core.Event{Kind: core.EventFinding, Stage: core.StageLaunch, Severity: core.SeverityMedium, Reason: "weaker_isolation", Detail: f})
		d.log.Warn("isolation is weaker than it could be", slog.String("detail", f))
	}
	for _, n := range report.Notes {
		d.log.Info("a file of the image stays as it is", slog.String("detail", n))
	}
	if report.Untold != "" {
		d.log.Warn("system calls that are refused will not be recorded", slog.String("reason", report.Untold))
	}
	d.held = report.Held
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
		trusted := bundle(d.roots().pem, c)
		files[caFile], files[bundleFile], files[javaFile] = c.CAPEM, trusted, javaStore(trusted)
	}
	return files
}

// bundle is the image's roots, the network daemon's if it has none, and the CA.
func bundle(image []byte, c core.Config) []byte {
	if image == nil {
		image = c.RootsPEM
	}
	if len(image) > 0 && image[len(image)-1] != '\n' {
		image = append(slices.Clone(image), '\n')
	}
	return slices.Concat(image, c.CAPEM)
}

// javaStore has the certificates of a PEM file as Java reads them.
func javaStore(trusted []byte) []byte {
	store := keystore.New(keystore.WithOrderedAliases())
	for n := 0; ; n++ {
		var block *pem.Block
		if block, trusted = pem.Decode(trusted); block == nil {
			break
		}
		entry := keystore.TrustedCertificateEntry{CreationTime: time.Unix(0, 0), Certificate: keystore.Certificate{Type: "X.509", Content: block.Bytes}}
		if err := store.SetTrustedCertificateEntry(strconv.Itoa(n), entry); err != nil {
			continue // a certificate without content
		}
	}
	var out bytes.Buffer
	if err := store.Store(&out, []byte(launch.JavaPassword)); err != nil {
		return nil // only a certificate of 4 GiB has none
	}
	return out.Bytes()
}

// linkGuide makes the guide appear where the network daemon's refusals send agents.
// It lies in the run directory in any case.
func (d *daemon) linkGuide(c core.Config) {
	if !c.AgentProposals {
		return
	}
	if err := skill.Link("/", filepath.Join(d.cfg.RunDir, skill.Guide)); err != nil {
		d.report.Own(core.Event{Kind: core.EventFinding, Stage: core.StageLaunch, Severity: core.SeverityLow, Reason: "guide_not_linked",
			Detail: fmt.Sprintf("%v; agents find it at %s", err, filepath.Join(d.cfg.RunDir, skill.Guide))})
	}
}

// roots are the root certificates of the workload's image.
type roots struct {
	file string // where they are, without a link on the way; empty: nowhere
	pem  []byte
}

// imageRoots finds them below root. They become public, and are read with this daemon's
// rights through whatever links the image has; so nothing else of such a file is taken.
func imageRoots(root string) roots {
	const most = 4 << 20
	for _, path := range []string{
		"/etc/ssl/certs/ca-certificates.crt", "/etc/pki/tls/certs/ca-bundle.crt", "/etc/ssl/ca-bundle.pem", "/etc/ssl/cert.pem",
	} {
		at, err := filepath.EvalSymlinks(filepath.Join(root, path))
		if err != nil {
			continue
		}
		f, err := os.OpenFile(at, os.O_RDONLY|unix.O_NONBLOCK, 0)
		if err != nil {
			continue
		}
		st, err := f.Stat()
		var data []byte
		if err == nil && st.Mode().IsRegular() && st.Size() <= most {
			data, err = io.ReadAll(io.LimitReader(f, most))
		}
		f.Close()
		if found := certificates(data); err == nil && len(found) > 0 {
			return roots{at, found}
		}
	}
	return roots{}
}

// certificates are the certificates of a PEM file, and nothing between them.
func certificates(text []byte) (out []byte) {
	for block, rest := pem.Decode(text); block != nil; block, rest = pem.Decode(rest) {
		if block.Type == "CERTIFICATE" {
			out = append(out, pem.EncodeToMemory(&pem.Block{Type: block.Type, Bytes: block.Bytes})...)
		}
	}
	return out
}
