package approve

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"github.com/splitpod/splitpod/cmd/supervisor-network/internal/aggregate"
	"github.com/splitpod/splitpod/cmd/supervisor-network/internal/decide"
	"github.com/splitpod/splitpod/cmd/supervisor-network/internal/propose"
	"github.com/splitpod/splitpod/pkg/core"
	"github.com/splitpod/splitpod/pkg/core/policy"
	"github.com/splitpod/splitpod/pkg/core/strictyaml"
)

func parse(t testing.TB, text string) *policy.Document {
	t.Helper()
	doc, _, err := policy.Parse("p.yaml", []byte(text))
	if err != nil {
		t.Fatal(err)
	}
	return doc
}

const file = `version: 1
network_policies:
  github:
    endpoints: [{host: api.github.com, port: 443, protocol: rest, enforcement: enforce, access: read-only,
      deny_rules: [{method: "*", path: "/admin/**"}]}]
    binaries: [{path: /usr/bin/curl}]
`

// world is a Store with a policy file and an engine, wired as the daemon wires them.
type world struct {
	*Store
	t      *testing.T
	dir    string
	base   *policy.Document
	engine decide.Engine
	events []core.Event
	last   Effective
}

func newWorld(t *testing.T, text string) *world {
	t.Helper()
	w := &world{t: t, dir: t.TempDir(), base: parse(t, text)}
	w.open()
	return w
}

func (w *world) open() {
	w.t.Helper()
	s, err := Open(Options{Dir: w.dir, Base: func() *policy.Document { return w.base }, Check: check, Apply: w.apply,
		Record: func(ev core.Event) { w.events = append(w.events, ev) }})
	if err != nil {
		w.t.Fatal(err)
	}
	w.Store = s
	if err := w.apply(w.t.Context()); err != nil {
		w.t.Fatal(err)
	}
}

func check(ctx context.Context, doc *policy.Document) error {
	_, err := decide.Compile(ctx, doc, decide.Options{Generation: 1})
	return err
}

func (w *world) apply(ctx context.Context) error {
	e := w.Effective(w.base)
	snap, err := decide.Compile(ctx, e.Document, decide.Options{Generation: 1})
	if err != nil {
		return err
	}
	w.engine.Publish(snap)
	w.Applied(e)
	w.last = e
	return nil
}

// permit asks the policy in force.
func (w *world) permit(host string, port uint16, binary string) (decide.Permit, bool) {
	who := &core.Identity{Status: core.IdentityKnown, Program: core.Program{Path: binary}}
	p, denial := w.engine.Current().Connection(w.t.Context(), decide.Question{Who: who, Host: host, Port: port})
	return p, denial == nil
}

// request asks the policy in force about one request.
func (w *world) request(host, binary, method, path string) bool {
	p, ok := w.permit(host, 443, binary)
	if !ok || !p.Inspected() {
		return ok
	}
	e, ok := w.engine.Current().Endpoint(p, path)
	return ok && w.engine.Current().Request(p, e, &decide.Request{Method: method, Path: path}).Allowed
}

func (w *world) submit(endpoint string) Entry {
	w.t.Helper()
	e, err := w.Submit(asked(w.t, endpoint, "/usr/bin/curl"))
	if err != nil {
		w.t.Fatal(err)
	}
	return e
}

func asked(t testing.TB, endpoint, binary string) propose.Proposal {
	t.Helper()
	doc := parse(t, "version: 1\nnetwork_policies:\n  asked:\n    endpoints: [{"+endpoint+"}]\n    binaries: [{path: \""+binary+"\"}]\n")
	return propose.Proposal{Name: "asked", Rule: doc.Network["asked"]}
}

func (w *world) approve(id string) Entry {
	w.t.Helper()
	r, err := w.Review(id)
	if err != nil {
		w.t.Fatal(err)
	}
	e, err := w.Approve(w.t.Context(), id, r.Hash, 1000)
	if err != nil {
		w.t.Fatal(err)
	}
	return e
}

