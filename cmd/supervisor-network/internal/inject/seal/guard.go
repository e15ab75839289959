package seal

import (
	"bytes"
	"compress/gzip"
	"compress/zlib"
	"context"
	"errors"
	"io"
	"slices"
	"strings"
	"sync/atomic"

	"github.com/splitpod/splitpod/cmd/supervisor-network/internal/http1"
	"github.com/splitpod/splitpod/cmd/supervisor-network/internal/inject"
	"github.com/splitpod/splitpod/cmd/supervisor-network/internal/inject/placeholder"
	"github.com/splitpod/splitpod/cmd/supervisor-network/internal/inject/rewrite"
	"github.com/splitpod/splitpod/cmd/supervisor-network/internal/inject/sigv4"
	"github.com/splitpod/splitpod/cmd/supervisor-network/internal/inspect"
	"github.com/splitpod/splitpod/pkg/core"
)

// Limits of bodies in which no placeholder may stand.
const (
	maxAhead      = 64 << 10 // read before anything is sent, so that nothing arrives
	maxCompressed = 1 << 20  // that are inflated to be looked into
	maxInflated   = 16 << 20
)

// content replaces placeholders in the body, or makes sure that none is in it, nor in the
// trailers behind it, where none is replaced.
func (x *sealing) content(context.Context) error {
	if err := x.bodyContent(); err != nil {
		return err
	}
	if x.v.Store != nil && x.in.Body.Read && x.out.Trailers != nil && marked(x.out.Trailers()) {
		return inject.Guarded()
	}
	return nil
}

// bodyContent is content for the body alone. One that it does not read has a guard, which
// looks at the trailers as well.
func (x *sealing) bodyContent() error {
	empty := x.out.Framing.Kind == http1.NoBody
	switch {
	case x.in.Endpoint.RewriteBody && !empty:
		if err := x.whole(rewrite.MaxBody, rewrite.TooLarge()); err != nil {
			return err
		}
		if x.in.Body.Original == nil {
			x.in.Body.Original = x.in.Body.Content
		}
		out, err := x.job.Body(x.out.Fields, x.in.Body.Original)
		x.in.Body.Content = out
		return err
	case x.payload.Buffer:
		if err := x.whole(sigv4.MaxBody, tooLargeToSign); err != nil {
			return err
		}
	}
	if x.v.Store == nil || empty && !x.in.Body.Read {
		return nil
	}
	if coding := codingOf(x.out.Fields); coding != "" && x.sealed.watched {
		return x.inflated(coding)
	}
	if n := x.out.Framing.Length; !x.in.Body.Read && x.out.Framing.Kind == http1.Length && n <= maxAhead && x.in.Body.Held.Spare(n+1) {
		x.in.Body.Unhurried = true // what it holds is spare
		err := x.whole(maxAhead, nil)
		if x.in.Body.Unhurried = false; err != nil {
			return err
		}
	}
	if !x.in.Body.Read {
		x.sealed.guard = &guard{trailers: x.out.Trailers}
		return nil
	}
	if placeholder.FoundBytes(x.in.Body.Content) {
		return inject.Guarded()
	}
	return nil
}

var tooLargeToSign = &inject.Error{Status: 413, Reason: core.ReasonSigningFailed, Detail: "a body that is signed has at most 10485760 bytes"}

// whole reads the body, unless it was read already.
func (x *sealing) whole(limit int, tooLarge *inject.Error) error {
	if x.in.Body.Read {
		return nil
	}
	content, err := x.body(limit)
	if e, ok := errors.AsType[*inspect.Error](err); ok && e.Reason == core.ReasonBodyTooLarge && tooLarge != nil {
		return tooLarge
	}
	if err != nil {
		return err
	}
	x.in.Body.Content, x.in.Body.Read = content, true
	return nil
}

// codingOf is the one coding of a body, lower-case; "" for none. aws-chunked is
// framing, not compression.
func codingOf(fields http1.Fields) string {
	var out []string
	for _, f := range fields {
		if !strings.EqualFold(f.Name, "Content-Encoding") && !strings.EqualFold(f.Name, "grpc-encoding") {
			continue
		}
		for coding := range strings.SplitSeq(f.Value, ",") {
			if coding = strings.ToLower(strings.Trim(coding, " \t")); coding != "" && coding != "identity" && coding != "aws-chunked" {
				out = append(out, coding)
			}
		}
	}
	return strings.Join(out, ",")
}

