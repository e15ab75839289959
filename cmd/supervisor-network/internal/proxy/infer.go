package proxy

import (
	"bufio"
	"cmp"
	"context"
	"errors"
	"time"

	"github.com/splitpod/splitpod/cmd/supervisor-network/internal/decide"
	"github.com/splitpod/splitpod/cmd/supervisor-network/internal/http1"
	"github.com/splitpod/splitpod/cmd/supervisor-network/internal/inference"
	"github.com/splitpod/splitpod/cmd/supervisor-network/internal/inspect/http2"
	"github.com/splitpod/splitpod/cmd/supervisor-network/internal/record"
	"github.com/splitpod/splitpod/cmd/supervisor-network/internal/relay/exchange"
	"github.com/splitpod/splitpod/pkg/core"
)

// Model calls: requests that rules allow, if there are any about them, and that go where an
// inference route leads, not where they say.

// infer makes a model call of HTTP/1.1 and says whether another request may follow.
func (s *session) infer(ctx context.Context, req *http1.Request, t http1.Target, in *incoming, body func(limit int) ([]byte, error)) bool {
	s.watch.Begin(s.p.Idle)
	calling, end := context.WithCancelCause(ctx)
	defer end(nil)
	defer s.newer.Store(nil)
	if s.newer.Store(&end); s.watch.Expired() { // late does not come again
		return s.finish(exchange.Result{}, silent(), in)
	}
	began := time.Now()
	a, refused := s.p.call(calling, in, &inference.Call{Method: req.Method, Path: t.Path, Query: queryOf(t.Query), Header: headerOf(req.Fields)}, func(limit int) ([]byte, error) {
		s.watch.Begin(s.p.HeadTimeout) // as for all that is held
		defer s.watch.Begin(s.p.Idle)
		return body(limit)
	})
	if refused != nil {
		if ctx.Err() != nil {
			refused = s.interrupted(ctx, context.Cause(ctx))
		}
		return s.finish(exchange.Result{}, refused, in)
	}
	defer a.Close()
	up := in.forget(a)
	s.watch.Begin(s.p.Idle)
	w := streamWriters.Get().(*bufio.Writer)
	w.Reset(s.stream)
	defer func() {
		w.Reset(nil)
		streamWriters.Put(w)
	}()
	down := &counted{ReadCloser: a.Body, watch: s.watch}
	a.Body = down
	unread := !in.body.Read && req.Framing.Kind != http1.NoBody // of a request that has no use for one
	res, err := exchange.Respond(w, req, a.Response, unread || s.ended.Load())
	res.Up, res.Down = up, int64(down.n.Load())
	err = cmp.Or(err, ctx.Err()) // of which an answer of events has told the client
	if failed := a.Failed(); failed != nil && ctx.Err() == nil {
		refused = byRouter(failed)
	} else if err != nil {
		refused = s.interrupted(ctx, err)
	}
	reason := core.Reason("")
	if refused != nil {
		reason = refused.reason
	}
	s.p.noteCall(s.ev, a, began, reason)
	return s.finish(res, refused, in)
}

// inferStream makes a model call on a stream of HTTP/2. It returns why it was not answered.
func (s *session) inferStream(ctx context.Context, ev *record.Entry, st *http2.Stream, in *incoming) *refusal {
	waiting, watch := s.patience(ctx, nil)
	defer watch.Stop()
	body := func(limit int) ([]byte, error) { return s.readStream(ctx, st, in, limit) }
	began := time.Now()
	a, refused := s.p.call(waiting, in, &inference.Call{Method: st.Method, Path: st.Path, Query: queryOf(st.Query), Header: st.Header}, body)
	switch {
	case refused == nil:
	case ctx.Err() != nil:
		return s.endedEarly(ctx, ctx.Err())
	case errors.Is(context.Cause(waiting), errSilent):
		return silent()
	default:
		return refused
	}
	defer a.Close()
	up := in.forget(a)
	watch.Stop()
	down := &counted{ReadCloser: a.Body}
	a.Body = down
	ev.Event.Status = a.StatusCode
	noteAudit(ev, in)
	err := cmp.Or(st.Respond(ctx, a.Response), ctx.Err())
	ev.Event.BytesUp, ev.Event.BytesDn = uint64(up), down.n.Load()
	if errors.Is(err, http2.ErrStatus) {
		s.p.noteCall(ev, a, began, core.ReasonUpstreamInvalid)
		return &refusal{status: 502, stage: core.StageRequest, reason: core.ReasonUpstreamInvalid, detail: "the provider answered with a status that is none", failed: true}
	}
	ev.Echoed(in.sealed.Echoed())
	reason, detail := s.streamOutcome(ctx, err)
	if failed := a.Failed(); failed != nil && ctx.Err() == nil {
		reason = failed.Reason
		note(ev, byRouter(failed))
	} else if reason != "" {
		ev.Fail(reason, detail)
	}
	s.p.noteCall(ev, a, began, reason)
	return nil
}