func denial(host, binary, method, path string, n uint64) aggregate.Summary {
	now := time.Date(2026, 11, 1, 12, 0, 0, 0, time.UTC)
	s := aggregate.Summary{Key: aggregate.Key{Host: host, Port: 443, Binary: binary}, Count: n, First: now, Last: now,
		Causes: []aggregate.CauseCount{{Cause: aggregate.Cause{Stage: core.StageRequest, Reason: core.ReasonPolicyDenied}, Count: n, First: now, Last: now}}}
	if method != "" {
		s.Samples = []aggregate.Sample{{Method: method, Path: path, Count: n}}
	}
	return s
}

func (w *world) deny(s ...aggregate.Summary) {
	w.t.Helper()
	if err := w.Take(w.t.Context(), &aggregate.Batch{Number: 1, Denials: s}); err != nil {
		w.t.Fatal(err)
	}
}

const postIssue = `host: api.github.com, port: 443, protocol: rest, enforcement: enforce, rules: [{allow: {method: POST, path: "/repos/a/issues"}}]`

// The advisor's loop: a denial, a proposal, a review, an approval, and the same request
// is allowed.
func TestADenialBecomesARuleOnlyByApproval(t *testing.T) {
	w := newWorld(t, file)
	allowed := func() bool { return w.request("api.github.com", "/usr/bin/curl", "POST", "/repos/a/issues") }
	if allowed() {
		t.Fatal("the request is allowed from the start")
	}
	w.deny(denial("api.github.com", "/usr/bin/curl", "POST", "/repos/a/issues", 3))
	list := w.List()
	if len(list) != 1 || list[0].Status != Pending || list[0].Hits != 3 || allowed() {
		t.Fatalf("after the denial: %+v, allowed: %v", list, allowed())
	}
	r, err := w.Review(list[0].ID)
	if err != nil {
		t.Fatal(err)
	}
	want := "+ /usr/bin/curl may send POST /repos/a/issues to api.github.com:443 on public addresses  [allow_api_github_com_443]"
	if len(r.Changes) != 1 || r.Changes[0].String() != want {
		t.Errorf("the review says %v, want %s", r.Changes, want)
	}
	e, err := w.Approve(t.Context(), r.Entry.ID, r.Hash, 1000)
	if err != nil || e.Status != Approved || !e.InForce {
		t.Fatalf("approval: %+v, %v", e, err)
	}
	if !allowed() {
		t.Error("the request is refused after the approval")
	}
	if w.request("api.github.com", "/usr/bin/curl", "POST", "/repos/b/issues") || w.request("api.github.com", "/usr/bin/git", "POST", "/repos/a/issues") {
		t.Error("more is allowed than was approved")
	}
	if _, err := w.Revoke(t.Context(), e.ID, "enough", 1000); err != nil {
		t.Fatal(err)
	}
	if allowed() {
		t.Error("the request is allowed after the rule was revoked")
	}
	var reasons []core.Reason
	for _, ev := range w.events {
		reasons = append(reasons, ev.Reason)
	}
	if d := cmp.Diff([]core.Reason{"proposal_approved", "proposal_revoked"}, reasons); d != "" {
		t.Error(d)
	}
}

// F13: an approval is for one change of one policy.
func TestAnApprovalIsForWhatWasReviewed(t *testing.T) {
	another := strings.Replace(file, "/usr/bin/curl", "/usr/bin/wget", 1)
	for _, tt := range []struct {
		name   string
		before func(w *world, e Entry)
		want   error
	}{
		{"the policy file changed", func(w *world, _ Entry) { w.base = parse(w.t, another) }, ErrChanged},
		{"another rule was approved", func(w *world, _ Entry) {
			w.approve(w.submit(`host: other.example.com, port: 443`).ID)
		}, ErrChanged},
		{"the proposal grew by a denial", func(w *world, _ Entry) {
			w.deny(denial("api.github.com", "/usr/bin/curl", "DELETE", "/repos/b", 1))
		}, ErrChanged},
		{"it was rejected", func(w *world, e Entry) { _, _ = w.Reject(e.ID, "no", 1) }, ErrDecided},
		{"it was approved already", func(w *world, e Entry) { w.approve(e.ID) }, ErrDecided},
		{"it was approved and revoked", func(w *world, e Entry) {
			w.approve(e.ID)
			_, _ = w.Revoke(w.t.Context(), e.ID, "", 1)
		}, ErrDecided},
		{"only comments of the file changed", func(w *world, _ Entry) { w.base = parse(w.t, "# new\n"+file) }, nil},
		{"nothing changed", func(*world, Entry) {}, nil},
	} {
		t.Run(tt.name, func(t *testing.T) {
			w := newWorld(t, file)
			w.deny(denial("api.github.com", "/usr/bin/curl", "POST", "/repos/a/issues", 1))
			e := w.List()[0]
			r, err := w.Review(e.ID)
			if err != nil {
				t.Fatal(err)
			}
			tt.before(w, e)
			if _, err := w.Approve(t.Context(), e.ID, r.Hash, 1000); !errors.Is(err, tt.want) {
				t.Errorf("the old approval gives %v, want %v", err, tt.want)
			}
		})
	}
}

