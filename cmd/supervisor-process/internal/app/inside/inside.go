// Package inside is what happens in the workload's namespaces before the workload is
// there: init's setup, and the questions it answers later.
//
// It answers the threat of a workload that finds a namespace half built: whoever asked for
// the setup hears of it only when the fence has been read back from the kernel and the run
// directory is covered. It does not start the workload.
//
// Invariant: nothing of the workload's, and no name it chose, decides what is set up. What
// needs no configuration is done first, so that it is done by the time there is one.
//
// The hook in this package runs before the packages of the contract, of metrics and of SSH
// are initialised, which init has no use for: three starts of this binary stand between a
// command and its program, and cost a third less for it.
package inside

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"os"

	"golang.org/x/sys/unix"

	"github.com/splitpod/splitpod/cmd/supervisor-process/internal/confine/seccomp"
	"github.com/splitpod/splitpod/cmd/supervisor-process/internal/isolate/mount"
	"github.com/splitpod/splitpod/cmd/supervisor-process/internal/isolate/netns"
	"github.com/splitpod/splitpod/cmd/supervisor-process/internal/isolate/nft"
	"github.com/splitpod/splitpod/cmd/supervisor-process/internal/launch"
	"github.com/splitpod/splitpod/cmd/supervisor-process/internal/watch/fence"
	"github.com/splitpod/splitpod/cmd/supervisor-process/internal/watch/identity"
	"github.com/splitpod/splitpod/cmd/supervisor-process/internal/watch/nflog"
)

// The hook: what this program was started again as, if it was, is nothing else.
func init() {
	if code, ok := launch.Reexec(os.Args, launch.Init{Setup: setup, Query: answer, Keep: []int{unix.CAP_NET_ADMIN}}); ok {
		os.Exit(code)
	}
}

// Wanted is what init is told.
type Wanted struct {
	RunDir    string
	Public    []string // names of the files the workload finds in RunDir, which are given beside this, in order
	ProxyPort uint16   // 0: no listeners
	// Over names the public files that take the place of files of the image, by those.
	Over map[string]string
}

// Report is what init says about the namespaces it built.
type Report struct {
	Held       bool     // the fence holds logged TCP attempts for us to end
	SharedProc bool     // the workload's /proc is the container's
	Findings   []string // what is weaker than it should be
	Notes      []string // what could not be done, and weakens nothing
	Untold     string   // why refused system calls are not recorded; empty: they are
}

// Names of the descriptors init hands over, beside the listeners.
const (
	FileDiag  = "diag"  // sock_diag of the workload's network namespace
	FileNFLog = "nflog" // the fence's log
	FileProc  = "proc"  // the workload's own process table
	FileRoot  = "root"  // the workload's root directory
	FileNet   = "net"   // its network namespace
	FileCalls = "calls" // where its refused system calls are told of; may not be there
)

// Listeners start with this.
const Listeners = "proxy"

// setup runs as pid 1 of the new namespaces, before anything else is there.
func setup(ask func() (launch.Given, error)) (any, []launch.Named, error) {
	mounted, err := mount.Setup()
	if err != nil {
		return nil, nil, err
	}
	report := Report{SharedProc: mounted.SharedProc, Findings: mounted.Findings}
	diag, err := identity.OpenDiag()
	if err != nil {
		return nil, nil, err
	}
	ipv6, err := raiseFence(diag, &report)
	if err != nil {
		return nil, nil, err
	}
	given, err := ask()
	if err != nil {
		return nil, nil, err
	}
	var w Wanted
	if err := json.Unmarshal(given.Data, &w); err != nil {
		return nil, nil, fmt.Errorf("read the setup: %w", err)
	}
	if err := cover(w, given.Files); err != nil {
		return nil, nil, err
	}
	for path, name := range w.Over {
		if err := mount.Over(w.RunDir, name, path); err != nil {
			report.Notes = append(report.Notes, err.Error())
		}
	}
	files, err := openFiles(diag, w.ProxyPort, ipv6)
	if err != nil {
		return nil, nil, err
	}
	// Last: init makes none of these calls from here on, and would wait for the daemon.
	if calls, err := seccomp.Tell(); err != nil {
		report.Untold = err.Error()
	} else {
		files = append(files, launch.Named{Name: FileCalls, File: calls})
	}
	return report, files, nil
}

// raiseFence closes the network namespace and makes sure of it. lo comes up only behind the
// fence: the listeners need it, the workload too.
func raiseFence(diag *os.File, report *Report) (ipv6 bool, err error) {
	report.Held = identity.CanDestroy(diag)
	if !report.Held {
		report.Findings = append(report.Findings, "the kernel cannot end connections (INET_DIAG_DESTROY), so that direct connections are refused without knowing their program")
	}
	if err := nft.Install(report.Held); err != nil {
		return false, err
	}
	if ipv6, err = netns.Setup(); err != nil {
		return false, err
	}
	return ipv6, nft.Verify(report.Held)
}

// cover hides the run directory behind the public files.
func cover(w Wanted, files []*os.File) error {
	if len(files) != len(w.Public) {
		return fmt.Errorf("there are %d public files for %d names", len(files), len(w.Public))
	}
	public := make(map[string][]byte)
	for i, name := range w.Public {
		data, err := io.ReadAll(files[i])
		if err != nil {
			return fmt.Errorf("read %s: %w", name, err)
		}
		public[name] = data
	}
	return mount.Cover(w.RunDir, public)
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
	err := add(FileDiag, diag, nil)
	log, logErr := nflog.Open(nft.LogGroup)
	proc, procErr := os.Open("/proc")
	root, rootErr := os.Open("/")
	ns, nsErr := os.Open("/proc/self/ns/net")
	err = errors.Join(err, add(FileNFLog, log, logErr), add(FileProc, proc, procErr), add(FileRoot, root, rootErr), add(FileNet, ns, nsErr))
	if err != nil || proxyPort == 0 {
		return out, err
	}
	listeners, err := netns.Listen(context.Background(), proxyPort, ipv6)
	for _, l := range listeners {
		name := Listeners + "6"
		if l.Addr().(*net.TCPAddr).IP.To4() != nil {
			name = Listeners + "4"
		}
		f, fileErr := l.File()
		err = errors.Join(err, add(name, f, fileErr))
	}
	return out, err
}

// The queries for a fence.State: of one that answers everything, or holds.
const (
	QueryFence        = "fence"
	QueryHoldingFence = "holding-fence"
)

// answer runs in init later on.
func answer(query string) (any, error) {
	if query != QueryFence && query != QueryHoldingFence {
		return nil, fmt.Errorf("unknown query %q", query)
	}
	counters, err := nft.Counters()
	if err != nil {
		return nil, err
	}
	state := fence.State{Refused: counters}
	if err := nft.Verify(query == QueryHoldingFence); err != nil {
		state.Damage = err.Error()
	}
	return state, nil
}
