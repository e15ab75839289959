package page_test

import (
	"encoding/json"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/splitpod/splitpod/cmd/supervisor-network/internal/view"
	"github.com/splitpod/splitpod/cmd/supervisor-network/internal/view/page"
	"github.com/splitpod/splitpod/pkg/core"
	"github.com/splitpod/splitpod/test/need"
)

func empty() *view.Snapshot { return view.New().Snapshot(view.State{Build: "x"}, nil) }

func get(h http.Handler, change func(*http.Request), path string) *httptest.ResponseRecorder {
	r := httptest.NewRequest(http.MethodGet, path, nil)
	r.RemoteAddr, r.Host = "127.0.0.1:4000", "127.0.0.1:9901"
	if change != nil {
		change(r)
	}
	w := httptest.NewRecorder()
	h.ServeHTTP(w, r)
	return w
}

func TestOnlyThisPodsLoopbackMayLook(t *testing.T) {
	h := page.New(empty, page.Options{})
	for name, tt := range map[string]struct {
		from, host, header string
		status             int
	}{
		"loopback":                          {"127.0.0.1:4000", "127.0.0.1:9901", "", 200},
		"loopback by name":                  {"127.0.0.1:4000", "localhost:9901", "", 200},
		"a forwarded port":                  {"127.0.0.1:4000", "localhost:8080", "", 200},
		"no port":                           {"127.0.0.1:4000", "localhost", "", 200},
		"IPv6 loopback":                     {"[::1]:4000", "[::1]:9901", "", 200},
		"IPv6 loopback without a port":      {"[::1]:4000", "[::1]", "", 200},
		"mapped loopback":                   {"[::ffff:127.0.0.1]:4000", "127.0.0.1", "", 200},
		"a neighbour":                       {"10.0.0.7:4000", "10.0.0.8:9901", "", 403},
		"a neighbour that says localhost":   {"10.0.0.7:4000", "localhost", "", 403},
		"a mesh's inbound address":          {"127.0.0.6:4000", "localhost", "", 403},
		"a name that was bound again":       {"127.0.0.1:4000", "evil.example.com", "", 403},
		"a name that begins like ours":      {"127.0.0.1:4000", "localhost.example.com", "", 403},
		"a name that ends like ours":        {"127.0.0.1:4000", "x.localhost", "", 403},
		"the address of the pod":            {"127.0.0.1:4000", "10.0.0.8:9901", "", 403},
		"no host":                           {"127.0.0.1:4000", "", "", 403},
		"half a bracket":                    {"127.0.0.1:4000", "[::1", "", 403},
		"a proxy that says it forwards":     {"127.0.0.1:4000", "localhost", "X-Forwarded-For", 403},
		"a proxy that says it in a new way": {"127.0.0.1:4000", "localhost", "Forwarded", 403},
		"a proxy that names itself":         {"127.0.0.1:4000", "localhost", "Via", 403},
		"an address that is none":           {"@", "localhost", "", 403},
	} {
		t.Run(name, func(t *testing.T) {
			for _, path := range []string{"/", "/view.json", "/view.js", "/nothing"} {
				w := get(h, func(r *http.Request) {
					r.RemoteAddr, r.Host = tt.from, tt.host
					if tt.header != "" {
						r.Header.Set(tt.header, "10.0.0.7")
					}
				}, path)
				want := tt.status
				if want == 200 && path == "/nothing" {
					want = 404
				}
				if w.Code != want || want == 403 && !strings.Contains(w.Body.String(), "loopback only") {
					t.Errorf("%s: %d %.60q, want %d", path, w.Code, w.Body, want)
				}
			}
		})
	}
}

func TestNothingIsChangedByAsking(t *testing.T) {
	h := page.New(empty, page.Options{})
	for _, method := range []string{http.MethodPost, http.MethodPut, http.MethodDelete, http.MethodOptions, http.MethodConnect} {
		if w := get(h, func(r *http.Request) { r.Method = method }, "/view.json"); w.Code != http.StatusMethodNotAllowed {
			t.Errorf("%s: %d", method, w.Code)
		}
	}
}

