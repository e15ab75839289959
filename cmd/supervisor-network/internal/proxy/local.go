package proxy

import (
	"context"
	"errors"
	"time"

	"github.com/splitpod/splitpod/cmd/supervisor-network/internal/http1"
	"github.com/splitpod/splitpod/cmd/supervisor-network/internal/policylocal"
	"github.com/splitpod/splitpod/pkg/core"
)

// answerLocal answers one request to policy.local, which is the last of its connection.
func (s *session) answerLocal(ctx context.Context, req *http1.Request, t http1.Target, in *incoming) {
	in.path = t.Path
	s.describe(in)
	s.ev.Allow(core.StageAPI, policylocal.Host, 0)
	_ = s.stream.SetReadDeadline(time.Now().Add(policylocal.BodyTimeout))
	body, err := s.body(ctx, req, in, policylocal.MaxBody)
	var a policylocal.Answer
	if err != nil {
		status := 400
		if e, ok := errors.AsType[*http1.SyntaxError](err); ok {
			status = e.Status
		} else if r := unreadable(err); r.status == 413 {
			status = 413
		}
		a = policylocal.Unread(status)
	} else {
		a = s.p.Local.Serve(ctx, &policylocal.Request{Method: req.Method, Path: t.Path, Query: queryOf(t.Query), Body: body})
	}
	s.ev.Event.Status = a.Status
	_ = s.stream.SetDeadline(answerDeadline())
	_ = http1.Answer(s.stream, req.Method, a.Status, s.ev.Event.RequestID, a.Body)
}
