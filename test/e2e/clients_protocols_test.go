package e2e_test

import (
	"bufio"
	"bytes"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"

	"github.com/coder/websocket"
	"github.com/gobwas/ws"
	"github.com/modelcontextprotocol/go-sdk/mcp"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/encoding/gzip"
	pb "google.golang.org/grpc/interop/grpc_testing"
	"google.golang.org/grpc/status"
	"google.golang.org/grpc/tap"

	"github.com/splitpod/splitpod/test/need"
	"github.com/splitpod/splitpod/test/world"
)

// TestNodesWebSocket: the ws library of Node, with and without compression.
func TestNodesWebSocket(t *testing.T) {
	w := newClientWorld(t)
	w.libraries(t)
	code, out, errs := w.run(t, need.Program(t, "node"), "testdata/clients/ws.mjs", "wss://api.demo.test:7011")
	if code != 0 {
		t.Fatalf("exit code %d: %s%s", code, out, errs)
	}
	got := results(t, out)
	if r := got["text"]; r.Code != 1000 || len(r.Heard) != 3 || r.Heard[0] != "one" || r.Heard[1] != "two" {
		t.Errorf("messages on an allowed path: %+v", r)
	}
	if r := got["plain"]; r.Code != 1000 || !slices.Equal(r.Heard, []string{"one"}) {
		t.Errorf("without compression: %+v", r)
	}
	structured(t, got["path"], "GET", "/denied", "rest")
	if r := got["read only"]; r.Code != 1008 || len(r.Heard) != 0 || !strings.Contains(r.Reason, "WEBSOCKET_TEXT /ws-quiet") {
		t.Errorf("a message where only reading is allowed: %+v", r)
	}
}

// TestNodesWebSocketOverHTTP2: streams of Node's http2, and its ws library on them.
func TestNodesWebSocketOverHTTP2(t *testing.T) {
	w := newClientWorld(t)
	w.libraries(t)
	code, out, errs := w.run(t, need.Program(t, "node"), "testdata/clients/ws_http2.mjs", siteURL)
	if code != 0 {
		t.Fatalf("exit code %d: %s%s", code, out, errs)
	}
	got := results(t, out)
	if got["settings"].Status != 200 {
		t.Error("extended CONNECT is not offered")
	}
	if r := got["text"]; r.Code != 1000 || len(r.Heard) != 3 || r.Heard[0] != "one" || r.Heard[1] != "two" || r.Failed != "" {
		t.Errorf("messages on an allowed path: %+v", r)
	}
	structured(t, got["path"], "GET", "/denied", "rest")
	if r := got["read only"]; r.Code != 1008 || len(r.Heard) != 0 || !strings.Contains(r.Reason, "WEBSOCKET_TEXT /ws-quiet") || r.Failed != "" {
		t.Errorf("a message where only reading is allowed: %+v", r)
	}
	for name, status := range map[string]int{"content": 403, "udp": 501} {
		if r := got[name]; r.Status != status || !strings.Contains(r.Body, `"unsupported_l7_protocol"`) || r.Failed != "" {
			t.Errorf("%s: %+v", name, r)
		}
	}
	for i := range 20 {
		if r := got[fmt.Sprint("side by side ", i)]; r.Code != 1000 || !slices.Equal(r.Heard, []string{fmt.Sprint("a", i), fmt.Sprint("b", i)}) {
			t.Errorf("side by side: %+v", r)
		}
	}
	want := append([]string{"GET /ws", "GET /ws-quiet"}, slices.Repeat([]string{"GET /ws"}, 20)...)
	if came := w.site.arrived(); !slices.Equal(came, want) {
		t.Errorf("the origin got %q", came)
	}
}

