package e2e_test

import (
	"bufio"
	"context"
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/coder/websocket"

	"github.com/splitpod/splitpod/test/need"
)

// publicAddress is one that this world has and that is not private.
const publicAddress = "11.77.0.1"

// startPublic serves HTTP, HTTPS with WebSockets, and a protocol of its own in which
// the server speaks first, on the public address.
func startPublic(t *testing.T) {
	t.Helper()
	need.Program(t, "ip")
	if out, err := exec.Command("ip", "addr", "replace", publicAddress+"/32", "dev", "lo").CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	mux := http.NewServeMux()
	mux.HandleFunc("/ws/", echoMessages)
	mux.HandleFunc("/", func(w http.ResponseWriter, r *http.Request) { fmt.Fprint(w, r.Method, " ", r.URL.Path) })
	cert, err := origins.Certificate(func(c *x509.Certificate) { c.IPAddresses = []net.IP{net.ParseIP(publicAddress)} })
	must(t, err)
	srv := &http.Server{Handler: mux, ErrorLog: log.New(io.Discard, "", 0), TLSConfig: &tls.Config{Certificates: []tls.Certificate{cert}, NextProtos: []string{"http/1.1"}}}
	t.Cleanup(func() { srv.Close() })
	for port, serve := range map[string]func(net.Listener) error{"80": srv.Serve, "443": func(l net.Listener) error { return srv.ServeTLS(l, "", "") }} {
		l, err := net.Listen("tcp", net.JoinHostPort(publicAddress, port))
		must(t, err)
		go func() { _ = serve(l) }()
	}
	raw, err := net.Listen("tcp", net.JoinHostPort(publicAddress, "2525"))
	must(t, err)
	t.Cleanup(func() { raw.Close() })
	go func() {
		for {
			c, err := raw.Accept()
			if err != nil {
				return
			}
			fmt.Fprint(c, "220 hello\n")
			c.Close()
		}
	}()
}

// traffic sends one thing of each kind through the proxy, and says how each went.
type traffic struct {
	t      *testing.T
	client *http.Client
}

func trafficOf(t *testing.T, p *pair) *traffic {
	proxy, err := url.Parse("http://" + standaloneAddress)
	must(t, err)
	return &traffic{t, &http.Client{Timeout: generous, Transport: &http.Transport{Proxy: http.ProxyURL(proxy), DisableKeepAlives: true,
		TLSClientConfig: &tls.Config{RootCAs: p.interceptionRoots(), NextProtos: []string{"http/1.1"}}}}}
}

func (tr *traffic) request(method, url string) string {
	req, err := http.NewRequest(method, url, nil)
	must(tr.t, err)
	resp, err := tr.client.Do(req)
	if err != nil {
		return err.Error()
	}
	defer resp.Body.Close()
	body, _ := io.ReadAll(resp.Body)
	return fmt.Sprint(resp.StatusCode, " ", string(body))
}

func (tr *traffic) socket(path string) string {
	ctx, cancel := context.WithTimeout(tr.t.Context(), generous)
	defer cancel()
	c, resp, err := websocket.Dial(ctx, "wss://"+publicAddress+path, &websocket.DialOptions{HTTPClient: tr.client})
	if err != nil {
		if resp != nil {
			return fmt.Sprint(resp.StatusCode)
		}
		return err.Error()
	}
	defer c.CloseNow()
	if err := c.Write(ctx, websocket.MessageText, []byte("hello")); err != nil {
		return err.Error()
	}
	_, data, err := c.Read(ctx)
	return fmt.Sprint(string(data), err)
}

func (tr *traffic) raw(port string) string {
	c, status := tunnel(tr.t, net.JoinHostPort(publicAddress, port))
	defer c.Close()
	if !strings.HasPrefix(status, "200") {
		return status
	}
	line, _ := bufio.NewReader(c).ReadString('\n')
	return line
}

// seen is everything that is learned, and what each answers.
func (tr *traffic) seen() map[string]string {
	const https = "https://" + publicAddress
	out := make(map[string]string)
	for _, r := range []string{"GET " + https + "/items/1001", "GET " + https + "/items/1002", "POST " + https + "/items", "GET http://" + publicAddress + "/x"} {
		method, url, _ := strings.Cut(r, " ")
		out[r] = tr.request(method, url)
	}
	out["socket"] = tr.socket("/ws/echo")
	out["raw"] = tr.raw("2525")
	return out
}

// TestLearning: what a workload does at public destinations is let pass and seen in full
// where it can be seen; the policy that is exported passes its check, allows exactly
// that when it is enforced, and nothing beside it.
func TestLearning(t *testing.T) {
	startPublic(t)
	p := standalone(t, advisedPolicy, "--learn", "1h")
	want := map[string]string{
		"GET https://" + publicAddress + "/items/1001": "200 GET /items/1001", "GET https://" + publicAddress + "/items/1002": "200 GET /items/1002",
		"POST https://" + publicAddress + "/items": "200 POST /items", "GET http://" + publicAddress + "/x": "200 GET /x",
		"socket": "hello<nil>", "raw": "220 hello\n",
	}
	check := func(when string) {
		for what, answer := range trafficOf(t, p).seen() {
			if answer != want[what] {
				t.Errorf("%s: %s: %q", when, what, answer)
			}
		}
	}
	check("while learning")
	if out := talk(t, "GET http://other.demo.test/ HTTP/1.1\r\nHost: other.demo.test\r\n\r\n"); !strings.HasPrefix(out, "HTTP/1.1 403") || !strings.Contains(out, "ssrf_denied") {
		t.Errorf("a private destination: %q", out)
	}
	if !strings.Contains(p.network.err.String(), "learning") {
		t.Error("the log does not say that it learns")
	}
	var learned string
	eventually(t, "what was learned", func() bool {
		learned, _ = p.operator("learn", "export")
		return strings.Contains(learned, "2525") && strings.Contains(learned, "WEBSOCKET_TEXT")
	})
	p.network.kill(15)
	p.network.wait(t)
	for _, line := range []string{`path: "/items/*"`, "protocol: websocket"} {
		if !strings.Contains(learned, line) {
			t.Errorf("no %q in\n%s", line, learned)
		}
	}

	file := filepath.Join(p.dir, "config", "learned.yaml")
	must(t, os.WriteFile(file, []byte(learned), 0o644))
	if code, out, errs := command(t, "supervisor-network", "policy", "check", file); code != 0 {
		t.Fatalf("policy check of what was learned: %d %s%s\n%s", code, out, errs, learned)
	}
	p = standalone(t, learned)
	check("by the policy that was learned")
	tr := trafficOf(t, p)
	for what, answer := range map[string]string{
		"another path":               tr.request("GET", "https://"+publicAddress+"/other"),
		"a path below":               tr.request("GET", "https://"+publicAddress+"/items/1001/more"),
		"another method":             tr.request("DELETE", "https://"+publicAddress+"/items/1001"),
		"another path without TLS":   tr.request("GET", "http://"+publicAddress+"/y"),
		"another WebSocket":          tr.socket("/ws/other"),
		"a request at the WebSocket": tr.request("GET", "https://"+publicAddress+"/ws/echo"),
		"another port":               tr.raw("2526"),
		"another host":               tr.request("GET", "http://api.demo.test/"),
	} {
		if !strings.HasPrefix(answer, "403") {
			t.Errorf("%s: %q\n%s", what, answer, learned)
		}
	}
}
