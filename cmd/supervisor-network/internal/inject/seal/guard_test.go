package seal

import (
	"bytes"
	"compress/gzip"
	"context"
	"errors"
	"io"
	"strings"
	"testing"

	"github.com/splitpod/splitpod/cmd/supervisor-network/internal/decide"
	"github.com/splitpod/splitpod/cmd/supervisor-network/internal/http1"
	"github.com/splitpod/splitpod/cmd/supervisor-network/internal/inject"
	"github.com/splitpod/splitpod/cmd/supervisor-network/internal/inject/credentials"
	"github.com/splitpod/splitpod/cmd/supervisor-network/internal/inject/hygiene"
	"github.com/splitpod/splitpod/cmd/supervisor-network/internal/inject/placeholder"
	"github.com/splitpod/splitpod/cmd/supervisor-network/internal/inject/rewrite"
	"github.com/splitpod/splitpod/cmd/supervisor-network/internal/inject/seal/sealtest"
	"github.com/splitpod/splitpod/cmd/supervisor-network/internal/inject/sigv4"
	"github.com/splitpod/splitpod/cmd/supervisor-network/internal/inspect/hold"
	"github.com/splitpod/splitpod/pkg/core"
)

const marker = sealtest.Marker

// keys is a vault whose file binds KEY, and what signs, to api.test:443.
func keys(t testing.TB) *Vault {
	return &Vault{Store: sealtest.Keys(t, "api.test"), Signer: sigv4.New(nil)}
}

// allowed is a request that a policy allows.
type allowed struct {
	permit   decide.Permit
	endpoint decide.Endpoint
}

func allow(t testing.TB, endpoint string) allowed {
	snap, permit := sealtest.Permit(t, endpoint)
	e, _ := snap.Endpoint(permit, "/")
	return allowed{permit, e}
}

// done is a request that was sealed, or not.
type done struct {
	body   hold.Body
	sealed *Sealed
	out    Request
}

// TestNothingGoesInTheClearToAPortOfTLS: no key, no signature and no token.
func TestNothingGoesInTheClearToAPortOfTLS(t *testing.T) {
	file := t.TempDir() + "/c.yaml"
	sealtest.Write(t, file, "version: 1\ntoken_grants:\n  - {name: a, token_endpoint: \"https://sso.test/token\", workload_api: \"unix:///none\", bindings: [{host: api.test, port: 443}]}\n")
	store, _, err := credentials.Open(credentials.Config{File: file})
	if err != nil {
		t.Fatal(err)
	}
	for name, tc := range map[string]struct {
		vault                *Vault
		options, field, body string
	}{
		"a field":     {keys(t), "", marker, "b"},
		"a body":      {keys(t), ", protocol: rest, access: full, request_body_credential_rewrite: true", "f", marker},
		"a signature": {keys(t), ", protocol: rest, access: full, credential_signing: sigv4, signing_service: s3, signing_region: r", "f", "b"},
		"a token":     {&Vault{Store: store}, "", "f", "b"},
	} {
		for _, secure := range []bool{true, false} {
			if secure && name == "a token" {
				continue // nobody gives one
			}
			a, body := allow(t, tc.options), hold.Body{Held: hold.Holding{Of: hold.New(hold.Max)}}
			out := Request{Method: "POST", Authority: "api.test", Sent: "/", Path: "/", Secure: secure, Framing: http1.Framing{Kind: http1.Length, Length: int64(len(tc.body))},
				Fields: http1.Fields{{Name: "Content-Type", Value: "text/plain"}, {Name: "X-Key", Value: tc.field}}}
			_, err := tc.vault.Seal(t.Context(), Allowed{a.permit, &a.endpoint, "/", &body}, &out, func(int) ([]byte, error) { return []byte(tc.body), nil })
			if (err == nil) != secure || err != nil && !strings.Contains(err.Error(), "port 443 is one of TLS") {
				t.Errorf("%s, TLS %v: %v", name, secure, err)
			}
		}
	}
}

