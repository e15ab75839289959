package proxy

import (
	"bytes"
	"compress/gzip"
	"context"
	"errors"
	"io"
	"os"
	"strings"
	"testing"

	"github.com/splitpod/splitpod/cmd/supervisor-network/internal/decide"
	"github.com/splitpod/splitpod/cmd/supervisor-network/internal/http1"
	"github.com/splitpod/splitpod/cmd/supervisor-network/internal/inject"
	"github.com/splitpod/splitpod/cmd/supervisor-network/internal/inject/credentials"
	"github.com/splitpod/splitpod/cmd/supervisor-network/internal/inject/hygiene"
	"github.com/splitpod/splitpod/cmd/supervisor-network/internal/inject/placeholder"
	"github.com/splitpod/splitpod/cmd/supervisor-network/internal/inject/rewrite"
	"github.com/splitpod/splitpod/cmd/supervisor-network/internal/inject/sigv4"
	"github.com/splitpod/splitpod/cmd/supervisor-network/internal/inspect/hold"
	"github.com/splitpod/splitpod/pkg/core"
	"github.com/splitpod/splitpod/pkg/core/policy"
)

const marker = placeholder.Marker + "KEY"

// grantFor is a real grant: there is no other way to one.
func grantFor(t testing.TB, endpoint string) *grant {
	t.Helper()
	doc, _, err := policy.Parse("p", []byte("version: 1\nnetwork_policies:\n  a:\n    endpoints: [{host: api.test, port: 443"+endpoint+"}]\n    binaries: [{path: /bin/a}]\n"))
	if err != nil {
		t.Fatal(err)
	}
	snap, err := decide.Compile(t.Context(), doc, decide.Options{Generation: 1, IgnoreBinaries: true})
	if err != nil {
		t.Fatal(err)
	}
	permit, denial := snap.Connection(t.Context(), decide.Question{Who: &core.Identity{}, Host: "api.test", Port: 443})
	if denial != nil {
		t.Fatal(denial)
	}
	return &grant{snap: snap, permit: permit}
}

// keys is a vault whose file binds KEY, and what signs, to api.test:443.
func keys(t testing.TB) *Vault { return keysOf(t, "api.test") }

func keysOf(t testing.TB, host string) *Vault {
	t.Helper()
	dir := t.TempDir()
	write(t, dir+"/key", "REALvalue12345")
	text := "version: 1\ncredentials:\n"
	for _, key := range []string{"KEY", "AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"} {
		text += "  " + key + ": {file: " + dir + "/key, bindings: [{host: " + host + ", port: 443}]}\n"
	}
	write(t, dir+"/c.yaml", text)
	store, _, err := credentials.Open(credentials.Config{File: dir + "/c.yaml"})
	if err != nil {
		t.Fatal(err)
	}
	return &Vault{Store: store, Signer: sigv4.New(nil)}
}

// sealed1 seals a request with a body.
func sealed1(t testing.TB, v *Vault, g *grant, body string, framing http1.Framing, fields http1.Fields) (*incoming, *leaving, *refusal) {
	return sealedIn(t, hold.New(hold.Max), v, g, body, framing, fields)
}

func sealedIn(t testing.TB, room *hold.Bodies, v *Vault, g *grant, body string, framing http1.Framing, fields http1.Fields) (*incoming, *leaving, *refusal) {
	t.Helper()
	in := &incoming{method: "POST", path: "/", held: hold.Holding{Of: room}}
	in.endpoint, _ = g.snap.Endpoint(g.permit, "/")
	out := &leaving{method: "POST", authority: "api.test", sent: "/", path: "/", fields: fields, framing: framing, secure: true}
	refused := v.seal(context.Background(), g, in, out, func(limit int) ([]byte, error) {
		if len(body) > limit {
			return nil, rewrite.TooLarge()
		}
		length := framing.Length
		if framing.Kind == http1.Chunked {
			length = -1
		}
		return in.held.Read(strings.NewReader(body), length, limit)
	})
	return in, out, refused
}

func sized(n int) http1.Framing { return http1.Framing{Kind: http1.Length, Length: int64(n)} }

