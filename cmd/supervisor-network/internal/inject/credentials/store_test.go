package credentials

import (
	"bytes"
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/splitpod/splitpod/cmd/supervisor-network/internal/decide"
	"github.com/splitpod/splitpod/cmd/supervisor-network/internal/inject"
	"github.com/splitpod/splitpod/cmd/supervisor-network/internal/inject/placeholder"
	"github.com/splitpod/splitpod/pkg/core"
	"github.com/splitpod/splitpod/pkg/core/policy"
)

// permit makes a real Permit: there is no other way to one.
func permit(t testing.TB, host string, port uint16, options ...string) decide.Permit {
	t.Helper()
	text := fmt.Sprintf("version: 1\nnetwork_policies:\n  a:\n    endpoints: [{host: %s, port: %d%s}]\n    binaries: [{path: /bin/a}]\n", host, port, strings.Join(options, ""))
	doc, _, err := policy.Parse("p", []byte(text))
	if err != nil {
		t.Fatal(err)
	}
	snapshot, err := decide.Compile(t.Context(), doc, decide.Options{Generation: 1, IgnoreBinaries: true})
	if err != nil {
		t.Fatal(err)
	}
	p, denial := snapshot.Connection(t.Context(), decide.Question{Who: &core.Identity{}, Host: host, Port: port})
	if denial != nil {
		t.Fatal(denial)
	}
	return p
}

// learned is a permit that no rule gave.
func learned(t *testing.T, host string, port uint16) decide.Permit {
	t.Helper()
	snapshot, err := decide.Compile(t.Context(), &policy.Document{Version: 1}, decide.Options{Generation: 1, IgnoreBinaries: true, LearnUntil: time.Now().Add(time.Hour)})
	if err != nil {
		t.Fatal(err)
	}
	p, denial := snapshot.Connection(t.Context(), decide.Question{Who: &core.Identity{}, Host: host, Port: port})
	if denial != nil || !p.Learned() {
		t.Fatal(denial)
	}
	return p
}

// world is a folder with a credentials file and secrets.
type world struct {
	t   *testing.T
	dir string
	now time.Time
	log bytes.Buffer
}

func newWorld(t *testing.T) *world {
	return &world{t: t, dir: t.TempDir(), now: time.Now()}
}

func (w *world) write(name, content string) {
	w.t.Helper()
	if err := os.WriteFile(filepath.Join(w.dir, name), []byte(content), 0o600); err != nil {
		w.t.Fatal(err)
	}
}

// keys writes the credentials file; @ stands for the folder.
func (w *world) keys(lines string) {
	w.t.Helper()
	w.write("credentials.yaml", "version: 1\ncredentials:\n"+strings.ReplaceAll(lines, "@", w.dir))
}

func (w *world) open() *Store {
	w.t.Helper()
	s, _, err := Open(Config{File: filepath.Join(w.dir, "credentials.yaml"), Log: slog.New(slog.NewJSONHandler(&w.log, nil)), Now: func() time.Time { return w.now }})
	if err != nil {
		w.t.Fatal(err)
	}
	return s
}

// resolve is the value, or the status and detail of the refusal.
func resolve(t *testing.T, s *Snapshot, p decide.Permit, path, text string) string {
	t.Helper()
	ref, ok := placeholder.Parse(text)
	if !ok {
		t.Fatalf("%q is no placeholder", text)
	}
	v, use, err := s.Resolve(p, path, ref)
	if err != nil {
		e, ok := errors.AsType[*inject.Error](err)
		if !ok || v.Expose() != "" {
			t.Fatalf("%T beside %d bytes", err, len(v.Expose()))
		}
		return fmt.Sprintf("%d %s: %s", e.Status, e.Reason, e.Detail)
	}
	if use.Key != ref.Key {
		t.Errorf("used %+v", use)
	}
	return v.Expose()
}

const bound = "  KEY: {file: @/key, bindings: [{host: a.test, port: 443, path: /v1/**}]}\n"

const mismatch = "403 credential_endpoint_mismatch: Credential is not authorized for this request endpoint: KEY"

