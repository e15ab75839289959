package proxy

import (
	"context"
	"errors"
	"net/url"
	"strings"
	"sync"
	"sync/atomic"

	"github.com/splitpod/splitpod/cmd/supervisor-network/internal/http1"
	"github.com/splitpod/splitpod/cmd/supervisor-network/internal/inject"
	"github.com/splitpod/splitpod/cmd/supervisor-network/internal/inject/credentials"
	"github.com/splitpod/splitpod/cmd/supervisor-network/internal/inject/hygiene"
	"github.com/splitpod/splitpod/cmd/supervisor-network/internal/inject/placeholder"
	"github.com/splitpod/splitpod/cmd/supervisor-network/internal/inject/rewrite"
	"github.com/splitpod/splitpod/cmd/supervisor-network/internal/inject/sigv4"
	"github.com/splitpod/splitpod/pkg/core"
)

// leaving is a request on its way to the origin, of whatever version of HTTP. What
// credentials change of it is changed here.
type leaving struct {
	method, authority string
	sent              string // the path as the client wrote it
	path, query       string // canonical; with its question mark
	fields            http1.Fields
	framing           http1.Framing
	trailers          func() http1.Fields // behind the body; nil: none are passed on
	secure            bool                // TLS to the client, and so to the origin
}

// sealed is what credentials did to a request. A nil one did nothing.
type sealed struct {
	uses    []inject.Use
	values  []credentials.Echo // that went in and may come back
	filter  *hygiene.Filter    // over the response; nil: nothing to look for
	guard   *guard             // around a body that streams; nil: none
	watched bool               // the endpoint has credentials: nothing passes unread
	echoes  atomic.Int64       // values that were taken out of the response
}

// redacted is what everybody but the origin sees of a target.
func redacted(path, query string) (string, string) {
	path, query = rewrite.Redact(path, query)
	return path, queryOf(query)
}

// seal puts credentials into a request that rules allow, in the order that package
// inject gives, or says why it cannot go. body reads the whole body. Nothing of the
// request has been sent.
func (v *Vault) seal(ctx context.Context, g *grant, in *incoming, out *leaving, body func(limit int) ([]byte, error)) *refusal {
	x := sealings.Get().(*sealing)
	defer func() {
		*x = sealing{} // before others have it
		sealings.Put(x)
	}()
	x.v, x.snap, x.g, x.in, x.out, x.body = v, v.Current(), g, in, *out, body
	x.resolver = v.resolver(x.snap, out.secure)
	x.job = *rewrite.New(g.permit, in.path, &x.resolver)
	in.sealed = &sealed{watched: v.guarded(g.permit)}
	err := x.run(ctx)
	*out = x.out
	if err != nil {
		return uninjected(err)
	}
	return nil
}

// uninjected is a request that credentials, or the lack of them, keep here.
func uninjected(err error) *refusal {
	e, ok := errors.AsType[*inject.Error](err)
	if !ok {
		return unreadable(err)
	}
	return &refusal{status: e.Status, stage: core.StageRequest, reason: e.Reason, detail: e.Detail}
}

// sealings are those that are over: what is left of one is in its request.
var sealings = sync.Pool{New: func() any { return new(sealing) }}

// sealing is seal under way.
type sealing struct {
	v    *Vault
	snap *credentials.Snapshot
	g    *grant
	in   *incoming
	out  leaving
	body func(limit int) ([]byte, error)

	job      rewrite.Job
	resolver resolver

	grant   *credentials.Grant
	mode    sigv4.Mode
	payload sigv4.Payload
	uses    []inject.Use
	echoes  []credentials.Echo
}

func (x *sealing) run(ctx context.Context) error {
	if placeholder.Found(x.out.method) {
		return inject.Misplaced("the method")
	}
	permit := x.g.permit
	if x.snap.Credentialed(permit.Host(), permit.Port()) { // perhaps only since the path was read
		if path, err := http1.CanonicalPath(x.out.path, permit.EncodedSlash()); err != nil || path != x.out.path {
			return &inject.Error{Status: 400, Reason: core.ReasonInvalidTarget, Detail: "credentials are bound here since this request began, and its path is not in its one spelling: send it again"}
		}
	}
	for _, step := range [...]func(*sealing, context.Context) error{
		(*sealing).plan, (*sealing).head, (*sealing).content, (*sealing).token, (*sealing).sign, (*sealing).hygiene,
	} {
		if err := step(x, ctx); err != nil {
			return err
		}
	}
	if strings.EqualFold(x.out.method, "TRACE") && len(x.uses) > 0 {
		return inject.Unavailable("TRACE would repeat the request to the client, with its credentials")
	}
	x.in.sealed.uses = x.uses
	return nil
}

