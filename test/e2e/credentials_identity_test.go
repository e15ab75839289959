package e2e_test

import (
	"bufio"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math/big"
	"net"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/coder/websocket"
	"github.com/google/go-cmp/cmp"
	"github.com/spiffe/go-spiffe/v2/proto/spiffe/workload"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	grpccredentials "google.golang.org/grpc/credentials"
	pb "google.golang.org/grpc/interop/grpc_testing"
	grpcmetadata "google.golang.org/grpc/metadata"
	grpcstatus "google.golang.org/grpc/status"

	"github.com/splitpod/splitpod/test/world"
)

// workloadAPI is a SPIFFE Workload API on a Unix socket that signs JWT-SVIDs.
type workloadAPI struct {
	workload.UnimplementedSpiffeWorkloadAPIServer
	key     *ecdsa.PrivateKey
	address string
	fail    atomic.Bool

	mu     sync.Mutex
	issued []string
}

func newWorkloadAPI(t *testing.T) *workloadAPI {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	must(t, err)
	dir, err := os.MkdirTemp("", "w") // short: a socket's path is
	must(t, err)
	must(t, os.Chmod(dir, 0o755))
	l, err := net.Listen("unix", dir+"/s")
	must(t, err)
	must(t, os.Chmod(dir+"/s", 0o777))
	w := &workloadAPI{key: key, address: "unix://" + dir + "/s"}
	server := grpc.NewServer()
	workload.RegisterSpiffeWorkloadAPIServer(server, w)
	go func() { _ = server.Serve(l) }()
	t.Cleanup(func() { server.Stop(); _ = os.RemoveAll(dir) })
	return w
}

func (w *workloadAPI) FetchJWTSVID(ctx context.Context, r *workload.JWTSVIDRequest) (*workload.JWTSVIDResponse, error) {
	if md, _ := grpcmetadata.FromIncomingContext(ctx); len(md["workload.spiffe.io"]) == 0 || w.fail.Load() {
		return nil, errors.New("no identity issued")
	}
	claims, _ := json.Marshal(map[string]any{"sub": "spiffe://demo.test/agent", "aud": r.Audience, "exp": time.Now().Add(time.Hour).Unix()})
	enc := base64.RawURLEncoding
	text := enc.EncodeToString([]byte(`{"alg":"ES256","typ":"JWT"}`)) + "." + enc.EncodeToString(claims)
	sum := sha256.Sum256([]byte(text))
	a, b, err := ecdsa.Sign(rand.Reader, w.key, sum[:])
	if err != nil {
		return nil, err
	}
	svid := text + "." + enc.EncodeToString(append(a.FillBytes(make([]byte, 32)), b.FillBytes(make([]byte, 32))...))
	w.mu.Lock()
	defer w.mu.Unlock()
	w.issued = append(w.issued, svid)
	return &workload.JWTSVIDResponse{Svids: []*workload.JWTSVID{{SpiffeId: "spiffe://demo.test/agent", Svid: svid}}}, nil
}

// svids are those issued so far.
func (w *workloadAPI) svids() []string {
	w.mu.Lock()
	defer w.mu.Unlock()
	return append([]string(nil), w.issued...)
}

// audience is whom a JWT-SVID is for, if its signature is good.
func (w *workloadAPI) audience(svid string) string {
	part := strings.Split(svid, ".")
	if len(part) != 3 {
		return "no JWT"
	}
	claims, _ := base64.RawURLEncoding.DecodeString(part[1])
	signature, _ := base64.RawURLEncoding.DecodeString(part[2])
	sum := sha256.Sum256([]byte(part[0] + "." + part[1]))
	if len(signature) != 64 || !ecdsa.Verify(&w.key.PublicKey, sum[:], new(big.Int).SetBytes(signature[:32]), new(big.Int).SetBytes(signature[32:])) {
		return "a bad signature"
	}
	var c struct{ Aud []string }
	_ = json.Unmarshal(claims, &c)
	return strings.Join(c.Aud, ",")
}

// tokenEndpoint gives numbered tokens to the right identity, named after the path, and
// says how it was asked.
type tokenEndpoint struct {
	*httptest.Server
	api     *workloadAPI
	expires atomic.Int32
	hold    chan struct{} // until it is closed nobody gets an answer
	mu      sync.Mutex
	asked   map[string][]url.Values // by path
}

func newTokenEndpoint(t *testing.T, api *workloadAPI) *tokenEndpoint {
	e := &tokenEndpoint{api: api, hold: make(chan struct{}), asked: map[string][]url.Values{}}
	e.expires.Store(600)
	e.Server = httptest.NewServer(e)
	t.Cleanup(e.Close)
	return e
}

