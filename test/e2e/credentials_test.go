package e2e_test

import (
	"bufio"
	"bytes"
	"compress/gzip"
	"compress/zlib"
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/splitpod/splitpod/test/world"
)

// ph is what the workload has of a key.
func ph(key string) string { return "openshell:resolve:env:" + key }

// secretOf is the value of a key in these tests: unlike anything else, and with
// characters that break out of careless places.
func secretOf(key string) string { return "REAL-" + strings.ToLower(key) + `-7f3a9c-"\ü` }

// plainSecret is one that may stand anywhere.
func plainSecret(key string) string { return "REAL" + strings.ToLower(key) + "7f3a9c51d2" }

// arrived is a request as an origin got it.
type arrived struct {
	Method, URI, Host, Body string
	Header, Trailer         http.Header
}

// sink records what arrives at one origin. A request shows before its body has ended.
type sink struct {
	mu   sync.Mutex
	got  []*arrived
	URL  string // host:port
	port string
}

func (s *sink) all() (out []arrived) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, a := range s.got {
		out = append(out, *a)
	}
	return out
}

// of is what arrived of one case: requests of an earlier one may come late.
func (s *sink) of(name string) (out []arrived) {
	for _, a := range s.all() {
		if a.Header.Get("X-Case") == name {
			a.Header.Del("X-Case")
			out = append(out, a)
		}
	}
	return out
}

// marked adds the name of a case to a request.
func marked(name, send string) string {
	return strings.Replace(send, "\r\nHost:", "\r\nX-Case: "+name+"\r\nHost:", 1)
}

func (s *sink) clear() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.got = nil
}

// ServeHTTP answers with what /echo asks for.
func (s *sink) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	a := &arrived{Method: r.Method, URI: r.RequestURI, Host: r.Host, Header: r.Header.Clone()}
	s.mu.Lock()
	s.got = append(s.got, a)
	s.mu.Unlock()
	var body bytes.Buffer
	buf := make([]byte, 4096)
	for {
		n, err := r.Body.Read(buf)
		body.Write(buf[:n])
		s.mu.Lock()
		a.Body, a.Trailer = body.String(), r.Trailer.Clone()
		s.mu.Unlock()
		if err != nil {
			break
		}
	}
	auth := r.Header.Get("Authorization")
	switch {
	case strings.HasPrefix(r.URL.Path, "/echo"):
		w.Header().Set("X-Echo", auth)
		w.Header().Set("Location", "https://elsewhere.test/?t="+strings.TrimPrefix(auth, "Bearer "))
		w.Header().Set("Content-Type", "application/json")
		_ = json.NewEncoder(w).Encode(map[string]any{"headers": r.Header, "body": body.String()})
	default:
		fmt.Fprint(w, "ok")
	}
}

var nextPort = 20100

// origin opens a recording origin, with TLS unless plain.
func origin(t *testing.T, plain bool, handlers ...http.Handler) *sink {
	t.Helper()
	nextPort++
	s := &sink{port: fmt.Sprint(nextPort)}
	s.URL = "api.demo.test:" + s.port
	l, err := net.Listen("tcp", net.JoinHostPort(world.Address, s.port))
	must(t, err)
	var h http.Handler = s
	if len(handlers) > 0 {
		h = handlers[0]
	}
	srv := &http.Server{Handler: h, ReadHeaderTimeout: time.Minute, ErrorLog: log.New(io.Discard, "", 0)}
	t.Cleanup(func() { srv.Close() })
	if plain {
		go func() { _ = srv.Serve(l) }()
		return s
	}
	cert, err := origins.Certificate(nil)
	must(t, err)
	srv.TLSConfig = &tls.Config{Certificates: []tls.Certificate{cert}}
	go func() { _ = srv.ServeTLS(l, "", "") }()
	return s
}

// sealed prepares a pair with a credentials file and its secrets, which only the
// network daemon can read.
func sealed(t *testing.T, policy, file string, secrets map[string]string) *pair {
	t.Helper()
	p := newPair(t, policy)
	must(t, os.Mkdir(p.dir+"/secrets", 0o700))
	must(t, os.Chown(p.dir+"/secrets", networkUID, networkUID))
	for key, value := range secrets {
		p.secret(key, value)
	}
	p.credentials(file)
	return p
}

func (p *pair) credentials(text string) {
	p.t.Helper()
	path := p.dir + "/config/credentials.yaml"
	must(p.t, os.WriteFile(path+".new", []byte(strings.ReplaceAll(text, "SECRETS", p.dir+"/secrets")), 0o644))
	must(p.t, os.Rename(path+".new", path))
}

func (p *pair) secret(key, value string) {
	p.t.Helper()
	path := filepath.Join(p.dir, "secrets", key)
	must(p.t, os.WriteFile(path+".new", []byte(value), 0o400))
	must(p.t, os.Chown(path+".new", networkUID, networkUID))
	must(p.t, os.Rename(path+".new", path))
}

// alone starts the network daemon alone, with the credentials file.
func (p *pair) alone(args ...string) *pair {
	p.t.Helper()
	p.startNetwork(append([]string{"--listen", standaloneAddress, "--identity", "ignore", "--credentials", p.dir + "/config/credentials.yaml", "--ca-out", p.dir + "/config/ca.pem"}, args...)...)
	eventually(p.t, "the listener", func() bool {
		select {
		case <-p.network.ended:
			p.t.Fatalf("the daemon ended: %s", p.network.err)
		default:
		}
		c, err := net.Dial("tcp", standaloneAddress)
		if err == nil {
			c.Close()
		}
		return err == nil
	})
	return p
}

// trust is a TLS configuration with the interception CA.
func (p *pair) trust(protocols ...string) *tls.Config {
	p.t.Helper()
	data, err := os.ReadFile(p.dir + "/config/ca.pem")
	must(p.t, err)
	pool := x509.NewCertPool()
	pool.AppendCertsFromPEM(data)
	return &tls.Config{RootCAs: pool, ServerName: "api.demo.test", NextProtos: protocols}
}

