package sigv4

import (
	"bufio"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"net"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/splitpod/splitpod/cmd/supervisor-network/internal/decide"
	"github.com/splitpod/splitpod/cmd/supervisor-network/internal/http1"
	"github.com/splitpod/splitpod/cmd/supervisor-network/internal/inject"
	"github.com/splitpod/splitpod/cmd/supervisor-network/internal/inject/credentials"
	"github.com/splitpod/splitpod/cmd/supervisor-network/internal/inject/secret"
	"github.com/splitpod/splitpod/pkg/core"
	"github.com/splitpod/splitpod/pkg/core/policy"
)

// permit makes a real Permit: there is no other way to one.
func permit(t testing.TB, host string, options ...string) decide.Permit {
	t.Helper()
	text := fmt.Sprintf("version: 1\nnetwork_policies:\n  a:\n    endpoints: [{host: %s, port: 443%s}]\n    binaries: [{path: /bin/a}]\n", host, strings.Join(options, ""))
	doc, _, err := policy.Parse("p", []byte(text))
	if err != nil {
		t.Fatal(err)
	}
	snapshot, err := decide.Compile(t.Context(), doc, decide.Options{Generation: 1, IgnoreBinaries: true})
	if err != nil {
		t.Fatal(err)
	}
	p, denial := snapshot.Connection(t.Context(), decide.Question{Who: &core.Identity{}, Host: host, Port: 443})
	if denial != nil {
		t.Fatal(denial)
	}
	return p
}

// suite are the keys, the time and the scope of the AWS test suite.
var (
	suiteKeys = Keys{AccessKey: secret.New("AKIDEXAMPLE"), Secret: secret.New("wJalrXUtnFEMI/K7MDENG+bPxRfiCYEXAMPLEKEY")}
	suiteTime = time.Date(2015, 8, 30, 12, 36, 0, 0, time.UTC)
)

func signer(at time.Time) *Signer { return New(func() time.Time { return at }) }

func authorization(s Signed) string {
	v, _ := s.Fields.Get("Authorization")
	return v
}

