package page_test

import (
	"context"
	"errors"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/splitpod/splitpod/cmd/supervisor-network/internal/view"
	"github.com/splitpod/splitpod/cmd/supervisor-network/internal/view/page"
	"github.com/splitpod/splitpod/test/need"
)

const secret = "0123456789abcdef0123456789abcdef"

func tokenFile(t *testing.T, content string) page.Token {
	t.Helper()
	path := filepath.Join(t.TempDir(), "token")
	if err := os.WriteFile(path, []byte(content), 0o600); err != nil {
		t.Fatal(err)
	}
	return page.Token(path)
}

func TestATokenIsLongAndPlain(t *testing.T) {
	for name, tt := range map[string]struct {
		content string
		ok      bool
	}{
		"the shortest":           {strings.Repeat("x", page.MinToken), true},
		"shorter":                {strings.Repeat("x", page.MinToken-1), false},
		"the longest":            {strings.Repeat("x", page.MaxToken), true},
		"the longest, in a line": {strings.Repeat("x", page.MaxToken) + "\r\n", true},
		"longer":                 {strings.Repeat("x", page.MaxToken+1), false},
		"endless":                {strings.Repeat("x", 1<<20), false},
		"one line":               {secret + "\n", true},
		"two lines":              {secret + "\n\n", false},
		"a space":                {secret + " x", false},
		"not ASCII":              {secret + "é", false},
		"nothing":                {"", false},
	} {
		err := tokenFile(t, tt.content).Check()
		if (err == nil) != tt.ok {
			t.Errorf("%s: %v", name, err)
		}
		if err != nil && len(tt.content) > 8 && strings.Contains(err.Error(), tt.content[:8]) {
			t.Errorf("%s: the error says the token: %v", name, err)
		}
	}
	if err := page.Token("/nowhere/token").Check(); err == nil {
		t.Error("a file that is not there holds a token")
	}
}

// TestWithATokenOnlyWhoShowsItMayLook: also who forwards to this pod's loopback. The
// page itself holds nothing and asks for the token.
func TestWithATokenOnlyWhoShowsItMayLook(t *testing.T) {
	token := tokenFile(t, secret+"\n")
	h := page.New(busy, page.Options{Token: token})
	for name, tt := range map[string]struct {
		fields []string
		status int
	}{
		"the token":            {[]string{"Bearer " + secret}, 200},
		"no token":             {nil, 401},
		"another":              {[]string{"Bearer " + strings.Repeat("0", len(secret))}, 401},
		"a part of it":         {[]string{"Bearer " + secret[:31]}, 401},
		"more than it":         {[]string{"Bearer " + secret + "0"}, 401},
		"in another scheme":    {[]string{"Basic " + secret}, 401},
		"in no scheme":         {[]string{secret}, 401},
		"nothing in a scheme":  {[]string{"Bearer "}, 401},
		"a line end behind it": {[]string{"Bearer " + secret + "\n"}, 401},
		"twice":                {[]string{"Bearer " + secret, "Bearer " + secret}, 401},
	} {
		w := get(h, func(r *http.Request) { r.Header["Authorization"] = tt.fields }, "/view.json")
		if w.Code != tt.status || w.Code != 200 && strings.Contains(w.Body.String(), "example.com") {
			t.Errorf("%s: %d %.80s", name, w.Code, w.Body)
		}
	}
	for _, path := range []string{"/", "/view.js"} {
		if w := get(h, nil, path); w.Code != 200 || strings.Contains(w.Body.String(), "example.com") {
			t.Errorf("%s: %d", path, w.Code)
		}
	}
	if w := get(h, func(r *http.Request) { r.RemoteAddr = "10.0.0.7:1"; r.Header.Set("Authorization", "Bearer "+secret) }, "/view.json"); w.Code != 403 {
		t.Errorf("a neighbour with the token: %d", w.Code)
	}
	other := strings.Repeat("f", 64)
	if err := os.WriteFile(string(token), []byte(other), 0o600); err != nil {
		t.Fatal(err)
	}
	for shown, want := range map[string]int{secret: 401, other: 200} {
		if w := get(h, func(r *http.Request) { r.Header.Set("Authorization", "Bearer "+shown) }, "/view.json"); w.Code != want {
			t.Errorf("after it was changed, %s: %d", shown, w.Code)
		}
	}
	if err := os.Remove(string(token)); err != nil {
		t.Fatal(err)
	}
	for _, shown := range []string{secret, other, ""} {
		if w := get(h, func(r *http.Request) { r.Header.Set("Authorization", "Bearer "+shown) }, "/view.json"); w.Code != 503 || strings.Contains(w.Body.String(), string(token)) {
			t.Errorf("after it was removed, %q: %d %s", shown, w.Code, w.Body)
		}
	}
}