// tunnel opens a CONNECT tunnel and returns it with the status of the answer.
func tunnel(t *testing.T, hostport string) (net.Conn, string) {
	t.Helper()
	c, err := net.Dial("tcp", standaloneAddress)
	must(t, err)
	t.Cleanup(func() { c.Close() })
	must(t, c.SetDeadline(time.Now().Add(generous)))
	fmt.Fprintf(c, "CONNECT %s HTTP/1.1\r\nHost: %s\r\n\r\n", hostport, hostport)
	resp, err := http.ReadResponse(bufio.NewReaderSize(oneByte{c}, 16), nil)
	must(t, err)
	status := resp.Status
	if resp.StatusCode != 200 {
		body, _ := io.ReadAll(resp.Body)
		status += " " + string(body)
	}
	return c, status
}

// oneByte reads no further than it has to.
type oneByte struct{ net.Conn }

func (o oneByte) Read(p []byte) (int, error) { return o.Conn.Read(p[:1]) }

// secure is a TLS session in a tunnel.
func (p *pair) secure(hostport string, protocols ...string) *tls.Conn {
	p.t.Helper()
	c, status := tunnel(p.t, hostport)
	if !strings.HasPrefix(status, "200") {
		p.t.Fatalf("tunnel: %s", status)
	}
	tc := tls.Client(c, p.trust(protocols...))
	must(p.t, tc.Handshake())
	return tc
}

// say sends a request in TLS and returns the answer and its body.
func (p *pair) say(hostport, text string) (string, string) {
	p.t.Helper()
	tc := p.secure(hostport, "http/1.1")
	defer tc.Close()
	_, _ = io.WriteString(tc, text)
	resp, err := http.ReadResponse(bufio.NewReader(tc), &http.Request{Method: strings.Fields(text)[0]})
	if err != nil {
		return "no answer: " + err.Error(), ""
	}
	body, _ := io.ReadAll(resp.Body)
	var head bytes.Buffer
	_ = resp.Header.Write(&head)
	return fmt.Sprint(resp.StatusCode), head.String() + "\n" + string(body)
}

func basicOf(s string) string { return base64.StdEncoding.EncodeToString([]byte(s)) }

// get is a request head.
func get(target, host string, fields ...string) string {
	return "GET " + target + " HTTP/1.1\r\nHost: " + host + "\r\n" + strings.Join(append(fields, ""), "\r\n") + "\r\n"
}

func posted(host, kind, body string, fields ...string) string {
	return fmt.Sprintf("POST /p HTTP/1.1\r\nHost: %s\r\nContent-Type: %s\r\nContent-Length: %d\r\n%s\r\n%s", host, kind, len(body), strings.Join(append(fields, ""), "\r\n"), body)
}

func chunked(host, kind, trailer string, chunks ...string) string {
	var b strings.Builder
	fmt.Fprintf(&b, "POST /p HTTP/1.1\r\nHost: %s\r\nContent-Type: %s\r\nTransfer-Encoding: chunked\r\n\r\n", host, kind)
	for _, c := range chunks {
		fmt.Fprintf(&b, "%x;ext=%s\r\n%s\r\n", len(c), "1", c)
	}
	return b.String() + "0\r\n" + trailer + "\r\n"
}

func gzipped(s string) string {
	var b bytes.Buffer
	w := gzip.NewWriter(&b)
	_, _ = io.WriteString(w, s)
	_ = w.Close()
	return b.String()
}

// relays is a policy with an origin for each kind of relay, and a file that binds KEY
// to all of them but the one called other.
func relays(t *testing.T) (origins map[string]*sink, policy, file string) {
	t.Helper()
	origins = map[string]*sink{}
	var endpoints, bindings strings.Builder
	for name, options := range map[string]string{
		"rest":    "protocol: rest, access: full, enforcement: enforce",
		"body":    "protocol: rest, access: full, enforcement: enforce, request_body_credential_rewrite: true",
		"graphql": "protocol: graphql, access: full, enforcement: enforce",
		"rpc":     "protocol: json-rpc, enforcement: enforce, rules: [{allow: {method: \"*\"}}]",
		"plain":   "",
		"skip":    "tls: skip",
		"skipped": "tls: skip, allow_uninspected_credentials: true",
		"tcp":     "protocol: tcp",
		"other":   "protocol: rest, access: full, enforcement: enforce",
	} {
		o := origin(t, false)
		origins[name] = o
		fmt.Fprintf(&endpoints, "      - {host: api.demo.test, port: %s, %s}\n", o.port, options)
		if name != "other" {
			fmt.Fprintf(&bindings, "      - {host: api.demo.test, port: %s}\n", o.port)
		}
	}
	clear := origin(t, true)
	origins["clear"] = clear
	fmt.Fprintf(&endpoints, "      - {host: api.demo.test, port: %s, protocol: rest, access: full, enforcement: enforce}\n", clear.port)
	policy = "version: 1\n" + who + "network_policies:\n  all:\n    endpoints:\n" + endpoints.String() + "    binaries: [{path: \"/**\"}]\n"
	file = "version: 1\ncredentials:\n  KEY:\n    file: SECRETS/KEY\n    bindings:\n" + bindings.String() +
		fmt.Sprintf("      - {host: api.demo.test, port: %s, path: /bound/**}\n", clear.port) +
		"  QUOTED:\n    file: SECRETS/QUOTED\n    bindings:\n" + bindings.String() +
		"  OLD:\n    file: SECRETS/OLD\n    expires: \"2020-01-01T00:00:00Z\"\n    bindings:\n" + bindings.String() +
		"  BROKEN:\n    file: SECRETS/BROKEN\n    bindings:\n" + bindings.String() +
		"  WIDE:\n    file: SECRETS/KEY\n    anywhere: true\n"
	return origins, policy, file
}

var relaySecrets = map[string]string{"KEY": plainSecret("KEY"), "QUOTED": secretOf("QUOTED"), "OLD": plainSecret("OLD"), "BROKEN": "a\r\nb: c"}