// TestABrowsersWebSocket: of a page that came in HTTP/2, so that the browser would open
// it on a stream of the same connection.
func TestABrowsersWebSocket(t *testing.T) {
	w := newClientWorld(t)
	log := filepath.Join(need.Folder(t), "net.json")
	cmd := exec.CommandContext(t.Context(), need.Program(t, "chromium"), "--headless", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--user-data-dir="+need.Folder(t),
		"--proxy-server="+standaloneAddress, "--ignore-certificate-errors", "--log-net-log="+log, "--disable-background-networking", "--remote-debugging-port=0", siteURL+"/ok/page")
	cmd.Env = append(w.env, "HOME="+need.Folder(t))
	must(t, cmd.Start())
	t.Cleanup(func() { _ = cmd.Process.Kill() })
	var came []string
	eventually(t, "what the page found", func() bool {
		came = append(came, w.site.arrived()...)
		return slices.ContainsFunc(came, func(s string) bool { return strings.HasPrefix(s, "GET /ok/found/") })
	})
	if want := "GET /ok/found/heard-hello/closed-1008/closed-1006"; !slices.Contains(came, want) {
		t.Errorf("the origin got %q, not %q", came, want)
	}
	must(t, cmd.Process.Signal(syscall.SIGTERM))
	_ = cmd.Wait() // its exit code says how it was ended; it has written its log
	text, err := os.ReadFile(log)
	must(t, err)
	if n := bytes.Count(text, []byte(`":protocol: websocket"`)); n < 3 {
		t.Errorf("the browser opened %d WebSockets on a stream", n)
	}
}

// TestAReloadEndsAWebSocketOnAStream (rows 89 and 90), with 1012.
func TestAReloadEndsAWebSocketOnAStream(t *testing.T) {
	m := newConfigMap(t, reloadPolicy(0, true))
	w := newClientWorld(t, "--policy", m.dir+"/policy.yaml")
	w.libraries(t)
	cmd := exec.CommandContext(t.Context(), need.Program(t, "node"), "testdata/clients/ws_http2.mjs", siteURL, "/ws-quiet")
	cmd.Env = w.env
	var errs strings.Builder
	cmd.Stderr = &errs
	stdout, err := cmd.StdoutPipe()
	must(t, err)
	must(t, cmd.Start())
	lines, out := bufio.NewScanner(stdout), ""
	for lines.Scan() {
		out += lines.Text() + "\n"
		if strings.Contains(lines.Text(), `"open"`) {
			m.swap(reloadPolicy(1, false))
		}
	}
	must(t, lines.Err())
	if err := cmd.Wait(); err != nil {
		t.Fatalf("%v: %s%s", err, out, errs.String())
	}
	if r := results(t, out)["kept"]; r.Code != 1012 || r.Failed != "" {
		t.Errorf("it ends with %+v, want 1012", r)
	}
}

// websocketDial opens a WebSocket with a Go client.
func (w *clientWorld) websocketDial(t *testing.T, path string) *websocket.Conn {
	t.Helper()
	c := w.client(1)
	c.Timeout = 0
	conn, _, err := websocket.Dial(t.Context(), siteURL+path, &websocket.DialOptions{HTTPClient: c})
	must(t, err)
	t.Cleanup(func() { conn.CloseNow() })
	return conn
}