func TestAnApprovalOfAnotherProposalIsNone(t *testing.T) {
	w := newWorld(t, file)
	a := w.submit(`host: a.example.com, port: 443`)
	b := w.submit(`host: b.example.com, port: 443`)
	r, _ := w.Review(a.ID)
	for _, hash := range []string{r.Hash, "", r.Hash[:31], r.Base, r.After} {
		if _, err := w.Approve(t.Context(), b.ID, hash, 1000); !errors.Is(err, ErrChanged) {
			t.Errorf("%q approves another proposal: %v", hash, err)
		}
	}
	if _, err := w.Approve(t.Context(), "0123456789abcdef", r.Hash, 1000); !errors.Is(err, ErrUnknown) {
		t.Errorf("an unknown id: %v", err)
	}
	if refused := w.recorded(core.EventApprovalRefused); w.count(Approved) != 0 || refused != 5 {
		t.Errorf("%d approved, %d refusals on record", w.count(Approved), refused)
	}
}

func (w *world) recorded(reason core.Reason) (n int) {
	for _, ev := range w.events {
		if ev.Reason == reason {
			n++
		}
	}
	return n
}

// What the workload proposes is on record once, however often it proposes it, and not
// when it is refused.
func TestAProposalIsOnRecordOnce(t *testing.T) {
	w := newWorld(t, file)
	for range 3 {
		w.submit(`host: a.example.com, port: 443`)
	}
	if _, err := w.Submit(asked(t, `host: api.github.com, port: 443, protocol: rest, access: read-only`, "/usr/bin/curl")); err == nil {
		t.Error("a rule that is there already is taken")
	}
	if n := w.recorded(core.EventRuleProposed); n != 1 {
		t.Errorf("%d records of one proposal", n)
	}
}

// What an agent asked for never has internal addresses, however exact its host.
func TestApprovedRulesHavePublicAddressesOnly(t *testing.T) {
	w := newWorld(t, file)
	w.approve(w.submit(`host: wiki.corp.example, port: 443`).ID)
	p, ok := w.permit("wiki.corp.example", 443, "/usr/bin/curl")
	if !ok || p.AddressMode() != decide.AddressPublic {
		t.Errorf("allowed: %v, addresses: %v", ok, p.AddressMode())
	}
	w.approve(w.submit(`host: db.corp.example, port: 443, allowed_ips: ["10.1.2.3"]`).ID)
	if p, ok = w.permit("db.corp.example", 443, "/usr/bin/curl"); !ok || p.AddressMode() != decide.AddressListed {
		t.Errorf("allowed: %v, addresses: %v", ok, p.AddressMode())
	}
}

