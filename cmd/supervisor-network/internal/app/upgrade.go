package app

import (
	"context"
	"errors"
	"time"

	"github.com/splitpod/splitpod/cmd/supervisor-network/internal/decide"
	"github.com/splitpod/splitpod/cmd/supervisor-network/internal/http1"
	"github.com/splitpod/splitpod/cmd/supervisor-network/internal/inspect/graphql"
	"github.com/splitpod/splitpod/cmd/supervisor-network/internal/inspect/websocket"
	"github.com/splitpod/splitpod/cmd/supervisor-network/internal/relay"
	"github.com/splitpod/splitpod/cmd/supervisor-network/internal/relay/pool"
	"github.com/splitpod/splitpod/pkg/core"
	"github.com/splitpod/splitpod/pkg/core/policy"
)

// upgrade carries a handshake that rules allow, and the session behind it. Where the
// endpoint is about WebSockets its messages are judged one by one; elsewhere its bytes
// pass, as those of a connection that was allowed to say anything.
func (s *session) upgrade(ctx context.Context, req *http1.Request, t http1.Target, in *incoming) bool {
	parsed := in.endpoint.Protocol == policy.ProtocolWebSocket || in.endpoint.RewriteMessages || in.sealed.watched
	offer := in.handshake.Offer(parsed)
	in.omit, in.add = websocket.Fields(), offer.Fields()
	s.watch.Begin(s.p.idle)
	res, refused := s.exchange(ctx, req, t, in)
	s.ev.Event.Status = res.Status
	if refused != nil || res.Switched == nil {
		return s.finish(res, refused, in)
	}
	agreed, err := offer.Check(res.Switched)
	if err != nil {
		res.Origin.Abort()
		return s.finish(res, s.interrupted(ctx, err), in)
	}
	head := http1.AppendResponse(nil, res.Switched, http1.Outgoing{Omit: websocket.Fields(), Add: agreed.Fields()})
	if _, err := s.stream.Write(head); err != nil {
		res.Origin.Abort()
		s.ev.Fail(core.ReasonClientClosed, "the workload went away")
		return false
	}
	s.release()
	s.ev.Echoed(in.sealed.echoed())
	if parsed {
		s.messages(ctx, res.Origin, agreed.Deflate, in)
	} else {
		s.bytes(ctx, res.Origin)
	}
	return false
}

// bytes carries an upgraded connection that is not looked into.
func (s *session) bytes(ctx context.Context, up *pool.Conn) {
	defer s.p.meter.Tunnel()()
	s.p.unread(s.entry)
	pipe := &relay.Pipe{Client: s.stream, ClientReader: s.client.R, Upstream: up.Stream(), Idle: s.p.idle}
	err := pipe.Run(ctx)
	sent, received := pipe.Moved()
	finish(ctx, s.ev, sent, received, err)
}

// messages relays a WebSocket message by message.
func (s *session) messages(ctx context.Context, up *pool.Conn, deflate bool, in *incoming) {
	early, _ := s.client.R.Peek(s.client.R.Buffered()) // it is buffered
	j := &messageJudge{p: s.p, grant: *s.grant, in: in, secure: s.defaultPort == 443, used: s.ev.Used}
	binary := j.binary()
	in.binary.Store(binary && in.endpoint.Protocol == policy.ProtocolWebSocket) // elsewhere no rule is about messages
	ws := &websocket.Session{
		Client: s.stream, ClientEarly: append([]byte(nil), early...), Upstream: up.Stream(),
		Deflate: deflate, Judge: j.text, Binary: binary, Assemblies: s.p.assemblies, Idle: s.p.idle,
		Denied:  func(e *websocket.CloseError) { s.denyMessage(in, e) },
		Goodbye: goodbye,
	}
	_, _ = s.client.R.Discard(len(early))
	stats, err := ws.Run(ctx)
	s.ev.Event.BytesUp, s.ev.Event.BytesDn = uint64(stats.Up.Bytes), uint64(stats.Down.Bytes)
	if e, ok := errors.AsType[*websocket.CloseError](err); ok {
		if !j.denied {
			s.ev.Fail(e.Reason, e.Detail)
		}
		return
	}
	finish(ctx, s.ev, stats.Up.Bytes, stats.Down.Bytes, err)
}

