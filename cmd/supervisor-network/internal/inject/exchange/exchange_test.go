package exchange

import (
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/spiffe/go-spiffe/v2/proto/spiffe/workload"
	"google.golang.org/grpc"
	"google.golang.org/grpc/metadata"

	"github.com/splitpod/splitpod/cmd/supervisor-network/internal/decide"
	"github.com/splitpod/splitpod/cmd/supervisor-network/internal/http1"
	"github.com/splitpod/splitpod/cmd/supervisor-network/internal/inject"
	"github.com/splitpod/splitpod/cmd/supervisor-network/internal/inject/credentials"
	"github.com/splitpod/splitpod/cmd/supervisor-network/internal/inject/secret"
	"github.com/splitpod/splitpod/pkg/core"
	"github.com/splitpod/splitpod/pkg/core/policy"
	"github.com/splitpod/splitpod/test/jump"
)

// permit makes a real Permit: there is no other way to one.
func permit(t testing.TB, options ...string) decide.Permit {
	t.Helper()
	text := fmt.Sprintf("version: 1\nnetwork_policies:\n  a:\n    endpoints: [{host: api.test, port: 443%s}]\n    binaries: [{path: /bin/a}]\n", strings.Join(options, ""))
	doc, _, err := policy.Parse("p", []byte(text))
	if err != nil {
		t.Fatal(err)
	}
	snapshot, err := decide.Compile(t.Context(), doc, decide.Options{Generation: 1, IgnoreBinaries: true})
	if err != nil {
		t.Fatal(err)
	}
	p, denial := snapshot.Connection(t.Context(), decide.Question{Who: &core.Identity{}, Host: "api.test", Port: 443})
	if denial != nil {
		t.Fatal(denial)
	}
	return p
}

// workloadAPI is a SPIFFE Workload API on a Unix socket that signs JWT-SVIDs.
type workloadAPI struct {
	workload.UnimplementedSpiffeWorkloadAPIServer
	key     *ecdsa.PrivateKey
	address string
	fail    atomic.Bool
	calls   atomic.Int32
}

func newWorkloadAPI(t *testing.T) *workloadAPI {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	dir, err := os.MkdirTemp("", "w") // short: a socket's path is
	if err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(dir, "s")
	l, err := net.Listen("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	w := &workloadAPI{key: key, address: "unix://" + path}
	server := grpc.NewServer()
	workload.RegisterSpiffeWorkloadAPIServer(server, w)
	go func() { _ = server.Serve(l) }()
	t.Cleanup(func() { server.Stop(); _ = os.RemoveAll(dir) })
	return w
}

func (w *workloadAPI) FetchJWTSVID(ctx context.Context, r *workload.JWTSVIDRequest) (*workload.JWTSVIDResponse, error) {
	w.calls.Add(1)
	if md, _ := metadata.FromIncomingContext(ctx); len(md["workload.spiffe.io"]) == 0 {
		return nil, errors.New("the security header is missing")
	}
	if w.fail.Load() {
		return nil, errors.New("no identity issued")
	}
	head := base64.RawURLEncoding.EncodeToString([]byte(`{"alg":"ES256","typ":"JWT"}`))
	claims, _ := json.Marshal(map[string]any{"sub": "spiffe://test/agent", "aud": r.Audience, "exp": time.Now().Add(time.Hour).Unix()})
	text := head + "." + base64.RawURLEncoding.EncodeToString(claims)
	sum := sha256.Sum256([]byte(text))
	a, b, err := ecdsa.Sign(rand.Reader, w.key, sum[:])
	if err != nil {
		return nil, err
	}
	signature := append(a.FillBytes(make([]byte, 32)), b.FillBytes(make([]byte, 32))...)
	token := text + "." + base64.RawURLEncoding.EncodeToString(signature)
	return &workload.JWTSVIDResponse{Svids: []*workload.JWTSVID{{SpiffeId: "spiffe://test/agent", Svid: token}}}, nil
}

// endpoint is a token endpoint that records what it is asked.
type endpoint struct {
	*httptest.Server
	mu     sync.Mutex
	forms  []url.Values
	answer func(w http.ResponseWriter, r *http.Request)
}

func newEndpoint(t *testing.T, answer func(http.ResponseWriter, *http.Request)) *endpoint {
	t.Helper()
	e := &endpoint{answer: answer}
	e.Server = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		_ = r.ParseForm()
		e.mu.Lock()
		e.forms = append(e.forms, r.PostForm)
		answer := e.answer
		e.mu.Unlock()
		answer(w, r)
	}))
	t.Cleanup(e.Close)
	return e
}