// TestPlaceholdersBecomeValuesWhereTheyMay: one line is one place, on one relay.
func TestPlaceholdersBecomeValuesWhereTheyMay(t *testing.T) {
	origins, policy, file := relays(t)
	p := sealed(t, policy, file, relaySecrets).alone()
	key, real := ph("KEY"), plainSecret("KEY")
	quoted, _ := json.Marshal(secretOf("QUOTED"))
	for name, tc := range map[string]struct {
		relay, send string
		want        func(a arrived) string // what has to be the value
		value       string
	}{
		"bearer":             {"rest", get("/", origins["rest"].URL, "Authorization: Bearer "+key), func(a arrived) string { return a.Header.Get("Authorization") }, "Bearer " + real},
		"whole value":        {"rest", get("/", origins["rest"].URL, "X-Api-Key: "+key), func(a arrived) string { return a.Header.Get("X-Api-Key") }, real},
		"Basic":              {"rest", get("/", origins["rest"].URL, "Authorization: Basic "+basicOf("x-access-token:"+key)), func(a arrived) string { return a.Header.Get("Authorization") }, "Basic " + basicOf("x-access-token:"+real)},
		"bAsIc":              {"rest", get("/", origins["rest"].URL, "Authorization: bAsIc "+basicOf(key+":x")), func(a arrived) string { return a.Header.Get("Authorization") }, "bAsIc " + basicOf(real+":x")},
		"a cookie":           {"rest", get("/", origins["rest"].URL, "Cookie: a=1; t="+key+"; b=2"), func(a arrived) string { return a.Header.Get("Cookie") }, "a=1; t=" + real + "; b=2"},
		"an alias":           {"rest", get("/", origins["rest"].URL, "Authorization: Bearer sk-OPENSHELL-RESOLVE-ENV-KEY"), func(a arrived) string { return a.Header.Get("Authorization") }, "Bearer " + real},
		"a revision":         {"rest", get("/", origins["rest"].URL, "Authorization: Bearer openshell:resolve:env:v1_KEY"), func(a arrived) string { return a.Header.Get("Authorization") }, "Bearer " + real},
		"a path":             {"rest", get("/bot"+key+"/send", origins["rest"].URL), func(a arrived) string { return a.URI }, "/bot" + real + "/send"},
		"an encoded path":    {"rest", get("/bot"+strings.ReplaceAll(key, ":", "%3A")+"/send", origins["rest"].URL), func(a arrived) string { return a.URI }, "/bot" + real + "/send"},
		"a query":            {"rest", get("/?a=1&key="+key+"&b=2", origins["rest"].URL), func(a arrived) string { return a.URI }, "/?a=1&key=" + real + "&b=2"},
		"a query, encoded":   {"rest", get("/?key="+strings.ReplaceAll(key, ":", "%3a"), origins["rest"].URL), func(a arrived) string { return a.URI }, "/?key=" + real},
		"JSON":               {"body", posted(origins["body"].URL, "application/json", `{"k":"`+ph("QUOTED")+`","n":1}`), func(a arrived) string { return a.Body }, `{"k":` + string(quoted) + `,"n":1}`},
		"JSON in chunks":     {"body", chunked(origins["body"].URL, "application/json", "", `{"k":"openshell:res`, `olve:env:KEY"}`), func(a arrived) string { return a.Body }, `{"k":"` + real + `"}`},
		"a form":             {"body", posted(origins["body"].URL, "application/x-www-form-urlencoded", "a=1&k="+key), func(a arrived) string { return a.Body }, "a=1&k=" + real},
		"text":               {"body", posted(origins["body"].URL, "text/plain", "k: "+key), func(a arrived) string { return a.Body }, "k: " + real},
		"GraphQL, a header":  {"graphql", strings.Replace(posted(origins["graphql"].URL, "application/json", `{"query":"{a}"}`, "Authorization: Bearer "+key), "/p", "/graphql", 1), func(a arrived) string { return a.Header.Get("Authorization") }, "Bearer " + real},
		"JSON-RPC, a header": {"rpc", posted(origins["rpc"].URL, "application/json", `{"jsonrpc":"2.0","id":1,"method":"m"}`, "Authorization: Bearer "+key), func(a arrived) string { return a.Header.Get("Authorization") }, "Bearer " + real},
		"without a protocol": {"plain", get("/", origins["plain"].URL, "Authorization: Bearer "+key), func(a arrived) string { return a.Header.Get("Authorization") }, "Bearer " + real},
		"a key for anywhere": {"other", get("/", origins["other"].URL, "Authorization: Bearer "+ph("WIDE")), func(a arrived) string { return a.Header.Get("Authorization") }, "Bearer " + real},
	} {
		t.Run(name, func(t *testing.T) {
			o := origins[tc.relay]
			status, answer := p.say(o.URL, marked(name, tc.send))
			got := o.of(name)
			if status != "200" || len(got) != 1 {
				t.Fatalf("status %s, %d requests arrived, answer %s", status, len(got), answer)
			}
			if v := tc.want(got[0]); v != tc.value {
				t.Errorf("the origin got %q, want %q", v, tc.value)
			}
		})
	}
	t.Run("absolute form, where a binding names it", func(t *testing.T) {
		o := origins["clear"]
		out := talk(t, get("http://"+o.URL+"/bound/x", o.URL, "Authorization: Bearer "+key, "Connection: close"))
		if got := o.all(); len(got) != 1 || got[0].Header.Get("Authorization") != "Bearer "+real {
			t.Errorf("arrived %+v, answer %s", got, out)
		}
	})
	for _, v := range relaySecrets {
		if text := p.network.out.String() + p.network.err.String(); strings.Contains(text, v) {
			t.Errorf("a record or the log contains %q", v)
		}
	}
	eventually(t, "a record that names the key", func() bool { return strings.Contains(p.network.out.String(), "credentials used: KEY (1)") })
}

