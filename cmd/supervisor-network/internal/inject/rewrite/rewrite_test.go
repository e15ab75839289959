package rewrite

import (
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"net/url"
	"strings"
	"sync"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/splitpod/splitpod/cmd/supervisor-network/internal/decide"
	"github.com/splitpod/splitpod/cmd/supervisor-network/internal/http1"
	"github.com/splitpod/splitpod/cmd/supervisor-network/internal/inject"
	"github.com/splitpod/splitpod/cmd/supervisor-network/internal/inject/placeholder"
	"github.com/splitpod/splitpod/cmd/supervisor-network/internal/inject/secret"
	"github.com/splitpod/splitpod/pkg/core"
	"github.com/splitpod/splitpod/pkg/core/policy"
)

// vault is a Resolver with fixed values; keys that are not in it are unknown.
type vault map[string]string

func (v vault) Resolve(_ decide.Permit, _ string, ref placeholder.Reference) (secret.Value, inject.Use, error) {
	value, ok := v[ref.Key]
	switch {
	case ref.Key == "ELSEWHERE":
		return secret.Value{}, inject.Use{}, inject.Mismatch(ref.Key)
	case !ok:
		return secret.Value{}, inject.Use{}, inject.Unavailable("no credential with the key %s is known", ref.Key)
	}
	return secret.New(value), inject.Use{Key: ref.Key, Revision: 1}, nil
}

var values = vault{
	"KEY": "s3cret", "COLON": "12:ab", "SPACE": "a b", "SEMI": "a;b", "QUOTE": `a"b\c`, "SLASH": "a/b", "DOTS": "a..b", "DOT": ".",
	"MARKUP": "<a>&", "UMLAUT": "ü", "BYTES": "\xff\xfe", "TAB": "a\tb", "CONTROL": "a\x01b", "PERCENT": "a%2Fb+c", "EDGE": " a ", "AMP": "a&b=c",
	"LONG": strings.Repeat("x", 60_000), "NEW": "line\u2028end",
}

const (
	ph  = placeholder.Marker
	ali = "sk-" + placeholder.AliasMarker
)

// permit is a real Permit: there is no other way to one.
var permit = sync.OnceValue(func() decide.Permit { return permitFor("") })

func permitFor(options string) decide.Permit {
	doc, _, err := policy.Parse("p", []byte("version: 1\nnetwork_policies:\n  a:\n    endpoints: [{host: a.test, port: 443"+options+"}]\n    binaries: [{path: /bin/a}]\n"))
	if err != nil {
		panic(err)
	}
	snapshot, err := decide.Compile(context.Background(), doc, decide.Options{Generation: 1, IgnoreBinaries: true})
	if err != nil {
		panic(err)
	}
	p, denial := snapshot.Connection(context.Background(), decide.Question{Who: &core.Identity{}, Host: "a.test", Port: 443})
	if denial != nil {
		panic(denial.Detail)
	}
	return p
}

func TestNothingIsReplacedWithoutADecision(t *testing.T) {
	for name, p := range map[string]decide.Permit{"no decision": {}, "not inspected": permitFor(", tls: skip")} {
		_, err := New(p, "/", values).Fields(http1.Fields{{Name: "A", Value: ph + "KEY"}})
		if got := outcome("", err); got != "500 credentials go only into requests that are inspected and permitted" {
			t.Errorf("%s: %s", name, got)
		}
	}
}

func job() *Job { return New(permit(), "/", values) }

// outcome is what came out, or the refusal.
func outcome(s string, err error) string {
	if err == nil {
		return s
	}
	e, ok := errors.AsType[*inject.Error](err)
	if !ok {
		return "not an *inject.Error: " + err.Error()
	}
	return fmt.Sprintf("%d %s", e.Status, e.Detail)
}

func basicOf(s string) string { return "Basic " + base64.StdEncoding.EncodeToString([]byte(s)) }

// rule is one row: what goes in, and what comes out or why not.
type rule struct{ name, in, want string }

