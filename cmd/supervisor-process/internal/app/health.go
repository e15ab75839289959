package app

import (
	"cmp"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/splitpod/splitpod/cmd/supervisor-process/internal/observe"
	"github.com/splitpod/splitpod/pkg/core"
)

// checks are the conditions of readiness, computed now.
func (d *daemon) checks() []observe.Check {
	w := d.workload.get()
	out := []observe.Check{{Name: "workload", OK: w.Phase == core.PhaseRunning, Detail: w.Phase.String()}}
	if d.link != nil {
		out = append(out, d.linkChecks()...)
	}
	return append(out, observe.Check{Name: "fence", OK: d.fence.Fresh(time.Now()), Detail: "verified " + d.fence.Verified().UTC().Format(time.RFC3339)})
}

// linkChecks hold while the contract is up, and while another network daemon could attach;
// while not, they say why.
func (d *daemon) linkChecks() []observe.Check {
	peer, ok := d.link.Peer()
	attached := observe.Check{Name: "network_daemon", OK: ok, Detail: peer.Build.String()}
	if !ok {
		attached.Detail = cmp.Or(d.link.Unattached(), "not attached")
	}
	err := d.link.Reachable()
	sockets := observe.Check{Name: "sockets", OK: err == nil, Detail: d.cfg.RunDir}
	if err != nil {
		sockets.Detail = err.Error()
	}
	return []observe.Check{attached, sockets}
}

// metrics registers everything this daemon counts, in a registry of its own.
func (d *daemon) metrics() *prometheus.Registry {
	g := &observe.Values{}
	g.Add(observe.Failed, func() float64 { return float64(d.report.Stats().Errors) })
	g.Add(observe.Phase, func() float64 { return float64(d.workload.get().Phase) })
	g.Add(observe.FenceVerified, func() float64 {
		at := d.fence.Verified()
		if at.IsZero() {
			return 0
		}
		return float64(at.UnixNano()) / 1e9
	})
	g.Add(observe.FenceDamaged, func() float64 { return observe.Truth(d.fence.Damaged()) })
	if d.box != nil {
		g.Add(observe.EventsWaiting, func() float64 { return float64(d.box.Stats().Waiting) })
		g.Add(observe.EventsMerged, func() float64 { return float64(d.box.Stats().Undetailed) })
	}
	if d.link != nil {
		g.Add(observe.PeerAttached, func() float64 {
			_, ok := d.link.Peer()
			return observe.Truth(ok)
		})
	}
	return observe.NewRegistry(Build(), d.checks, g, d.meter)
}