// call makes a model call.
func (p *Path) call(ctx context.Context, in *incoming, c *inference.Call, body func(limit int) ([]byte, error)) (*inference.Answer, *refusal) {
	c.Body = func() (_ []byte, err error) {
		if !in.body.Read {
			if in.body.Content, err = body(inference.MaxBody); err != nil {
				return nil, err
			}
			in.body.Read = true
		}
		return in.body.Content, nil
	}
	a, err := p.Inference.Make(ctx, c)
	if e, ok := errors.AsType[*inference.Error](err); ok {
		return nil, byRouter(e)
	}
	if err != nil {
		return nil, unreadable(err)
	}
	in.sealed = a.Sealed
	return a, nil
}

// forget lets go of the body of a call once its provider has it: what comes then may last for
// long. It returns the length.
func (in *incoming) forget(a *inference.Answer) int64 {
	length := len(in.body.Content)
	if a.Sent {
		in.body.Forget()
	}
	return int64(length)
}

// byRouter is a model call that was not made, or got no answer.
func byRouter(e *inference.Error) *refusal {
	return &refusal{status: e.Status, stage: core.StageRequest, reason: e.Reason, detail: e.Detail, said: e.Said, failed: e.Failed}
}

// inTheClear is a request for models in absolute form.
func inTheClear() *refusal {
	return &refusal{status: 403, stage: core.StageForward, reason: core.ReasonUnsupportedProtocol, detail: "models are asked for over TLS; write https://" + decide.InferenceHost}
}

// noteCall records which route a call has taken, and why it ended before its end, if it did.
func (p *Path) noteCall(ev *record.Entry, a *inference.Answer, began time.Time, reason core.Reason) {
	call := ev.Event
	call.Kind, call.Stage, call.Severity = core.EventInference, core.StageAPI, core.SeverityInfo
	call.Model, call.Provider, call.Status, call.Detail = a.Route.Model, a.Route.Endpoint(), a.StatusCode, "inference route "+a.Route.Name
	call.TokensIn, call.TokensOut = a.Tokens()
	call.Time = time.Now()
	call.Duration = call.Time.Sub(began)
	if call.Reason = reason; reason == core.ReasonClientClosed {
		call.Severity = core.SeverityLow
	} else if reason != "" {
		call.Severity = core.SeverityMedium
	}
	p.Record.Event(call, false)
	if ev.Event.Detail == "" {
		ev.Event.Detail = call.Detail + ", model " + a.Route.Model
	}
}

// callBody is the answer to a model call that this daemon refuses, as OpenAI and Anthropic
// refuse one: of any other, their libraries show the status alone.
type callBody struct {
	Type      string    `json:"type"` // "error"
	Error     callError `json:"error"`
	Hint      string    `json:"hint"`
	RequestID string    `json:"request_id"`
}

type callError struct {
	Message string      `json:"message"`
	Type    core.Reason `json:"type"`
	Code    core.Reason `json:"code"`
}

func (r *refusal) callBody(id core.RequestID) callBody {
	return callBody{"error", callError{r.said + ": " + r.detail, r.reason, r.reason}, r.detail, string(id)}
}