func (e *tokenEndpoint) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	_ = r.ParseForm()
	e.mu.Lock()
	e.asked[r.URL.Path] = append(e.asked[r.URL.Path], r.PostForm)
	n := len(e.asked[r.URL.Path])
	e.mu.Unlock()
	<-e.hold
	w.Header().Set("Content-Type", "application/json")
	_ = json.NewEncoder(w).Encode(map[string]any{"access_token": tokenOf(r.URL.Path, n), "token_type": "Bearer", "expires_in": e.expires.Load()})
}

// of is how often, and how last, a path was asked.
func (e *tokenEndpoint) of(path string) (int, url.Values) {
	e.mu.Lock()
	defer e.mu.Unlock()
	all := e.asked[path]
	if len(all) == 0 {
		return 0, nil
	}
	return len(all), all[len(all)-1]
}

// tokenOf is the n-th token of a path: one that can be recognised wherever it is.
func tokenOf(path string, n int) string {
	sum := sha256.Sum256([]byte(path))
	return fmt.Sprintf("REALtoken%x.%d", sum[:8], n)
}

// grpcClient is a client of the gRPC test service through the proxy.
func (p *pair) grpcClient(t *testing.T, port string) pb.TestServiceClient {
	t.Helper()
	trust := p.trust()
	trust.ServerName = "" // grpc would take it for the authority, without the port
	conn, err := grpc.NewClient("passthrough:///api.demo.test:"+port, grpc.WithTransportCredentials(grpccredentials.NewTLS(trust)), grpc.WithAuthority("api.demo.test:"+port),
		grpc.WithContextDialer(func(_ context.Context, address string) (net.Conn, error) {
			c, status := tunnel(t, address)
			if !strings.HasPrefix(status, "200") {
				return nil, fmt.Errorf("tunnel: %s", status)
			}
			return c, nil
		}))
	must(t, err)
	t.Cleanup(func() { conn.Close() })
	return pb.NewTestServiceClient(conn)
}

// grpcOrigin serves the gRPC test service and returns its port.
func grpcOrigin(t *testing.T) string {
	t.Helper()
	nextPort++
	port := fmt.Sprint(nextPort)
	l, err := net.Listen("tcp", net.JoinHostPort(world.Address, port))
	must(t, err)
	cert, err := origins.Certificate(nil)
	must(t, err)
	srv := grpc.NewServer(grpc.Creds(grpccredentials.NewServerTLSFromCert(&cert)))
	pb.RegisterTestServiceServer(srv, calls{})
	go func() { _ = srv.Serve(l) }()
	t.Cleanup(srv.Stop)
	return port
}

// identityPair is a daemon with grants of identities: orders by client credentials on
// every relay, and billing by token exchange.
type identityPair struct {
	*pair
	api                 *workloadAPI
	tokens              *tokenEndpoint
	rest, billing, sock *sink
	rpc, file           string
}

func newIdentityPair(t *testing.T) *identityPair {
	t.Helper()
	p := &identityPair{api: newWorkloadAPI(t), rest: origin(t, false), billing: origin(t, false), rpc: grpcOrigin(t)}
	p.tokens = newTokenEndpoint(t, p.api)
	p.sock = origin(t, false, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		c, err := websocket.Accept(w, r, nil)
		if err != nil {
			return
		}
		defer c.CloseNow()
		said := strings.ReplaceAll(r.Header.Get("Authorization"), "REAL", "got ") // else it would be taken for an echo
		_ = c.Write(context.Background(), websocket.MessageText, []byte(said))
		_ = c.Write(context.Background(), websocket.MessageText, []byte(r.Header.Get("Authorization")))
		_, _, _ = c.Read(context.Background())
	}))
	bound := func(ports ...string) (out string) {
		for _, port := range ports {
			out += "{host: api.demo.test, port: " + port + "}, "
		}
		return "    bindings: [" + out + "]\n"
	}
	p.file = "version: 1\ncredentials: {}\ntoken_grants:\n  - name: orders\n    workload_api: " + p.api.address + "\n    token_endpoint: " + p.tokens.URL + "/realms/shop/token\n    client_id: agent\n    scopes: [read, write]\n" + bound(p.rest.port, p.rpc, p.sock.port) +
		"  - name: billing\n    grant: token_exchange\n    workload_api: " + p.api.address + "\n    jwt_svid_audience: sts\n    audience: payments\n    token_endpoint: " + p.tokens.URL + "/sts\n    auth_style: header\n    header_name: X-Token\n" + bound(p.billing.port)
	endpoints := ""
	for port, protocol := range map[string]string{p.rest.port: "rest", p.billing.port: "rest", p.rpc: "rest", p.sock.port: "websocket"} {
		endpoints += "      - {host: api.demo.test, port: " + port + ", protocol: " + protocol + ", access: full, enforcement: enforce}\n"
	}
	p.pair = sealed(t, "version: 1\n"+who+"network_policies:\n  a:\n    endpoints:\n"+endpoints+"    binaries: [{path: \"/**\"}]\n", p.file, nil).alone("--log-level", "debug")
	return p
}

