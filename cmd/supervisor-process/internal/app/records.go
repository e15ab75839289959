package app

import (
	"fmt"
	"io"
	"net/netip"
	"os"

	"golang.org/x/sys/unix"

	"github.com/splitpod/splitpod/cmd/supervisor-process/internal/observe"
	"github.com/splitpod/splitpod/cmd/supervisor-process/internal/report"
	"github.com/splitpod/splitpod/pkg/core"
	"github.com/splitpod/splitpod/pkg/core/ocsf"
	"github.com/splitpod/splitpod/pkg/core/rotate"
)

// proxyPort is where the workload finds the proxy unless the network daemon says
// otherwise, which it does after the first records.
const proxyPort = 3128

// openReport prepares where records go.
func (d *daemon) openReport(stdout, stderr io.Writer) error {
	out, err := openRecords(d.cfg.Records, stdout, stderr)
	if err != nil {
		return err
	}
	sinks := []report.Sink{{Out: out, Text: d.cfg.RecordFormat == "text"}}
	if d.cfg.RecordDir != "" {
		w, err := rotate.Open(rotate.Options{Dir: d.cfg.RecordDir, Name: build().Component})
		if err != nil {
			return fmt.Errorf("--record-dir: %w", err)
		}
		sinks = append(sinks, report.Sink{Out: w})
	}
	hostname, _ := os.Hostname() // informational
	d.report = report.New(ocsf.Context{
		Build: build(), Instance: d.instance, Hostname: hostname,
		Proxy:   netip.AddrPortFrom(netip.AddrFrom4([4]byte{127, 0, 0, 1}), proxyPort),
		Sandbox: d.cfg.SandboxName, SandboxUID: d.cfg.SandboxUID, Image: d.cfg.SandboxImage,
	}, d.box, sinks...)
	d.meter = observe.NewMeter()
	d.report.Watch(func(ev *core.Event) { d.meter.Record(ev, d.instance) })
	return nil
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
