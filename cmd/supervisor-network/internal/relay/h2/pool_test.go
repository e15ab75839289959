package h2

import (
	"context"
	"crypto/tls"
	"errors"
	"io"
	"net"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/splitpod/splitpod/cmd/supervisor-network/internal/decide"
)

func failing(context.Context, decide.Permit) (*tls.Conn, error) { return nil, errUnreachable }

func ok(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, "ok") }

func TestARequestNeedsAPermitForItsDestination(t *testing.T) {
	p, dialled := pool(t, httpOrigin(t, ok, nil), Config{})
	right := permit(t, host, 1)
	for rule, change := range map[string]func(*http.Request){
		"another host":        func(r *http.Request) { r.URL.Host = "other.test" },
		"another port":        func(r *http.Request) { r.URL.Host = host + ":8443" },
		"another Host field":  func(r *http.Request) { r.Host = "other.test" },
		"another scheme":      func(r *http.Request) { r.URL.Scheme = "http" },
		"no URL":              func(r *http.Request) { r.URL = nil },
		"a host with a trick": func(r *http.Request) { r.URL.Host = host + ":443@other.test" },
	} {
		r := request(t, "GET", nil)
		change(r)
		if _, err := p.RoundTrip(t.Context(), right, r); !errors.Is(err, ErrWrongPermit) {
			t.Errorf("%s: %v", rule, err)
		}
	}
	if _, err := p.RoundTrip(t.Context(), decide.Permit{}, request(t, "GET", nil)); !errors.Is(err, ErrWrongPermit) {
		t.Errorf("no permit: %v", err)
	}
	if n := dialled.Load(); n != 0 {
		t.Errorf("%d connections were opened", n)
	}
}

func TestConnectionsAreSharedUnderOneSetOfTerms(t *testing.T) {
	p, dialled := pool(t, httpOrigin(t, ok, nil), Config{})
	first := permit(t, host, 1)
	get(t, p, first)
	get(t, p, permit(t, host, 1)) // another tunnel
	if n := dialled.Load(); n != 1 {
		t.Fatalf("%d connections for one destination", n)
	}
	get(t, p, permit(t, host, 2)) // another policy, the same terms
	if n := dialled.Load(); n != 1 {
		t.Fatalf("%d connections under one set of terms", n)
	}
	r := request(t, "GET", nil)
	r.URL.Host, r.Host = "other.test", "other.test"
	resp, err := p.RoundTrip(t.Context(), permit(t, "other.test", 1), r)
	if err != nil {
		t.Fatal(err)
	}
	resp.Body.Close()
	if n := dialled.Load(); n != 2 {
		t.Fatalf("a connection is used for two hosts, whose certificate names both: %d", n)
	}
}

func TestRequestsThatComeTogetherShareAConnection(t *testing.T) {
	p, dialled := pool(t, httpOrigin(t, ok, nil), Config{})
	right := permit(t, host, 1)
	var all sync.WaitGroup
	for range 50 {
		all.Go(func() { get(t, p, right) })
	}
	all.Wait()
	if n := dialled.Load(); n != 1 {
		t.Errorf("%d connections", n)
	}
}

func TestAnOriginsLimitOfStreamsIsKept(t *testing.T) {
	var running, most atomic.Int32
	addr := httpOrigin(t, func(w http.ResponseWriter, r *http.Request) {
		if n := running.Add(1); n > most.Load() {
			most.Store(n)
		}
		running.Add(-1)
		ok(w, r)
	}, func(hs *http.Server) { hs.HTTP2 = &http.HTTP2Config{MaxConcurrentStreams: 2} })
	p, dialled := pool(t, addr, Config{MaxConns: 1})
	right := permit(t, host, 1)
	get(t, p, right) // the limit is known now
	var all sync.WaitGroup
	for range 20 {
		all.Go(func() { get(t, p, right) })
	}
	all.Wait()
	if most.Load() > 2 || dialled.Load() != 1 {
		t.Errorf("%d streams at a time on %d connections", most.Load(), dialled.Load())
	}
}