func (e *endpoint) asked() int {
	e.mu.Lock()
	defer e.mu.Unlock()
	return len(e.forms)
}

func give(status int, body string) func(http.ResponseWriter, *http.Request) {
	return func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "application/json")
		w.WriteHeader(status)
		_, _ = io.WriteString(w, body)
	}
}

// bench is everything that one grant needs.
type bench struct {
	*Exchange
	now     atomic.Int64
	log     bytes.Buffer
	logMu   sync.Mutex
	permit  decide.Permit
	granted []Grant // guarded by logMu
}

func (b *bench) Write(p []byte) (int, error) {
	b.logMu.Lock()
	defer b.logMu.Unlock()
	return b.log.Write(p)
}

func (b *bench) logged() string {
	b.logMu.Lock()
	defer b.logMu.Unlock()
	return b.log.String()
}

func (b *bench) grant(g Grant) {
	b.logMu.Lock()
	defer b.logMu.Unlock()
	b.granted = append(b.granted, g)
}

func (b *bench) grants() []Grant {
	b.logMu.Lock()
	defer b.logMu.Unlock()
	return b.granted
}

func newBench(t *testing.T) *bench {
	t.Helper()
	b := &bench{permit: permit(t)}
	b.now.Store(time.Now().UnixNano())
	dialer := &net.Dialer{}
	b.Exchange = New(Config{Dial: dialer.DialContext, Log: slog.New(slog.NewJSONHandler(b, nil)), Now: func() time.Time { return time.Unix(0, b.now.Load()) }, Granted: b.grant})
	t.Cleanup(b.Close)
	return b
}

func (b *bench) pass(d time.Duration) { b.now.Add(int64(d)) }

// apply is the field that was set, or the refusal.
func (b *bench) apply(t *testing.T, s *credentials.Snapshot, g *credentials.Grant) string {
	t.Helper()
	got, err := b.Apply(t.Context(), b.permit, s, g, http1.Fields{{Name: "authorization", Value: "Bearer dummy"}, {Name: "X-Other", Value: "1"}})
	if err != nil {
		e, ok := errors.AsType[*inject.Error](err)
		if !ok || got.Fields != nil || got.Echo.Value.Expose() != "" {
			t.Fatalf("%T beside %v", err, got)
		}
		return fmt.Sprintf("%d %s: %s", e.Status, e.Reason, e.Detail)
	}
	if got.Use.Key != "grant g" {
		t.Errorf("used %+v", got.Use)
	}
	last := got.Fields[len(got.Fields)-1]
	if _, n := got.Fields.Get(last.Name); n != 1 {
		t.Errorf("the field stands there %d times", n)
	}
	if !strings.HasSuffix(last.Value, got.Echo.Value.Expose()) || got.Echo.Value.Expose() == "" {
		t.Error("the token is not named for the response")
	}
	return last.Name + ": " + last.Value
}

func failed(why string) string {
	return "502 token_grant_failed: no token could be had for the grant g (" + why + ")"
}