// TestPlaceholdersElsewhereAreRefused: attack C5 and its neighbours. Nothing of the
// request arrives that a marker could be completed from, and the answer can be read.
func TestPlaceholdersElsewhereAreRefused(t *testing.T) {
	origins, policy, file := relays(t)
	p := sealed(t, policy, file, relaySecrets).alone()
	key := ph("KEY")
	twice := strings.ReplaceAll(key, ":", "%253A")
	all := ""
	for i := range len(key) {
		all += fmt.Sprintf("%%%02x", key[i])
	}
	rest, body := origins["rest"].URL, origins["body"].URL
	large := strings.Repeat("x", 200<<10)
	for name, tc := range map[string]struct {
		relay, send, status, reason string
		reaches                     bool // a part may arrive, but no marker
	}{
		"an unknown key":               {"rest", get("/", rest, "Authorization: Bearer "+ph("NOBODY")), "500", "credential_unavailable", false},
		"an expired key":               {"rest", get("/", rest, "Authorization: Bearer "+ph("OLD")), "500", "credential_unavailable", false},
		"a value with CR LF":           {"rest", get("/", rest, "Authorization: Bearer "+ph("BROKEN")), "500", "credential_unavailable", false},
		"a revision to come":           {"rest", get("/", rest, "Authorization: Bearer openshell:resolve:env:v9_KEY"), "500", "credential_unavailable", false},
		"an endpoint it is not for":    {"other", get("/", origins["other"].URL, "Authorization: Bearer "+key), "403", "credential_endpoint_mismatch", false},
		"a header name":                {"rest", get("/", rest, "sk-OPENSHELL-RESOLVE-ENV-KEY: 1"), "500", "credential_unavailable", false},
		"a header, percent-encoded":    {"rest", get("/", rest, "X: "+all), "500", "credential_unavailable", false},
		"a header, encoded twice":      {"rest", get("/", rest, "X: "+twice), "500", "credential_unavailable", false},
		"a query key":                  {"rest", get("/?"+key+"=1", rest), "500", "credential_unavailable", false},
		"a query, encoded twice":       {"rest", get("/?a="+twice, rest), "500", "credential_unavailable", false},
		"a path, encoded twice":        {"rest", get("/"+twice, rest), "500", "credential_unavailable", false},
		"the method":                   {"rest", strings.Replace(get("/", rest), "GET", "sk-OPENSHELL-RESOLVE-ENV-KEY", 1), "500", "credential_unavailable", false},
		"TRACE":                        {"rest", strings.Replace(get("/", rest, "Authorization: Bearer "+key), "GET", "TRACE", 1), "500", "credential_unavailable", false},
		"a content type":               {"rest", posted(rest, key, "x"), "500", "credential_unavailable", false},
		"a subprotocol":                {"rest", get("/", rest, "Connection: Upgrade", "Upgrade: websocket", "Sec-WebSocket-Version: 13", "Sec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==", "Sec-WebSocket-Protocol: sk-OPENSHELL-RESOLVE-ENV-KEY"), "500", "credential_unavailable", false},
		"a field folded":               {"rest", get("/", rest, "X: openshell:resolve:", " env:KEY"), "400", "bad_request", false},
		"a body that is not rewritten": {"rest", posted(rest, "application/json", `{"k":"`+key+`"}`), "403", "credential_unavailable", false},
		"a multipart field":            {"rest", posted(rest, "multipart/form-data; boundary=b", "--b\r\nContent-Disposition: form-data; name=\"k\"\r\n\r\n"+key+"\r\n--b--\r\n"), "403", "credential_unavailable", false},
		"a multipart field, rewriting": {"body", posted(body, "multipart/form-data; boundary=b", "--b\r\n\r\n"+key+"\r\n--b--\r\n"), "500", "credential_unavailable", false},
		"a form's name":                {"body", posted(body, "application/x-www-form-urlencoded", key+"=1"), "500", "credential_unavailable", false},
		"a member's name":              {"body", posted(body, "application/json", `{"`+key+`":1}`), "500", "credential_unavailable", false},
		"a body that is too large":     {"body", posted(body, "text/plain", strings.Repeat("x", 262145)), "413", "body_too_large", false},
		"a compressed body":            {"rest", posted(rest, "text/plain", gzipped("k="+key), "Content-Encoding: gzip"), "403", "credential_unavailable", false},
		"a coding nobody reads":        {"rest", posted(rest, "text/plain", "x", "Content-Encoding: br"), "500", "credential_unavailable", false},
		"a large body, at its end":     {"rest", posted(rest, "text/plain", large+key), "403", "credential_unavailable", true},
		"chunks that split it":         {"rest", chunked(rest, "text/plain", "", "openshell:resol", "ve:en", "v:KEY"), "403", "credential_unavailable", true},
		"chunks, encoded":              {"rest", chunked(rest, "text/plain", "", all[:10], all[10:]), "403", "credential_unavailable", true},
		"GraphQL, the body":            {"graphql", strings.Replace(posted(origins["graphql"].URL, "application/json", `{"query":"{a}","variables":{"k":"`+key+`"}}`), "/p", "/graphql", 1), "403", "credential_unavailable", false},
		"JSON-RPC, the body":           {"rpc", posted(origins["rpc"].URL, "application/json", `{"jsonrpc":"2.0","id":1,"method":"m","params":{"k":"`+key+`"}}`), "403", "credential_unavailable", false},
		"without a protocol, the body": {"plain", posted(origins["plain"].URL, "text/plain", key), "403", "credential_unavailable", false},
		"without a protocol, chunks":   {"plain", chunked(origins["plain"].URL, "text/plain", "", "openshell:resolve:", "env:KEY"), "403", "credential_unavailable", true},
		"a body where no key is bound": {"other", posted(origins["other"].URL, "text/plain", key), "403", "credential_unavailable", false},
	} {
		t.Run(name, func(t *testing.T) {
			o := origins[tc.relay]
			status, answer := p.say(o.URL, marked(name, tc.send))
			if status != tc.status || !strings.Contains(answer, `"error":"`+tc.reason+`"`) {
				t.Errorf("status %s, want %s %s; answer %s", status, tc.status, tc.reason, answer)
			}
			got := fmt.Sprintf("%+v", o.of(name))
			if !tc.reaches && got != "[]" {
				t.Errorf("arrived: %.200s", got)
			}
			got += fmt.Sprintf("%+v", o.all())
			for _, never := range []string{"resolve:env:", "RESOLVE-ENV-", "REAL", "%3aenv%3a", "253A"} {
				if strings.Contains(got, never) || strings.Contains(answer, never) {
					t.Errorf("%s arrived, or is in the answer: %.300s %s", never, got, answer)
				}
			}
		})
	}
	t.Run("a trailer and an extension of a chunk stay here", func(t *testing.T) {
		o := origins["rest"]
		o.clear()
		text := strings.Replace(chunked(o.URL, "text/plain", "X-T: "+key+"\r\n", "hello"), "ext=1", "ext=sk-OPENSHELL-RESOLVE-ENV-KEY", 1)
		status, _ := p.say(o.URL, text)
		if got := fmt.Sprintf("%+v", o.all()); status != "200" || strings.Contains(got, "env") || strings.Contains(got, "ENV") {
			t.Errorf("status %s, arrived %s", status, got)
		}
	})
	for name, target := range map[string]string{"another path": "/x", "no binding": "/bound/x"} {
		t.Run("absolute form, "+name, func(t *testing.T) {
			o := origins["clear"]
			o.clear()
			k := key
			if name == "no binding" {
				k = ph("WIDE")
			}
			out := talk(t, get("http://"+o.URL+target, o.URL, "Authorization: Bearer "+k, "Connection: close"))
			if len(o.all()) != 0 || !strings.Contains(out, `"error":"credential_`) {
				t.Errorf("arrived %+v, answer %s", o.all(), out)
			}
		})
	}
	t.Run("absolute form has its own word", func(t *testing.T) {
		out := talk(t, get("http://"+origins["clear"].URL+"/bound/x", origins["clear"].URL, "Authorization: Bearer "+ph("NOBODY"), "Connection: close"))
		if !strings.HasPrefix(out, "HTTP/1.1 500 ") || !strings.Contains(out, `"error":"credential_injection_failed"`) {
			t.Errorf("answer %s", out)
		}
	})
	eventually(t, "records of the refusals", func() bool {
		return strings.Contains(p.network.out.String(), "credential_endpoint_mismatch")
	})
	for _, never := range []string{"resolve:env:", "RESOLVE-ENV-", "REAL", plainSecret("KEY")} {
		if text := p.network.out.String() + p.network.err.String(); strings.Contains(text, never) {
			i := strings.Index(text, never)
			t.Errorf("a record or the log contains %q: %s", never, text[max(0, i-200):min(len(text), i+100)])
		}
	}
}

