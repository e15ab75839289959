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
	"github.com/splitpod/splitpod/cmd/supervisor-network/internal/propose"
	"github.com/splitpod/splitpod/pkg/core/policy"
)

// Limits of a Book.
const (
	MaxSeen     = 2048 // destinations by program
	MaxRequests = 64   // different rules of one
)

const bookFile = "learned.json"

// seen is what one program did at one destination.
type seen struct {
	Host     string           `json:"host"`
	Port     uint16           `json:"port"`
	Binary   string           `json:"binary"`
	Count    uint64           `json:"count"`
	Requests []policy.Matcher `json:"requests,omitempty"`
	// Other says that not all of it were requests that rules can name, or too many
	// different ones.
	Other bool `json:"other,omitempty"`
}

// Book is what was seen while learning. Make it with OpenBook; safe for concurrent use.
type Book struct {
	dir string

	mu   sync.Mutex
	seen map[aggregate.Key]*seen // guarded by mu
	lost uint64                  // guarded by mu; connections without a place, of this instance
	last uint64                  // guarded by mu; number of the batch that was noted last
	kept bool                    // guarded by mu; what was noted is on disk
}

// OpenBook reads what earlier instances saw.
func OpenBook(dir string) (*Book, error) {
	b := &Book{dir: dir, seen: make(map[aggregate.Key]*seen), kept: true}
	data, err := os.ReadFile(filepath.Join(dir, bookFile))
	if errors.Is(err, fs.ErrNotExist) {
		return b, nil
	}
	if err != nil {
		return nil, fmt.Errorf("read what was learned: %w", err)
	}
	var list []*seen
	if err := json.Unmarshal(data, &list); err != nil {
		return nil, fmt.Errorf("read what was learned: %w", err)
	}
	for _, s := range list {
		b.seen[aggregate.Key{Host: s.Host, Port: s.Port, Binary: s.Binary}] = s
	}
	return b, nil
}

// Take notes what a batch has of learned connections, and keeps it. A batch that is
// handed over again, because it could not be kept or because others failed on it, is
// noted once; batches without a number are all different.
func (b *Book) Take(batch *aggregate.Batch) error {
	b.mu.Lock()
	defer b.mu.Unlock()
	if batch.Number == 0 || batch.Number != b.last {
		b.last = batch.Number
		if b.noteAll(batch) > 0 {
			b.kept = false
		}
	}
	if b.kept {
		return nil
	}
	data, err := json.Marshal(b.list())
	if err != nil {
		return err
	}
	if err := replace(filepath.Join(b.dir, bookFile), data); err != nil {
		return fmt.Errorf("keep what was learned: %w", err)
	}
	b.kept = true
	return nil
}

// noteAll adds a batch, and returns how many summaries of it were added. Preconditions:
// mu is held.
func (b *Book) noteAll(batch *aggregate.Batch) (n int) {
	for i := range batch.Activity {
		if s := &batch.Activity[i]; s.Rule == decide.LearnedRule {
			b.note(s)
			n++
		}
	}
	return n
}

// note adds one summary. Preconditions: mu is held.
func (b *Book) note(s *aggregate.Summary) {
	e, ok := b.seen[s.Key]
	if !ok {
		if len(b.seen) >= MaxSeen {
			b.lost += s.Count
			return
		}
		e = &seen{Host: s.Host, Port: s.Port, Binary: s.Binary}
		b.seen[s.Key] = e
	}
	e.Count += s.Count
	sampled := uint64(0)
	for _, sample := range s.Samples {
		sampled += sample.Count
		e.request(sample)
	}
	e.Other = e.Other || sampled < s.Count
}

func (e *seen) request(s aggregate.Sample) {
	m, ok := propose.Matcher(s.Method, s.Path)
	switch {
	case !ok:
		e.Other = true
	case slices.ContainsFunc(e.Requests, func(have policy.Matcher) bool { return have.Method == m.Method && have.Path == m.Path }):
	case len(e.Requests) >= MaxRequests:
		e.Other = true
	default:
		e.Requests = append(e.Requests, m)
	}
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

// Export writes the least policy that covers what was seen: a rule for each
// destination and program, with the requests where all were requests.
func (b *Book) Export() []byte {
	b.mu.Lock()
	defer b.mu.Unlock()
	doc := &policy.Document{Network: make(map[string]policy.Rule)}
	head := fmt.Sprintf("# What was seen while learning: read it before it is used. %d destinations by program.\n", len(b.seen))
	for _, s := range b.list() {
		name := propose.RuleName(s.Host, s.Port)
		for _, taken := doc.Network[name]; taken; _, taken = doc.Network[name] {
			name += "_2"
		}
		r := s.rule(name)
		one := policy.Encode(&policy.Document{Network: map[string]policy.Rule{name: r}})
		if _, _, err := policy.Parse("rule", one); err != nil {
			head += fmt.Sprintf("# Left out, because no rule can name it: %+q, port %d, %+q\n", s.Host, s.Port, s.Binary)
			continue
		}
		doc.Network[name] = r
	}
	if b.lost > 0 {
		head += fmt.Sprintf("# %d connections to further destinations are not in it.\n", b.lost)
	}
	return append([]byte(head), policy.Encode(doc)...)
}

func (s *seen) rule(name string) policy.Rule {
	e := policy.Endpoint{Host: strings.ToLower(s.Host), Ports: []uint16{s.Port}}
	if !s.Other && len(s.Requests) > 0 {
		e.Protocol, e.Enforce, e.Allow = policy.ProtocolREST, true, slices.Clone(s.Requests)
		slices.SortFunc(e.Allow, func(a, b policy.Matcher) int {
			if c := strings.Compare(a.Path, b.Path); c != 0 {
				return c
			}
			return strings.Compare(a.Method, b.Method)
		})
	}
	r := policy.Rule{Name: name, Endpoints: []policy.Endpoint{e}}
	if s.Binary != "" {
		r.Binaries = []policy.Binary{{Path: s.Binary}}
	}
	return r
}