// TestABrowserIsToldToLoadNothingElse: and nothing here asks for more than it may.
func TestABrowserIsToldToLoadNothingElse(t *testing.T) {
	h := page.New(empty, page.Options{})
	away := regexp.MustCompile(`(?i)\bhttps?:|\bsrc="?//|style=|\son[a-z]+=|innerHTML|outerHTML|insertAdjacent|document\.write|eval\(|new Function`)
	for path, kind := range map[string]string{"/": "text/html", "/view.js": "text/javascript", "/view.css": "text/css", "/icon.svg": "image/svg+xml", "/view.json": "application/json"} {
		w := get(h, nil, path)
		head := w.Header()
		if csp := head.Get("Content-Security-Policy"); !strings.HasPrefix(csp, "default-src 'none'; ") || strings.Contains(csp, "unsafe") || strings.Contains(csp, "*") {
			t.Errorf("%s: %q", path, csp)
		}
		if !strings.HasPrefix(head.Get("Content-Type"), kind) || head.Get("X-Content-Type-Options") != "nosniff" || head.Get("Cache-Control") != "no-store" {
			t.Errorf("%s: %v", path, head)
		}
		if head.Get("Access-Control-Allow-Origin") != "" || head.Get("Cross-Origin-Resource-Policy") != "same-origin" {
			t.Errorf("%s is open to other pages: %v", path, head)
		}
		body := strings.ReplaceAll(w.Body.String(), `http://www.w3.org/2000/svg`, "")
		if found := away.FindString(body); found != "" {
			t.Errorf("%s contains %q", path, found)
		}
	}
}

func TestReadersShareOneSnapshotForAMoment(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		made := 0
		h := page.New(func() *view.Snapshot { made++; return empty() }, page.Options{})
		for range 1000 {
			get(h, nil, "/view.json")
		}
		if made != 1 {
			t.Errorf("%d snapshots of one moment", made)
		}
		time.Sleep(200 * time.Millisecond)
		get(h, nil, "/view.json")
		if made != 2 {
			t.Errorf("%d snapshots of two moments", made)
		}
	})
}

const evil = `<img src=x onerror="document.title='owned'"></td><script>document.title='owned'</script>` + "\x1b[2J\u202e"

// busy is a snapshot of an hour of work, with names that want to be markup.
func busy() *view.Snapshot {
	w := view.New()
	own := core.InstanceID("0123456789abcdef0123456789abcdef")
	event := func(host string, port uint16, reason core.Reason, program string, n int) {
		e := core.Event{Kind: core.EventConnection, Instance: own, Time: time.Now(), RequestID: core.NewRequestID(), Host: host, Port: port, Reason: reason,
			Program: core.Program{Path: program}, BytesUp: uint64(n) * 700, BytesDn: uint64(n) * 60_000}
		if reason == core.ReasonAllowed || reason == core.ReasonUpstreamTimeout {
			e.Verdict = core.Allow
		}
		for range n {
			w.Record(&e, own)
		}
	}
	event("api.github.com", 443, core.ReasonAllowed, "/usr/bin/git", 400)
	event("registry.npmjs.org", 443, core.ReasonAllowed, "/usr/bin/node", 260)
	event("registry.npmjs.org", 443, core.ReasonUpstreamTimeout, "/usr/bin/node", 3)
	event("fd00:10::5", 5432, core.ReasonAllowed, "/usr/bin/psql", 12)
	event("telemetry.example.com", 443, core.ReasonPolicyDenied, "/usr/bin/node", 90)
	event("169.254.169.254", 80, core.ReasonSSRFDenied, "/usr/bin/curl", 7)
	event(evil, 443, core.ReasonPolicyDenied, evil, 2)
	event("", 0, core.ReasonBadRequest, "", 1)
	w.Record(&core.Event{Kind: core.EventBypass, Instance: "peer", Time: time.Now(), Host: "8.8.8.8", Port: 53, Reason: core.ReasonBypass, Program: core.Program{Path: "/usr/bin/dig"}, Count: 40}, own)
	s := w.Snapshot(view.State{
		Build: "supervisor-network 0.1.0 (5ab3279)", Checks: []view.Check{{Name: "policy", OK: true, Detail: "generation 12"}, {Name: "ca", Detail: "expired " + evil}},
		Policy: view.Policy{Generation: 12}, Peer: &view.Peer{Attached: true, Workload: "running", Build: "supervisor-process 0.1.0"},
		Connections: 41, Live: 9, Tunnels: 4, Active: view.Active{Rows: []view.ActiveRow{{Host: "db.example.com", Port: 5432, Program: "/usr/bin/psql", Count: 4, Unread: 4, Since: time.Now()}}},
	}, &view.Proposals{Others: 2, Pending: []view.Proposal{{ID: "p-7f3a", Source: "agent", Rule: "pypi " + evil, Rationale: "install packages " + evil, Created: time.Now(),
		Notes: []string{"the program is an interpreter: every script counts as it"}, Changes: []string{"+ /usr/bin/pip may send GET ** to pypi.org:443 on public addresses", "- nothing is lost " + evil}}}})
	for i := range s.Hour.Allowed { // the hour before
		s.Hour.Allowed[i] += uint64(30 + 25*((i/40)%3) + i%7)
		if i%90 < 9 {
			s.Hour.Denied[i] += uint64(i % 13)
		}
		if i%120 == 60 {
			s.Hour.Bypassed[i] += 6
			s.Hour.Failed[i] += 20
		}
	}
	return s
}

