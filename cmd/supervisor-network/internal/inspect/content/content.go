// Package content reads what a request says about its body, before the body is read, and
// has the error of requests that cannot be read in exactly one way.
//
// It answers the threat of a body that its receiver decodes differently than rules
// do: compressed, in another charset, in parts, or of a type that is guessed.
//
// Invariant: where JSON returns nil, the body is one uncompressed JSON text in
// UTF-8 for every receiver that believes the request's head.
//
// Sources: RFC 9110 sections 8.3, 8.4; RFC 8259 section 8.1.
package content

import (
	"fmt"
	"mime"
	"slices"
	"strings"

	"github.com/splitpod/splitpod/cmd/supervisor-network/internal/http1"
	"github.com/splitpod/splitpod/pkg/core"
)

// Head is what reading a body depends on.
type Head struct {
	Method string
	Query  string // as sent, without its question mark
	Fields http1.Fields
	Body   bool // a body follows, of whatever length
}

// Error is a request that is refused because it cannot be read. Detail names the
// rule that is broken, never the bytes that break it.
type Error struct {
	Status int // HTTP status to answer with
	Reason core.Reason
	Detail string
}

// Error implements error.
func (e *Error) Error() string { return fmt.Sprintf("%s: %s", e.Reason, e.Detail) }

// TooLarge is the refusal of a body that is longer than may be judged.
func TooLarge(limit int) error {
	return &Error{413, core.ReasonBodyTooLarge, fmt.Sprintf("a body that rules read is at most %d bytes long", limit)}
}

// JSON refuses a body that is not declared to be JSON, under one of the media types
// (lower-case), as it is and in UTF-8.
func (h *Head) JSON(reason core.Reason, types ...string) error {
	if !h.identity() {
		return &Error{415, reason, "a body that rules read is sent without a content encoding"}
	}
	value, n := h.Fields.Get("Content-Type")
	if n != 1 {
		return &Error{415, reason, "a body that rules read has exactly one content type"}
	}
	kind, parameters, err := mime.ParseMediaType(value)
	if err != nil || !slices.Contains(types, kind) {
		return &Error{415, reason, "a body that rules read is of type " + strings.Join(types, " or ")}
	}
	// The library also knows charset*=, which replaces charset= there; others find one inside
	// quotes. So the word stands once, and is the parameter.
	if n := strings.Count(strings.ToLower(value), "charset"); n > 1 || n == 1 && !strings.EqualFold(parameters["charset"], "utf-8") {
		return &Error{415, reason, "a body that rules read is UTF-8, and says so once if it does"}
	}
	return nil
}

// identity reports whether every content encoding is none.
func (h *Head) identity() bool {
	for _, f := range h.Fields {
		if strings.EqualFold(f.Name, "Content-Encoding") && !strings.EqualFold(f.Value, "identity") {
			return false
		}
	}
	return true
}

// Accepts reports whether the Accept fields name the media type (lower-case).
func (h *Head) Accepts(kind string) bool {
	for _, f := range h.Fields {
		if !strings.EqualFold(f.Name, "Accept") {
			continue
		}
		for element := range strings.SplitSeq(f.Value, ",") {
			if k, p, err := mime.ParseMediaType(element); err == nil && k == kind && !refused(p["q"]) {
				return true
			}
		}
	}
	return false
}

// refused reports whether a weight is zero.
func refused(q string) bool { return q != "" && strings.Trim(q, "0.") == "" }