// goodbye is how a WebSocket is told why it ends.
func goodbye(cause error) *websocket.CloseError {
	if errors.Is(cause, errRevoked) {
		return &websocket.CloseError{Code: websocket.CodePolicyChanged, Reason: core.ReasonPolicyChanged, Detail: revoked}
	}
	return &websocket.CloseError{Code: websocket.CodeGoingAway, Reason: core.ReasonShutdown, Detail: "the daemon is stopping"}
}

// denyMessage leaves a record of a refused message beside that of its session.
func (s *session) denyMessage(in *incoming, e *websocket.CloseError) {
	ev := s.p.record.Begin(core.NewRequestID(), time.Now())
	defer ev.End()
	ev.Event.Host, ev.Event.Port, ev.Event.Rule = s.ev.Event.Host, s.ev.Event.Port, s.ev.Event.Rule
	in.describe(ev)
	ev.Event.Source, ev.Event.Method = s.conn.Tuple.Client, decide.MethodText
	ev.Event.Generation = s.ev.Event.Generation
	ev.Who(*s.grant.question.Who)
	ev.Deny(core.StageRequest, e.Reason, e.Detail)
}

// messageJudge decides about the messages of one WebSocket, always by the policy of
// the moment.
type messageJudge struct {
	p      *path
	grant  grant
	in     *incoming
	secure bool             // TLS all the way
	used   func(key string) // notes a credential
	denied bool
}

// text implements websocket.Session.Judge.
func (j *messageJudge) text(ctx context.Context, text []byte) ([]byte, error) {
	r := decide.Request{Method: decide.MethodText, Path: j.in.path, Message: true}
	if j.in.endpoint.GraphQL {
		operations, control, err := graphql.Message(text)
		if err != nil {
			return nil, j.refuse(unreadable(err))
		}
		if control {
			return j.seal(text)
		}
		r.Operations = operations
	}
	if err := j.judge(ctx, &r); err != nil {
		return nil, err
	}
	return j.seal(text)
}

// binary says whether binary messages may pass, which nobody reads: where any text
// message may.
func (j *messageJudge) binary() bool {
	switch {
	case j.in.endpoint.GraphQL, j.in.sealed.watched:
		return false
	case j.in.endpoint.Protocol != policy.ProtocolWebSocket:
		return true // its rules are about the handshake
	}
	return j.grant.snap.Request(j.grant.permit, j.in.endpoint, textOf(j.in)).Allowed
}

// textOf is some text message on the WebSocket that in opens.
func textOf(in *incoming) *decide.Request {
	return &decide.Request{Method: decide.MethodText, Path: in.path, Message: true}
}

func (j *messageJudge) judge(ctx context.Context, r *decide.Request) error {
	if denial := j.p.renew(ctx, &j.grant); denial != nil {
		return &websocket.CloseError{Code: websocket.CodePolicyChanged, Reason: denial.Reason, Detail: denial.Detail}
	}
	if j.in.endpoint.Protocol != policy.ProtocolWebSocket {
		return nil // its rules are about the handshake
	}
	endpoint, ok := j.grant.snap.Endpoint(j.grant.permit, r.Path)
	ruling := decide.Ruling{Detail: "no endpoint takes the path any more"}
	if ok {
		ruling = j.grant.snap.Request(j.grant.permit, endpoint, r)
	}
	if ruling.Allowed {
		return nil
	}
	return j.refuse(byRules(ruling))
}

func (j *messageJudge) refuse(r *refusal) error {
	j.denied = true
	return &websocket.CloseError{Code: websocket.CodePolicy, Reason: r.reason, Detail: r.detail}
}
