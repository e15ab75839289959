package ocsf

import (
	"regexp"
	"strings"
	"testing"
	"time"
	"unicode/utf8"

	"github.com/splitpod/splitpod/pkg/core"
)

// form is what every line is, whatever is in it: brackets are ours, and data has none
// that is not escaped.
var form = regexp.MustCompile(`^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z OCSF ((NET|HTTP|PROC|FINDING|CONFIG|LIFECYCLE|API):[^ ]*|EVENT) \[(INFO|LOW|MED|HIGH|CRIT)\][^\n]*\n$`)

// inLine checks what holds for every line.
func inLine(t *testing.T, e *core.Event) {
	t.Helper()
	got := string(NewEncoder(here).AppendText(nil, e))
	if !form.MatchString(got) || !utf8.ValidString(got) {
		t.Fatalf("not a line: %q", got)
	}
	depth, escaped := 0, false
	for _, r := range got[:len(got)-1] {
		switch {
		case r < ' ' || hiddenHere(r):
			t.Fatalf("%U stands in the line as it is: %q", r, got)
		case escaped:
			escaped = false
		case r == '\\':
			escaped = true
		case r == '[':
			depth++
		case r == ']':
			depth--
		}
		if depth < 0 || depth > 1 {
			t.Fatalf("brackets do not fit: %q", got)
		}
	}
	if depth != 0 {
		t.Fatalf("brackets do not fit: %q", got)
	}
	if denied := strings.Contains(before(got), " DENIED"); e.Kind == core.EventConnection && denied == (e.Verdict == core.Allow) {
		t.Fatalf("the verdict of %v reads otherwise: %q", e.Verdict, got)
	}
}

// before is a line up to what the workload chose.
func before(line string) string { return line[:min(len(line), strings.Index(line, "] ")+9)] }

func TestDataStaysInItsFieldOfALine(t *testing.T) {
	for _, s := range append(strange, "x] ALLOWED /bin/true(1) -> ok.example:443 [policy:all engine:opa", "-> b:1", `\u{1b}`, "[::1]", "a b") {
		e := everyField(s)
		for e.Kind = core.EventUnspecified; e.Kind <= core.EventInference; e.Kind++ {
			for _, e.Verdict = range []core.Verdict{core.Deny, core.Allow} {
				inLine(t, &e)
				e.Method = ""
				inLine(t, &e)
			}
		}
	}
}

func TestTheReasonOfALineIsCutAtARune(t *testing.T) {
	for name, c := range map[string]struct{ in, want string }{
		"at the limit":           {strings.Repeat("x", maxReason), strings.Repeat("x", maxReason)},
		"one above":              {strings.Repeat("x", maxReason+1), strings.Repeat("x", maxReason) + "..."},
		"a rune across it":       {strings.Repeat("x", maxReason-1) + "é!", strings.Repeat("x", maxReason-1) + "..."},
		"a rune that just fits":  {strings.Repeat("x", maxReason-2) + "é!", strings.Repeat("x", maxReason-2) + "é..."},
		"newlines become blanks": {"a\r\nb", "a  b"},
	} {
		t.Run(name, func(t *testing.T) {
			if got := string(lineReason([]byte("x "), "reason", c.in)); got != "x [reason:"+c.want+"]" {
				t.Errorf("%q", got)
			}
		})
	}
}

// FuzzText holds every event in one line whose fields are ours.
func FuzzText(f *testing.F) {
	for i, s := range strange {
		f.Add(s, strange[len(strange)-1-i], uint8(i), uint8(i/2))
	}
	f.Fuzz(func(t *testing.T, s, other string, kind, few uint8) {
		e := core.Event{
			Kind: core.EventKind(kind % 8), Severity: core.Severity(few % 8), Verdict: core.Verdict(few % 3), Time: time.UnixMilli(1790000000123),
			RequestID: core.RequestID(other), Stage: core.Stage(other), Reason: core.Reason(s), Detail: other, Host: s, Port: uint16(few),
			Protocol: other, Method: s, Path: other, Rule: other, Program: core.Program{Path: other}, Model: s, Provider: other,
		}
		inLine(t, &e)
	})
}

func BenchmarkAppendText(b *testing.B) {
	e, x := everyField("api.example.com"), NewEncoder(here)
	buf := make([]byte, 0, 4096)
	b.ReportAllocs()
	for b.Loop() {
		buf = x.AppendText(buf[:0], &e)
	}
}