// upgrade opens a WebSocket, and returns what the origin says of its handshake, or the
// status of the refusal.
func (p *identityPair) upgrade(t *testing.T) (status int, said string) {
	t.Helper()
	tr := &http.Transport{DialTLSContext: func(context.Context, string, string) (net.Conn, error) { return p.secure(p.sock.URL, "http/1.1"), nil }}
	c, resp, err := websocket.Dial(t.Context(), "wss://"+p.sock.URL+"/", &websocket.DialOptions{HTTPClient: &http.Client{Transport: tr}})
	if err != nil {
		if resp == nil {
			t.Fatal(err)
		}
		body, _ := io.ReadAll(resp.Body)
		return resp.StatusCode, string(body)
	}
	defer c.CloseNow()
	for range 2 {
		_, data, err := c.Read(t.Context())
		must(t, err)
		said += string(data) + "|"
	}
	return resp.StatusCode, said
}

func (p *identityPair) nothingIsSaid(t *testing.T) {
	t.Helper()
	out := p.network.out.String() + p.network.err.String()
	for _, never := range append(p.api.svids(), "REALtoken") {
		parts := strings.Split(never, ".")
		if strings.Contains(out, never) || strings.Contains(out, parts[len(parts)-1]) && len(parts[len(parts)-1]) > 20 {
			t.Errorf("a record or the log contains %q", never)
		}
	}
}

// TestAnIdentityBecomesATokenOnEveryRelay: row 66, with JWT-SVIDs of a Workload API:
// fetched once for requests that come together, and kept for those that follow.
func TestAnIdentityBecomesATokenOnEveryRelay(t *testing.T) {
	p := newIdentityPair(t)
	const shop = "/realms/shop/token"
	want := "Bearer " + tokenOf(shop, 1)
	var waiting []net.Conn
	for range 8 { // all of them are sent before any can be answered
		c := p.secure(p.rest.URL, "http/1.1")
		_, err := io.WriteString(c, get("/", p.rest.URL, "Authorization: Bearer of the client"))
		must(t, err)
		waiting = append(waiting, c)
	}
	eventually(t, "a request for a token", func() bool { n, _ := p.tokens.of(shop); return n > 0 })
	close(p.tokens.hold)
	for _, c := range waiting {
		resp, err := http.ReadResponse(bufio.NewReader(c), nil)
		must(t, err)
		if resp.StatusCode != 200 {
			t.Errorf("status %s", resp.Status)
		}
	}
	c2 := p.client2(t)
	resp, err := c2.Get("https://" + p.rest.URL + "/two")
	must(t, err)
	resp.Body.Close()
	got := p.rest.all()
	for _, a := range got {
		if v := a.Header.Values("Authorization"); len(v) != 1 || v[0] != want {
			t.Errorf("%s arrived with %q", a.URI, v)
		}
	}
	if len(got) != 9 {
		t.Errorf("%d requests arrived", len(got))
	}
	said, err := p.grpcClient(t, p.rpc).UnaryCall(t.Context(), &pb.SimpleRequest{})
	if must(t, err); said.OauthScope != backwards(want) || said.Username != "Bearer "+covered(strings.TrimPrefix(want, "Bearer ")) {
		t.Errorf("by gRPC: %q, %q", backwards(said.OauthScope), said.Username)
	}
	if status, said := p.upgrade(t); status != 101 || said != strings.ReplaceAll(want, "REAL", "got ")+"|Bearer [CREDENTIAL]|" {
		t.Errorf("by a WebSocket: %d, %q", status, said)
	}
	n, form := p.tokens.of(shop)
	if n != 1 || len(p.api.svids()) != 1 {
		t.Errorf("%d tokens and %d identities were fetched", n, len(p.api.svids()))
	}
	if a := p.api.audience(form.Get("client_assertion")); a != p.tokens.URL+"/realms/shop" {
		t.Errorf("the identity is for %q", a)
	}
	form.Del("client_assertion")
	if diff := cmp.Diff(url.Values{"grant_type": {"client_credentials"}, "client_id": {"agent"}, "scope": {"read write"}, "client_assertion_type": {"urn:ietf:params:oauth:client-assertion-type:jwt-bearer"}}, form); diff != "" {
		t.Errorf("the token endpoint was asked %s", diff)
	}

	p.say(p.billing.URL, get("/", p.billing.URL, "Authorization: Bearer of the client"))
	n, form = p.tokens.of("/sts")
	if a := p.api.audience(form.Get("subject_token")); n != 1 || a != "sts" {
		t.Errorf("%d requests; the identity is for %q", n, a)
	}
	form.Del("subject_token")
	if diff := cmp.Diff(url.Values{"grant_type": {"urn:ietf:params:oauth:grant-type:token-exchange"}, "audience": {"payments"}, "subject_token_type": {"urn:ietf:params:oauth:token-type:jwt"}}, form); diff != "" {
		t.Errorf("the token endpoint was asked %s", diff)
	}
	if got := p.billing.all(); len(got) != 1 || got[0].Header.Get("X-Token") != tokenOf("/sts", 1) || got[0].Header.Get("Authorization") != "Bearer of the client" {
		t.Errorf("arrived %+v", got)
	}
	eventually(t, "records of the grants", func() bool {
		out := p.network.out.String()
		return strings.Count(out, "credentials used: grant orders (1)") == 11 && strings.Contains(out, "credentials used: grant billing (1)")
	})
	p.nothingIsSaid(t)
}