// decided keeps what was decided.
type decided struct {
	mu   sync.Mutex
	all  []page.Decision
	fail error
}

func (d *decided) decide(_ context.Context, x page.Decision) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.all = append(d.all, x)
	return d.fail
}

const approval = `{"id":"p1","verdict":"approve","hash":"abc"}`

func post(h http.Handler, body string, change func(*http.Request)) *httptest.ResponseRecorder {
	r := httptest.NewRequest(http.MethodPost, "/decision", strings.NewReader(body))
	r.RemoteAddr, r.Host = "127.0.0.1:4000", "localhost:9901"
	r.Header.Set("Authorization", "Bearer "+secret)
	r.Header.Set("Content-Type", "application/json")
	if change != nil {
		change(r)
	}
	w := httptest.NewRecorder()
	h.ServeHTTP(w, r)
	return w
}

func set(name, value string) func(*http.Request) {
	return func(r *http.Request) { r.Header.Set(name, value) }
}

func TestADecisionNeedsTheTokenAndThisPage(t *testing.T) {
	for name, tt := range map[string]struct {
		body   string
		change func(*http.Request)
		status int
	}{
		"an approval":               {approval, nil, 200},
		"a rejection":               {`{"id":"p1","verdict":"reject","reason":"no"}`, nil, 200},
		"a rejection without words": {`{"id":"p1","verdict":"reject"}`, nil, 200},
		"of this page": {approval, func(r *http.Request) {
			r.Header.Set("Origin", "http://localhost:9901")
			r.Header.Set("Sec-Fetch-Site", "same-origin")
		}, 200},
		"no token":                    {approval, func(r *http.Request) { r.Header.Del("Authorization") }, 401},
		"another token":               {approval, set("Authorization", "Bearer "+strings.Repeat("0", 32)), 401},
		"a neighbour":                 {approval, func(r *http.Request) { r.RemoteAddr = "10.0.0.7:1" }, 403},
		"a name that was bound again": {approval, func(r *http.Request) { r.Host = "evil.example.com" }, 403},
		"forwarded":                   {approval, set("X-Forwarded-For", "10.0.0.7"), 403},
		"of another page":             {approval, set("Origin", "http://evil.example.com"), 403},
		"of another port":             {approval, set("Origin", "http://localhost:8000"), 403},
		"of a page without an origin": {approval, set("Origin", "null"), 403},
		"of another site":             {approval, set("Sec-Fetch-Site", "cross-site"), 403},
		"of a sibling":                {approval, set("Sec-Fetch-Site", "same-site"), 403},
		"typed into the bar":          {approval, set("Sec-Fetch-Site", "none"), 403},
		"a form's type":               {approval, set("Content-Type", "text/plain"), 415},
		"no type":                     {approval, func(r *http.Request) { r.Header.Del("Content-Type") }, 415},
		"no JSON":                     {"id=p1", nil, 400},
		"two":                         {approval + approval, nil, 400},
		"a name nobody knows":         {`{"id":"p1","verdict":"approve","hash":"abc","force":true}`, nil, 400},
		"an approval of anything":     {`{"id":"p1","verdict":"approve"}`, nil, 400},
		"a rejection of a change":     {`{"id":"p1","verdict":"reject","hash":"abc"}`, nil, 400},
		"no verdict":                  {`{"id":"p1","hash":"abc"}`, nil, 400},
		"no id":                       {`{"verdict":"approve","hash":"abc"}`, nil, 400},
		"the longest":                 {approval + strings.Repeat(" ", 8<<10-len(approval)), nil, 200},
		"longer":                      {approval + strings.Repeat(" ", 8<<10-len(approval)+1), nil, 413},
	} {
		t.Run(name, func(t *testing.T) {
			d := &decided{}
			w := post(page.New(empty, page.Options{Token: tokenFile(t, secret), Decide: d.decide}), tt.body, tt.change)
			if w.Code != tt.status || (len(d.all) == 1) != (tt.status == 200) || w.Header().Get("Access-Control-Allow-Origin") != "" {
				t.Errorf("%d %s, decided %v", w.Code, w.Body, d.all)
			}
		})
	}
}

func TestADecisionThatIsNotTakenSaysWhy(t *testing.T) {
	d := &decided{fail: errors.New("the policy changed")}
	if w := post(page.New(empty, page.Options{Token: tokenFile(t, secret), Decide: d.decide}), approval, nil); w.Code != 409 || !strings.Contains(w.Body.String(), "the policy changed") {
		t.Errorf("%d %s", w.Code, w.Body)
	}
}

