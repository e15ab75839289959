package app

import (
	"context"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/splitpod/splitpod/api/supervisor/link"
	"github.com/splitpod/splitpod/cmd/supervisor-process/internal/isolate/mount"
	"github.com/splitpod/splitpod/cmd/supervisor-process/internal/isolate/netns"
	"github.com/splitpod/splitpod/cmd/supervisor-process/internal/isolate/nft"
	"github.com/splitpod/splitpod/cmd/supervisor-process/internal/launch"
	"github.com/splitpod/splitpod/cmd/supervisor-process/internal/prepare/skill"
	"github.com/splitpod/splitpod/cmd/supervisor-process/internal/watch/identity"
	"github.com/splitpod/splitpod/cmd/supervisor-process/internal/watch/nflog"
	"github.com/splitpod/splitpod/pkg/core"
)

// Reexec runs what this program was started again for: init of the sandbox, or the
// stage that becomes a program. ok is false for an ordinary start.
func Reexec(args []string) (code int, ok bool) {
	return launch.Reexec(args, launch.Init{Setup: setupSandbox, Query: answerQuery, Keep: []int{unix.CAP_NET_ADMIN}})
}

// setup is what init is told.
type setup struct {
	RunDir    string
	Public    map[string][]byte // files the workload finds in RunDir
	ProxyPort uint16            // 0: no listeners
}

// setupReport is what init says about the namespaces it built.
type setupReport struct {
	Held       bool     // the fence holds logged TCP attempts for us to end
	SharedProc bool     // the workload's /proc is the container's
	Findings   []string // what is weaker than it should be
}

// Names of the descriptors init hands over.
const (
	fileDiag  = "diag"  // sock_diag of the workload's network namespace
	fileNFLog = "nflog" // the fence's log
	fileProc  = "proc"  // the workload's own process table
	fileRoot  = "root"  // the workload's root directory
	fileNet   = "net"   // its network namespace
)

// setupSandbox runs as pid 1 of the new namespaces, before anything else is there.
func setupSandbox(raw json.RawMessage) (any, []launch.Named, error) {
	var s setup
	if err := json.Unmarshal(raw, &s); err != nil {
		return nil, nil, fmt.Errorf("read the setup: %w", err)
	}
	var report setupReport
	mounted, err := mount.Setup(mount.Config{RunDir: s.RunDir, Public: s.Public})
	if err != nil {
		return nil, nil, err
	}
	report.SharedProc, report.Findings = mounted.SharedProc, mounted.Findings
	diag, err := identity.OpenDiag()
	if err != nil {
		return nil, nil, err
	}
	hold := identity.CanDestroy(diag)
	if !hold {
		report.Findings = append(report.Findings, "the kernel cannot end connections (INET_DIAG_DESTROY), so that direct connections are refused without knowing their program")
	}
	// lo comes up only behind the fence: the listeners need it, the workload too.
	if err := nft.Install(hold); err != nil {
		return nil, nil, err
	}
	ipv6, err := netns.Setup()
	if err != nil {
		return nil, nil, err
	}
	if err := nft.Verify(hold); err != nil {
		return nil, nil, err
	}
	report.Held = hold
	files, err := openFiles(diag, s.ProxyPort, ipv6)
	if err != nil {
		return nil, nil, err
	}
	return report, files, nil
}

// openFiles opens what the daemon needs of the namespaces while it is inside them.
func openFiles(diag *os.File, proxyPort uint16, ipv6 bool) ([]launch.Named, error) {
	var out []launch.Named
	add := func(name string, f *os.File, err error) error {
		if err != nil {
			return fmt.Errorf("%s: %w", name, err)
		}
		out = append(out, launch.Named{Name: name, File: f})
		return nil
	}
	err := add(fileDiag, diag, nil)
	log, logErr := nflog.Open(nft.LogGroup)
	proc, procErr := os.Open("/proc")
	root, rootErr := os.Open("/")
	ns, nsErr := os.Open("/proc/self/ns/net")
	err = errors.Join(err, add(fileNFLog, log, logErr), add(fileProc, proc, procErr), add(fileRoot, root, rootErr), add(fileNet, ns, nsErr))
	if err != nil || proxyPort == 0 {
		return out, err
	}
	listeners, err := netns.Listen(context.Background(), proxyPort, ipv6)
	for _, l := range listeners {
		name := "proxy6"
		if l.Addr().(*net.TCPAddr).IP.To4() != nil {
			name = "proxy4"
		}
		f, fileErr := l.File()
		err = errors.Join(err, add(name, f, fileErr))
	}
	return out, err
}

