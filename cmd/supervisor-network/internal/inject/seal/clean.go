package seal

import (
	"io"
	"net/http"

	"github.com/splitpod/splitpod/cmd/supervisor-network/internal/http1"
	"github.com/splitpod/splitpod/cmd/supervisor-network/internal/inject/credentials"
	"github.com/splitpod/splitpod/cmd/supervisor-network/internal/inject/hygiene"
)

// Watch is for a response alone: it takes values out of one that were put into its request
// elsewhere. Without any it is nil.
func Watch(values []credentials.Echo) *Sealed {
	if len(values) == 0 {
		return nil
	}
	return &Sealed{filter: hygiene.New(values)}
}

// Cleaner takes echoed values out of a response; ok is false when there is nothing to look
// for.
func (s *Sealed) Cleaner() (c Cleaner, ok bool) {
	return Cleaner{s}, s != nil && s.filter != nil
}

// Cleaner cleans a response of HTTP/1.1: its head, then its body.
type Cleaner struct{ s *Sealed }

// Head cleans the fields, and the phrase behind the status.
func (c Cleaner) Head(r *http1.Response) {
	r.Fields = c.s.fields(r.Fields)
	r.Phrase = c.s.fields(http1.Fields{{Value: r.Phrase}})[0].Value
}

// Body cleans what is not refused.
func (c Cleaner) Body(r *http1.Response, content io.Reader) (io.Reader, bool, error) {
	how := c.s.filter.Treatment(r.Fields)
	switch how {
	case hygiene.Pass:
		return nil, false, nil
	case hygiene.Refuse:
		return nil, false, hygiene.UnreadBody(r.Fields)
	}
	body := &cleanedBody{r: c.s.filter.NewReader(r.Fields, content), s: c.s}
	r.Fields = hygiene.Decoded(r.Fields)
	return body, how != hygiene.Replace, nil
}

// Trailers cleans the fields behind the content.
func (c Cleaner) Trailers(f http1.Fields) http1.Fields { return c.s.fields(f) }

func (s *Sealed) fields(f http1.Fields) http1.Fields {
	out, n := s.filter.Fields(f)
	s.echoes.Add(int64(n))
	return out
}

// cleanedBody counts what is found.
type cleanedBody struct {
	r       *hygiene.Reader
	s       *Sealed
	counted int
}

func (b *cleanedBody) Read(p []byte) (int, error) {
	n, err := b.r.Read(p)
	b.s.echoes.Add(int64(b.r.Count() - b.counted))
	b.counted = b.r.Count()
	return n, err
}

// Clean is Cleaner for a response of net/http. Its trailers are there when its body
// has ended, and are cleaned then. One that cannot be looked into is closed.
func (s *Sealed) Clean(resp *http.Response) error {
	if s == nil || s.filter == nil {
		return nil
	}
	resp.Header = s.header(resp.Header)
	fields := http1.FieldsOf(resp.Header)
	s.announced(resp.Trailer)
	body := &cleanedResponse{ReadCloser: resp.Body, s: s, resp: resp, r: resp.Body}
	if resp.ContentLength != 0 && resp.Body != http.NoBody && resp.Request != nil && resp.Request.Method != http.MethodHead {
		if err := body.content(fields); err != nil {
			resp.Body.Close()
			return err
		}
	}
	resp.Body = body
	return nil
}

// Interim is Clean for the fields of an interim response.
func (s *Sealed) Interim(h http.Header) http.Header {
	if s == nil || s.filter == nil {
		return h
	}
	return s.header(h)
}

// content cleans the body of a response with these fields.
func (b *cleanedResponse) content(fields http1.Fields) error {
	how := b.s.filter.Treatment(fields)
	switch how {
	case hygiene.Pass:
		return nil
	case hygiene.Refuse:
		return hygiene.UnreadBody(fields)
	}
	b.r = &cleanedBody{r: b.s.filter.NewReader(fields, b.resp.Body), s: b.s}
	if how == hygiene.Replace {
		b.resp.ContentLength = -1
		delete(b.resp.Header, "Content-Length")
		if len(hygiene.Decoded(fields)) < len(fields) {
			delete(b.resp.Header, "Content-Encoding")
		}
	}
	return nil
}

// header returns the same map unless it found something.
func (s *Sealed) header(h http.Header) http.Header {
	fields := http1.FieldsOf(h)
	cleaned, n := s.filter.Fields(fields)
	if n == 0 {
		return h
	}
	s.echoes.Add(int64(n))
	out := make(http.Header, len(h))
	for _, f := range cleaned {
		out[f.Name] = append(out[f.Name], f.Value)
	}
	return out
}

// announced leaves out names of trailers with a value in them: net/http has taken them out
// of the field that announced them, and nothing follows by that name.
func (s *Sealed) announced(trailer http.Header) {
	for name := range trailer {
		if _, n := s.filter.Fields(http1.Fields{{Value: name}}); n > 0 {
			s.echoes.Add(int64(n))
			delete(trailer, name)
		}
	}
}

type cleanedResponse struct {
	io.ReadCloser
	s    *Sealed
	resp *http.Response
	r    io.Reader
}

func (b *cleanedResponse) Read(p []byte) (int, error) {
	n, err := b.r.Read(p)
	if err == io.EOF {
		b.resp.Trailer = b.s.header(b.resp.Trailer)
	}
	return n, err
}