func run(t *testing.T, rules []rule, do func(*Job, string) (string, error)) {
	t.Helper()
	for _, r := range rules {
		got, err := do(job(), r.in)
		if outcome(got, err) != r.want {
			t.Errorf("%s: %.200s", r.name, outcome(got, err))
		}
		if err != nil {
			for key, v := range values {
				if len(v) > 3 && key != "EDGE" && strings.Contains(err.Error(), v) {
					t.Errorf("%s: the error contains a value", r.name)
				}
			}
		}
		// Without a resolver, what has a placeholder is refused.
		if bare, err := do(New(permit(), "/", nil), r.in); err == nil && bare != r.in {
			t.Errorf("%s: without credentials it became %q", r.name, bare)
		}
	}
}

var headerRules = []rule{
	{"no placeholder", "text/html, */*;q=0.8", "text/html, */*;q=0.8"},
	{"the whole value", ph + "KEY", "s3cret"},
	{"a scheme and a placeholder", "Bearer " + ph + "KEY", "Bearer s3cret"},
	{"another scheme", "token " + ph + "v1_KEY", "token s3cret"},
	{"an alias", "Bearer " + ali + "KEY", "Bearer s3cret"},
	{"a cookie among others", "a=1; session=" + ph + "KEY; b=2", "a=1; session=s3cret; b=2"},
	{"two in one field", "id=" + ph + "KEY, sig=\"" + ph + "COLON\"", `id=s3cret, sig="12:ab"`},
	{"concatenated", ph + "KEY" + ph + "COLON", "s3cret12:ab"},
	{"with spaces, alone", ph + "SPACE", "a b"},
	{"with spaces behind a scheme", "Bearer " + ph + "SPACE", "Bearer a b"},
	{"a semicolon among cookies", "session=" + ph + "SEMI", "500 the value of the key SEMI cannot stand here: among other parts of a header field it has no space, comma, semicolon, quote or backslash"},
	{"a quote among others", "token=\"" + ph + "QUOTE\"", "500 the value of the key QUOTE cannot stand here: among other parts of a header field it has no space, comma, semicolon, quote or backslash"},
	{"a control character", ph + "CONTROL", "500 the value of the key CONTROL cannot stand here: it contains a control character"},
	{"spaces around", ph + "EDGE", "500 the value of the key EDGE cannot stand here: it begins or ends with a space"},
	{"unknown", ph + "OTHER", "500 no credential with the key OTHER is known"},
	{"one known, one not", ph + "KEY;" + ph + "OTHER", "500 no credential with the key OTHER is known"},
	{"bound elsewhere", "Bearer " + ph + "ELSEWHERE", "403 Credential is not authorized for this request endpoint: ELSEWHERE"},
	{"a marker without a key", "Bearer " + ph, "500 a placeholder stands in the header field X-Test, where none is replaced"},
	{"a marker alone, which is the shortest to be found", ph, "500 a placeholder stands in the header field X-Test, where none is replaced"},
	{"an alias marker alone, which is as short", placeholder.AliasMarker, "500 a placeholder stands in the header field X-Test, where none is replaced"},
	{"a marker but for its last byte", ph[:len(ph)-1], ph[:len(ph)-1]},
	{"an alias without a prefix", placeholder.AliasMarker + "KEY", "500 a placeholder stands in the header field X-Test, where none is replaced"},
	{"percent-encoded", "openshell%3Aresolve%3aenv%3AKEY", "500 a placeholder stands in a header field, where none is replaced"},
	{"percent-encoded twice, one character", "%256fpenshell:resolve:env:KEY", "500 a placeholder stands in a header field, where none is replaced"},
	{"one replaced, one encoded", ph + "KEY %6fpenshell:resolve:env:KEY", "500 a placeholder stands in the header field X-Test, where none is replaced"},
	{"basic", basicOf("user:" + ph + "KEY"), basicOf("user:s3cret")},
	{"basic in capitals", "BASIC" + basicOf("user:" + ph + "KEY")[5:], "BASIC" + basicOf("user:s3cret")[5:]},
	{"basic mixed, more spaces", "bAsIc   " + basicOf("user:" + ph + "KEY")[6:] + " ", "bAsIc" + basicOf("user:s3cret")[5:]},
	{"basic, both", basicOf(ph + "KEY:" + ph + "COLON"), basicOf("s3cret:12:ab")},
	{"basic, a part of the password", basicOf("x-access-token:a" + ph + "KEY-b"), basicOf("x-access-token:as3cret-b")},
	{"basic, the user alone", basicOf(ph + "KEY"), basicOf("s3cret")},
	{"basic, an empty password", basicOf(ph + "KEY:"), basicOf("s3cret:")},
	{"basic, a colon in the user", basicOf(ph + "COLON:x"), "500 the value of the key COLON cannot stand here: a user name has no colon"},
	{"basic without a placeholder", basicOf("user:password"), basicOf("user:password")},
	{"basic unpadded without one", "Basic dTpwYQ", "Basic dTpwYQ"},
	{"basic unpadded with one", strings.TrimRight(basicOf("u:"+ph+"KEY!!"), "="), "500 a placeholder stands in a Basic header field that is not proper base64, where none is replaced"},
	{"basic in the URL alphabet", "Basic " + base64.URLEncoding.EncodeToString([]byte("\xff\xfe\xfd:"+ph+"KEY")), "500 a placeholder stands in a Basic header field that is not proper base64, where none is replaced"},
	{"basic, a marker without a key", basicOf("u:" + ph), "500 a placeholder stands in a Basic header field, where none is replaced"},
	{"basic, percent-encoded inside", basicOf("u:openshell%3Aresolve:env:KEY"), "500 a placeholder stands in a Basic header field, encoded, where none is replaced"},
	{"basic that is not base64", "Basic " + ph + "KEY", "500 a placeholder stands in a Basic header field that is not base64, where none is replaced"},
	{"basic, a control character", basicOf("u:" + ph + "CONTROL"), "500 the value of the key CONTROL cannot stand here: it contains a control character"},
	{"too much", strings.Repeat(ph+"LONG,", 20), "500 with its values the request is too large"},
}

