package app

import (
	"bytes"
	"context"
	"encoding/json"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/splitpod/splitpod/cmd/supervisor-network/internal/config"
	"github.com/splitpod/splitpod/cmd/supervisor-network/internal/decide"
	"github.com/splitpod/splitpod/cmd/supervisor-network/internal/listen"
	"github.com/splitpod/splitpod/cmd/supervisor-network/internal/observe"
	"github.com/splitpod/splitpod/cmd/supervisor-network/internal/view"
	"github.com/splitpod/splitpod/pkg/core"
)

// viewed is a daemon that has a policy and works alone.
func viewed(t *testing.T) *daemon {
	t.Helper()
	d := &daemon{
		cfg:    &config.Config{StateDir: t.TempDir(), Identity: "ignore", InvalidPolicy: "keep", RecordFormat: "ocsf", ProxyPort: 3128},
		engine: &decide.Engine{}, meter: observe.NewMeter(), log: slog.New(slog.DiscardHandler), gauge: listen.NewGauge(1), instance: core.NewInstanceID(),
	}
	if err := d.openRecords(io.Discard); err != nil {
		t.Fatal(err)
	}
	if err := d.openCA(); err != nil {
		t.Fatal(err)
	}
	d.policies = d.newPolicies()
	if err := d.policies.load(t.Context(), readPolicy(policyAt(t, "version: 1\n"))); err != nil {
		t.Fatal(err)
	}
	return d
}

// local is how the live view answers a question from loopback.
func local(d *daemon, path string) *httptest.ResponseRecorder {
	r := httptest.NewRequest(http.MethodGet, path, nil)
	r.RemoteAddr, r.Host = "127.0.0.1:4000", "localhost"
	w := httptest.NewRecorder()
	d.admin().ServeHTTP(w, r)
	return w
}

func TestTheViewShowsWhatIsRecordedAndTrue(t *testing.T) {
	d := viewed(t)
	e := d.record.Begin(core.NewRequestID(), time.Now())
	e.Event.Host, e.Event.Port = "evil.example.com", 443
	go func() { _ = d.record.Run(t.Context()) }()
	e.Deny(core.StageConnect, core.ReasonPolicyDenied, "no rule")
	end := d.meter.Tunnel()
	defer end()
	var s view.Snapshot
	if err := json.Unmarshal(local(d, "/view.json").Body.Bytes(), &s); err != nil {
		t.Fatal(err)
	}
	if s.Totals.Denied != 1 || s.Denied.Rows[0].Host != "evil.example.com" || s.Tunnels != 1 || s.Policy.Generation != 1 || !s.Ready || len(s.Checks) != 2 {
		t.Errorf("%+v", s)
	}
	if s.Peer != nil || s.Proposals != nil || s.Instance != string(d.instance) {
		t.Errorf("%+v", s)
	}
}

type fixed view.Proposals

func (f fixed) Proposals() view.Proposals { return view.Proposals(f) }

func TestTheViewShowsWhatIsProposed(t *testing.T) {
	d := viewed(t)
	d.proposer = fixed{Pending: []view.Proposal{{ID: "p1", Changes: []string{"+ more"}}}}
	if body := local(d, "/view.json").Body.String(); !strings.Contains(body, `"pending":[{"id":"p1"`) || !strings.Contains(body, `"changes":["+ more"]`) {
		t.Errorf("%s", body)
	}
}

// TestTheViewHidesNothingOfTheListener: health and metrics answer as before, whoever
// asks, and nothing but questions is taken.
func TestTheViewHidesNothingOfTheListener(t *testing.T) {
	d := viewed(t)
	for path, want := range map[string]int{"/": 200, "/view.json": 200, "/livez": 200, "/readyz": 200, "/metrics": 200, "/nothing": 404} {
		if w := local(d, path); w.Code != want {
			t.Errorf("%s: %d, want %d", path, w.Code, want)
		}
		r := httptest.NewRequest(http.MethodGet, path, nil) // from 192.0.2.1
		w := httptest.NewRecorder()
		d.admin().ServeHTTP(w, r)
		ours := path == "/" || path == "/view.json" || path == "/nothing"
		if ours && w.Code != http.StatusForbidden || !ours && w.Code != want {
			t.Errorf("%s of a neighbour: %d", path, w.Code)
		}
		w = httptest.NewRecorder()
		d.admin().ServeHTTP(w, httptest.NewRequest(http.MethodPost, path, nil))
		if w.Code != http.StatusMethodNotAllowed {
			t.Errorf("POST %s: %d", path, w.Code)
		}
	}
}

func watch(t *testing.T, args ...string) (code int, stdout, stderr string) {
	t.Helper()
	var out, errs bytes.Buffer
	code = Main(t.Context(), append([]string{"watch"}, args...), &out, &errs)
	return code, out.String(), errs.String()
}

func TestWatchWritesALineForEachAnswer(t *testing.T) {
	s := httptest.NewServer(viewed(t).admin())
	defer s.Close()
	code, out, errs := watch(t, "--url", s.URL+"/view.json", "--count", "2")
	if code != exitOK || errs != "" || strings.Count(out, "\n") != 2 || strings.Count(out, " ready, policy generation 1, without a process daemon; allowed 0 (0.0/s)") != 2 {
		t.Errorf("%d %q %q", code, out, errs)
	}
}

func TestWatchSaysWhatIsWrong(t *testing.T) {
	big := `{"build":"` + strings.Repeat("x", maxView-len(`{"build":""}`))
	for name, tt := range map[string]struct {
		status     int
		body, want string
	}{
		"refused":                 {403, "not \x1b[2Jyou", `answers 403: not \u{1b}[2Jyou`},
		"no view":                 {200, "hello", "no view"},
		"as long as it may be":    {200, big + `"}`, ""},
		"longer than that by one": {200, big + `x"}`, "longer than"},
	} {
		t.Run(name, func(t *testing.T) {
			s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
				w.WriteHeader(tt.status)
				_, _ = io.WriteString(w, tt.body)
			}))
			defer s.Close()
			code, _, errs := watch(t, "--url", s.URL, "--count", "1")
			if want := tt.want; want == "" && code != exitOK || want != "" && (code != exitFailed || !strings.Contains(errs, want)) || strings.Contains(errs, "\x1b") {
				t.Errorf("%d %.300q", code, errs)
			}
		})
	}
	for _, args := range [][]string{{"x"}, {"--count", "-1"}, {"--nope"}} {
		if code, _, _ := watch(t, args...); code != exitUsage {
			t.Errorf("%v: %d", args, code)
		}
	}
}

func TestWatchEndsWhenItIsInterrupted(t *testing.T) {
	s := httptest.NewServer(viewed(t).admin())
	defer s.Close()
	ctx, cancel := context.WithCancel(t.Context())
	out := writer(func([]byte) { cancel() })
	if code := Main(ctx, []string{"watch", "--url", s.URL + "/view.json"}, out, io.Discard); code != exitOK {
		t.Errorf("%d", code)
	}
}

type writer func([]byte)

func (w writer) Write(p []byte) (int, error) { w(p); return len(p), nil }

func policyAt(t *testing.T, text string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "policy.yaml")
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}