func TestEverythingSurvivesARestart(t *testing.T) {
	w := newWorld(t, file)
	if err := w.Take(t.Context(), &aggregate.Batch{Denials: []aggregate.Summary{denial("x.example.com", "/bin/[*]", "GET", "/a*", 2)}}); err != nil {
		t.Fatal(err)
	}
	approved := w.approve(w.submit(postIssue).ID)
	rejected := w.submit(`host: no.example.com, port: 443`)
	if _, err := w.Reject(rejected.ID, "not\x1b[31m this\nhost", 1); err != nil {
		t.Fatal(err)
	}
	before := w.List()
	w.open()
	ignoreNil := cmpopts.EquateEmpty()
	if d := cmp.Diff(before, w.List(), ignoreNil, cmpopts.EquateComparable(policy.AllowedIP{}.Prefix), cmpopts.IgnoreTypes(strictyaml.Position{})); d != "" {
		t.Error(d)
	}
	if e, _ := w.Get(approved.ID); !e.InForce || !w.request("api.github.com", "/usr/bin/curl", "POST", "/repos/a/issues") {
		t.Error("what was approved is not in force after the restart")
	}
	if e, _ := w.Get(rejected.ID); e.Reason != "not[31m this host" {
		t.Errorf("the reason is %q", e.Reason)
	}
	overlay, err := os.ReadFile(filepath.Join(w.dir, OverlayFile))
	if err != nil {
		t.Fatal(err)
	}
	if doc := parse(t, string(overlay)); len(doc.Network) != 1 {
		t.Errorf("the overlay has %d rules:\n%s", len(doc.Network), overlay)
	}
	left, _ := filepath.Glob(filepath.Join(w.dir, ".*"))
	if len(left) != 0 {
		t.Errorf("temporary files are left: %v", left)
	}
}

func TestAFileThatCannotBeReadStartsNothing(t *testing.T) {
	for name, text := range map[string]string{
		"cut":             `{"version":1,"proposals":[`,
		"another version": `{"version":2,"proposals":[]}`,
		"an unknown key":  `{"version":1,"proposals":[],"approved":["x"]}`,
		"an unknown status": `{"version":1,"proposals":[{"id":"0123456789abcdef","status":"yes","source":"agent","rule_name":"r",
			"rule":"version: 1\nnetwork_policies: {r: {endpoints: [{host: a.b.c, port: 1}]}}","created":"2026-11-01T00:00:00Z"}]}`,
		"an invalid rule": `{"version":1,"proposals":[{"id":"0123456789abcdef","status":"approved","source":"agent","rule_name":"r",
			"rule":"version: 1\nnetwork_policies: {r: {endpoints: [{host: '*', port: 1}]}}","created":"2026-11-01T00:00:00Z"}]}`,
		"two rules": `{"version":1,"proposals":[{"id":"0123456789abcdef","status":"approved","source":"agent","rule_name":"r",
			"rule":"version: 1\nnetwork_policies: {r: {endpoints: [{host: a.b.c, port: 1}]}, s: {endpoints: [{host: a.b.c, port: 1}]}}","created":"2026-11-01T00:00:00Z"}]}`,
		"empty": ``,
	} {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			if err := os.WriteFile(filepath.Join(dir, StateFile), []byte(text), 0o600); err != nil {
				t.Fatal(err)
			}
			if _, err := Open(Options{Dir: dir}); err == nil || !strings.Contains(err.Error(), StateFile) {
				t.Errorf("it is opened: %v", err)
			}
		})
	}
}

func TestNothingChangesWhenTheDiskRefuses(t *testing.T) {
	w := newWorld(t, file)
	e := w.submit(postIssue)
	r, _ := w.Review(e.ID)
	w.opt.Dir = filepath.Join(w.dir, "gone")
	if _, err := w.Approve(t.Context(), e.ID, r.Hash, 1000); err == nil {
		t.Fatal("an approval that is not on disk is taken")
	}
	if got, _ := w.Get(e.ID); got.Status != Pending || w.request("api.github.com", "/usr/bin/curl", "POST", "/repos/a/issues") {
		t.Errorf("it is %s", got.Status)
	}
}

// A start on a full disk: what was approved is in force, although the file that shows it
// cannot be written.
func TestAnOverlayThatCannotBeWrittenStopsNothing(t *testing.T) {
	w := newWorld(t, file)
	w.approve(w.submit(`host: a.example.com, port: 443`).ID)
	shown := filepath.Join(w.dir, OverlayFile)
	if err := errors.Join(os.Remove(shown), os.Mkdir(shown, 0o700)); err != nil {
		t.Fatal(err)
	}
	w.open()
	if _, ok := w.permit("a.example.com", 443, "/usr/bin/curl"); !ok {
		t.Error("what was approved is not in force")
	}
}

