package app

import (
	"fmt"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"

	"github.com/splitpod/splitpod/cmd/supervisor-process/internal/observe"
	"github.com/splitpod/splitpod/pkg/core"
)

// checks are the conditions of readiness, computed now.
func (d *daemon) checks() []observe.Check {
	w := d.workload.get()
	out := []observe.Check{{Name: "workload", OK: w.Phase == core.PhaseRunning, Detail: w.Phase.String()}}
	if d.link != nil {
		peer, ok := d.link.Peer()
		out = append(out, observe.Check{Name: "network_daemon", OK: ok, Detail: peer.Build.String()})
	}
	at := time.Unix(0, d.fence.verified.Load())
	fresh := !d.fence.damaged.Load() && time.Since(at) < 10*fenceInterval
	return append(out, observe.Check{Name: "fence", OK: fresh, Detail: fmt.Sprintf("verified %s", at.UTC().Format(time.RFC3339))})
}

// metrics registers everything this daemon counts, in a registry of its own.
func (d *daemon) metrics() *prometheus.Registry {
	reg := prometheus.NewRegistry()
	reg.MustRegister(collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}))
	info := prometheus.NewGauge(prometheus.GaugeOpts{Name: "splitpod_build_info", Help: "The build, as labels.",
		ConstLabels: prometheus.Labels{"component": build().Component, "version": build().Version}})
	info.Set(1)
	g := &observe.Gauges{}
	counter, gauge := prometheus.CounterValue, prometheus.GaugeValue
	g.Add(counter, "splitpod_bypass_refused_total", "Packets around the proxy that the fence refused.", func() float64 {
		return float64(d.fence.logged.Load() + d.fence.counted.Load())
	})
	g.Add(counter, "splitpod_records_total", "Records written.", func() float64 { return float64(d.report.Stats().Events) })
	g.Add(counter, "splitpod_records_failed_total", "Records that could not be written.", func() float64 { return float64(d.report.Stats().Errors) })
	g.Add(gauge, "splitpod_workload_phase", "0 preparing, 1 prepared, 2 running, 3 exited.", func() float64 { return float64(d.workload.get().Phase) })
	g.Add(gauge, "splitpod_ready", "1 when every readiness check holds.", d.readyValue)
	if d.box != nil {
		g.Add(gauge, "splitpod_events_waiting", "Events the network daemon has not acknowledged.", func() float64 { return float64(d.box.Stats().Waiting) })
		g.Add(counter, "splitpod_events_undetailed_total", "Occurrences that lost their detail.", func() float64 { return float64(d.box.Stats().Undetailed) })
	}
	reg.MustRegister(info, g)
	return reg
}

func (d *daemon) readyValue() float64 {
	for _, c := range d.checks() {
		if !c.OK {
			return 0
		}
	}
	return 1
}
