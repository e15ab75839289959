package advisor

import (
	"context"
	"encoding/json"
	"log/slog"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/splitpod/splitpod/cmd/supervisor-network/internal/admin"
	"github.com/splitpod/splitpod/cmd/supervisor-network/internal/approve"
	"github.com/splitpod/splitpod/cmd/supervisor-network/internal/decide"
	"github.com/splitpod/splitpod/cmd/supervisor-network/internal/policylocal"
	"github.com/splitpod/splitpod/cmd/supervisor-network/internal/remedy"
	"github.com/splitpod/splitpod/pkg/core"
	"github.com/splitpod/splitpod/pkg/core/policy"
)

const file = `version: 1
network_policies:
  github:
    endpoints: [{host: api.github.com, port: 443, protocol: rest, enforcement: enforce, access: read-only}]
    binaries: [{path: /usr/bin/curl}]
`

// world is an Advisor wired as the daemon wires it, running.
type world struct {
	*Advisor
	t      *testing.T
	dir    string
	engine decide.Engine

	mu     sync.Mutex
	events []core.Event // guarded by mu
}

func newWorld(t *testing.T, opt Options) *world {
	t.Helper()
	base, _, err := policy.Parse("p.yaml", []byte(file))
	if err != nil {
		t.Fatal(err)
	}
	w := &world{t: t, dir: t.TempDir()}
	opt.StateDir, opt.Proposals, opt.Log, opt.Every = w.dir, true, slog.New(slog.DiscardHandler), time.Millisecond
	opt.Base = func() *policy.Document { return base }
	opt.Record = func(ev core.Event) {
		w.mu.Lock()
		defer w.mu.Unlock()
		w.events = append(w.events, ev)
	}
	opt.Apply = func(ctx context.Context) error {
		e := w.Join(base)
		snap, err := decide.Compile(ctx, e.Document, decide.Options{Generation: 1, LearnUntil: w.LearnUntil()})
		if err != nil {
			return err
		}
		w.engine.Publish(snap)
		w.Joined(e)
		return nil
	}
	if w.Advisor, err = Open(opt); err != nil {
		t.Fatal(err)
	}
	if err := opt.Apply(t.Context()); err != nil {
		t.Fatal(err)
	}
	l, err := w.Listen(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error)
	go func() { done <- l.Run(ctx) }()
	t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
	return w
}

func (w *world) ask(q admin.Question, to any) {
	w.t.Helper()
	if err := admin.Ask(w.t.Context(), w.dir, q, to); err != nil {
		w.t.Fatalf("%s: %v", q.Command, err)
	}
}

func (w *world) request(method, path string) bool {
	snap := w.engine.Current()
	who := &core.Identity{Status: core.IdentityKnown, Program: core.Program{Path: "/usr/bin/curl"}}
	p, denial := snap.Connection(w.t.Context(), decide.Question{Who: who, Host: "api.github.com", Port: 443})
	if denial != nil {
		return false
	}
	e, ok := snap.Endpoint(p, path)
	return ok && snap.Request(p, e, &decide.Request{Method: method, Path: path}).Allowed
}

func denied() *core.Event {
	return &core.Event{Kind: core.EventConnection, Time: time.Now(), RequestID: "0123456789abcdef", Stage: core.StageRequest, Reason: core.ReasonPolicyDenied,
		Rule: "github", Host: "api.github.com", Port: 443, Method: "POST", Path: "/repos/a/issues", Program: core.Program{Path: "/usr/bin/curl"}}
}