// inflated looks into a compressed body, which git and others send.
func (x *sealing) inflated(coding string) error {
	var open func(io.Reader) (io.ReadCloser, error)
	switch coding {
	case "gzip", "x-gzip":
		open = func(r io.Reader) (io.ReadCloser, error) { return gzip.NewReader(r) }
	case "deflate":
		open = zlib.NewReader
	default:
		return inject.Unavailable("a body in the coding %s cannot be searched for placeholders; send it uncompressed", strings.ToValidUTF8(coding[:min(len(coding), 32)], "?"))
	}
	if _, grpc := x.out.Fields.Get("grpc-encoding"); grpc > 0 {
		return inject.Unavailable("compressed gRPC messages cannot be searched for placeholders; send them uncompressed")
	}
	large := inject.Unavailable("a compressed body is searched for placeholders up to %d bytes, and %d inflated; send it uncompressed", maxCompressed, maxInflated)
	if err := x.whole(maxCompressed, large); err != nil {
		return err
	}
	if placeholder.FoundBytes(x.in.Body.Content) {
		return inject.Guarded()
	}
	r, err := open(bytes.NewReader(x.in.Body.Content))
	if err != nil {
		return inject.Unavailable("the body is not in the coding %s that it names", coding)
	}
	defer r.Close()
	n, err := io.Copy(io.Discard, io.LimitReader(placeholder.NewReader(r), maxInflated+1))
	switch {
	case errors.Is(err, placeholder.ErrMarker):
		return inject.Guarded()
	case err != nil:
		return inject.Unavailable("the body is not in the coding %s that it names", coding)
	case n > maxInflated:
		return large
	}
	return nil
}

// guard lets a body pass that has no placeholder in it. It holds nothing back, because
// two ends that take turns would wait for ever for the end of a message that a marker
// could begin with: what passes of one is all but its last byte.
type guard struct {
	trailers func() http1.Fields
	hit      atomic.Bool
}

// around is put between a body and the origin.
func (g *guard) around(r io.Reader) io.Reader { return &guardedBody{r: r, g: g} }

type guardedBody struct {
	r    io.Reader
	g    *guard
	scan placeholder.Scanner
}

// Read fails in the place of the bytes, or of the end, that would complete a marker.
func (b *guardedBody) Read(p []byte) (int, error) {
	n, err := b.r.Read(p)
	if b.scan.Feed(p[:n]) {
		n, err = 0, placeholder.ErrMarker
	}
	if errors.Is(err, io.EOF) && b.g.trailers != nil {
		if marked(b.g.trailers()) {
			err = placeholder.ErrMarker
		}
	}
	if errors.Is(err, placeholder.ErrMarker) {
		b.g.hit.Store(true)
	}
	return n, err
}

// marked reports whether a placeholder stands in one of the fields.
func marked(fields http1.Fields) bool {
	return slices.ContainsFunc(fields, func(f http1.Field) bool { return placeholder.Found(f.Name + ": " + f.Value) })
}

// Body is the body of a request as the origin may get it.
func (s *Sealed) Body(r io.Reader) io.Reader {
	if s == nil || s.guard == nil {
		return r
	}
	return s.guard.around(r)
}

// Stream is Body for a stream.
func (s *Sealed) Stream(b io.ReadCloser) io.ReadCloser {
	if s == nil || s.guard == nil {
		return b
	}
	return struct {
		io.Reader
		io.Closer
	}{s.guard.around(b), b}
}

// Between is Body for an exchange; nil when the body may pass as it is.
func (s *Sealed) Between() func(io.Reader) io.Reader {
	if s == nil || s.guard == nil {
		return nil
	}
	return s.guard.around
}

// Caught is the error of a request in whose body a placeholder was found when a part of it
// was sent.
func (s *Sealed) Caught() error {
	if s == nil || s.guard == nil || !s.guard.hit.Load() {
		return nil
	}
	return inject.Guarded()
}
