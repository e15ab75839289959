package proxy

import (
	"context"
	"github.com/splitpod/splitpod/cmd/supervisor-network/internal/decide"
	"github.com/splitpod/splitpod/cmd/supervisor-network/internal/http1"
	"github.com/splitpod/splitpod/cmd/supervisor-network/internal/inject/seal"
	"github.com/splitpod/splitpod/cmd/supervisor-network/internal/inspect/graphql"
	"github.com/splitpod/splitpod/cmd/supervisor-network/internal/inspect/websocket"
	"github.com/splitpod/splitpod/cmd/supervisor-network/internal/relay"
	"github.com/splitpod/splitpod/pkg/core"
	"github.com/splitpod/splitpod/pkg/core/policy"
)

// upgrade carries a handshake of HTTP/1.1 that rules allow, and the WebSocket behind it.
func (s *session) upgrade(ctx context.Context, req *http1.Request, t http1.Target, in *incoming) bool {
	parsed := in.parsed()
	offer := in.offered().Offer(parsed)
	in.omit, in.add = websocket.Fields(), offer.Fields()
	s.watch.Begin(s.p.Idle)
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
	noteAudit(s.ev, in)
	s.ev.Echoed(in.sealed.Echoed())
	k := &socket{p: s.p, ev: s.ev, grant: s.grant, entry: s.entry, in: in, source: s.conn.Tuple.Client, secure: s.defaultPort == 443,
		client: s.stream, upstream: res.Origin.Stream(), deflate: agreed.Deflate}
	if parsed {
		early, _ := s.client.R.Peek(s.client.R.Buffered()) // it is buffered
		early = append([]byte(nil), early...)
		_, _ = s.client.R.Discard(len(early))
		k.messages(ctx, early)
	} else {
		k.bytes(ctx, &relay.Pipe{Client: k.client, ClientReader: s.client.R, Upstream: k.upstream, Idle: s.p.Idle})
	}
	return false
}

// messageJudge decides about the messages of one WebSocket, always by the policy of
// the moment.
type messageJudge struct {
	p      *Path
	grant  grant
	in     *incoming
	secure bool             // TLS all the way
	used   func(key string) // notes a credential
	echoes *seal.Echoes
	denied bool
	audits audits
	passed int64         // text messages
	unread decide.Ruling // about binary ones, which are counted alone
}

// text implements websocket.Session.Judge.
func (j *messageJudge) text(ctx context.Context, text []byte) ([]byte, error) {
	replacement, err := j.judged(ctx, text)
	if err == nil {
		j.passed++
	}
	return replacement, err
}

func (j *messageJudge) judged(ctx context.Context, text []byte) ([]byte, error) {
	r := decide.Request{Method: decide.MethodText, Path: j.in.path, Message: true}
	if j.in.endpoint.GraphQL {
		leave := j.p.Bodies.Turn(len(text))
		operations, control, err := graphql.Message(text)
		leave()
		if err != nil {
			return nil, j.refuse(unreadable(err))
		}
		if control {
			return j.seal(text)
		}
		r.Operations = operations
		j.in.running.start(operations)
	}
	if err := j.judge(ctx, &r); err != nil {
		return nil, err
	}
	return j.seal(text)
}

// binary says whether binary messages may pass, which nobody reads: where any text
// message may, by the policy of the moment. The origin may have taken its time for the
// handshake. Every later policy finds in the request what it has to judge.
func (j *messageJudge) binary(ctx context.Context) bool {
	switch {
	case j.in.endpoint.GraphQL, j.in.sealed.Watched():
		return false
	case j.in.endpoint.Protocol != policy.ProtocolWebSocket:
		return true // its rules are about the handshake
	}
	for {
		if j.p.renew(ctx, &j.grant) != nil {
			return false // it ends
		}
		j.unread = j.ruled(textOf(j.in))
		j.in.binary.Store(j.unread.Allowed)
		if j.p.Policy.Current() == j.grant.snap {
			return j.unread.Allowed
		}
	}
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
	ruling := j.ruled(r)
	if ruling.Audited {
		j.audits.add(ruling)
	}
	if ruling.Allowed {
		return nil
	}
	return j.refuse(byRules(ruling))
}

// ruled is what rules say about a message.
func (j *messageJudge) ruled(r *decide.Request) decide.Ruling {
	endpoint, ok := j.grant.snap.Endpoint(j.grant.permit, r.Path)
	if !ok {
		return decide.Ruling{Detail: "no endpoint takes the path any more"}
	}
	return j.grant.snap.Request(j.grant.permit, endpoint, r)
}

func (j *messageJudge) refuse(r *refusal) error {
	j.denied = true
	return &websocket.CloseError{Code: websocket.CodePolicy, Reason: r.reason, Detail: r.detail}
}
