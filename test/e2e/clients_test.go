package e2e_test

import (
	"bytes"
	"context"
	"crypto/tls"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/splitpod/splitpod/test/need"
)

// clientPolicy lets every client do one thing and forbids it another, on one host,
// whose endpoints are told apart by their paths.
const clientPolicy = "version: 1\n" + who + `network_policies:
  site:
    endpoints:
      - {host: api.demo.test, ports: [7011, 7013], path: "/ok/**", protocol: rest, enforcement: enforce, rules: [{allow: {method: GET, path: "/ok/**"}}, {allow: {method: POST, path: "/ok/**"}}]}
      - {host: api.demo.test, port: 7011, path: "/denied", protocol: rest, enforcement: enforce, rules: [{allow: {method: PUT, path: "/denied"}}]}
      - {host: api.demo.test, port: 7011, path: "/npm/**", protocol: rest, enforcement: enforce, access: read-only, allow_encoded_slash: true, deny_rules: [{method: GET, path: "/npm/evil"}, {method: GET, path: "/npm/@evil/**"}]}
      - {host: api.demo.test, port: 7011, path: "/pypi/**", protocol: rest, enforcement: enforce, access: read-only, deny_rules: [{method: GET, path: "/pypi/evil/"}]}
      - {host: api.demo.test, port: 7011, path: "/ws", protocol: websocket, enforcement: enforce, access: read-write}
      - {host: api.demo.test, port: 7011, path: "/ws-quiet", protocol: websocket, enforcement: enforce, access: read-only}
      - {host: api.demo.test, port: 7011, path: "/graphql", protocol: graphql, enforcement: enforce, rules: [{allow: {operation_type: query, fields: [viewer]}}]}
      - {host: api.demo.test, port: 7011, path: "/rpc", protocol: json-rpc, enforcement: enforce, rules: [{allow: {method: eth_call}}]}
      - {host: api.demo.test, port: 7011, path: "/mcp", protocol: mcp, enforcement: enforce, rules: [{allow: {method: initialize}}, {allow: {method: "notifications/initialized"}}, {allow: {method: "tools/list"}}, {allow: {method: tools/call, tool: "read_*"}}, {allow: {method: ping}}]}
      - host: api.demo.test
        port: 7012
        protocol: rest
        enforcement: enforce
        rules:
          - allow: {method: POST, path: "/grpc.testing.TestService/*Call"}
        deny_rules:
          - {method: POST, path: "/grpc.testing.TestService/EmptyCall"}
    binaries: [{path: /usr/bin/curl}]
  git:
    endpoints:
      - {host: git.demo.test, port: 443, protocol: rest, enforcement: enforce, rules: [{allow: {method: GET, path: /repo.git/info/refs, query: {service: git-upload-pack}}}, {allow: {method: POST, path: /repo.git/git-upload-pack}}]}
      - {host: api.demo.test, port: 443, protocol: rest, enforcement: enforce, rules: [{allow: {method: GET, path: "/repo.git/**"}}, {allow: {method: POST, path: "/repo.git/**"}}]}
      - {host: api.demo.test, port: 7011, path: "/ok/git/**", protocol: rest, enforcement: enforce, rules: [{allow: {method: GET, path: "/ok/git/**"}}, {allow: {method: POST, path: "/ok/git/**"}}]}
    binaries: [{path: /usr/bin/git}]
`

const siteURL = "https://api.demo.test:7011"

// clientWorld is a daemon, an origin and an environment in which programs find both.
type clientWorld struct {
	*pair
	site *site
	dir  string // with the clients' libraries
	env  []string
}

func newClientWorld(t *testing.T, args ...string) *clientWorld {
	t.Helper()
	w := &clientWorld{site: startSite(t)}
	w.pair = standalone(t, clientPolicy, args...)
	home, ca := t.TempDir(), w.caFile()
	proxy := "http://" + standaloneAddress
	w.env = []string{"PATH=/usr/local/bin:/usr/bin:/bin", "LANG=C.UTF-8", "HOME=" + home, "HTTPS_PROXY=" + proxy, "https_proxy=" + proxy, "HTTP_PROXY=" + proxy,
		"SSL_CERT_FILE=" + ca, "REQUESTS_CA_BUNDLE=" + ca, "CURL_CA_BUNDLE=" + ca, "NODE_EXTRA_CA_CERTS=" + ca, "GIT_SSL_CAINFO=" + ca, "PIP_CERT=" + ca, "GIT_TERMINAL_PROMPT=0"}
	return w
}

