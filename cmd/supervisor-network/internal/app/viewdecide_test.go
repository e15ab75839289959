package app

import (
	"encoding/json"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"github.com/splitpod/splitpod/cmd/supervisor-network/internal/approve"
	"github.com/splitpod/splitpod/cmd/supervisor-network/internal/decide"
	"github.com/splitpod/splitpod/cmd/supervisor-network/internal/policylocal"
	"github.com/splitpod/splitpod/cmd/supervisor-network/internal/view"
	"github.com/splitpod/splitpod/pkg/core"
)

const adminToken = "0123456789abcdef0123456789abcdef"

// tokened is a daemon with an admin token and one proposal of the workload.
func tokened(t *testing.T) (*daemon, *events) {
	t.Helper()
	file := filepath.Join(t.TempDir(), "token")
	if err := os.WriteFile(file, []byte(adminToken+"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	d := viewed(t)
	d.cfg.AdminToken = file
	seen := &events{}
	d.record.Watch(seen.add)
	go func() { _ = d.record.Run(t.Context()) }()
	propose(t, d, "pypi")
	return d, seen
}

func propose(t *testing.T, d *daemon, name string) {
	t.Helper()
	body := fmt.Sprintf(`{"intent_summary":"install packages","operations":[{"addRule":{"ruleName":%q,"rule":{
		"endpoints":[{"host":"%s.org","port":443,"protocol":"rest","access":"read-only"}],"binaries":[{"path":"/usr/bin/pip"}]}}}]}`, name, name)
	if a := d.advisor.Local().Serve(t.Context(), &policylocal.Request{Method: "POST", Path: "/v1/proposals", Body: []byte(body)}); a.Status != 202 {
		t.Fatalf("%s", a.JSON())
	}
}

// events keeps what is recorded.
type events struct {
	mu  sync.Mutex
	all []core.Event
}

func (e *events) add(ev *core.Event) {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.all = append(e.all, *ev)
}

func (e *events) find(reason core.Reason) string {
	e.mu.Lock()
	defer e.mu.Unlock()
	for _, ev := range e.all {
		if ev.Reason == reason {
			return ev.Detail
		}
	}
	return ""
}

// operator asks the view as the holder of the token does.
func operator(h http.Handler, method, path, body string) *httptest.ResponseRecorder {
	r := httptest.NewRequest(method, path, strings.NewReader(body))
	r.RemoteAddr, r.Host = "127.0.0.1:4000", "localhost"
	r.Header.Set("Authorization", "Bearer "+adminToken)
	r.Header.Set("Content-Type", "application/json")
	w := httptest.NewRecorder()
	h.ServeHTTP(w, r)
	return w
}

func pendingIn(t *testing.T, h http.Handler) []view.Proposal {
	t.Helper()
	var s view.Snapshot
	if err := json.Unmarshal(operator(h, "GET", "/view.json", "").Body.Bytes(), &s); err != nil || !s.Decides {
		t.Fatalf("%v %+v", err, s)
	}
	return s.Proposals.Pending
}

// TestTheHolderOfTheTokenDecides: by the hash that is shown, which a changed policy makes
// worthless; and it is recorded who did.
func TestTheHolderOfTheTokenDecides(t *testing.T) {
	d, seen := tokened(t)
	h := d.admin()
	p := pendingIn(t, h)
	if len(p) != 1 || p[0].Hash == "" {
		t.Fatalf("%+v", p)
	}
	approval := func(hash string) string {
		return fmt.Sprintf(`{"id":%q,"verdict":"approve","hash":%q}`, p[0].ID, hash)
	}
	if w := operator(h, "POST", "/decision", approval(strings.Repeat("0", len(p[0].Hash)))); w.Code != http.StatusConflict {
		t.Errorf("another hash: %d %s", w.Code, w.Body)
	}
	if got := seen.find("proposal_approval_refused"); !strings.Contains(got, "the holder of the admin token approved another change") {
		t.Errorf("it is recorded as %q", got)
	}
	other := fileOf("version: 1\nnetwork_policies: {api: {endpoints: [{host: api.example.com, port: 443}]}}\n")
	if err := d.policies.load(t.Context(), other); err != nil {
		t.Fatal(err)
	}
	if w := operator(h, "POST", "/decision", approval(p[0].Hash)); w.Code != http.StatusConflict || d.allowed(t, "pypi.org") {
		t.Errorf("after the policy changed: %d %s", w.Code, w.Body)
	}
	p = pendingIn(t, h) // the refused decision made it be looked at again
	if w := operator(h, "POST", "/decision", approval(p[0].Hash)); w.Code != http.StatusOK || !d.allowed(t, "pypi.org") {
		t.Errorf("the approval: %d %s", w.Code, w.Body)
	}
	if got := seen.find("proposal_approved"); !strings.Contains(got, "by the holder of the admin token") {
		t.Errorf("it is recorded as %q", got)
	}
	if w := operator(h, "POST", "/decision", approval(p[0].Hash)); w.Code != http.StatusConflict {
		t.Errorf("a second time: %d %s", w.Code, w.Body)
	}

	propose(t, d, "tracker")
	id := d.advisor.Pending()[0].ID
	if w := operator(h, "POST", "/decision", fmt.Sprintf(`{"id":%q,"verdict":"reject","reason":"not\nours"}`, id)); w.Code != http.StatusOK {
		t.Errorf("the rejection: %d %s", w.Code, w.Body)
	}
	r, err := d.advisor.Review(id)
	if err != nil || r.Entry.Status != approve.Rejected || r.Entry.Reason != "not ours" || r.Entry.By != approve.ByToken {
		t.Errorf("%+v, %v", r.Entry, err)
	}
}

// allowed reports whether the policy in force allows a connection.
func (d *daemon) allowed(t *testing.T, host string) bool {
	_, denial := d.engine.Current().Connection(t.Context(), decide.Question{Who: &core.Identity{}, Host: host, Port: 443})
	return denial == nil
}

func TestWithoutATokenTheViewShowsNoHash(t *testing.T) {
	d, _ := tokened(t)
	d.cfg.AdminToken = ""
	if body := local(d, "/view.json").Body.String(); strings.Contains(body, `"hash"`) || !strings.Contains(body, `"decides":false`) {
		t.Errorf("%s", body)
	}
	if w := operator(d.admin(), "POST", "/decision", `{"id":"x","verdict":"reject"}`); w.Code != http.StatusMethodNotAllowed {
		t.Errorf("%d", w.Code)
	}
}

func TestATokenNobodyCanShowStartsNothing(t *testing.T) {
	d := viewed(t)
	if err := d.checkToken(); err != nil {
		t.Error(err)
	}
	d.cfg.AdminToken = filepath.Join(t.TempDir(), "token")
	for _, content := range []string{"", "short", strings.Repeat("x", 32)} {
		if err := os.WriteFile(d.cfg.AdminToken, []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
		if err := d.checkToken(); (err == nil) != (len(content) == 32) {
			t.Errorf("%q: %v", content, err)
		}
	}
}
