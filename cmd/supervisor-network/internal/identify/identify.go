// Package identify establishes who is behind a connection, by asking the process
// daemon whose listener took it.
//
// It answers the threat of a program that borrows another one's permissions: no
// answer, a late answer or a doubtful answer is an identity that no rule matches.
// It does not find the process itself; this daemon cannot see the workload's
// processes.
package identify

import (
	"context"

	"github.com/splitpod/splitpod/pkg/core"
)

// Asker is the process daemon's side.
type Asker interface {
	Identify(ctx context.Context, instance core.InstanceID, id core.RequestID, t core.Tuple) core.Identity
}

// Identifier answers for the listeners of one process daemon instance. The zero
// value identifies nobody.
type Identifier struct {
	Asker    Asker
	Instance core.InstanceID
}

// Peer says who is behind the connection. It never fails; what it cannot say is a
// status that denies.
func (i Identifier) Peer(ctx context.Context, id core.RequestID, t core.Tuple) core.Identity {
	if i.Asker == nil {
		return core.Identity{Status: core.IdentityNotReady, Detail: "identity is off"}
	}
	return i.Asker.Identify(ctx, i.Instance, id, t)
}
