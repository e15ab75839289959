package websocket

import (
	"context"
	"sync/atomic"
	"time"
)

// Bounds of the process on messages that are held to be judged.
const (
	MaxAssemblies = 32
	MaxWaiting    = 64
)

// Assemblies bounds, over all sessions that share it, how many text messages are in
// memory at once. Messages of up to half a kilobyte in one frame need no place. A nil
// Assemblies has none. It is safe for concurrent use.
type Assemblies struct {
	places  chan struct{}
	waiting atomic.Int32
}

// NewAssemblies makes the bounds of one process.
func NewAssemblies() *Assemblies { return &Assemblies{places: make(chan struct{}, MaxAssemblies)} }

// take waits for a place. It fails with errFull, or with errOver when ctx ends.
func (a *Assemblies) take(ctx context.Context, until time.Time) error {
	if a == nil {
		return errFull
	}
	select {
	case a.places <- struct{}{}:
		return nil
	default:
	}
	defer a.waiting.Add(-1)
	if a.waiting.Add(1) > MaxWaiting {
		return errFull
	}
	timer := time.NewTimer(time.Until(until))
	defer timer.Stop()
	select {
	case a.places <- struct{}{}:
		return nil
	case <-ctx.Done():
		return errOver
	case <-timer.C:
		return errFull
	}
}

func (a *Assemblies) give() { <-a.places }