func TestAWorkloadIdentityBecomesABearer(t *testing.T) {
	api := newWorkloadAPI(t)
	e := newEndpoint(t, give(200, `{"access_token":"tok-1","token_type":"Bearer","expires_in":600}`))
	b := newBench(t)
	g := &credentials.Grant{Name: "g", TokenEndpoint: e.URL + "/realms/shop/token", WorkloadAPI: api.address, Audience: "orders", Scopes: []string{"read", "write"}, ClientID: "agent"}
	if got := b.apply(t, nil, g); got != "Authorization: Bearer tok-1" {
		t.Fatal(got, b.logged())
	}
	if got := b.apply(t, nil, g); got != "Authorization: Bearer tok-1" || e.asked() != 1 || api.calls.Load() != 1 {
		t.Errorf("the second: %s, %d requests", got, e.asked())
	}
	form := e.forms[0]
	claims := strings.Split(form.Get("client_assertion"), ".")
	if len(claims) != 3 {
		t.Fatalf("assertion %q", form.Get("client_assertion"))
	}
	text, _ := base64.RawURLEncoding.DecodeString(claims[1])
	if !strings.Contains(string(text), `"aud":["`+e.URL+`/realms/shop"]`) {
		t.Errorf("claims %s", text)
	}
	form.Del("client_assertion")
	want := url.Values{"grant_type": {"client_credentials"}, "client_assertion_type": {jwtBearer}, "client_id": {"agent"}, "audience": {"orders"}, "scope": {"read write"}}
	if diff := cmp.Diff(want, form); diff != "" {
		t.Error(diff)
	}
	b.pass(569 * time.Second)
	if b.apply(t, nil, g); e.asked() != 1 {
		t.Error("it is fetched again before its end")
	}
	b.pass(2 * time.Second)
	if b.apply(t, nil, g); e.asked() != 2 {
		t.Error("it is used 30 s before its end")
	}
}

// subject makes a Snapshot with one key, whose value is the identity.
func subject(t *testing.T, value string) *credentials.Snapshot {
	t.Helper()
	dir := t.TempDir()
	for name, content := range map[string]string{"token": value, "c.yaml": "version: 1\ncredentials:\n  SA: {file: " + dir + "/token, environment: false}\n"} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	s, _, err := credentials.Open(credentials.Config{File: filepath.Join(dir, "c.yaml"), Log: slog.New(slog.DiscardHandler)})
	if err != nil {
		t.Fatal(err)
	}
	return s.Current()
}

func TestATokenIsExchanged(t *testing.T) {
	e := newEndpoint(t, give(200, `{"access_token":"abc","issued_token_type":"urn:ietf:params:oauth:token-type:access_token","token_type":"N_A"}`))
	b := newBench(t)
	g := &credentials.Grant{Name: "g", TokenEndpoint: e.URL, Exchange: true, SubjectKey: "SA", Header: "X-Token"}
	if got := b.apply(t, subject(t, "projected-token"), g); got != "X-Token: abc" {
		t.Fatal(got, b.logged())
	}
	want := url.Values{"grant_type": {tokenExchange}, "subject_token": {"projected-token"}, "subject_token_type": {jwtToken}}
	if diff := cmp.Diff(want, e.forms[0]); diff != "" {
		t.Error(diff)
	}
	b.pass(271 * time.Second)
	if b.apply(t, subject(t, "projected-token"), g); e.asked() != 2 {
		t.Error("a token without a lifetime is kept longer than 270 s")
	}
}

