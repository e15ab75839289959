package e2e_test

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	v4 "github.com/aws/aws-sdk-go-v2/aws/signer/v4"
)

// TestRequestsAreSignedAtTheEdge: row 65 and attack C10. The origin signs what it got
// again, with the SDK's signer, and compares.
func TestRequestsAreSignedAtTheEdge(t *testing.T) {
	o := origin(t, false)
	twice := origin(t, false)
	real := map[string]string{"AWS_ACCESS_KEY_ID": "AKIDREAL7f3a9c", "AWS_SECRET_ACCESS_KEY": "REALsecret7f3a9c", "AWS_SESSION_TOKEN": "REALsession7f3a9c"}
	file := "version: 1\ncredentials:\n"
	for key := range real {
		file += fmt.Sprintf("  %s:\n    file: SECRETS/%s\n    bindings: [{host: api.demo.test, ports: [%s, %s]}]\n", key, key, o.port, twice.port)
	}
	p := sealed(t, "version: 1\n"+who+"network_policies:\n  a:\n    endpoints:\n"+
		"      - {host: api.demo.test, port: "+o.port+", protocol: rest, access: full, enforcement: enforce, credential_signing: sigv4, signing_service: s3, signing_region: eu-west-1}\n"+
		"      - {host: api.demo.test, port: "+twice.port+", protocol: rest, access: full, enforcement: enforce, credential_signing: \"sigv4:body\", signing_service: bedrock, signing_region: us-east-1}\n"+
		"    binaries: [{path: \"/**\"}]\n", file, real).alone()
	// What a client with placeholders for keys sends: signed, but with nothing.
	dummy := []string{"Authorization: AWS4-HMAC-SHA256 Credential=" + ph("AWS_ACCESS_KEY_ID") + "/20260101/us-west-2/s3/aws4_request, SignedHeaders=host, Signature=00",
		"X-Amz-Date: 20200101T000000Z", "X-Amz-Security-Token: " + ph("AWS_SESSION_TOKEN")}
	hash := func(v string) string { return "X-Amz-Content-Sha256: " + v }
	for name, tc := range map[string]struct {
		at     *sink
		send   string
		status string
		reason string
		path   string
	}{
		"a GET":                      {o, get("/bucket/key?list-type=2&prefix=a%20b", o.URL, append(dummy, hash("UNSIGNED-PAYLOAD"))...), "200", "", "/bucket/key"},
		"a key that needs escapes":   {o, get("/bucket/a%20b%25%3B/%C3%BC", o.URL, append(dummy, hash("UNSIGNED-PAYLOAD"))...), "200", "", "/bucket/a%20b%25%3B/%C3%BC"},
		"a body":                     {o, posted(o.URL, "text/plain", "hello", append(dummy, hash(strings.Repeat("0", 64)))...), "200", "", "/p"},
		"a trailer of checksums":     {o, strings.Replace(chunked(o.URL, "text/plain", "", "5\r\nhello\r\n0\r\nx-amz-checksum-crc32:AAAA==\r\n\r\n"), "\r\n\r\n", "\r\nContent-Encoding: aws-chunked\r\nX-Amz-Trailer: x-amz-checksum-crc32\r\n"+hash("STREAMING-UNSIGNED-PAYLOAD-TRAILER")+"\r\n\r\n", 1), "200", "", "/p"},
		"without any of its own":     {o, get("/x", o.URL), "200", "", "/x"},
		"another service, twice":     {twice, posted(twice.URL, "application/json", "{}", dummy...), "200", "", "/p"},
		"signed chunk by chunk":      {o, posted(o.URL, "text/plain", "hello", append(dummy, hash("STREAMING-AWS4-HMAC-SHA256-PAYLOAD"))...), "400", "credential_signing_failed", ""},
		"a presigned URL":            {o, get("/other-bucket/k?X-Amz-Algorithm=AWS4-HMAC-SHA256&X-Amz-Signature=00", o.URL), "400", "credential_signing_failed", ""},
		"keys for several regions":   {o, get("/x", o.URL, "X-Amz-Region-Set: *"), "400", "credential_signing_failed", ""},
		"a key with an empty part":   {o, get("/bucket//key", o.URL), "400", "credential_signing_failed", ""},
		"a key with a parameter":     {o, get("/bucket/a;b", o.URL), "400", "credential_signing_failed", ""},
		"a key that climbs":          {o, get("/bucket/a/../b", o.URL), "400", "credential_signing_failed", ""},
		"a placeholder in the body":  {o, posted(o.URL, "text/plain", ph("AWS_SECRET_ACCESS_KEY"), hash("UNSIGNED-PAYLOAD")), "403", "credential_unavailable", ""},
		"a body of unknown length":   {twice, chunked(twice.URL, "text/plain", "", "hello"), "411", "credential_signing_failed", ""},
		"a body above ten megabytes": {twice, fmt.Sprintf("POST /p HTTP/1.1\r\nHost: %s\r\nContent-Length: %d\r\n\r\n", twice.URL, 10<<20+1), "413", "credential_signing_failed", ""},
	} {
		t.Run(name, func(t *testing.T) {
			status, answer := p.say(tc.at.URL, marked(name, tc.send))
			got := tc.at.all()
			var one []arrived
			for _, a := range got {
				if a.Header.Get("X-Case") == name {
					one = append(one, a)
				}
			}
			if status != tc.status || tc.reason != "" && (!strings.Contains(answer, `"error":"`+tc.reason+`"`) || len(one) != 0) {
				t.Fatalf("status %s, want %s %s; %d arrived; answer %s", status, tc.status, tc.reason, len(one), answer)
			}
			if tc.reason != "" {
				return
			}
			if len(one) != 1 || !strings.HasPrefix(one[0].URI, tc.path) {
				t.Fatalf("arrived %+v", one)
			}
			service, region := "s3", "eu-west-1"
			if tc.at == twice {
				service, region = "bedrock", "us-east-1"
			}
			verify(t, one[0], real, service, region)
		})
	}
	for _, v := range real {
		if strings.Contains(p.network.out.String()+p.network.err.String(), v) {
			t.Errorf("a record or the log contains %q", v)
		}
	}
	p.secret("AWS_SESSION_TOKEN", "REALrotated7f3a9c")
	eventually(t, "the new session token", func() bool {
		o.clear()
		p.say(o.URL, get("/x", o.URL, "X-Amz-Security-Token: an old one of the client"))
		got := o.all()
		return len(got) == 1 && got[0].Header.Get("X-Amz-Security-Token") == "REALrotated7f3a9c"
	})
}