// TestRawWebSocket (B38, rows 67 to 72): frames by hand.
func TestRawWebSocket(t *testing.T) {
	w := newClientWorld(t)
	open := func(t *testing.T) (net.Conn, *bufio.Reader) {
		c, _ := connect(t, "api.demo.test:7011")
		tc := tls.Client(c, &tls.Config{ServerName: "api.demo.test", RootCAs: w.interceptionRoots()})
		_, err := io.WriteString(tc, "GET /ws HTTP/1.1\r\nHost: api.demo.test:7011\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n")
		must(t, err)
		r := bufio.NewReader(tc)
		resp, err := http.ReadResponse(r, nil)
		if err != nil || resp.StatusCode != 101 || resp.Header.Get("Sec-WebSocket-Accept") != "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=" {
			t.Fatalf("handshake: %v, %v", resp, err)
		}
		return tc, r
	}
	masked := func(h ws.Header, payload string) string {
		h.Masked, h.Mask, h.Length = true, [4]byte{1, 2, 3, 4}, int64(len(payload))
		data := []byte(payload)
		ws.Cipher(data, h.Mask, 0)
		var b strings.Builder
		_ = ws.WriteHeader(&b, h)
		return b.String() + string(data)
	}
	text := func(s string) string { return masked(ws.Header{Fin: true, OpCode: ws.OpText}, s) }
	for name, tc := range map[string]struct {
		send string
		code ws.StatusCode // of the close frame; 0: the text comes back
	}{
		"a text":                            {text("hello"), 0},
		"a text in fragments, with a ping":  {masked(ws.Header{OpCode: ws.OpText}, "he") + masked(ws.Header{Fin: true, OpCode: ws.OpPing}, "p") + masked(ws.Header{Fin: true, OpCode: ws.OpContinuation}, "llo"), 0},
		"row 69 no mask":                    {"\x81\x05hello", 1002},
		"B38 a reserved bit":                {masked(ws.Header{Fin: true, Rsv: 2, OpCode: ws.OpText}, "hello"), 1002},
		"B38 compressed, without agreement": {masked(ws.Header{Fin: true, Rsv: 4, OpCode: ws.OpText}, "hello"), 1002},
		"B38 a reserved opcode":             {masked(ws.Header{Fin: true, OpCode: 3}, "hello"), 1002},
		"B38 a length of 2^63":              {"\x81\xff\x80\x00\x00\x00\x00\x00\x00\x00\x01\x02\x03\x04", 1002},
		"B38 not UTF-8":                     {text("\xff\xfe"), 1007},
		"B38 a continuation of nothing":     {masked(ws.Header{Fin: true, OpCode: ws.OpContinuation}, "hello"), 1002},
		"B38 a ping in fragments":           {masked(ws.Header{OpCode: ws.OpPing}, "p"), 1002},
		"B38 a ping above 125 bytes":        {masked(ws.Header{Fin: true, OpCode: ws.OpPing}, strings.Repeat("p", 126)), 1002},
		"row 71 a text above 4 MiB":         {text(strings.Repeat("x", 4<<20+1)), 1009},
	} {
		t.Run(name, func(t *testing.T) {
			c, r := open(t)
			go func() { _, _ = io.WriteString(c, tc.send) }() // the daemon may close half-way
			for {
				h, err := ws.ReadHeader(r)
				if err != nil || h.Length > 1000 {
					t.Fatalf("no frame: %+v, %v", h, err)
				}
				payload := make([]byte, h.Length)
				_, err = io.ReadFull(r, payload)
				must(t, err)
				switch code, _ := ws.ParseCloseFrameData(payload); {
				case h.OpCode == ws.OpPong:
					continue
				case tc.code == 0 && (h.OpCode != ws.OpText || string(payload) != "hello"),
					tc.code != 0 && (h.OpCode != ws.OpClose || code != tc.code):
					t.Errorf("got %+v %q, want code %d", h, payload, tc.code)
				}
				return
			}
		})
	}
}

// callServer has the four kinds of calls.
type callServer struct {
	pb.UnimplementedTestServiceServer
}

func (callServer) EmptyCall(context.Context, *pb.Empty) (*pb.Empty, error) { return &pb.Empty{}, nil }

func (callServer) UnaryCall(_ context.Context, in *pb.SimpleRequest) (*pb.SimpleResponse, error) {
	if in.ResponseStatus != nil {
		return nil, status.Error(codes.Code(in.ResponseStatus.Code), in.ResponseStatus.Message)
	}
	return &pb.SimpleResponse{Payload: in.Payload}, nil
}

func (callServer) StreamingOutputCall(in *pb.StreamingOutputCallRequest, out pb.TestService_StreamingOutputCallServer) error {
	for range in.ResponseParameters {
		if err := out.Send(&pb.StreamingOutputCallResponse{Payload: in.Payload}); err != nil {
			return err
		}
	}
	return nil
}