func TestHeaderValues(t *testing.T) {
	run(t, headerRules, func(j *Job, in string) (string, error) {
		out, err := j.Fields(http1.Fields{{Name: "Accept", Value: "a"}, {Name: "X-Test", Value: in}})
		if err != nil {
			if out != nil {
				t.Error("fields beside an error")
			}
			return "", err
		}
		return out[1].Value, nil
	})
}

func TestHeaderPlaces(t *testing.T) {
	for _, c := range []struct{ name, field, value, want string }{
		{"a field of framing", "Connection", "x-" + placeholder.AliasMarker + "KEY", "500 a placeholder stands in the header field Connection, where none is replaced"},
		{"the host", "host", ph + "KEY", "500 a placeholder stands in the header field host, where none is replaced"},
		{"the content type", "Content-Type", ph + "KEY", "500 a placeholder stands in the header field Content-Type, where none is replaced"},
		{"the name", "X-OPENSHELL-RESOLVE-ENV-KEY", "v", "500 a placeholder stands in the name of a header field, where none is replaced"},
		{"the name in lower case", "x-openshell-resolve-env-key", "v", "500 a placeholder stands in the name of a header field, where none is replaced"},
		{"binary metadata, raw", "token-bin", ph + "KEY", "500 a placeholder stands in binary metadata, where none is replaced"},
		{"binary metadata, encoded", "Token-Bin", base64.RawStdEncoding.EncodeToString([]byte("x" + ph + "KEY")), "500 a placeholder stands in binary metadata, where none is replaced"},
		{"binary metadata, the second", "token-bin", "AAAA, " + base64.StdEncoding.EncodeToString([]byte(ph+"KEY")), "500 a placeholder stands in binary metadata, where none is replaced"},
		{"binary metadata without one", "token-bin", "AAECAwQ", "AAECAwQ"},
		{"metadata of gRPC", "authorization", "Bearer " + ph + "KEY", "Bearer s3cret"},
	} {
		out, err := job().Fields(http1.Fields{{Name: c.field, Value: c.value}})
		got := ""
		if err == nil {
			got = out[0].Value
		}
		if got = outcome(got, err); got != c.want {
			t.Errorf("%s: %s", c.name, got)
		}
	}
}

func TestFieldsAreNotChangedInPlace(t *testing.T) {
	in := http1.Fields{{Name: "A", Value: ph + "KEY"}, {Name: "B", Value: ph + "COLON"}}
	before := append(http1.Fields(nil), in...)
	j := job()
	out, err := j.Fields(in)
	if err != nil || cmp.Diff(before, in) != "" || out[0].Value != "s3cret" || out[1].Value != "12:ab" {
		t.Errorf("%v: %v became %v", err, in, out)
	}
	if diff := cmp.Diff([]inject.Use{{Key: "KEY", Revision: 1}, {Key: "COLON", Revision: 1}}, j.Uses()); diff != "" {
		t.Error(diff)
	}
	if out, err := job().Fields(nil); err != nil || len(out) != 0 {
		t.Error("no fields", err)
	}
}

