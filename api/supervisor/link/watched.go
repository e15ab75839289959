package link

import (
	"context"
	"sync"
)

// Watched is a value whose readers see the newest version, possibly skipping
// some: level-triggered. The zero value holds nothing yet. Safe for concurrent use.
type Watched[T any] struct {
	mu      sync.Mutex
	value   T             // guarded by mu
	isSet   bool          // guarded by mu
	changed chan struct{} // guarded by mu; closed and replaced at each set
}

// Set replaces the value and wakes every reader.
func (w *Watched[T]) Set(v T) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.value, w.isSet = v, true
	if w.changed != nil {
		close(w.changed)
		w.changed = nil
	}
}

func (w *Watched[T]) get() (v T, ok bool, changed <-chan struct{}) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.changed == nil {
		w.changed = make(chan struct{})
	}
	return w.value, w.isSet, w.changed
}

// Each calls f with the value that is set and again after every change, until ctx
// ends or f fails.
func (w *Watched[T]) Each(ctx context.Context, f func(T) error) error {
	for {
		v, ok, changed := w.get()
		if ok {
			if err := f(v); err != nil {
				return err
			}
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-changed:
		}
	}
}