// TestPublishedVectors signs requests of the AWS Signature Version 4 test suite. It
// leaves out the ones whose signature no HTTP/1.1 request with a body has, because
// the SDK signs its length, which the suite does not.
func TestPublishedVectors(t *testing.T) {
	const unreserved = "-._~0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"
	p := permit(t, "example.amazonaws.com")
	for _, c := range []struct {
		name, method, path, query string
		fields                    http1.Fields
		body, signed, signature   string
	}{
		{"get-vanilla", "GET", "/", "", nil, "", "host;x-amz-date", "5fa00fa31553b73ebf1942676e86291e8372ff2a2260956d9b8aae1d763fbf31"},
		{"get-vanilla-query-order-key-case", "GET", "/", "?Param2=value2&Param1=value1", nil, "", "host;x-amz-date", "b97d918cfa904a5beff61c982a1b6f458b799221646efd99d3219ec94cdf2500"},
		{"get-vanilla-query-unreserved", "GET", "/", "?" + unreserved + "=" + unreserved, nil, "", "host;x-amz-date", "9c3e54bfcdf0b19771a7f523ee5669cdf59bc7cc0884027167c21bb143a40197"},
		{"get-vanilla-utf8-query", "GET", "/", "?%E1%88%B4=bar", nil, "", "host;x-amz-date", "2cdec8eed098649ff3a119c94853b13c643bcf08f8b0a1d91e12c9027818dd04"},
		{"get-unreserved", "GET", "/" + unreserved, "", nil, "", "host;x-amz-date", "07ef7494c76fa4850883e2b006601f940f8a34d404d0cfa977f52a65bbf5f24f"},
		{"get-header-key-duplicate", "GET", "/", "", http1.Fields{{Name: "My-Header1", Value: "value2"}, {Name: "My-Header1", Value: "value2"}, {Name: "My-Header1", Value: "value1"}}, "", "host;my-header1;x-amz-date", "c9d5ea9f3f72853aea855b47ea873832890dbdd183b4468f858259531a5138ea"},
		{"get-header-value-order", "GET", "/", "", http1.Fields{{Name: "my-header1", Value: "value4"}, {Name: "my-header1", Value: "value1"}, {Name: "my-header1", Value: "value3"}, {Name: "my-header1", Value: "value2"}}, "", "host;my-header1;x-amz-date", "08c7e5a9acfcfeb3ab6b2185e75ce8b1deb5e634ec47601a50643f830c755c01"},
		{"get-header-value-trim", "GET", "/", "", http1.Fields{{Name: "My-Header1", Value: " value1"}, {Name: "My-Header2", Value: ` "a   b   c"`}}, "", "host;my-header1;my-header2;x-amz-date", "acc3ed3afb60bb290fc8d2dd0098b9911fcaa05412b367055dee359757a9c736"},
		{"post-vanilla", "POST", "/", "", nil, "", "host;x-amz-date", "5da7c1a2acd57cee7505fc6676e4e544621c30862966e37dddb68e92efbe5d6b"},
		{"post-vanilla-query", "POST", "/", "?Param1=value1", nil, "", "host;x-amz-date", "28038455d6de14eafc1f9222cf5aa6f1a96197d7deb8263271d420d138af7f11"},
		{"post-header-key-sort", "POST", "/", "", http1.Fields{{Name: "My-Header1", Value: "value1"}}, "", "host;my-header1;x-amz-date", "c5410059b04c1ee005303aed430f6e6645f61f4dc9e1461ec8f8916fdf18852c"},
		{"post-header-value-case", "POST", "/", "", http1.Fields{{Name: "My-Header1", Value: "VALUE1"}}, "", "host;my-header1;x-amz-date", "cdbc9802e29d2942e5e10b5bccfdd67c5f22c7c4e8ae67b53629efa58b974b7d"},
		{"post-x-www-form-urlencoded", "POST", "/", "", http1.Fields{{Name: "Content-Type", Value: "application/x-www-form-urlencoded"}}, "Param1=value1", "content-type;host;x-amz-date", "ff11897932ad3f4e8b18135d722051e5ac45fc38421b1da7b9d196a0fe09473a"},
	} {
		// What the client signed with is not to matter.
		fields := append(http1.Fields{{Name: "Authorization", Value: "AWS4-HMAC-SHA256 Credential=dummy"}, {Name: "X-Amz-Date", Value: "20200101T000000Z"}, {Name: "User-Agent", Value: "x"}, {Name: "amz-sdk-request", Value: "attempt=1"}}, c.fields...)
		got, err := signer(suiteTime).Sign(t.Context(), p, suiteKeys, "service", "us-east-1", Request{
			Method: c.method, Host: "example.amazonaws.com", Path: c.path, Query: c.query, Fields: fields,
		}, Payload{}, []byte(c.body))
		want := "AWS4-HMAC-SHA256 Credential=AKIDEXAMPLE/20150830/us-east-1/service/aws4_request, SignedHeaders=" + c.signed + ", Signature=" + c.signature
		if err != nil || authorization(got) != want {
			t.Errorf("%s: %v\n%s\n%s", c.name, err, authorization(got), want)
		}
	}
}

// TestPublishedS3Vectors signs the examples of the S3 API Reference.
func TestPublishedS3Vectors(t *testing.T) {
	keys := Keys{AccessKey: secret.New("AKIAIOSFODNN7EXAMPLE"), Secret: secret.New("wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY")}
	const host = "examplebucket.s3.amazonaws.com"
	p := permit(t, host)
	for _, c := range []struct {
		name, path, query string
		fields            http1.Fields
		signature         string
	}{
		{"get object", "/test.txt", "", http1.Fields{{Name: "Range", Value: "bytes=0-9"}}, "f0e8bdb87c964420e857bd35b5d6ed310bd44f0170aba48dd91039c6036bdb41"},
		{"get bucket lifecycle", "/", "?lifecycle", nil, "fea454ca298b7da1c68078a5d1bdbfbbe0d65c699e0f91ac7a200a0136783543"},
		{"list objects", "/", "?max-keys=2&prefix=J", nil, "34b48302e7b5fa45bde8084f4b7868a86f0a534bc59db6670ed5711ef69dc6f7"},
	} {
		got, err := signer(time.Date(2013, 5, 24, 0, 0, 0, 0, time.UTC)).Sign(t.Context(), p, keys, "s3", "us-east-1", Request{
			Method: "GET", Host: host, Path: c.path, Query: c.query, Fields: c.fields,
		}, Payload{}, nil)
		if err != nil || !strings.HasSuffix(authorization(got), "Signature="+c.signature) {
			t.Errorf("%s: %v\n%s", c.name, err, authorization(got))
		}
	}
}