var pathRules = []rule{
	{"none", "/a/b", "/a/b"},
	{"a segment", "/v1/" + ph + "KEY/x", "/v1/s3cret/x"},
	{"a part of a segment", "/bot" + ph + "COLON/send", "/bot12:ab/send"},
	{"two in a segment", "/" + ph + "KEY" + ph + "KEY", "/s3crets3cret"},
	{"an alias is the whole token", "/x/" + ali + "KEY", "/x/s3cret"},
	{"escaped", "/" + ph + "SPACE/" + ph + "SEMI", "/a%20b/a%3Bb"},
	{"a percent sign", "/" + ph + "UMLAUT", "/%C3%BC"},
	{"a slash", "/" + ph + "SLASH", "500 the value of the key SLASH cannot stand here: in a path it has no slash, backslash, question mark, number sign or two dots"},
	{"dots", "/" + ph + "DOTS", "500 the value of the key DOTS cannot stand here: in a path it has no slash, backslash, question mark, number sign or two dots"},
	{"a dot segment", "/" + ph + "DOT/x", "500 a value makes a segment of the path a dot segment"},
	{"two values make one", "/" + ph + "DOT" + ph + "DOT/x", "500 a value makes a segment of the path a dot segment"},
	{"a control character", "/" + ph + "TAB", "500 the value of the key TAB cannot stand here: it contains a control character"},
	{"encoded twice", "/%256Fpenshell:resolve:env:KEY", "500 a placeholder stands in the path, where none is replaced"},
	{"across segments", "/openshell:resolve:env:/KEY", "500 a placeholder stands in the path, where none is replaced"},
	{"unknown", "/" + ph + "OTHER", "500 no credential with the key OTHER is known"},
}

func TestPaths(t *testing.T) { run(t, pathRules, (*Job).Path) }

func TestACanonicalPathShowsItsPlaceholders(t *testing.T) {
	canonical, err := http1.CanonicalPath("/x/%6fpenshell%3Aresolve%3aenv%3AKEY", false)
	if err != nil {
		t.Fatal(err)
	}
	got, err := job().Path(canonical)
	if err != nil || got != "/x/s3cret" {
		t.Errorf("%q, %v", got, err)
	}
}

var queryRules = []rule{
	{"empty", "", ""},
	{"none", "?a=1&b=%20", "?a=1&b=%20"},
	{"a value", "?a=1&key=" + ph + "KEY&b=%20", "?a=1&key=s3cret&b=%20"},
	{"an encoded one", "?key=openshell%3Aresolve%3Aenv%3AKEY", "?key=s3cret"},
	{"escaped", "?key=" + ph + "AMP&k=" + ph + "SPACE&p=" + ph + "PERCENT", "?key=a%26b%3Dc&k=a%20b&p=a%252Fb%2Bc"},
	{"inside a value", "?sig=a." + ph + "KEY.b%2Bc", "?sig=a.s3cret.b%2Bc"},
	{"a name", "?" + ph + "KEY=1", "500 a placeholder stands in the name of a parameter of the query, where none is replaced"},
	{"a name alone", "?" + ph + "KEY", "500 a placeholder stands in the name of a parameter of the query, where none is replaced"},
	{"encoded twice", "?a=openshell%253Aresolve:env:KEY", "500 a placeholder stands in a parameter of the query, where none is replaced"},
	{"a broken escape beside it", "?a=%zz" + ph + "KEY", "500 a placeholder stands in a malformed parameter of the query, where none is replaced"},
	{"across parameters", "?openshell:resolve&:env:KEY", "?openshell:resolve&:env:KEY"},
}

func TestQueries(t *testing.T) { run(t, queryRules, (*Job).Query) }