// TestABurstOnANewConnectionKeepsTheOriginsLimit: requests with bodies, which are never
// repeated, begin together on a connection that nobody has used, to an origin that
// takes few at a time.
func TestABurstOnANewConnectionKeepsTheOriginsLimit(t *testing.T) {
	addr := httpOrigin(t, func(w http.ResponseWriter, r *http.Request) {
		_, _ = io.Copy(io.Discard, r.Body)
		ok(w, r)
	}, func(hs *http.Server) { hs.HTTP2 = &http.HTTP2Config{MaxConcurrentStreams: 3} })
	for range 20 {
		p, _ := pool(t, addr, Config{MaxConns: 1})
		right := permit(t, host, 1)
		var all sync.WaitGroup
		var failed atomic.Int32
		for range 30 {
			all.Go(func() {
				resp, err := p.RoundTrip(t.Context(), right, request(t, "POST", strings.NewReader("body")))
				if err != nil {
					failed.Add(1)
					return
				}
				_, _ = io.Copy(io.Discard, resp.Body)
				resp.Body.Close()
			})
		}
		all.Wait()
		if failed.Load() > 0 {
			t.Fatalf("%d of 30 failed", failed.Load())
		}
	}
}

func TestNothingIsAddedUnpackedOrFollowed(t *testing.T) {
	seen := make(chan *http.Request, 1)
	p, _ := pool(t, httpOrigin(t, func(w http.ResponseWriter, r *http.Request) {
		seen <- r
		w.Header().Set("Content-Encoding", "gzip")
		w.Header().Set("Set-Cookie", "a=1")
		w.Header().Set("Location", "http://169.254.169.254/")
		w.WriteHeader(http.StatusFound)
		_, _ = io.WriteString(w, "not gzip at all")
	}, nil), Config{})
	right := permit(t, host, 1)
	for range 2 { // the second has no cookie
		resp, body := get(t, p, right)
		if resp.StatusCode != http.StatusFound || body != "not gzip at all" || resp.Header.Get("Content-Encoding") != "gzip" {
			t.Errorf("%d %q %v", resp.StatusCode, body, resp.Header)
		}
		if diff := cmp.Diff(http.Header{}, (<-seen).Header); diff != "" {
			t.Error(diff)
		}
	}
}

func TestAnAnswerWithTooManyFieldsIsRefused(t *testing.T) {
	p, _ := pool(t, httpOrigin(t, func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("X-Large", strings.Repeat("x", maxResponseHead+1000))
	}, nil), Config{})
	if _, err := p.RoundTrip(t.Context(), permit(t, host, 1), request(t, "GET", nil)); err == nil {
		t.Error("it passes")
	}
}

// TestOnlyWhatWasNotDoneIsRepeated: the origin's connections break at the first
// request that wants it.
func TestOnlyWhatWasNotDoneIsRepeated(t *testing.T) {
	for _, c := range []struct {
		rule, method string
		body         bool
		warm         bool
		attempts     int32
	}{
		{"a GET on an old connection is repeated", "GET", false, true, 2},
		{"a GET on a new connection is not", "GET", false, false, 1},
		{"a DELETE is not repeated", "DELETE", false, true, 1},
		{"a POST is not repeated", "POST", true, true, 1},
		{"a GET with a body is not repeated", "GET", true, true, 1},
	} {
		t.Run(c.rule, func(t *testing.T) {
			var attempts atomic.Int32
			p, _ := pool(t, httpOrigin(t, func(w http.ResponseWriter, r *http.Request) {
				if r.Header.Get("X-Break") == "" {
					ok(w, r)
					return
				}
				if attempts.Add(1) == 1 {
					r.Context().Value(connection{}).(net.Conn).Close()
					return
				}
				ok(w, r)
			}, func(hs *http.Server) {
				hs.ConnContext = func(ctx context.Context, c net.Conn) context.Context {
					return context.WithValue(ctx, connection{}, c)
				}
			}), Config{})
			right := permit(t, host, 1)
			if c.warm {
				get(t, p, right)
			}
			var body io.Reader
			if c.body {
				body = strings.NewReader("x")
			}
			r := request(t, c.method, body)
			r.Header.Set("X-Break", "1")
			resp, err := p.RoundTrip(t.Context(), right, r)
			if err == nil {
				resp.Body.Close()
			}
			if n := attempts.Load(); n != c.attempts {
				t.Errorf("%d attempts, %v", n, err)
			}
		})
	}
}

// connection is the context key of an origin's connection.
type connection struct{}