// plan finds what else goes into the request, and takes out of it what the client
// sent in that place, which may be a placeholder of no key.
func (x *sealing) plan(context.Context) (err error) {
	if x.grant, err = x.snap.Grant(x.g.permit, x.in.path); err != nil {
		return err
	}
	if x.grant != nil {
		x.out.fields = x.out.fields.Without(strings.ToLower(x.grant.Field()))
	}
	if x.mode = sigv4.ParseMode(x.in.endpoint.Signing); x.mode == sigv4.Off {
		return nil
	}
	if !sameKey(x.out.sent, x.out.path) {
		return &inject.Error{Status: 400, Reason: core.ReasonSigningFailed,
			Detail: "the path has parameters, empty segments or dot segments, which are part of a key for the service and cannot be judged as such; escape them"}
	}
	if x.payload, err = sigv4.Plan(x.mode, x.out.fields, x.out.framing); err != nil {
		return err
	}
	x.out.fields = sigv4.Strip(x.out.fields)
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
	if x.out.fields, err = x.job.Fields(x.out.fields); err != nil {
		return err
	}
	if x.out.path, err = x.job.Path(x.out.path); err != nil {
		return err
	}
	x.out.query, err = x.job.Query(x.out.query)
	return err
}

// token puts a fetched token in.
func (x *sealing) token(ctx context.Context) error {
	x.uses = append(x.uses, x.job.Uses()...)
	x.echoes = append(x.echoes, x.snap.Echoes(x.uses)...)
	if x.grant == nil {
		return nil
	}
	a, err := x.v.Tokens.Apply(ctx, x.g.permit, x.snap, x.grant, x.out.fields)
	if err != nil {
		return err
	}
	x.out.fields, x.uses, x.echoes = a.Fields, append(x.uses, a.Use), append(x.echoes, a.Echo)
	return nil
}

// sign signs all of it.
func (x *sealing) sign(ctx context.Context) error {
	if x.mode == sigv4.Off {
		return nil
	}
	keys, uses, err := sigv4.Resolve(x.snap, x.g.permit, x.in.path, x.in.endpoint.SigningProvider)
	if err != nil {
		return err
	}
	framing := x.out.framing
	if x.in.read && framing.Kind != http1.NoBody {
		framing = http1.Framing{Kind: http1.Length, Length: int64(len(x.in.content))}
	}
	signed, err := x.v.Signer.Sign(ctx, x.g.permit, keys, x.in.endpoint.SigningService, x.in.endpoint.SigningRegion, sigv4.Request{
		Method: x.out.method, Host: x.out.authority, Path: x.out.path, Query: x.out.query, Fields: x.out.fields, Framing: framing,
	}, x.payload, x.in.content)
	if err != nil {
		return err
	}
	if !x.in.read && x.in.head.Fields.Has("Expect", "100-continue") {
		signed.Fields = append(signed.Fields, http1.Field{Name: "Expect", Value: "100-continue"}) // no part of a signature
	}
	x.out.path, x.out.query, x.out.fields = signed.Path, signed.Query, signed.Fields
	x.uses, x.echoes = append(x.uses, uses...), append(x.echoes, x.snap.Echoes(uses)...)
	return nil
}

// hygiene prepares for an origin that repeats what it was sent. What it changes is no
// part of a signature.
func (x *sealing) hygiene(context.Context) error {
	x.in.sealed.values = x.echoes
	x.in.sealed.filter = x.v.filter(x.snap, x.uses, x.echoes)
	x.out.fields = x.in.sealed.filter.Uncompressed(x.out.fields)
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

// recheck asks, directly before a request is sent, whether what went into it still is
// what would.
func (v *Vault) recheck(in *incoming) *refusal {
	if in.sealed == nil || len(in.sealed.uses) == 0 {
		return nil
	}
	if err := v.Current().Recheck(in.sealed.uses); err != nil {
		return uninjected(err)
	}
	return nil
}

// still is recheck for a request that waits for its turn; nil: nothing went into it.
func (v *Vault) still(in *incoming) func() error {
	if in.sealed == nil || len(in.sealed.uses) == 0 {
		return nil
	}
	return func() error {
		if changed := v.recheck(in); changed != nil {
			return changed
		}
		return nil
	}
}
