package rewrite

import (
	"bytes"
	"encoding/json"
	"mime"
	"strings"
	"unicode/utf8"

	"github.com/splitpod/splitpod/cmd/supervisor-network/internal/http1"
	"github.com/splitpod/splitpod/cmd/supervisor-network/internal/inject"
	"github.com/splitpod/splitpod/cmd/supervisor-network/internal/inject/placeholder"
	"github.com/splitpod/splitpod/pkg/core"
)

// Body rewrites a whole request body by its content type. The caller has read at
// most MaxBody bytes, and states the new length.
func (j *Job) Body(fields http1.Fields, body []byte) ([]byte, error) {
	if len(body) > MaxBody {
		return nil, TooLarge()
	}
	if err := readable(fields); err != nil {
		return nil, err
	}
	value, n := fields.Get("Content-Type")
	kind := kindOf(value)
	if n > 1 {
		kind = other
	}
	switch kind {
	case jsonText:
		if json.Valid(body) && utf8.Valid(body) {
			return j.json(body)
		}
		return body, cleanBytes(body, "a body that is not valid JSON")
	case form:
		if !placeholder.FoundBytes(body) {
			return body, nil
		}
		out, err := j.parameters(string(body), "the form")
		return []byte(out), err
	case text, markup:
		if !utf8.Valid(body) {
			return body, cleanBytes(body, "a text body that is not UTF-8")
		}
		return j.text(body, kind == markup)
	default:
		return body, cleanBytes(body, "a body of a type that is not rewritten")
	}
}

// TooLarge refuses a body that is longer than MaxBody.
func TooLarge() *inject.Error {
	return &inject.Error{Status: 413, Reason: core.ReasonBodyTooLarge, Detail: "a body in which credentials are replaced has at most 262144 bytes"}
}

// readable refuses bodies that nothing here can look into: compressed ones. It is
// for every body that goes to a credentialed endpoint.
func readable(fields http1.Fields) error {
	for _, f := range fields {
		if !strings.EqualFold(f.Name, "Content-Encoding") && !strings.EqualFold(f.Name, "grpc-encoding") {
			continue
		}
		for coding := range strings.SplitSeq(f.Value, ",") {
			if coding = strings.Trim(coding, " \t"); coding != "" && !strings.EqualFold(coding, "identity") {
				return inject.Unavailable("a compressed body cannot be searched for placeholders; send it uncompressed")
			}
		}
	}
	return nil
}

// Message rewrites one whole WebSocket text message.
func (j *Job) Message(message []byte) ([]byte, error) {
	if !placeholder.FoundBytes(message) && !bytes.Contains(message, []byte(`\u`)) {
		return message, nil
	}
	switch {
	case !utf8.Valid(message):
		return message, cleanBytes(message, "a message that is not UTF-8")
	case json.Valid(message):
		return j.json(message)
	default:
		return j.text(message, false)
	}
}

// text replaces placeholders as they stand. In markup a value must not be one.
func (j *Job) text(body []byte, markup bool) ([]byte, error) {
	if !placeholder.FoundBytes(body) {
		return body, nil
	}
	fits := check(validText)
	if markup {
		fits = plainText
	}
	out, err := j.replace(string(body), fits, asIs)
	if err != nil {
		return nil, err
	}
	if err := clean(out, "a text body"); err != nil {
		return nil, err
	}
	return []byte(out), nil
}

func plainText(s string) string {
	if strings.ContainsAny(s, `<>&"'`) {
		return "in markup it has no markup character"
	}
	return validText(s)
}

// kind is how a body is rewritten.
type kind uint8

const (
	other kind = iota
	jsonText
	form
	text
	markup
)

func kindOf(contentType string) kind {
	media, params, err := mime.ParseMediaType(contentType)
	if err != nil {
		return other
	}
	if charset, ok := params["charset"]; ok && !strings.EqualFold(charset, "utf-8") && !strings.EqualFold(charset, "us-ascii") {
		return other
	}
	switch {
	case media == "application/json" || strings.HasPrefix(media, "application/") && strings.HasSuffix(media, "+json"):
		return jsonText
	case media == "application/x-www-form-urlencoded":
		return form
	case media == "text/html" || media == "text/xml":
		return markup
	case strings.HasPrefix(media, "text/"):
		return text
	default:
		return other
	}
}
