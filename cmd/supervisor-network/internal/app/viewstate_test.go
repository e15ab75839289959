package app

import (
	"crypto/sha256"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"strconv"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/splitpod/splitpod/cmd/supervisor-network/internal/approve"
	"github.com/splitpod/splitpod/cmd/supervisor-network/internal/authority"
	"github.com/splitpod/splitpod/cmd/supervisor-network/internal/config"
	"github.com/splitpod/splitpod/cmd/supervisor-network/internal/decide"
	"github.com/splitpod/splitpod/cmd/supervisor-network/internal/inspect/hold"
	"github.com/splitpod/splitpod/cmd/supervisor-network/internal/listen"
	"github.com/splitpod/splitpod/cmd/supervisor-network/internal/observe"
	"github.com/splitpod/splitpod/cmd/supervisor-network/internal/policyfile"
	"github.com/splitpod/splitpod/cmd/supervisor-network/internal/policylocal"
	"github.com/splitpod/splitpod/cmd/supervisor-network/internal/relay/h2"
	"github.com/splitpod/splitpod/cmd/supervisor-network/internal/view"
	"github.com/splitpod/splitpod/pkg/core"
	"github.com/splitpod/splitpod/pkg/core/policy"
)

// viewed is a daemon that has a policy and works alone.
func viewed(t *testing.T) *daemon {
	t.Helper()
	d := &daemon{
		cfg:    &config.Config{StateDir: t.TempDir(), Identity: "ignore", AgentProposals: true, InvalidPolicy: "keep", RecordFormat: "ocsf", ProxyPort: 3128},
		engine: &decide.Engine{}, meter: observe.NewMeter(), log: slog.New(slog.DiscardHandler), gauge: listen.NewGauge(1), bodies: hold.New(1), answers: hold.New(1), http2: h2.New(h2.Config{}), instance: core.NewInstanceID(), state: roomOf(t.TempDir()),
	}
	if err := d.openRecords(io.Discard); err != nil {
		t.Fatal(err)
	}
	if err := d.openCA(); err != nil {
		t.Fatal(err)
	}
	var err error
	if d.advisor, err = d.openAdvisor(); err != nil {
		t.Fatal(err)
	}
	d.policies = d.newPolicies()
	if err := d.policies.load(t.Context(), fileOf("version: 1\n")); err != nil {
		t.Fatal(err)
	}
	return d
}

// fileOf is a policy file with a text.
func fileOf(text string) policyfile.File {
	doc, warnings, err := policy.Parse("p.yaml", []byte(text))
	return policyfile.File{Doc: doc, Warnings: warnings, Digest: fmt.Sprintf("%x", sha256.Sum256([]byte(text))), Err: err}
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
	if s.Totals.Denied != 1 || s.Denied.Rows[0].Host != "evil.example.com" || s.Tunnels != 1 || s.Policy.Generation != 1 || !s.Ready || len(s.Checks) != 3 {
		t.Errorf("%+v", s)
	}
	if s.Peer != nil || s.Proposals == nil || len(s.Proposals.Pending) != 0 || s.Instance != string(d.instance) {
		t.Errorf("%+v", s)
	}
}

// TestTheViewShowsWhatIsProposed takes a real proposal of the workload.
func TestTheViewShowsWhatIsProposed(t *testing.T) {
	d := viewed(t)
	body := `{"intent_summary":"install \u001b[2K packages","operations":[{"addRule":{"ruleName":"pypi","rule":{
		"endpoints":[{"host":"pypi.org","port":443,"protocol":"rest","access":"read-only"}],"binaries":[{"path":"/usr/bin/pip"}]}}}]}`
	if a := d.advisor.Local().Serve(t.Context(), &policylocal.Request{Method: "POST", Path: "/v1/proposals", Body: []byte(body)}); a.Status != 202 {
		t.Fatalf("%s", a.JSON())
	}
	var s view.Snapshot
	if err := json.Unmarshal(local(d, "/view.json").Body.Bytes(), &s); err != nil {
		t.Fatal(err)
	}
	if p := s.Proposals; p == nil || len(p.Pending) != 1 || !strings.Contains(strings.Join(p.Pending[0].Changes, "\n"), "may send GET ** to pypi.org:443") || strings.Contains(p.Pending[0].Rationale, "\x1b") {
		t.Errorf("%+v", p)
	}
}

// piled is a reviewer with many proposals, each of which takes a while to review.
type piled struct {
	pending int
	takes   time.Duration
	reviews int
}

func (p *piled) Pending() []approve.Entry {
	out := make([]approve.Entry, p.pending)
	for i := range out {
		out[i].ID = strconv.Itoa(i)
	}
	return out
}

func (p *piled) Review(string) (approve.Review, error) {
	p.reviews++
	time.Sleep(p.takes)
	return approve.Review{Complete: true, Changes: []authority.Change{{Kind: authority.Gained, Rule: "r", Text: "more"}}}, nil
}

func TestLookingAtProposalsIsBounded(t *testing.T) {
	for name, tt := range map[string]struct {
		pending, others, reviews int
		takes                    time.Duration
	}{
		"none":                      {0, 0, 0, 0},
		"as many as are shown":      {32, 0, 32, 0},
		"one more":                  {33, 1, 32, 0},
		"reviews that take a while": {40, 8, 4, 50 * time.Millisecond},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				of := &piled{pending: tt.pending, takes: tt.takes}
				w := &waiting{of: of}
				var p *view.Proposals
				for range 100 {
					p = w.proposals()
				}
				if p.Others != tt.others || len(p.Pending) != tt.pending-tt.others || of.reviews != tt.reviews {
					t.Errorf("%d shown, %d others, %d reviews", len(p.Pending), p.Others, of.reviews)
				}
				if tt.pending > 0 && (p.Pending[0].ID != strconv.Itoa(tt.pending-1) || p.Pending[0].More || p.Pending[0].Changes[0] != "+ more  [r]") {
					t.Errorf("%+v", p.Pending[0])
				}
				if tt.takes > 0 && (!p.Pending[len(p.Pending)-1].More || p.Pending[len(p.Pending)-1].Changes != nil) {
					t.Error("what was not reviewed looks like nothing")
				}
				time.Sleep(5 * time.Second)
				if w.proposals(); of.reviews != 2*tt.reviews {
					t.Errorf("%d reviews after a while", of.reviews)
				}
			})
		})
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
