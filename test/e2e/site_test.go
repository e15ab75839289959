package e2e_test

import (
	"archive/tar"
	"archive/zip"
	"bytes"
	"compress/gzip"
	"context"
	"crypto/sha512"
	"crypto/tls"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/coder/websocket"
	"github.com/modelcontextprotocol/go-sdk/mcp"

	"github.com/splitpod/splitpod/test/world"
)

// Ports of the site, all inside TLS.
const (
	sitePort  = 7011 // HTTP/1.1 and HTTP/2
	grpcPort  = 7012
	http2Port = 7013 // nothing but HTTP/2
)

// site is an origin with something for every kind of client. It remembers what came.
type site struct {
	mu   sync.Mutex
	came []string // "METHOD path"
	slow chan struct{}
}

func startSite(t *testing.T) *site {
	t.Helper()
	s := &site{slow: make(chan struct{})}
	s.listen(t, sitePort, "h2", "http/1.1")
	s.listen(t, http2Port, "h2")
	return s
}

func (s *site) listen(t *testing.T, port int, protocols ...string) {
	t.Helper()
	cert, err := origins.Certificate(nil)
	must(t, err)
	l, err := net.Listen("tcp", net.JoinHostPort(world.Address, fmt.Sprint(port)))
	must(t, err)
	srv := &http.Server{Handler: s.handler(), ErrorLog: log.New(io.Discard, "", 0), TLSConfig: &tls.Config{Certificates: []tls.Certificate{cert}, NextProtos: protocols},
		Protocols: &http.Protocols{}, ReadHeaderTimeout: time.Minute}
	if !slices.Contains(protocols, "http/1.1") { // Go would let such clients in, and then not serve them
		srv.TLSConfig.GetConfigForClient = func(h *tls.ClientHelloInfo) (*tls.Config, error) {
			if slices.Contains(h.SupportedProtos, "h2") {
				return nil, nil
			}
			return &tls.Config{Certificates: []tls.Certificate{cert}, NextProtos: []string{"none"}}, nil
		}
	}
	srv.Protocols.SetHTTP1(slices.Contains(protocols, "http/1.1"))
	srv.Protocols.SetHTTP2(true)
	go func() { _ = srv.ServeTLS(l, "", "") }()
	t.Cleanup(func() { srv.Close() })
}

// note keeps what came by another way than its handler.
func (s *site) note(what string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.came = append(s.came, what)
}

// arrived is what came since the last call.
func (s *site) arrived() []string {
	s.mu.Lock()
	defer s.mu.Unlock()
	out := s.came
	s.came = nil
	return out
}

func (s *site) handler() http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("/ok/hello", func(w http.ResponseWriter, r *http.Request) { fmt.Fprint(w, "hello ", r.Proto) })
	mux.HandleFunc("/ok/echo", func(w http.ResponseWriter, r *http.Request) {
		n, _ := io.Copy(io.Discard, r.Body)
		fmt.Fprint(w, "got ", n)
	})
	mux.HandleFunc("/ok/bytes", func(w http.ResponseWriter, r *http.Request) {
		var n int64
		fmt.Sscan(r.URL.Query().Get("n"), &n)
		_, _ = io.CopyN(w, zeroes{}, n)
	})
	mux.Handle("/ok/git/", http.StripPrefix("/ok/git", origins.Git()))
	mux.HandleFunc("/ok/events", s.events)
	mux.HandleFunc("/ok/hints", func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Link", "</style.css>; rel=preload")
		w.WriteHeader(http.StatusEarlyHints)
		fmt.Fprint(w, "final")
	})
	mux.HandleFunc("/ok/page", func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Type", "text/html")
		fmt.Fprint(w, socketPage)
	})
	mux.HandleFunc("/ws", echoMessages)
	mux.HandleFunc("/ws-quiet", echoMessages)
	mux.HandleFunc("/graphql", func(w http.ResponseWriter, r *http.Request) { fmt.Fprint(w, `{"data":{"viewer":"me"}}`) })
	mux.HandleFunc("/rpc", func(w http.ResponseWriter, r *http.Request) { fmt.Fprint(w, `{"jsonrpc":"2.0","id":1,"result":"ok"}`) })
	mux.Handle("/mcp", toolServer())
	for name, path := range map[string]string{"tiny": "tiny", "@demo/tiny": "@demo%2ftiny"} {
		mux.HandleFunc("/npm/"+path, func(w http.ResponseWriter, r *http.Request) {
			tarball := npmTarball()
			sum := sha512.Sum512(tarball)
			_ = json.NewEncoder(w).Encode(map[string]any{"name": name, "dist-tags": map[string]string{"latest": "1.0.0"}, "versions": map[string]any{"1.0.0": map[string]any{
				"name": name, "version": "1.0.0", "dist": map[string]string{"tarball": "https://" + r.Host + "/npm/" + name + "/-/tiny-1.0.0.tgz", "integrity": "sha512-" + base64.StdEncoding.EncodeToString(sum[:])}}}})
		})
		mux.HandleFunc("/npm/"+name+"/-/tiny-1.0.0.tgz", func(w http.ResponseWriter, r *http.Request) { _, _ = w.Write(npmTarball()) })
	}
	mux.HandleFunc("/pypi/tiny/", func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Type", "text/html")
		fmt.Fprint(w, `<!DOCTYPE html><html><body><a href="/pypi/files/tiny-1.0-py3-none-any.whl">tiny-1.0-py3-none-any.whl</a></body></html>`)
	})
	mux.HandleFunc("/pypi/files/tiny-1.0-py3-none-any.whl", func(w http.ResponseWriter, r *http.Request) { _, _ = w.Write(wheel()) })
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		s.mu.Lock()
		s.came = append(s.came, r.Method+" "+r.URL.Path)
		s.mu.Unlock()
		mux.ServeHTTP(w, r)
	})
}

