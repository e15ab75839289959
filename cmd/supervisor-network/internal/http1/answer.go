package http1

import (
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"strings"
	"time"

	"github.com/splitpod/splitpod/pkg/core"
)

// ErrorBody is what a refused client reads.
type ErrorBody struct {
	Error     core.Reason `json:"error"`
	Detail    string      `json:"detail"`
	Message   string      `json:"message,omitempty"`
	Reason    string      `json:"reason,omitempty"`
	Rule      string      `json:"rule,omitempty"`
	Guidance  string      `json:"agent_guidance,omitempty"`
	RequestID string      `json:"request_id,omitempty"`
}

// Answer writes one complete refusal: a status, a JSON body of exact length, and
// the end of the connection. The answer to a HEAD request describes its body only;
// method is empty when no request was understood. Fields are added to the head. Of the
// answer to CONNECT most clients show nothing but the status line, so that says why, too.
func Answer(w io.Writer, method string, status int, id core.RequestID, body any, fields ...Field) error {
	text, err := json.Marshal(body)
	if err != nil {
		return err
	}
	phrase := http.StatusText(status)
	if e, ok := body.(ErrorBody); ok && method == http.MethodConnect {
		phrase += " (" + string(e.Error) + ": " + clip(e.Detail) + ", request " + string(id) + ")"
		if e.Guidance != "" {
			phrase += " " + e.Guidance
		}
	}
	b := fmt.Appendf(nil, "HTTP/1.1 %d %s\r\nContent-Type: application/json\r\nContent-Length: %d\r\nConnection: close\r\nX-Splitpod-Request-Id: %s\r\n",
		status, phrase, len(text), id)
	for i := range fields {
		b = appendField(b, &fields[i])
	}
	b = append(b, "\r\n"...)
	if method != "HEAD" {
		b = append(b, text...)
	}
	_, err = w.Write(b)
	return err
}

// clip makes a text fit for a status line: what is neither ASCII nor printable has no
// business there, and clients take a line of some kilobytes at most.
func clip(text string) string {
	return strings.Map(func(c rune) rune {
		if c < ' ' || c > '~' {
			return '?'
		}
		return c
	}, text[:min(len(text), 512)])
}

// Limits of Linger.
const (
	lingerQuiet = time.Second     // between two pieces
	lingerLimit = 5 * time.Second // for all of them
	lingerPiece = 32 << 10
)

// Linger reads what a client still sends behind its answer: a reset would overtake it, and
// many clients read nothing before they have sent everything.
func Linger(c interface {
	io.Reader
	SetReadDeadline(t time.Time) error
}) {
	end := time.Now().Add(lingerLimit)
	for buf := make([]byte, 4<<10); ; {
		now := time.Now()
		if !now.Before(end) || c.SetReadDeadline(now.Add(min(lingerQuiet, end.Sub(now)))) != nil {
			return
		}
		n, err := c.Read(buf)
		if err != nil {
			return
		}
		if n == len(buf) && n < lingerPiece {
			buf = make([]byte, lingerPiece)
		}
	}
}