// TestATokenIsFetchedAnewBeforeItEnds: and no request goes without one.
func TestATokenIsFetchedAnewBeforeItEnds(t *testing.T) {
	p := newIdentityPair(t)
	p.tokens.expires.Store(31) // thirty seconds early is in a second
	close(p.tokens.hold)
	eventually(t, "the second token", func() bool {
		status, answer := p.say(p.rest.URL, get("/", p.rest.URL))
		if status != "200" {
			t.Fatalf("status %s: %s", status, answer)
		}
		got := p.rest.all()
		return got[len(got)-1].Header.Get("Authorization") != got[0].Header.Get("Authorization")
	})
	n, _ := p.tokens.of("/realms/shop/token")
	got := p.rest.all()
	for i, want := range map[int]string{0: tokenOf("/realms/shop/token", 1), len(got) - 1: tokenOf("/realms/shop/token", n)} {
		if a := got[i].Header.Get("Authorization"); a != "Bearer "+want {
			t.Errorf("request %d arrived with %q, not with %s", i, a, want)
		}
	}
	if len(p.api.svids()) != n || n < 2 {
		t.Errorf("%d identities and %d tokens were fetched", len(p.api.svids()), n)
	}
	p.nothingIsSaid(t)
}

// TestWithoutATokenNothingIsSent: the answer says what is missing, on every relay, and
// when it is there again requests go.
func TestWithoutATokenNothingIsSent(t *testing.T) {
	p := newIdentityPair(t)
	close(p.tokens.hold)
	p.api.fail.Store(true)
	refused := func(t *testing.T, why string) {
		t.Helper()
		status, answer := p.say(p.rest.URL, get("/", p.rest.URL, "Authorization: Bearer of the client"))
		if status != "502" || !strings.Contains(answer, `"error":"token_grant_failed"`) || !strings.Contains(answer, why) {
			t.Errorf("status %s: %s", status, answer)
		}
		resp, err := p.client2(t).Get("https://" + p.rest.URL + "/")
		must(t, err)
		body, _ := io.ReadAll(resp.Body)
		resp.Body.Close()
		if resp.StatusCode != 502 || !strings.Contains(string(body), why) {
			t.Errorf("by HTTP/2: %s: %s", resp.Status, body)
		}
		if _, err := p.grpcClient(t, p.rpc).UnaryCall(t.Context(), &pb.SimpleRequest{}); grpcstatus.Code(err) != codes.Unavailable || !strings.Contains(err.Error(), why) {
			t.Errorf("by gRPC: %v", err)
		}
		if status, said := p.upgrade(t); status != 502 || !strings.Contains(said, why) {
			t.Errorf("by a WebSocket: %d, %s", status, said)
		}
		if n := len(p.rest.all()); n != 0 {
			t.Errorf("%d requests arrived", n)
		}
	}
	refused(t, "no token could be had for the grant orders (the identity is not available)")
	if n, _ := p.tokens.of("/realms/shop/token"); n != 0 {
		t.Errorf("the token endpoint was asked %d times, without an identity", n)
	}
	p.api.fail.Store(false)
	eventually(t, "an identity", func() bool { status, _ := p.say(p.rest.URL, get("/", p.rest.URL)); return status == "200" })
	p.rest.clear()
	p.tokens.Close()
	p.credentials(strings.Replace(p.file, "name: orders", "name: moved", 1)) // a new grant has no token yet
	eventually(t, "the new grant", func() bool {
		_, answer := p.say(p.rest.URL, get("/", p.rest.URL))
		return strings.Contains(answer, "moved")
	})
	p.rest.clear()
	refused(t, "no token could be had for the grant moved (the token endpoint does not answer)")
	eventually(t, "records of both", func() bool {
		out := p.network.out.String()
		return strings.Count(out, "(the identity is not available)") >= 4 && strings.Count(out, "(the token endpoint does not answer)") >= 4
	})
	p.nothingIsSaid(t)
}
