package e2e_test

import (
	"context"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"io"
	"io/fs"
	"net"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"

	"github.com/coder/websocket"
	"google.golang.org/grpc"
	pb "google.golang.org/grpc/interop/grpc_testing"
	grpcmetadata "google.golang.org/grpc/metadata"
)

// formsOf are the ways in which a value could be written somewhere.
func formsOf(v string) (out []string) {
	quoted, _ := json.Marshal(v)
	out = []string{v, url.QueryEscape(v), url.PathEscape(v), strings.Trim(string(quoted), `"`), hex.EncodeToString([]byte(v))}
	for before := range 3 { // base64 looks different at each place of a group
		text := base64.RawStdEncoding.EncodeToString([]byte(strings.Repeat("\x00", before) + v))
		out = append(out, text[(before*8+5)/6:(before+len(v))*8/6])
	}
	return out
}

// TestCanary runs every feature with a value that is like no other, and then looks for
// it everywhere but at the origin (C16, C17, row 100).
func TestCanary(t *testing.T) {
	const token, quoted, identity, granted = "CANARYa91f7c3e55", `CANARY"\'b82e8d4f66ü`, "CANARYc73d9e5a77", "CANARYd64ca06b88"
	secrets := map[string]string{"TOKEN": token, "QUOTED": quoted, "IDENTITY": identity, "AWS_ACCESS_KEY_ID": "CANARYe55bb17c99", "AWS_SECRET_ACCESS_KEY": "CANARYf46ac28daa", "AWS_SESSION_TOKEN": "CANARY0379d39ebb"}
	tokens := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		_ = r.ParseForm()
		if strings.HasPrefix(r.URL.Path, "/broken") {
			http.Error(w, `{"error":"bad","error_description":"`+r.PostForm.Get("client_assertion")+r.PostForm.Get("subject_token")+`"}`, 400)
			return
		}
		w.Header().Set("Content-Type", "application/json")
		_ = json.NewEncoder(w).Encode(map[string]any{"access_token": granted, "expires_in": 600})
	}))
	defer tokens.Close()
	socket := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		c, err := websocket.Accept(w, r, nil)
		if err != nil {
			return
		}
		defer c.CloseNow()
		_, data, _ := c.Read(context.Background())
		_ = c.Write(context.Background(), websocket.MessageText, append(data, r.Header.Get("Authorization")...))
		_, _, _ = c.Read(context.Background())
	})
	api := newWorkloadAPI(t)
	sent, at := newCollector(t)
	o := map[string]*sink{"rest": origin(t, false), "body": origin(t, false), "aws": origin(t, false), "grant": origin(t, false), "broken": origin(t, false), "ws": origin(t, false, socket),
		"coded": origin(t, false, http.HandlerFunc(repeating)), "svid": origin(t, false), "sts": origin(t, false), "brokensts": origin(t, false)}
	rpc := grpcOrigin(t)
	binding := func(name string) string { return "{host: api.demo.test, port: " + o[name].port + "}" }
	file := "version: 1\ncredentials:\n  IDENTITY: {file: SECRETS/IDENTITY, environment: false}\n"
	for _, key := range []string{"TOKEN", "QUOTED"} {
		file += "  " + key + ": {file: SECRETS/" + key + ", response_hygiene: bodies, bindings: [" + binding("rest") + ", " + binding("body") + ", " + binding("ws") + ", " + binding("coded") + ", {host: api.demo.test, port: " + rpc + "}]}\n"
	}
	for _, key := range []string{"AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN"} {
		file += "  " + key + ": {file: SECRETS/" + key + ", response_hygiene: bodies, bindings: [" + binding("aws") + "]}\n"
	}
	file += "token_grants:\n"
	for name, path := range map[string]string{"grant": "/token", "broken": "/broken"} {
		file += "  - {name: " + name + ", subject_key: IDENTITY, token_endpoint: \"" + tokens.URL + path + "\", bindings: [" + binding(name) + "]}\n"
	}
	for name, path := range map[string]string{"svid": "/svid", "sts": "/sts, grant: token_exchange", "brokensts": "/broken, grant: token_exchange"} {
		file += "  - {name: " + name + ", workload_api: " + api.address + ", token_endpoint: " + tokens.URL + path + ", bindings: [" + binding(name) + "]}\n"
	}
	policy := "version: 1\n" + who + "network_policies:\n  all:\n    endpoints:\n"
	for name, options := range map[string]string{"rest": "protocol: rest", "body": "protocol: rest, request_body_credential_rewrite: true", "grant": "protocol: rest", "broken": "protocol: rest",
		"svid": "protocol: rest", "sts": "protocol: rest", "brokensts": "protocol: rest", "coded": "protocol: rest",
		"aws": "protocol: rest, credential_signing: sigv4, signing_service: s3, signing_region: eu-west-1", "ws": "protocol: websocket, websocket_credential_rewrite: true"} {
		policy += "      - {host: api.demo.test, port: " + o[name].port + ", access: full, enforcement: enforce, " + options + "}\n"
	}
	policy += "      - {host: api.demo.test, port: " + rpc + ", protocol: rest, access: full, enforcement: enforce}\n"
	p := sealed(t, policy+"    binaries: [{path: \"/**\"}]\n", file, secrets).alone("--admin-listen", "127.0.0.1:19901", "--log-level", "debug", "--otlp-endpoint", at)

	var seen strings.Builder // by the workload
	say := func(name, text, want string) {
		t.Helper()
		status, answer := p.say(o[name].URL, text)
		seen.WriteString(answer)
		if status != want {
			t.Errorf("%s: status %s, want %s: %s", name, status, want, answer)
		}
	}
	rest, body := o["rest"].URL, o["body"].URL
	for _, key := range []string{"TOKEN", "QUOTED"} {
		say("rest", get("/echo", rest, "Authorization: Bearer "+ph(key)), "200")
		say("rest", get("/echo", rest, "Authorization: Basic "+basicOf("u:"+ph(key)), "X-Api-Key: "+ph(key)), "200")
		say("rest", get("/echo?q="+ph(key), rest), "200")
		say("body", strings.Replace(posted(body, "application/json", `{"k":"`+ph(key)+`"}`), "/p", "/echo", 1), "200")
		say("body", strings.Replace(posted(body, "application/x-www-form-urlencoded", "k="+ph(key)), "/p", "/echo", 1), "200")
		say("rest", get("/", rest, "Authorization: Bearer "+ph(key), "X-Bad: "+ph("NOBODY")), "500")
		say("grant", get("/", o["grant"].URL, "X: "+ph(key)), "403")
	}
	say("rest", get("/echo/"+ph("TOKEN"), rest, "Cookie: a="+ph("TOKEN")), "200")
	say("rest", get("/"+ph("QUOTED"), rest), "500") // it does not fit into a path
	say("aws", get("/echo", o["aws"].URL), "200")
	say("aws", get("/echo//x", o["aws"].URL), "400")
	say("grant", get("/", o["grant"].URL), "200")
	say("broken", get("/", o["broken"].URL), "502")
	say("svid", get("/echo", o["svid"].URL), "200")
	say("sts", get("/echo", o["sts"].URL), "200")
	say("brokensts", get("/", o["brokensts"].URL), "502")
	for _, key := range []string{"TOKEN", "QUOTED"} {
		say("coded", get("/br", o["coded"].URL, "Authorization: Bearer "+ph(key)), "502")
		for _, coding := range []string{"none", "none/stated", "gzip", "gzip/stated", "deflate", "deflate/stated", "binary", "binary/stated", "untyped"} {
			say("coded", get("/"+coding, o["coded"].URL, "Authorization: Bearer "+ph(key), "X-Basic: Basic "+basicOf("u:"+ph(key)), "Accept-Encoding: gzip"), "200")
		}
	}
	tr := &http.Transport{DialTLSContext: func(context.Context, string, string) (net.Conn, error) { return p.secure(o["ws"].URL, "http/1.1"), nil }}
	ws, _, err := websocket.Dial(t.Context(), "wss://"+o["ws"].URL+"/", &websocket.DialOptions{HTTPClient: &http.Client{Transport: tr}, HTTPHeader: http.Header{"Authorization": {"Bearer " + ph("TOKEN")}}})
	must(t, err)
	must(t, ws.Write(t.Context(), websocket.MessageText, []byte(`{"k":"`+ph("QUOTED")+`"}`)))
	_, data, err := ws.Read(t.Context())
	if want := `{"k":"` + ph("QUOTED") + `"}Bearer ` + ph("TOKEN"); err != nil || string(data) != want {
		t.Errorf("the WebSocket: %q, %v", data, err)
	}
	seen.Write(data)
	must(t, ws.Write(t.Context(), websocket.MessageText, []byte(ph("NOBODY"))))
	_, _, err = ws.Read(t.Context())
	seen.WriteString(fmt.Sprint(err))
	c2 := p.client2(t)
	req, err := http.NewRequestWithContext(t.Context(), "GET", "https://"+rest+"/echo", nil)
	must(t, err)
	req.Header.Set("Authorization", "Bearer "+ph("TOKEN"))
	resp, err := c2.Do(req)
	must(t, err)
	answer, _ := io.ReadAll(resp.Body)
	resp.Body.Close()
	fmt.Fprint(&seen, resp.Header, string(answer))
	var head, trailer grpcmetadata.MD
	reply, err := p.grpcClient(t, rpc).UnaryCall(grpcmetadata.AppendToOutgoingContext(t.Context(), "authorization", "Bearer "+ph("TOKEN")), &pb.SimpleRequest{}, grpc.Header(&head), grpc.Trailer(&trailer))
	if must(t, err); reply.OauthScope != backwards("Bearer "+token) {
		t.Errorf("by gRPC arrived %q", backwards(reply.OauthScope))
	}
	fmt.Fprint(&seen, head, trailer, reply.Username)

	// The value did arrive: else there would be nothing to find.
	all := ""
	for _, name := range []string{"rest", "body", "aws", "grant", "svid", "sts"} {
		all += fmt.Sprintf("%+v", o[name].all())
	}
	for _, v := range []string{token, granted, secrets["AWS_ACCESS_KEY_ID"], secrets["AWS_SESSION_TOKEN"]} {
		if !strings.Contains(all, v) {
			t.Errorf("%s arrived nowhere", v)
		}
	}

	places := map[string]string{"an answer": seen.String()}
	for _, path := range []string{"/metrics", "/readyz", "/livez", "/", "/view.json"} {
		resp, err := http.Get("http://127.0.0.1:19901" + path)
		must(t, err)
		data, _ := io.ReadAll(resp.Body)
		resp.Body.Close()
		places[path] = string(data)
	}
	if !strings.Contains(places["/metrics"], `splitpod_credential_uses_total{key="TOKEN"}`) {
		t.Error("uses are not counted in the metrics")
	}
	eventually(t, "the list of uses", func() bool {
		_, out, errs := command(t, "supervisor-network", "credentials", "list", "--state-dir", p.dir+"/state")
		places["the list"] = out + errs
		return strings.Contains(out, "TOKEN")
	})
	_, out, errs := command(t, "supervisor-network", "watch", "--count", "1", "--url", "http://127.0.0.1:19901/view.json")
	places["the view in a terminal"] = out + errs
	for _, where := range []string{"/view.json", "the view in a terminal"} {
		if !strings.Contains(places[where], "api.demo.test") {
			t.Errorf("%s shows nothing: %s", where, places[where])
		}
	}
	eventually(t, "a collector's copy", func() bool {
		places["what is exported"] = sent.everything()
		return strings.Contains(places["what is exported"], "credentials used: QUOTED") && strings.Contains(places["what is exported"], "scope_spans")
	})
	pid := p.network.cmd.Process.Pid
	for _, file := range []string{"cmdline", "environ"} {
		data, _ := os.ReadFile(fmt.Sprintf("/proc/%d/%s", pid, file))
		places[file] = string(data)
	}
	if data, _ := os.ReadFile(fmt.Sprintf("/proc/%d/limits", pid)); !coreless(string(data)) {
		t.Errorf("core files may be written: %s", data)
	}
	if info, err := os.Stat(fmt.Sprintf("/proc/%d/mem", pid)); err != nil || info.Sys().(*syscall.Stat_t).Uid != 0 {
		t.Errorf("the daemon is dumpable: its memory belongs to its user (%v)", err)
	}
	p.network.kill(syscall.SIGQUIT) // the stacks of everything that goes on
	<-p.network.ended
	if !strings.Contains(p.network.err.String(), "goroutine ") {
		t.Error("no stack was written")
	}
	places["records"], places["the log and the stacks"] = p.network.out.String(), p.network.err.String()
	must(t, filepath.WalkDir(p.dir, func(path string, e fs.DirEntry, err error) error {
		if err != nil || !e.Type().IsRegular() || strings.HasPrefix(path, p.dir+"/secrets/") {
			return err
		}
		data, err := os.ReadFile(path)
		places[path] = string(data)
		return err
	}))
	values := append(api.svids(), granted)
	for _, svid := range api.svids() {
		values = append(values, strings.Split(svid, ".")[1:]...)
	}
	if len(values) != 3*3+1 {
		t.Errorf("%d identities were issued", len(api.svids()))
	}
	for _, v := range secrets {
		values = append(values, v)
	}
	for where, text := range places {
		for _, v := range values {
			for i, form := range formsOf(v) {
				if strings.Contains(text, form) {
					t.Errorf("%s contains %s in form %d", where, v, i)
				}
			}
		}
		if where != "an answer" && where != p.dir+"/config/credentials.yaml" && strings.Contains(text, "openshell:resolve:env:") {
			t.Errorf("%s contains a placeholder", where)
		}
	}
}

// coreless reports whether the limits of a process allow no core file.
func coreless(limits string) bool {
	for line := range strings.Lines(limits) {
		if f := strings.Fields(line); len(f) > 5 && slices.Equal(f[:4], []string{"Max", "core", "file", "size"}) {
			return f[4] == "0" && f[5] == "0"
		}
	}
	return false
}