// libraries says where the clients' libraries are, which test/setup.sh installs.
func (w *clientWorld) libraries(t *testing.T) {
	t.Helper()
	script, err := filepath.Abs("../clients.sh")
	must(t, err)
	need.Program(t, "bash")
	out, err := exec.Command("bash", script).Output()
	must(t, err)
	w.dir = strings.TrimSpace(string(out))
	w.env = append(w.env, "CLIENTS="+w.dir)
}

func (w *clientWorld) python() string { return w.dir + "/venv/bin/python3" }

// run runs a client to its end.
func (w *clientWorld) run(t *testing.T, argv ...string) (code int, stdout, stderr string) {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), generous)
	defer cancel()
	cmd := exec.CommandContext(ctx, argv[0], argv[1:]...)
	cmd.Env = w.env
	var out, errs bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &errs
	err := cmd.Run()
	if cmd.ProcessState == nil {
		t.Fatal(err)
	}
	return cmd.ProcessState.ExitCode(), out.String(), errs.String()
}

// result is one case of a client's program.
type result struct {
	Case    string
	Status  int
	Policy  string
	Body    string
	Version string
	Failed  string
	Heard   []string
	Code    int
	Reason  string
}

func results(t *testing.T, out string) map[string]result {
	t.Helper()
	all := map[string]result{}
	for line := range strings.Lines(out) {
		var r result
		if err := json.Unmarshal([]byte(line), &r); err != nil {
			t.Fatalf("the client says %q: %v", line, err)
		}
		all[r.Case] = r
	}
	return all
}

// structured checks the body of a refusal by rules.
func structured(t *testing.T, r result, method, path, protocol string) {
	t.Helper()
	var body struct {
		Error, Policy, Rule, Detail, Layer, Protocol, Method, Path, Host string
		Port                                                             int
		Missing                                                          map[string]any `json:"rule_missing"`
		NextSteps                                                        []any          `json:"next_steps"`
		Guidance                                                         string         `json:"agent_guidance"`
		RequestID                                                        string         `json:"request_id"`
	}
	if err := json.Unmarshal([]byte(r.Body), &body); err != nil {
		t.Errorf("%s: %v in %q; %s", r.Case, err, r.Body, r.Failed)
		return
	}
	if r.Status != 403 || r.Policy != "site" || body.Error != "policy_denied" || body.Policy != "site" || body.Rule != method+" "+path || body.Detail == "" || body.Layer != "l7" ||
		body.Protocol != protocol || body.Method != method || body.Path != path || body.Host != "api.demo.test" || body.Port == 0 || body.Missing["type"] != "rest_allow" ||
		body.Missing["path"] != path || body.NextSteps == nil || len(body.NextSteps) > 0 || body.Guidance != "" || body.RequestID == "" {
		t.Errorf("%s: status %d, policy %q, body %s", r.Case, r.Status, r.Policy, r.Body)
	}
}

// usual checks the cases that every client has.
func (w *clientWorld) usual(t *testing.T, got map[string]result) {
	t.Helper()
	for _, name := range []string{"get", "post", "chunked", "again"} {
		want := "got 100000"
		if name == "get" || name == "again" {
			want = "hello HTTP/1.1"
		}
		if r := got[name]; r.Status != 200 || r.Body != want {
			t.Errorf("%s: %+v", name, r)
		}
	}
	structured(t, got["method"], "DELETE", "/ok/hello", "rest")
	structured(t, got["path"], "GET", "/denied", "rest")
	if r := got["host"]; !strings.Contains(r.Failed, "403") {
		t.Errorf("a host no rule names: %+v", r)
	}
	if came, want := w.site.arrived(), []string{"GET /ok/hello", "POST /ok/echo", "POST /ok/echo", "GET /ok/hello"}; !slices.Equal(came, want) {
		t.Errorf("the origin got %q, want %q", came, want)
	}
}

