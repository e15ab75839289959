package exchange

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"mime"
	"net/http"
	"net/url"
	"strings"
	"time"

	"github.com/splitpod/splitpod/cmd/supervisor-network/internal/inject/credentials"
	"github.com/splitpod/splitpod/cmd/supervisor-network/internal/inject/secret"
)

// What the workload is told. The rest is in the log.
var (
	errInterrupted = errors.New("the request ended before")
	errIdentity    = errors.New("the identity is not available")
	errUnreachable = errors.New("the token endpoint does not answer")
	errAnswer      = errors.New("the token endpoint's answer is not usable")
	errRefused     = errors.New("the token endpoint refuses")
)

const (
	jwtBearer     = "urn:ietf:params:oauth:client-assertion-type:jwt-bearer"
	tokenExchange = "urn:ietf:params:oauth:grant-type:token-exchange"
	jwtToken      = "urn:ietf:params:oauth:token-type:jwt"
)

// fetch gets one token. A failure is logged.
func (e *Exchange) fetch(ctx context.Context, s *credentials.Snapshot, g *credentials.Grant) held {
	fail := func(public error, cause string) held {
		e.cfg.Log.Warn("token grant failed", slog.String("grant", g.Name), slog.String("problem", public.Error()), slog.String("cause", cause))
		return held{err: public, until: e.cfg.Now().Add(afterError)}
	}
	identity, err := e.identity(ctx, s, g)
	if err != nil {
		return fail(errIdentity, clip(err.Error()))
	}
	asked := e.cfg.Now()
	status, body, err := e.post(ctx, g.TokenEndpoint, formOf(g, identity))
	switch {
	case errors.Is(err, errTooLong):
		return fail(errAnswer, err.Error())
	case err != nil:
		return fail(errUnreachable, clip(hide(err.Error(), identity)))
	case status != http.StatusOK:
		return fail(errRefused, fmt.Sprintf("status %d%s", status, refusal(body, identity)))
	}
	token, lifetime, err := answer(body, g)
	if err != nil {
		return fail(errAnswer, err.Error())
	}
	if e.cfg.Granted != nil {
		e.cfg.Granted(Grant{g.Name, g.TokenEndpoint, e.cfg.Now().Sub(asked)})
	}
	return held{token: token, until: asked.Add(lifetime)}
}

// formOf is the request for a token.
func formOf(g *credentials.Grant, identity secret.Value) url.Values {
	form := url.Values{}
	set := func(name, value string) {
		if value != "" {
			form.Set(name, value)
		}
	}
	if g.Exchange {
		set("grant_type", tokenExchange)
		set("subject_token", identity.Expose())
		set("subject_token_type", jwtToken)
	} else {
		set("grant_type", "client_credentials")
		form.Set("client_assertion_type", jwtBearer)
		set("client_assertion_type", g.AssertionType)
		set("client_assertion", identity.Expose())
	}
	set("client_id", g.ClientID)
	set("audience", g.Audience)
	set("scope", strings.Join(g.Scopes, " "))
	return form
}

var errTooLong = fmt.Errorf("it is longer than %d bytes", maxResponse)

// post sends a form and reads a bounded answer.
func (e *Exchange) post(ctx context.Context, endpoint string, form url.Values) (int, []byte, error) {
	if problem := credentials.CheckEndpoint(endpoint); problem != "" {
		return 0, nil, errors.New(problem)
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, endpoint, strings.NewReader(form.Encode()))
	if err != nil {
		return 0, nil, err
	}
	req.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	req.Header.Set("Accept", "application/json")
	req.Header.Set("User-Agent", "splitpod")
	resp, err := e.client.Do(req)
	if err != nil {
		return 0, nil, err
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(io.LimitReader(resp.Body, maxResponse+1))
	switch {
	case err != nil:
		return 0, nil, err
	case len(body) > maxResponse:
		return 0, nil, errTooLong
	case resp.StatusCode == http.StatusOK && !isJSON(resp.Header.Get("Content-Type")):
		return 0, nil, errors.New("the answer is not application/json")
	}
	return resp.StatusCode, body, nil
}

func isJSON(contentType string) bool {
	media, _, err := mime.ParseMediaType(contentType)
	return err == nil && (media == "application/json" || strings.HasSuffix(media, "+json"))
}

// answer reads a token and how long it may be used.
func answer(body []byte, g *credentials.Grant) (secret.Value, time.Duration, error) {
	var a struct {
		Token   string       `json:"access_token"`
		Type    string       `json:"token_type"`
		Expires *json.Number `json:"expires_in"`
	}
	if err := json.Unmarshal(body, &a); err != nil {
		return secret.Value{}, 0, errors.New("it is not the JSON of a token")
	}
	switch {
	case !isToken68(a.Token):
		return secret.Value{}, 0, errors.New("access_token is missing, too long or no token68")
	case a.Type != "" && !strings.EqualFold(a.Type, "bearer") && !(g.Exchange && strings.EqualFold(a.Type, "n_a")):
		return secret.Value{}, 0, errors.New("token_type is not Bearer")
	}
	life, err := lifetime(a.Expires, g.TTL)
	return secret.New(a.Token), life, err
}

// lifetime is how long a token is kept: as the grant says, but not beyond what the
// answer says.
func lifetime(expires *json.Number, ttl time.Duration) (time.Duration, error) {
	life := noLifetime
	if expires != nil {
		seconds, err := expires.Float64()
		if err != nil || seconds < 0 {
			return 0, errors.New("expires_in is no number of seconds")
		}
		life = time.Duration(min(seconds, maxLifetime.Seconds()) * float64(time.Second))
	}
	if ttl > 0 && (expires == nil || ttl < life) {
		life = ttl
	}
	return max(life-early, minLifetime), nil
}

// isToken68 reports whether a token may stand in a header field.
func isToken68(s string) bool {
	trimmed := strings.TrimRight(s, "=")
	if trimmed == "" || len(s) > maxToken {
		return false
	}
	for i := range len(trimmed) {
		c := trimmed[i]
		if !(c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || c >= '0' && c <= '9' || strings.IndexByte("-._~+/", c) >= 0) {
			return false
		}
	}
	return true
}

// refusal is what an error answer says, for the log.
func refusal(body []byte, identity secret.Value) string {
	var a struct {
		Error       string `json:"error"`
		Description string `json:"error_description"`
	}
	if json.Unmarshal(body, &a) != nil || a.Error == "" {
		return ""
	}
	return ": " + clip(hide(a.Error, identity)) + ": " + clip(hide(a.Description, identity))
}

// hide takes the identity, or what could be a part of it, out of a text.
func hide(text string, identity secret.Value) string {
	for _, part := range append([]string{identity.Expose()}, strings.Split(identity.Expose(), ".")...) {
		if len(part) >= 8 {
			text = strings.ReplaceAll(text, part, "REDACTED")
			text = strings.ReplaceAll(text, url.QueryEscape(part), "REDACTED")
		}
	}
	return text
}

// clip shortens what others wrote, and takes what cannot be seen out of it.
func clip(s string) string {
	return strings.Map(func(c rune) rune {
		if c < ' ' || c >= 0x7f && c < 0xa0 {
			return '?'
		}
		return c
	}, strings.ToValidUTF8(s[:min(len(s), 256)], "?"))
}