func TestWithoutATokenNothingIsDecided(t *testing.T) {
	d := &decided{}
	for name, opt := range map[string]page.Options{"no token": {Decide: d.decide}, "nobody who decides": {Token: tokenFile(t, secret)}} {
		if w := post(page.New(empty, opt), approval, nil); w.Code != 405 || len(d.all) > 0 {
			t.Errorf("%s: %d, decided %v", name, w.Code, d.all)
		}
	}
	d2 := page.New(empty, page.Options{Token: tokenFile(t, secret), Decide: d.decide})
	for _, method := range []string{http.MethodGet, http.MethodPut, http.MethodOptions, http.MethodDelete} {
		if w := post(d2, approval, func(r *http.Request) { r.Method = method }); w.Code == 200 || len(d.all) > 0 {
			t.Errorf("%s: %d, decided %v", method, w.Code, d.all)
		}
	}
}

// drive is a person in front of the page, who shows a wrong token, then the right one,
// approves one proposal in two steps and rejects another.
const drive = `{
const until = (f) => new Promise((done) => { const again = () => { const x = f(); if (x) done(x); else setTimeout(again, 20); }; again(); });
const the = (q) => document.querySelector(q);
const show = (token) => { the("#token").value = token; the("#login").requestSubmit(); };
(async () => {
  await until(() => !the("#login").hidden);
  show("wrong" + "TOKEN");
  await until(() => the("#state").textContent.includes("this is not the admin token"));
  show("TOKEN");
  const approve = await until(() => the("#pending .approve"));
  const once = document.querySelectorAll(".approve").length;
  approve.click();
  await until(() => the(".armed"));
  the(".armed").click();
  await until(() => the("#decided").textContent.includes("approve is done"));
  await until(() => !the("#pending").textContent.includes("p-approve"));
  const input = await until(() => the("#pending .decision input"));
  input.value = "we do not use it";
  the("#pending .reject").click();
  await until(() => the("#decided").textContent.includes("reject is done"));
  await until(() => the("#pending").textContent.includes("none"));
  document.body.dataset.driven = "buttons " + once;
})().catch((e) => { document.body.dataset.driven = String(e); });
}`

// TestAPersonDecidesInABrowser uses the real page in Chromium, under its own policy.
func TestAPersonDecidesInABrowser(t *testing.T) {
	browse := need.Chromium(t)
	d := &decided{}
	change := []string{"+ /usr/bin/pip may send GET ** to pypi.org:443 on public addresses"}
	all := []view.Proposal{
		{ID: "p-approve", Rule: "pypi " + evil, Created: time.Now(), Changes: change, Hash: "hash-1"},
		{ID: "p-reject", Rule: "large", Created: time.Now(), Changes: change, More: true, Hash: "hash-2"},
	}
	h := page.New(func() *view.Snapshot {
		d.mu.Lock()
		defer d.mu.Unlock()
		return view.New().Snapshot(view.State{Decides: true}, &view.Proposals{Pending: all[len(d.all):]})
	}, page.Options{Token: tokenFile(t, secret), Decide: d.decide})
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		switch r.URL.Path {
		case "/drive.js":
			w.Header().Set("Content-Type", "text/javascript")
			_, _ = w.Write([]byte(strings.ReplaceAll(drive, "TOKEN", secret)))
		case "/":
			page := httptest.NewRecorder()
			h.ServeHTTP(page, r)
			for name, values := range page.Header() {
				w.Header()[name] = values
			}
			_, _ = w.Write([]byte(strings.Replace(page.Body.String(), "</body>", `<script src="drive.js"></script></body>`, 1)))
		default:
			h.ServeHTTP(w, r)
		}
	}))
	defer s.Close()
	shown := browse(window, "--dump-dom", s.URL)
	if !strings.Contains(shown, `data-driven="buttons 1"`) || strings.Contains(shown, "<title>owned") || strings.Contains(shown, secret) {
		t.Errorf("%s", shown)
	}
	want := []page.Decision{{ID: "p-approve", Verdict: "approve", Hash: "hash-1"}, {ID: "p-reject", Verdict: "reject", Reason: "we do not use it"}}
	if diff := cmp.Diff(want, d.all); diff != "" {
		t.Error(diff)
	}
	picture := filepath.Join(t.ArtifactDir(), "login.png")
	browse(window, "--screenshot="+picture, s.URL+"/?")
	if data, err := os.ReadFile(picture); err != nil || len(data) < 5_000 {
		t.Errorf("a picture of %d bytes: %v", len(data), err)
	}
}