const window = "1280,1400" // of the browser

// TestABrowserShowsNamesAsText renders the page in Chromium, and keeps a picture when
// the test is run with -artifacts.
func TestABrowserShowsNamesAsText(t *testing.T) {
	browse := need.Chromium(t)
	s := httptest.NewServer(page.New(busy, page.Options{}))
	defer s.Close()
	shown := browse(window, "--dump-dom", s.URL)
	for _, want := range []string{`data-shown="yes"`, "telemetry.example.com:443", "policy_denied", "169.254.169.254:80", "api.github.com:443", "[fd00:10::5]:5432",
		"policy generation 12", "workload running", "not ready", "&lt;script&gt;document.title", `\u{1b}[2J\u{202e}`, "p-7f3a", "and 2 more", `class="bypassed"`, "<svg", "8.8.8.8:53", "db.example.com:5432"} {
		if !strings.Contains(shown, want) {
			t.Errorf("%q is not in the page", want)
		}
	}
	if strings.Contains(shown, "<img") || strings.Contains(shown, "<title>owned") || strings.Count(shown, "<script") != 1 {
		t.Errorf("a name became markup:\n%s", shown)
	}
	picture := filepath.Join(t.ArtifactDir(), "view.png")
	browse(window, "--screenshot="+picture, s.URL)
	if data, err := os.ReadFile(picture); err != nil || len(data) < 10_000 {
		t.Errorf("a picture of %d bytes: %v", len(data), err)
	}
}

func TestABrowserTellsThatNobodyAnswers(t *testing.T) {
	browse := need.Chromium(t)
	h := page.New(empty, page.Options{})
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/view.json" {
			http.Error(w, "gone", http.StatusBadGateway)
			return
		}
		h.ServeHTTP(w, r)
	}))
	defer s.Close()
	if shown := browse(window, "--dump-dom", s.URL); !strings.Contains(shown, "no answer: status 502") {
		t.Errorf("%s", shown)
	}
}

func TestTheDataIsASnapshot(t *testing.T) {
	var s view.Snapshot
	if err := json.Unmarshal(get(page.New(busy, page.Options{}), nil, "/view.json").Body.Bytes(), &s); err != nil {
		t.Fatal(err)
	}
	if s.Totals != (view.Totals{Allowed: 672, Failed: 3, Denied: 100, Bypassed: 40}) || len(s.Denied.Rows) != 5 || s.Peer == nil || s.Proposals == nil {
		t.Errorf("%+v", s)
	}
}
