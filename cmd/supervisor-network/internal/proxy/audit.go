package proxy

import (
	"time"

	"github.com/splitpod/splitpod/cmd/supervisor-network/internal/decide"
	"github.com/splitpod/splitpod/cmd/supervisor-network/internal/inject/placeholder"
	"github.com/splitpod/splitpod/pkg/core"
)

// Bounds of what one WebSocket records of messages that pass although rules refuse them.
const (
	maxAudits  = 8           // reasons that are told apart; all others are one
	auditEvery = time.Minute // between two records with one reason
)

// audits are the messages of one WebSocket that rules refuse, and that pass because they
// are not enforced. The first one with a reason is recorded at once, and those behind it
// in one record a minute that says how many they were: a client that sends many of them
// fills no log. It belongs to one goroutine, and to another one after that.
type audits struct {
	write func(ruling decide.Ruling, count uint64)
	list  []audit
}

// audit is what is known of one reason.
type audit struct {
	ruling decide.Ruling
	count  uint64 // that are not recorded
	last   time.Time
}

// add counts a message.
func (a *audits) add(r decide.Ruling) {
	now := time.Now()
	for i := range a.list {
		one := &a.list[i]
		if one.ruling.Detail != r.Detail && i < maxAudits {
			continue
		}
		if one.count++; now.Sub(one.last) >= auditEvery {
			a.flush(one)
			one.last = now
		}
		return
	}
	if len(a.list) == maxAudits {
		r.Detail = "messages, for more reasons than are told apart"
	}
	a.list = append(a.list, audit{ruling: r, last: now})
	a.write(r, 1)
}

func (a *audits) flush(one *audit) {
	if one.count > 0 {
		a.write(one.ruling, one.count)
		one.count = 0
	}
}

// end records what was only counted.
func (a *audits) end() {
	for i := range a.list {
		a.flush(&a.list[i])
	}
}

// auditMessage leaves a record of messages that passed beside that of their session.
func (k *socket) auditMessage(generation core.Generation, r decide.Ruling, count uint64) {
	ev := k.messageRecord()
	defer ev.End()
	ev.Allow(core.StageRequest, r.Rule, generation)
	ev.Event.Detail, ev.Event.Count = "would be denied: "+placeholder.Redact(r.Detail), count
}
