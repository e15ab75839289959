package http2

import (
	"net/http"
	"net/url"
	"strings"

	"golang.org/x/net/http2/hpack"

	"github.com/splitpod/splitpod/pkg/core"
)

// refusedName is the field of a section that stands for one that is refused. Who sends it
// is refused as well.
const refusedName = "splitpod-refused"

// Why a section is refused.
const (
	tooLarge           = "size"
	connectionSpecific = "connection"
	strangeTE          = "te"
	strangePath        = "path"
)

// refusals are the answers to those.
var refusals = map[string]error{
	tooLarge:           refuse(http.StatusRequestHeaderFieldsTooLarge, core.ReasonHeaderTooLarge, "the fields of a request are at most 16384 bytes long, with 32 for each"),
	connectionSpecific: bad("HTTP/2 has no connection-specific fields"),
	strangeTE:          bad("TE is trailers, if there is one"),
	strangePath:        badTarget("a percent sign in a path is followed by two hexadecimal digits"),
}

// malformed says why the library would not give a request to its handler, of what has an
// answer in HTTP.
func malformed(fields []hpack.HeaderField) string {
	said := false
	for _, f := range fields {
		switch f.Name {
		case "connection", "proxy-connection", "keep-alive", "transfer-encoding", "upgrade":
			return connectionSpecific
		case "te":
			if f.Value != "trailers" || said {
				return strangeTE
			}
			said = true
		case ":path":
			if !strings.HasPrefix(f.Value, "/") || !strings.Contains(f.Value, "%") {
				continue
			}
			if _, err := url.ParseRequestURI(f.Value); err != nil {
				return strangePath
			}
		}
	}
	return ""
}

// standIn is a section that says why another one is refused.
func standIn(fields []hpack.HeaderField, contentType, why string) []hpack.HeaderField {
	method := http.MethodGet
	for _, f := range fields {
		if f.Name == ":method" && f.Value != http.MethodConnect && isToken(f.Value) {
			method = f.Value
		}
	}
	fields = append(fields[:0], hpack.HeaderField{Name: ":method", Value: method}, hpack.HeaderField{Name: ":scheme", Value: "https"},
		hpack.HeaderField{Name: ":path", Value: "/"}, hpack.HeaderField{Name: refusedName, Value: why})
	if len(contentType) < MaxHeaderList/2 && isGRPC(contentType) { // whose clients are answered in their own way
		fields = append(fields, hpack.HeaderField{Name: "content-type", Value: contentType})
	}
	return fields
}
