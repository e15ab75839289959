package e2e_test

import (
	"bytes"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"slices"
	"strings"
	"testing"

	"github.com/coder/websocket"
	"github.com/gobwas/ws"
	"github.com/gobwas/ws/wsutil"
	"golang.org/x/net/http2"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	pb "google.golang.org/grpc/interop/grpc_testing"
	grpcmetadata "google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"
)

//lint:file-ignore SA1019 a client of net/http, which the deprecations lead to, refuses :protocol

// client2 is a client of HTTP/2 through the proxy.
func (p *pair) client2(t *testing.T) *http.Client {
	t.Helper()
	tr := &http.Transport{ForceAttemptHTTP2: true, DialTLSContext: func(_ context.Context, _, address string) (net.Conn, error) {
		c, status := tunnel(t, address)
		if !strings.HasPrefix(status, "200") {
			return nil, fmt.Errorf("tunnel: %s", status)
		}
		tc := tls.Client(c, p.trust("h2"))
		return tc, tc.Handshake()
	}}
	t.Cleanup(tr.CloseIdleConnections)
	return &http.Client{Transport: tr, Timeout: generous}
}

// TestCredentialsInHTTP2: the places and the refusals of streams, in front of origins
// that speak HTTP/1.1 or HTTP/2.
func TestCredentialsInHTTP2(t *testing.T) {
	origins, policy, file := relays(t)
	p := sealed(t, policy, file, relaySecrets).alone()
	c := p.client2(t)
	key, real := ph("KEY"), plainSecret("KEY")
	large := strings.Repeat("x", 200<<10)
	for name, tc := range map[string]struct {
		relay, path, auth, kind, body string
		stream                        bool // of unknown length
		trailer                       string
		length                        bool // of known length, in spite of the trailer
		status                        int
		want                          string // arrives, or is in the answer
	}{
		"a header":                     {relay: "rest", path: "/", auth: "Bearer " + key, status: 200, want: "Bearer " + real},
		"a path and a query":           {relay: "rest", path: "/a" + key + "/b?q=" + key, status: 200, want: "/a" + real + "/b?q=" + real},
		"a JSON body":                  {relay: "body", path: "/", kind: "application/json", body: `{"k":"` + key + `"}`, status: 200, want: `{"k":"` + real + `"}`},
		"without a protocol":           {relay: "plain", path: "/", auth: "Bearer " + key, status: 200, want: "Bearer " + real},
		"in HTTP/2 to the origin":      {relay: "rest", path: "/", auth: "Bearer " + key, trailer: "fine", status: 200, want: "Bearer " + real},
		"an unknown key":               {relay: "rest", path: "/", auth: "Bearer " + ph("NOBODY"), status: 500, want: `"error":"credential_unavailable"`},
		"another endpoint":             {relay: "other", path: "/", auth: "Bearer " + key, status: 403, want: `"message":"Credential is not authorized for this request endpoint"`},
		"a body":                       {relay: "rest", path: "/", kind: "text/plain", body: key, status: 403, want: `"error":"credential_unavailable"`},
		"a large body":                 {relay: "rest", path: "/", kind: "text/plain", body: large + key, status: 403, want: `"error":"credential_unavailable"`},
		"a body of unknown length":     {relay: "rest", path: "/", kind: "text/plain", body: large + key, stream: true, status: 403, want: `"error":"credential_unavailable"`},
		"such a body, without one":     {relay: "rest", path: "/", kind: "text/plain", body: large + "end", stream: true, status: 200, want: "end"},
		"a trailer":                    {relay: "rest", path: "/", kind: "text/plain", body: "x", trailer: key, status: 403, want: `"error":"credential_unavailable"`},
		"a trailer behind a length":    {relay: "rest", path: "/", kind: "text/plain", body: "x", length: true, trailer: key, status: 403, want: `"error":"credential_unavailable"`},
		"a trailer of a rewritten one": {relay: "body", path: "/", kind: "application/json", body: `{"k":"` + key + `"}`, trailer: key, status: 403, want: `"error":"credential_unavailable"`},
		"a body where nothing is read": {relay: "plain", path: "/", kind: "text/plain", body: large + key, stream: true, status: 403, want: `"error":"credential_unavailable"`},
	} {
		t.Run(name, func(t *testing.T) {
			o := origins[tc.relay]
			var body io.Reader = strings.NewReader(tc.body)
			if tc.stream || tc.trailer != "" && !tc.length {
				body = io.MultiReader(strings.NewReader(tc.body), strings.NewReader(""))
			}
			method := "POST"
			if tc.kind == "" && tc.trailer == "" {
				method, body = "GET", nil
			}
			req, err := http.NewRequestWithContext(t.Context(), method, "https://"+o.URL+tc.path, body)
			must(t, err)
			req.Header.Set("X-Case", name)
			for field, v := range map[string]string{"Authorization": tc.auth, "Content-Type": tc.kind} {
				if v != "" {
					req.Header.Set(field, v)
				}
			}
			if tc.trailer != "" {
				req.Trailer = http.Header{"X-T": {tc.trailer}}
			}
			resp, err := c.Do(req)
			must(t, err)
			answer, _ := io.ReadAll(resp.Body)
			resp.Body.Close()
			if resp.ProtoMajor != 2 {
				t.Fatalf("the client spoke %s", resp.Proto)
			}
			got := fmt.Sprintf("%+v", o.of(name))
			text := got
			if tc.status != 200 {
				text = string(answer)
			}
			if resp.StatusCode != tc.status || !strings.Contains(text, tc.want) {
				t.Errorf("status %d, want %d; %q is not in %.300s; answer %.300s", resp.StatusCode, tc.status, tc.want, text, answer)
			}
			if strings.Contains(got, "resolve:env:") || tc.status != 200 && strings.Contains(got, "REAL") {
				t.Errorf("arrived: %.300s", got)
			}
		})
	}
	eventually(t, "records of streams", func() bool { return strings.Contains(p.network.out.String(), "credentials used: KEY (1)") })
	for _, never := range []string{"resolve:env:", real} {
		if strings.Contains(p.network.out.String()+p.network.err.String(), never) {
			t.Errorf("a record or the log contains %q", never)
		}
	}
}