// answerQuery runs in init later on.
func answerQuery(name string) (any, error) {
	if name != queryFence && name != queryHoldingFence {
		return nil, fmt.Errorf("unknown query %q", name)
	}
	counters, err := nft.Counters()
	if err != nil {
		return nil, err
	}
	state := fenceState{Refused: counters}
	if err := nft.Verify(name == queryHoldingFence); err != nil {
		state.Damage = err.Error()
	}
	return state, nil
}

// The queries for a fenceState: of a fence that answers everything, or holds.
const (
	queryFence        = "fence"
	queryHoldingFence = "holding-fence"
)

// fenceState is what the kernel says of the fence now.
type fenceState struct {
	Refused map[string]uint64 // packets, by class
	Damage  string            // how the rules differ from what was installed; empty: not at all
}

// isolate builds the namespaces and what this daemon watches them by.
func (d *daemon) isolate(ctx context.Context, c core.Config) error {
	s := setup{RunDir: d.cfg.RunDir, Public: d.publicFiles(c)}
	if d.link != nil {
		s.ProxyPort = c.ProxyPort
	}
	sandbox, err := launch.Start(ctx, s)
	if err != nil {
		return fmt.Errorf("build the sandbox: %w", err)
	}
	d.sandbox = sandbox
	if err := d.adopt(sandbox); err != nil {
		sandbox.Close()
		return fmt.Errorf("build the sandbox: %w", err)
	}
	d.resolve(c)
	d.workload.prepared()
	return nil
}

// adopt takes over what init reported and opened.
func (d *daemon) adopt(sandbox *launch.Sandbox) error {
	var report setupReport
	if err := json.Unmarshal(sandbox.Report, &report); err != nil {
		return fmt.Errorf("read init's report: %w", err)
	}
	for _, f := range report.Findings {
		d.report.Own(core.Event{Kind: core.EventFinding, Stage: core.StageLaunch, Severity: core.SeverityMedium, Reason: "weaker_isolation", Detail: f})
		d.log.Warn("isolation is weaker than it could be", slog.String("detail", f))
	}
	d.held = report.Held
	where := identity.Config{Diag: sandbox.Files[fileDiag], Proc: sandbox.Files[fileProc], Root: sandbox.Files[fileRoot]}
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
		if strings.HasPrefix(name, "proxy") {
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
)

// publicFiles are what the workload may read of ours: certificates, and the guide for
// agents.
func (d *daemon) publicFiles(c core.Config) map[string][]byte {
	files := make(map[string][]byte)
	if c.AgentProposals {
		files[skill.Guide] = []byte(skill.Text())
	}
	if len(c.CAPEM) > 0 {
		files[caFile], files[bundleFile] = c.CAPEM, bundle(c)
	}
	return files
}

// bundle is a program's own roots and the CA.
func bundle(c core.Config) []byte {
	roots := imageRoots("/")
	if roots == nil {
		roots = c.RootsPEM
	}
	if len(roots) > 0 && roots[len(roots)-1] != '\n' {
		roots = append(slices.Clone(roots), '\n')
	}
	return slices.Concat(roots, c.CAPEM)
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

// imageRoots are the root certificates of the workload's image below root, nil if it has
// none. They become public, and are read with this daemon's rights through whatever links
// the image has; so nothing else of such a file is taken.
func imageRoots(root string) []byte {
	const most = 4 << 20
	for _, path := range []string{
		"/etc/ssl/certs/ca-certificates.crt", "/etc/pki/tls/certs/ca-bundle.crt", "/etc/ssl/ca-bundle.pem", "/etc/ssl/cert.pem",
	} {
		f, err := os.OpenFile(filepath.Join(root, path), os.O_RDONLY|unix.O_NONBLOCK, 0)
		if err != nil {
			continue
		}
		st, err := f.Stat()
		var data []byte
		if err == nil && st.Mode().IsRegular() && st.Size() <= most {
			data, err = io.ReadAll(io.LimitReader(f, most))
		}
		f.Close()
		if roots := certificates(data); err == nil && len(roots) > 0 {
			return roots
		}
	}
	return nil
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