func refusal(err error) string {
	if err == nil {
		return ""
	}
	e, ok := errors.AsType[*inject.Error](err)
	if !ok {
		return fmt.Sprintf("a %T", err)
	}
	return fmt.Sprintf("%d %s", e.Status, e.Detail)
}

func TestHowTheBodyIsSigned(t *testing.T) {
	digest := strings.Repeat("aB", 32)
	length := func(n int64) http1.Framing { return http1.Framing{Kind: http1.Length, Length: n} }
	chunked := http1.Framing{Kind: http1.Chunked}
	hash := sha256.Sum256([]byte("body"))
	body := hex.EncodeToString(hash[:])
	for _, c := range []struct {
		name    string
		mode    Mode
		client  string // x-amz-content-sha256; "" is absent
		framing http1.Framing
		buffer  bool
		want    string // what is signed of the body, or the refusal
	}{
		{"auto, a digest", Auto, digest, length(4), true, body},
		{"auto, absent", Auto, "", length(4), true, body},
		{"auto, absent, no body", Auto, "", http1.Framing{}, false, body},
		{"auto, unsigned", Auto, unsigned, chunked, false, unsigned},
		{"auto, a trailer", Auto, unsignedTrailer, chunked, false, unsignedTrailer},
		{"auto, chunks that are signed", Auto, "STREAMING-AWS4-HMAC-SHA256-PAYLOAD", length(4), false, "400 the body is signed chunk by chunk (STREAMING-AWS4-HMAC-SHA256-PAYLOAD), which cannot be signed anew; let the client send UNSIGNED-PAYLOAD or the digest of the whole body"},
		{"no body, chunks that are signed", NoBody, "STREAMING-AWS4-HMAC-SHA256-PAYLOAD-TRAILER", length(4), false, "400 the body is signed chunk by chunk (STREAMING-AWS4-HMAC-SHA256-PAYLOAD-TRAILER), which cannot be signed anew; let the client send UNSIGNED-PAYLOAD or the digest of the whole body"},
		{"auto, something else", Auto, "e3b0", length(4), false, "400 x-amz-content-sha256 is not a digest; send the digest of the body or UNSIGNED-PAYLOAD"},
		{"auto, chunked", Auto, "", chunked, false, "411 a body that is signed has a Content-Length"},
		{"auto, a digest, chunked", Auto, digest, chunked, false, "411 a body that is signed has a Content-Length"},
		{"auto, at the limit", Auto, "", length(MaxBody), true, body},
		{"auto, above the limit", Auto, "", length(MaxBody + 1), false, "413 a body that is signed has at most 10485760 bytes; let the client send UNSIGNED-PAYLOAD"},
		{"auto, unsigned, above the limit", Auto, unsigned, length(MaxBody + 1), false, unsigned},
		{"body, unsigned by the client", Body, unsigned, length(4), true, body},
		{"body, chunked", Body, unsigned, chunked, false, "411 a body that is signed has a Content-Length"},
		{"body, a trailer", Body, unsignedTrailer, length(4), false, "400 the body is sent in the client's own chunks, and the endpoint signs whole bodies (sigv4:body)"},
		{"no body, a digest", NoBody, digest, length(4), false, unsigned},
		{"no body, absent", NoBody, "", chunked, false, unsigned},
		{"no body, a trailer", NoBody, unsignedTrailer, chunked, false, unsignedTrailer},
		{"off", Off, "", length(4), false, "500 the endpoint signs no requests"},
	} {
		var fields http1.Fields
		if c.client != "" {
			fields = http1.Fields{{Name: "x-amz-content-sha256", Value: c.client}}
		}
		plan, err := Plan(c.mode, fields, c.framing)
		got := refusal(err)
		if err == nil {
			got = plan.hash([]byte("body"))
		}
		if got != c.want || plan.Buffer != c.buffer {
			t.Errorf("%s: %s, buffer %v", c.name, got, plan.Buffer)
		}
	}
	two := http1.Fields{{Name: "x-amz-content-sha256", Value: digest}, {Name: "X-Amz-Content-Sha256", Value: unsigned}}
	if _, err := Plan(Auto, two, length(4)); err == nil {
		t.Error("two digests pass")
	}
	for word, want := range map[string]Mode{"sigv4": Auto, "sigv4:body": Body, "sigv4:no_body": NoBody, "": Off, "sigv4a": Off} {
		if got := ParseMode(word); got != want {
			t.Errorf("%q is mode %d", word, got)
		}
	}
}

