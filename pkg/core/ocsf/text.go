package ocsf

import (
	"strconv"
	"unicode/utf8"

	"github.com/splitpod/splitpod/pkg/core"
)

// maxReason is how many bytes of a detail stand in a line.
const maxReason = 256

// severityTags are the severities as lines have them.
var severityTags = [...]string{" [INFO]", " [INFO]", " [LOW]", " [MED]", " [HIGH]", " [CRIT]"}

// AppendText appends the event as one line for people, newline included: time, the
// word OCSF, class and activity, severity, and what there is to say. Fields are kept
// apart by what no field can contain as it is: blanks, brackets and backslashes in
// data are escaped.
func (x *Encoder) AppendText(b []byte, e *core.Event) []byte {
	s := shapeOf(e)
	b = e.Time.UTC().AppendFormat(b, "2006-01-02T15:04:05.000Z")
	b = append(b, " OCSF "...)
	switch s.class {
	case httpClass:
		b = word(append(b, "HTTP:"...), e.Method)
	case apiClass, modelClass:
		b = append(append(b, "API:"...), apiOf(e)...)
	case baseClass:
		b = append(b, baseClass.prefix...)
	case configClass:
		_, state := stateOf(e.Reason)
		b = upper(append(b, "CONFIG:"...), state)
	default:
		b = append(b, s.line...)
	}
	b = append(b, severityTags[min(int(e.Severity), len(severityTags)-1)]...)
	switch s.class {
	case networkClass, httpClass:
		b = lineTraffic(b, e, s)
	case processClass:
		b = lineProcess(b, e)
	case sshClass:
		b = lineSSH(b, e, s)
	case findingClass:
		b = lineFinding(b, e)
	case apiClass:
		b = lineCall(b, e)
	case modelClass:
		b = lineModel(b, e)
	case configClass, baseClass:
		b = lineReason(append(word(append(b, ' '), string(e.Reason)), ' '), "detail", e.Detail)
	default:
		b = word(append(b, ' '), x.name)
		b = lineReason(append(word(append(b, ' '), string(e.Reason)), ' '), "detail", e.Detail)
	}
	return append(lineTail(b, e), '\n')
}

func lineTraffic(b []byte, e *core.Event, s *shape) []byte {
	if e.Verdict == core.Allow {
		b = append(b, " ALLOWED "...)
	} else {
		b = append(b, " DENIED "...)
	}
	if e.Program.Path != "" {
		b = append(appendProgram(b, e), " -> "...)
	}
	if s.class == httpClass {
		b = append(word(b, e.Method), " http://"...)
	}
	b = lineHost(b, e.Host)
	if e.Host != "" && !(s.class == httpClass && e.Port == 80) {
		b = number(b, ":", uint64(e.Port))
	}
	if s.class == httpClass {
		b = word(b, e.Path)
	} else if e.Protocol != "" && e.Protocol != "tcp" {
		b = word(append(b, '/'), e.Protocol)
	}
	if b[len(b)-1] == ' ' {
		b = b[:len(b)-1] // there was nothing to name
	}
	b = word(append(b, " [policy:"...), ruleOf(e))
	b = append(append(append(b, " engine:"...), engineOf(e)...), "] "...)
	if e.Verdict == core.Allow && e.Reason == core.ReasonAllowed {
		return b[:len(b)-1]
	}
	if e.Detail == "" {
		return lineReason(b, "reason", string(e.Reason))
	}
	return lineReason(b, "reason", e.Detail)
}

// lineHost appends a host; an IPv6 address in brackets of its own.
func lineHost(b []byte, host string) []byte {
	if host != "" && isAddress(host) {
		for i := range len(host) {
			if host[i] == ':' {
				return append(word(append(b, '['), host), ']')
			}
		}
	}
	return word(b, host)
}

func appendProgram(b []byte, e *core.Event) []byte {
	name := e.Program.Path
	if name == "" {
		name = "unknown"
	}
	return append(signed(word(b, name), "(", int64(e.Process.PID)), ')')
}

func lineProcess(b []byte, e *core.Event) []byte {
	b = appendProgram(append(b, ' '), e)
	if e.Reason == core.EventExited {
		b = append(signed(b, " [exit:", int64(e.ExitCode)), ']')
	}
	return lineReason(append(b, ' '), "detail", e.Detail)
}

func lineSSH(b []byte, e *core.Event, s *shape) []byte {
	switch s {
	case sshOpen:
		b = append(b, " ALLOWED"...)
	case sshRefuse:
		b = append(b, " DENIED"...)
	}
	return lineReason(append(b, ' '), "detail", e.Detail)
}