// TestTwoAccountsSignForTheirEndpoints: credential_binding chooses the keys; a provider
// that the credentials file does not have signs nothing.
func TestTwoAccountsSignForTheirEndpoints(t *testing.T) {
	o := map[string]*sink{"first": origin(t, false), "second": origin(t, false), "nobody": origin(t, false)}
	keys := map[string]map[string]string{
		"first":  {"AWS_ACCESS_KEY_ID": "AKIDREALfirst7f3a", "AWS_SECRET_ACCESS_KEY": "REALfirstsecret7f3a"},
		"second": {"AWS_ACCESS_KEY_ID": "AKIDREALsecond9c51", "AWS_SECRET_ACCESS_KEY": "REALsecondsecret9c51"},
	}
	secrets, file, policy := map[string]string{}, "version: 1\ncredentials:\n", "version: 1\n"+who+"network_policies:\n  a:\n    endpoints:\n"
	for account, own := range keys {
		for key, value := range own {
			name := strings.ToUpper(account) + "_" + key
			secrets[name] = value
			file += "  " + name + ":\n    file: SECRETS/" + name + "\n    environment: false\n    bindings: [{host: api.demo.test, ports: [" + o["first"].port + ", " + o["second"].port + ", " + o["nobody"].port + "]}]\n"
		}
	}
	file += "signing:\n  - {access_key_id: FIRST_AWS_ACCESS_KEY_ID, secret_access_key: FIRST_AWS_SECRET_ACCESS_KEY}\n" +
		"  - {provider: second, access_key_id: SECOND_AWS_ACCESS_KEY_ID, secret_access_key: SECOND_AWS_SECRET_ACCESS_KEY}\n"
	for name, binding := range map[string]string{"first": "", "second": ", credential_binding: {provider: second}", "nobody": ", credential_binding: {provider: nobody}"} {
		policy += "      - {host: api.demo.test, port: " + o[name].port + ", protocol: rest, access: full, enforcement: enforce, credential_signing: sigv4, signing_service: s3, signing_region: eu-west-1" + binding + "}\n"
	}
	p := sealed(t, policy+"    binaries: [{path: \"/**\"}]\n", file, secrets).alone()
	for name, own := range keys {
		status, answer := p.say(o[name].URL, get("/bucket/key", o[name].URL))
		got := o[name].all()
		if status != "200" || len(got) != 1 {
			t.Fatalf("%s: status %s, %d arrived: %s", name, status, len(got), answer)
		}
		verify(t, got[0], own, "s3", "eu-west-1")
	}
	status, answer := p.say(o["nobody"].URL, get("/bucket/key", o["nobody"].URL))
	if status != "500" || !strings.Contains(answer, "no keys to sign with for the provider") || len(o["nobody"].all()) != 0 {
		t.Errorf("a provider that is not in the file: status %s, %s", status, answer)
	}
	if out := p.network.out.String() + p.network.err.String(); strings.Contains(out, "REAL") {
		t.Error("the records or the log contain a key")
	}
}