func TestAPlaceholderResolvesOnlyForBoundEndpoints(t *testing.T) {
	w := newWorld(t)
	w.write("key", "value\n")
	w.keys(bound + "  FREE: {file: @/key, anywhere: true}\n  OWN: {file: @/key, environment: false, bindings: [{host: a.test, port: 443}]}\n")
	s := w.open().Current()
	a := permit(t, "a.test", 443)
	for _, c := range []struct {
		name string
		p    decide.Permit
		path string
		key  string
		want string
	}{
		{"bound", a, "/v1/x", "KEY", "value"},
		{"the scope's own path", a, "/v1", "KEY", "value"},
		{"another path", a, "/v2", "KEY", mismatch},
		{"a path that only begins alike", a, "/v1x", "KEY", mismatch},
		{"another host", permit(t, "b.test", 443), "/v1/x", "KEY", mismatch},
		{"a host below", permit(t, "x.a.test", 443), "/v1/x", "KEY", mismatch},
		{"another port", permit(t, "a.test", 8443), "/v1/x", "KEY", mismatch},
		{"no binding, and it says so", permit(t, "b.test", 80), "/", "FREE", "value"},
		{"unknown", a, "/v1/x", "OTHER", "500 credential_unavailable: no credential with the key OTHER is known"},
		{"not for the workload", a, "/v1/x", "OWN", "500 credential_unavailable: no credential with the key OWN is known"},
		{"no decision", decide.Permit{}, "/v1/x", "KEY", "500 credential_unavailable: " + notCarried},
		{"no rule, but what is asked for is learned", learned(t, "a.test", 443), "/v1/x", "KEY", "500 credential_unavailable: " + notCarried},
		{"not inspected", permit(t, "a.test", 443, ", tls: skip"), "/v1/x", "KEY", "500 credential_unavailable: " + notCarried},
	} {
		if got := resolve(t, s, c.p, c.path, placeholder.Marker+c.key); got != c.want {
			t.Errorf("%s: %s", c.name, got)
		}
	}
	var none *Snapshot
	if got := resolve(t, none, a, "/v1/x", placeholder.Marker+"KEY"); !strings.HasPrefix(got, "500") {
		t.Errorf("without credentials: %s", got)
	}
	if v, _, err := s.Value(a, "/", "OWN"); err != nil || v.Expose() != "value" {
		t.Errorf("the daemon's own use: %v", err)
	}
	if !s.Credentialed("a.test", 443) || s.Credentialed("a.test", 80) || s.Credentialed("b.test", 443) || none.Credentialed("a.test", 443) {
		t.Error("credentialed endpoints are wrong")
	}
}

func TestARotatedValueIsUsedAtOnceUnderEveryForm(t *testing.T) {
	w := newWorld(t)
	w.write("key", "one")
	w.keys(bound)
	store := w.open()
	p := permit(t, "a.test", 443)
	first := store.Current()
	handle := placeholder.Marker + "s" + first.keys["KEY"].handle + "_KEY"
	forms := []string{placeholder.Marker + "KEY", placeholder.Marker + "v1_KEY", handle, "sk-" + placeholder.AliasMarker + "KEY"}
	for i := range Retained {
		value := fmt.Sprintf("value %d", i)
		w.write("key", value)
		store.Reload()
		for _, form := range forms {
			if got := resolve(t, store.Current(), p, "/v1", form); got != value {
				t.Errorf("rotation %d, %s: %s", i+1, form, got)
			}
		}
	}
	w.write("key", "last")
	store.Reload()
	old := "500 credential_unavailable: the revision 1 of the key KEY is not honoured any more"
	if got := resolve(t, store.Current(), p, "/v1", forms[1]); got != old {
		t.Errorf("nine rotations later: %s", got)
	}
	if got := resolve(t, store.Current(), p, "/v1", placeholder.Marker+"v2_KEY"); got != "last" {
		t.Errorf("the eighth before: %s", got)
	}
	if got := resolve(t, store.Current(), p, "/v1", placeholder.Marker+"v11_KEY"); !strings.HasPrefix(got, "500") {
		t.Errorf("a revision to come: %s", got)
	}
	if got := resolve(t, first, p, "/v1", forms[0]); got != "one" {
		t.Errorf("a snapshot changed: %s", got)
	}
}

