package proxy

import (
	"context"
	"errors"
	"net"
	"net/netip"
	"time"

	"github.com/splitpod/splitpod/cmd/supervisor-network/internal/decide"
	"github.com/splitpod/splitpod/cmd/supervisor-network/internal/inject/seal"
	"github.com/splitpod/splitpod/cmd/supervisor-network/internal/inspect/websocket"
	"github.com/splitpod/splitpod/cmd/supervisor-network/internal/record"
	"github.com/splitpod/splitpod/cmd/supervisor-network/internal/relay"
	"github.com/splitpod/splitpod/pkg/core"
	"github.com/splitpod/splitpod/pkg/core/policy"
)

// socket is a WebSocket whose handshake both sides have made, the client's in whatever
// version of HTTP it speaks.
type socket struct {
	p        *Path
	ev       *record.Entry
	grant    *grant
	entry    *liveEntry
	in       *incoming
	source   netip.AddrPort // the client's address
	secure   bool           // TLS all the way
	client   net.Conn
	upstream net.Conn
	deflate  bool
}

// parsed reports whether the messages behind a handshake are judged one by one: where
// the endpoint is about WebSockets, or what passes has to be read for credentials.
// Elsewhere bytes pass, as those of a connection that was allowed to say anything.
func (in *incoming) parsed() bool {
	return in.endpoint.Protocol == policy.ProtocolWebSocket || in.sealed.Watched() || in.echoes()
}

// echoes reports whether the messages of a server are looked into: a credential went
// into the handshake, or may go into a message.
func (in *incoming) echoes() bool { return in.sealed.Looks() || in.endpoint.RewriteMessages }

// offered is the handshake for the origin: what is compressed is not looked into.
func (in *incoming) offered() *websocket.Handshake {
	if in.echoes() {
		return in.handshake.WithoutExtensions()
	}
	return in.handshake
}

// messages relays a WebSocket message by message. early is what the client sent right
// behind its handshake.
func (k *socket) messages(ctx context.Context, early []byte) {
	j := &messageJudge{p: k.p, grant: *k.grant, in: k.in, secure: k.secure, used: k.ev.Used, echoes: seal.EchoesOf(k.in.sealed)}
	j.audits.write = func(r decide.Ruling, n uint64) { k.auditMessage(j.grant.permit.Generation(), r, n) }
	defer j.audits.end()
	binary := j.binary(ctx)
	if binary {
		k.p.unread(k.entry) // those messages
	}
	ws := &websocket.Session{
		Client: k.client, ClientEarly: early, Upstream: k.upstream,
		Deflate: k.deflate, Judge: j.text, Binary: binary, Assemblies: k.p.Assemblies, Idle: k.p.Idle,
		Denied:  k.denyMessage,
		Goodbye: goodbye,
	}
	if k.in.echoes() {
		ws.Clean = j.echoes.Cleaner()
	}
	before := k.in.sealed.Echoed()
	stats, err := ws.Run(ctx)
	k.ev.Echoed(k.in.sealed.Echoed() - before)
	if n := stats.Up.Messages - j.passed; n > 0 && j.unread.Audited {
		j.unread.Detail = "binary messages pass unread where text ones would be denied: " + j.unread.Detail
		j.audits.write(j.unread, uint64(n))
	}
	k.ev.Event.BytesUp, k.ev.Event.BytesDn = uint64(stats.Up.Bytes), uint64(stats.Down.Bytes)
	if e, ok := errors.AsType[*websocket.CloseError](err); ok {
		if !j.denied {
			k.ev.Fail(e.Reason, e.Detail)
		}
		return
	}
	finish(ctx, k.ev, stats.Up.Bytes, stats.Down.Bytes, err)
}

// bytes carries pipe, which is between client and upstream and is not looked into.
func (k *socket) bytes(ctx context.Context, pipe *relay.Pipe) {
	defer k.p.Meter.Tunnel()()
	k.p.unread(k.entry)
	err := pipe.Run(ctx)
	sent, received := pipe.Moved()
	finish(ctx, k.ev, sent, received, err)
}

// goodbye is how a WebSocket is told why it ends.
func goodbye(cause error) *websocket.CloseError {
	switch {
	case errors.Is(cause, errRevoked):
		return &websocket.CloseError{Code: websocket.CodePolicyChanged, Reason: core.ReasonPolicyChanged, Detail: revoked}
	case errors.Is(cause, errGated):
		return &websocket.CloseError{Code: websocket.CodePolicy, Reason: core.ReasonUninspectedCredentials, Detail: gated}
	}
	return &websocket.CloseError{Code: websocket.CodeGoingAway, Reason: core.ReasonShutdown, Detail: "the daemon is stopping"}
}

// denyMessage leaves a record of a refused message beside that of its session.
func (k *socket) denyMessage(e *websocket.CloseError) {
	ev := k.messageRecord()
	defer ev.End()
	ev.Deny(core.StageRequest, e.Reason, e.Detail)
}

// messageRecord begins a record of a message.
func (k *socket) messageRecord() *record.Entry {
	ev := k.p.Record.Begin(core.NewRequestID(), time.Now())
	ev.Event.Host, ev.Event.Port, ev.Event.Rule = k.ev.Event.Host, k.ev.Event.Port, k.ev.Event.Rule
	k.in.describe(ev)
	ev.Event.Source, ev.Event.Method = k.source, decide.MethodText
	ev.Event.Generation = k.ev.Event.Generation
	ev.Who(*k.grant.question.Who)
	return ev
}