// A rule that does not fit the file any more grants nothing, and the rest stays.
func TestARuleThatNoLongerFitsIsLeftOut(t *testing.T) {
	w := newWorld(t, file)
	w.approve(w.submit(`host: a.example.com, port: 443`).ID)
	kept := w.approve(w.submit(`host: b.example.com, port: 443`).ID)
	w.base = parse(t, file+"  a:\n    endpoints: [{host: a.example.com, port: 443, tls: skip}]\n    binaries: [{path: /usr/bin/git}]\n")
	if err := w.apply(t.Context()); err != nil {
		t.Fatal(err)
	}
	if len(w.last.Suspended) != 1 || !strings.Contains(w.last.Suspended[0].Why, "tls") {
		t.Errorf("left out: %+v", w.last.Suspended)
	}
	if _, ok := w.permit("a.example.com", 443, "/usr/bin/curl"); ok {
		t.Error("the rule that does not fit grants")
	}
	if _, ok := w.permit("b.example.com", 443, "/usr/bin/curl"); !ok {
		t.Error("the other one does not")
	}
	for _, e := range w.List() {
		if e.InForce != (e.ID == kept.ID) {
			t.Errorf("%s is said to be in force: %v", e.Name, e.InForce)
		}
	}
}

func TestNamesThatAreTakenDoNotReplaceRules(t *testing.T) {
	w := newWorld(t, strings.Replace(file, "github:", "asked:", 1))
	w.approve(w.submit(`host: a.example.com, port: 443`).ID)
	w.approve(w.submit(`host: b.example.com, port: 443`).ID)
	for _, host := range []string{"api.github.com", "a.example.com", "b.example.com"} {
		if _, ok := w.permit(host, 443, "/usr/bin/curl"); !ok {
			t.Errorf("%s is refused", host)
		}
	}
	if n := len(w.last.Document.Network); n != 3 {
		t.Errorf("%d rules, want 3", n)
	}
	if doc := parse(t, string(w.Export())); len(doc.Network) != 2 {
		t.Errorf("%d rules are exported:\n%s", len(doc.Network), w.Export())
	}
}

func TestWhatIsNotTaken(t *testing.T) {
	w := newWorld(t, file)
	rejected := w.submit(`host: no.example.com, port: 443`)
	if _, err := w.Reject(rejected.ID, "we do not use it", 1); err != nil {
		t.Fatal(err)
	}
	for _, tt := range []struct{ endpoint, code, text string }{
		{`host: api.github.com, port: 443, protocol: rest, enforcement: enforce, rules: [{allow: {method: GET, path: "/x"}}]`, "redundant", "rule github already"},
		{`host: no.example.com, port: 443`, "rejected_before", "we do not use it"},
		{`host: api.github.com, port: 443, tls: skip`, "invalid", "differ in tls"},
		{`host: long.example.com, port: 443, protocol: rest, enforcement: enforce, rules: [` + strings.Repeat(`{allow: {method: GET, path: "/`+strings.Repeat("x", 1000)+`"}},`, 16) + `]`,
			"invalid", "bytes as a policy file"},
	} {
		_, err := w.Submit(asked(t, tt.endpoint, "/usr/bin/curl"))
		refusal, ok := errors.AsType[*Refusal](err)
		if !ok || refusal.Code != tt.code || !strings.Contains(refusal.Text, tt.text) {
			t.Errorf("%.80s: %v, want %s: %s", tt.endpoint, err, tt.code, tt.text)
		}
	}
}

func TestRepeatedAndOverlappingProposals(t *testing.T) {
	w := newWorld(t, file)
	w.deny(denial("api.github.com", "/usr/bin/curl", "POST", "/repos/a/issues", 3))
	w.deny(denial("api.github.com", "/usr/bin/curl", "POST", "/repos/a/issues", 2), denial("api.github.com", "/usr/bin/curl", "PUT", "/repos/a", 2))
	list := w.List()
	if len(list) != 1 || list[0].Hits != 7 || len(list[0].Rule.Endpoints[0].Allow) != 2 {
		t.Fatalf("denials of one destination are %+v", list)
	}
	first := w.submit(postIssue)
	if again := w.submit(postIssue); again.ID != first.ID || len(w.List()) != 2 {
		t.Errorf("the same proposal has two ids: %s, %s", first.ID, again.ID)
	}
	if e, _ := w.Get(list[0].ID); e.Status != Superseded {
		t.Errorf("what was made of denials is still %s", e.Status)
	}
}