func (callServer) StreamingInputCall(in pb.TestService_StreamingInputCallServer) error {
	for n := int32(0); ; {
		req, err := in.Recv()
		if errors.Is(err, io.EOF) {
			return in.SendAndClose(&pb.StreamingInputCallResponse{AggregatedPayloadSize: n})
		}
		if err != nil {
			return err
		}
		n += int32(len(req.Payload.Body))
	}
}

func (callServer) FullDuplexCall(both pb.TestService_FullDuplexCallServer) error {
	for {
		req, err := both.Recv()
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return err
		}
		if err := both.Send(&pb.StreamingOutputCallResponse{Payload: req.Payload}); err != nil {
			return err
		}
	}
}

// calls is a gRPC client of a gRPC server, through the daemon.
func (w *clientWorld) calls(t *testing.T) pb.TestServiceClient {
	t.Helper()
	cert, err := origins.Certificate(nil)
	must(t, err)
	l, err := net.Listen("tcp", fmt.Sprintf("%s:%d", world.Address, grpcPort))
	must(t, err)
	srv := grpc.NewServer(grpc.Creds(credentials.NewServerTLSFromCert(&cert)), grpc.InTapHandle(func(ctx context.Context, info *tap.Info) (context.Context, error) {
		w.site.note("CALL " + info.FullMethodName) // also of what it does not know
		return ctx, nil
	}))
	pb.RegisterTestServiceServer(srv, callServer{})
	go func() { _ = srv.Serve(l) }()
	t.Cleanup(srv.Stop)
	cc, err := grpc.NewClient("passthrough:///api.demo.test:7012", grpc.WithTransportCredentials(credentials.NewClientTLSFromCert(w.interceptionRoots(), "")),
		grpc.WithContextDialer(func(ctx context.Context, target string) (net.Conn, error) {
			c, err := net.Dial("tcp", standaloneAddress)
			if err != nil {
				return nil, err
			}
			if _, err := fmt.Fprintf(c, "CONNECT %s HTTP/1.1\r\nHost: %s\r\n\r\n", target, target); err != nil {
				return nil, err
			}
			resp, err := http.ReadResponse(bufio.NewReader(oneByOne{c}), &http.Request{Method: "CONNECT"})
			if err == nil && resp.StatusCode != 200 {
				err = errors.New(resp.Status)
			}
			return c, err
		}))
	must(t, err)
	t.Cleanup(func() { cc.Close() })
	return pb.NewTestServiceClient(cc)
}

func payload(n int) *pb.Payload { return &pb.Payload{Body: make([]byte, n)} }

