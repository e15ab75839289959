package hygiene

import (
	"bytes"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"net/url"
	"slices"
	"strings"
	"unicode/utf16"
	"unicode/utf8"
)

// forms are the ways in which a value is written.
func forms(value string) (out []string) {
	add := func(s string) {
		if len(s) >= MinBytes && !slices.Contains(out, s) {
			out = append(out, s)
		}
	}
	add(value)
	percent := strings.ReplaceAll(url.QueryEscape(value), "+", "%20")
	for _, s := range []string{url.QueryEscape(value), url.PathEscape(value), percent, strings.ReplaceAll(percent, "%2F", "/"), sparing.Replace(percent)} {
		add(s)
		add(lowerEscapes(s))
	}
	for _, html := range []bool{true, false} {
		var b bytes.Buffer
		enc := json.NewEncoder(&b)
		enc.SetEscapeHTML(html)
		if enc.Encode(value) == nil {
			quoted := strings.TrimSpace(b.String())
			add(quoted[1 : len(quoted)-1])
			add(strings.ReplaceAll(quoted[1:len(quoted)-1], "/", `\/`))
			add(inASCII(quoted[1 : len(quoted)-1]))
			add(inASCII(strings.ReplaceAll(quoted[1:len(quoted)-1], "/", `\/`)))
		}
	}
	for _, r := range escapers {
		add(r.Replace(value))
	}
	// In base64 a value looks different at each of the three places in a group; the
	// characters that its neighbours change are left out.
	for _, enc := range []*base64.Encoding{base64.RawStdEncoding, base64.RawURLEncoding} {
		for before := range 3 {
			text := enc.EncodeToString([]byte(strings.Repeat("\x00", before) + value))
			from, to := (before*8+5)/6, (before+len(value))*8/6
			add(text[from:to])
		}
	}
	return out
}

// lowerEscapes writes the digits of escapes in lower case.
func lowerEscapes(s string) string {
	b := []byte(s)
	for i := 0; i+2 < len(b); i++ {
		if b[i] == '%' {
			copy(b[i+1:], bytes.ToLower(b[i+1:i+3]))
			i += 2
		}
	}
	return string(b)
}

// sparing undoes the escapes that encodeURIComponent of JavaScript does without.
var sparing = strings.NewReplacer("%21", "!", "%27", "'", "%28", "(", "%29", ")", "%2A", "*")

// escapers write a value into HTML and JSON as the libraries of several languages do.
// They agree about &, < and >, and hardly about anything else; what stands in keys is +,
// / and =, which base64 has.
var escapers = []*strings.Replacer{
	markup(`"`, "&quot;", "'", "&#39;"),                                                              // Ruby, Django
	markup(`"`, "&quot;", "'", "&#039;"),                                                             // PHP
	markup(`"`, "&quot;", "'", "&#x27;"),                                                             // Python
	markup(`"`, "&#34;", "'", "&#39;"),                                                               // Go's html, Jinja
	markup(`"`, "&#34;", "'", "&#39;", "+", "&#43;"),                                                 // Go's html/template
	markup(`"`, "&quot;", "'", "&#x27;", "+", "&#x2B;"),                                              // .NET
	markup(`"`, "&quot;", "'", "&#x27;", "/", "&#x2F;"),                                              // OWASP
	markup(`"`, "&quot;", "'", "&#x27;", "=", "&#x3D;", "`", "&#x60;"),                               // Handlebars
	markup(`"`, "&quot;", "'", "&#39;", "/", "&#x2F;", "=", "&#x3D;", "`", "&#x60;"),                 // Mustache
	markup(`"`, "&quot;", "'", "&#x27;", "/", "&#x2f;", "+", "&#x2b;", "=", "&#x3d;", "`", "&#x60;"), // ESAPI
	strings.NewReplacer(`\`, `\\`, `"`, `\u0022`, "'", `\u0027`, "&", `\u0026`, "<", `\u003C`, ">", `\u003E`, "+", `\u002B`, "`", `\u0060`), // .NET's JSON
}

// markup escapes what every library escapes, and more.
func markup(more ...string) *strings.Replacer {
	return strings.NewReplacer(append([]string{"&", "&amp;", "<", "&lt;", ">", "&gt;"}, more...)...)
}

// inASCII escapes what is not ASCII in a text of JSON.
func inASCII(s string) string {
	var b strings.Builder
	for _, r := range s {
		if r < utf8.RuneSelf {
			b.WriteByte(byte(r))
			continue
		}
		for _, unit := range utf16.AppendRune(nil, r) {
			fmt.Fprintf(&b, `\u%04x`, unit)
		}
	}
	return b.String()
}
