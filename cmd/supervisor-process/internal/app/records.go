package app

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"net/netip"
	"os"
	"path/filepath"
	"time"

	"golang.org/x/sys/unix"

	"github.com/splitpod/splitpod/api/supervisor/link"
	"github.com/splitpod/splitpod/cmd/supervisor-process/internal/observe"
	"github.com/splitpod/splitpod/cmd/supervisor-process/internal/report"
	"github.com/splitpod/splitpod/pkg/core"
	"github.com/splitpod/splitpod/pkg/core/ocsf"
	"github.com/splitpod/splitpod/pkg/core/rotate"
)

// openReport prepares where records go.
func (d *daemon) openReport(stdout, stderr io.Writer) error {
	out, err := openRecords(d.cfg.Records, stdout, stderr)
	if err != nil {
		return err
	}
	sinks := []report.Sink{{Out: out, Text: d.cfg.RecordFormat == "text"}}
	if d.cfg.RecordDir != "" {
		w, err := rotate.Open(rotate.Options{Dir: d.cfg.RecordDir, Name: Build().Component})
		if err != nil {
			return fmt.Errorf("--record-dir: %w", err)
		}
		sinks = append(sinks, report.Sink{Out: w})
	}
	hostname, _ := os.Hostname() // informational
	d.report = report.New(ocsf.Context{
		Build: Build(), Instance: d.instance, Hostname: hostname,
		// Another port the network daemon says after the first records.
		Proxy:   netip.AddrPortFrom(netip.AddrFrom4([4]byte{127, 0, 0, 1}), core.DefaultProxyPort),
		Sandbox: d.cfg.SandboxName, SandboxUID: d.cfg.SandboxUID, Image: d.cfg.SandboxImage,
	}, d.box, sinks...)
	d.meter = observe.NewMeter()
	d.report.Watch(func(ev *core.Event) { d.meter.Record(ev, d.instance) })
	return nil
}

// inboxFile is where in the run directory the Inbox notes what it took. The directory
// outlives this container, and the workload does not see it.
const inboxFile = "process.events"

// openInbox goes on where an earlier instance stopped to take the network daemon's
// events, and records it if that one was killed while it took some.
func (d *daemon) openInbox() (*link.Inbox, error) {
	inbox, err := link.OpenInbox(filepath.Join(d.cfg.RunDir, inboxFile), func(err error) {
		d.log.Error("events may be counted again after a restart", slog.Any("error", err))
	})
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return nil, d.noRunDir()
	case err != nil:
		return nil, fmt.Errorf("--run-dir %s: %w", d.cfg.RunDir, err)
	}
	if n := inbox.Unsure(); n > 0 {
		d.report.Here(core.Event{Kind: core.EventFinding, Time: time.Now(), Instance: d.instance, Stage: core.StageControl,
			Severity: core.SeverityLow, Reason: core.EventRecordsUnsure, Count: n,
			Detail: "an earlier instance was killed while it recorded events of the network daemon, whose own records have them"})
	}
	return inbox, nil
}

func (d *daemon) noRunDir() error {
	return fmt.Errorf("--run-dir: there is no directory %s; create it (in a pod it is the volume that both containers mount), or name another one", d.cfg.RunDir)
}

// runRecords writes records until the returned function is called, which waits for the
// last of them unless nobody reads.
func (d *daemon) runRecords() (stop func()) {
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() {
		defer close(done)
		d.report.Run(ctx)
	}()
	return func() {
		cancel()
		if within(outputPatience, func() { <-done }) {
			return
		}
		// The same reader may have both.
		within(outputPatience, func() { d.log.Warn("the last records were not written: the log is not read") })
	}
}

// within runs f, but does not wait longer for it, and reports whether it has ended.
func within(patience time.Duration, f func()) bool {
	done := make(chan struct{})
	go func() { f(); close(done) }()
	select {
	case <-done:
		return true
	case <-time.After(patience):
		return false
	}
}

func openRecords(where string, stdout, stderr io.Writer) (io.Writer, error) {
	switch where {
	case "stdout":
		return stdout, nil
	case "stderr":
		return stderr, nil
	}
	f, err := os.OpenFile(where, os.O_WRONLY|os.O_APPEND|os.O_CREATE|unix.O_NOFOLLOW, 0o600)
	if err != nil {
		return nil, fmt.Errorf("--records: %w", err)
	}
	return f, nil
}
