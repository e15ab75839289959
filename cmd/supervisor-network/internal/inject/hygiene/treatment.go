package hygiene

import (
	"strings"

	"github.com/splitpod/splitpod/cmd/supervisor-network/internal/http1"
	"github.com/splitpod/splitpod/pkg/core"
)

// Treatment is what is done with the body of a response.
type Treatment uint8

// The treatments. The zero value does nothing.
const (
	Pass    Treatment = iota
	Replace           // values become placeholders: the length changes
	Cover             // values become asterisks: the length stays
	Framed            // the same, within each message of gRPC
	Refuse            // it is text in a coding that nobody asked for and nobody takes off
)

// Treatment says what is done with the body of a response with these fields. What is
// not known to be text keeps its length.
func (f *Filter) Treatment(fields http1.Fields) Treatment {
	if patterns, _ := f.of(fields); len(patterns) == 0 {
		return Pass
	}
	coding, media := codingOf(fields), mediaOf(fields)
	open, known := codings[coding]
	coded := !known || open != nil
	switch kind := kindOf(media); {
	case coded && kind != Replace && media != "":
		return Pass // a compressed file
	case coded && partial(fields):
		return Pass
	case !known:
		return Refuse
	case coded:
		return Replace
	default:
		return kind
	}
}

// mediaOf is the type of a body, lower-case and without its parameters, which decide
// nothing here and need not be well-formed.
func mediaOf(fields http1.Fields) string {
	value, _ := fields.Get("Content-Type")
	media, _, _ := strings.Cut(value, ";")
	return strings.ToLower(strings.Trim(media, " \t"))
}

// kindOf is the treatment for a type without a coding.
func kindOf(media string) Treatment {
	codec, _, _ := strings.Cut(media, "+")
	switch codec {
	case "application/grpc", "application/grpc-web":
		return Framed
	}
	switch strings.TrimPrefix(media, "application/") {
	case "json", "javascript", "xml", "x-www-form-urlencoded", "graphql-response+json", "x-ndjson", "yaml":
		return Replace
	}
	if media == "message/http" || strings.HasPrefix(media, "text/") || strings.HasSuffix(media, "+json") || strings.HasSuffix(media, "+xml") {
		return Replace
	}
	return Cover
}

// unread refuses an answer that cannot be looked into.
func unread(what string) error {
	return &http1.SyntaxError{Status: 502, Reason: core.ReasonUninspectedResponse,
		Detail: what + ", though none was asked for, and the answer to a request with a credential has to be read; response_hygiene: none lets it pass"}
}

// UnreadBody is the refusal of a body whose Treatment is Refuse.
func UnreadBody(fields http1.Fields) error {
	coding := codingOf(fields)
	return unread("the origin answers in the coding " + strings.ToValidUTF8(coding[:min(len(coding), 32)], "?"))
}

// errCompressed is a message of gRPC that is compressed.
var errCompressed = unread("the origin compresses a message")