// TestWhatIsDeniedShowsNoPlaceholder: attack C2, by the rules of an endpoint it is bound
// to, by HTTP/1.1, HTTP/2 and in absolute form, and at a host that no rule names.
func TestWhatIsDeniedShowsNoPlaceholder(t *testing.T) {
	o := origin(t, false)
	p := sealed(t, "version: 1\n"+who+"network_policies:\n  a:\n    endpoints:\n      - {host: api.demo.test, port: "+o.port+", protocol: rest, access: read-only, enforcement: enforce}\n    binaries: [{path: \"/**\"}]\n",
		"version: 1\ncredentials:\n  KEY:\n    file: SECRETS/KEY\n    bindings: [{host: api.demo.test, port: "+o.port+"}]\n", map[string]string{"KEY": plainSecret("KEY")}).alone()
	target := "/t/" + ph("KEY") + "/x?k=" + ph("KEY")
	_, answer := p.say(o.URL, strings.Replace(get(target, o.URL, "Authorization: Bearer "+ph("KEY"), "Content-Length: 0"), "GET", "DELETE", 1))
	req, err := http.NewRequestWithContext(t.Context(), "DELETE", "https://"+o.URL+target, nil)
	must(t, err)
	req.Header.Set("Authorization", "Bearer "+ph("KEY"))
	resp, err := p.client2(t).Do(req)
	must(t, err)
	body, _ := io.ReadAll(resp.Body)
	resp.Body.Close()
	for version, answer := range map[string]string{"HTTP/1.1": answer, "HTTP/2": string(body)} {
		if !strings.Contains(answer, `"error":"policy_denied"`) || !strings.Contains(answer, "/t/[CREDENTIAL]/x") {
			t.Errorf("by %s: %s", version, answer)
		}
	}
	absolute := talk(t, get("http://elsewhere.test"+target, "elsewhere.test", "Authorization: Bearer "+ph("KEY"), "Connection: close"))
	if !strings.HasPrefix(absolute, "HTTP/1.1 403 ") {
		t.Errorf("at another host: %s", absolute)
	}
	if got := o.all(); len(got) != 0 {
		t.Errorf("arrived: %+v", got)
	}
	eventually(t, "the three records", func() bool { return strings.Count(p.network.out.String(), `"/t/[CREDENTIAL]/x"`) >= 3 })
	for _, never := range []string{"resolve:env:", plainSecret("KEY")} {
		if strings.Contains(p.network.out.String()+p.network.err.String()+answer+string(body)+absolute, never) {
			t.Errorf("an answer, a record or the log contains %q", never)
		}
	}
}

// TestNothingPassesUnreadWhereCredentialsAreBound: rows 61 and 64.
func TestNothingPassesUnreadWhereCredentialsAreBound(t *testing.T) {
	origins, policy, file := relays(t)
	p := sealed(t, policy, file, relaySecrets).alone()
	for _, relay := range []string{"skip", "tcp"} {
		if _, status := tunnel(t, origins[relay].URL); !strings.HasPrefix(status, "403") || !strings.Contains(status, `"error":"uninspected_credentials"`) {
			t.Errorf("%s: %s", relay, status)
		}
	}
	if _, status := tunnel(t, origins["skipped"].URL); !strings.HasPrefix(status, "200") {
		t.Errorf("with allow_uninspected_credentials: %s", status)
	}
	for name, bytes := range map[string]string{"a banner": "SSH-2.0-test\r\n\r\n", "binary": "\x00\x01\x02\x03\x04\x05\x06\x07\r\n\r\n"} {
		c, _ := tunnel(t, origins["plain"].URL)
		_, _ = io.WriteString(c, bytes)
		out, _ := io.ReadAll(c)
		if !strings.HasPrefix(string(out), "HTTP/1.1 403 ") || !strings.Contains(string(out), "uninspected_credentials") {
			t.Errorf("%s in the tunnel: %q", name, out)
		}
		tc := p.secure(origins["plain"].URL)
		_, _ = io.WriteString(tc, bytes)
		out, _ = io.ReadAll(tc)
		if !strings.HasPrefix(string(out), "HTTP/1.1 403 ") || !strings.Contains(string(out), "uninspected_credentials") {
			t.Errorf("%s in TLS: %q", name, out)
		}
	}
	if got := origins["plain"].all(); len(got) != 0 {
		t.Errorf("arrived: %+v", got)
	}
	t.Run("a raw tunnel ends when its endpoint gets credentials", func(t *testing.T) {
		p.credentials("version: 1\ncredentials: {}\n")
		var c net.Conn
		eventually(t, "an open tunnel", func() bool {
			var status string
			c, status = tunnel(t, origins["tcp"].URL)
			return strings.HasPrefix(status, "200")
		})
		p.credentials(file)
		_, err := c.Read(make([]byte, 1))
		if ne, ok := err.(net.Error); err == nil || ok && ne.Timeout() {
			t.Errorf("the tunnel goes on: %v", err)
		}
	})
}

