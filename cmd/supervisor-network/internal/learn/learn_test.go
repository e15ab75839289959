package learn

import (
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/splitpod/splitpod/cmd/supervisor-network/internal/aggregate"
	"github.com/splitpod/splitpod/cmd/supervisor-network/internal/decide"
	"github.com/splitpod/splitpod/pkg/core"
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

// TestWhatCouldNotBeKeptIsKeptLater, and counted once.
func TestWhatCouldNotBeKeptIsKeptLater(t *testing.T) {
	dir := t.TempDir()
	b := book(t, dir)
	keep := func(ok bool) {
		t.Helper()
		if err := b.Keep(); (err == nil) != ok {
			t.Fatal(err)
		}
	}
	b.Observe(learned("h.example.com", curl, "GET", "/a"))
	b.dir = filepath.Join(dir, "gone")
	keep(false)
	keep(false)
	b.Observe(learned("h.example.com", curl, "GET", "/b"))
	b.dir = dir
	keep(true)
	b.dir = filepath.Join(dir, "gone")
	keep(true) // there is nothing to keep
	for name, b := range map[string]*Book{"": b, " after a restart": book(t, dir)} {
		if list := b.list(); len(list) != 1 || list[0].Count != 2 || len(list[0].Requests) != 2 {
			t.Errorf("noted%s: %+v, want a count of 2", name, list)
		}
	}
}

// Somebody sets the clock back while the daemon is away: what is left is not more than
// what was asked for, and the next start goes on from there.
func TestAClockSetBackGivesNoMoreThanWasAsked(t *testing.T) {
	dir := t.TempDir()
	if _, err := Until(dir, time.Hour, now); err != nil {
		t.Fatal(err)
	}
	back := now.Add(-5 * time.Hour)
	for _, passed := range []time.Duration{0, time.Minute, 2 * time.Hour} {
		if until, err := Until(dir, time.Hour, back.Add(passed)); err != nil || !until.Equal(back.Add(time.Hour)) {
			t.Errorf("%s later it ends at %v, %v, want %v", passed, until, err, back.Add(time.Hour))
		}
	}
}

func TestTheEndIsKnownByBothClocks(t *testing.T) {
	dir := t.TempDir()
	for _, which := range []string{"the first start", "another one"} {
		if until, err := Until(dir, time.Hour, time.Now()); err != nil || until == until.Round(0) {
			t.Errorf("%s: %v, %v has no monotonic clock", which, until, err)
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

const curl = "/usr/bin/curl"

// learned is a connection or request that was let pass.
func learned(host, binary, method, path string) *core.Event {
	return &core.Event{Kind: core.EventConnection, Verdict: core.Allow, Reason: core.ReasonAllowed, Rule: decide.LearnedRule,
		Host: host, Port: 443, Program: core.Program{Path: binary}, Method: method, Path: path}
}

func raw(host, binary string) *core.Event {
	ev := learned(host, binary, "", "")
	ev.BytesUp = 1
	return ev
}

func socket(host, path string) *core.Event {
	ev := learned(host, curl, "GET", path)
	ev.Status = 101
	return ev
}

func book(t *testing.T, dir string) *Book {
	t.Helper()
	b, err := OpenBook(dir)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func observe(t *testing.T, b *Book, events ...*core.Event) {
	t.Helper()
	for _, ev := range events {
		b.Observe(ev)
	}
	if err := b.Keep(); err != nil {
		t.Fatal(err)
	}
}

// exported is each rule of an export in one line.
func exported(t *testing.T, b *Book) (lines []string, text string) {
	t.Helper()
	text = string(b.Export())
	doc, _, err := policy.Parse("export", []byte(text))
	if err != nil {
		t.Fatalf("%v\n%s", err, text)
	}
	if snap, err := decide.Compile(t.Context(), doc, decide.Options{Generation: 1}); err != nil || snap == nil {
		t.Errorf("the export does not decide: %v\n%s", err, text)
	}
	for _, name := range slices.Sorted(maps.Keys(doc.Network)) {
		r := doc.Network[name]
		line := fmt.Sprintf("%s %s", strings.TrimPrefix(name, "allow_"), r.Binaries[0].Path)
		for _, e := range r.Endpoints {
			line += fmt.Sprintf(" [%s", strings.TrimSpace(string(e.Protocol)+" "+e.PathScope))
			for _, m := range e.Allow {
				line += ", " + m.Method + " " + m.Path
			}
			if line += "]"; e.Protocol.Inspected() && !e.Enforce {
				t.Errorf("%s is not enforced", name)
			}
			if e.AllowEncodedSlash {
				line += "%2F"
			}
		}
		lines = append(lines, line)
	}
	return lines, text
}

func TestTheExportCoversWhatWasSeenAndLittleMore(t *testing.T) {
	dir := t.TempDir()
	other, refused, late := learned("known.example.com", curl, "GET", "/a"), learned("refused.example.com", curl, "GET", "/a"), learned("late.example.com", curl, "GET", "/a")
	other.Rule, refused.Verdict, late.Kind = "a rule", core.Deny, core.EventFinding
	observe(t, book(t, dir),
		learned("api.example.com", curl, "GET", "/users/42"), learned("api.example.com", curl, "GET", "/users/43"), learned("api.example.com", curl, "POST", "/users"),
		learned("idle.example.com", curl, "", ""), learned("api.example.com", curl, "", ""), // connections that carry nothing
		raw("raw.example.com", "/usr/bin/nc"), learned("mixed.example.com", curl, "GET", "/a"), raw("mixed.example.com", curl),
		learned("odd.example.com", curl, "GET", "/a//b/../c;x"), learned("odd.example.com", curl, "GET", "/../up"), learned("odd.example.com", curl, "get", "/"),
		learned("slash.example.com", curl, "GET", "/@scope%2fname"), learned("slash.example.com", "/usr/bin/npm", "GET", "/plain"),
		learned("x\ny: [", curl, "", ""), raw("x\ny: [", curl), raw("*.example.com", curl), raw("star.example.com", "/tmp/*"),
		other, refused, late,
	)
	b := book(t, dir) // what an earlier instance saw is there
	observe(t, b, learned("api.example.com", curl, "GET", "/teams"), learned("api.example.com", "/usr/bin/git", "GET", "/teams"))
	got, text := exported(t, b)
	want := []string{
		"api_example_com_443 /usr/bin/curl [rest, GET /teams, POST /users, GET /users/*]",
		"api_example_com_443_2 /usr/bin/git [rest, GET /teams]",
		"mixed_example_com_443 /usr/bin/curl []",
		"odd_example_com_443 /usr/bin/curl [rest, GET /a/c]",
		"raw_example_com_443 /usr/bin/nc []",
		"slash_example_com_443 /usr/bin/curl [rest, GET /@scope%2Fname]%2F",
		"slash_example_com_443_2 /usr/bin/npm [rest, GET /plain]%2F",
		`star_example_com_443 /tmp/\* []`,
	}
	if d := cmp.Diff(want, got); d != "" {
		t.Error(d)
	}
	for _, said := range []string{`no rule can name it: "x\ny: ["`, `no rule can name it: "*.example.com"`, `that a rule can name passed: "idle.example.com"`,
		"allow_odd_example_com_443: 2 requests", "allow_mixed_example_com_443: requests and other bytes"} {
		if !strings.Contains(text, said) {
			t.Errorf("it is not said: %s\n%s", said, text)
		}
	}
}

func TestWebSocketsAreLearnedWithTheirMessages(t *testing.T) {
	b := book(t, t.TempDir())
	observe(t, b, learned("a.example.com", curl, "GET", "/page"), socket("a.example.com", "/rooms/12345/ws"), socket("a.example.com", "/chat"),
		socket("only.example.com", "/ws"),
		// Of these the endpoint of the WebSocket would refuse what else was seen.
		socket("same.example.com", "/socket.io/"), learned("same.example.com", curl, "POST", "/socket.io/"),
		socket("meet.example.com", "/x/11111"), learned("meet.example.com", curl, "GET", "/x/name"))
	got, _ := exported(t, b)
	want := []string{
		"a_example_com_443 /usr/bin/curl [rest, GET /page] [websocket /chat, GET /chat, WEBSOCKET_TEXT /chat] [websocket /rooms/*/ws, GET /rooms/*/ws, WEBSOCKET_TEXT /rooms/*/ws]",
		"meet_example_com_443 /usr/bin/curl [rest, GET /x/*, GET /x/name]",
		"only_example_com_443 /usr/bin/curl [websocket /ws, GET /ws, WEBSOCKET_TEXT /ws]",
		"same_example_com_443 /usr/bin/curl [rest, GET /socket.io/, POST /socket.io/]",
	}
	if d := cmp.Diff(want, got); d != "" {
		t.Error(d)
	}
}

func TestABookIsBounded(t *testing.T) {
	b := book(t, t.TempDir())
	for i := range MaxSeen + 1 {
		b.Observe(raw(fmt.Sprintf("h%d.example.com", i), "/b"))
	}
	if len(b.seen) != MaxSeen || !strings.Contains(string(b.Export()), "# 1 connections to further destinations") {
		t.Errorf("%d destinations, %d lost", len(b.seen), b.lost)
	}

	b = book(t, t.TempDir())
	at := func() *seen { return b.seen[aggregate.Key{Host: "h.example.com", Port: 443, Binary: curl}] }
	for i := range MaxRequests {
		b.Observe(learned("h.example.com", curl, "GET", "/"+strings.Repeat("x", i+1)))
	}
	if e := at(); e.Wide || len(e.Requests) != MaxRequests {
		t.Fatalf("at the limit: %+v", e)
	}
	b.Observe(learned("h.example.com", curl, "GET", "/more"))
	if got, text := exported(t, b); got[0] != "h_example_com_443 /usr/bin/curl [rest, GET **]" || !strings.Contains(text, "too many different requests") {
		t.Errorf("beyond the limit: %q\n%s", got, text)
	}
	for i := range MaxMethods + 1 {
		b.Observe(learned("h.example.com", curl, "M"+strings.Repeat("X", i), "/"))
		if e := at(); len(e.Requests) != min(i+2, MaxMethods) || e.Unnamed != uint64(max(i+2-MaxMethods, 0)) {
			t.Errorf("after %d methods: %d rules, %d without one", i+1, len(e.Requests), e.Unnamed)
		}
	}

	b = book(t, t.TempDir())
	for i := range MaxSeen {
		for j := range 12 {
			b.Observe(learned(fmt.Sprintf("h%d.example.com", i), curl, "GET", fmt.Sprintf("/p%c", 'a'+j)))
		}
	}
	if b.rules > MaxAll+MaxSeen {
		t.Errorf("%d rules in all", b.rules)
	}
}

func TestALongPathIsLearnedByItsBeginning(t *testing.T) {
	b := book(t, t.TempDir())
	fits := "/dir/" + strings.Repeat("-", maxPath-5)
	observe(t, b, learned("a.example.com", curl, "GET", fits), learned("b.example.com", curl, "GET", fits+"-"))
	got, _ := exported(t, b)
	want := []string{"a_example_com_443 /usr/bin/curl [rest, GET " + fits + "]", "b_example_com_443 /usr/bin/curl [rest, GET /dir/**]"}
	if d := cmp.Diff(want, got); d != "" {
		t.Error(d)
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