func TestRedactedTargets(t *testing.T) {
	for _, c := range [][4]string{
		{"/a", "?b=c", "/a", "?b=c"},
		{"/bot" + ph + "KEY/x", "?a=1&k=" + ph + "KEY&b=%20", "/bot[CREDENTIAL]/x", "?a=1&k=[CREDENTIAL]&b=%20"},
		{"/", "?k=x.openshell%3Aresolve:env:KEY.y", "/", "?k=x.[CREDENTIAL].y"},
		{"/%256Fpenshell:resolve:env:K", "?" + ph + "K=1&a=2", "/[CREDENTIAL]", "?[CREDENTIAL]&a=2"},
		{"/", "?a=openshell%253Aresolve:env:KEY", "/", "?a=[CREDENTIAL]"},
		{"/", "?a=%zz" + ph + "K", "/", "?a=[CREDENTIAL]"},
	} {
		path, query := Redact(c[0], c[1])
		if path != c[2] || query != c[3] {
			t.Errorf("%s%s: %s%s", c[0], c[1], path, query)
		}
	}
}

var bodyRules = []struct {
	rule
	contentType string
}{
	{rule{"JSON without one", `{"a":"\u00fc"}`, `{"a":"\u00fc"}`}, "application/json"},
	{rule{"JSON", `{"token": "` + ph + `KEY", "n": 1.50}`, `{"token": "s3cret", "n": 1.50}`}, "application/json; charset=UTF-8"},
	{rule{"a part of a string", `["\ud83d\ude00\/x ` + ph + `KEY\n", "\u00e9"]`, `["\ud83d\ude00\/x s3cret\n", "\u00e9"]`}, "application/json"},
	{rule{"quotes are escaped", `{"t":"` + ph + `QUOTE"}`, `{"t":"a\"b\\c"}`}, "application/json"},
	{rule{"controls are escaped", `{"t":"` + ph + `TAB"}`, `{"t":"a\tb"}`}, "application/json"},
	{rule{"line separators are escaped", `{"t":"` + ph + `NEW"}`, `{"t":"line\u2028end"}`}, "application/json"},
	{rule{"spelled with escapes", `{"t":"\u006fpenshell\u003Aresolve:env:KE\u0059"}`, `{"t":"s3cret"}`}, "application/json"},
	{rule{"an alias", `{"t":"Bearer ` + ali + `KEY"}`, `{"t":"Bearer s3cret"}`}, "application/vnd.api+json"},
	{rule{"nested", `{"a":[{"b":"` + ph + `KEY"}]}`, `{"a":[{"b":"s3cret"}]}`}, "application/json"},
	{rule{"bytes are no JSON", `{"t":"` + ph + `BYTES"}`, "500 the value of the key BYTES cannot stand here: it is not UTF-8"}, "application/json"},
	{rule{"a name", `{"` + ph + `KEY" : 1}`, "500 a placeholder stands in the name of a JSON member, where none is replaced"}, "application/json"},
	{rule{"percent-encoded in JSON", `{"u":"https://a/?t=openshell%3Aresolve:env:KEY"}`, "500 a placeholder stands in a JSON string, where none is replaced"}, "application/json"},
	{rule{"percent-encoded and escaped", `{"u":"openshell\u00253Aresolve:env:KEY"}`, "500 a placeholder stands in a JSON string, where none is replaced"}, "application/json"},
	{rule{"a broken JSON", `{"t":"` + ph + `KEY"`, "500 a placeholder stands in a body that is not valid JSON, where none is replaced"}, "application/json"},
	{rule{"a broken JSON without one", `{"t":`, `{"t":`}, "application/json"},
	{rule{"another charset", `{"t":"` + ph + `KEY"}`, "500 a placeholder stands in a body of a type that is not rewritten, where none is replaced"}, "application/json; charset=utf-16"},
	{rule{"a form", "a=b+c&t=openshell%3Aresolve%3Aenv%3AKEY&d=", "a=b+c&t=s3cret&d="}, "application/x-www-form-urlencoded"},
	{rule{"a form is escaped", "t=" + ph + "AMP", "t=a%26b%3Dc"}, "application/x-www-form-urlencoded"},
	{rule{"a form's name", "openshell%3Aresolve%3Aenv%3AKEY=1", "500 a placeholder stands in the name of a parameter of the form, where none is replaced"}, "application/x-www-form-urlencoded"},
	{rule{"text", "key: " + ph + "KEY\n", "key: s3cret\n"}, "text/plain"},
	{rule{"text with an encoded one", "key: %6Fpenshell:resolve:env:KEY\n", "500 a placeholder stands in a text body, where none is replaced"}, "text/plain"},
	{rule{"markup", "<a>" + ph + "KEY</a>", "<a>s3cret</a>"}, "text/xml"},
	{rule{"markup in a value", "<a>" + ph + "MARKUP</a>", "500 the value of the key MARKUP cannot stand here: in markup it has no markup character"}, "text/html"},
	{rule{"text that is not UTF-8", "\xff" + ph + "KEY", "500 a placeholder stands in a text body that is not UTF-8, where none is replaced"}, "text/plain"},
	{rule{"multipart", "--x\r\n\r\n" + ph + "KEY\r\n--x--", "500 a placeholder stands in a body of a type that is not rewritten, where none is replaced"}, "multipart/form-data; boundary=x"},
	{rule{"multipart without one", "--x\r\n\r\n1\r\n--x--", "--x\r\n\r\n1\r\n--x--"}, "multipart/form-data; boundary=x"},
	{rule{"gRPC", "\x00\x00\x00\x00\x05" + ph + "KEY", "500 a placeholder stands in a body of a type that is not rewritten, where none is replaced"}, "application/grpc"},
	{rule{"no type", ph + "KEY", "500 a placeholder stands in a body of a type that is not rewritten, where none is replaced"}, ""},
	{rule{"too much", strings.Repeat(ph+"LONG ", 20), "500 with its values the request is too large"}, "text/plain"},
	{rule{"too much JSON", `["` + strings.Repeat(ph+`LONG","`, 20) + `"]`, "500 with its values the request is too large"}, "application/json"},
	{rule{"the largest body", strings.Repeat("x", MaxBody), strings.Repeat("x", MaxBody)}, "text/plain"},
	{rule{"a larger body", strings.Repeat("x", MaxBody+1), "413 a body in which credentials are replaced has at most 262144 bytes"}, "text/plain"},
}

