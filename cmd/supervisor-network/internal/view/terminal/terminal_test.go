package terminal_test

import (
	"errors"
	"regexp"
	"strings"
	"testing"
	"time"
	"unicode/utf8"

	"github.com/splitpod/splitpod/cmd/supervisor-network/internal/view"
	"github.com/splitpod/splitpod/cmd/supervisor-network/internal/view/terminal"
)

func snapshot() *view.Snapshot {
	at := time.Date(2026, 11, 25, 18, 0, 0, 0, time.UTC)
	return &view.Snapshot{
		Time: at, Since: at,
		State: view.State{Build: "supervisor-network 0.1.0", Ready: true, Policy: view.Policy{Generation: 7}, Connections: 5, Live: 3, Tunnels: 2,
			Peer: &view.Peer{Attached: true, Workload: "running"}},
		Totals: view.Totals{Allowed: 120, Failed: 2, Denied: 30, Bypassed: 4},
		Rates:  view.Rates{Allowed: 12, Denied: 0.5},
		Denied: view.Top{Total: 30, Others: 6, Rows: []view.Row{
			{Host: "evil.example.com", Port: 443, Reason: "policy_denied", Program: "/usr/bin/curl", Count: 20}, {Host: "fd00::1", Port: 80, Reason: "ssrf_denied", Count: 4}}},
		Destinations: view.Top{Total: 122, Rows: []view.Row{{Host: "api.example.com", Port: 443, Count: 122, Failed: 2, Sent: 10, Received: 20}}},
	}
}

func TestALineSaysWhatHappens(t *testing.T) {
	const want = "2026-11-25T18:00:00Z ready, policy generation 7, process daemon attached, workload running; " +
		"allowed 120 (12.0/s), failed 2 (0.0/s), denied 30 (0.5/s), bypassed 4 (0.0/s); connections 5, under way 3, tunnels 2; " +
		"most refused: evil.example.com:443  policy_denied  /usr/bin/curl, 20 times; most used: api.example.com:443, 122 times"
	if got := terminal.Line(snapshot()); got != want {
		t.Errorf("%s\nwant\n%s", got, want)
	}
}

func TestStatesAreTold(t *testing.T) {
	for want, change := range map[string]func(*view.Snapshot){
		"not ready, policy generation 7 in quarantine": func(s *view.Snapshot) { s.Ready, s.Policy.Quarantine = false, true },
		"without a process daemon":                     func(s *view.Snapshot) { s.Peer = nil },
		"no process daemon attached":                   func(s *view.Snapshot) { s.Peer.Attached = false },
		"LEARNING":                                     func(s *view.Snapshot) { s.Learning = true },
		"3 records dropped":                            func(s *view.Snapshot) { s.Dropped = 3 },
	} {
		s := snapshot()
		change(s)
		if line, screen := terminal.Line(s), terminal.Screen(s, 120, 40); !strings.Contains(line, want) || !strings.Contains(screen, want) {
			t.Errorf("%q is not in\n%s\n%s", want, line, screen)
		}
	}
}

// sequences are those that this package writes.
var sequences = regexp.MustCompile("\x1b\\[(H|K|J|0m|1m|1;31m)")

// text is a screen as it is read.
func text(t *testing.T, screen string) []string {
	t.Helper()
	screen = sequences.ReplaceAllString(screen, "")
	if i := strings.IndexFunc(screen, func(r rune) bool { return r < ' ' && r != '\n' || r >= 0x7f && r < 0xa0 }); i >= 0 {
		t.Fatalf("a terminal obeys %q", screen[i:])
	}
	return strings.Split(screen, "\n")
}

func TestAScreenFits(t *testing.T) {
	s := snapshot()
	for range 18 {
		s.Denied.Rows = append(s.Denied.Rows, s.Denied.Rows[0])
	}
	s.Proposals = &view.Proposals{Others: 9}
	s.Checks = []view.Check{{Name: "ca", OK: true}, {Name: "policy", Detail: "none"}}
	for _, size := range [][2]int{{80, 24}, {200, 60}, {20, 10}, {1, 1}, {0, 0}} {
		lines := text(t, terminal.Screen(s, size[0], size[1]))
		if len(lines) > max(size[1], 1) {
			t.Errorf("%v: %d lines", size, len(lines))
		}
		for _, l := range lines {
			if n := utf8.RuneCountInString(l); size[0] > 0 && n > size[0] {
				t.Errorf("%v: %d columns: %q", size, n, l)
			}
		}
	}
	all := strings.Join(text(t, terminal.Screen(s, 200, 60)), "\n")
	for _, want := range []string{"allowed            12.0          120", "      20  evil.example.com:443  policy_denied  /usr/bin/curl", "       4  [fd00::1]:80  ssrf_denied  -",
		"       6  others", "     122  api.example.com:443", "9  proposals wait", "FAILED policy: none"} {
		if !strings.Contains(all, want) {
			t.Errorf("%q is not in\n%s", want, all)
		}
	}
	if strings.Contains(all, "FAILED ca") {
		t.Error("a check that holds is told as failed")
	}
}

// TestRowsThatDoNotFitAreOthers: what a small screen leaves out still adds up.
func TestRowsThatDoNotFitAreOthers(t *testing.T) {
	s := snapshot()
	all := strings.Join(text(t, terminal.Screen(s, 100, 19)), "\n")
	if !strings.Contains(all, "      10  others") || strings.Contains(all, "fd00::1") {
		t.Errorf("%s", all)
	}
}

// TestNothingThatIsShownDrivesATerminal trusts the daemon no more than the workload.
func TestNothingThatIsShownDrivesATerminal(t *testing.T) {
	const evil = "\x1b[2J\x1b]0;x\x07\r\n\u009b31m\x7f"
	s := snapshot()
	s.Build, s.Peer.Workload = evil, evil
	s.Checks = []view.Check{{Name: evil, Detail: evil}}
	s.Denied.Rows[0] = view.Row{Host: evil, Reason: evil, Program: evil}
	s.Destinations.Rows[0] = view.Row{Host: evil}
	text(t, terminal.Screen(s, 500, 50))
	text(t, terminal.Trouble(errors.New(evil), 500))
	if line := terminal.Line(s); strings.ContainsAny(line, "\x1b\r\n\x07\x7f") || strings.Contains(line, "\u009b") {
		t.Errorf("%q", line)
	}
	if _, screen, ok := strings.Cut(terminal.Screen(s, 500, 50), `\u{1b}`); !ok || !strings.HasPrefix(screen, "[2J") {
		t.Error("what was meant to drive is not shown")
	}
}

// TestWhatIsUnderWayIsListed: as much as there is room for, and the rest adds up.
func TestWhatIsUnderWayIsListed(t *testing.T) {
	s := snapshot()
	for i := range 9 {
		s.Active.Rows = append(s.Active.Rows, view.ActiveRow{Host: "db.example.com", Port: uint16(5432 + i), Program: "/usr/bin/psql", Count: 9 - uint64(i), Since: s.Time})
	}
	s.Active.Others = 100
	lines := text(t, terminal.Screen(s, 100, 24))
	all := strings.Join(lines, "\n")
	if len(lines) > 24 || !strings.Contains(all, "       9  db.example.com:5432  /usr/bin/psql  since 18:00:00") || !strings.Contains(all, "     121  others") {
		t.Errorf("%d lines\n%s", len(lines), all)
	}
	s.Active.Rows[0].Host, s.Active.Rows[0].Program = "\x1b[2J", "\x1b[2J"
	text(t, terminal.Screen(s, 100, 24))
}
