package inference

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/net/http/httpguts"

	"github.com/splitpod/splitpod/cmd/supervisor-network/internal/inject/secret"
	"github.com/splitpod/splitpod/pkg/core/strictyaml"
)

// Config configures a Router.
type Config struct {
	File string // the routes file; empty: there is none, and every call is refused
	// Dial reaches what the routes name: relay.Dialer.Operator of Named.
	Dial  func(ctx context.Context, network, address string) (net.Conn, error)
	TLS   *tls.Config   // for providers; may be nil
	Stall time.Duration // that a streamed answer may stand still; default 2 min
	Log   *slog.Logger  // nil: nowhere
	// Changed is told of every change of what is in force, by one goroutine: err is why a
	// changed file is not. It may be nil.
	Changed func(routes []*Route, err error)
}

// pollEvery is how often files are read without being told of a change.
const pollEvery = 10 * time.Second

// maxUnread is what a provider may send over HTTP/2 of one answer before its client takes it.
const maxUnread = 64 << 10

// Router makes model calls by the routes in force. Make it with Open. Safe for concurrent
// use.
type Router struct {
	cfg       Config
	transport *http.Transport
	current   atomic.Pointer[[]*Route]
	invalid   atomic.Pointer[string] // why the file as it is now is not in force; nil: it is

	mu    sync.Mutex // guards what follows
	files []string   // to watch
}

// Open reads the routes for the first time. It fails if the file is not valid; the warnings
// are returned in both cases. A key that cannot be read is logged, and its route not used.
func Open(cfg Config) (*Router, []strictyaml.Problem, error) {
	if cfg.Log == nil {
		cfg.Log = slog.New(slog.DiscardHandler)
	}
	if cfg.Stall <= 0 {
		cfg.Stall = 2 * time.Minute
	}
	r := &Router{cfg: cfg}
	r.transport = &http.Transport{
		DialContext: cfg.Dial, TLSClientConfig: cfg.TLS, ForceAttemptHTTP2: true, DisableCompression: true,
		HTTP2:                  &http.HTTP2Config{SendPingTimeout: 30 * time.Second, PingTimeout: 15 * time.Second, MaxReceiveBufferPerStream: maxUnread},
		MaxResponseHeaderBytes: 64 << 10, MaxIdleConnsPerHost: 16, IdleConnTimeout: 50 * time.Second, TLSHandshakeTimeout: 10 * time.Second,
	}
	r.current.Store(new([]*Route))
	if cfg.File == "" {
		return r, nil, nil
	}
	routes, warnings, err := read(cfg.File)
	if err != nil {
		return nil, warnings, err
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	r.take(routes)
	return r, warnings, nil
}

// Run follows changes until ctx ends.
func (r *Router) Run(ctx context.Context) {
	defer r.transport.CloseIdleConnections()
	if r.cfg.File == "" {
		<-ctx.Done()
		return
	}
	secret.Watch(ctx, r.folders(), pollEvery, r.cfg.Log, func() []string {
		r.Reload()
		return r.folders()
	})
}

func (r *Router) folders() []string {
	r.mu.Lock()
	defer r.mu.Unlock()
	return secret.Folders(r.files)
}

// Routes are those in force, in the order of their file. They must not be changed.
func (r *Router) Routes() []*Route { return *r.current.Load() }

// Invalid says why the file as it is now is not in force; empty: it is.
func (r *Router) Invalid() string {
	if why := r.invalid.Load(); why != nil {
		return *why
	}
	return ""
}

// Named reports whether a route leads to host and port: nothing else is dialled.
func (r *Router) Named(host string, port uint16) bool {
	return slices.ContainsFunc(r.Routes(), func(r *Route) bool {
		return strings.EqualFold(r.endpoint.Hostname(), host) && r.port() == port
	})
}

// Reload reads all files again. With a file that is not valid the routes stay those that
// are in force, with the keys that their files hold now.
func (r *Router) Reload() {
	r.mu.Lock()
	defer r.mu.Unlock()
	routes, _, err := read(r.cfg.File)
	before, was := r.Routes(), r.Invalid()
	if err == nil {
		r.invalid.Store(nil)
	} else {
		why := err.Error()
		r.invalid.Store(&why)
		routes = nil
		for _, b := range before {
			again := *b
			routes = append(routes, &again)
		}
	}
	r.take(routes)
	if r.cfg.Changed != nil && (r.Invalid() != was || !slices.EqualFunc(before, routes, same)) {
		r.cfg.Changed(routes, err)
	}
}

// read reads and parses a routes file.
func read(path string) ([]*Route, []strictyaml.Problem, error) {
	data, err := strictyaml.Load(path)
	if err != nil {
		return nil, nil, fmt.Errorf("read the inference routes: %w", err)
	}
	return Parse(path, data)
}

// take reads the keys of routes and puts them in force, if that changes anything. mu is held.
func (r *Router) take(routes []*Route) {
	r.files = []string{r.cfg.File}
	before := r.Routes()
	for _, route := range routes {
		route.key, route.problem = secret.Value{}, ""
		if route.KeyFile == "" {
			continue
		}
		r.files = append(r.files, route.KeyFile)
		file, err := secret.Read(route.KeyFile)
		if err == nil && (!httpguts.ValidHeaderFieldValue(file.Value.Expose()) || strings.ContainsAny(file.Value.Expose(), " \t")) {
			err = errors.New("the key holds white space, or characters that no field of a request can")
		}
		if err == nil {
			route.key = file.Value
			continue
		}
		route.problem = err.Error()
		if !slices.ContainsFunc(before, func(b *Route) bool { return b.Name == route.Name && b.problem == route.problem }) {
			r.cfg.Log.Warn("an inference route has no usable key", slog.String("route", route.Name), slog.String("problem", route.problem))
		}
	}
	if !slices.EqualFunc(before, routes, same) {
		r.current.Store(&routes)
	}
}

// Problem says why the route is not used; empty: it is.
func (r *Route) Problem() string { return r.problem }

func same(a, b *Route) bool {
	return a.Name == b.Name && a.Model == b.Model && a.Provider == b.Provider && slices.Equal(a.Protocols, b.Protocols) && a.KeyFile == b.KeyFile &&
		a.Timeout == b.Timeout && *a.endpoint == *b.endpoint && a.problem == b.problem && a.key.Equal(b.key)
}