// calls is a gRPC service that tells what it got: as it is, and backwards, in which
// nobody finds it.
type calls struct {
	pb.UnimplementedTestServiceServer
}

func (calls) UnaryCall(ctx context.Context, in *pb.SimpleRequest) (*pb.SimpleResponse, error) {
	md, _ := grpcmetadata.FromIncomingContext(ctx)
	_ = grpc.SetTrailer(ctx, grpcmetadata.Pairs("x-echo", strings.Join(md["authorization"], ",")))
	auth := strings.Join(md["authorization"], ",")
	return &pb.SimpleResponse{Username: auth, OauthScope: backwards(auth), Payload: in.Payload}, nil
}

func backwards(s string) string {
	b := []byte(s)
	slices.Reverse(b)
	return string(b)
}

// covered is a value in an answer whose length must stay.
func covered(value string) string { return strings.Repeat("*", len(value)) }

func (calls) FullDuplexCall(s grpc.BidiStreamingServer[pb.StreamingOutputCallRequest, pb.StreamingOutputCallResponse]) error {
	for {
		m, err := s.Recv()
		if err != nil {
			return nil
		}
		if err := s.Send(&pb.StreamingOutputCallResponse{Payload: m.Payload}); err != nil {
			return err
		}
	}
}

// TestCredentialsInGRPC: metadata, messages of a stream, echoes in messages and trailers;
// of a client that would take compressed answers.
func TestCredentialsInGRPC(t *testing.T) {
	port := grpcOrigin(t)
	real := plainSecret("KEY")
	p := sealed(t, "version: 1\n"+who+"network_policies:\n  a:\n    endpoints:\n      - {host: api.demo.test, port: "+port+", protocol: rest, access: full, enforcement: enforce}\n    binaries: [{path: \"/**\"}]\n",
		"version: 1\ncredentials:\n  KEY:\n    file: SECRETS/KEY\n    bindings: [{host: api.demo.test, port: "+port+"}]\n", map[string]string{"KEY": real}).alone()
	client := p.grpcClient(t, port)
	with := func(pairs ...string) context.Context {
		return grpcmetadata.AppendToOutgoingContext(t.Context(), pairs...)
	}

	var trailer grpcmetadata.MD
	got, err := client.UnaryCall(with("authorization", "Bearer "+ph("KEY")), &pb.SimpleRequest{}, grpc.Trailer(&trailer))
	must(t, err)
	if got.OauthScope != backwards("Bearer "+real) || got.Username != "Bearer "+covered(real) {
		t.Errorf("the origin got %q, and said %q", backwards(got.OauthScope), got.Username)
	}
	if echo := strings.Join(trailer["x-echo"], ""); strings.Contains(echo, real) || !strings.Contains(echo, ph("KEY")) {
		t.Errorf("the trailer says %q", echo)
	}
	for name, ctx := range map[string]context.Context{
		"an unknown key":  with("authorization", "Bearer "+ph("NOBODY")),
		"binary metadata": with("x-bin", ph("KEY")),
	} {
		if _, err := client.UnaryCall(ctx, &pb.SimpleRequest{}); err == nil || !strings.Contains(err.Error(), "NOBODY") && !strings.Contains(err.Error(), "binary metadata") {
			t.Errorf("%s: %v", name, err)
		}
	}
	if _, err := client.UnaryCall(t.Context(), &pb.SimpleRequest{Payload: &pb.Payload{Body: []byte("a" + ph("KEY"))}}); status.Code(err) != codes.PermissionDenied {
		t.Errorf("a placeholder in a message: %v", err)
	}
	s, err := client.FullDuplexCall(with("authorization", "Bearer "+ph("KEY")))
	must(t, err)
	for _, part := range []string{"one", "two", "openshell:resol", real[:9], "three"} {
		must(t, s.Send(&pb.StreamingOutputCallRequest{Payload: &pb.Payload{Body: []byte(part)}}))
		m, err := s.Recv()
		if err != nil || string(m.Payload.Body) != part {
			t.Fatalf("%q came back as %v, %v", part, m, err)
		}
	}
	_ = s.Send(&pb.StreamingOutputCallRequest{Payload: &pb.Payload{Body: []byte(ph("KEY"))}})
	if m, err := s.Recv(); err == nil {
		t.Errorf("a placeholder came back: %v", m)
	}
}