func TestBodies(t *testing.T) {
	for _, c := range bodyRules {
		run(t, []rule{c.rule}, func(j *Job, in string) (string, error) {
			out, err := j.Body(http1.Fields{{Name: "content-type", Value: c.contentType}}, []byte(in))
			return string(out), err
		})
	}
}

func TestCompressedBodiesAndTwoTypesAreRefused(t *testing.T) {
	for _, f := range []http1.Fields{
		{{Name: "Content-Encoding", Value: "gzip"}}, {{Name: "Content-Encoding", Value: "identity, br"}}, {{Name: "grpc-encoding", Value: "gzip"}},
		{{Name: "Content-Encoding", Value: "identity"}, {Name: "content-encoding", Value: "zstd"}},
	} {
		if _, err := job().Body(f, []byte("x")); err == nil || readable(f) == nil {
			t.Errorf("%v passes", f)
		}
	}
	for _, f := range []http1.Fields{nil, {{Name: "Content-Encoding", Value: "identity"}}, {{Name: "Content-Encoding", Value: ""}}} {
		if err := readable(f); err != nil {
			t.Errorf("%v: %v", f, err)
		}
	}
	two := http1.Fields{{Name: "Content-Type", Value: "application/json"}, {Name: "Content-Type", Value: "text/plain"}}
	if _, err := job().Body(two, []byte(`"`+ph+`KEY"`)); err == nil {
		t.Error("a body of two types is rewritten")
	}
}

func TestWebSocketMessages(t *testing.T) {
	run(t, []rule{
		{"none", "hello", "hello"},
		{"text", "AUTH " + ph + "KEY", "AUTH s3cret"},
		{"JSON is escaped", `{"t":"` + ph + `QUOTE"}`, `{"t":"a\"b\\c"}`},
		{"JSON spelled with escapes", `{"t":"openshell\u003aresolve:env:KEY"}`, `{"t":"s3cret"}`},
		{"an encoded one", "AUTH openshell%3aresolve:env:KEY", "500 a placeholder stands in a text body, where none is replaced"},
		{"not UTF-8", "\xff" + ph + "KEY", "500 a placeholder stands in a message that is not UTF-8, where none is replaced"},
		{"unknown", ph + "OTHER", "500 no credential with the key OTHER is known"},
	}, func(j *Job, in string) (string, error) {
		out, err := j.Message([]byte(in))
		return string(out), err
	})
}