func TestAnswersThatAreNotUsed(t *testing.T) {
	s := subject(t, "identity-canary-93.identity-canary-94")
	ok := func(body string) func(http.ResponseWriter, *http.Request) { return give(200, body) }
	for _, c := range []struct {
		name   string
		answer func(http.ResponseWriter, *http.Request)
		want   string
		logged string
	}{
		{"a refusal", give(401, `{"error":"invalid_client","error_description":"`+strings.Repeat("x", 400)+`"}`), failed("the token endpoint refuses"), "status 401: invalid_client: " + strings.Repeat("x", 256) + `"`},
		{"a refusal that repeats the identity", give(400, `{"error":"invalid_request","error_description":"bad identity-canary-93.identity-canary-94"}`), failed("the token endpoint refuses"), "bad REDACTED"},
		{"a refusal that repeats a part of it", give(400, `{"error":"invalid_request","error_description":"bad identity-canary-94!"}`), failed("the token endpoint refuses"), "bad REDACTED!"},
		{"a redirect", func(w http.ResponseWriter, r *http.Request) {
			http.Redirect(w, r, "https://evil.test/", http.StatusTemporaryRedirect)
		}, failed("the token endpoint refuses"), "status 307"},
		{"no content", give(204, ""), failed("the token endpoint refuses"), "status 204"},
		{"HTML", func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Content-Type", "text/html")
			_, _ = io.WriteString(w, "<html>")
		}, failed("the token endpoint does not answer"), "not application/json"},
		{"no token", ok(`{}`), failed("the token endpoint's answer is not usable"), "access_token"},
		{"a token with a space", ok(`{"access_token":"a b"}`), failed("the token endpoint's answer is not usable"), "token68"},
		{"a token with a line end", ok(`{"access_token":"a\r\nX: y"}`), failed("the token endpoint's answer is not usable"), "token68"},
		{"a token of padding", ok(`{"access_token":"=="}`), failed("the token endpoint's answer is not usable"), "token68"},
		{"padding inside", ok(`{"access_token":"a=b"}`), failed("the token endpoint's answer is not usable"), "token68"},
		{"a longer token", ok(`{"access_token":"` + strings.Repeat("a", maxToken+1) + `"}`), failed("the token endpoint's answer is not usable"), "token68"},
		{"another type", ok(`{"access_token":"a","token_type":"mac"}`), failed("the token endpoint's answer is not usable"), "token_type"},
		{"a lifetime that is none", ok(`{"access_token":"a","expires_in":-1}`), failed("the token endpoint's answer is not usable"), "expires_in"},
		{"broken JSON", ok(`{"access_token":`), failed("the token endpoint's answer is not usable"), "JSON"},
		{"an endless answer", ok(`{"access_token":"a"}` + strings.Repeat(" ", maxResponse)), failed("the token endpoint's answer is not usable"), "longer than"},
		{"the longest token", ok(`{"access_token":"` + strings.Repeat("a", maxToken) + `"}`), "Authorization: Bearer " + strings.Repeat("a", maxToken), ""},
		{"every character", ok(`{"access_token":"aZ09-._~+/==","token_type":"bearer","expires_in":"60"}`), "Authorization: Bearer aZ09-._~+/==", ""},
		{"the longest answer", ok(`{"access_token":"a"}` + strings.Repeat(" ", maxResponse-20)), "Authorization: Bearer a", ""},
	} {
		t.Run(c.name, func(t *testing.T) {
			e := newEndpoint(t, c.answer)
			b := newBench(t)
			g := &credentials.Grant{Name: "g", TokenEndpoint: e.URL, SubjectKey: "SA"}
			got := b.apply(t, s, g)
			if got != c.want || !strings.Contains(b.logged(), c.logged) {
				t.Errorf("%.300s\nlogged %.600s", got, b.logged())
			}
			if strings.Contains(got+b.logged(), "canary") {
				t.Errorf("the identity is shown: %s %s", got, b.logged())
			}
			if again := b.apply(t, s, g); again != got || e.asked() != 1 {
				t.Errorf("asked %d times at once: %.200s", e.asked(), again)
			}
			want := []Grant{{Name: "g", Endpoint: e.URL}}
			if strings.HasPrefix(c.want, "502") {
				want = nil
			}
			if told := b.grants(); !slices.Equal(told, want) {
				t.Errorf("told of %+v, want %+v", told, want)
			}
			if b.pass(afterError); strings.HasPrefix(c.want, "502") {
				if b.apply(t, s, g); e.asked() != 2 {
					t.Errorf("asked %d times later", e.asked())
				}
			}
		})
	}
}

func TestLifetimes(t *testing.T) {
	number := func(s string) *json.Number { n := json.Number(s); return &n }
	for _, c := range []struct {
		name    string
		expires *json.Number
		ttl     time.Duration
		want    time.Duration
	}{
		{"unknown", nil, 0, 270 * time.Second},
		{"stated", number("600"), 0, 570 * time.Second},
		{"an hour at most", number("86400"), 0, 3570 * time.Second},
		{"beyond all numbers", number("1e300"), 0, 3570 * time.Second},
		{"short", number("31"), 0, time.Second},
		{"shorter", number("5"), 0, time.Second},
		{"none", number("0"), 0, time.Second},
		{"the grant's own", nil, 10 * time.Minute, 570 * time.Second},
		{"the grant's own is shorter", number("600"), time.Minute, 30 * time.Second},
		{"the grant's own is longer", number("60"), time.Hour, 30 * time.Second},
	} {
		if got, err := lifetime(c.expires, c.ttl); err != nil || got != c.want {
			t.Errorf("%s: %v, %v", c.name, got, err)
		}
	}
	for _, s := range []string{"-1", "x"} {
		if _, err := lifetime(number(s), 0); err == nil {
			t.Errorf("%s is a lifetime", s)
		}
	}
}