func TestABodyIsReadAheadUpToALimit(t *testing.T) {
	v, g := keys(t), grantFor(t, "")
	for n, ahead := range map[int]bool{maxAhead: true, maxAhead + 1: false} {
		in, _, refused := sealed1(t, v, g, strings.Repeat("x", n), sized(n), nil)
		if refused != nil || in.read != ahead || (in.sealed.guard == nil) != ahead {
			t.Errorf("%d bytes: %v, read %v, guard %v", n, refused, in.read, in.sealed.guard)
		}
	}
	if in, _, refused := sealedIn(t, hold.New(4), v, g, "xx", sized(2), nil); refused != nil || in.read || in.sealed.guard == nil {
		t.Errorf("without room a body is searched as it passes: %v", refused)
	}
	if in, _, refused := sealed1(t, v, g, "", http1.Framing{Kind: http1.Chunked}, nil); refused != nil || in.read || in.sealed.guard == nil {
		t.Errorf("chunks are read ahead: %v", refused)
	}
}

func TestCompressedBodiesAreLookedInto(t *testing.T) {
	v, g := keys(t), grantFor(t, "")
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
		_, _, refused := sealed1(t, v, g, tc.body, sized(len(tc.body)), coded)
		if got := answered(refused); got != tc.status {
			t.Errorf("%s: status %d, want %d (%v)", name, got, tc.status, refused)
		}
	}
	if _, _, refused := sealed1(t, v, g, "x", sized(1), http1.Fields{{Name: "Content-Encoding", Value: "br"}}); answered(refused) != 500 {
		t.Errorf("a coding nobody reads: %v", refused)
	}
	if _, _, refused := sealed1(t, v, g, "x", sized(1), http1.Fields{{Name: "Content-Encoding", Value: "aws-chunked"}}); refused != nil {
		t.Errorf("aws-chunked: %v", refused)
	}
}

func answered(r *refusal) int {
	if r == nil {
		return 0
	}
	return r.status
}

