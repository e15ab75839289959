package inspect

import (
	"net/url"
	"strings"

	"github.com/splitpod/splitpod/cmd/supervisor-network/internal/http1"
)

// Overrides are the methods that fields and parameters ask the origin to take a request
// for. Many frameworks, and the APIs of Google, Microsoft and Salesforce, do as they say;
// which origin does, a proxy cannot know. Frameworks that read such a parameter in a form
// as well are not answered: a form is not read.
func Overrides(h Head) (methods []string) {
	for i := range h.Fields {
		if f := &h.Fields[i]; overrides(f.Name) {
			methods = others(methods, h.Method, f.Value)
		}
	}
	if h.Query == "" {
		return methods
	}
	for pair := range strings.FieldsFuncSeq(h.Query, func(c rune) bool { return c == '&' || c == ';' }) {
		name, value, _ := strings.Cut(pair, "=")
		if name = parameter(name); name != "_method" && name != "_HttpMethod" && !overrides(name) { // the last as ASP.NET MVC and ServiceStack have it
			continue
		}
		methods = others(methods, h.Method, unescaped(value))
	}
	return methods
}

// others adds the methods of a list that are not own. Of several some origins take one.
func others(methods []string, own, list string) []string {
	for method := range strings.SplitSeq(list, ",") {
		if method = strings.TrimSpace(method); method != "" && method != own {
			methods = append(methods, method)
		}
	}
	return methods
}

// parameter is the name of one as PHP reads it, which leaves out spaces in front and all
// behind a NUL, and takes a dot for an underscore, and as Express and Rack do, to which a name
// in brackets is that name. Others read such a name as another.
func parameter(sent string) string {
	sent, _, _ = strings.Cut(sent, "%00") // first: behind it an escape may be broken
	name := strings.TrimLeft(unescaped(sent), " []")
	if end := strings.IndexAny(name, "[]"); end >= 0 {
		name = name[:end]
	}
	return strings.ReplaceAll(name, ".", "_")
}

// unescaped is a part of a query as an origin reads it. What has a broken escape some read
// as it is.
func unescaped(s string) string {
	if out, err := url.QueryUnescape(s); err == nil {
		return out
	}
	return s
}

// Elsewhere reports whether a field names a target that some frameworks (Symfony and
// Laminas once did) and servers (IIS behind its rewriting module) take for the request's,
// or a beginning of it that others (gunicorn, applications behind a prefix) take off.
func Elsewhere(h Head) bool {
	for i := range h.Fields {
		name := h.Fields[i].Name
		if len(name) < len("Script-Name") || len(name) > len("X-Original-URL") || name[0]|0x20 != 'x' && name[0]|0x20 != 's' {
			continue
		}
		name = http1.AsVariable(name)
		for _, other := range [...]string{"X-Original-URL", "X-Rewrite-URL", "Script-Name", "X-Script-Name"} {
			if strings.EqualFold(name, other) {
				return true
			}
		}
	}
	return false
}

// overrides reports whether a field names a method, also to those who read it as a variable.
func overrides(name string) bool {
	if len(name) < len("X-HTTP-Method") || name[0]|0x20 != 'x' {
		return false
	}
	name = http1.AsVariable(name)
	return strings.EqualFold(name, "X-HTTP-Method-Override") || strings.EqualFold(name, "X-HTTP-Method") || strings.EqualFold(name, "X-Method-Override")
}