func TestAKeyThatIsBoundAnewRevokesWhatWasGivenOut(t *testing.T) {
	w := newWorld(t)
	w.write("key", "one")
	w.keys(bound)
	store := w.open()
	p := permit(t, "a.test", 443)
	handle := placeholder.Marker + "s" + store.Current().keys["KEY"].handle + "_KEY"
	w.keys("  KEY: {file: @/key, bindings: [{host: a.test, port: 443}]}\n")
	store.Reload()
	for _, form := range []string{placeholder.Marker + "v1_KEY", handle} {
		if got := resolve(t, store.Current(), p, "/v1", form); !strings.HasPrefix(got, "500 credential_unavailable: the ") {
			t.Errorf("%s: %s", form, got)
		}
	}
	if got := resolve(t, store.Current(), p, "/v1", placeholder.Marker+"v2_KEY"); got != "one" {
		t.Errorf("the new revision: %s", got)
	}
	w.keys("  OTHER: {file: @/key, anywhere: true}\n")
	store.Reload()
	if got := resolve(t, store.Current(), p, "/v1", placeholder.Marker+"KEY"); !strings.HasPrefix(got, "500") {
		t.Errorf("detached: %s", got)
	}
	w.keys("  KEY: {file: @/key, bindings: [{host: a.test, port: 443}]}\n")
	store.Reload()
	if got := resolve(t, store.Current(), p, "/v1", placeholder.Marker+"v2_KEY"); !strings.HasPrefix(got, "500") {
		t.Errorf("attached again, an old revision: %s", got)
	}
	if got := resolve(t, store.Current(), p, "/v1", placeholder.Marker+"v3_KEY"); got != "one" {
		t.Errorf("attached again: %s", got)
	}
}

func TestNothingStaleIsUsed(t *testing.T) {
	w := newWorld(t)
	w.write("key", "one")
	w.keys(bound + "token_grants: [{name: g, token_endpoint: 'https://a.test', workload_api: 'unix:///s', bindings: [{host: g.test, port: 443}]}]\n")
	store := w.open()
	p, ph := permit(t, "a.test", 443), placeholder.Marker+"KEY"
	_, use, err := store.Current().Resolve(p, "/v1", placeholder.Reference{Key: "KEY", Form: placeholder.Canonical})
	if err != nil || store.Current().Recheck([]inject.Use{use}) != nil {
		t.Fatal(err)
	}
	steps := []struct {
		name, want string
		do         func()
	}{
		{"the secret is gone", "500 credential_unavailable: the credential with the key KEY has no usable value at present", func() { _ = os.Remove(filepath.Join(w.dir, "key")) }},
		{"it is back", "two", func() { w.write("key", "two") }},
		{"it is empty", "500 credential_unavailable: the credential with the key KEY has no usable value at present", func() { w.write("key", "") }},
		{"it has a line end inside", "500 credential_unavailable: the value of the key KEY contains CR, LF or NUL and is not used", func() { w.write("key", "a\nb") }},
		{"it has a NUL", "500 credential_unavailable: the value of the key KEY contains CR, LF or NUL and is not used", func() { w.write("key", "a\x00b") }},
		{"it contains a placeholder", "500 credential_unavailable: the credential with the key KEY has no usable value at present", func() { w.write("key", placeholder.Marker+"KEY") }},
		{"it is well", "three", func() { w.write("key", "three") }},
		{"the file is broken", "500 credential_unavailable: no credential with the key KEY is known", func() { w.keys("  KEY: {}\n") }},
		{"the file is gone", "500 credential_unavailable: no credential with the key KEY is known", func() { _ = os.Remove(filepath.Join(w.dir, "credentials.yaml")) }},
		{"the file is well", "three", func() { w.keys(bound) }},
	}
	for _, step := range steps {
		step.do()
		store.Reload()
		if got := resolve(t, store.Current(), p, "/v1", ph); got != step.want {
			t.Errorf("%s: %s", step.name, got)
		}
		if store.Current().Recheck([]inject.Use{use}) == nil {
			t.Errorf("%s: what was used before passes the check", step.name)
		}
		if unruled, err := store.Current().Grant(learned(t, "g.test", 443), "/"); unruled != nil || err != nil {
			t.Errorf("a destination that no rule allows gets a token: %v", err)
		}
		grant, _ := store.Current().Grant(permit(t, "g.test", 443), "/")
		if (grant != nil) != (step.name != "the file is well") {
			t.Errorf("%s: grant %v", step.name, grant)
		}
	}
	if text := w.log.String(); !strings.Contains(text, "credentials are not valid") || strings.Contains(text, "three") {
		t.Errorf("logged: %s", text)
	}
}