func TestTheRegionOfAHost(t *testing.T) {
	for host, want := range map[string]string{
		"bedrock-runtime.us-east-1.amazonaws.com":   "us-east-1",
		"bucket.s3.eu-central-1.amazonaws.com":      "eu-central-1",
		"s3.dualstack.us-west-2.amazonaws.com":      "us-west-2",
		"s3.us-west-2.dualstack.amazonaws.com":      "us-west-2",
		"s3-us-west-2.amazonaws.com":                "us-west-2",
		"sts.us-gov-west-1.amazonaws.com":           "us-gov-west-1",
		"s3.cn-north-1.amazonaws.com.cn":            "cn-north-1",
		"sts.amazonaws.com":                         "us-east-1",
		"iam.amazonaws.com":                         "us-east-1",
		"my-bucket-1.s3.amazonaws.com":              "us-east-1",
		"s3.amazonaws.com":                          "us-east-1",
		"s3.amazonaws.com.cn":                       "",
		"us-east-1.amazonaws.com.evil.test":         "",
		"x.us-east-1.evilamazonaws.com":             "",
		"amazonaws.com":                             "",
		"dualstack.amazonaws.com":                   "",
		"abc.execute-api.ap-south-1.amazonaws.com":  "ap-south-1",
		"vpce-1-a.s3.us-east-1.vpce.amazonaws.com":  "",
		"minio.example.com":                         "",
		"us-east-1.amazonaws.com":                   "us-east-1",
		"s3.fips.us-east-1.amazonaws.com":           "us-east-1",
		"bucket-2.s3-accelerate.amazonaws.com":      "",
		"bedrock-runtime.us-east-1.amazonaws.com.":  "",
		"bedrock.us-east-1a.amazonaws.com":          "",
		"bedrock.europe.amazonaws.com":              "",
		"x.s3-object-lambda.us-east-1.amazonaws.cn": "",
	} {
		got, ok := regionOf(host)
		if ok != (want != "") || ok && got != want {
			t.Errorf("%s: %q, %v", host, got, ok)
		}
	}
}

func TestWhatIsNotSignedIsSaid(t *testing.T) {
	p := permit(t, "bucket.s3.us-east-1.amazonaws.com")
	base := Request{Method: "GET", Host: "bucket.s3.us-east-1.amazonaws.com", Path: "/"}
	for _, c := range []struct {
		name   string
		p      decide.Permit
		change func(*Request)
		want   string
	}{
		{"presigned", p, func(r *Request) {
			r.Query = "?X-Amz-Algorithm=AWS4-HMAC-SHA256&X-Amz-Credential=a&X-Amz-Signature=b"
		}, "400 a presigned URL is not signed anew; send the request without its signature"},
		{"SigV4A", p, func(r *Request) {
			r.Fields = http1.Fields{{Name: "Authorization", Value: "AWS4-ECDSA-P256-SHA256 Credential=x"}}
		}, "400 SigV4A, with keys for several regions, is not supported; let the client use SigV4"},
		{"a region set", p, func(r *Request) { r.Fields = http1.Fields{{Name: "x-amz-region-set", Value: "*"}} }, "400 SigV4A, with keys for several regions, is not supported; let the client use SigV4"},
		{"a query that has two readings", p, func(r *Request) { r.Query = "?a=1;b=2" }, "400 the query cannot be read, and a signature covers it"},
		{"a broken query", p, func(r *Request) { r.Query = "?a=%zz" }, "400 the query cannot be read, and a signature covers it"},
		{"no decision", decide.Permit{}, func(*Request) {}, "500 credentials go only into requests that are inspected and permitted"},
		{"not inspected", permit(t, "bucket.s3.us-east-1.amazonaws.com", ", tls: skip"), func(*Request) {}, "500 credentials go only into requests that are inspected and permitted"},
		{"no region", permit(t, "minio.example.com"), func(*Request) {}, "500 the region cannot be derived from the host; the policy's signing_region names it"},
	} {
		r := base
		c.change(&r)
		got, err := signer(suiteTime).Sign(t.Context(), c.p, suiteKeys, "s3", "", r, Payload{}, nil)
		if refusal(err) != c.want || got.Fields != nil {
			t.Errorf("%s: %s", c.name, refusal(err))
		}
	}
}

