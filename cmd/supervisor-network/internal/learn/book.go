package learn

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"

	"github.com/splitpod/splitpod/cmd/supervisor-network/internal/aggregate"
	"github.com/splitpod/splitpod/cmd/supervisor-network/internal/decide"
	"github.com/splitpod/splitpod/pkg/core"
)

// Limits of a Book.
const (
	MaxSeen = 2048  // destinations by program
	MaxAll  = 16384 // rules of all of them: beyond, those of a newcomer are by method
)

const bookFile = "learned.json"

// Book is what was seen while learning. Make it with OpenBook; safe for concurrent use.
type Book struct {
	dir string

	mu    sync.Mutex
	seen  map[aggregate.Key]*seen // guarded by mu
	rules int                     // guarded by mu; of all of them
	lost  uint64                  // guarded by mu; connections without a place, of this instance
	dirty bool                    // guarded by mu; not kept yet
}

// OpenBook reads what earlier instances saw.
func OpenBook(dir string) (*Book, error) {
	b := &Book{dir: dir, seen: make(map[aggregate.Key]*seen)}
	data, err := os.ReadFile(filepath.Join(dir, bookFile))
	if errors.Is(err, fs.ErrNotExist) {
		return b, nil
	}
	if err != nil {
		return nil, fmt.Errorf("read what was learned: %w", err)
	}
	var list []*seen
	if err := json.Unmarshal(data, &list); err != nil {
		return nil, fmt.Errorf("read what was learned in %s: %w; move the file away to begin anew", filepath.Join(dir, bookFile), err)
	}
	for _, s := range list {
		b.seen[aggregate.Key{Host: s.Host, Port: s.Port, Binary: s.Binary}] = s
		b.rules += len(s.Requests)
	}
	return b, nil
}

// Observe notes an event, if it is of a connection or request that was let pass to be
// learned. It keeps nothing of it, and waits for nothing but its turn.
func (b *Book) Observe(ev *core.Event) {
	if ev.Rule != decide.LearnedRule || ev.Kind != core.EventConnection || ev.Verdict != core.Allow {
		return
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	b.dirty = true
	key := aggregate.Key{Host: ev.Host, Port: ev.Port, Binary: ev.Program.Path}
	e, ok := b.seen[key]
	if !ok {
		if len(b.seen) >= MaxSeen {
			b.lost += ev.Occurrences()
			return
		}
		e = &seen{Host: strings.Clone(ev.Host), Port: ev.Port, Binary: strings.Clone(ev.Program.Path)}
		b.seen[aggregate.Key{Host: e.Host, Port: e.Port, Binary: e.Binary}] = e
	}
	before := len(e.Requests)
	if e.add(ev); b.rules+len(e.Requests)-before > MaxAll && !e.Wide {
		e.widen()
	}
	b.rules += len(e.Requests) - before
}

// Keep writes down what was noted since it was called last.
func (b *Book) Keep() error {
	b.mu.Lock()
	defer b.mu.Unlock()
	if !b.dirty {
		return nil
	}
	data, err := json.Marshal(b.list())
	if err != nil {
		return err
	}
	if err := replace(filepath.Join(b.dir, bookFile), data); err != nil {
		return fmt.Errorf("keep what was learned: %w", err)
	}
	b.dirty = false
	return nil
}

// list is everything, in order. Preconditions: mu is held.
func (b *Book) list() []*seen {
	out := slices.Collect(maps.Values(b.seen))
	slices.SortFunc(out, func(x, y *seen) int {
		if c := strings.Compare(x.Host, y.Host); c != 0 {
			return c
		}
		if x.Port != y.Port {
			return int(x.Port) - int(y.Port)
		}
		return strings.Compare(x.Binary, y.Binary)
	})
	return out
}
