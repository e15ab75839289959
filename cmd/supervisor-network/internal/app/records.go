package app

import (
	"fmt"
	"io"
	"net/netip"
	"os"

	"github.com/splitpod/splitpod/cmd/supervisor-network/internal/record"
	"github.com/splitpod/splitpod/cmd/supervisor-network/internal/view"
	"github.com/splitpod/splitpod/pkg/core"
	"github.com/splitpod/splitpod/pkg/core/ocsf"
	"github.com/splitpod/splitpod/pkg/core/rotate"
)

// openRecords prepares where records go.
func (d *daemon) openRecords(stdout io.Writer) error {
	sinks := []record.Sink{{Out: stdout, Text: d.cfg.RecordFormat == "text"}}
	if d.cfg.RecordDir != "" {
		w, err := rotate.Open(rotate.Options{Dir: d.cfg.RecordDir, Name: build().Component})
		if err != nil {
			return fmt.Errorf("--record-dir: %w", err)
		}
		sinks = append(sinks, record.Sink{Out: w})
	}
	d.record = record.To(d.recordContext(), d.box, sinks...)
	d.window = view.New()
	d.record.Watch(func(ev *core.Event) {
		d.meter.Record(ev, d.instance)
		d.window.Record(ev, d.instance)
		if d.advisor != nil {
			d.advisor.Observe(ev)
		}
	})
	return nil
}

func (d *daemon) recordContext() ocsf.Context {
	hostname, _ := os.Hostname() // informational
	proxy := netip.AddrPortFrom(netip.AddrFrom4([4]byte{127, 0, 0, 1}), d.cfg.ProxyPort)
	if own, err := netip.ParseAddrPort(d.cfg.Listen); err == nil {
		proxy = own
	}
	return ocsf.Context{
		Build: build(), Instance: d.instance, Hostname: hostname, Proxy: proxy,
		Sandbox: d.cfg.SandboxName, SandboxUID: d.cfg.SandboxUID, Image: d.cfg.SandboxImage,
	}
}