func TestManyRequestsAreOneFetch(t *testing.T) {
	const n = 50
	s := subject(t, "identity")
	arrived := make(chan struct{})
	release := make(chan struct{})
	e := newEndpoint(t, func(w http.ResponseWriter, r *http.Request) {
		close(arrived)
		<-release
		give(200, `{"access_token":"once"}`)(w, r)
	})
	b := newBench(t)
	g := &credentials.Grant{Name: "g", TokenEndpoint: e.URL, SubjectKey: "SA"}
	// The one who begins goes away; the others still get the token.
	ctx, cancel := context.WithCancel(t.Context())
	gone := make(chan error, 1)
	go func() {
		_, err := b.Apply(ctx, b.permit, s, g, nil)
		gone <- err
	}()
	<-arrived
	cancel()
	if err := <-gone; err == nil {
		t.Error("a request that has ended gets a token")
	}
	results := make(chan string, n)
	for range n {
		go func() {
			got, err := b.Apply(context.Background(), b.permit, s, g, nil)
			if err != nil {
				results <- err.Error()
				return
			}
			results <- got.Fields[0].Value
		}()
	}
	close(release)
	for range n {
		if got := <-results; got != "Bearer once" {
			t.Error(got)
		}
	}
	if e.asked() != 1 {
		t.Errorf("asked %d times", e.asked())
	}
}

func TestWhatCannotBeProvedOrPermittedIsRefused(t *testing.T) {
	api := newWorkloadAPI(t)
	api.fail.Store(true)
	e := newEndpoint(t, give(200, `{"access_token":"a"}`))
	b := newBench(t)
	g := &credentials.Grant{Name: "g", TokenEndpoint: e.URL, WorkloadAPI: api.address}
	if got := b.apply(t, nil, g); got != failed("the identity is not available") {
		t.Error(got)
	}
	if got := b.apply(t, nil, &credentials.Grant{Name: "g", TokenEndpoint: e.URL, SubjectKey: "NONE"}); got != failed("the identity is not available") {
		t.Error(got)
	}
	for _, p := range []decide.Permit{{}, permit(t, ", tls: skip")} {
		if _, err := b.Apply(t.Context(), p, nil, g, nil); err == nil {
			t.Error("applied without a decision")
		}
	}
	if e.asked() != 0 {
		t.Errorf("asked %d times", e.asked())
	}
	api.fail.Store(false)
	b.pass(afterError)
	if got := b.apply(t, nil, g); got != "Authorization: Bearer a" {
		t.Error(got)
	}
	plain := &credentials.Grant{Name: "g", TokenEndpoint: "http://sso.example.com/", SubjectKey: "SA"}
	if got := b.apply(t, subject(t, "x"), plain); got != failed("the token endpoint does not answer") {
		t.Error(got)
	}
}

func TestTokensAreNotSharedBetweenGrants(t *testing.T) {
	var n atomic.Int32
	e := newEndpoint(t, func(w http.ResponseWriter, r *http.Request) {
		give(200, fmt.Sprintf(`{"access_token":"t%d"}`, n.Add(1)))(w, r)
	})
	b := newBench(t)
	s := subject(t, "identity")
	base := credentials.Grant{Name: "g", TokenEndpoint: e.URL, SubjectKey: "SA"}
	other, scoped, split := base, base, base
	other.Audience, scoped.Scopes, split.Scopes = "a", []string{"a b"}, []string{"a", "b"}
	for i, g := range []*credentials.Grant{&base, &other, &scoped, &split, &base} {
		want := fmt.Sprintf("Authorization: Bearer t%d", i%4+1)
		if got := b.apply(t, s, g); got != want {
			t.Errorf("%d: %s", i, got)
		}
	}
	b.Forget()
	if got := b.apply(t, s, &base); got != "Authorization: Bearer t5" {
		t.Error(got)
	}
	for i := range maxEntries + 10 {
		b.keep(key{grant: fmt.Sprint(i)}, held{})
	}
	if len(b.tokens) > maxEntries {
		t.Errorf("%d tokens are held", len(b.tokens))
	}
}