// TestGRPC (B37): the four kinds of calls, a status of the server's, a denied method,
// a stream whose method is revoked while it runs.
func TestGRPC(t *testing.T) {
	w := newClientWorld(t)
	client := w.calls(t)
	ctx, cancel := context.WithTimeout(t.Context(), generous)
	defer cancel()

	for _, n := range []int{0, 100, 100000} {
		out, err := client.UnaryCall(ctx, &pb.SimpleRequest{Payload: payload(n)})
		if err != nil || len(out.Payload.GetBody()) != n {
			t.Fatalf("unary call with %d bytes: %v", n, err)
		}
	}
	_, err := client.UnaryCall(ctx, &pb.SimpleRequest{ResponseStatus: &pb.EchoStatus{Code: int32(codes.FailedPrecondition), Message: "its own"}})
	if s := status.Convert(err); s.Code() != codes.FailedPrecondition || s.Message() != "its own" {
		t.Errorf("the server's own status: %v", err)
	}
	down, err := client.StreamingOutputCall(ctx, &pb.StreamingOutputCallRequest{Payload: payload(1000), ResponseParameters: make([]*pb.ResponseParameters, 20)})
	must(t, err)
	n := 0
	for {
		if _, err = down.Recv(); err != nil {
			break
		}
		n++
	}
	if n != 20 || !errors.Is(err, io.EOF) {
		t.Errorf("server stream: %d messages, %v", n, err)
	}
	up, err := client.StreamingInputCall(ctx)
	must(t, err)
	for range 20 {
		must(t, up.Send(&pb.StreamingInputCallRequest{Payload: payload(1000)}))
	}
	if sum, err := up.CloseAndRecv(); err != nil || sum.AggregatedPayloadSize != 20000 {
		t.Errorf("client stream: %v, %v", sum, err)
	}
	both, err := client.FullDuplexCall(ctx)
	must(t, err)
	say := func() error {
		if err := both.Send(&pb.StreamingOutputCallRequest{Payload: payload(10)}); err != nil {
			return err
		}
		_, err := both.Recv()
		return err
	}
	for range 20 {
		must(t, say())
	}

	_, err = client.EmptyCall(ctx, &pb.Empty{})
	if s := status.Convert(err); s.Code() != codes.PermissionDenied || !strings.Contains(s.Message(), "/grpc.testing.TestService/EmptyCall") {
		t.Errorf("a denied method: %v", err)
	}
	must(t, say()) // its neighbour lives

	down2, err := client.FullDuplexCall(ctx)
	must(t, err)
	must(t, down2.Send(&pb.StreamingOutputCallRequest{Payload: payload(10)}))
	_, err = down2.Recv()
	must(t, err)
	w.policy(strings.Replace(clientPolicy, "TestService/*Call\"}", "TestService/Unary*\"}", 1))
	for _, stream := range []pb.TestService_FullDuplexCallClient{both, down2} {
		_, err := stream.Recv()
		if s := status.Convert(err); s.Code() != codes.PermissionDenied || !strings.Contains(s.Message(), "policy") {
			t.Errorf("a revoked stream: %v", err)
		}
	}
	if _, err := client.UnaryCall(ctx, &pb.SimpleRequest{}); err != nil {
		t.Errorf("a call the new policy allows: %v", err)
	}
	if _, err := client.FullDuplexCall(ctx); err != nil {
		t.Error(err)
	} else if s, err := client.StreamingOutputCall(ctx, &pb.StreamingOutputCallRequest{}); err == nil {
		if _, err = s.Recv(); status.Code(err) != codes.PermissionDenied {
			t.Errorf("a call the new policy forbids: %v", err)
		}
	}
}