// TestHTTPClients: real clients, each allowed and refused by method, path and host.
func TestHTTPClients(t *testing.T) {
	w := newClientWorld(t)
	w.libraries(t)
	node := need.Program(t, "node")
	other := "https://other.demo.test:7009"
	for name, argv := range map[string][]string{
		"requests":       {w.python(), "testdata/clients/with_requests.py", siteURL, other},
		"httpx, HTTP/1":  {w.python(), "testdata/clients/with_httpx.py", siteURL, other, "h1"},
		"httpx, HTTP/2":  {w.python(), "testdata/clients/with_httpx.py", siteURL, other, "h2"},
		"Node's fetch":   {node, "testdata/clients/fetch.mjs", siteURL, other},
		"curl, HTTP/1.1": {"bash", "testdata/clients/curl.sh", siteURL, other, "--http1.1"},
		"curl, HTTP/2":   {"bash", "testdata/clients/curl.sh", siteURL, other, "--http2"},
	} {
		t.Run(name, func(t *testing.T) {
			code, out, errs := w.run(t, argv...)
			if code != 0 {
				t.Fatalf("exit code %d: %s%s", code, out, errs)
			}
			got := results(t, out)
			w.usual(t, got)
			if strings.Contains(name, "HTTP/2") && got["get"].Version != "HTTP/2" {
				t.Errorf("it spoke %q", got["get"].Version)
			}
			if r := got["bare"]; strings.Contains(name, "Node") && r.Status != 200 {
				t.Errorf("a CONNECT that names the proxy: %+v", r)
			}
		})
	}
	for name, version := range map[string]int{"Go, HTTP/1.1": 1, "Go, HTTP/2": 2} {
		t.Run(name, func(t *testing.T) { w.usual(t, w.goClient(t, other, version)) })
	}
}

// TestARefusedUploadIsAnswered, also where a client reads nothing before it has sent
// everything.
func TestARefusedUploadIsAnswered(t *testing.T) {
	w := newClientWorld(t)
	w.libraries(t)
	code, out, errs := w.run(t, w.python(), "testdata/clients/upload.py", siteURL+"/denied")
	if code != 0 {
		t.Fatalf("exit code %d: %s%s", code, out, errs)
	}
	got := results(t, out)
	if len(got) != 6 {
		t.Errorf("%d cases", len(got))
	}
	for _, r := range got {
		structured(t, r, "POST", "/denied", "rest")
	}
	for _, version := range []string{"--http1.1", "--http2"} {
		for name, argv := range map[string]string{"whole": "--data-binary @data -H Expect:", "in pieces": "-X POST -T - <data"} {
			code, out, errs := w.run(t, "bash", "-c", "cd && head -c 4000000 /dev/zero >data && curl -sS "+version+" "+siteURL+"/denied "+argv)
			if code != 0 {
				t.Errorf("curl %s, %s: exit code %d: %s", version, name, code, errs)
			}
			structured(t, result{Case: "curl " + version + ", " + name, Status: 403, Policy: "site", Body: out}, "POST", "/denied", "rest")
		}
	}
	if came := w.site.arrived(); len(came) > 0 {
		t.Errorf("the origin got %q", came)
	}
}

// client is a Go client that goes through the daemon.
func (w *clientWorld) client(version int) *http.Client {
	proxy, _ := url.Parse("http://" + standaloneAddress)
	tr := &http.Transport{Proxy: http.ProxyURL(proxy), TLSClientConfig: &tls.Config{RootCAs: w.interceptionRoots()}, Protocols: &http.Protocols{}}
	tr.Protocols.SetHTTP1(version == 1)
	tr.Protocols.SetHTTP2(version == 2)
	w.t.Cleanup(tr.CloseIdleConnections)
	return &http.Client{Transport: tr, Timeout: generous}
}

func (w *clientWorld) goClient(t *testing.T, other string, version int) map[string]result {
	t.Helper()
	c := w.client(version)
	out := map[string]result{}
	one := func(name, method, url string, body io.Reader) {
		r := result{Case: name}
		req, err := http.NewRequest(method, url, body)
		must(t, err)
		resp, err := c.Do(req)
		if err != nil {
			r.Failed = strings.ReplaceAll(err.Error(), "Forbidden (policy_denied: endpoint other.demo.test:7009 is not allowed by any policy, request ", "403")
			out[name] = r
			return
		}
		defer resp.Body.Close()
		if resp.ProtoMajor != version {
			t.Errorf("%s: it spoke %s", name, resp.Proto)
		}
		data, err := io.ReadAll(resp.Body)
		must(t, err)
		r.Status, r.Policy, r.Body = resp.StatusCode, resp.Header.Get("X-OpenShell-Policy"), string(data)
		out[name] = r
	}
	one("get", "GET", siteURL+"/ok/hello", nil)
	one("post", "POST", siteURL+"/ok/echo", strings.NewReader(strings.Repeat("x", 100000)))
	one("chunked", "POST", siteURL+"/ok/echo", io.LimitReader(zeroes{}, 100000))
	one("method", "DELETE", siteURL+"/ok/hello", nil)
	one("path", "GET", siteURL+"/denied", nil)
	one("host", "GET", other+"/", nil)
	one("again", "GET", siteURL+"/ok/hello", nil)
	return out
}

