package learn

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/splitpod/splitpod/cmd/supervisor-network/internal/aggregate"
	"github.com/splitpod/splitpod/cmd/supervisor-network/internal/decide"
	"github.com/splitpod/splitpod/pkg/core/policy"
)

var now = time.Date(2026, 11, 1, 12, 0, 0, 0, time.UTC)

func TestARestartDoesNotBeginAnew(t *testing.T) {
	dir := t.TempDir()
	first, err := Until(dir, time.Hour, now)
	if err != nil || !first.Equal(now.Add(time.Hour)) {
		t.Fatalf("%v, %v", first, err)
	}
	for _, later := range []time.Duration{time.Minute, 2 * time.Hour, 100 * time.Hour} {
		if again, err := Until(dir, time.Hour, now.Add(later)); err != nil || !again.Equal(first) {
			t.Errorf("%s later it ends at %v, %v", later, again, err)
		}
	}
	if other, err := Until(dir, 2*time.Hour, now.Add(3*time.Hour)); err != nil || !other.Equal(now.Add(5*time.Hour)) {
		t.Errorf("another duration ends at %v, %v", other, err)
	}
}

func TestABatchThatIsHandedOverAgainIsNotedOnce(t *testing.T) {
	dir := t.TempDir()
	b := book(t, dir)
	again := func(number uint64, ok bool) {
		t.Helper()
		err := b.Take(&aggregate.Batch{Number: number, Activity: []aggregate.Summary{summary("h.example.com", "/bin/x", decide.LearnedRule, 3)}})
		if (err == nil) != ok {
			t.Fatal(err)
		}
	}
	again(1, true)
	again(1, true) // others failed on it
	b.dir = filepath.Join(dir, "gone")
	again(2, false)
	again(2, false) // it could not be kept
	b.dir = dir
	again(2, true)
	for name, b := range map[string]*Book{"": b, " after a restart": book(t, dir)} {
		if list := b.list(); len(list) != 1 || list[0].Count != 6 {
			t.Errorf("noted%s: %+v, want a count of 6", name, list[0])
		}
	}
}

func TestTheLearningTimeIsBounded(t *testing.T) {
	for asked, ok := range map[time.Duration]bool{0: true, time.Second: true, Longest: true, Longest + 1: false, -1: false} {
		until, err := Until(t.TempDir(), asked, now)
		if (err == nil) != ok || asked == 0 && !until.IsZero() {
			t.Errorf("%s: %v, %v", asked, until, err)
		}
	}
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, deadlineFile), []byte("{"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := Until(dir, time.Hour, now); err == nil {
		t.Error("an end that cannot be read is taken for none")
	}
	far := fmt.Sprintf(`{"asked":%d,"until":"2099-01-01T00:00:00Z"}`, time.Hour)
	if err := os.WriteFile(filepath.Join(dir, deadlineFile), []byte(far), 0o600); err != nil {
		t.Fatal(err)
	}
	if until, err := Until(dir, time.Hour, now); err != nil || !until.Equal(now.Add(time.Hour)) {
		t.Errorf("an end too far away is taken: %v, %v", until, err)
	}
}

func summary(host, binary, rule string, count uint64, samples ...aggregate.Sample) aggregate.Summary {
	return aggregate.Summary{Key: aggregate.Key{Host: host, Port: 443, Binary: binary}, Rule: rule, Count: count, Samples: samples}
}

func get(path string, n uint64) aggregate.Sample {
	return aggregate.Sample{Method: "GET", Path: path, Count: n}
}

func book(t *testing.T, dir string) *Book {
	t.Helper()
	b, err := OpenBook(dir)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func take(t *testing.T, b *Book, activity ...aggregate.Summary) {
	t.Helper()
	if err := b.Take(&aggregate.Batch{Activity: activity}); err != nil {
		t.Fatal(err)
	}
}

func TestTheExportCoversWhatWasSeenAndLittleMore(t *testing.T) {
	dir := t.TempDir()
	take(t, book(t, dir),
		summary("api.example.com", "/usr/bin/curl", decide.LearnedRule, 3, get("/users/42", 1), get("/users/43", 2)),
		summary("raw.example.com", "/usr/bin/nc", decide.LearnedRule, 2),
		summary("mixed.example.com", "/usr/bin/curl", decide.LearnedRule, 2, get("/a", 1)),
		summary("known.example.com", "/usr/bin/curl", "a rule", 9, get("/a", 9)),
		summary("x\ny: [", "/usr/bin/curl", decide.LearnedRule, 1),
	)
	b := book(t, dir) // what an earlier instance saw is there
	take(t, b, summary("api.example.com", "/usr/bin/curl", decide.LearnedRule, 1, get("/teams", 1)),
		summary("api.example.com", "/usr/bin/git", decide.LearnedRule, 1, get("/teams", 1)))
	out := string(b.Export())
	doc, _, err := policy.Parse("export", []byte(out))
	if err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	got := map[string]string{}
	for name, r := range doc.Network {
		text := r.Binaries[0].Path
		for _, m := range r.Endpoints[0].Allow {
			text += " " + m.Method + " " + m.Path
		}
		got[name] = text
		if e := r.Endpoints[0]; e.Protocol.Inspected() && !e.Enforce {
			t.Errorf("%s is not enforced", name)
		}
	}
	want := map[string]string{
		"allow_api_example_com_443":   "/usr/bin/curl GET /teams GET /users/*",
		"allow_api_example_com_443_2": "/usr/bin/git GET /teams",
		"allow_raw_example_com_443":   "/usr/bin/nc",
		"allow_mixed_example_com_443": "/usr/bin/curl",
	}
	if d := cmp.Diff(want, got); d != "" {
		t.Error(d)
	}
	if !strings.Contains(out, `# Left out, because no rule can name it: "x\ny: ["`) {
		t.Errorf("what is left out is not said:\n%s", out)
	}
	snap, err := decide.Compile(t.Context(), doc, decide.Options{Generation: 1})
	if err != nil || snap == nil {
		t.Errorf("the export does not decide: %v", err)
	}
}

func TestABookIsBounded(t *testing.T) {
	b := book(t, t.TempDir())
	var many []aggregate.Summary
	for i := range MaxSeen + 1 {
		many = append(many, summary(fmt.Sprintf("h%d.example.com", i), "/b", decide.LearnedRule, 1))
	}
	take(t, b, many...)
	if len(b.seen) != MaxSeen || !strings.Contains(string(b.Export()), "# 1 connections to further destinations") {
		t.Errorf("%d destinations, %d lost", len(b.seen), b.lost)
	}
	b = book(t, t.TempDir())
	for i := range MaxRequests + 1 {
		if e := b.seen[aggregate.Key{Host: "h.example.com", Port: 443, Binary: "/b"}]; e != nil && (e.Other || len(e.Requests) != i) {
			t.Fatalf("after %d: %+v", i, e)
		}
		take(t, b, summary("h.example.com", "/b", decide.LearnedRule, 1, get("/"+strings.Repeat("x", i+1), 1)))
	}
	if e := b.seen[aggregate.Key{Host: "h.example.com", Port: 443, Binary: "/b"}]; !e.Other || len(e.Requests) != MaxRequests {
		t.Errorf("%+v", e)
	}
}

func TestABookThatCannotBeReadIsAnError(t *testing.T) {
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, bookFile), []byte("["), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := OpenBook(dir); err == nil {
		t.Error("it is opened")
	}
}
