package app

import (
	"context"
	"flag"
	"fmt"
	"io"
	"net/http"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"

	"github.com/splitpod/splitpod/cmd/supervisor-network/internal/observe"
)

// checks are the conditions of readiness, computed now.
func (d *daemon) checks() []observe.Check {
	generation, digest, quarantine := d.policies.state()
	out := []observe.Check{{
		Name: "policy", OK: generation > 0 && !quarantine,
		Detail: fmt.Sprintf("generation %d, sha256 %s, quarantine %t", generation, digest, quarantine),
	}, {
		Name: "ca", OK: time.Now().Before(d.ca.Certificate().NotAfter),
		Detail: "expires " + d.ca.Certificate().NotAfter.Format(time.RFC3339),
	}}
	if d.hub == nil {
		return out
	}
	a := &d.attach
	a.mu.Lock()
	defer a.mu.Unlock()
	out = append(out, observe.Check{Name: "process_daemon", OK: a.peer.Instance != "", Detail: a.peer.Build.String()})
	if d.cfg.Listen == "" {
		out = append(out, observe.Check{Name: "listeners", OK: a.serving, Detail: "workload is " + a.workload.Phase.String()})
	}
	return out
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
	g.Add(counter, "splitpod_connections_allowed_total", "Connections that a rule allowed.", func() float64 { return float64(d.record.Stats().Allowed) })
	g.Add(counter, "splitpod_records_dropped_total", "Records the log's reader missed.", func() float64 { return float64(d.record.Stats().Dropped) })
	g.Add(gauge, "splitpod_connections_live", "Allowed connections now.", func() float64 { return float64(d.live.count.Load()) })
	g.Add(gauge, "splitpod_connections_open", "Accepted connections now.", func() float64 { return float64(d.gauge.Open()) })
	g.Add(counter, "splitpod_connections_refused_total", "Connections above the limit.", func() float64 { return float64(d.gauge.Refused()) })
	g.Add(gauge, "splitpod_policy_generation", "Number of the policy in force.", func() float64 {
		generation, _, _ := d.policies.state()
		return float64(generation)
	})
	g.Add(gauge, "splitpod_ready", "1 when every readiness check holds.", d.readyValue)
	if d.box != nil {
		g.Add(gauge, "splitpod_events_waiting", "Events the process daemon has not acknowledged.", func() float64 { return float64(d.box.Stats().Waiting) })
		g.Add(counter, "splitpod_events_undetailed_total", "Occurrences that lost their detail.", func() float64 { return float64(d.box.Stats().Undetailed) })
	}
	reg.MustRegister(info, g, observe.NewLabelled("splitpod_denials_total", "Refused connections by reason.", "reason", d.denials))
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

func (d *daemon) denials() map[string]float64 {
	out := make(map[string]float64)
	for reason, n := range d.record.Stats().Reasons {
		out[string(reason)] = float64(n)
	}
	return out
}

// healthCommand asks a running daemon, for probes in images without a client.
func healthCommand(ctx context.Context, args []string, stdout, stderr io.Writer) int {
	fs := flag.NewFlagSet("supervisor-network healthcheck", flag.ContinueOnError)
	fs.SetOutput(stderr)
	url := fs.String("url", "http://127.0.0.1:9901/readyz", "what to ask")
	if err := fs.Parse(args); err != nil {
		return exitUsage
	}
	ctx, cancel := context.WithTimeout(ctx, 5*time.Second)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, *url, nil)
	if err != nil {
		fmt.Fprintf(stderr, "supervisor-network: %v\n", err)
		return exitUsage
	}
	client := &http.Client{Transport: &http.Transport{}} // no proxy: this is a local question
	resp, err := client.Do(req)
	if err != nil {
		fmt.Fprintf(stderr, "supervisor-network: %v\n", err)
		return exitFailed
	}
	defer resp.Body.Close()
	_, _ = io.Copy(stdout, io.LimitReader(resp.Body, 64<<10))
	if resp.StatusCode != http.StatusOK {
		return exitFailed
	}
	return exitOK
}
