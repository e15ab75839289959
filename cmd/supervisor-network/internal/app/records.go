package app

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/netip"
	"os"
	"sync"
	"time"

	"github.com/splitpod/splitpod/cmd/supervisor-network/internal/export"
	"github.com/splitpod/splitpod/cmd/supervisor-network/internal/record"
	"github.com/splitpod/splitpod/cmd/supervisor-network/internal/relay/origin"
	"github.com/splitpod/splitpod/cmd/supervisor-network/internal/view"
	"github.com/splitpod/splitpod/pkg/core"
	"github.com/splitpod/splitpod/pkg/core/ocsf"
	"github.com/splitpod/splitpod/pkg/core/rotate"
)

// openRecords prepares where records go.
func (d *daemon) openRecords(stdout io.Writer) error {
	sinks := []record.Sink{{Out: stdout, Text: d.cfg.RecordFormat == "text"}}
	if d.cfg.RecordDir != "" {
		w, err := rotate.Open(rotate.Options{Dir: d.cfg.RecordDir, Name: Build().Component})
		if err != nil {
			return fmt.Errorf("--record-dir: %w", err)
		}
		sinks = append(sinks, record.Sink{Out: w})
	}
	d.record = record.New(d.recordContext(), d.box, sinks...)
	d.window, d.refusals = view.New(), d.newAdminRefusals()
	if err := d.openExport(); err != nil {
		return err
	}
	d.record.Watch(d.watch)
	return nil
}

// openExport prepares to send copies of records, those of the other daemon among them.
func (d *daemon) openExport() error {
	if d.cfg.OTLPEndpoint == "" {
		return nil
	}
	opt := export.Options{Headers: export.Headers(d.cfg.OTLPHeaders), Context: d.recordContext(), Log: d.log}
	var err error
	if opt.Address, opt.Clear, err = d.cfg.OTLP(); err != nil {
		return fmt.Errorf("--otlp-endpoint: %w", err)
	}
	if d.cfg.OTLPCA != "" {
		if opt.Roots, err = origin.Roots(d.cfg.OTLPCA); err != nil {
			return fmt.Errorf("--otlp-ca: %w", err)
		}
	}
	if d.export, err = export.Open(opt); err != nil {
		return fmt.Errorf("prepare the export of records: %w", err)
	}
	return nil
}

// watch sees every event that is recorded.
func (d *daemon) watch(ev *core.Event) {
	d.meter.Record(ev, d.instance)
	d.window.Record(ev, d.instance)
	if d.advisor != nil {
		d.advisor.Observe(ev)
	}
	if d.export != nil {
		d.export.Record(ev)
	}
}

// startRecords writes records and sends copies of them until stop is called, which waits
// until everything is out.
func (d *daemon) startRecords(ctx context.Context) (stop func() error) {
	ctx, cancel := context.WithCancel(context.WithoutCancel(ctx))
	done := make(chan struct{})
	go func() {
		defer close(done)
		var wg sync.WaitGroup
		wg.Go(func() { _ = d.record.Run(ctx) })
		if d.export != nil {
			wg.Go(func() { _ = d.export.Run(ctx) })
		}
		wg.Wait()
	}()
	return func() error {
		cancel()
		select {
		case <-done:
			return nil
		case <-time.After(recordsTimeout):
			return errors.New("the last records were not written: the log is not read")
		}
	}
}

func (d *daemon) recordContext() ocsf.Context {
	hostname, _ := os.Hostname() // informational
	proxy := netip.AddrPortFrom(netip.AddrFrom4([4]byte{127, 0, 0, 1}), d.cfg.ProxyPort)
	if own, err := netip.ParseAddrPort(d.cfg.Listen); err == nil {
		proxy = own
	}
	return ocsf.Context{
		Build: Build(), Instance: d.instance, Hostname: hostname, Proxy: proxy,
		Sandbox: d.cfg.SandboxName, SandboxUID: d.cfg.SandboxUID, Image: d.cfg.SandboxImage,
	}
}