func TestADenyRuleThatWinsIsNoted(t *testing.T) {
	w := newWorld(t, file)
	e := w.submit(`host: api.github.com, port: 443, protocol: rest, enforcement: enforce, rules: [{allow: {method: POST, path: "/admin/x"}}]`)
	if n := e.Notes[len(e.Notes)-1]; n.Code != "deny_wins" || !strings.Contains(n.Text, "github") {
		t.Errorf("the notes are %v", e.Notes)
	}
}

func TestPendingProposalsAreBounded(t *testing.T) {
	w := newWorld(t, file)
	for i := range MaxAgent {
		w.submit(fmt.Sprintf(`host: h%d.example.com, port: 443`, i))
	}
	_, err := w.Submit(asked(t, `host: more.example.com, port: 443`, "/usr/bin/curl"))
	if refusal, ok := errors.AsType[*Refusal](err); !ok || refusal.Code != "too_many" {
		t.Errorf("one more is taken: %v", err)
	}
	w.opt.Now = func() time.Time { return time.Time{} } // no batch takes too long
	often := denial("often.example.com", "/usr/bin/curl", "", "", 50)
	w.deny(often)
	for i := range 3 {
		var many []aggregate.Summary
		for j := range MaxMechanistic {
			many = append(many, denial(fmt.Sprintf("d%d-%d.example.com", i, j), "/usr/bin/curl", "", "", 1))
		}
		w.deny(many...)
	}
	n, kept := 0, false
	for _, e := range w.List() {
		if e.Source == propose.Mechanistic {
			n++
			kept = kept || e.Key.Host == "often.example.com"
		}
	}
	if n != MaxMechanistic || !kept {
		t.Errorf("%d made of denials, the wanted one is there: %v", n, kept)
	}
}

// A batch that keeps the Store busy for long is cut: at the limit it is not.
func TestABatchIsBoundedInTime(t *testing.T) {
	for step, want := range map[time.Duration]int{takeTime / 9: 5, takeTime/9 + 1: 4} {
		w := newWorld(t, file)
		var now time.Time
		w.opt.Now = func() time.Time { now = now.Add(step); return now } // twice for each that is taken
		var many []aggregate.Summary
		for j := range 20 {
			many = append(many, denial(fmt.Sprintf("d%d.example.com", j), "/usr/bin/curl", "", "", 1))
		}
		w.deny(many...)
		if n := len(w.List()); n != want {
			t.Errorf("steps of %s: %d are taken, want %d", step, n, want)
		}
	}
}

func TestDecidedOnesAreForgottenInTheEnd(t *testing.T) {
	st := &state{}
	for i := range MaxDecided + 5 {
		st.entries = append(st.entries, Entry{ID: fmt.Sprint(i), Status: Rejected})
	}
	st.entries = append(st.entries, Entry{ID: "p", Status: Pending}, Entry{ID: "a", Status: Approved})
	st.forget()
	if len(st.entries) != MaxDecided+2 || st.entries[0].ID != "5" {
		t.Errorf("%d are left, from %s on", len(st.entries), st.entries[0].ID)
	}
}

func TestWaitEndsWithTheDecision(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, file)
		e := w.submit(postIssue)
		got := make(chan Entry)
		go func() {
			e, _ := w.Wait(t.Context(), e.ID)
			got <- e
		}()
		synctest.Wait()
		w.approve(e.ID)
		if e := <-got; e.Status != Approved || !e.InForce {
			t.Errorf("it ended with %s, in force: %v", e.Status, e.InForce)
		}
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		defer cancel()
		other := w.submit(`host: a.example.com, port: 443`)
		if e, err := w.Wait(ctx, other.ID); err != nil || e.Status != Pending {
			t.Errorf("nobody decides: %s, %v", e.Status, err)
		}
		if _, err := w.Wait(ctx, "x"); !errors.Is(err, ErrUnknown) {
			t.Errorf("an unknown id: %v", err)
		}
	})
}