// verify recomputes a signature from the bytes of a request, by the published
// algorithm and without the SDK. It returns what is wrong.
func verify(raw string, keys Keys, service, region string, s3 bool) string {
	head, body, _ := strings.Cut(raw, "\r\n\r\n")
	lines := strings.Split(head, "\r\n")
	parts := strings.Split(lines[0], " ")
	path, query, _ := strings.Cut(parts[1], "?")
	fields := map[string][]string{}
	for _, line := range lines[1:] {
		name, value, _ := strings.Cut(line, ":")
		fields[strings.ToLower(name)] = append(fields[strings.ToLower(name)], strings.Join(strings.Fields(value), " "))
	}
	auth := fields["authorization"]
	if len(auth) != 1 {
		return fmt.Sprintf("%d Authorization fields", len(auth))
	}
	_, signed, _ := strings.Cut(auth[0], "SignedHeaders=")
	signed, signature, _ := strings.Cut(signed, ", Signature=")
	var canonical strings.Builder
	for name := range strings.SplitSeq(signed, ";") {
		canonical.WriteString(name + ":" + strings.Join(fields[name], ",") + "\n")
	}
	segments := strings.Split(path, "/")
	for i, segment := range segments {
		text, err := url.PathUnescape(segment)
		if err != nil {
			return err.Error()
		}
		segments[i] = awsEscape(text, false)
	}
	uri := strings.Join(segments, "/")
	if !s3 {
		uri = awsEscape(uri, true)
	}
	var pairs []string
	for pair := range strings.SplitSeq(query, "&") {
		name, value, _ := strings.Cut(pair, "=")
		name, _ = url.PathUnescape(name)
		value, _ = url.PathUnescape(value)
		if pair != "" {
			pairs = append(pairs, awsEscape(name, false)+"="+awsEscape(value, false))
		}
	}
	slices.Sort(pairs)
	hash := fields["x-amz-content-sha256"]
	if sum := sha256.Sum256([]byte(body)); hash == nil || len(hash[0]) == 64 {
		if want := hex.EncodeToString(sum[:]); hash != nil && hash[0] != want {
			return "the stated digest is not the body's"
		}
		hash = []string{hex.EncodeToString(sum[:])}
	}
	request := strings.Join([]string{parts[0], uri, strings.Join(pairs, "&"), canonical.String(), signed, hash[0]}, "\n")
	sum := sha256.Sum256([]byte(request))
	date := fields["x-amz-date"][0]
	scope := date[:8] + "/" + region + "/" + service + "/aws4_request"
	text := "AWS4-HMAC-SHA256\n" + date + "\n" + scope + "\n" + hex.EncodeToString(sum[:])
	key := []byte("AWS4" + keys.Secret.Expose())
	for _, part := range []string{date[:8], region, service, "aws4_request", text} {
		mac := hmac.New(sha256.New, key)
		mac.Write([]byte(part))
		key = mac.Sum(nil)
	}
	if want := hex.EncodeToString(key); want != signature {
		return "the signature does not match\n" + request
	}
	return ""
}

func awsEscape(s string, path bool) string {
	var b strings.Builder
	for _, c := range []byte(s) {
		if strings.IndexByte("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-._~", c) >= 0 || path && c == '/' {
			b.WriteByte(c)
		} else {
			fmt.Fprintf(&b, "%%%02X", c)
		}
	}
	return b.String()
}