// TestCallsThatAreSpeltOtherwise (B37): a method that is denied stays denied in another
// case, encoded, in gRPC-Web and compressed; reflection is a method like any other.
func TestCallsThatAreSpeltOtherwise(t *testing.T) {
	w := newClientWorld(t)
	calls := w.calls(t)
	c := w.client(2)
	w.site.arrived()
	for path, kind := range map[string]string{
		"/grpc.testing.TestService/EmptyCall":                            "application/grpc",
		"/grpc.testing.TestService/emptycall":                            "application/grpc",
		"/grpc.testing.TestService/%45mptyCall":                          "application/grpc",
		"/grpc.testing.TestService/UnaryCall/../EmptyCall":               "application/grpc",
		"/grpc.testing.TestService%2FEmptyCall":                          "application/grpc",
		"//grpc.testing.TestService/EmptyCall":                           "application/grpc+proto",
		"/grpc.reflection.v1.ServerReflection/ServerReflectionInfo":      "application/grpc",
		"/grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo": "application/grpc",
	} {
		req, err := http.NewRequest("POST", "https://api.demo.test:7012/", strings.NewReader("\x00\x00\x00\x00\x00"))
		must(t, err)
		req.URL.Opaque = "//api.demo.test:7012" + path
		req.Header.Set("Content-Type", kind)
		req.Header.Set("Te", "trailers")
		resp, err := c.Do(req)
		must(t, err)
		_, err = io.Copy(io.Discard, resp.Body)
		must(t, err)
		resp.Body.Close()
		code := resp.Header.Get("Grpc-Status") + resp.Trailer.Get("Grpc-Status")
		if resp.StatusCode != 200 || code != "7" && code != "3" && code != "13" { // denied, or malformed
			t.Errorf("%s: %s, grpc-status %q", path, resp.Status, code)
		}
		if came := w.site.arrived(); len(came) > 0 {
			t.Errorf("%s: the server got %q", path, came)
		}
	}
	for _, kind := range []string{"application/grpc-web", "application/grpc-web-text", "application/grpc-web+proto"} {
		resp, err := c.Post("https://api.demo.test:7012/grpc.testing.TestService/EmptyCall", kind, strings.NewReader("AAAAAAA="))
		must(t, err)
		resp.Body.Close()
		if resp.StatusCode != 403 && resp.Header.Get("Grpc-Status") != "7" {
			t.Errorf("%s: %s", kind, resp.Status)
		}
		if came := w.site.arrived(); len(came) > 0 {
			t.Errorf("%s: the server got %q", kind, came)
		}
	}

	ctx, cancel := context.WithTimeout(t.Context(), generous)
	defer cancel()
	compressed := grpc.UseCompressor(gzip.Name)
	if _, err := calls.EmptyCall(ctx, &pb.Empty{}, compressed); status.Code(err) != codes.PermissionDenied {
		t.Errorf("a denied call, compressed: %v", err)
	}
	if came := w.site.arrived(); len(came) > 0 {
		t.Errorf("of the compressed call the server got %q", came)
	}
	if out, err := calls.UnaryCall(ctx, &pb.SimpleRequest{Payload: payload(10000)}, compressed); err != nil || len(out.Payload.Body) != 10000 {
		t.Errorf("an allowed call, compressed: %v", err)
	}
	resp, err := c.Do(rawCall(t, "/grpc.testing.TestService/UnaryCall", "0n"))
	must(t, err)
	resp.Body.Close()
	if code := resp.Header.Get("Grpc-Status"); resp.StatusCode != 200 || code != "4" {
		t.Errorf("an allowed call without any time: %s, grpc-status %q", resp.Status, code)
	}
	resp, err = c.Do(rawCall(t, "/grpc.testing.TestService/EmptyCall", "0n"))
	must(t, err)
	resp.Body.Close()
	if code := resp.Header.Get("Grpc-Status"); code != "7" {
		t.Errorf("a denied call without any time: grpc-status %q", code)
	}
	if came := w.site.arrived(); !slices.Contains(came, "CALL /grpc.testing.TestService/UnaryCall") || slices.Contains(came, "CALL /grpc.testing.TestService/EmptyCall") {
		t.Errorf("the server got %q", came)
	}
}

// rawCall is a call with an empty message.
func rawCall(t *testing.T, method, timeout string) *http.Request {
	t.Helper()
	req, err := http.NewRequest("POST", "https://api.demo.test:7012"+method, strings.NewReader("\x00\x00\x00\x00\x00"))
	must(t, err)
	req.Header = http.Header{"Content-Type": {"application/grpc"}, "Te": {"trailers"}, "Grpc-Timeout": {timeout}}
	return req
}

