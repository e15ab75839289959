package inject_test

import (
	"bytes"
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
	"strings"
	"testing"

	"github.com/splitpod/splitpod/cmd/supervisor-network/internal/decide"
	"github.com/splitpod/splitpod/cmd/supervisor-network/internal/http1"
	"github.com/splitpod/splitpod/cmd/supervisor-network/internal/inject"
	"github.com/splitpod/splitpod/cmd/supervisor-network/internal/inject/credentials"
	"github.com/splitpod/splitpod/cmd/supervisor-network/internal/inject/exchange"
	"github.com/splitpod/splitpod/cmd/supervisor-network/internal/inject/hygiene"
	"github.com/splitpod/splitpod/cmd/supervisor-network/internal/inject/placeholder"
	"github.com/splitpod/splitpod/cmd/supervisor-network/internal/inject/rewrite"
	"github.com/splitpod/splitpod/cmd/supervisor-network/internal/inject/sigv4"
	"github.com/splitpod/splitpod/pkg/core"
	"github.com/splitpod/splitpod/pkg/core/policy"
)

// canary has characters that every escaping changes.
const canary = `canary/93"of<this>+test`

// shows reports in which form a text contains the canary.
func shows(text string) string {
	quoted, _ := json.Marshal(canary)
	for name, form := range map[string]string{
		"plain": canary, "its middle": `93"of<`, "percent": url.QueryEscape(canary), "path": url.PathEscape(canary), "JSON": strings.Trim(string(quoted), `"`),
		"decimal": strings.Trim(fmt.Sprint([]byte(canary)), "[]"), "hex": fmt.Sprintf("%x", canary), "quoted": strings.Trim(fmt.Sprintf("%q", canary), `"`),
	} {
		if strings.Contains(text, form) {
			return name
		}
	}
	for before := range 3 {
		for _, enc := range []*base64.Encoding{base64.RawStdEncoding, base64.RawURLEncoding} {
			coded := enc.EncodeToString([]byte(strings.Repeat("\x00", before) + canary))
			if strings.Contains(text, coded[4:len(coded)-4]) {
				return "base64"
			}
		}
	}
	return ""
}

func permit(t *testing.T) decide.Permit {
	t.Helper()
	doc, _, err := policy.Parse("p", []byte("version: 1\nnetwork_policies:\n  a:\n    endpoints: [{host: api.us-east-1.amazonaws.com, port: 443}]\n    binaries: [{path: /bin/a}]\n"))
	if err != nil {
		t.Fatal(err)
	}
	snapshot, err := decide.Compile(t.Context(), doc, decide.Options{Generation: 1, IgnoreBinaries: true})
	if err != nil {
		t.Fatal(err)
	}
	p, denial := snapshot.Connection(t.Context(), decide.Question{Who: &core.Identity{}, Host: "api.us-east-1.amazonaws.com", Port: 443})
	if denial != nil {
		t.Fatal(denial)
	}
	return p
}

