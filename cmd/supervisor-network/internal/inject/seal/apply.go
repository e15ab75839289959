// Package seal takes one request through the parts of inject, and its answer back.
//
// It answers the threat of a part that is left out, or comes in another order, on one of the
// ways that a request can go: every version of HTTP has its requests sealed here, and every
// relay has the same guard around a body that is only passed on and the same filter over
// what comes back. What goes in is looked at again directly before it is sent (Recheck). It
// does not decide whether the request may go: without a Permit nothing is put in.
//
// Invariant: a request is sealed as a whole or refused, before anything of it is sent; what
// passes unread has no marker in it.
package seal

import (
	"context"
	"net/url"
	"slices"
	"strings"
	"sync"
	"sync/atomic"

	"github.com/splitpod/splitpod/cmd/supervisor-network/internal/decide"
	"github.com/splitpod/splitpod/cmd/supervisor-network/internal/http1"
	"github.com/splitpod/splitpod/cmd/supervisor-network/internal/inject"
	"github.com/splitpod/splitpod/cmd/supervisor-network/internal/inject/credentials"
	"github.com/splitpod/splitpod/cmd/supervisor-network/internal/inject/hygiene"
	"github.com/splitpod/splitpod/cmd/supervisor-network/internal/inject/placeholder"
	"github.com/splitpod/splitpod/cmd/supervisor-network/internal/inject/rewrite"
	"github.com/splitpod/splitpod/cmd/supervisor-network/internal/inject/sigv4"
	"github.com/splitpod/splitpod/cmd/supervisor-network/internal/inspect"
	"github.com/splitpod/splitpod/cmd/supervisor-network/internal/inspect/hold"
	"github.com/splitpod/splitpod/pkg/core"
)

// Request is a request on its way to the origin, of whatever version of HTTP. What
// credentials change of it is changed here.
type Request struct {
	Method, Authority string
	Sent              string // the path as the client wrote it
	Path, Query       string // canonical; with its question mark
	Fields            http1.Fields
	Framing           http1.Framing
	Trailer           []string            // names of what is announced behind the body, and passed on
	Trailers          func() http1.Fields // that, when the body has ended; nil: there is none
	Secure            bool                // TLS to the client, and so to the origin
}

// Allowed is what rules said about a request.
type Allowed struct {
	Permit   decide.Permit
	Endpoint *decide.Endpoint
	Path     string     // as rules and bindings see it
	Body     *hold.Body // as far as they read it; credentials go into it, too
}

// Sealed is what credentials did to a request. A nil one did nothing.
type Sealed struct {
	uses    []inject.Use
	values  []credentials.Echo // that went in and may come back
	filter  *hygiene.Filter    // over the response; nil: nothing to look for
	guard   *guard             // around a body that streams; nil: none
	watched bool               // the endpoint has credentials: nothing passes unread
	echoes  atomic.Int64       // values that were taken out of the response
}

// Uses are the credentials that went in.
func (s *Sealed) Uses() []inject.Use {
	if s == nil {
		return nil
	}
	return s.uses
}

// Watched reports whether the endpoint has credentials: nothing passes unread.
func (s *Sealed) Watched() bool { return s.watched }

// Looks reports whether something is looked for in the answer.
func (s *Sealed) Looks() bool { return s.filter != nil }

// Echoed is how many values were taken out of the answer.
func (s *Sealed) Echoed() int {
	if s == nil {
		return 0
	}
	return int(s.echoes.Load())
}

// Seal puts credentials into a request that rules allow, in the order that package
// inject gives, or says why it cannot go, by an *inject.Error or that of body, which reads
// the whole body. Nothing of the request has been sent.
func (v *Vault) Seal(ctx context.Context, in Allowed, out *Request, body func(limit int) ([]byte, error)) (*Sealed, error) {
	x := sealings.Get().(*sealing)
	defer func() {
		*x = sealing{} // before others have it
		sealings.Put(x)
	}()
	x.v, x.snap, x.in, x.came, x.out, x.body = v, v.Current(), in, out.Fields, *out, body
	x.resolver = v.resolver(x.snap, out.Secure)
	x.job = *rewrite.New(in.Permit, in.Path, &x.resolver)
	s := &Sealed{watched: v.Guarded(in.Permit)}
	x.sealed = s
	err := x.run(ctx)
	*out = x.out
	return s, err
}

// sealings are those that are over: what is left of one is in what it returned.
var sealings = sync.Pool{New: func() any { return new(sealing) }}