// TestATargetInAFieldIsNotCarriedPastBindings, which may be about paths: also where no rule
// reads them.
func TestATargetInAFieldIsNotCarriedPastBindings(t *testing.T) {
	for name, want := range map[string]bool{"X-Rewrite-URL": false, "SCRIPT_NAME": false, "X-Other": true} {
		_, err := sealed1(t, keys(t), allow(t, ""), "", http1.Framing{}, http1.Fields{{Name: name, Value: "/admin"}})
		if (err == nil) != want || err != nil && !strings.Contains(err.Error(), "names another target") {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// sealed1 seals a request with a body.
func sealed1(t testing.TB, v *Vault, g allowed, body string, framing http1.Framing, fields http1.Fields) (*done, error) {
	return sealedIn(t, hold.New(hold.Max), v, g, body, framing, fields)
}

func sealedIn(t testing.TB, room *hold.Bodies, v *Vault, g allowed, body string, framing http1.Framing, fields http1.Fields) (*done, error) {
	t.Helper()
	d := &done{body: hold.Body{Held: hold.Holding{Of: room}},
		out: Request{Method: "POST", Authority: "api.test", Sent: "/", Path: "/", Fields: fields, Framing: framing, Secure: true}}
	var err error
	d.sealed, err = v.Seal(context.Background(), Allowed{g.permit, &g.endpoint, "/", &d.body}, &d.out, func(limit int) ([]byte, error) {
		if len(body) > limit {
			return nil, rewrite.TooLarge()
		}
		length := framing.Length
		if framing.Kind == http1.Chunked {
			length = -1
		}
		return d.body.Held.Read(strings.NewReader(body), length, limit)
	})
	return d, err
}

func sized(n int) http1.Framing { return http1.Framing{Kind: http1.Length, Length: int64(n)} }

func TestABodyIsReadAheadUpToALimit(t *testing.T) {
	v, g := keys(t), allow(t, "")
	for n, ahead := range map[int]bool{maxAhead: true, maxAhead + 1: false} {
		in, refused := sealed1(t, v, g, strings.Repeat("x", n), sized(n), nil)
		if refused != nil || in.body.Read != ahead || (in.sealed.guard == nil) != ahead {
			t.Errorf("%d bytes: %v, read %v, guard %v", n, refused, in.body.Read, in.sealed.guard)
		}
	}
	if in, refused := sealedIn(t, hold.New(4), v, g, "xx", sized(2), nil); refused != nil || in.body.Read || in.sealed.guard == nil {
		t.Errorf("without room a body is searched as it passes: %v", refused)
	}
	if in, refused := sealed1(t, v, g, "", http1.Framing{Kind: http1.Chunked}, nil); refused != nil || in.body.Read || in.sealed.guard == nil {
		t.Errorf("chunks are read ahead: %v", refused)
	}
}

func TestCompressedBodiesAreLookedInto(t *testing.T) {
	v, g := keys(t), allow(t, "")
	zip := func(parts ...string) string {
		var b bytes.Buffer
		w, _ := gzip.NewWriterLevel(&b, gzip.BestSpeed)
		for _, p := range parts {
			_, _ = io.WriteString(w, p)
		}
		_ = w.Close()
		return b.String()
	}
	coded := http1.Fields{{Name: "Content-Encoding", Value: "gzip"}}
	for name, tc := range map[string]struct {
		body   string
		status int
	}{
		"without a marker":          {zip("hello"), 0},
		"with one":                  {zip("k=", marker), 403},
		"with one far inside":       {zip(strings.Repeat("x", maxInflated-len(marker)), marker), 403},
		"at the limit":              {zip(strings.Repeat("x", maxInflated)), 0},
		"above the limit":           {zip(strings.Repeat("x", maxInflated+1)), 500},
		"not in the coding":         {"hello", 500},
		"cut short":                 {zip("hello hello hello")[:20], 500},
		"a marker that is stored":   {strings.Replace(zip("x"), "x", marker, 1) + marker, 403},
		"two members, in the other": {zip("a") + zip(marker), 403},
	} {
		_, refused := sealed1(t, v, g, tc.body, sized(len(tc.body)), coded)
		if got := answered(refused); got != tc.status {
			t.Errorf("%s: status %d, want %d (%v)", name, got, tc.status, refused)
		}
	}
	if _, refused := sealed1(t, v, g, "x", sized(1), http1.Fields{{Name: "Content-Encoding", Value: "br"}}); answered(refused) != 500 {
		t.Errorf("a coding nobody reads: %v", refused)
	}
	if _, refused := sealed1(t, v, g, "x", sized(1), http1.Fields{{Name: "Content-Encoding", Value: "aws-chunked"}}); refused != nil {
		t.Errorf("aws-chunked: %v", refused)
	}
}

// answered is the status that an error is answered with.
func answered(err error) int {
	if e, ok := errors.AsType[*inject.Error](err); ok {
		return e.Status
	}
	if e, ok := errors.AsType[*http1.SyntaxError](err); ok {
		return e.Status
	}
	return 0
}

func reasonOf(err error) core.Reason {
	if e, ok := errors.AsType[*inject.Error](err); ok {
		return e.Reason
	}
	return ""
}

// TestABodyThatIsSealedIsHeld as one that is judged is, and given back.
func TestABodyThatIsSealedIsHeld(t *testing.T) {
	v, g := keys(t), allow(t, ", protocol: rest, access: full, enforcement: enforce, request_body_credential_rewrite: true")
	room := hold.New(4 << 10)
	text := http1.Fields{{Name: "Content-Type", Value: "text/plain"}}
	first, refused := sealedIn(t, room, v, g, "k="+marker, http1.Framing{Kind: http1.Chunked}, text)
	if refused != nil || string(first.body.Content) != "k=REALvalue12345" {
		t.Fatalf("%v, %s", refused, first.body.Content)
	}
	if _, refused := sealedIn(t, room, v, g, "k", sized(1), text); !errors.Is(refused, hold.ErrCrowded) {
		t.Errorf("one too many: %v", refused)
	}
	first.body.Held.Release()
	in, refused := sealedIn(t, room, v, g, "k", sized(1), text)
	if refused != nil {
		t.Errorf("after one was given back: %v", refused)
	}
	if in.body.Held.Release(); room.Held() != 0 {
		t.Errorf("%d bytes are held by nobody", room.Held())
	}
	if _, refused := sealed1(t, v, g, marker+"X", sized(len(marker)+1), text); refused == nil {
		t.Error("an unknown key passed")
	}
}

// TestAGuardHoldsNothingBack: what a marker may begin with passes at once, the byte
// that would complete one never.
func TestAGuardHoldsNothingBack(t *testing.T) {
	for size := 1; size < len(marker)+4; size++ {
		g := &guard{}
		text := "one o" + "two %6f" + marker
		got, err := io.ReadAll(g.around(&pieces{text, size}))
		if !errors.Is(err, placeholder.ErrMarker) || !g.hit.Load() || strings.Contains(string(got), placeholder.Marker) {
			t.Errorf("in pieces of %d: %q, %v", size, got, err)
		}
	}
	g := &guard{}
	r := g.around(strings.NewReader("hello o"))
	if got, err := io.ReadAll(r); err != nil || string(got) != "hello o" || g.hit.Load() {
		t.Errorf("%q, %v", got, err)
	}
	g = &guard{trailers: func() http1.Fields { return http1.Fields{{Name: "X", Value: marker}} }}
	if _, err := io.ReadAll(g.around(strings.NewReader("x"))); !errors.Is(err, placeholder.ErrMarker) {
		t.Errorf("a trailer: %v", err)
	}
}

// pieces yields a text in pieces.
type pieces struct {
	text string
	size int
}

func (p *pieces) Read(b []byte) (int, error) {
	if p.text == "" {
		return 0, io.EOF
	}
	n := copy(b, p.text[:min(p.size, len(p.text))])
	p.text = p.text[n:]
	return n, nil
}

// TestWhatGoesInIsCheckedOnceMore: a value that is replaced between sealing and sending
// is not sent.
func TestWhatGoesInIsCheckedOnceMore(t *testing.T) {
	v, g := keys(t), allow(t, "")
	in, refused := sealed1(t, v, g, "", http1.Framing{}, http1.Fields{{Name: "Authorization", Value: "Bearer " + marker}})
	if refused != nil || in.out.Fields[0].Value != "Bearer REALvalue12345" || v.Recheck(in.sealed) != nil {
		t.Fatalf("%v, %+v", refused, in.out.Fields)
	}
	sealtest.Write(t, v.Current().List()[0].Source, "REALother12345")
	v.Store.Reload()
	if refused := v.Recheck(in.sealed); answered(refused) != 500 || reasonOf(refused) != core.ReasonCredentialUnavailable {
		t.Errorf("a replaced value is sent: %v", refused)
	}
}

// TestAPathReadBeforeItsBindingIsNotJudgedByIt: a path that was nobody's business when
// it was read is not matched with a binding that came meanwhile.
func TestAPathReadBeforeItsBindingIsNotJudgedByIt(t *testing.T) {
	v, g := keys(t), allow(t, "")
	for path, want := range map[string]int{"/v1/x": 0, "/v1/../admin": 400, "//v1": 400, "/v1/%2e%2e/admin": 400, "/a%2fb": 400} {
		out := &Request{Method: "GET", Authority: "api.test", Sent: path, Path: path, Secure: true, Fields: http1.Fields{{Name: "Authorization", Value: "Bearer " + marker}}}
		_, refused := v.Seal(t.Context(), Allowed{g.permit, &decide.Endpoint{}, path, &hold.Body{}}, out, func(int) ([]byte, error) { return nil, nil })
		if answered(refused) != want || want != 0 && out.Fields[0].Value != "Bearer "+marker {
			t.Errorf("%s: %v, %+v", path, refused, out.Fields)
		}
	}
}

func TestWithoutAFilePlaceholdersAreRefused(t *testing.T) {
	v, g := &Vault{}, allow(t, "")
	for _, value := range []string{"Bearer " + marker, "%6f" + marker[1:], "Basic b3BlbnNoZWxsOnJlc29sdmU6ZW52OktFWQ=="} {
		if _, refused := sealed1(t, v, g, "", http1.Framing{}, http1.Fields{{Name: "Authorization", Value: value}}); answered(refused) != 500 {
			t.Errorf("%s: %v", value, refused)
		}
	}
	if in, refused := sealed1(t, v, g, marker, sized(5), nil); refused != nil || in.body.Read {
		t.Errorf("bodies are read without need: %v", refused)
	}
}

// TestAFilterIsKeptForEverySetOfKeys: up to a bound, for one Snapshot, and never for a
// token, which is another one tomorrow.
func TestAFilterIsKeptForEverySetOfKeys(t *testing.T) {
	v := keys(t)
	s := v.Current()
	uses := func(keys ...string) (out []inject.Use) {
		for _, k := range keys {
			out = append(out, inject.Use{Key: k})
		}
		return out
	}
	of := func(keys ...string) *hygiene.Filter { return v.filter(s, uses(keys...), s.Echoes(uses(keys...))) }
	one, two := of("KEY"), of("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY")
	if one == nil || one == two || of("KEY") != one || of("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY") != two || of("AWS_SECRET_ACCESS_KEY") == two {
		t.Error("sets of keys are taken for each other, or made again")
	}
	if got := v.filter(s, uses("grant g"), s.Echoes(uses("KEY"))); got == nil || got == v.filter(s, uses("grant g"), s.Echoes(uses("KEY"))) {
		t.Error("the filter of a token is kept")
	}
	if v.filter(s, uses("KEY"), nil) != nil || v.filter(s, nil, nil) != nil {
		t.Error("a filter for nothing")
	}
	many := []string{"KEY"}
	for len(v.keptKeys()) < maxFilters {
		many = append(many, "KEY")
		of(many...)
	}
	many = append(many, "KEY")
	last, above := of(many[:maxFilters-2]...), of(many...)
	if of(many...) == above || of(many[:maxFilters-2]...) != last || len(v.keptKeys()) != maxFilters {
		t.Errorf("%d filters are kept", len(v.keptKeys()))
	}
	other := keys(t).Current()
	if v.filter(other, uses("KEY"), other.Echoes(uses("KEY"))) == one || len(v.keptKeys()) != 1 {
		t.Error("a filter outlives its keys")
	}
}

// keptKeys are the sets of keys whose filters are kept.
func (v *Vault) keptKeys() (out []string) {
	v.filters.Load().by.Range(func(k, _ any) bool { out = append(out, k.(string)); return true })
	return out
}

// BenchmarkSeal is what credentials add to a request, hygiene's preparation and the
// last check included.
func BenchmarkSeal(b *testing.B) {
	v, g := keys(b), allow(b, ", protocol: rest, access: full, enforcement: enforce")
	rewriting := allow(b, ", protocol: rest, access: full, enforcement: enforce, request_body_credential_rewrite: true")
	signing := allow(b, ", protocol: rest, access: full, enforcement: enforce, credential_signing: sigv4, signing_service: s3, signing_region: eu-west-1")
	plain := http1.Fields{{Name: "Host", Value: "api.test"}, {Name: "User-Agent", Value: "curl/8.14"}, {Name: "Accept", Value: "*/*"}, {Name: "Authorization", Value: "Bearer abcdefgh"}}
	body := `{"grant_type":"password","password":"` + marker + `"}`
	for name, tc := range map[string]struct {
		g      allowed
		body   string
		fields http1.Fields
	}{
		"no placeholder": {g, "", plain},
		"bearer":         {g, "", append(plain[:3:3], http1.Field{Name: "Authorization", Value: "Bearer " + marker})},
		"basic":          {g, "", append(plain[:3:3], http1.Field{Name: "Authorization", Value: "Basic b3BlbnNoZWxsOnJlc29sdmU6ZW52OktFWTp4"})},
		"JSON body":      {rewriting, body, append(plain[:3:3], http1.Field{Name: "Content-Type", Value: "application/json"})},
		"signed":         {signing, "", append(plain[:3:3], http1.Field{Name: "X-Amz-Content-Sha256", Value: "UNSIGNED-PAYLOAD"})},
	} {
		b.Run(name, func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				in, refused := sealed1(b, v, tc.g, tc.body, sized(len(tc.body)), tc.fields)
				if refused != nil || v.Recheck(in.sealed) != nil {
					b.Fatal(refused)
				}
				in.body.Held.Release()
			}
		})
	}
}

func BenchmarkGuard(b *testing.B) {
	for name, data := range map[string][]byte{"text": []byte(strings.Repeat(`{"message":"an ordinary body, with words: and other things"},`, 20000)), "zeros": make([]byte, 1<<20)} {
		b.Run(name, func(b *testing.B) {
			b.SetBytes(int64(len(data)))
			buf := make([]byte, 32<<10)
			for b.Loop() {
				g := &guard{}
				if _, err := io.CopyBuffer(struct{ io.Writer }{io.Discard}, struct{ io.Reader }{g.around(bytes.NewReader(data))}, buf); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}