// TestRotationReachesTheNextRequest: row 63 and attack C14, on one kept connection.
func TestRotationReachesTheNextRequest(t *testing.T) {
	origins, policy, file := relays(t)
	p := sealed(t, policy, file, relaySecrets).alone()
	o := origins["rest"]
	tc := p.secure(o.URL, "http/1.1")
	r := bufio.NewReader(tc)
	ask := func() (int, string) {
		o.clear()
		_, _ = io.WriteString(tc, get("/", o.URL, "Authorization: Bearer openshell:resolve:env:v1_KEY"))
		resp, err := http.ReadResponse(r, nil)
		must(t, err)
		_, _ = io.Copy(io.Discard, resp.Body)
		if got := o.all(); len(got) == 1 {
			return resp.StatusCode, got[0].Header.Get("Authorization")
		}
		return resp.StatusCode, ""
	}
	if status, got := ask(); status != 200 || got != "Bearer "+plainSecret("KEY") {
		t.Fatalf("%d %q", status, got)
	}
	p.secret("KEY", "REALnewvalue2222")
	eventually(t, "the new value on the same connection", func() bool {
		_, got := ask()
		if got != "Bearer "+plainSecret("KEY") && got != "Bearer REALnewvalue2222" {
			t.Fatalf("got %q", got)
		}
		return got == "Bearer REALnewvalue2222"
	})
	must(t, os.Remove(filepath.Join(p.dir, "secrets", "KEY")))
	eventually(t, "a refusal, not the stale value", func() bool {
		status, _ := p.say(o.URL, get("/", o.URL, "Authorization: Bearer "+ph("KEY")))
		return status == "500"
	})
	p.secret("KEY", "REALthird33333333")
	eventually(t, "the third value", func() bool {
		status, _ := p.say(o.URL, get("/", o.URL, "Authorization: Bearer "+ph("KEY")))
		return status == "200"
	})
	p.credentials("version: 1\ncredentials: nonsense\n")
	eventually(t, "no key of a file that is not valid", func() bool {
		status, _ := p.say(o.URL, get("/", o.URL, "Authorization: Bearer "+ph("KEY")))
		return status == "500"
	})
}

// TestRotationUnderLoadFailsNoRequest: a Secret's mount changes as the kubelet changes it,
// while requests go on in every version of HTTP, on kept connections and on new ones.
func TestRotationUnderLoadFailsNoRequest(t *testing.T) {
	const rotations = 8
	value := func(n int) string { return fmt.Sprintf("REAL%03dvalue7f3a9c", n) }
	var newest, stale atomic.Int64
	o := origin(t, false, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		_, _ = io.Copy(io.Discard, r.Body)
		n, was := int64(0), newest.Load()
		if _, err := fmt.Sscanf(r.Header.Get("Authorization"), "Bearer REAL%03dvalue7f3a9c", &n); err != nil || n < was-1 {
			stale.Add(1)
		}
		for n > was && !newest.CompareAndSwap(was, n) {
			was = newest.Load()
		}
	}))
	p := sealed(t, "version: 1\n"+who+"network_policies:\n  a:\n    endpoints:\n      - {host: api.demo.test, port: "+o.port+", protocol: rest, access: full, enforcement: enforce, request_body_credential_rewrite: true}\n    binaries: [{path: \"/**\"}]\n",
		"version: 1\ncredentials:\n  KEY:\n    file: SECRETS/KEY\n    bindings: [{host: api.demo.test, port: "+o.port+"}]\n", nil)
	mount := func(n int) { // ..data is a link to a folder, and is replaced by another one
		dir := fmt.Sprintf("%s/secrets/..%d", p.dir, n)
		must(t, os.Mkdir(dir, 0o755))
		must(t, os.WriteFile(dir+"/KEY", []byte(value(n)), 0o444))
		must(t, os.Symlink(filepath.Base(dir), p.dir+"/secrets/..data_tmp"))
		must(t, os.Rename(p.dir+"/secrets/..data_tmp", p.dir+"/secrets/..data"))
		if n > 1 {
			must(t, os.RemoveAll(fmt.Sprintf("%s/secrets/..%d", p.dir, n-1)))
		}
	}
	mount(1)
	must(t, os.Symlink("..data/KEY", p.dir+"/secrets/KEY"))
	p.alone()

	proxy := func(*http.Request) (*url.URL, error) { return &url.URL{Scheme: "http", Host: standaloneAddress}, nil }
	clients := []*http.Client{p.client2(t), p.client2(t)}
	for i := range 6 {
		tr := &http.Transport{Proxy: proxy, TLSClientConfig: p.trust("http/1.1"), DisableKeepAlives: i < 3}
		t.Cleanup(tr.CloseIdleConnections)
		clients = append(clients, &http.Client{Transport: tr, Timeout: generous})
	}
	ask := func(c *http.Client) error {
		req, err := http.NewRequestWithContext(t.Context(), "POST", "https://"+o.URL+"/"+ph("KEY"), strings.NewReader(`{"k":"`+ph("KEY")+`"}`))
		if err != nil {
			return err
		}
		req.Header.Set("Authorization", "Bearer "+ph("KEY"))
		req.Header.Set("Content-Type", "application/json")
		resp, err := c.Do(req)
		if err != nil {
			return err
		}
		body, _ := io.ReadAll(resp.Body)
		resp.Body.Close()
		if resp.StatusCode != 200 {
			return fmt.Errorf("%s %s", resp.Status, body)
		}
		return nil
	}
	var wg sync.WaitGroup
	var over atomic.Bool
	rounds := make([]atomic.Int64, len(clients))
	for i, c := range clients {
		wg.Go(func() {
			for !over.Load() {
				if err := ask(c); err != nil {
					t.Errorf("client %d: %v", i, err)
					return
				}
				rounds[i].Add(1)
			}
		})
	}
	nothingOlder := func() { // whatever was under way, whoever's turn it is on a busy machine
		for i := range rounds {
			before := rounds[i].Load()
			eventually(t, "an answer to what was asked after this", func() bool { return rounds[i].Load() >= before+2 || t.Failed() })
		}
	}
	for n := 1; n <= rotations; n++ {
		if n > 1 {
			mount(n)
		}
		eventually(t, value(n), func() bool { return newest.Load() == int64(n) || t.Failed() })
		nothingOlder()
	}
	over.Store(true)
	wg.Wait()
	if n := stale.Load(); n > 0 {
		t.Errorf("%d requests arrived with no value, or with one that was replaced long before", n)
	}
}