// verify signs a request again.
func verify(t *testing.T, a arrived, keys map[string]string, service, region string) {
	t.Helper()
	got := a.Header.Get("Authorization")
	at, err := time.Parse("20060102T150405Z", a.Header.Get("X-Amz-Date"))
	if err != nil || time.Since(at).Abs() > time.Minute {
		t.Fatalf("the date is %q", a.Header.Get("X-Amz-Date"))
	}
	_, signed, _ := strings.Cut(got, "SignedHeaders=")
	signed, _, _ = strings.Cut(signed, ",")
	path, query, _ := strings.Cut(a.URI, "?")
	req, err := http.NewRequest(a.Method, "https://"+a.Host+"/", nil)
	must(t, err)
	req.URL.Opaque, req.URL.RawQuery, req.Host = "//"+a.Host+path, query, a.Host
	for name := range strings.SplitSeq(signed, ";") {
		if name == "content-length" {
			req.ContentLength = int64(len(a.Body))
		} else if name != "host" && !strings.HasPrefix(name, "x-amz-date") && name != "x-amz-security-token" {
			req.Header[http.CanonicalHeaderKey(name)] = a.Header.Values(name)
		}
	}
	hash := a.Header.Get("X-Amz-Content-Sha256")
	if hash == "" || hash != "UNSIGNED-PAYLOAD" && !strings.HasPrefix(hash, "STREAMING") {
		sum := sha256Hex(a.Body)
		if hash != "" && hash != sum {
			t.Errorf("the digest is %s, of the body %s", hash, sum)
		}
		hash = sum
	}
	signer := v4.NewSigner(func(o *v4.SignerOptions) { o.DisableURIPathEscaping = service == "s3" })
	must(t, signer.SignHTTP(t.Context(), aws.Credentials{AccessKeyID: keys["AWS_ACCESS_KEY_ID"], SecretAccessKey: keys["AWS_SECRET_ACCESS_KEY"], SessionToken: keys["AWS_SESSION_TOKEN"]}, req, hash, service, region, at))
	if want := req.Header.Get("Authorization"); got != want {
		t.Errorf("the origin got\n%s, and computes\n%s", got, want)
	}
}