func TestOneRequestUsesABoundedNumberOfKeys(t *testing.T) {
	many := vault{}
	var line strings.Builder
	for i := range maxUses + 1 {
		many[fmt.Sprintf("K%d", i)] = "v"
		fmt.Fprintf(&line, "%sK%d ", ph, i)
		_, err := New(permit(), "/", many).Message([]byte(line.String()))
		if (err != nil) != (i == maxUses) {
			t.Fatalf("%d keys: %v", i+1, err)
		}
	}
}

// fuzzed is a vault in which every key has the value under test.
type fuzzed string

func (f fuzzed) Resolve(decide.Permit, string, placeholder.Reference) (secret.Value, inject.Use, error) {
	return secret.New(string(f)), inject.Use{Key: "KEY", Revision: 1}, nil
}

// FuzzHeader: what comes out has no marker, no line end and, among other parts, no
// more parts than before.
func FuzzHeader(f *testing.F) {
	for _, r := range headerRules {
		if len(r.in) < 1000 {
			f.Add(r.in, "value")
		}
	}
	f.Add("a="+ph+"K; b=1", "x; admin=1")
	f.Fuzz(func(t *testing.T, in, value string) {
		if strings.ContainsAny(in+value, "\r\n\x00") {
			return // heads and values have none
		}
		out, err := New(permit(), "/", fuzzed(value)).Fields(http1.Fields{{Name: "X", Value: in}})
		if err != nil {
			if _, ok := errors.AsType[*inject.Error](err); !ok || out != nil {
				t.Fatalf("%v beside %v", err, out)
			}
			return
		}
		got := out[0].Value
		if placeholder.Found(got) || strings.ContainsAny(got, "\r\n\x00") {
			t.Fatalf("%q became %q", in, got)
		}
		if !placeholder.Found(in) {
			if _, ok := basic(in); !ok && got != in {
				t.Fatalf("%q without a placeholder became %q", in, got)
			}
		}
		if _, ok := basic(in); !ok && strings.Contains(in, "=") && strings.Count(got, ";") != strings.Count(in, ";") {
			t.Fatalf("%q has other parts than %q", got, in)
		}
	})
}

// FuzzPath: the path keeps its segments, and means the same to the canonical reading.
func FuzzPath(f *testing.F) {
	for _, r := range pathRules {
		f.Add(r.in, "value")
	}
	f.Add("/a/"+ph+"K/b", "../x")
	f.Fuzz(func(t *testing.T, in, value string) {
		canonical, err := http1.CanonicalPath(in, false)
		if err != nil {
			return
		}
		out, err := New(permit(), "/", fuzzed(value)).Path(canonical)
		if err != nil {
			return
		}
		again, err := http1.CanonicalPath(out, false)
		if err != nil && placeholder.Found(canonical) {
			return // bytes of the value that are no UTF-8
		}
		if strings.Count(again, "/") != strings.Count(canonical, "/") && value != "" || placeholder.Found(out) {
			t.Fatalf("%q became %q, read as %q", canonical, out, again)
		}
		redacted, _ := Redact(canonical, "")
		if placeholder.Found(redacted) {
			t.Fatalf("%q redacted is %q", canonical, redacted)
		}
	})
}

// FuzzParameters: names and their number stay, other values stay, and the value
// arrives as it is.
func FuzzParameters(f *testing.F) {
	for _, r := range queryRules {
		f.Add(r.in, "value")
	}
	f.Add("?a="+ph+"K&b=1", "x&admin=1")
	f.Fuzz(func(t *testing.T, in, value string) {
		if in != "" && in[0] != '?' {
			in = "?" + in
		}
		out, err := New(permit(), "/", fuzzed(value)).Query(in)
		if err != nil {
			return
		}
		if _, redacted := Redact("/", in); placeholder.Found(redacted) || placeholder.Found(out) {
			t.Fatalf("%q redacted is %q, rewritten %q", in, redacted, out)
		}
		before, after := strings.Split(in, "&"), strings.Split(out, "&")
		if len(before) != len(after) {
			t.Fatalf("%q became %q", in, out)
		}
		for i := range before {
			if !placeholder.Found(before[i]) {
				if before[i] != after[i] {
					t.Fatalf("%q became %q", before[i], after[i])
				}
				continue
			}
			n1, v1, _ := strings.Cut(before[i], "=")
			n2, v2, _ := strings.Cut(after[i], "=")
			text, err1 := url.QueryUnescape(v1)
			got, err2 := url.QueryUnescape(v2)
			want, _ := placeholder.Replace(text, func(placeholder.Reference, int, int) (string, error) { return value, nil })
			if n1 != n2 || err1 != nil || err2 != nil || got != want {
				t.Fatalf("%q became %q: %q, want %q", before[i], after[i], got, want)
			}
		}
	})
}