// apiOf is which API was called: the workload's, the operator's, one that gives this
// daemon tokens, or a model's.
func apiOf(e *core.Event) string {
	switch {
	case e.Kind == core.EventConnection:
		return "ADVISOR"
	case e.Kind == core.EventInference:
		return "INFERENCE"
	case e.Reason == core.EventTokenGranted:
		return "TOKEN"
	default:
		return "ADMIN"
	}
}

func lineCall(b []byte, e *core.Event) []byte {
	if e.Kind == core.EventConnection {
		b = append(b, " ALLOWED"...)
	}
	b = lineWell(b, e)
	if e.Program.Path != "" {
		b = append(appendProgram(b, e), " -> "...)
	}
	if b = lineHost(b, e.Host); e.Host != "" {
		b = append(number(b, ":", uint64(e.Port)), ' ')
	}
	return lineOperation(b, e)
}

func lineModel(b []byte, e *core.Event) []byte {
	b = lineWell(b, e)
	if model := visible(e.Model); model != "" {
		b = append(word(b, model), ' ')
	}
	if provider := visible(e.Provider); provider != "" {
		b = append(word(append(b, "via "...), provider), ' ')
	}
	if ms := e.Duration.Milliseconds(); ms != 0 {
		b = append(signed(b, "", ms), "ms "...)
	}
	return lineOperation(b, e)
}

func lineWell(b []byte, e *core.Event) []byte {
	if apiWell(e) {
		return append(b, " Success "...)
	}
	return append(b, " Failure "...)
}

// lineOperation appends what an API was asked for, and what is to be said about it.
func lineOperation(b []byte, e *core.Event) []byte {
	b = append(b, '[')
	if e.Method != "" {
		b = append(word(b, e.Method), ' ')
	}
	b = append(word(b, e.Path), "] "...)
	if uneventful(e.Reason) {
		return b[:len(b)-1]
	}
	return lineReason(append(word(b, string(e.Reason)), ' '), "detail", e.Detail)
}

func lineFinding(b []byte, e *core.Event) []byte {
	b = append(b, ` "`...)
	at := len(b)
	b = word(b, string(e.Reason))
	for i, c := range b[at:] {
		if c == '_' {
			b[at+i] = ' '
		}
	}
	b = word(append(b, `" [type:`...), string(e.Reason))
	return lineReason(append(b, " confidence:High] "...), "detail", e.Detail)
}

// lineReason appends free text in brackets, cut; with none, it takes back the blank
// before it.
func lineReason(b []byte, name, text string) []byte {
	if text == "" {
		return b[:len(b)-1]
	}
	cut := len(text) > maxReason
	if cut {
		end := maxReason
		for end > 0 && !utf8.RuneStart(text[end]) {
			end--
		}
		text = text[:end]
	}
	b = append(append(append(b, '['), name...), ':')
	b = prose(b, text)
	if cut {
		b = append(b, "..."...)
	}
	return append(b, ']')
}

func lineTail(b []byte, e *core.Event) []byte {
	start := len(b)
	b = append(b, " ["...)
	if e.Status != 0 {
		b = append(signed(b, "status:", int64(e.Status)), ' ')
	}
	if e.Count > 1 {
		b = append(number(b, "count:", e.Count), ' ')
	}
	if e.RequestID != "" {
		b = append(word(append(b, "request:"...), string(e.RequestID)), ' ')
	}
	if len(b) == start+2 {
		return b[:start]
	}
	b[len(b)-1] = ']'
	return b
}

// word appends data in which nothing ends a field.
func word(b []byte, s string) []byte {
	for _, r := range s {
		if r <= ' ' || r == '[' || r == ']' || r == '"' || r == '\\' || hiddenHere(r) {
			b = codePoint(b, r)
			continue
		}
		b = utf8.AppendRune(b, r)
	}
	return b
}

// prose is word for text with blanks; a newline is one.
func prose(b []byte, s string) []byte {
	for _, r := range s {
		switch {
		case r == '\n' || r == '\r':
			b = append(b, ' ')
		case r == '[' || r == ']' || r == '\\':
			b = append(b, '\\', byte(r))
		case r < ' ' || hiddenHere(r):
			b = codePoint(b, r)
		default:
			b = utf8.AppendRune(b, r)
		}
	}
	return b
}

func hiddenHere(r rune) bool { return r == 0x7f || r == 0x85 || r == 0xa0 || hidden(r) }

func codePoint(b []byte, r rune) []byte {
	return append(strconv.AppendInt(append(b, `\u{`...), int64(r), 16), '}')
}