// TestTokensAreFetchedAtTheEdge: row 66 and attack C11.
func TestTokensAreFetchedAtTheEdge(t *testing.T) {
	var asked atomic.Int32
	var mode atomic.Value
	mode.Store("token")
	elsewhere := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) { asked.Add(100) }))
	defer elsewhere.Close()
	tokens := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		n := asked.Add(1)
		_ = r.ParseForm()
		w.Header().Set("Content-Type", "application/json")
		switch {
		case r.PostForm.Get("subject_token") != "REALidentity7f3a" || r.PostForm.Get("audience") != "orders":
			http.Error(w, `{"error":"invalid_client"}`, http.StatusUnauthorized)
		case mode.Load() == "redirect":
			http.Redirect(w, r, elsewhere.URL, http.StatusTemporaryRedirect)
		case mode.Load() == "refuse":
			http.Error(w, `{"error":"invalid_grant","error_description":"no"}`, 400)
		default:
			_ = json.NewEncoder(w).Encode(map[string]any{"access_token": fmt.Sprintf("REALgranted%d", n), "token_type": "Bearer", "expires_in": 600})
		}
	}))
	defer tokens.Close()
	o, plain, rpc := origin(t, false), origin(t, false), origin(t, false)
	bindings := ""
	for _, s := range []*sink{o, plain, rpc} {
		bindings += "      - {host: api.demo.test, port: " + s.port + "}\n"
	}
	file := "version: 1\ncredentials:\n  IDENTITY: {file: SECRETS/IDENTITY, environment: false}\ntoken_grants:\n  - name: orders\n    grant: token_exchange\n    subject_key: IDENTITY\n    audience: orders\n    token_endpoint: " + tokens.URL + "/token\n    bindings:\n" + bindings
	p := sealed(t, "version: 1\n"+who+"network_policies:\n  a:\n    endpoints:\n"+
		"      - {host: api.demo.test, port: "+o.port+", protocol: rest, access: full, enforcement: enforce}\n"+
		"      - {host: api.demo.test, port: "+plain.port+"}\n"+
		"      - {host: api.demo.test, port: "+rpc.port+", protocol: json-rpc, enforcement: enforce, rules: [{allow: {method: \"*\"}}]}\n"+
		"    binaries: [{path: \"/**\"}]\n", file, map[string]string{"IDENTITY": "REALidentity7f3a"}).alone()
	for i := range 2 {
		status, answer := p.say(o.URL, get("/echo", o.URL, "Authorization: Bearer anything"))
		if got := o.all(); status != "200" || len(got) != i+1 || got[i].Header.Get("Authorization") != "Bearer REALgranted1" {
			t.Fatalf("status %s, arrived %+v", status, got)
		}
		if head, _, _ := strings.Cut(answer, "\n\n"); strings.Contains(head, "REALgranted") {
			t.Errorf("the token is in the head of the answer: %s", head)
		}
	}
	p.say(plain.URL, get("/", plain.URL))
	p.say(rpc.URL, posted(rpc.URL, "application/json", `{"jsonrpc":"2.0","id":1,"method":"m"}`))
	for _, s := range []*sink{plain, rpc} {
		if got := s.all(); len(got) != 1 || got[0].Header.Get("Authorization") != "Bearer REALgranted1" {
			t.Errorf("arrived %+v", got)
		}
	}
	if n := asked.Load(); n != 1 {
		t.Errorf("the token endpoint was asked %d times", n)
	}
	c := p.client2(t)
	resp, err := c.Get("https://" + o.URL + "/")
	must(t, err)
	resp.Body.Close()
	if got := o.all(); got[len(got)-1].Header.Get("Authorization") != "Bearer REALgranted1" {
		t.Errorf("by HTTP/2: %+v", got)
	}
	for _, how := range []string{"redirect", "refuse"} {
		mode.Store(how)
		p.credentials(strings.Replace(file, "name: orders", "name: "+how, 1)) // a new grant has no token yet
		o.clear()
		eventually(t, "an answer without a token", func() bool {
			status, answer := p.say(o.URL, get("/", o.URL))
			return status == "502" && strings.Contains(answer, `"error":"token_grant_failed"`) && strings.Contains(answer, how)
		})
	}
	if asked.Load() >= 100 {
		t.Error("the redirect was followed")
	}
	for _, never := range []string{"REALidentity", "REALgranted"} {
		if strings.Contains(p.network.out.String()+p.network.err.String(), never) {
			t.Errorf("a record or the log contains %q", never)
		}
	}
}

// TestCredentialsListNamesNoValue: what a person sees.
func TestCredentialsListNamesNoValue(t *testing.T) {
	origins, policy, file := relays(t)
	p := sealed(t, policy, file, relaySecrets).alone()
	p.say(origins["rest"].URL, get("/", origins["rest"].URL, "Authorization: Bearer "+ph("KEY")))
	var out string
	eventually(t, "the use in the list", func() bool {
		var code int
		code, out, _ = command(t, "supervisor-network", "credentials", "list", "--state-dir", p.dir+"/state")
		for line := range strings.Lines(out) {
			if f := strings.Fields(line); code == 0 && len(f) > 4 && f[0] == "KEY" && f[1] == "usable" && f[4] == "1" {
				return true
			}
		}
		return false
	})
	for _, want := range []string{"OLD", "expired", "2020-01-01T00:00:00Z", "BROKEN", "CR, LF or NUL", "anywhere", "api.demo.test:" + origins["rest"].port, p.dir + "/secrets/KEY"} {
		if !strings.Contains(out, want) {
			t.Errorf("%q is not in\n%s", want, out)
		}
	}
	code, offline, errs := command(t, "supervisor-network", "credentials", "list", p.dir+"/config/credentials.yaml", "--json")
	if code != 0 || !json.Valid([]byte(offline)) {
		t.Errorf("exit code %d, %s", code, errs)
	}
	data, _ := os.ReadFile(p.dir + "/state/credentials.json")
	for _, v := range relaySecrets {
		if strings.Contains(out+offline+errs+string(data), v) {
			t.Errorf("a list contains %q", v)
		}
	}
	if code, _, _ := command(t, "supervisor-network", "credentials", "list", "--state-dir", t.TempDir()); code != 1 {
		t.Errorf("without a daemon the exit code is %d", code)
	}
}

func sha256Hex(s string) string {
	sum := sha256.Sum256([]byte(s))
	return hex.EncodeToString(sum[:])
}
