package gateway

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"sync"
	"time"

	grants "github.com/splitpod/splitpod/cmd/supervisor-network/internal/inject/credentials"
	"github.com/splitpod/splitpod/cmd/supervisor-network/internal/inject/secret"
)

// Bounds of tokens and their refreshes.
const (
	maxToken     = 16 << 10
	minRefresh   = time.Second
	maxRefresh   = 12 * time.Hour
	unknownUntil = 6 * time.Hour // the wait for a token that says no end
	refreshAgain = 10 * time.Second
)

// tokens holds the sandbox's token: that of a file, or one that a service account's was
// exchanged for, and what either was refreshed to. It is never written anywhere.
type tokens struct {
	file     string
	exchange func(ctx context.Context) (string, error) // nil: the file holds the sandbox's token itself
	renew    func(ctx context.Context) (string, error)
	hide     func(error) string
	log      *slog.Logger
	changed  chan struct{} // there is another one

	exchanging sync.Mutex // one at a time; locked before mu

	mu   sync.Mutex
	now  string // guarded by mu; empty: none yet
	last string // guarded by mu; the one before, which may still stand in an answer
	from string // guarded by mu; what the file held when it was read last
}

// current is the token to show. The file is read every time, so that a replaced one counts
// at once; one that cannot be read now does not take away what is known.
func (t *tokens) current(ctx context.Context) (string, error) {
	if t.exchange != nil {
		return t.exchanged(ctx)
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	text, err := readToken(t.file)
	if err != nil && t.now == "" {
		return "", err
	}
	if err == nil && text != t.from {
		t.from = text
		t.set(text)
	}
	return t.now, nil
}

// exchanged is the token that the service account's was exchanged for. Whoever asks for it
// waits for the gateway, and nobody else.
func (t *tokens) exchanged(ctx context.Context) (string, error) {
	t.exchanging.Lock()
	defer t.exchanging.Unlock()
	t.mu.Lock()
	now := t.now
	t.mu.Unlock()
	if now != "" {
		return now, nil
	}
	account, err := readToken(t.file)
	if err != nil {
		return "", err
	}
	t.mu.Lock()
	t.from = account
	t.mu.Unlock()
	token, err := t.exchange(context.WithValue(ctx, shownKey{}, account))
	if err == nil {
		err = usable(token)
	}
	if err != nil {
		return "", fmt.Errorf("exchange the service account's token: %w", err)
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	t.set(token)
	return token, nil
}

// set takes another token. Preconditions: mu is held.
func (t *tokens) set(token string) {
	t.last, t.now = t.now, token
	select {
	case t.changed <- struct{}{}:
	default:
	}
}

// refused forgets a token that was exchanged for, because the gateway does not take it.
func (t *tokens) refused() {
	if t.exchange == nil {
		return
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.now != "" {
		t.last, t.now = t.now, ""
	}
}

// without is a text in which no token stands.
func (t *tokens) without(text string) string {
	t.mu.Lock()
	defer t.mu.Unlock()
	for _, token := range []string{t.now, t.last, t.from} {
		if token != "" {
			text = strings.ReplaceAll(text, token, "REDACTED")
		}
	}
	return text
}

// keep refreshes the token in time until ctx ends.
func (t *tokens) keep(ctx context.Context) {
	said := ""
	for {
		t.mu.Lock()
		token := t.now
		t.mu.Unlock()
		wait := maxRefresh
		if token != "" {
			wait = refreshIn(token, time.Now())
		}
		due := time.NewTimer(wait)
		select {
		case <-ctx.Done():
			due.Stop()
			return
		case <-t.changed:
			due.Stop()
			continue
		case <-due.C:
		}
		for token != "" {
			err := t.refresh(ctx, token)
			if err == nil {
				said = ""
				break
			}
			if text := t.hide(err); text != said && ctx.Err() == nil {
				said = text
				t.log.Warn("the gateway's token is not refreshed; it is tried again", slog.String("error", text))
			}
			if !sleep(ctx, refreshAgain) {
				return
			}
		}
	}
}

// refresh has the gateway give another token for one, unless there is another already.
func (t *tokens) refresh(ctx context.Context, old string) error {
	t.mu.Lock()
	replaced := t.now != old
	t.mu.Unlock()
	if replaced {
		return nil // by the file, or forgotten
	}
	token, err := t.renew(ctx)
	if err == nil {
		err = usable(token)
	}
	if err != nil {
		return err
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.now == old {
		t.last, t.now = old, token
	}
	return nil
}

// refreshIn is how long a token is used until it is refreshed: most of its time, and more by
// a little that differs from one token to the other.
func refreshIn(token string, now time.Time) time.Duration {
	wait := unknownUntil
	if end, err := grants.TokenExpiry(token); err == nil { // the gateway judges its tokens, not this daemon
		wait = end.Sub(now) / 10 * 8 // in this order, which no far end overflows
	}
	wait = min(max(wait, minRefresh), maxRefresh)
	return wait + wait*time.Duration(len(token)%10)/100
}

// readToken reads a file of one token. The error does not repeat what it holds.
func readToken(file string) (string, error) {
	f, err := secret.Read(file)
	if err != nil {
		return "", fmt.Errorf("the gateway's token: %w", err)
	}
	text := strings.TrimSpace(f.Value.Expose())
	if err := usable(text); err != nil {
		return "", fmt.Errorf("the gateway's token in %s: %w", file, err)
	}
	return text, nil
}

var errToken = errors.New("say one token of visible ASCII characters, 16 KiB at most")

func usable(token string) error {
	if token == "" || len(token) > maxToken || strings.ContainsFunc(token, func(c rune) bool { return c <= ' ' || c > '~' }) {
		return errToken
	}
	return nil
}

// shownKey is the context's key of the token that a call shows in the place of the current.
type shownKey struct{}

// bearer shows the token with every call (credentials.PerRPCCredentials).
type bearer struct {
	tokens *tokens
	secure bool
}

// GetRequestMetadata implements credentials.PerRPCCredentials.
func (b bearer) GetRequestMetadata(ctx context.Context, _ ...string) (map[string]string, error) {
	token, ok := ctx.Value(shownKey{}).(string)
	if !ok {
		var err error
		if token, err = b.tokens.current(ctx); err != nil {
			return nil, err
		}
	}
	return map[string]string{"authorization": "Bearer " + token}, nil
}

// RequireTransportSecurity implements credentials.PerRPCCredentials.
func (b bearer) RequireTransportSecurity() bool { return b.secure }
