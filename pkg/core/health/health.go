// Package health answers operators over HTTP on the pod's address, which the workload
// cannot reach: liveness, readiness and metrics of either daemon.
//
// It answers the threat of a sandbox that looks healthy and is not: readiness is
// computed at every request from the state it is about. Slow and large requests are
// bounded. It does not authenticate; what it shows is not secret.
package health

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"slices"
	"strings"
	"time"
)

// Check is one condition of readiness.
type Check struct {
	Name   string // snake_case
	OK     bool
	Detail string // for people
}

// Holds reports whether every check holds.
func Holds(checks []Check) bool {
	return !slices.ContainsFunc(checks, func(c Check) bool { return !c.OK })
}

// Server serves /livez, /readyz and /metrics. Make it with New.
type Server struct {
	http *http.Server
	mux  *http.ServeMux
}

// New makes a Server with a handler for /metrics and the checks that ready computes.
func New(metrics http.Handler, ready func() []Check) *Server {
	mux := http.NewServeMux()
	mux.HandleFunc("GET /livez", func(w http.ResponseWriter, _ *http.Request) { fmt.Fprintln(w, "ok") })
	mux.HandleFunc("GET /readyz", func(w http.ResponseWriter, r *http.Request) {
		writeChecks(w, ready(), r.URL.Query().Has("verbose"))
	})
	mux.Handle("GET /metrics", metrics)
	return &Server{mux: mux, http: &http.Server{
		Handler:           mux,
		ReadHeaderTimeout: 5 * time.Second,
		ReadTimeout:       10 * time.Second,
		WriteTimeout:      20 * time.Second,
		IdleTimeout:       time.Minute,
		MaxHeaderBytes:    8 << 10,
	}}
}

// Handle serves pattern too; h says itself who may read it. Call it before Run.
func (s *Server) Handle(pattern string, h http.Handler) { s.mux.Handle(pattern, h) }

// ServeHTTP implements http.Handler.
func (s *Server) ServeHTTP(w http.ResponseWriter, r *http.Request) { s.mux.ServeHTTP(w, r) }

// Run serves on l until ctx ends, and closes l.
func (s *Server) Run(ctx context.Context, l net.Listener) error {
	stop := context.AfterFunc(ctx, func() { s.http.Close() })
	defer stop()
	if err := s.http.Serve(l); err != nil && !errors.Is(err, http.ErrServerClosed) {
		return fmt.Errorf("serve health and metrics: %w", err)
	}
	return nil
}

// writeChecks answers 200 or 503, with what does not hold; with verbose, with
// everything.
func writeChecks(w http.ResponseWriter, checks []Check, verbose bool) {
	var b strings.Builder
	for _, c := range checks {
		switch {
		case !c.OK:
			fmt.Fprintf(&b, "FAILED %s: %s\n", c.Name, c.Detail)
		case verbose:
			fmt.Fprintf(&b, "ok %s: %s\n", c.Name, c.Detail)
		}
	}
	status := http.StatusServiceUnavailable
	if Holds(checks) {
		status = http.StatusOK
		b.WriteString("ready\n")
	}
	w.Header().Set("Content-Type", "text/plain; charset=utf-8")
	w.Header().Set("Cache-Control", "no-store")
	w.WriteHeader(status)
	fmt.Fprint(w, b.String())
}