// TestAnExpiryEndsNoRequestUnderWay: what was sent with a value that was good goes on to its
// end; what comes behind its expiry is refused, on the same connection, too.
func TestAnExpiryEndsNoRequestUnderWay(t *testing.T) {
	o, real := origin(t, false), plainSecret("KEY")
	until := func(at time.Time) string {
		return "version: 1\ncredentials:\n  KEY:\n    file: SECRETS/KEY\n    expires: \"" + at.UTC().Format(time.RFC3339) + "\"\n    bindings: [{host: api.demo.test, port: " + o.port + "}]\n"
	}
	p := sealed(t, "version: 1\n"+who+"network_policies:\n  a:\n    endpoints:\n      - {host: api.demo.test, port: "+o.port+", protocol: rest, access: full, enforcement: enforce}\n    binaries: [{path: \"/**\"}]\n",
		until(time.Now().Add(time.Hour)), map[string]string{"KEY": real}).alone()
	tc := p.secure(o.URL, "http/1.1")
	r := bufio.NewReader(tc)
	fmt.Fprintf(tc, "POST /p HTTP/1.1\r\nHost: %s\r\nX-Case: streams\r\nAuthorization: Bearer %s\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nfirst\r\n", o.URL, ph("KEY"))
	eventually(t, "the first part", func() bool { a := o.all(); return len(a) == 1 && a[0].Body == "first" })
	p.credentials(until(time.Now()))
	eventually(t, "the expiry", func() bool {
		status, answer := p.say(o.URL, get("/", o.URL, "Authorization: Bearer "+ph("KEY")))
		return status == "500" && strings.Contains(answer, "expired")
	})
	_, _ = io.WriteString(tc, "6\r\n, last\r\n0\r\n\r\n")
	for _, want := range []int{200, 500} {
		resp, err := http.ReadResponse(r, nil)
		must(t, err)
		_, _ = io.Copy(io.Discard, resp.Body)
		if resp.StatusCode != want {
			t.Errorf("status %s, want %d", resp.Status, want)
		}
		if want == 200 {
			_, _ = io.WriteString(tc, get("/", o.URL, "X-Case: behind", "Authorization: Bearer "+ph("KEY")))
		}
	}
	a, behind := o.of("streams"), o.of("behind")
	if len(a) != 1 || a[0].Body != "first, last" || a[0].Header.Get("Authorization") != "Bearer "+real || len(behind) > 0 {
		t.Errorf("arrived %+v, and behind the expiry %+v", a, behind)
	}
}

// TestEchoedValuesAreTakenOut: attacks C7 and C8.
func TestEchoedValuesAreTakenOut(t *testing.T) {
	origins, policy, file := relays(t)
	p := sealed(t, policy, strings.Replace(file, "file: SECRETS/KEY\n", "file: SECRETS/KEY\n    response_hygiene: bodies\n", 1), relaySecrets).alone()
	real := plainSecret("KEY")
	for _, field := range []string{"Bearer " + ph("KEY"), "Basic " + basicOf("user:"+ph("KEY"))} {
		status, answer := p.say(origins["rest"].URL, get("/echo", origins["rest"].URL, "Authorization: "+field, "Accept-Encoding: gzip"))
		if status != "200" || strings.Contains(answer, real) || strings.Contains(answer, basicOf(real)) || !strings.Contains(answer, "resolve:env:KEY") {
			t.Errorf("status %s, answer %s", status, answer)
		}
		if strings.Contains(answer, basicOf("user:" + real)[8:20]) {
			t.Errorf("base64 of the value is in %s", answer)
		}
	}
	for _, key := range []string{"QUOTED", "KEY"} { // the first says nothing of bodies
		status, answer := p.say(origins["rest"].URL, get("/echo", origins["rest"].URL, "Authorization: Bearer "+ph(key)))
		if status != "200" || strings.Contains(answer, "REAL") {
			t.Errorf("%s, a small answer: status %s, %s", key, status, answer)
		}
	}
	eventually(t, "a record that counts them", func() bool { return strings.Contains(p.network.out.String(), "echoed values taken out") })
}

// repeating is an origin that tells what it got in a coding that nobody asked for, or as
// something that is no text: the path says which, and whether its length is stated. In a
// coding that it does not know it only says so.
func repeating(w http.ResponseWriter, r *http.Request) {
	text := fmt.Sprintf("%v %s", r.Header, strings.Repeat("x", 3000)) // too long for a length of net/http's own
	coding, stated := strings.CutSuffix(strings.TrimPrefix(r.URL.Path, "/"), "/stated")
	var b bytes.Buffer
	var z io.WriteCloser
	switch coding {
	case "gzip":
		z = gzip.NewWriter(&b)
	case "deflate":
		z = zlib.NewWriter(&b)
	default:
		z = struct {
			io.Writer
			io.Closer
		}{&b, io.NopCloser(nil)}
	}
	_, _ = io.WriteString(z, text)
	_ = z.Close()
	w.Header().Set("Content-Type", "text/plain")
	switch coding {
	case "none":
	case "binary":
		w.Header().Set("Content-Type", "application/octet-stream")
	case "untyped":
		w.Header()["Content-Type"] = nil
	case "grpc": // one message, which says that it is compressed
		w.Header().Set("Content-Type", "application/grpc")
		_, _ = w.Write([]byte{1, 0, 0, byte(b.Len() >> 8), byte(b.Len())})
	default:
		w.Header().Set("Content-Encoding", coding)
	}
	if stated {
		w.Header().Set("Content-Length", fmt.Sprint(b.Len()))
	} else {
		w.(http.Flusher).Flush()
	}
	_, _ = w.Write(b.Bytes())
}