// From a denial to the same request allowed, by what the daemon really runs: counts,
// the agent's API and the operator's socket.
func TestTheWholeLoopOverTheSockets(t *testing.T) {
	w := newWorld(t, Options{})
	w.Observe(denied())
	var list []approve.Entry
	for len(list) == 0 { // until the counts are delivered
		w.ask(admin.Question{Command: List}, &list)
	}
	if list[0].Name != "allow_api_github_com_443" || list[0].Status != approve.Pending {
		t.Errorf("of the denial came %+v", list[0])
	}

	var denial remedy.Answer
	w.ask(admin.Question{Command: Denial, ID: "0123456789abcdef"}, &denial)
	if len(denial.Remedies) == 0 || denial.Remedies[0].Title != "exactly this request" {
		t.Errorf("the denial is explained by %+v", denial)
	}

	body := `{"intent_summary":"file it","operations":[{"addRule":{"ruleName":"file_issues","rule":{"endpoints":[
		{"host":"api.github.com","port":443,"protocol":"rest","rules":[{"allow":{"method":"POST","path":"/repos/a/*"}}]}],"binaries":[{"path":"/usr/bin/curl"}]}}}]}`
	answer := w.Local().Serve(t.Context(), &policylocal.Request{Method: "POST", Path: "/v1/proposals", Body: []byte(body)})
	var submitted struct {
		IDs []string `json:"accepted_chunk_ids"`
	}
	if err := json.Unmarshal(answer.JSON(), &submitted); err != nil || len(submitted.IDs) != 1 {
		t.Fatalf("%d %s", answer.Status, answer.JSON())
	}
	id := submitted.IDs[0]
	waited := make(chan policylocal.Answer)
	go func() {
		waited <- w.Local().Serve(t.Context(), &policylocal.Request{Method: "GET", Path: "/v1/proposals/" + id + "/wait"})
	}()
	var r approve.Review
	w.ask(admin.Question{Command: Show, ID: id}, &r)
	if w.request("POST", "/repos/a/issues") || len(r.Changes) != 1 || r.Entry.Rationale != "file it" {
		t.Errorf("before the approval: %+v", r)
	}
	var ignored any
	if err := admin.Ask(t.Context(), w.dir, admin.Question{Command: Approve, ID: id, Hash: strings.Repeat("0", 32)}, &ignored); err == nil {
		t.Error("another hash is taken")
	}
	var e approve.Entry
	w.ask(admin.Question{Command: Approve, ID: id, Hash: r.Hash}, &e)
	if !e.InForce || !w.request("POST", "/repos/a/issues") || w.request("POST", "/repos/b/issues") {
		t.Errorf("after the approval: %+v", e)
	}
	if a := <-waited; !strings.Contains(string(a.JSON()), `"policy_reloaded":true`) {
		t.Errorf("the agent is told %s", a.JSON())
	}
	if got := w.Stats(); got.Approved != 1 || got.LeftOut != 0 {
		t.Errorf("the numbers are %+v", got)
	}
	var out Text
	w.ask(admin.Question{Command: Export}, &out)
	if !strings.Contains(out.YAML, "/repos/a/*") {
		t.Errorf("exported:\n%s", out.YAML)
	}
	w.ask(admin.Question{Command: Revoke, ID: id, Reason: "done"}, &e)
	if e.Status != approve.Revoked || w.request("POST", "/repos/a/issues") {
		t.Errorf("after it was revoked: %+v", e)
	}
}

func TestWhatWasCountedLastIsKept(t *testing.T) {
	dir := t.TempDir()
	a, err := Open(Options{StateDir: dir, Base: func() *policy.Document { return &policy.Document{Version: 1} }, Record: func(core.Event) {},
		Log: slog.New(slog.DiscardHandler), Every: time.Hour})
	if err != nil {
		t.Fatal(err)
	}
	l, err := a.Listen(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error)
	go func() { done <- l.Run(ctx) }()
	a.Observe(denied())
	cancel()
	if err := <-done; err != nil {
		t.Fatal(err)
	}
	s, err := approve.Open(approve.Options{Dir: dir})
	if err != nil || len(s.List()) != 1 {
		t.Errorf("%v, kept %v", err, s.List())
	}
}

func TestLearningIsLoudAndWritesAPolicy(t *testing.T) {
	w := newWorld(t, Options{Learn: time.Hour})
	if !w.Learning() {
		t.Fatal("it does not learn")
	}
	who := &core.Identity{Status: core.IdentityKnown, Program: core.Program{Path: "/usr/bin/pip"}}
	p, denial := w.engine.Current().Connection(t.Context(), decide.Question{Who: who, Host: "pypi.org", Port: 443})
	if denial != nil || !p.Learned() {
		t.Fatalf("%+v, %v", p, denial)
	}
	w.Observe(&core.Event{Kind: core.EventConnection, Time: time.Now(), Verdict: core.Allow, Rule: p.Rule(), Host: "pypi.org", Port: 443,
		Method: "GET", Path: "/simple/requests/", Program: core.Program{Path: "/usr/bin/pip"}})
	var out Text
	for !strings.Contains(out.YAML, "pypi.org") {
		w.ask(admin.Question{Command: Learned}, &out)
	}
	if _, _, err := policy.Parse("export", []byte(out.YAML)); err != nil || !strings.Contains(out.YAML, "/simple/requests/") {
		t.Errorf("%v\n%s", err, out.YAML)
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	if len(w.events) == 0 || w.events[0].Reason != "learning" || w.events[0].Severity != core.SeverityHigh {
		t.Errorf("the records say %+v", w.events)
	}
}

func TestLearningEndsWithItsEvent(t *testing.T) {
	w := newWorld(t, Options{Learn: time.Millisecond})
	for over := false; !over; {
		w.mu.Lock()
		for _, ev := range w.events {
			over = over || ev.Reason == "learning_over"
		}
		n := len(w.events)
		w.mu.Unlock()
		if n == 0 && !w.Learning() {
			return // it was over before the daemon ran
		}
	}
	if w.Learning() {
		t.Error("it learns on")
	}
}