// TestTheCanaryShowsNowhere puts one value through every feature of this stage, also
// where each refuses it, and looks for it in all that is logged, listed, marshalled,
// printed or told to the workload.
func TestTheCanaryShowsNowhere(t *testing.T) {
	var seen bytes.Buffer
	dir := t.TempDir()
	for name, content := range map[string]string{"value": canary, "lines": canary + "\nx" + canary, "jwt": canary + "." + canary + "." + canary, "marker": canary + placeholder.Marker, "c.yaml": strings.ReplaceAll(`version: 1
credentials:
  KEY: {file: @/value, anywhere: true, response_hygiene: bodies}
  ELSEWHERE: {file: @/value, bindings: [{host: other.test, port: 443}]}
  LINES: {file: @/lines, anywhere: true}
  JWT: {file: @/jwt, anywhere: true, expires: jwt}
  MARKER: {file: @/marker, anywhere: true}
  OLD: {file: @/value, anywhere: true, expires: "2020-01-01T00:00:00Z"}
signing: [{access_key_id: KEY, secret_access_key: KEY, session_token: KEY}]
`, "@", dir)} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	store, _, err := credentials.Open(credentials.Config{File: filepath.Join(dir, "c.yaml"), Log: slog.New(slog.NewJSONHandler(&seen, nil))})
	if err != nil {
		t.Fatal(err)
	}
	s, p := store.Current(), permit(t)
	show := func(things ...any) {
		for _, thing := range things {
			text, _ := json.Marshal(thing)
			fmt.Fprintf(&seen, "%s %v %+v %#v %q\n", text, thing, thing, thing, thing)
		}
	}
	replaced := 0
	attempt := func(do func(*rewrite.Job, string) (string, error)) {
		for _, key := range []string{"KEY", "ELSEWHERE", "LINES", "JWT", "MARKER", "OLD", "NONE", "v9_KEY"} {
			job := rewrite.New(p, "/", s)
			out, err := do(job, placeholder.Marker+key)
			if err != nil {
				if e, ok := errors.AsType[*inject.Error](err); ok {
					show(e, *e, e.Forwarded())
				}
				show(err)
			} else if shows(out) != "" {
				replaced++
			}
			show(job, *job, job.Uses())
		}
	}
	attempt(func(j *rewrite.Job, ph string) (string, error) {
		f, err := j.Fields(http1.Fields{{Name: "Authorization", Value: "Bearer " + ph}})
		if err != nil {
			return "", err
		}
		return f[0].Value, nil
	})
	attempt(func(j *rewrite.Job, ph string) (string, error) {
		f, err := j.Fields(http1.Fields{{Name: "Cookie", Value: "a=" + ph}})
		if err != nil {
			return "", err
		}
		return f[0].Value, nil
	})
	attempt(func(j *rewrite.Job, ph string) (string, error) {
		f, err := j.Fields(http1.Fields{{Name: "Authorization", Value: "Basic " + base64.StdEncoding.EncodeToString([]byte("u:"+ph))}})
		if err != nil {
			return "", err
		}
		return f[0].Value, nil
	})
	attempt(func(j *rewrite.Job, ph string) (string, error) { return j.Path("/" + ph) })
	attempt(func(j *rewrite.Job, ph string) (string, error) { return j.Query("?a=" + ph) })
	for _, kind := range []string{"application/json", "application/x-www-form-urlencoded", "text/plain", "text/html", "image/png"} {
		attempt(func(j *rewrite.Job, ph string) (string, error) {
			out, err := j.Body(http1.Fields{{Name: "Content-Type", Value: kind}}, []byte(`{"a":"`+ph+`"}`))
			return string(out), err
		})
	}
	if replaced < 5 {
		t.Errorf("only %d values were put in", replaced)
	}

	keys, uses, err := sigv4.Resolve(s, p, "/", "")
	show(keys, uses, err)
	signed, err := sigv4.New(nil).Sign(t.Context(), p, keys, "bedrock", "", sigv4.Request{Method: "GET", Host: p.Host(), Path: "/"}, sigv4.Payload{}, nil)
	show(err, sigv4.New(nil))
	if token, _ := signed.Fields.Get("X-Amz-Security-Token"); token != canary {
		t.Error("nothing was signed")
	}

	endpoint := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		_ = r.ParseForm()
		w.WriteHeader(400)
		_ = json.NewEncoder(w).Encode(map[string]string{"error": r.PostForm.Get("client_assertion"), "error_description": "no: " + r.PostForm.Get("client_assertion")})
	}))
	defer endpoint.Close()
	tokens := exchange.New(exchange.Config{Dial: (&net.Dialer{}).DialContext, Log: slog.New(slog.NewJSONHandler(&seen, nil))})
	defer tokens.Close()
	_, err = tokens.Apply(t.Context(), p, s, &credentials.Grant{Name: "g", TokenEndpoint: endpoint.URL, SubjectKey: "KEY"}, nil)
	show(err)
	if err == nil {
		t.Error("a token was granted")
	}

	filter := hygiene.New(s.Echoes([]inject.Use{{Key: "KEY"}}))
	show(filter, s.Echoes([]inject.Use{{Key: "KEY"}}), filter.NewWriter(io.Discard))
	echoed, n := hygiene.NewMessages(func() *hygiene.Filter { return filter }).Next([]byte("echo: "+canary+" "+url.QueryEscape(canary)), true, true)
	seen.Write(echoed)
	if n != 2 {
		t.Errorf("%d echoes were found", n)
	}

	show(s.List(), s.Environment(), s, store, s.Recheck(uses))
	if err := os.WriteFile(filepath.Join(dir, "c.yaml"), []byte(canary), 0o600); err != nil {
		t.Fatal(err)
	}
	store.Reload() // the log says what is wrong with it, and repeats nothing
	show(store.Current().List())
	if form := shows(seen.String()); form != "" {
		i := strings.Index(seen.String(), canary)
		t.Errorf("the canary is there as %s: …%.300s", form, seen.String()[max(0, i-150):])
	}
	if seen.Len() < 10_000 {
		t.Errorf("only %d bytes were looked at", seen.Len())
	}
}