// TestMCP (row 78, 79): a client and a server of the official library.
func TestMCP(t *testing.T) {
	w := newClientWorld(t)
	c := w.client(1)
	c.Timeout = 0
	begin := func() *mcp.ClientSession {
		session, err := mcp.NewClient(&mcp.Implementation{Name: "client", Version: "1"}, nil).Connect(t.Context(), &mcp.StreamableClientTransport{Endpoint: siteURL + "/mcp", HTTPClient: c, MaxRetries: -1}, nil)
		must(t, err)
		return session
	}
	must(t, begin().Close())
	if came := w.site.arrived(); !slices.Contains(came, "DELETE /mcp") {
		t.Errorf("the end of a session did not arrive: %q", came)
	}
	session := begin()
	defer session.Close()
	tools, err := session.ListTools(t.Context(), nil)
	if err != nil || len(tools.Tools) != 2 {
		t.Fatalf("tools: %v, %v", tools, err)
	}
	call := func(name string) (*mcp.CallToolResult, error) {
		ctx, cancel := context.WithTimeout(t.Context(), generous)
		defer cancel()
		return session.CallTool(ctx, &mcp.CallToolParams{Name: name, Arguments: map[string]any{"name": "x"}})
	}
	out, err := call("read_file")
	if err != nil || len(out.Content) != 1 || out.Content[0].(*mcp.TextContent).Text != "read_file x" {
		t.Errorf("an allowed tool: %v, %v", out, err)
	}
	var came []string // the stream of the server's messages is opened beside the calls
	eventually(t, "the stream and the calls", func() bool {
		came = append(came, w.site.arrived()...)
		return slices.Contains(came, "GET /mcp") && slices.Contains(came, "POST /mcp")
	})
	if _, err := call("delete_file"); err == nil || !strings.Contains(err.Error(), "Forbidden") {
		t.Errorf("a denied tool: %v", err)
	}
	for _, came := range w.site.arrived() {
		if strings.HasPrefix(came, "POST") && strings.Contains(came, "mcp") {
			t.Errorf("%s arrived for the denied call", came)
		}
	}
	eventually(t, "the record of the denied call", func() bool {
		return slices.ContainsFunc(w.connectionRecords(), func(r record) bool { return r.Unmapped.Reason == "policy_denied" })
	})
}