// render writes a signed request as it is sent.
func render(r Request, s Signed, body string) string {
	var b strings.Builder
	fmt.Fprintf(&b, "%s %s%s HTTP/1.1\r\nHost: %s\r\n", r.Method, s.Path, s.Query, r.Host)
	for _, f := range s.Fields {
		fmt.Fprintf(&b, "%s: %s\r\n", f.Name, f.Value)
	}
	if r.Framing.Kind == http1.Length {
		fmt.Fprintf(&b, "Content-Length: %d\r\n", r.Framing.Length)
	}
	return b.String() + "\r\n" + body
}

func TestAnIndependentReaderAcceptsTheSignature(t *testing.T) {
	keys := suiteKeys
	for _, c := range []struct {
		name, service, method, path, query, body string
		session                                  bool
		fields                                   http1.Fields
	}{
		{name: "S3, a plain key", service: "s3", method: "GET", path: "/bucket/key"},
		{name: "S3, a key with spaces and percent signs", service: "s3", method: "GET", path: "/b/a%20b%25c%2bd.txt"},
		{name: "S3, a key with sub-delimiters", service: "s3", method: "PUT", path: "/b/(1)+$&'!*,=:@;x", body: "hello"},
		{name: "S3, empty segments and dots", service: "s3", method: "GET", path: "/b//x/../y/./z"},
		{name: "S3, an encoded slash", service: "s3", method: "GET", path: "/b/a%2Fb"},
		{name: "S3, a query", service: "s3", method: "GET", path: "/b", query: "?prefix=a%20b%2Fc&list-type=2&marker=&uploads"},
		{name: "S3, a session", service: "s3", method: "GET", path: "/b", session: true},
		{name: "S3 object lambda", service: "s3-object-lambda", method: "GET", path: "/b/a%20b"},
		{name: "Bedrock, a model with a colon", service: "bedrock", method: "POST", path: "/model/anthropic.claude-3:1/invoke", body: `{"a":1}`, session: true},
		{name: "Bedrock, an encoded ARN", service: "bedrock", method: "POST", path: "/model/arn%3Aaws%3Abedrock%2Fx/invoke", body: "{}"},
		{name: "STS", service: "sts", method: "POST", path: "/", body: "Action=GetCallerIdentity&Version=2011-06-15", fields: http1.Fields{{Name: "Content-Type", Value: "application/x-www-form-urlencoded; charset=utf-8"}}},
		{name: "fields with spaces, several values", service: "sts", method: "GET", path: "/", fields: http1.Fields{{Name: "X-A", Value: "a   b"}, {Name: "x-a", Value: "c"}, {Name: "Cookie", Value: "a=b"}}},
	} {
		t.Run(c.name, func(t *testing.T) {
			r := Request{Method: c.method, Host: "h.us-east-1.amazonaws.com", Path: c.path, Query: c.query, Fields: c.fields}
			if c.body != "" {
				r.Framing = http1.Framing{Kind: http1.Length, Length: int64(len(c.body))}
			}
			keys := keys
			if c.session {
				keys.Session = secret.New("session/token+x==")
			}
			plan, err := Plan(Auto, r.Fields, r.Framing)
			if err != nil {
				t.Fatal(err)
			}
			got, err := New(nil).Sign(t.Context(), permit(t, r.Host), keys, c.service, "", r, plan, []byte(c.body))
			if err != nil {
				t.Fatal(err)
			}
			raw := render(r, got, c.body)
			if problem := verify(raw, keys, c.service, "us-east-1", isS3(c.service)); problem != "" {
				t.Errorf("%s\n%s", problem, raw)
			}
			if problem := verify(strings.Replace(raw, "h.us-east-1", "g.us-east-1", 1), keys, c.service, "us-east-1", isS3(c.service)); problem == "" {
				t.Error("the reader accepts another host")
			}
			if token, _ := got.Fields.Get("X-Amz-Security-Token"); token != keys.Session.Expose() {
				t.Errorf("session token %q", token)
			}
		})
	}
}