// zeroes is an endless body.
type zeroes struct{}

func (zeroes) Read(p []byte) (int, error) { clear(p); return len(p), nil }

// events sends one event, and the next ones only when the test has seen that.
func (s *site) events(w http.ResponseWriter, r *http.Request) {
	w.Header().Set("Content-Type", "text/event-stream")
	for i := range 5 {
		fmt.Fprintf(w, "data: %d\n\n", i)
		_ = http.NewResponseController(w).Flush()
		select {
		case <-s.slow:
		case <-r.Context().Done():
			return
		}
	}
}

// socketPage opens WebSockets, one of which may not say anything, and asks for what it
// found as a path.
const socketPage = `<!DOCTYPE html><title>page</title><script>
const one = (path) => new Promise((done) => {
  const s = new WebSocket('wss://' + location.host + path)
  s.onopen = () => s.send('hello')
  s.onmessage = (m) => { s.close(1000); done('heard-' + m.data) }
  s.onclose = (e) => done('closed-' + e.code)
})
one('/ws').then(async (a) => fetch('/ok/found/' + a + '/' + await one('/ws-quiet') + '/' + await one('/denied')))
</script>`

func echoMessages(w http.ResponseWriter, r *http.Request) {
	c, err := websocket.Accept(w, r, &websocket.AcceptOptions{CompressionMode: websocket.CompressionNoContextTakeover})
	if err != nil {
		return
	}
	defer c.CloseNow()
	c.SetReadLimit(1 << 24)
	for {
		kind, data, err := c.Read(r.Context())
		if err != nil || c.Write(r.Context(), kind, data) != nil {
			return
		}
	}
}

type toolInput struct {
	Name string `json:"name"`
}

// toolServer is an MCP server with a tool that a policy may allow and one that it may
// not.
func toolServer() http.Handler {
	server := mcp.NewServer(&mcp.Implementation{Name: "tools", Version: "1"}, nil)
	for _, name := range []string{"read_file", "delete_file"} {
		mcp.AddTool(server, &mcp.Tool{Name: name}, func(_ context.Context, _ *mcp.CallToolRequest, in toolInput) (*mcp.CallToolResult, any, error) {
			return &mcp.CallToolResult{Content: []mcp.Content{&mcp.TextContent{Text: name + " " + in.Name}}}, nil, nil
		})
	}
	// The server runs behind a proxy, which passes the name on that it was asked for.
	return mcp.NewStreamableHTTPHandler(func(*http.Request) *mcp.Server { return server }, nil)
}

// npmTarball is a package of one module.
var npmTarball = sync.OnceValue(func() []byte {
	var out bytes.Buffer
	gz := gzip.NewWriter(&out)
	tw := tar.NewWriter(gz)
	for name, text := range map[string]string{"package/package.json": `{"name":"tiny","version":"1.0.0","main":"index.js"}`, "package/index.js": "module.exports = 'tiny'\n"} {
		_ = tw.WriteHeader(&tar.Header{Name: name, Mode: 0o644, Size: int64(len(text))})
		_, _ = io.WriteString(tw, text)
	}
	tw.Close()
	gz.Close()
	return out.Bytes()
})

// wheel is a package of one module.
var wheel = sync.OnceValue(func() []byte {
	var out bytes.Buffer
	zw := zip.NewWriter(&out)
	for _, f := range [][2]string{
		{"tiny.py", "name = 'tiny'\n"},
		{"tiny-1.0.dist-info/METADATA", "Metadata-Version: 2.1\nName: tiny\nVersion: 1.0\n"},
		{"tiny-1.0.dist-info/WHEEL", "Wheel-Version: 1.0\nGenerator: test\nRoot-Is-Purelib: true\nTag: py3-none-any\n"},
		{"tiny-1.0.dist-info/RECORD", "tiny.py,,\ntiny-1.0.dist-info/METADATA,,\ntiny-1.0.dist-info/WHEEL,,\ntiny-1.0.dist-info/RECORD,,\n"},
	} {
		w, _ := zw.Create(f[0])
		_, _ = io.WriteString(w, f[1])
	}
	zw.Close()
	return out.Bytes()
})