// sealing is Seal under way.
type sealing struct {
	v      *Vault
	snap   *credentials.Snapshot
	in     Allowed
	came   http1.Fields // of the request as it came
	out    Request
	body   func(limit int) ([]byte, error)
	sealed *Sealed

	job      rewrite.Job
	resolver resolver

	grant   *credentials.Grant
	mode    sigv4.Mode
	payload sigv4.Payload
	uses    []inject.Use
	echoes  []credentials.Echo
}

func (x *sealing) run(ctx context.Context) error {
	if placeholder.Found(x.out.Method) {
		return inject.Misplaced("the method")
	}
	permit := x.in.Permit
	if x.snap.Credentialed(permit.Host(), permit.Port()) { // perhaps only since the path was read
		if path, err := http1.CanonicalPath(x.out.Path, permit.EncodedSlash()); err != nil || path != x.out.Path {
			return &inject.Error{Status: 400, Reason: core.ReasonInvalidTarget, Detail: "credentials are bound here since this request began, and its path is not in its one spelling: send it again"}
		}
		if inspect.Elsewhere(inspect.Head{Fields: x.out.Fields}) { // what a binding says of paths would be about another one
			return &inject.Error{Status: 400, Reason: core.ReasonInvalidTarget, Detail: "where credentials are bound no field (X-Original-URL, X-Rewrite-URL, SCRIPT_NAME, X-Script-Name) names another target than the request's own, or a part of it"}
		}
	}
	for _, step := range [...]func(*sealing, context.Context) error{
		(*sealing).plan, (*sealing).head, (*sealing).content, (*sealing).token, (*sealing).sign, (*sealing).hygiene,
	} {
		if err := step(x, ctx); err != nil {
			return err
		}
	}
	if x.trailsHead() {
		return &inject.Error{Status: 400, Reason: core.ReasonBadRequest, Detail: "a trailer has the name of no field in front of the body: that was judged, or a credential is in it"}
	}
	if strings.EqualFold(x.out.Method, "TRACE") && len(x.uses) > 0 {
		return inject.Unavailable("TRACE would repeat the request to the client, with its credentials")
	}
	x.sealed.uses = x.uses
	return nil
}

// trailsHead reports whether something is announced behind the body by the name of a field
// that is sent in front of it, which some origins would take for one.
func (x *sealing) trailsHead() bool {
	for _, name := range x.out.Trailer {
		name = http1.AsVariable(name)
		if slices.ContainsFunc(x.out.Fields, func(f http1.Field) bool { return strings.EqualFold(http1.AsVariable(f.Name), name) }) {
			return true
		}
	}
	return false
}

// plan finds what else goes into the request, and takes out of it what the client
// sent in that place, which may be a placeholder of no key.
func (x *sealing) plan(context.Context) (err error) {
	if x.grant, err = x.snap.Grant(x.in.Permit, x.in.Path); err != nil {
		return err
	}
	if x.grant != nil {
		x.out.Fields = x.out.Fields.Without(strings.ToLower(x.grant.Field()))
	}
	x.mode = sigv4.ParseMode(x.in.Endpoint.Signing)
	if x.grant != nil || x.mode != sigv4.Off {
		err = exposed(x.in.Permit.Port(), x.out.Secure)
	}
	if err != nil || x.mode == sigv4.Off {
		return err
	}
	if !sameKey(x.out.Sent, x.out.Path) {
		return &inject.Error{Status: 400, Reason: core.ReasonSigningFailed,
			Detail: "the path has parameters, empty segments or dot segments, which are part of a key for the service and cannot be judged as such; escape them"}
	}
	if x.payload, err = sigv4.Plan(x.mode, x.out.Fields, x.out.Framing); err != nil {
		return err
	}
	x.out.Fields = sigv4.Strip(x.out.Fields)
	return nil
}

// sameKey reports whether a canonical path names the same object as the one that was
// sent, to a service that normalises nothing.
func sameKey(sent, canonical string) bool {
	a, errA := url.PathUnescape(sent)
	b, errB := url.PathUnescape(canonical)
	return errA == nil && errB == nil && a == b
}

// head replaces placeholders in everything in front of the body.
func (x *sealing) head(context.Context) (err error) {
	if x.out.Fields, err = x.job.Fields(x.out.Fields); err != nil {
		return err
	}
	if x.out.Path, err = x.job.Path(x.out.Path); err != nil {
		return err
	}
	x.out.Query, err = x.job.Query(x.out.Query)
	return err
}