// TestATokenOfAGrantThatChangedIsNotSent: what the grant says counts, not where it stands
// in the file, nor what else is in it.
func TestATokenOfAGrantThatChangedIsNotSent(t *testing.T) {
	w := newWorld(t)
	w.write("key", "one")
	const grants = "token_grants: [{name: g, token_endpoint: 'https://a.test', workload_api: 'unix:///s', bindings: [{host: g.test, port: 443}]}]\n"
	w.keys(bound + grants)
	store := w.open()
	grant, err := store.Current().Grant(permit(t, "g.test", 443), "/")
	if err != nil || grant == nil {
		t.Fatal(err)
	}
	uses := []inject.Use{grant.Use()}
	for _, step := range []struct {
		name string
		do   func()
		want bool
	}{
		{"a key has another value", func() { w.write("key", "two") }, true},
		{"it stands in another line", func() { w.keys(bound + "\n\n" + grants) }, true},
		{"the file is broken, and grants stay", func() { w.keys("  KEY: {}\n") }, true},
		{"it is bound to another host", func() { w.keys(bound + strings.Replace(grants, "g.test", "h.test", 1)) }, false},
		{"it is as it was", func() { w.keys(bound + grants) }, true},
		{"its tokens come from elsewhere", func() { w.keys(bound + strings.Replace(grants, "a.test", "b.test", 1)) }, false},
		{"it is gone", func() { w.keys(bound) }, false},
	} {
		step.do()
		store.Reload()
		if err := store.Current().Recheck(uses); (err == nil) != step.want {
			t.Errorf("%s: %v", step.name, err)
		}
	}
	var none *Snapshot
	if none.Recheck(uses) == nil {
		t.Error("without a file")
	}
}

func TestAnExpiredValueIsRefused(t *testing.T) {
	w := newWorld(t)
	jwt := func(exp string) string {
		return "e30." + base64.RawURLEncoding.EncodeToString([]byte(`{"exp":`+exp+`}`)) + ".sig"
	}
	w.write("key", "value")
	w.write("token", jwt(fmt.Sprint(w.now.Unix()+60)))
	w.write("forever", "e30.e30.sig")
	w.keys("  FIXED: {file: @/key, anywhere: true, expires: '" + w.now.Add(time.Minute).Format(time.RFC3339Nano) + "'}\n" +
		"  AFTER: {file: @/key, anywhere: true, expires_after: 1m}\n  TOKEN: {file: @/token, anywhere: true, expires: jwt}\n" +
		"  FOREVER: {file: @/forever, anywhere: true, expires: jwt}\n  NONE: {file: @/key, anywhere: true, expires: jwt}\n  NEVER: {file: @/key, anywhere: true}\n")
	s := w.open().Current()
	p := permit(t, "a.test", 443)
	for _, key := range []string{"FIXED", "AFTER", "TOKEN"} {
		if got := resolve(t, s, p, "/", placeholder.Marker+key); strings.HasPrefix(got, "500") {
			t.Errorf("%s before: %s", key, got)
		}
	}
	w.now = w.now.Add(61 * time.Second)
	for _, key := range []string{"FIXED", "AFTER", "TOKEN"} {
		if got, want := resolve(t, s, p, "/", placeholder.Marker+key), "500 credential_unavailable: the credential with the key "+key+" has expired"; got != want {
			t.Errorf("%s behind: %s", key, got)
		}
	}
	for _, key := range []string{"FOREVER", "NONE"} {
		if got := resolve(t, s, p, "/", placeholder.Marker+key); !strings.HasPrefix(got, "500") {
			t.Errorf("%s has no readable expiry and resolves: %s", key, got)
		}
	}
	if got := resolve(t, s, p, "/", placeholder.Marker+"NEVER"); got != "value" {
		t.Errorf("never: %s", got)
	}
}