// TestABodyThatIsSealedIsHeld as one that is judged is, and given back.
func TestABodyThatIsSealedIsHeld(t *testing.T) {
	v, g := keys(t), grantFor(t, ", protocol: rest, access: full, enforcement: enforce, request_body_credential_rewrite: true")
	room := hold.New(firstPiece)
	text := http1.Fields{{Name: "Content-Type", Value: "text/plain"}}
	first, _, refused := sealedIn(t, room, v, g, "k="+marker, http1.Framing{Kind: http1.Chunked}, text)
	if refused != nil || string(first.content) != "k=REALvalue12345" {
		t.Fatalf("%v, %s", refused, first.content)
	}
	if _, _, refused := sealedIn(t, room, v, g, "k", sized(1), text); answered(refused) != 503 || refused.reason != core.ReasonTooManyBodies {
		t.Errorf("one too many: %v", refused)
	}
	first.held.Release()
	in, _, refused := sealedIn(t, room, v, g, "k", sized(1), text)
	if refused != nil {
		t.Errorf("after one was given back: %v", refused)
	}
	if in.held.Release(); room.Held() != 0 {
		t.Errorf("%d bytes are held by nobody", room.Held())
	}
	if _, _, refused := sealed1(t, v, g, marker+"X", sized(len(marker)+1), text); refused == nil {
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
	v, g := keys(t), grantFor(t, "")
	in, out, refused := sealed1(t, v, g, "", http1.Framing{}, http1.Fields{{Name: "Authorization", Value: "Bearer " + marker}})
	if refused != nil || out.fields[0].Value != "Bearer REALvalue12345" || v.recheck(in) != nil {
		t.Fatalf("%v, %+v", refused, out.fields)
	}
	write(t, v.Current().List()[0].Source, "REALother12345")
	v.Store.Reload()
	if refused := v.recheck(in); answered(refused) != 500 || refused.reason != core.ReasonCredentialUnavailable {
		t.Errorf("a replaced value is sent: %v", refused)
	}
}

// TestAPathReadBeforeItsBindingIsNotJudgedByIt: a path that was nobody's business when
// it was read is not matched with a binding that came meanwhile.
func TestAPathReadBeforeItsBindingIsNotJudgedByIt(t *testing.T) {
	v, g := keys(t), grantFor(t, "")
	for path, want := range map[string]int{"/v1/x": 0, "/v1/../admin": 400, "//v1": 400, "/v1/%2e%2e/admin": 400, "/a%2fb": 400} {
		in := &incoming{method: "GET", path: path}
		out := &leaving{method: "GET", authority: "api.test", sent: path, path: path, secure: true, fields: http1.Fields{{Name: "Authorization", Value: "Bearer " + marker}}}
		refused := v.seal(t.Context(), g, in, out, func(int) ([]byte, error) { return nil, nil })
		if answered(refused) != want || want != 0 && out.fields[0].Value != "Bearer "+marker {
			t.Errorf("%s: %v, %+v", path, refused, out.fields)
		}
	}
}

func TestWithoutAFilePlaceholdersAreRefused(t *testing.T) {
	v, g := &Vault{}, grantFor(t, "")
	for _, value := range []string{"Bearer " + marker, "%6f" + marker[1:], "Basic b3BlbnNoZWxsOnJlc29sdmU6ZW52OktFWQ=="} {
		if _, _, refused := sealed1(t, v, g, "", http1.Framing{}, http1.Fields{{Name: "Authorization", Value: value}}); answered(refused) != 500 {
			t.Errorf("%s: %v", value, refused)
		}
	}
	if in, _, refused := sealed1(t, v, g, marker, sized(5), nil); refused != nil || in.read {
		t.Errorf("bodies are read without need: %v", refused)
	}
}

// TestUnreadMessagesEndWhereCredentialsAreBound: on a WebSocket that is open binary messages
// pass until its endpoint gets credentials. One on which none pass stays.
func TestUnreadMessagesEndWhereCredentialsAreBound(t *testing.T) {
	w := newWorld(t, generous, endpoint("ws.example.com", 443, anyText), endpoint("text.example.com", 443, noText))
	dir := t.TempDir()
	write(t, dir+"/key", "REALvalue12345")
	write(t, dir+"/c.yaml", "version: 1\ncredentials: {}\n")
	store, _, err := credentials.Open(credentials.Config{File: dir + "/c.yaml"})
	if err != nil {
		t.Fatal(err)
	}
	w.Vault = &Vault{Store: store}
	w.origin("ws.example.com", 443, echoes(t, nil), "http/1.1")
	w.origin("text.example.com", 443, echoes(t, nil), "http/1.1")
	text := w.streams("text.example.com")
	text.open("text.example.com", "/")
	c := w.streams("ws.example.com")
	stream := c.open("ws.example.com", "/")
	c.say(stream, 0x82, "x")
	if op, payload := c.hear(stream); op != 0x82 || payload != "x" {
		t.Fatalf("%x %q came back", op, payload)
	}
	write(t, dir+"/c.yaml", "version: 1\ncredentials:\n  KEY: {file: "+dir+"/key, bindings: [{host: '*.example.com', port: 443}]}\n")
	store.Reload()
	if n := w.Live.Gate(store.Current().Credentialed); n != 1 {
		t.Fatalf("%d connections ended", n)
	}
	if code, reason := c.closed(stream); code != 1008 || !strings.HasPrefix(gated, reason) || reason == "" {
		t.Errorf("told %d %q", code, reason)
	}
}

func TestTheForwardPathHasItsOwnWord(t *testing.T) {
	for tunnel, want := range map[bool]core.Reason{true: core.ReasonCredentialUnavailable, false: core.ReasonCredentialInjection} {
		s := &session{tunnel: tunnel}
		if got := s.inPlace(uninjected(inject.Unavailable("x"))); got.reason != want {
			t.Errorf("tunnel %v: %s", tunnel, got.reason)
		}
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
	v, g := keys(b), grantFor(b, ", protocol: rest, access: full, enforcement: enforce")
	rewriting := grantFor(b, ", protocol: rest, access: full, enforcement: enforce, request_body_credential_rewrite: true")
	signing := grantFor(b, ", protocol: rest, access: full, enforcement: enforce, credential_signing: sigv4, signing_service: s3, signing_region: eu-west-1")
	plain := http1.Fields{{Name: "Host", Value: "api.test"}, {Name: "User-Agent", Value: "curl/8.14"}, {Name: "Accept", Value: "*/*"}, {Name: "Authorization", Value: "Bearer abcdefgh"}}
	body := `{"grant_type":"password","password":"` + marker + `"}`
	for name, tc := range map[string]struct {
		g      *grant
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
				in, _, refused := sealed1(b, v, tc.g, tc.body, sized(len(tc.body)), tc.fields)
				if refused != nil || v.recheck(in) != nil {
					b.Fatal(refused)
				}
				in.held.Release()
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

func write(t testing.TB, path, text string) {
	t.Helper()
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
}