// FuzzJSON: what was JSON is JSON with the same structure, and each string is what it
// was with the value in the place of the placeholder.
func FuzzJSON(f *testing.F) {
	for _, r := range bodyRules {
		if strings.HasPrefix(r.contentType, "application/json") && len(r.in) < 1000 {
			f.Add([]byte(r.in), `va"lue\`)
		}
	}
	f.Fuzz(func(t *testing.T, in []byte, value string) {
		out, err := New(permit(), "/", fuzzed(value)).Message(in)
		if err != nil || !json.Valid(in) {
			if err == nil && placeholder.FoundBytes(out) {
				t.Fatalf("%q became %q", in, out)
			}
			return
		}
		var before, after any
		if json.Unmarshal(in, &before) != nil {
			return // a number that Go does not hold
		}
		if err := json.Unmarshal(out, &after); err != nil {
			t.Fatalf("%q became %q: %v", in, out, err)
		}
		if diff := cmp.Diff(replaceIn(before, value), after); diff != "" {
			t.Fatalf("%q became %q\n%s", in, out, diff)
		}
	})
}

func replaceIn(v any, value string) any {
	switch v := v.(type) {
	case string:
		out, _ := placeholder.Replace(v, func(placeholder.Reference, int, int) (string, error) { return value, nil })
		return out
	case []any:
		for i := range v {
			v[i] = replaceIn(v[i], value)
		}
		return v
	case map[string]any:
		for k := range v {
			v[k] = replaceIn(v[k], value)
		}
		return v
	default:
		return v
	}
}

// BenchmarkRequest rewrites the head of a usual request with one credential.
func BenchmarkRequest(b *testing.B) {
	fields := http1.Fields{
		{Name: "Host", Value: "api.example.com"}, {Name: "User-Agent", Value: "curl/8.14.1"}, {Name: "Accept", Value: "application/json"},
		{Name: "Accept-Encoding", Value: "gzip, deflate, br"}, {Name: "Content-Type", Value: "application/json"}, {Name: "Content-Length", Value: "180"},
		{Name: "X-Request-Id", Value: "5f2b9c1e-8a3d-4c8e-9d6f-1b2a3c4d5e6f"}, {Name: "Cookie", Value: "a=1; theme=dark; lang=en"},
		{Name: "Referer", Value: "https://www.example.com/a?b=%20c"}, {Name: "Authorization", Value: "Bearer " + ph + "KEY"},
	}
	run := func(b *testing.B, fields http1.Fields, want int) {
		b.ReportAllocs()
		for b.Loop() {
			j := job()
			_, err1 := j.Fields(fields)
			_, err2 := j.Path("/repos/owner/name/issues")
			_, err3 := j.Query("?state=open&per_page=100&q=a%20b")
			if err1 != nil || err2 != nil || err3 != nil || len(j.Uses()) != want {
				b.Fatal(err1, err2, err3)
			}
		}
	}
	b.Run("bearer", func(b *testing.B) { run(b, fields, 1) })
	b.Run("without", func(b *testing.B) { run(b, fields[:9], 0) })
	b.Run("basic", func(b *testing.B) {
		run(b, append(fields[:9:9], http1.Field{Name: "Authorization", Value: basicOf("user:" + ph + "KEY")}), 1)
	})
	body := []byte(`{"model":"large","key":"` + ph + `KEY","messages":[{"role":"user","content":"Say hello."}]}`)
	b.Run("json body", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			if _, err := job().Body(http1.Fields{{Name: "Content-Type", Value: "application/json"}}, body); err != nil {
				b.Fatal(err)
			}
		}
	})
}
