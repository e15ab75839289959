package credentials

import (
	"context"
	"crypto/sha256"
	"encoding/binary"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"

	"github.com/splitpod/splitpod/cmd/supervisor-network/internal/inject/secret"
	"github.com/splitpod/splitpod/pkg/core/strictyaml"
)

// Config configures a Store.
type Config struct {
	File    string           // the credentials file
	Log     *slog.Logger     // nil: nowhere
	Now     func() time.Time // default time.Now
	Changed func(*Snapshot)  // called with each new Snapshot, by one goroutine; may be nil
}

// pollEvery is how often files are read without being told of a change.
const pollEvery = 10 * time.Second

// Store keeps the credentials file and its secrets up to date. Make it with Open.
// Safe for concurrent use.
type Store struct {
	cfg     Config
	current atomic.Pointer[Snapshot]

	mu      sync.Mutex // guards what follows
	history map[string]*history
	files   []string // to watch
	problem string   // that was logged last
}

// Open reads the file for the first time. It fails if the file is not valid; the
// warnings are returned in both cases. A secret that cannot be read is logged, and
// its key has no value.
func Open(cfg Config) (*Store, []strictyaml.Problem, error) {
	if cfg.Now == nil {
		cfg.Now = time.Now
	}
	if cfg.Log == nil {
		cfg.Log = slog.New(slog.DiscardHandler)
	}
	s := &Store{cfg: cfg, history: map[string]*history{}}
	doc, warnings, err := read(cfg.File)
	if err != nil {
		return nil, warnings, err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.current.Store(s.hold(doc))
	return s, warnings, nil
}

// Current is the newest Snapshot. Take it once for each request.
func (s *Store) Current() *Snapshot { return s.current.Load() }

// Run follows changes until ctx ends.
func (s *Store) Run(ctx context.Context) {
	secret.Watch(ctx, s.folders(), pollEvery, s.cfg.Log, func() []string {
		s.Reload()
		return s.folders()
	})
}

func (s *Store) folders() []string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return secret.Folders(s.files)
}

// Reload reads all files again. A file that is not valid leaves no key in use; the
// token grants stay as they are, and endpoints that were credentialed stay so.
func (s *Store) Reload() {
	s.mu.Lock()
	defer s.mu.Unlock()
	before := s.current.Load()
	doc, _, err := read(s.cfg.File)
	var after *Snapshot
	if err != nil {
		after = &Snapshot{grants: before.grants, signing: before.signing, settings: before.settings, gates: before.gates, err: err, now: s.cfg.Now}
	} else {
		after = s.hold(doc)
	}
	s.logProblem(err)
	if before.same(after) {
		return
	}
	s.current.Store(after)
	if s.cfg.Changed != nil {
		s.cfg.Changed(after)
	}
}

func (s *Store) logProblem(err error) {
	text := ""
	if err != nil {
		text = err.Error()
	}
	if text != "" && text != s.problem {
		s.cfg.Log.Error("credentials are not valid; no key is in use", slog.Any("error", err))
	}
	s.problem = text
}

// hold makes a Snapshot of a valid document. mu is held.
func (s *Store) hold(doc *Document) *Snapshot {
	out := &Snapshot{keys: make(map[string]*held, len(doc.Keys)), signing: doc.Signing, grants: doc.Grants, settings: settingsOf(doc), gates: gated(doc), now: s.cfg.Now}
	for i := range out.grants {
		sum := sha256.Sum256([]byte(out.grants[i].text()))
		out.grants[i].revision = binary.BigEndian.Uint64(sum[:])
	}
	s.files = []string{s.cfg.File}
	for _, k := range doc.Keys {
		h := s.history[k.Name]
		if h == nil {
			h = &history{}
			s.history[k.Name] = h
		}
		held := h.hold(k)
		if old := s.current.Load().key(k.Name); held.problem != "" && (old == nil || old.problem != held.problem) {
			s.cfg.Log.Warn("credential has no usable value", slog.String("key", k.Name), slog.String("problem", held.problem))
		}
		out.keys[k.Name] = held
		out.names = append(out.names, k.Name)
		s.files = append(s.files, k.File)
	}
	for name, h := range s.history {
		if out.keys[name] == nil { // removed: what was given out is void
			h.present, h.value = false, secret.Value{}
		}
	}
	return out
}

// same reports whether two snapshots say the same.
func (s *Snapshot) same(o *Snapshot) bool {
	if (s.err == nil) != (o.err == nil) || s.settings != o.settings || len(s.keys) != len(o.keys) {
		return false
	}
	for name, a := range s.keys {
		b := o.keys[name]
		if b == nil || a.revision != b.revision || a.problem != b.problem || !a.expires.Equal(b.expires) ||
			a.placeholder() != b.placeholder() || a.Hygiene != b.Hygiene || !a.changed.Equal(b.changed) {
			return false
		}
	}
	return true
}