// TestATokenOfAnIdentityThatWasReplacedIsNotUsed, though it came only afterwards.
func TestATokenOfAnIdentityThatWasReplacedIsNotUsed(t *testing.T) {
	asked, answer := make(chan bool), make(chan bool)
	e := newEndpoint(t, func(w http.ResponseWriter, r *http.Request) {
		asked <- true
		<-answer
		give(200, fmt.Sprintf(`{"access_token":"for-%s"}`, r.PostForm.Get("client_assertion")))(w, r)
	})
	b := newBench(t)
	g := &credentials.Grant{Name: "g", TokenEndpoint: e.URL, SubjectKey: "SA"}
	got := make(chan string)
	ask := func(s *credentials.Snapshot) { got <- b.apply(t, s, g) }
	before, after := subject(t, "before"), subject(t, "after")
	go ask(before)
	<-asked
	b.Forget()
	go ask(after)
	<-asked // and does not wait for the one before it
	answer <- true
	answer <- true
	if one, other := <-got, <-got; one == other {
		t.Errorf("both get %s", one)
	}
	go ask(after)
	if again := <-got; again != "Authorization: Bearer for-after" {
		t.Error(again)
	}
}

func TestTheAudienceOfARealm(t *testing.T) {
	for in, want := range map[string]string{
		"https://sso.test/realms/shop/protocol/openid-connect/token": "https://sso.test/realms/shop",
		"https://sso.test/auth/realms/shop":                          "https://sso.test/auth/realms/shop",
		"https://sso.test/realms/":                                   "https://sso.test/realms/",
		"https://sso.test/oauth/token":                               "https://sso.test/oauth/token",
	} {
		if got := audienceOf(in); got != want {
			t.Errorf("%s: %s", in, got)
		}
	}
}

func TestTheTokenEndpointIsVerified(t *testing.T) {
	server := httptest.NewTLSServer(http.HandlerFunc(give(200, `{"access_token":"a"}`)))
	server.Config.ErrorLog = slog.NewLogLogger(slog.DiscardHandler, slog.LevelError)
	defer server.Close()
	s := subject(t, "identity")
	g := &credentials.Grant{Name: "g", TokenEndpoint: server.URL, SubjectKey: "SA"}
	if got := newBench(t).apply(t, s, g); got != failed("the token endpoint does not answer") {
		t.Errorf("an unknown issuer: %s", got)
	}
	pool := x509.NewCertPool()
	pool.AddCert(server.Certificate())
	trusting := New(Config{Dial: (&net.Dialer{}).DialContext, TLS: &tls.Config{RootCAs: pool}, Log: slog.New(slog.DiscardHandler)})
	defer trusting.Close()
	got, err := trusting.Apply(t.Context(), permit(t), s, g, nil)
	if err != nil || got.Fields[0].Value != "Bearer a" {
		t.Errorf("a trusted one: %v", err)
	}
}

// A token lasts so many seconds, not until some hour of a clock that somebody sets.
func TestATokenIsOverByEitherClock(t *testing.T) {
	begun := time.Now()
	now := begun
	e := New(Config{Log: slog.New(slog.DiscardHandler), Now: func() time.Time { return now }})
	defer e.Close()
	e.keep(key{}, held{token: secret.New("t"), until: begun.Add(time.Minute)})
	for _, c := range []struct {
		name        string
		passed, set time.Duration
		want        bool
	}{
		{"within", 59 * time.Second, 0, true},
		{"set back, and the time has passed", time.Minute, -time.Hour, false},
		{"set back", time.Second, -time.Hour, true},
		{"a machine that slept", time.Second, time.Hour, false},
	} {
		now = jump.By(begun.Add(c.passed), c.set)
		if _, ok := e.held(key{}); ok != c.want {
			t.Errorf("%s: the token is used: %v", c.name, ok)
		}
	}
}