// TestEchoesInOtherCodingsAreTakenOut: origins are asked for none, and some use one
// nevertheless; by HTTP/1.1 and HTTP/2, of a key that says nothing of bodies.
func TestEchoesInOtherCodingsAreTakenOut(t *testing.T) {
	o := origin(t, false, http.HandlerFunc(repeating))
	real := plainSecret("KEY")
	p := sealed(t, "version: 1\n"+who+"network_policies:\n  a:\n    endpoints:\n      - {host: api.demo.test, port: "+o.port+", protocol: rest, access: full, enforcement: enforce}\n    binaries: [{path: \"/**\"}]\n",
		"version: 1\ncredentials:\n  KEY:\n    file: SECRETS/KEY\n    bindings: [{host: api.demo.test, port: "+o.port+"}]\n", map[string]string{"KEY": real}).alone()
	c := p.client2(t)
	for _, coding := range []string{"none", "gzip", "deflate"} {
		for _, stated := range []string{"", "/stated"} {
			_, first := p.say(o.URL, get("/"+coding+stated, o.URL, "Authorization: Bearer "+ph("KEY"), "Accept-Encoding: gzip, br"))
			req, err := http.NewRequestWithContext(t.Context(), "GET", "https://"+o.URL+"/"+coding+stated, nil)
			must(t, err)
			req.Header.Set("Authorization", "Bearer "+ph("KEY"))
			req.Header.Set("Accept-Encoding", "gzip")
			resp, err := c.Do(req)
			must(t, err)
			body, _ := io.ReadAll(resp.Body)
			resp.Body.Close()
			for version, answer := range map[string]string{"HTTP/1.1": first, "HTTP/2": fmt.Sprint(resp.Header, string(body))} {
				if strings.Contains(answer, real) || strings.Contains(answer, "Content-Encoding") || !strings.Contains(answer, "Authorization:[Bearer "+ph("KEY")) || !strings.Contains(answer, "Accept-Encoding:[identity]") {
					t.Errorf("%s%s by %s: %.400s", coding, stated, version, answer)
				}
			}
		}
	}
	// Without a credential everything is as the two ends want it.
	if _, answer := p.say(o.URL, get("/gzip", o.URL, "Accept-Encoding: br")); !strings.Contains(answer, "Content-Encoding: gzip") {
		t.Errorf("an answer without a credential is changed: %.300s", answer)
	}
	if out := p.network.out.String() + p.network.err.String(); strings.Contains(out, real) {
		t.Error("the records or the log contain the value")
	}
}

// TestEchoesInBinariesAreCovered: what is not known to be text keeps its length, by
// HTTP/1.1 and HTTP/2.
func TestEchoesInBinariesAreCovered(t *testing.T) {
	p, o, real := echoing(t, "headers")
	for _, kind := range []string{"binary", "untyped"} {
		for _, stated := range []string{"", "/stated"} {
			for version, answer := range answersOf(t, p, o, "/"+kind+stated, "KEY") {
				if answer.status != 200 || strings.Contains(answer.text, real) || !strings.Contains(answer.text, "Authorization:[Bearer "+covered(real)+"]") || (answer.length > 0) != (stated != "") {
					t.Errorf("%s%s by %s: %+v", kind, stated, version, answer)
				}
			}
		}
	}
}

// TestAnswersThatCannotBeReadAreRefused: text in a coding that nobody asked for and that
// is not taken off, unless the key says that nobody looks.
func TestAnswersThatCannotBeReadAreRefused(t *testing.T) {
	p, o, real := echoing(t, "headers")
	for _, coding := range []string{"br", "zstd/stated"} {
		for version, answer := range answersOf(t, p, o, "/"+coding, "KEY") {
			if answer.status != 502 || !strings.Contains(answer.text, `"error":"uninspected_response"`) || strings.Contains(answer.text, real) {
				t.Errorf("%s by %s: %+v", coding, version, answer)
			}
		}
	}
	messages := answersOf(t, p, o, "/grpc", "KEY") // whose head may pass
	if a := messages["HTTP/2"]; a.status != 200 || a.text != "" || strings.Contains(messages["HTTP/1.1"].text, real) {
		t.Errorf("a compressed message: %+v", messages)
	}
	eventually(t, "records with the reason", func() bool { return strings.Count(p.network.out.String(), `"reason":"uninspected_response"`) == 6 })
	p.network.kill(syscall.SIGTERM)
	<-p.network.ended

	p, o, real = echoing(t, "none")
	for version, answer := range answersOf(t, p, o, "/br", "KEY") {
		if answer.status != 200 || !strings.Contains(answer.text, real) {
			t.Errorf("of a key that is not looked for, by %s: %+v", version, answer)
		}
	}
}

// echoing is a daemon with one key for an origin that repeats what it gets.
func echoing(t *testing.T, hygiene string) (p *pair, o *sink, real string) {
	t.Helper()
	o, real = origin(t, false, http.HandlerFunc(repeating)), plainSecret("KEY")
	p = sealed(t, "version: 1\n"+who+"network_policies:\n  a:\n    endpoints:\n      - {host: api.demo.test, port: "+o.port+", protocol: rest, access: full, enforcement: enforce}\n    binaries: [{path: \"/**\"}]\n",
		"version: 1\ncredentials:\n  KEY:\n    file: SECRETS/KEY\n    response_hygiene: "+hygiene+"\n    bindings: [{host: api.demo.test, port: "+o.port+"}]\n", map[string]string{"KEY": real}).alone()
	return p, o, real
}

type answered struct {
	status int   // 0: the connection was cut
	length int64 // -1: not stated
	text   string
}

// answersOf are the answers to one request with a key, by version of HTTP.
func answersOf(t *testing.T, p *pair, o *sink, path, key string) map[string]answered {
	t.Helper()
	one := &http.Transport{DialTLSContext: func(context.Context, string, string) (net.Conn, error) { return p.secure(o.URL, "http/1.1"), nil }}
	t.Cleanup(one.CloseIdleConnections)
	out := map[string]answered{}
	for version, c := range map[string]*http.Client{"HTTP/1.1": {Transport: one}, "HTTP/2": p.client2(t)} {
		req, err := http.NewRequestWithContext(t.Context(), "GET", "https://"+o.URL+path, nil)
		must(t, err)
		req.Header.Set("Authorization", "Bearer "+ph(key))
		req.Header.Set("Accept-Encoding", "br")
		resp, err := c.Do(req)
		if err != nil {
			out[version] = answered{text: err.Error()}
			continue
		}
		body, _ := io.ReadAll(resp.Body)
		resp.Body.Close()
		out[version] = answered{resp.StatusCode, resp.ContentLength, string(body)}
	}
	return out
}

func TestCredentialsThatAreNotValidStartNothing(t *testing.T) {
	p := sealed(t, policyText, "version: 1\ncredentials:\n  KEY: {file: relative}\n", nil)
	p.startNetwork("--listen", standaloneAddress, "--identity", "ignore", "--credentials", p.dir+"/config/credentials.yaml")
	if code := p.network.wait(t); code != 78 || !strings.Contains(p.network.err.String(), "credentials.yaml:3:") {
		t.Errorf("exit code %d, %s", code, p.network.err)
	}
}