// TestASignedRequestSurvivesTheWire sends one through a connection and this daemon's
// own parser.
func TestASignedRequestSurvivesTheWire(t *testing.T) {
	r := Request{Method: "PUT", Host: "b.s3.us-east-1.amazonaws.com", Path: "/a%20b/ü", Query: "?x=1", Fields: http1.Fields{{Name: "Content-Type", Value: "text/plain"}}, Framing: http1.Framing{Kind: http1.Length, Length: 2}}
	got, err := New(nil).Sign(t.Context(), permit(t, r.Host), suiteKeys, "s3", "", r, Payload{Buffer: true}, []byte("hi"))
	if err != nil {
		t.Fatal(err)
	}
	client, server := net.Pipe()
	go func() {
		_, _ = io.WriteString(client, render(r, got, "hi"))
		_ = client.Close()
	}()
	head, err := http1.ReadHead(bufio.NewReader(server), http1.MaxRequestHead)
	if err != nil {
		t.Fatal(err)
	}
	parsed, err := http1.ParseRequest(head)
	if err != nil || parsed.Target != "/a%20b/%C3%BC?x=1" {
		t.Fatalf("%v: %+v", err, parsed)
	}
}

func TestKeysComeFromBoundCredentials(t *testing.T) {
	dir := t.TempDir()
	for name, value := range map[string]string{"id": "AKID", "secret": "shh", "session": "token"} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(value), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	load := func(text string) *credentials.Snapshot {
		path := filepath.Join(dir, "credentials.yaml")
		if err := os.WriteFile(path, []byte("version: 1\n"+strings.ReplaceAll(text, "@", dir)), 0o600); err != nil {
			t.Fatal(err)
		}
		s, _, err := credentials.Open(credentials.Config{File: path})
		if err != nil {
			t.Fatal(err)
		}
		return s.Current()
	}
	const bound = ", environment: false, bindings: [{host: '**.amazonaws.com', port: 443}]}\n"
	usual := "credentials:\n  AWS_ACCESS_KEY_ID: {file: @/id" + bound + "  AWS_SECRET_ACCESS_KEY: {file: @/secret" + bound
	p := permit(t, "sts.us-east-1.amazonaws.com")
	keys, uses, err := Resolve(load(usual), p, "/", "")
	if err != nil || keys.AccessKey.Expose() != "AKID" || keys.Secret.Expose() != "shh" || keys.Session.Expose() != "" || len(uses) != 2 {
		t.Errorf("the usual keys: %v, %v", err, uses)
	}
	keys, uses, err = Resolve(load(usual+"  AWS_SESSION_TOKEN: {file: @/session"+bound), p, "/", "")
	if err != nil || keys.Session.Expose() != "token" || len(uses) != 3 {
		t.Errorf("with a session: %v, %v", err, uses)
	}
	other := load("credentials:\n  A: {file: @/secret" + bound + "  B: {file: @/id" + bound + "signing: [{provider: p, access_key_id: A, secret_access_key: B}]\n")
	if keys, _, err = Resolve(other, p, "/", "p"); err != nil || keys.AccessKey.Expose() != "shh" {
		t.Errorf("a provider's own: %v", err)
	}
	for name, s := range map[string]*credentials.Snapshot{"another provider's": other, "the usual": load(usual), "no file": nil} {
		if _, _, err := Resolve(s, p, "/", "q"); refusal(err) != "500 the credentials file has no keys to sign with for the provider that the policy names" {
			t.Errorf("%s keys, for a provider without any: %v", name, err)
		}
	}
	if _, _, err := Resolve(other, p, "/", ""); refusal(err) != "500 no credential with the key AWS_ACCESS_KEY_ID is known" {
		t.Errorf("no keys: %v", err)
	}
	if _, _, err := Resolve(load(usual), permit(t, "evil.test"), "/", ""); refusal(err) != "403 Credential is not authorized for this request endpoint: AWS_ACCESS_KEY_ID" {
		t.Errorf("another host: %v", err)
	}
}

func BenchmarkSign(b *testing.B) {
	p := permit(b, "b.s3.us-east-1.amazonaws.com")
	r := Request{Method: "GET", Host: p.Host(), Path: "/key", Fields: http1.Fields{{Name: "Accept", Value: "*/*"}, {Name: "X-Amz-Content-Sha256", Value: unsigned}}}
	s := New(nil)
	b.ReportAllocs()
	for b.Loop() {
		if _, err := s.Sign(b.Context(), p, suiteKeys, "s3", "", r, Payload{literal: unsigned, state: true}, nil); err != nil {
			b.Fatal(err)
		}
	}
}
