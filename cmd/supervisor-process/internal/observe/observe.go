// Package observe counts what operators watch, as metrics for Prometheus.
//
// It answers the threat of numbers that a workload can blow up or write into: labels come
// from closed sets, and none carries a host, a path or a name that the workload chose.
// How metrics, liveness and readiness are served is pkg/core/health.
package observe

import (
	"runtime"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"github.com/prometheus/client_golang/prometheus/promhttp"

	"github.com/splitpod/splitpod/pkg/core"
	"github.com/splitpod/splitpod/pkg/core/health"
)

// Check is one condition of readiness, Server what serves them all.
type (
	Check  = health.Check
	Server = health.Server
)

// New makes a Server for the metrics in registry and the checks that ready computes.
func New(registry *prometheus.Registry, ready func() []Check) *Server {
	return health.New(promhttp.HandlerFor(registry, promhttp.HandlerOpts{MaxRequestsInFlight: 4, Timeout: 10 * time.Second, EnableOpenMetrics: true}), ready)
}

// Holds reports whether every check holds.
func Holds(checks []Check) bool { return health.Holds(checks) }

// NewRegistry makes a registry of its own, with the runtime's metrics, the build's,
// readiness, and what values and the meter count.
func NewRegistry(b core.Build, checks func() []Check, values *Values, m *Meter) *prometheus.Registry {
	r := prometheus.NewRegistry()
	r.MustRegister(collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}))
	g := &Values{}
	g.AddAll(BuildInfo, func(emit func(float64, ...string)) { emit(1, b.Component, b.Version, b.Commit, runtime.Version()) })
	g.Add(Ready, func() float64 { return Truth(Holds(checks())) })
	g.AddAll(Checks, func(emit func(float64, ...string)) {
		for _, c := range checks() {
			emit(Truth(c.OK), c.Name)
		}
	})
	r.MustRegister(g, values)
	m.Register(r)
	return r
}

// Truth is 1 or 0.
func Truth(ok bool) float64 {
	if ok {
		return 1
	}
	return 0
}
