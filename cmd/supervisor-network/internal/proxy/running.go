package proxy

import (
	"slices"
	"strings"
	"sync"

	"github.com/splitpod/splitpod/cmd/supervisor-network/internal/decide"
)

// maxRunning is how many bytes of operations one WebSocket may have running that are
// judged again one by one.
const maxRunning = 16 << 10

// running is what was started on a WebSocket and may still be answered: subscriptions,
// and what was sent as a hash, which may be one. Who ended one is not known, so it counts
// as long as its WebSocket. The zero value is ready to use.
type running struct {
	mu   sync.Mutex
	list []decide.Operation // guarded by mu; all are different
	size int                // guarded by mu; of list
	many bool               // guarded by mu; there were more than are in list
}

// start adds what a message starts. It comes before the message is judged: a policy that
// comes later knows of it.
func (r *running) start(ops []decide.Operation) {
	for i := range ops {
		if op := &ops[i]; op.Type == "subscription" || op.Persisted != "" {
			r.add(op)
		}
	}
}

func (r *running) add(op *decide.Operation) {
	const text, entry = 16, 80 // what a text, and an operation, takes beside its bytes
	n := entry + len(op.Name) + len(op.Persisted)
	for _, f := range op.Fields {
		n += text + len(f)
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	same := func(o decide.Operation) bool {
		return o.Type == op.Type && o.Name == op.Name && o.Persisted == op.Persisted && slices.Equal(o.Fields, op.Fields)
	}
	switch {
	case r.many || slices.ContainsFunc(r.list, same):
	case r.size+n > maxRunning:
		r.list, r.many = nil, true
	default:
		r.list, r.size = append(r.list, apart(op)), r.size+n
	}
}

// apart is an operation that does not hold the message it was read from.
func apart(op *decide.Operation) decide.Operation {
	out := decide.Operation{Type: strings.Clone(op.Type), Name: strings.Clone(op.Name), Persisted: strings.Clone(op.Persisted), Fields: slices.Clone(op.Fields)}
	for i, f := range out.Fields {
		out.Fields[i] = strings.Clone(f)
	}
	return out
}

// message is all of it as one message on the WebSocket of a path; nil when nothing runs.
// known is false when there was more than is remembered.
func (r *running) message(path string) (_ *decide.Request, known bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if len(r.list) == 0 {
		return nil, !r.many
	}
	return &decide.Request{Method: decide.MethodText, Path: path, Message: true, Operations: slices.Clone(r.list)}, true
}