// TestCredentialsInWebSockets: row 70, rotation between two messages, and what may not
// pass where credentials are bound.
func TestCredentialsInWebSockets(t *testing.T) {
	echo := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		c, err := websocket.Accept(w, r, nil)
		if err != nil {
			return
		}
		defer c.CloseNow()
		for {
			kind, data, err := c.Read(context.Background())
			if err != nil {
				return
			}
			data = bytes.ReplaceAll(data, []byte("REAL"), []byte("got-"))
			if c.Write(context.Background(), kind, data) != nil {
				return
			}
		}
	})
	o := map[string]*sink{"rewritten": origin(t, false, echo), "guarded": origin(t, false, echo), "rest": origin(t, false, echo), "plain": origin(t, false, echo), "opted out": origin(t, false, echo)}
	endpoint := func(name, options string) string {
		return "      - {host: api.demo.test, port: " + o[name].port + options + "}\n"
	}
	binding := func(name string) string { return "      - {host: api.demo.test, port: " + o[name].port + "}\n" }
	p := sealed(t, "version: 1\n"+who+"network_policies:\n  a:\n    endpoints:\n"+
		endpoint("rewritten", ", protocol: websocket, access: full, enforcement: enforce, websocket_credential_rewrite: true")+
		endpoint("guarded", ", protocol: websocket, access: full, enforcement: enforce")+
		endpoint("rest", ", protocol: rest, access: full, enforcement: enforce, websocket_credential_rewrite: true")+
		endpoint("plain", "")+
		endpoint("opted out", ", protocol: websocket, access: full, enforcement: enforce, allow_uninspected_credentials: true")+
		"    binaries: [{path: \"/**\"}]\n",
		"version: 1\ncredentials:\n  KEY:\n    file: SECRETS/KEY\n    bindings:\n"+binding("rewritten")+binding("guarded")+binding("rest")+binding("plain")+binding("opted out"),
		map[string]string{"KEY": `REAL"first`}).alone()
	dial := func(t *testing.T, name string) *websocket.Conn {
		t.Helper()
		tr := &http.Transport{DialTLSContext: func(context.Context, string, string) (net.Conn, error) { return p.secure(o[name].URL, "http/1.1"), nil }}
		c, _, err := websocket.Dial(t.Context(), "wss://"+o[name].URL+"/", &websocket.DialOptions{HTTPClient: &http.Client{Transport: tr}})
		must(t, err)
		t.Cleanup(func() { _ = c.CloseNow() })
		return c
	}
	say := func(t *testing.T, c *websocket.Conn, kind websocket.MessageType, text string) (string, error) {
		t.Helper()
		must(t, c.Write(t.Context(), kind, []byte(text)))
		_, data, err := c.Read(t.Context())
		return string(data), err
	}
	for _, name := range []string{"rewritten", "rest"} {
		c := dial(t, name)
		for _, tc := range [][2]string{{"hello", "hello"}, {`{"op":2,"token":"` + ph("KEY") + `"}`, `{"op":2,"token":"got-\"first"}`}, {"token " + ph("KEY"), `token got-"first`}} {
			if got, err := say(t, c, websocket.MessageText, tc[0]); err != nil || got != tc[1] {
				t.Errorf("%s: %q came back as %q, %v", name, tc[0], got, err)
			}
		}
		if _, err := say(t, c, websocket.MessageText, ph("NOBODY")); websocket.CloseStatus(err) != websocket.StatusPolicyViolation {
			t.Errorf("%s: an unknown key: %v", name, err)
		}
	}
	for _, name := range []string{"guarded", "plain"} {
		c := dial(t, name)
		if got, err := say(t, c, websocket.MessageText, "hello"); err != nil || got != "hello" {
			t.Errorf("%s: %q, %v", name, got, err)
		}
		if got, err := say(t, c, websocket.MessageText, ph("KEY")); websocket.CloseStatus(err) != websocket.StatusPolicyViolation {
			t.Errorf("%s: a placeholder in a message: %q, %v", name, got, err)
		}
		if got, err := say(t, dial(t, name), websocket.MessageBinary, "hello"); websocket.CloseStatus(err) != websocket.StatusPolicyViolation {
			t.Errorf("%s: a binary message: %q, %v", name, got, err)
		}
	}
	if got, err := say(t, dial(t, "opted out"), websocket.MessageBinary, "hello"); err != nil || got != "hello" {
		t.Errorf("opted out: %q, %v", got, err)
	}
	c := dial(t, "rewritten")
	p.secret("KEY", "REALsecond")
	eventually(t, "the new value in the same session", func() bool {
		got, err := say(t, c, websocket.MessageText, ph("KEY"))
		must(t, err)
		return got == "got-second"
	})
}

