package sigv4

import (
	"context"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	v4 "github.com/aws/aws-sdk-go-v2/aws/signer/v4"

	"github.com/splitpod/splitpod/cmd/supervisor-network/internal/decide"
	"github.com/splitpod/splitpod/cmd/supervisor-network/internal/http1"
	"github.com/splitpod/splitpod/cmd/supervisor-network/internal/inject"
	"github.com/splitpod/splitpod/cmd/supervisor-network/internal/inject/credentials"
	"github.com/splitpod/splitpod/cmd/supervisor-network/internal/inject/secret"
)

// Keys are what a request is signed with.
type Keys struct {
	AccessKey, Secret secret.Value
	Session           secret.Value // the zero Value: none
}

// Resolve takes the keys for a provider ("" for the usual one) from the credentials:
// they have to be bound to the endpoint as any other.
func Resolve(s *credentials.Snapshot, p decide.Permit, path, provider string) (Keys, []inject.Use, error) {
	names, known := s.Signing(provider)
	if !known {
		return Keys{}, nil, refuse(500, "the credentials file has no keys to sign with for the provider that the policy names")
	}
	var keys Keys
	var uses []inject.Use
	for _, k := range []struct {
		name string
		into *secret.Value
	}{{names.AccessKey, &keys.AccessKey}, {names.Secret, &keys.Secret}, {names.Session, &keys.Session}} {
		if k.name == "" {
			continue
		}
		v, use, err := s.Value(p, path, k.name)
		if err != nil {
			return Keys{}, nil, err
		}
		*k.into = v
		uses = append(uses, use)
	}
	return keys, uses, nil
}

// Request is what is signed. All of it is as it will be sent.
type Request struct {
	Method  string
	Host    string // as the Host field says: without the scheme's own port
	Path    string // escaped, without query
	Query   string // with its question mark, or ""
	Fields  http1.Fields
	Framing http1.Framing
}

// Signed is what is to be sent in the place of the request's.
type Signed struct {
	Path, Query string
	Fields      http1.Fields
}

// Signer signs. Make it with New. Safe for concurrent use.
type Signer struct {
	once, twice *v4.Signer // by how often paths are escaped
	now         func() time.Time
}

// New makes a Signer; a nil clock is time.Now.
func New(now func() time.Time) *Signer {
	if now == nil {
		now = time.Now
	}
	return &Signer{
		once:  v4.NewSigner(func(o *v4.SignerOptions) { o.DisableURIPathEscaping = true }),
		twice: v4.NewSigner(),
		now:   now,
	}
}

// Sign signs a request on the permitted connection for a service and region of the
// policy; an empty region is derived from the host. The body is needed when the
// Payload says so. It fails with an *inject.Error.
func (s *Signer) Sign(ctx context.Context, p decide.Permit, keys Keys, service, region string, r Request, payload Payload, body []byte) (Signed, error) {
	if !p.Valid() || p.Opaque() {
		return Signed{}, refuse(500, "credentials go only into requests that are inspected and permitted")
	}
	if region == "" {
		var ok bool
		if region, ok = regionOf(p.Host()); !ok {
			return Signed{}, refuse(500, "the region cannot be derived from the host; the policy's signing_region names it")
		}
	}
	if err := signable(r); err != nil {
		return Signed{}, err
	}
	query, err := url.ParseQuery(strings.TrimPrefix(r.Query, "?"))
	if err != nil {
		return Signed{}, refuse(400, "the query cannot be read, and a signature covers it")
	}
	out := Signed{Path: escapeOnce(r.Path), Fields: Strip(r.Fields)}
	hash := payload.hash(body)
	if payload.state || isS3(service) {
		out.Fields = append(out.Fields, http1.Field{Name: contentHashField, Value: hash})
	}
	req := &http.Request{
		Method: r.Method, Host: r.Host, Header: signedFields(out.Fields),
		URL: &url.URL{Scheme: "https", Host: r.Host, Opaque: "//" + r.Host + out.Path, RawQuery: query.Encode()},
	}
	if r.Framing.Kind == http1.Length {
		req.ContentLength = r.Framing.Length
	}
	signer := s.twice
	if isS3(service) {
		signer = s.once
	}
	aws := aws.Credentials{AccessKeyID: keys.AccessKey.Expose(), SecretAccessKey: keys.Secret.Expose(), SessionToken: keys.Session.Expose()}
	if err := signer.SignHTTP(ctx, aws, req, hash, service, region, s.now().UTC()); err != nil {
		return Signed{}, refuse(500, "the request could not be signed")
	}
	for _, name := range []string{"X-Amz-Date", "X-Amz-Security-Token", "Authorization"} {
		if v := req.Header.Get(name); v != "" {
			out.Fields = append(out.Fields, http1.Field{Name: name, Value: v})
		}
	}
	if req.URL.RawQuery != "" {
		out.Query = "?" + req.URL.RawQuery
	}
	return out, nil
}

// Strip removes what the client signed with. It is done before placeholders are
// looked for: the client's key is one, and stands in its Authorization.
func Strip(fields http1.Fields) http1.Fields {
	return fields.Without("authorization", "x-amz-date", "date", "x-amz-security-token", "x-amz-content-sha256", "expect")
}

// signable refuses what is signed in another way.
func signable(r Request) error {
	query := strings.ToLower(r.Query)
	authorization, _ := r.Fields.Get("Authorization")
	_, regions := r.Fields.Get("X-Amz-Region-Set")
	switch {
	case strings.Contains(query, "x-amz-signature") || strings.Contains(query, "x-amz-credential"):
		return refuse(400, "a presigned URL is not signed anew; send the request without its signature")
	case regions > 0 || strings.HasPrefix(strings.ToUpper(authorization), "AWS4-ECDSA"):
		return refuse(400, "SigV4A, with keys for several regions, is not supported; let the client use SigV4")
	default:
		return nil
	}
}

// loose are fields that do not go into a signature, because they end at a proxy or
// change on the way.
var loose = []string{"host", "connection", "accept-encoding", "transfer-encoding", "user-agent", "content-length", "via", "te", "trailer", "upgrade", "keep-alive"}

// signedFields are the fields that the signature covers.
func signedFields(fields http1.Fields) http.Header {
	out := make(http.Header, len(fields))
	for _, f := range fields {
		if !isLoose(f.Name) {
			out.Add(f.Name, f.Value)
		}
	}
	return out
}

func isLoose(name string) bool {
	const sdk = "amz-sdk-"
	return len(name) >= len(sdk) && strings.EqualFold(name[:len(sdk)], sdk) ||
		slices.ContainsFunc(loose, func(l string) bool { return len(l) == len(name) && strings.EqualFold(l, name) })
}

// escapeOnce writes a path as AWS writes it: everything but unreserved characters
// and slashes is escaped, and what is escaped already stays.
func escapeOnce(path string) string {
	const digits = "0123456789ABCDEF"
	var b strings.Builder
	for i := 0; i < len(path); i++ {
		c := path[i]
		switch {
		case c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || c >= '0' && c <= '9' || strings.IndexByte("-._~/", c) >= 0:
			b.WriteByte(c)
		case c == '%' && i+2 < len(path) && isHex(path[i+1]) && isHex(path[i+2]):
			b.WriteString(strings.ToUpper(path[i : i+3]))
			i += 2
		default:
			b.Write([]byte{'%', digits[c>>4], digits[c&15]})
		}
	}
	return b.String()
}

func isHex(c byte) bool {
	return c >= '0' && c <= '9' || c >= 'a' && c <= 'f' || c >= 'A' && c <= 'F'
}
