package http2

import (
	"net/http"
	"net/url"
	"slices"
	"strings"

	"golang.org/x/net/http/httpguts"
	"golang.org/x/net/http2/hpack"

	"github.com/splitpod/splitpod/pkg/core"
)

// refusedName is the field of a section that stands for one that is refused: why, and by
// what method. Who sends it is refused as well.
const refusedName = "splitpod-refused"

// Why a section is refused.
const (
	tooLarge           = "size"
	ownField           = "own"
	connectionSpecific = "connection"
	strangeTE          = "te"
	strangeName        = "name"
	strangeValue       = "value"
	strangePseudo      = "pseudo"
	strangeAuthority   = "authority"
	strangePath        = "path"
	strangeEscape      = "escape"
)

// refusals are the answers to those.
var refusals = map[string]error{
	tooLarge:           refuse(http.StatusRequestHeaderFieldsTooLarge, core.ReasonHeaderTooLarge, "the fields of a request are at most 16384 bytes long, with 32 for each, and for each name in Trailer"),
	ownField:           bad("the field " + refusedName + " is this proxy's own"),
	connectionSpecific: bad("HTTP/2 has no connection-specific fields"),
	strangeTE:          bad("TE is trailers, if there is one"),
	strangeName:        bad("a field name is a token in lower case"),
	strangeValue:       bad("a field value contains no control character"),
	strangePseudo:      bad("a request has each of :method, :scheme and :path once, in front of its fields, and no pseudo-field that is none of a request; CONNECT has :authority alone"),
	strangeAuthority:   bad("a request has one authority, without user information, and a Host field that says the same if it has one"),
	strangePath:        badTarget("a path begins with a slash"),
	strangeEscape:      badTarget("a percent sign in a path is followed by two hexadecimal digits"),
}

// pseudoFields are those of a request.
var pseudoFields = [...]string{":method", ":scheme", ":authority", ":path", pseudoProtocol}

// malformed says why a section is no request by RFC 9113, of what has an answer in HTTP.
// All of it but HTTP2-Settings the library would keep from its handler; check relies on it.
func malformed(fields []hpack.HeaderField) string {
	var line [len(pseudoFields)]string
	var seen [len(pseudoFields)]bool
	n := 0
	for ; n < len(fields) && strings.HasPrefix(fields[n].Name, ":"); n++ {
		i := slices.Index(pseudoFields[:], fields[n].Name)
		switch {
		case i < 0 || seen[i]:
			return strangePseudo
		case !httpguts.ValidHeaderFieldValue(fields[n].Value):
			return strangeValue
		}
		line[i], seen[i] = fields[n].Value, true
	}
	if why := strangeFields(fields[n:], line[2]); why != "" {
		return why
	}
	return strangeLine(line[0], line[1], line[2], line[3], line[4])
}

// strangeFields is malformed for what is behind the pseudo-fields.
func strangeFields(fields []hpack.HeaderField, authority string) string {
	hosts, te, host := 0, 0, ""
	for _, f := range fields {
		switch f.Name {
		case refusedName:
			return ownField
		case "connection", "proxy-connection", "keep-alive", "transfer-encoding", "upgrade", "http2-settings":
			return connectionSpecific // an origin behind a translation would act on it (RFC 9113 section 8.2.2)
		case "te":
			if te++; te > 1 || f.Value != "trailers" {
				return strangeTE
			}
		case "host":
			hosts, host = hosts+1, f.Value
		}
		switch {
		case strings.HasPrefix(f.Name, ":"):
			return strangePseudo
		case !isWireName(f.Name):
			return strangeName
		case !httpguts.ValidHeaderFieldValue(f.Value):
			return strangeValue
		}
	}
	if hosts > 1 || hosts == 1 && authority != "" && authority != host || !httpguts.ValidHostHeader(authority) || !httpguts.ValidHostHeader(host) {
		return strangeAuthority
	}
	return ""
}

// strangeLine is malformed for the pseudo-fields.
func strangeLine(method, scheme, authority, path, protocol string) string {
	switch {
	case method == http.MethodConnect && protocol == "":
		if path != "" || scheme != "" || authority == "" {
			return strangePseudo
		}
		return ""
	case method == "", path == "", scheme != "https" && scheme != "http":
		return strangePseudo
	case path[0] != '/' && path != "*":
		return strangePath
	}
	if strings.Contains(path, "%") {
		if _, err := url.ParseRequestURI(path); err != nil {
			return strangeEscape
		}
	}
	return ""
}

// isWireName reports whether a name is one as HTTP/2 has them.
func isWireName(name string) bool {
	for i := range len(name) {
		if c := name[i]; c >= 'A' && c <= 'Z' {
			return false
		}
	}
	return isToken(name)
}

// standIn is a section that says why another one is refused.
func standIn(fields []hpack.HeaderField, contentType, why string) []hpack.HeaderField {
	method := ""
	for _, f := range fields {
		if f.Name == ":method" && isToken(f.Value) {
			method = f.Value
		}
	}
	// With CONNECT, or none, it would be another section that has no reading.
	fields = append(fields[:0], hpack.HeaderField{Name: ":method", Value: http.MethodGet}, hpack.HeaderField{Name: ":scheme", Value: "https"},
		hpack.HeaderField{Name: ":path", Value: "/"}, hpack.HeaderField{Name: refusedName, Value: why + " " + method})
	if len(contentType) < MaxHeaderList/2 && isGRPC(contentType) && httpguts.ValidHeaderFieldValue(contentType) { // whose clients are answered in their own way
		fields = append(fields, hpack.HeaderField{Name: "content-type", Value: contentType})
	}
	return fields
}
