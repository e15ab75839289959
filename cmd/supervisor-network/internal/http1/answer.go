package http1

import (
	"encoding/json"
	"fmt"
	"io"
	"net/http"

	"github.com/splitpod/splitpod/pkg/core"
)

// ErrorBody is what a refused client reads.
type ErrorBody struct {
	Error     core.Reason `json:"error"`
	Detail    string      `json:"detail"`
	Reason    string      `json:"reason,omitempty"`
	Rule      string      `json:"rule,omitempty"`
	RequestID string      `json:"request_id,omitempty"`
}

// Answer writes one complete refusal: a status, a JSON body of exact length, and
// the end of the connection. The answer to a HEAD request describes its body only;
// method is empty when no request was understood.
func Answer(w io.Writer, method string, status int, body ErrorBody) error {
	text, err := json.Marshal(body)
	if err != nil {
		return err
	}
	length := len(text)
	if method == "HEAD" {
		text = nil
	}
	_, err = fmt.Fprintf(w, "HTTP/1.1 %d %s\r\nContent-Type: application/json\r\nContent-Length: %d\r\nConnection: close\r\nX-Splitpod-Request-Id: %s\r\n\r\n%s",
		status, http.StatusText(status), length, body.RequestID, text)
	return err
}
