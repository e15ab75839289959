package rewrite

import (
	"net/url"
	"strings"

	"github.com/splitpod/splitpod/cmd/supervisor-network/internal/inject"
	"github.com/splitpod/splitpod/cmd/supervisor-network/internal/inject/placeholder"
)

// Redact is a canonical path and a query, with its question mark, as policies,
// bindings and people may see them.
func Redact(path, query string) (string, string) {
	path = placeholder.Redact(path)
	if placeholder.Found(path) {
		path = "/" + placeholder.Redacted
	}
	if !placeholder.Found(query) {
		return path, query
	}
	pairs := strings.Split(strings.TrimPrefix(query, "?"), "&")
	for i, pair := range pairs {
		pairs[i] = redactPair(pair)
	}
	if query = "?" + strings.Join(pairs, "&"); placeholder.Found(query) {
		query = "?" + placeholder.Redacted
	}
	return path, query
}

func redactPair(pair string) string {
	if !placeholder.Found(pair) {
		return pair
	}
	name, value, ok := strings.Cut(pair, "=")
	text, err := url.QueryUnescape(value)
	if !ok || placeholder.Found(name) {
		return placeholder.Redacted
	}
	if text = placeholder.Redact(text); err != nil || placeholder.Found(text) {
		text = placeholder.Redacted
	}
	return name + "=" + strings.ReplaceAll(strings.ReplaceAll(escapeQuery(text), "%5B", "["), "%5D", "]")
}

// Path rewrites the segments of a canonical path.
func (j *Job) Path(path string) (string, error) {
	if !placeholder.Has(path) {
		return path, clean(path, "the path")
	}
	segments := strings.Split(path, "/")
	for i, s := range segments {
		out, err := j.replace(s, pathPart, escapePath)
		if err != nil {
			return "", err
		}
		if out != s && (out == "." || out == "..") {
			return "", inject.Unavailable("a value makes a segment of the path a dot segment")
		}
		segments[i] = out
	}
	out := strings.Join(segments, "/")
	return out, clean(out, "the path")
}

// pathPart refuses values that some origin would take for more than a part of a
// segment.
func pathPart(s string) string {
	switch {
	case strings.ContainsAny(s, `/\?#`) || strings.Contains(s, ".."):
		return `in a path it has no slash, backslash, question mark, number sign or two dots`
	default:
		return basicText(s)
	}
}

// escapePath escapes everything that does not always mean itself in a segment.
func escapePath(s string) string {
	const digits = "0123456789ABCDEF"
	var b strings.Builder
	for i := range len(s) {
		c := s[i]
		if c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || c >= '0' && c <= '9' || strings.IndexByte("-._~!$&'()*+,=:@", c) >= 0 {
			b.WriteByte(c)
			continue
		}
		b.Write([]byte{'%', digits[c>>4], digits[c&15]})
	}
	return b.String()
}

// Query rewrites the values of a query. It has its question mark, or is empty.
func (j *Job) Query(query string) (string, error) {
	if !placeholder.Found(query) {
		return query, nil
	}
	out, err := j.parameters(strings.TrimPrefix(query, "?"), "the query")
	return "?" + out, err
}

// parameters rewrites the values of name=value pairs, of a query or a form. Pairs
// without a placeholder stay as they are.
func (j *Job) parameters(s, where string) (string, error) {
	pairs := strings.Split(s, "&")
	size := 0
	for i, pair := range pairs {
		if !placeholder.Found(pair) {
			continue
		}
		name, value, ok := strings.Cut(pair, "=")
		if !ok || placeholder.Found(name) {
			return "", inject.Misplaced("the name of a parameter of " + where)
		}
		text, err := url.QueryUnescape(value)
		if err != nil {
			return "", inject.Misplaced("a malformed parameter of " + where)
		}
		if text, err = j.replace(text, anything, asIs); err != nil {
			return "", err
		}
		if err := clean(text, "a parameter of "+where); err != nil {
			return "", err
		}
		pairs[i] = name + "=" + escapeQuery(text)
		if size += len(pairs[i]); size > MaxOutput {
			return "", tooLarge()
		}
	}
	out := strings.Join(pairs, "&")
	return out, clean(out, where)
}

// anything fits where everything is escaped.
func anything(string) string { return "" }

// escapeQuery writes spaces as %20, which forms and queries both understand.
func escapeQuery(s string) string { return strings.ReplaceAll(url.QueryEscape(s), "+", "%20") }
