package rewrite

import (
	"encoding/base64"
	"strings"

	"github.com/splitpod/splitpod/cmd/supervisor-network/internal/http1"
	"github.com/splitpod/splitpod/cmd/supervisor-network/internal/inject"
	"github.com/splitpod/splitpod/cmd/supervisor-network/internal/inject/placeholder"
)

// framing are the fields that frame, address or describe a message to this proxy: a
// value in one of them would change what was judged.
var framing = map[string]bool{
	"host": true, "content-length": true, "transfer-encoding": true, "connection": true, "te": true, "trailer": true,
	"upgrade": true, "expect": true, "keep-alive": true, "content-type": true, "content-encoding": true,
	"proxy-connection": true, "proxy-authorization": true, "http2-settings": true, "content-range": true, "range": true,
	"sec-websocket-key": true, "sec-websocket-version": true, "sec-websocket-extensions": true, "sec-websocket-protocol": true,
}

// Fields rewrites header fields, or gRPC metadata. Without a placeholder it returns
// the same slice.
func (j *Job) Fields(fields http1.Fields) (http1.Fields, error) {
	out := fields
	for i := range fields {
		f := &fields[i]
		if len(f.Name) >= len(placeholder.AliasMarker) && strings.Contains(strings.ToUpper(f.Name), placeholder.AliasMarker) {
			return nil, inject.Misplaced("the name of a header field")
		}
		if len(f.Value) < len(placeholder.Marker) {
			continue // no encoding is shorter than what it encodes
		}
		value, err := j.field(f.Name, f.Value)
		if err != nil {
			return nil, err
		}
		if value != f.Value {
			if &out[0] == &fields[0] {
				out = append(http1.Fields(nil), fields...)
			}
			out[i].Value = value
		}
	}
	return out, nil
}

func (j *Job) field(name, value string) (string, error) {
	if credentials, ok := basic(value); ok {
		return j.basic(value, credentials)
	}
	if hasSuffixFold(name, "-bin") {
		return value, j.binary(value)
	}
	if !placeholder.Has(value) {
		return value, clean(value, "a header field")
	}
	if framing[strings.ToLower(name)] {
		return "", inject.Misplaced("the header field " + name)
	}
	out, err := j.composite(value)
	if err != nil {
		return "", err
	}
	return out, clean(out, "the header field "+name)
}

// composite replaces placeholders wherever they stand in a field value. Alone, or as
// the one word behind a scheme, a value may be any field text; beside others it must
// not end its place.
func (j *Job) composite(value string) (string, error) {
	fits := check(fieldPart)
	word := value
	if scheme, rest, ok := strings.Cut(value, " "); ok && isScheme(scheme) {
		word = strings.Trim(rest, " \t")
	}
	if _, whole := placeholder.Parse(word); whole {
		fits = fieldText
	}
	return j.replace(value, fits, asIs)
}

func isScheme(s string) bool {
	return s != "" && strings.Trim(s, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-._~+") == ""
}

// fieldText is what may be a whole field value.
func fieldText(s string) string {
	for i := range len(s) {
		if c := s[i]; c < ' ' && c != '\t' || c == 0x7f {
			return "it contains a control character"
		}
	}
	if strings.Trim(s, " \t") != s {
		return "it begins or ends with a space"
	}
	return ""
}

// fieldPart is what may stand among other parts of a field value: nothing that
// separates or quotes.
func fieldPart(s string) string {
	if problem := fieldText(s); problem != "" {
		return problem
	}
	if strings.ContainsAny(s, " \t,;\"\\") {
		return "among other parts of a header field it has no space, comma, semicolon, quote or backslash"
	}
	return ""
}

// basic returns the credentials of a Basic scheme, in any casing.
func basic(value string) (credentials string, ok bool) {
	const scheme = "basic"
	if len(value) <= len(scheme) || value[len(scheme)] != ' ' && value[len(scheme)] != '\t' || !strings.EqualFold(value[:len(scheme)], scheme) {
		return "", false
	}
	return strings.Trim(value[len(scheme):], " \t"), true
}

// basic replaces placeholders anywhere in user:password. What is no base64 but looks
// like a placeholder is refused as a header field is; so is one inside text that
// other decoders would take for base64.
func (j *Job) basic(value, credentials string) (string, error) {
	text, canonical, ok := decodeBase64(credentials)
	if !ok {
		return value, clean(value, "a Basic header field that is not base64")
	}
	if !placeholder.Has(text) {
		if err := clean(value, "a header field"); err != nil {
			return "", err
		}
		return value, clean(text, "a Basic header field, encoded")
	}
	if !canonical {
		return "", inject.Misplaced("a Basic header field that is not proper base64")
	}
	user, password, pair := splitUser(text)
	out, err := j.replace(user, basicUser, asIs)
	if err != nil {
		return "", err
	}
	if pair {
		password, err := j.replace(password, basicText, asIs)
		if err != nil {
			return "", err
		}
		out += ":" + password
	}
	if err := clean(out, "a Basic header field"); err != nil {
		return "", err
	}
	return value[:len("basic")] + " " + base64.StdEncoding.EncodeToString([]byte(out)), nil
}

// splitUser separates user and password at the first colon that is not part of a
// placeholder.
func splitUser(text string) (user, password string, pair bool) {
	masked := strings.ReplaceAll(text, placeholder.Marker, strings.Repeat("x", len(placeholder.Marker)))
	i := strings.IndexByte(masked, ':')
	if i < 0 {
		return text, "", false
	}
	return text[:i], text[i+1:], true
}

func basicText(s string) string {
	for i := range len(s) {
		if c := s[i]; c < ' ' || c == 0x7f {
			return "it contains a control character"
		}
	}
	return ""
}

func basicUser(s string) string {
	if strings.Contains(s, ":") {
		return "a user name has no colon"
	}
	return basicText(s)
}

// decodeBase64 decodes as the most lenient of origins would, and reports whether the
// text is proper base64.
func decodeBase64(s string) (text string, proper, ok bool) {
	if b, err := base64.StdEncoding.Strict().DecodeString(s); err == nil && !strings.ContainsAny(s, "\r\n") {
		return string(b), true, true
	}
	loose := strings.NewReplacer("-", "+", "_", "/", " ", "", "\t", "", "=", "").Replace(s)
	b, err := base64.RawStdEncoding.DecodeString(loose)
	if err != nil {
		return "", false, false
	}
	return string(b), false, true
}

// binary refuses placeholders in binary metadata, in any of their encodings.
func (j *Job) binary(value string) error {
	for part := range strings.SplitSeq(value, ",") {
		if text, _, ok := decodeBase64(strings.Trim(part, " \t")); ok {
			if err := clean(text, "binary metadata"); err != nil {
				return err
			}
		}
	}
	return clean(value, "binary metadata")
}

func hasSuffixFold(s, suffix string) bool {
	return len(s) >= len(suffix) && strings.EqualFold(s[len(s)-len(suffix):], suffix)
}