// TestVersionsOfHTTPMeet: each of a client's versions with each of an origin's.
func TestVersionsOfHTTPMeet(t *testing.T) {
	w := newClientWorld(t)
	for _, version := range []int{1, 2} {
		for _, port := range []int{sitePort, http2Port} {
			t.Run(fmt.Sprintf("HTTP/%d to port %d", version, port), func(t *testing.T) {
				c := w.client(version)
				for range 2 {
					resp, err := c.Post(fmt.Sprintf("https://api.demo.test:%d/ok/echo", port), "", strings.NewReader("0123456789"))
					must(t, err)
					data, err := io.ReadAll(resp.Body)
					resp.Body.Close()
					if err != nil || string(data) != "got 10" || resp.ProtoMajor != version {
						t.Errorf("%s %s %q %v", resp.Proto, resp.Status, data, err)
					}
				}
			})
		}
	}
}

// TestGitClonesAndPushes, and does not push where no rule allows it.
func TestGitClonesAndPushes(t *testing.T) {
	need.Program(t, "git")
	w := newClientWorld(t)
	script := `set -e
cd "$HOME"
git clone -q https://git.demo.test/repo.git read
git clone -q https://api.demo.test/repo.git write
cd write
date > file
git add file
git -c user.name=a -c user.email=a@demo.test commit -qm second
git push -q origin HEAD:refs/heads/pushed-$$
cd ../read
if git push -q origin HEAD:refs/heads/never 2> refused; then echo "pushed where it must not"; exit 1; fi
grep -q 403 refused || { cat refused; exit 1; }
git fetch -q origin
git branch -r | grep -q pushed || { echo "the push is not there"; exit 1; }
git branch -r | grep -q never && { echo "the refused push is there"; exit 1; }
echo fine`
	if code, out, errs := w.run(t, "bash", "-c", script); code != 0 || !strings.HasSuffix(out, "fine\n") {
		t.Errorf("exit code %d: %s%s", code, out, errs)
	}
}

// TestALargePushReachesCGI: git states no length of what it has not in memory, and CGI
// takes that in HTTP/2 and not in chunks. What was pushed is cloned again.
func TestALargePushReachesCGI(t *testing.T) {
	need.Program(t, "git")
	w := newClientWorld(t)
	script := `set -e
cd "$HOME"
git clone -q https://api.demo.test/repo.git write
cd write
head -c 8388608 /dev/urandom > large
git add large
git -c user.name=a -c user.email=a@demo.test commit -qm large
git -c http.version=HTTP/2 push -q ` + siteURL + `/ok/git/repo.git HEAD:refs/heads/large-$$
cd ..
git -c http.version=HTTP/2 clone -q --depth 1 --branch large-$$ ` + siteURL + `/ok/git/repo.git read
cmp write/large read/large
echo fine`
	if code, out, errs := w.run(t, "bash", "-c", script); code != 0 || !strings.HasSuffix(out, "fine\n") {
		t.Errorf("exit code %d: %s%s", code, out, errs)
	}
}

// TestPackageManagers: npm and pip against registries of the origin.
func TestPackageManagers(t *testing.T) {
	w := newClientWorld(t)
	w.libraries(t)
	npm := need.Program(t, "npm")
	dir := t.TempDir()
	install := func(name string) (int, string, string) {
		return w.run(t, npm, "install", "--prefix", dir, "--registry", siteURL+"/npm/", "--cafile", w.caFile(), "--https-proxy", "http://"+standaloneAddress,
			"--no-audit", "--no-fund", "--fetch-retries", "0", "--no-update-notifier", name)
	}
	for _, name := range []string{"tiny", "@demo/tiny"} { // the second one's slash is %2f
		if code, out, errs := install(name); code != 0 {
			t.Errorf("npm install: %d: %s%s", code, out, errs)
		} else if _, err := os.Stat(dir + "/node_modules/" + name + "/index.js"); err != nil {
			t.Error(err)
		}
	}
	for _, name := range []string{"evil", "@evil/tiny"} {
		if code, out, errs := install(name); code == 0 || !strings.Contains(out+errs, "403") {
			t.Errorf("npm install of what is denied: %d: %s%s", code, out, errs)
		}
	}
	pip := func(name string) (int, string, string) {
		return w.run(t, w.python(), "-m", "pip", "install", "--disable-pip-version-check", "--no-cache-dir", "--retries", "0", "--timeout", "120", "--index-url", siteURL+"/pypi", "--target", dir+"/py", name)
	}
	if code, out, errs := pip("tiny"); code != 0 {
		t.Errorf("pip install: %d: %s%s", code, out, errs)
	} else if _, err := os.Stat(dir + "/py/tiny.py"); err != nil {
		t.Error(err)
	}
	if code, out, errs := pip("evil"); code == 0 {
		t.Errorf("pip install of what is denied: %d: %s%s", code, out, errs)
	}
	for _, came := range w.site.arrived() {
		if strings.Contains(came, "evil") {
			t.Errorf("the registry got %s", came)
		}
	}
}

