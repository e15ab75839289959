// Package observe answers operators: liveness, readiness and metrics over HTTP on
// the pod's address, which the workload cannot reach.
//
// It answers the threat of a sandbox that looks healthy and is not: readiness is
// computed at every request from the state it is about. It does not authenticate;
// nothing here is secret, and no label carries a host, a path or a name that the
// workload chose.
package observe

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"strings"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promhttp"
)

// Check is one condition of readiness.
type Check struct {
	Name   string // snake_case
	OK     bool
	Detail string // for people
}

// Server serves /livez, /readyz and /metrics. Make it with New.
type Server struct {
	http *http.Server
}

// New makes a Server for the metrics in registry and the checks that ready
// computes.
func New(registry *prometheus.Registry, ready func() []Check) *Server {
	mux := http.NewServeMux()
	mux.HandleFunc("GET /livez", func(w http.ResponseWriter, _ *http.Request) { fmt.Fprintln(w, "ok") })
	mux.HandleFunc("GET /readyz", func(w http.ResponseWriter, _ *http.Request) { writeChecks(w, ready()) })
	mux.Handle("GET /metrics", promhttp.HandlerFor(registry, promhttp.HandlerOpts{MaxRequestsInFlight: 4, Timeout: 10 * time.Second}))
	return &Server{http: &http.Server{
		Handler:           mux,
		ReadHeaderTimeout: 5 * time.Second,
		ReadTimeout:       10 * time.Second,
		WriteTimeout:      20 * time.Second,
		IdleTimeout:       time.Minute,
		MaxHeaderBytes:    8 << 10,
	}}
}

// Run serves on l until ctx ends, and closes l.
func (s *Server) Run(ctx context.Context, l net.Listener) error {
	stop := context.AfterFunc(ctx, func() { s.http.Close() })
	defer stop()
	if err := s.http.Serve(l); err != nil && !errors.Is(err, http.ErrServerClosed) {
		return fmt.Errorf("serve health and metrics: %w", err)
	}
	return nil
}

func writeChecks(w http.ResponseWriter, checks []Check) {
	var b strings.Builder
	status := http.StatusOK
	for _, c := range checks {
		mark := "ok"
		if !c.OK {
			mark, status = "FAILED", http.StatusServiceUnavailable
		}
		fmt.Fprintf(&b, "%s %s: %s\n", mark, c.Name, c.Detail)
	}
	w.Header().Set("Content-Type", "text/plain; charset=utf-8")
	w.WriteHeader(status)
	fmt.Fprint(w, b.String())
}

// Gauges is a prometheus.Collector whose values are read when they are asked for,
// so that nothing is counted twice in two places.
type Gauges struct {
	descs []*prometheus.Desc
	kinds []prometheus.ValueType
	read  []func() float64
}

// Add registers a value read by f; counters only ever grow.
func (g *Gauges) Add(kind prometheus.ValueType, name, help string, f func() float64) {
	g.descs = append(g.descs, prometheus.NewDesc(name, help, nil, nil))
	g.kinds = append(g.kinds, kind)
	g.read = append(g.read, f)
}

// Describe implements prometheus.Collector.
func (g *Gauges) Describe(ch chan<- *prometheus.Desc) {
	for _, d := range g.descs {
		ch <- d
	}
}

// Collect implements prometheus.Collector.
func (g *Gauges) Collect(ch chan<- prometheus.Metric) {
	for i, d := range g.descs {
		ch <- prometheus.MustNewConstMetric(d, g.kinds[i], g.read[i]())
	}
}

// Labelled is a prometheus.Collector for one counter with one label from a closed
// set.
type Labelled struct {
	desc *prometheus.Desc
	read func() map[string]float64
}

// NewLabelled makes a Labelled counter whose values f reads.
func NewLabelled(name, help, label string, f func() map[string]float64) *Labelled {
	return &Labelled{desc: prometheus.NewDesc(name, help, []string{label}, nil), read: f}
}

// Describe implements prometheus.Collector.
func (l *Labelled) Describe(ch chan<- *prometheus.Desc) { ch <- l.desc }

// Collect implements prometheus.Collector.
func (l *Labelled) Collect(ch chan<- prometheus.Metric) {
	for label, v := range l.read() {
		ch <- prometheus.MustNewConstMetric(l.desc, prometheus.CounterValue, v, label)
	}
}
