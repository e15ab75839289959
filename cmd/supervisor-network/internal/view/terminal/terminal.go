// Package terminal draws the live view as text: a screen for terminals, one line for
// everything else.
//
// It answers the threat of a name that drives the terminal it is shown on: what was
// read is made visible again here, whatever the other side promised, and only this
// package writes sequences that a terminal obeys.
package terminal

import (
	"fmt"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/splitpod/splitpod/cmd/supervisor-network/internal/view"
)

// What a terminal obeys (ECMA-48, and xterm's alternate screen).
const (
	Enter = "\x1b[?1049h\x1b[?25l" // another screen, without a cursor
	Leave = "\x1b[?25h\x1b[?1049l" // back, with one
	home  = "\x1b[H"
	bold  = "\x1b[1m"
	bad   = "\x1b[1;31m"
	plain = "\x1b[0m"
	wipe  = "\x1b[K" // to the end of the line
	below = "\x1b[J" // to the end of the screen
)

// Screen is a whole screen of at most height lines of width columns.
func Screen(s *view.Snapshot, width, height int) string {
	var lines []string
	add := func(style, format string, args ...any) {
		lines = append(lines, styled(style, fit(fmt.Sprintf(format, args...), width)))
	}
	add(bold, "%s   %s", s.Build, s.Time.Format(time.TimeOnly))
	style := ""
	if !s.Ready || s.Learning {
		style = bad
	}
	add(style, "%s", state(s))
	for _, c := range s.Checks {
		if !c.OK {
			add(bad, "FAILED %s: %s", c.Name, c.Detail)
		}
	}
	add("", "")
	add(bold, "%-12s %10s %12s", "", "a second", "in all")
	add("", "%-12s %10.1f %12d", "allowed", s.Rates.Allowed, s.Totals.Allowed)
	add("", "%-12s %10.1f %12d", "failed", s.Rates.Failed, s.Totals.Failed)
	add("", "%-12s %10.1f %12d", "denied", s.Rates.Denied, s.Totals.Denied)
	add("", "%-12s %10.1f %12d", "bypassed", s.Rates.Bypassed, s.Totals.Bypassed)
	add("", "%s", now(s))
	active(add, &s.Active, max((height-len(lines))/4, 1))
	rest := height - len(lines) - 7 // two headings, a line above each, others, proposals
	add("", "")
	add(bold, "%8s  refused in the last hour", "")
	for _, r := range s.Denied.Rows[:min(len(s.Denied.Rows), max(rest/2, 1))] {
		add("", "%8d  %s", r.Count, refusal(&r))
	}
	others(add, &s.Denied, max(rest/2, 1))
	add("", "")
	add(bold, "%8s  destinations in the last hour", "")
	for _, r := range s.Destinations.Rows[:min(len(s.Destinations.Rows), max(rest/2, 1))] {
		add("", "%8d  %s  sent %d, received %d bytes, %d failed", r.Count, place(&r), r.Sent, r.Received, r.Failed)
	}
	others(add, &s.Destinations, max(rest/2, 1))
	if p := s.Proposals; p != nil {
		add("", "%8d  proposals wait for a decision", len(p.Pending)+p.Others)
	}
	return join(lines[:min(len(lines), max(height, 1))])
}

// others says what is not listed: neither here nor by the daemon.
func others(add func(string, string, ...any), t *view.Top, most int) {
	n := t.Others
	for _, r := range t.Rows[min(len(t.Rows), most):] {
		n += r.Count
	}
	if n > 0 {
		add("", "%8d  others", n)
	}
}

// Trouble is the screen when nothing was answered.
func Trouble(err error, width int) string {
	return join([]string{styled(bad, fit("no answer: "+err.Error(), width)), fit("trying again every second", width)})
}

// join puts lines on the screen.
func join(lines []string) string {
	return home + strings.Join(lines, wipe+"\n") + wipe + below
}

func styled(style, text string) string {
	if style == "" {
		return text
	}
	return style + text + plain
}

// fit makes text visible, on one line of width columns.
func fit(text string, width int) string {
	text = view.Visible(text)
	if width <= 0 || utf8.RuneCountInString(text) <= width {
		return text
	}
	runes := []rune(text)
	return string(runes[:width-1]) + "…"
}

// Line is a summary on one line, for logs and pipes.
func Line(s *view.Snapshot) string {
	var b strings.Builder
	fmt.Fprintf(&b, "%s %s; allowed %d (%.1f/s), failed %d (%.1f/s), denied %d (%.1f/s), bypassed %d (%.1f/s); %s",
		s.Time.Format(time.RFC3339), state(s), s.Totals.Allowed, s.Rates.Allowed, s.Totals.Failed, s.Rates.Failed,
		s.Totals.Denied, s.Rates.Denied, s.Totals.Bypassed, s.Rates.Bypassed, now(s))
	if len(s.Denied.Rows) > 0 {
		fmt.Fprintf(&b, "; most refused: %s, %d times", refusal(&s.Denied.Rows[0]), s.Denied.Rows[0].Count)
	}
	if len(s.Destinations.Rows) > 0 {
		fmt.Fprintf(&b, "; most used: %s, %d times", place(&s.Destinations.Rows[0]), s.Destinations.Rows[0].Count)
	}
	return view.Visible(b.String())
}

func state(s *view.Snapshot) string {
	out := "ready"
	if !s.Ready {
		out = "not ready"
	}
	out += fmt.Sprintf(", policy generation %d", s.Policy.Generation)
	if s.Policy.Quarantine {
		out += " in quarantine"
	}
	switch {
	case s.Peer == nil:
		out += ", without a process daemon"
	case s.Peer.Attached:
		out += ", process daemon attached, workload " + s.Peer.Workload
	default:
		out += ", no process daemon attached"
	}
	if s.Learning {
		out += ", LEARNING: public destinations are allowed"
	}
	if s.Dropped > 0 {
		out += fmt.Sprintf(", %d records dropped", s.Dropped)
	}
	return out
}

func now(s *view.Snapshot) string {
	return fmt.Sprintf("connections %d, under way %d, tunnels %d", s.Connections, s.Live, s.Tunnels)
}

func place(r *view.Row) string {
	switch {
	case r.Host == "":
		return "-"
	case strings.Contains(r.Host, ":"):
		return fmt.Sprintf("[%s]:%d", r.Host, r.Port)
	default:
		return fmt.Sprintf("%s:%d", r.Host, r.Port)
	}
}

func refusal(r *view.Row) string {
	return fmt.Sprintf("%s  %s  %s", place(r), r.Reason, program(r.Program))
}

func program(path string) string {
	if path == "" {
		return "-"
	}
	return path
}

// active lists what is under way, if anything is, in so many lines.
func active(add func(string, string, ...any), a *view.Active, most int) {
	if len(a.Rows) == 0 {
		return
	}
	add("", "")
	add(bold, "%8s  under way", "")
	others := a.Others
	for i, r := range a.Rows {
		if i >= most {
			others += r.Count
			continue
		}
		add("", "%8d  %s  %s  since %s", r.Count, place(&view.Row{Host: r.Host, Port: r.Port}), program(r.Program), r.Since.Format(time.TimeOnly))
	}
	if others > 0 {
		add("", "%8d  others", others)
	}
}