// TestClientsInASandbox: the same endpoints from inside, by programs that know nothing
// but their environment; a program that no rule names is refused the same request.
func TestClientsInASandbox(t *testing.T) {
	need.Program(t, "python3")
	s := startSite(t)
	policy := strings.Replace(clientPolicy, "    binaries: [{path: /usr/bin/curl}]\n", "    binaries: [{path: /usr/bin/curl}, {path: /usr/bin/python3}]\n", 1)
	script := `
for v in --http1.1 --http2; do
  curl -sS $v https://api.demo.test:7011/ok/hello -w ' %{http_code}\n'
  curl -sS $v -X DELETE https://api.demo.test:7011/ok/hello -w ' %{http_code}\n'
done
python3 -c '
import urllib.request, urllib.error
print(urllib.request.urlopen("https://api.demo.test:7011/ok/hello").read().decode(), 200)
try:
    urllib.request.urlopen("https://api.demo.test:7011/denied")
except urllib.error.HTTPError as e:
    print(e.read().decode(), e.code)
'
perl -e '
use IO::Socket::INET;
my $s = IO::Socket::INET->new(PeerAddr => "127.0.0.1:3128") or die;
print $s "CONNECT api.demo.test:7011 HTTP/1.1\r\nHost: api.demo.test:7011\r\n\r\n";
$_ = join "", <$s>; s/\r\n/ /g; print "$_ perl\n";
'
`
	need.Program(t, "perl")
	p, code, all := run(t, policy, "sh", "-c", script)
	lines := strings.Split(strings.TrimSpace(p.process.out.String()), "\n")
	if code != 0 || len(lines) != 7 {
		t.Fatalf("exit code %d, %q", code, all)
	}
	for i, line := range lines {
		cut := strings.LastIndexByte(line, ' ')
		body, status := line[:cut], line[cut+1:]
		switch {
		case i == 6:
			if status != "perl" || !strings.HasPrefix(body, "HTTP/1.1 403 ") || !strings.Contains(body, `"policy_denied"`) {
				t.Errorf("another program: %q", line)
			}
		case i%2 == 0:
			if body != "hello HTTP/1.1" || status != "200" {
				t.Errorf("line %d: %q", i, line)
			}
		default:
			method, path := "DELETE", "/ok/hello"
			if i == 5 {
				method, path = "GET", "/denied"
			}
			structured(t, result{Case: line, Status: 403, Policy: "site", Body: body}, method, path, "rest")
		}
	}
	if came := s.arrived(); len(came) != 3 {
		t.Errorf("the origin got %q", came)
	}
}

// TestProgramsThatReadNoVariablesTrustTheCA, where the image has its roots (wget, and what
// an npmrc or the like says): also without any environment, and the image's own file is
// what it was.
func TestProgramsThatReadNoVariablesTrustTheCA(t *testing.T) {
	const file = "/etc/ssl/certs/ca-certificates.crt"
	before := need.File(t, file)
	startSite(t)
	p, code, all := run(t, clientPolicy, "sh", "-c", `cmp "$SSL_CERT_FILE" `+file+` && env -i /usr/bin/curl -sS --cacert `+file+` -x "$HTTPS_PROXY" `+siteURL+`/ok/hello && ! echo x 2>/dev/null >>`+file)
	if code != 0 || p.process.out.String() != "hello HTTP/1.1" {
		t.Errorf("exit code %d, %s", code, all)
	}
	if after, err := os.ReadFile(file); err != nil || !bytes.Equal(before, after) {
		t.Errorf("the image's own file was changed: %v", err)
	}
}