func TestAConnectionThatEndedIsReplaced(t *testing.T) {
	var servers []*http.Server
	addr := httpOrigin(t, ok, func(hs *http.Server) { servers = append(servers, hs); hs.IdleTimeout = 200 * time.Millisecond })
	p, dialled := pool(t, addr, Config{})
	right := permit(t, host, 1)
	get(t, p, right)
	for dialled.Load() == 1 { // until the origin's GOAWAY has come
		get(t, p, right)
		time.Sleep(250 * time.Millisecond) // longer than the origin's patience
	}
	get(t, p, right)
}

func TestUnusedConnectionsAreClosedAndForgotten(t *testing.T) {
	p, _ := pool(t, httpOrigin(t, ok, nil), Config{Idle: 200 * time.Millisecond})
	get(t, p, permit(t, host, 1))
	for deadline := time.Now().Add(time.Minute); ; {
		p.mu.RLock()
		n := len(p.origins)
		p.mu.RUnlock()
		if n == 0 {
			break
		}
		if time.Now().After(deadline) {
			t.Fatal("the destination is remembered")
		}
		time.Sleep(5 * time.Millisecond) // not a wait for an event: the check is repeated
	}
	get(t, p, permit(t, host, 1)) // and found again
}

func TestAnOriginWithoutHTTP2IsSaid(t *testing.T) {
	l := secured(listen(t), "http/1.1")
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			_ = c.(*tls.Conn).HandshakeContext(context.Background())
			c.Close()
		}
	}()
	p, _ := pool(t, l.Addr().String(), Config{})
	p.cfg.Dial = func(ctx context.Context, q decide.Permit) (*tls.Conn, error) {
		d := tls.Dialer{Config: &tls.Config{ServerName: q.Host(), RootCAs: roots(), NextProtos: []string{"h2", "http/1.1"}}}
		c, err := d.DialContext(ctx, "tcp", l.Addr().String())
		if err != nil {
			return nil, err
		}
		return c.(*tls.Conn), nil
	}
	if _, err := p.RoundTrip(t.Context(), permit(t, host, 1), request(t, "GET", nil)); !errors.Is(err, ErrNoHTTP2) {
		t.Errorf("%v", err)
	}
}

func TestADialsErrorIsItsOwn(t *testing.T) {
	p, _ := pool(t, "", Config{})
	p.cfg.Dial = failing
	for range 2 {
		if _, err := p.RoundTrip(t.Context(), permit(t, host, 1), request(t, "GET", nil)); err != errUnreachable {
			t.Errorf("%v", err)
		}
	}
	if len(p.origins) != 0 {
		t.Error("a destination that nobody reached is remembered")
	}
}

// TestOneRequestsEndIsNotAnothers: the one that dials gives up, the one that waits
// dials itself.
func TestOneRequestsEndIsNotAnothers(t *testing.T) {
	addr := httpOrigin(t, ok, nil)
	dialling := make(chan struct{}, 2)
	var first atomic.Bool
	p, _ := pool(t, addr, Config{})
	real := p.cfg.Dial
	p.cfg.Dial = func(ctx context.Context, q decide.Permit) (*tls.Conn, error) {
		dialling <- struct{}{}
		if first.CompareAndSwap(false, true) {
			<-ctx.Done()
			return nil, ctx.Err()
		}
		return real(ctx, q)
	}
	right := permit(t, host, 1)
	ctx, cancel := context.WithCancel(t.Context())
	var both sync.WaitGroup
	both.Go(func() {
		if _, err := p.RoundTrip(ctx, right, request(t, "GET", nil)); !errors.Is(err, context.Canceled) {
			t.Errorf("%v", err)
		}
	})
	<-dialling
	both.Go(func() { get(t, p, right) })
	cancel()
	both.Wait()
}

func TestCloseEndsWhatRuns(t *testing.T) {
	started := make(chan struct{})
	p, _ := pool(t, httpOrigin(t, func(_ http.ResponseWriter, r *http.Request) {
		close(started)
		<-r.Context().Done()
	}, nil), Config{})
	right := permit(t, host, 1)
	go func() { <-started; p.Close() }()
	if _, err := p.RoundTrip(t.Context(), right, request(t, "POST", nil)); err == nil {
		t.Error("it was answered")
	}
	if _, err := p.RoundTrip(t.Context(), right, request(t, "GET", nil)); !errors.Is(err, ErrClosed) {
		t.Errorf("%v", err)
	}
}