// TestBodiesAreJudged (B32, B34, B35, rows 73 to 77): what one request to GraphQL,
// JSON-RPC and MCP gets.
func TestBodiesAreJudged(t *testing.T) {
	w := newClientWorld(t)
	const ok, no = 200, 403
	graphql := func(q string) string { return fmt.Sprintf(`{"query":%q}`, q) }
	tool := func(name string) string {
		return fmt.Sprintf(`{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{"name":%q,"arguments":{}}}`, name)
	}
	for name, tc := range map[string]struct {
		path, body, more string // more: a field
		status           int
		reason           string
	}{
		"GraphQL: an allowed field":                      {"/graphql", graphql("{viewer{id}}"), "", ok, ""},
		"GraphQL: another field":                         {"/graphql", graphql("{secret}"), "", no, "policy_denied"},
		"GraphQL: an alias of a denied field":            {"/graphql", graphql("{viewer:secret}"), "", no, "policy_denied"},
		"GraphQL: a fragment with it":                    {"/graphql", graphql("query{viewer ...F} fragment F on Query{secret}"), "", no, "policy_denied"},
		"GraphQL: an inline fragment":                    {"/graphql", graphql("{viewer ... on Query{secret}}"), "", no, "policy_denied"},
		"GraphQL: behind @include":                       {"/graphql", graphql("{viewer secret @include(if:false)}"), "", no, "policy_denied"},
		"GraphQL: a mutation":                            {"/graphql", graphql("mutation{viewer}"), "", no, "policy_denied"},
		"GraphQL: a batch with one":                      {"/graphql", "[" + graphql("{viewer}") + "," + graphql("{secret}") + "]", "", no, "policy_denied"},
		"GraphQL: two operations, the other named":       {"/graphql", `{"query":"query A{viewer} mutation B{secret}","operationName":"B"}`, "", no, "policy_denied"},
		"GraphQL: a hash alone":                          {"/graphql", `{"extensions":{"persistedQuery":{"version":1,"sha256Hash":"abc"}}}`, "", no, "policy_denied"},
		"GraphQL: a key twice":                           {"/graphql", `{"query":"{viewer}","query":"{secret}"}`, "", 400, "invalid_graphql_request"},
		"GraphQL: not JSON":                              {"/graphql", "query=a", "", 400, "invalid_graphql_request"},
		"GraphQL: compressed":                            {"/graphql", graphql("{viewer}"), "Content-Encoding: gzip", 415, "invalid_graphql_request"},
		"GraphQL: above the limit":                       {"/graphql", graphql("{viewer " + strings.Repeat(" ", 70000) + "}"), "", 413, "body_too_large"},
		"JSON-RPC: an allowed method":                    {"/rpc", `{"jsonrpc":"2.0","id":1,"method":"eth_call"}`, "", ok, ""},
		"JSON-RPC: another method":                       {"/rpc", `{"jsonrpc":"2.0","id":1,"method":"eth_send"}`, "", no, "policy_denied"},
		"JSON-RPC: a notification of it":                 {"/rpc", `{"jsonrpc":"2.0","method":"eth_send"}`, "", no, "policy_denied"},
		"JSON-RPC: a batch with one":                     {"/rpc", `[{"jsonrpc":"2.0","id":1,"method":"eth_call"},{"jsonrpc":"2.0","id":2,"method":"eth_send"}]`, "", no, "policy_denied"},
		"JSON-RPC: the method twice":                     {"/rpc", `{"jsonrpc":"2.0","id":1,"method":"eth_call","method":"eth_send"}`, "", 400, "invalid_jsonrpc_request"},
		"JSON-RPC: a response from the client":           {"/rpc", `{"jsonrpc":"2.0","id":1,"result":1}`, "", no, "policy_denied"},
		"JSON-RPC: a method with a zero-width character": {"/rpc", `{"jsonrpc":"2.0","id":1,"method":"eth_call\u200b"}`, "", no, "policy_denied"},
		"JSON-RPC: UTF-16":                               {"/rpc", "\xff\xfe{\x00}\x00", "", 400, "invalid_jsonrpc_request"},
		"JSON-RPC: nothing":                              {"/rpc", "", "", 400, "invalid_jsonrpc_request"},
		"MCP: a denied tool":                             {"/mcp", tool("delete_file"), "", no, "policy_denied"},
		"MCP: a tool with a space":                       {"/mcp", tool("read_ file"), "", no, "policy_denied"},
		"MCP: a tool of 129 characters":                  {"/mcp", tool("read_" + strings.Repeat("a", 124)), "", no, "policy_denied"},
		"MCP: a tool with a zero-width character":        {"/mcp", tool("read_\u200bfile"), "", no, "policy_denied"},
		"MCP: a denied tool, to who reads UTF-7": {"/mcp", `{"jsonrpc":"2.0","id":1,"method":"ping","x":"+ACI-,+ACI-method+ACI-:+ACI-tools/call+ACI-,+ACI-params+ACI-:{+ACI-name+ACI-:+ACI-delete_file+ACI-},+ACI-y+ACI-:+ACI-"}`,
			"Content-Type: application/json; charset=utf-7; charset*=utf-8''utf-8", 415, "invalid_jsonrpc_request"},
	} {
		t.Run(name, func(t *testing.T) {
			for _, version := range []int{1, 2} {
				w.site.arrived()
				req, err := http.NewRequest("POST", siteURL+tc.path, strings.NewReader(tc.body))
				must(t, err)
				req.Header.Set("Content-Type", "application/json")
				if k, v, ok := strings.Cut(tc.more, ": "); ok {
					req.Header.Set(k, v)
				}
				resp, err := w.client(version).Do(req)
				must(t, err)
				data, err := io.ReadAll(resp.Body)
				must(t, err)
				resp.Body.Close()
				got := answerOf(resp.StatusCode, resp.Header, data)
				if got.status != tc.status || got.reason != tc.reason {
					t.Errorf("HTTP/%d: %d %s, want %d %s", version, got.status, data, tc.status, tc.reason)
				}
				if came := w.site.arrived(); (len(came) == 1) != (tc.status == ok) {
					t.Errorf("HTTP/%d: the origin got %q", version, came)
				}
			}
		})
	}
}
