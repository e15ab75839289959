// Package exchange fetches the tokens of token grants: it proves this workload's
// identity to a token endpoint and keeps the bearer that it gets.
//
// It answers the threats of an identity or a token that the workload could hold, of
// a token endpoint that redirects, floods, stalls or answers with text that would
// break out of a header, and of a workload that makes this daemon ask over and over:
// one request is under way for each grant at a time, and a failure is remembered for
// a moment. It does not answer a token endpoint that grants too much.
//
// Invariant: a token is used for the grant it was fetched for, and not beyond its
// expiry; the identity that was shown and the token are in no error and no record.
//
// Sources: RFC 6749 sections 4.4 and 5, RFC 7521 section 4.2, RFC 8693 section 2,
// RFC 9110 section 11.2 (token68), the SPIFFE Workload API.
package exchange

import (
	"context"
	"crypto/tls"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"strings"
	"sync"
	"time"

	"golang.org/x/sync/singleflight"

	"github.com/splitpod/splitpod/cmd/supervisor-network/internal/decide"
	"github.com/splitpod/splitpod/cmd/supervisor-network/internal/http1"
	"github.com/splitpod/splitpod/cmd/supervisor-network/internal/inject"
	"github.com/splitpod/splitpod/cmd/supervisor-network/internal/inject/credentials"
	"github.com/splitpod/splitpod/cmd/supervisor-network/internal/inject/placeholder"
	"github.com/splitpod/splitpod/cmd/supervisor-network/internal/inject/secret"
	"github.com/splitpod/splitpod/pkg/core"
)

// Limits.
const (
	timeout     = 30 * time.Second // of one fetch, identity included
	maxResponse = 64 << 10         // bytes of an answer
	maxToken    = 16 << 10
	maxLifetime = time.Hour
	noLifetime  = 5 * time.Minute // when the answer says nothing
	early       = 30 * time.Second
	minLifetime = time.Second
	afterError  = 2 * time.Second // until the endpoint is asked again
	maxEntries  = 4 * credentials.MaxGrants
)

// Config configures an Exchange.
type Config struct {
	// Dial makes the connections to token endpoints.
	Dial func(ctx context.Context, network, address string) (net.Conn, error)
	TLS  *tls.Config // nil: the system's roots
	Log  *slog.Logger
	Now  func() time.Time // default time.Now
	// Granted is told of every token that was fetched, by several goroutines; may be nil.
	Granted func(Grant)
}

// Grant is that a token was given. It does not hold it.
type Grant struct {
	Name, Endpoint string
	Took           time.Duration
}

// Exchange holds tokens. Make it with New, end it with Close. Safe for concurrent
// use.
type Exchange struct {
	cfg        Config
	client     *http.Client
	flights    singleflight.Group
	identities identities

	mu     sync.Mutex // guards tokens
	tokens map[key]held
}

// key is everything that decides which token is fetched: one whose identity came from
// other credentials is another one, however long its fetching took.
type key struct {
	of    *credentials.Snapshot
	grant string // as text
}

// held is a token, or a failure, until it has to be fetched again.
type held struct {
	token secret.Value
	err   error
	until time.Time
}

// New makes an Exchange.
func New(cfg Config) *Exchange {
	if cfg.Now == nil {
		cfg.Now = time.Now
	}
	transport := &http.Transport{
		DialContext: cfg.Dial, TLSClientConfig: cfg.TLS, DisableCompression: true, Proxy: nil,
		MaxResponseHeaderBytes: 16 << 10, MaxIdleConnsPerHost: 2, IdleConnTimeout: time.Minute, TLSHandshakeTimeout: 10 * time.Second,
	}
	return &Exchange{
		cfg: cfg, tokens: map[key]held{},
		client: &http.Client{Transport: transport, CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }},
	}
}

// Close ends idle connections.
func (e *Exchange) Close() {
	e.client.CloseIdleConnections()
	e.identities.close()
}

// Applied is a request with a token in it.
type Applied struct {
	Fields http1.Fields
	Use    inject.Use
	Echo   credentials.Echo // the token, for the response's hygiene
}

// Apply puts the grant's token into the fields of a request on the permitted
// connection, in the place of what stands there. It fails with an *inject.Error.
func (e *Exchange) Apply(ctx context.Context, p decide.Permit, s *credentials.Snapshot, g *credentials.Grant, fields http1.Fields) (Applied, error) {
	if !p.Valid() || p.Opaque() {
		return Applied{}, inject.Unavailable("credentials go only into requests that are inspected and permitted")
	}
	token, err := e.token(ctx, s, g)
	if err != nil {
		return Applied{}, &inject.Error{Status: 502, Reason: core.ReasonTokenGrantFailed, Detail: fmt.Sprintf("no token could be had for the grant %s (%v)", g.Name, err)}
	}
	field := http1.Field{Name: "Authorization", Value: "Bearer " + token.Expose()}
	if g.Header != "" {
		field = http1.Field{Name: g.Header, Value: token.Expose()}
	}
	use := g.Use()
	return Applied{
		Fields: append(fields.Without(strings.ToLower(field.Name)), field),
		Use:    use,
		Echo:   credentials.Echo{Value: token, Placeholder: placeholder.Redacted, Key: use.Key},
	}, nil
}

// token returns the grant's token, fetched if there is none. Everybody who asks while
// it is fetched waits for the same fetch, which none of them can break off.
func (e *Exchange) token(ctx context.Context, s *credentials.Snapshot, g *credentials.Grant) (secret.Value, error) {
	k := key{s, textOf(g)}
	if h, ok := e.held(k); ok {
		return h.token, h.err
	}
	done := e.flights.DoChan(fmt.Sprintf("%p %s", s, k.grant), func() (any, error) {
		if h, ok := e.held(k); ok {
			return h, nil // another flight has just ended
		}
		ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), timeout)
		defer cancel()
		h := e.fetch(ctx, s, g)
		e.keep(k, h)
		return h, nil
	})
	select {
	case <-ctx.Done():
		return secret.Value{}, errInterrupted
	case r := <-done:
		h := r.Val.(held)
		return h.token, h.err
	}
}

func (e *Exchange) held(k key) (held, bool) {
	e.mu.Lock()
	defer e.mu.Unlock()
	h, ok := e.tokens[k]
	now := e.cfg.Now()
	// By both clocks: neither a clock that was set back nor a machine that slept makes a
	// token last longer.
	return h, ok && now.Before(h.until) && now.Round(0).Before(h.until.Round(0))
}

func (e *Exchange) keep(k key, h held) {
	e.mu.Lock()
	defer e.mu.Unlock()
	if len(e.tokens) >= maxEntries { // grants of earlier files
		clear(e.tokens)
	}
	e.tokens[k] = h
}

// Forget drops every token, after a change of what identities are made of: nobody asks for
// these any more.
func (e *Exchange) Forget() {
	e.mu.Lock()
	defer e.mu.Unlock()
	clear(e.tokens)
}

// textOf is all of a grant that decides which token is fetched.
func textOf(g *credentials.Grant) string {
	return fmt.Sprintf("%q", []string{
		g.Name, g.TokenEndpoint, fmt.Sprint(g.Exchange), g.WorkloadAPI, g.SubjectKey, g.SVIDAudience, g.AssertionType,
		g.ClientID, g.Audience, fmt.Sprintf("%q", g.Scopes), g.TTL.String(),
	})
}