// TestCredentialsInWebSocketsOnStreams: a handshake in HTTP/2 and the messages behind it
// get credentials as those in HTTP/1.1 do, and its answer gives none back.
func TestCredentialsInWebSocketsOnStreams(t *testing.T) {
	came := make(chan *http.Request, 8)
	o := origin(t, false, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		came <- r
		w.Header().Set("X-Repeated", r.Header.Get("Authorization"))
		c, err := websocket.Accept(w, r, nil)
		if err != nil {
			return
		}
		defer c.CloseNow()
		for {
			kind, data, err := c.Read(context.Background())
			if err != nil || c.Write(context.Background(), kind, bytes.ReplaceAll(data, []byte("REAL"), []byte("got-"))) != nil {
				return
			}
		}
	}))
	p := sealed(t, "version: 1\n"+who+"network_policies:\n  a:\n    endpoints:\n"+
		"      - {host: api.demo.test, port: "+o.port+", protocol: websocket, access: full, enforcement: enforce, websocket_credential_rewrite: true}\n    binaries: [{path: \"/**\"}]\n",
		"version: 1\ncredentials:\n  KEY:\n    file: SECRETS/KEY\n    bindings:\n      - {host: api.demo.test, port: "+o.port+"}\n",
		map[string]string{"KEY": "REALfirstvalue"}).alone()
	h2, err := new(http2.Transport).NewClientConn(p.secure(o.URL, "h2"))
	must(t, err)
	defer h2.Close()
	ask := func(fields http.Header) (*http.Response, *io.PipeWriter) {
		t.Helper()
		body, frames := io.Pipe()
		t.Cleanup(func() { frames.Close() })
		req, err := http.NewRequestWithContext(t.Context(), "CONNECT", "https://"+o.URL+"/", body)
		must(t, err)
		fields[":protocol"], fields["Sec-Websocket-Version"] = []string{"websocket"}, []string{"13"}
		req.Header = fields
		resp, err := h2.RoundTrip(req)
		must(t, err)
		t.Cleanup(func() { resp.Body.Close() })
		return resp, frames
	}
	resp, frames := ask(http.Header{"Authorization": {"Bearer " + ph("KEY")}})
	if got := <-came; resp.StatusCode != 200 || got.Method != "GET" || got.Header.Get("Authorization") != "Bearer REALfirstvalue" {
		t.Fatalf("answered %s, and the origin got %s %v", resp.Status, got.Method, got.Header)
	}
	if v := resp.Header.Get("X-Repeated"); v == "" || strings.Contains(v, "REAL") {
		t.Errorf("the answer says %q", v)
	}
	stream := struct {
		io.Reader
		io.Writer
	}{resp.Body, frames}
	must(t, wsutil.WriteClientText(stream, []byte("token "+ph("KEY"))))
	if text, err := wsutil.ReadServerText(stream); err != nil || string(text) != "token got-firstvalue" {
		t.Errorf("the message came back as %q, %v", text, err)
	}
	must(t, wsutil.WriteClientText(stream, []byte(ph("NOBODY"))))
	_, err = wsutil.ReadServerText(stream)
	if closed, ok := errors.AsType[wsutil.ClosedError](err); !ok || closed.Code != ws.StatusPolicyViolation {
		t.Errorf("an unknown key: %v", err)
	}
	if resp, _ := ask(http.Header{"Authorization": {"Bearer " + ph("NOBODY")}}); resp.StatusCode != 500 {
		t.Errorf("an unknown key in a handshake: %s", resp.Status)
	}
	if len(came) > 0 {
		t.Error("the origin got a handshake that was refused")
	}
}

