package policylocal

import (
	"fmt"
	"strings"
	"time"

	"github.com/splitpod/splitpod/cmd/supervisor-network/internal/approve"
	"github.com/splitpod/splitpod/pkg/core"
)

// denial is one denial for a program; the line beside it is for people.
type denial struct {
	Time      string         `json:"time"`
	RequestID core.RequestID `json:"request_id,omitempty"`
	Stage     core.Stage     `json:"stage"`
	Reason    core.Reason    `json:"reason"`
	Detail    string         `json:"detail"`
	Host      string         `json:"host,omitempty"`
	Port      uint16         `json:"port,omitempty"`
	Binary    string         `json:"binary,omitempty"`
	Method    string         `json:"method,omitempty"`
	Path      string         `json:"path,omitempty"`
}

func (s *Server) denials(last string) Answer {
	n, err := number(last, 10, 1, maxLast)
	if err != nil {
		return fail(400, "bad_request", "last is a number of denials, 1 to %d", maxLast)
	}
	lines, details := []string{}, []denial{}
	for _, ev := range s.opt.Denials.Last(n) {
		lines = append(lines, line(&ev))
		details = append(details, denial{
			Time: stamp(ev.Time), RequestID: ev.RequestID, Stage: ev.Stage, Reason: ev.Reason, Detail: approve.OneLine(ev.Detail, core.MaxDetailBytes),
			Host: ev.Host, Port: ev.Port, Binary: ev.Program.Path, Method: ev.Method, Path: ev.Path,
		})
	}
	body := map[string]any{"denials": lines, "details": details, "log_available": true}
	if len(lines) == 0 {
		body["note"] = "nothing was refused since the network daemon started"
	}
	return Answer{200, body}
}

func stamp(t time.Time) string { return t.UTC().Format("2006-01-02T15:04:05.000Z") }

// engines are the words for what refused, as the log of OpenShell has them.
func engine(ev *core.Event) string {
	switch {
	case ev.Reason == core.ReasonSSRFDenied || ev.Stage == core.StageSSRF:
		return "ssrf"
	case ev.Stage == core.StageRequest:
		return "l7"
	case ev.Stage == core.StageTLS:
		return "tls"
	case ev.Stage == core.StageBypass:
		return "nftables"
	default:
		return "opa"
	}
}

var severities = [...]string{"INFO", "INFO", "LOW", "MED", "HIGH", "CRIT"}

// line is a denial on one line, in the shape of OpenShell's log.
func line(ev *core.Event) string {
	word := func(s string) string { return strings.ReplaceAll(approve.OneLine(s, core.MaxFieldBytes), " ", "%20") }
	rule := "-"
	if ev.Rule != "" {
		rule = word(ev.Rule)
	}
	activity, what := "NET:OPEN", fmt.Sprintf("%s:%d", word(ev.Host), ev.Port)
	if ev.Method != "" {
		scheme := "http"
		if ev.Port == 443 {
			scheme = "https"
		}
		activity, what = "HTTP:"+word(ev.Method), fmt.Sprintf("%s %s://%s:%d%s", word(ev.Method), scheme, word(ev.Host), ev.Port, word(ev.Path))
	}
	who := "-"
	if ev.Program.Path != "" {
		who = fmt.Sprintf("%s(%d)", word(ev.Program.Path), ev.Process.PID)
	}
	return fmt.Sprintf("%s OCSF %s [%s] DENIED %s -> %s [policy:%s engine:%s] [reason:%s]", stamp(ev.Time), activity,
		severities[min(int(ev.Severity), len(severities)-1)], who, what, rule, engine(ev), approve.OneLine(string(ev.Reason)+": "+ev.Detail, core.MaxDetailBytes))
}