func TestTheEnvironmentAndTheListHoldNoValue(t *testing.T) {
	w := newWorld(t)
	w.write("key", "canary-81")
	w.keys("  A: {file: @/key, bindings: [{host: a.test, ports: [80, 443], path: /x/**}]}\n  B: {file: @/key, anywhere: true, placeholder: revision}\n" +
		"  C: {file: @/key, anywhere: true, placeholder: stable}\n  D: {file: @/key, anywhere: true, placeholder: alias, alias_prefix: sk-}\n" +
		"  E: {file: @/key, environment: false}\n  F: {file: @/missing, anywhere: true}\n")
	s := w.open().Current()
	env := s.Environment()
	if len(env) != 5 || env["A"] != "openshell:resolve:env:A" || env["B"] != "openshell:resolve:env:v1_B" || env["D"] != "sk-OPENSHELL-RESOLVE-ENV-D" {
		t.Errorf("environment %v", env)
	}
	p := permit(t, "a.test", 443)
	for key, text := range env {
		if ref, ok := placeholder.Parse(text); !ok || ref.Key != key {
			t.Errorf("%s is %q", key, text)
		}
		if key != "F" && resolve(t, s, p, "/x/y", text) != "canary-81" {
			t.Errorf("%s does not resolve", key)
		}
	}
	list := s.List()
	text, err := json.Marshal(list)
	if err != nil {
		t.Fatal(err)
	}
	all := fmt.Sprintf("%s %v %+v %#v %+v", text, list, list, env, s)
	if strings.Contains(all, "canary-81") || strings.Contains(w.log.String(), "canary-81") {
		t.Errorf("a value is shown: %s", all)
	}
	if l := list[0]; l.Key != "A" || l.Bindings[0] != "a.test:80,443/x/**" || l.State != "usable" || l.Uses != 1 || !l.LastUse.Equal(w.now) || l.Revision != 1 {
		t.Errorf("%+v", l)
	}
	if l := list[5]; !strings.Contains(l.State, "no such file") {
		t.Errorf("%+v", l)
	}
}

func TestTheMoreSpecificGrantIsTaken(t *testing.T) {
	w := newWorld(t)
	grant := func(name, binding string) string {
		return "  - {name: " + name + ", token_endpoint: 'https://sso.test', workload_api: 'unix:///s', bindings: [" + binding + "]}\n"
	}
	w.write("credentials.yaml", "version: 1\ntoken_grants:\n"+grant("wide", "{host: '*.test', port: 443}")+grant("host", "{host: a.test, port: 443}")+
		grant("path", "{host: a.test, port: 443, path: /v1/**}")+grant("tie1", "{host: 'x*.test', port: 443}")+grant("tie2", "{host: '*x.test', port: 443}"))
	s := w.open().Current()
	for _, c := range []struct{ host, path, want string }{
		{"a.test", "/v1/x", "path"}, {"a.test", "/v2", "host"}, {"b.test", "/v1/x", "wide"}, {"x.test", "/", "error"}, {"b.example.com", "/", "none"},
	} {
		g, err := s.Grant(permit(t, c.host, 443), c.path)
		got := "none"
		if err != nil {
			got = "error"
		} else if g != nil {
			got = g.Name
		}
		if got != c.want {
			t.Errorf("%s%s: %s, want %s", c.host, c.path, got, c.want)
		}
	}
	if !s.Credentialed("b.test", 443) {
		t.Error("an endpoint with a grant is not credentialed")
	}
}

func TestAChangedSecretIsFollowed(t *testing.T) {
	w := newWorld(t)
	w.write("key", "one")
	w.keys(bound)
	changed := make(chan *Snapshot, 16)
	store, _, err := Open(Config{File: filepath.Join(w.dir, "credentials.yaml"), Log: slog.New(slog.DiscardHandler), Changed: func(s *Snapshot) { changed <- s }})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		store.Run(ctx)
	}()
	// Written again until the watch is there.
	again := time.NewTicker(300 * time.Millisecond)
	defer again.Stop()
	deadline := time.After(time.Minute)
	for i := 0; ; i++ {
		select {
		case s := <-changed:
			if got := resolve(t, s, permit(t, "a.test", 443), "/v1", placeholder.Marker+"KEY"); !strings.HasPrefix(got, "value ") {
				t.Errorf("it became %s", got)
			}
			cancel()
			<-ended
			return
		case <-again.C:
			w.write("key", fmt.Sprintf("value %d", i))
		case <-deadline:
			t.Fatal("the change was not noticed")
		}
	}
}

func TestAnInvalidFileDoesNotStart(t *testing.T) {
	w := newWorld(t)
	w.keys("  KEY: {}\n")
	if _, _, err := Open(Config{File: filepath.Join(w.dir, "credentials.yaml"), Log: slog.New(slog.DiscardHandler)}); err == nil {
		t.Error("opened")
	}
}