// token puts a fetched token in.
func (x *sealing) token(ctx context.Context) error {
	x.uses = append(x.uses, x.job.Uses()...)
	x.echoes = append(x.echoes, x.snap.Echoes(x.uses)...)
	if x.grant == nil {
		return nil
	}
	a, err := x.v.Tokens.Apply(ctx, x.in.Permit, x.snap, x.grant, x.out.Fields)
	if err != nil {
		return err
	}
	x.out.Fields, x.uses, x.echoes = a.Fields, append(x.uses, a.Use), append(x.echoes, a.Echo)
	return nil
}

// sign signs all of it.
func (x *sealing) sign(ctx context.Context) error {
	if x.mode == sigv4.Off {
		return nil
	}
	keys, uses, err := sigv4.Resolve(x.snap, x.in.Permit, x.in.Path, x.in.Endpoint.SigningProvider)
	if err != nil {
		return err
	}
	framing := x.out.Framing
	if x.in.Body.Read && framing.Kind != http1.NoBody {
		framing = http1.Framing{Kind: http1.Length, Length: int64(len(x.in.Body.Content))}
	}
	if len(x.out.Trailer) > 0 {
		framing = http1.Framing{} // in HTTP/1.1 no length is stated then
	}
	signed, err := x.v.Signer.Sign(ctx, x.in.Permit, keys, x.in.Endpoint.SigningService, x.in.Endpoint.SigningRegion, sigv4.Request{
		Method: x.out.Method, Host: x.out.Authority, Path: x.out.Path, Query: x.out.Query, Fields: x.out.Fields, Framing: framing,
	}, x.payload, x.in.Body.Content)
	if err != nil {
		return err
	}
	if !x.in.Body.Read && x.came.Has("Expect", "100-continue") {
		signed.Fields = append(signed.Fields, http1.Field{Name: "Expect", Value: "100-continue"}) // no part of a signature
	}
	x.out.Path, x.out.Query, x.out.Fields = signed.Path, signed.Query, signed.Fields
	x.uses, x.echoes = append(x.uses, uses...), append(x.echoes, x.snap.Echoes(uses)...)
	return nil
}

// hygiene prepares for an origin that repeats what it was sent. What it changes is no
// part of a signature.
func (x *sealing) hygiene(context.Context) error {
	x.sealed.values = x.echoes
	x.sealed.filter = x.v.filter(x.snap, x.uses, x.echoes)
	x.out.Fields = x.sealed.filter.Uncompressed(x.out.Fields)
	return nil
}

// maxFilters bounds how many filters are kept: which keys go together the workload
// chooses.
const maxFilters = 256

// filters are those of requests with the same keys, in one Snapshot.
type filters struct {
	of   *credentials.Snapshot
	kept atomic.Int32
	by   sync.Map // keys, as text → *hygiene.Filter
}

// filter makes the filter of a request's answer, or finds it: there are some dozen
// ways to write a value, and they do not change with the request.
func (v *Vault) filter(s *credentials.Snapshot, uses []inject.Use, echoes []credentials.Echo) *hygiene.Filter {
	if len(echoes) == 0 {
		return nil
	}
	var keys []byte
	for _, u := range uses {
		if !s.Has(u.Key) {
			return hygiene.New(echoes) // of a token, which is another one tomorrow
		}
		keys = append(append(keys, u.Key...), ' ')
	}
	known := v.filters.Load()
	if known == nil || known.of != s {
		known = &filters{of: s}
		v.filters.Store(known)
	}
	if f, ok := known.by.Load(string(keys)); ok {
		return f.(*hygiene.Filter)
	}
	f := hygiene.New(echoes)
	if known.kept.Add(1) <= maxFilters {
		known.by.Store(string(keys), f)
	}
	return f
}

// Recheck asks, directly before a request is sent, whether what went into it still is
// what would.
func (v *Vault) Recheck(s *Sealed) error {
	if len(s.Uses()) == 0 {
		return nil
	}
	return v.Current().Recheck(s.uses)
}

// Text puts credentials into a text message on the WebSocket of a path; out is nil when
// none went in.
func (v *Vault) Text(p decide.Permit, path string, secure bool, text []byte) (out []byte, uses []inject.Use, echoes []credentials.Echo, err error) {
	var snap *credentials.Snapshot
	var job *rewrite.Job
	for range 2 { // once more with the newest values, if one was replaced meanwhile
		snap = v.Current()
		job = rewrite.New(p, path, v.resolver(snap, secure))
		if out, err = job.Message(text); err != nil {
			break
		}
		if err = v.Current().Recheck(job.Uses()); err == nil {
			break
		}
	}
	if err != nil {
		return nil, nil, nil, err
	}
	if len(job.Uses()) == 0 {
		return nil, nil, nil, nil
	}
	return out, job.Uses(), snap.Echoes(job.Uses()), nil
}