// TestEchoesInWebSocketsAreTakenOut: attack C8, of a value in the handshake and of one
// in a message, where the client offers compression, on every relay of WebSockets.
func TestEchoesInWebSocketsAreTakenOut(t *testing.T) {
	echo := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		c, err := websocket.Accept(w, r, &websocket.AcceptOptions{CompressionMode: websocket.CompressionNoContextTakeover, CompressionThreshold: 1})
		if err != nil {
			return
		}
		defer c.CloseNow()
		for {
			kind, data, err := c.Read(context.Background())
			if err != nil {
				return
			}
			out, _ := c.Writer(context.Background(), kind) // in fragments
			for _, part := range []string{r.Header.Get("Authorization"), " ", string(data[:len(data)/2]), string(data[len(data)/2:]), ".\n"} {
				_, _ = io.WriteString(out, part)
			}
			if out.Close() != nil {
				return
			}
		}
	})
	o := map[string]*sink{"websocket": origin(t, false, echo), "guarded": origin(t, false, echo), "rest": origin(t, false, echo), "plain": origin(t, false, echo), "opted out": origin(t, false, echo)}
	endpoints, bindings := "", ""
	for name, options := range map[string]string{
		"websocket": ", protocol: websocket, access: full, enforcement: enforce, websocket_credential_rewrite: true",
		"guarded":   ", protocol: websocket, access: full, enforcement: enforce",
		"rest":      ", protocol: rest, access: full, enforcement: enforce, websocket_credential_rewrite: true",
		"plain":     "", "opted out": ", allow_uninspected_credentials: true",
	} {
		endpoints += "      - {host: api.demo.test, port: " + o[name].port + options + "}\n"
		bindings += "      - {host: api.demo.test, port: " + o[name].port + "}\n"
	}
	p := sealed(t, "version: 1\n"+who+"network_policies:\n  a:\n    endpoints:\n"+endpoints+"    binaries: [{path: \"/**\"}]\n",
		"version: 1\ncredentials:\n  KEY:\n    file: SECRETS/KEY\n    bindings:\n"+bindings+"  OTHER:\n    file: SECRETS/OTHER\n    bindings:\n"+bindings,
		map[string]string{"KEY": "REALfirst7f3a9c51d2", "OTHER": "REALother0bd2e6f718"}).alone()
	for name, s := range o {
		tr := &http.Transport{DialTLSContext: func(context.Context, string, string) (net.Conn, error) { return p.secure(s.URL, "http/1.1"), nil }}
		c, resp, err := websocket.Dial(t.Context(), "wss://"+s.URL+"/", &websocket.DialOptions{HTTPClient: &http.Client{Transport: tr},
			HTTPHeader: http.Header{"Authorization": {"Bearer " + ph("KEY")}}, CompressionMode: websocket.CompressionNoContextTakeover})
		must(t, err)
		if got := resp.Header.Get("Sec-WebSocket-Extensions"); got != "" {
			t.Errorf("%s: the extensions are %q", name, got)
		}
		rewritten := name == "websocket" || name == "rest"
		for _, message := range []string{"hello", "Bearer " + ph("OTHER"), "hello again"} {
			if strings.Contains(message, "resolve") && !rewritten {
				continue
			}
			must(t, c.Write(t.Context(), websocket.MessageText, []byte(message)))
			_, data, err := c.Read(t.Context())
			if want := "Bearer " + ph("KEY") + " " + message + ".\n"; err != nil || string(data) != want {
				t.Errorf("%s: %q came back as %q, %v", name, message, data, err)
			}
		}
		must(t, c.Close(websocket.StatusNormalClosure, ""))
	}
	eventually(t, "records that count them", func() bool {
		out := p.network.out.String()
		return strings.Count(out, ": 4 echoed values taken out")+strings.Count(out, "; 4 echoed values taken out") == 2 && strings.Count(out, "; 2 echoed values taken out") == 3
	})
	if out := p.network.out.String() + p.network.err.String(); strings.Contains(out, "REAL") {
		t.Error("the records or the log contain a value")
	}
}
