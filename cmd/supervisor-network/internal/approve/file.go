package approve

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"time"

	"github.com/splitpod/splitpod/cmd/supervisor-network/internal/aggregate"
	"github.com/splitpod/splitpod/cmd/supervisor-network/internal/propose"
	"github.com/splitpod/splitpod/pkg/core"
	"github.com/splitpod/splitpod/pkg/core/policy"
)

// Files in the state directory.
const (
	StateFile   = "proposals.json" // what is kept
	OverlayFile = "overlay.yaml"   // the approved rules, to be looked at; written, never read
)

// maxFile bounds the file of proposals.
const maxFile = 32 << 20

// kept is the file. Rules are in it as policy files, so that what is read is checked
// as every policy is.
type kept struct {
	Version int         `json:"version"`
	Entries []keptEntry `json:"proposals"`
}

type keptEntry struct {
	ID         string         `json:"id"`
	Status     Status         `json:"status"`
	Source     propose.Source `json:"source"`
	Name       string         `json:"rule_name"`
	Rule       string         `json:"rule"`
	Host       string         `json:"host,omitempty"`
	Port       uint16         `json:"port,omitempty"`
	Binary     string         `json:"binary,omitempty"`
	Stage      core.Stage     `json:"stage,omitempty"`
	Confidence float64        `json:"confidence,omitempty"`
	Rationale  string         `json:"rationale,omitempty"`
	Notes      []propose.Note `json:"notes,omitempty"`
	Hits       uint64         `json:"hits,omitempty"`
	First      time.Time      `json:"first,omitzero"`
	Last       time.Time      `json:"last,omitzero"`
	Created    time.Time      `json:"created"`
	Decided    time.Time      `json:"decided,omitzero"`
	By         uint32         `json:"by,omitempty"`
	Reason     string         `json:"reason,omitempty"`
	Hash       string         `json:"hash,omitempty"`
	Base       string         `json:"base,omitempty"`
}

// sweep removes what a killed instance had not renamed yet.
func sweep(dir string) {
	for _, name := range []string{StateFile, OverlayFile} {
		left, _ := filepath.Glob(filepath.Join(dir, "."+name+".*"))
		for _, f := range left {
			_ = os.Remove(f) // it is in nobody's way but for its room
		}
	}
}

func load(dir string) (*state, error) {
	file := filepath.Join(dir, StateFile)
	f, err := os.Open(file)
	if errors.Is(err, fs.ErrNotExist) {
		return &state{}, nil
	}
	if err != nil {
		return nil, fmt.Errorf("read the proposals: %w", err)
	}
	defer f.Close()
	data, err := io.ReadAll(io.LimitReader(f, maxFile+1))
	if err != nil {
		return nil, fmt.Errorf("read the proposals: %w", err)
	}
	st, err := decode(data)
	if err != nil {
		return nil, fmt.Errorf("read the proposals in %s: %w; move the file away to start without any", file, err)
	}
	return st, nil
}

func decode(data []byte) (*state, error) {
	if len(data) > maxFile {
		return nil, fmt.Errorf("the file is larger than %d bytes", maxFile)
	}
	var k kept
	dec := json.NewDecoder(bytes.NewReader(data))
	dec.DisallowUnknownFields()
	if err := dec.Decode(&k); err != nil {
		return nil, err
	}
	if k.Version != 1 {
		return nil, fmt.Errorf("version %d is not known to this build", k.Version)
	}
	st := &state{}
	seen := make(map[string]bool)
	for _, e := range k.Entries {
		entry, err := e.entry()
		if err != nil {
			return nil, fmt.Errorf("proposal %q: %w", e.ID, err)
		}
		if seen[e.ID] {
			return nil, fmt.Errorf("proposal %q is there twice", e.ID)
		}
		seen[e.ID] = true
		st.entries = append(st.entries, entry)
	}
	return st, nil
}

func (k *keptEntry) entry() (Entry, error) {
	if !core.RequestID(k.ID).Valid() {
		return Entry{}, errors.New("the id has not the shape of one")
	}
	switch k.Status {
	case Pending, Approved, Rejected, Superseded, Revoked:
	default:
		return Entry{}, fmt.Errorf("status %q is not known to this build", k.Status)
	}
	doc, _, err := policy.Parse("rule", []byte(k.Rule))
	if err != nil {
		return Entry{}, err
	}
	rule, ok := doc.Network[k.Name]
	if !ok || len(doc.Network) != 1 {
		return Entry{}, errors.New("the rule is not there under its name")
	}
	unplace(&rule)
	propose.Stamp(&rule)
	return Entry{ID: k.ID, Status: k.Status, Content: content(rule), Created: k.Created, Decided: k.Decided, By: k.By, Reason: k.Reason, Hash: k.Hash, Base: k.Base,
		Proposal: propose.Proposal{Source: k.Source, Name: k.Name, Rule: rule, Key: aggregate.Key{Host: k.Host, Port: k.Port, Binary: k.Binary},
			Stage: k.Stage, Confidence: k.Confidence, Rationale: k.Rationale, Notes: k.Notes, Hits: k.Hits, First: k.First, Last: k.Last}}, nil
}

func save(dir string, st *state) error {
	k := kept{Version: 1, Entries: []keptEntry{}}
	for i := range st.entries {
		e := &st.entries[i]
		k.Entries = append(k.Entries, keptEntry{ID: e.ID, Status: e.Status, Source: e.Source, Name: e.Name, Rule: ruleYAML(e.Name, e.Rule),
			Host: e.Key.Host, Port: e.Key.Port, Binary: e.Key.Binary, Stage: e.Stage, Confidence: e.Confidence, Rationale: e.Rationale,
			Notes: e.Notes, Hits: e.Hits, First: e.First, Last: e.Last, Created: e.Created, Decided: e.Decided, By: e.By, Reason: e.Reason,
			Hash: e.Hash, Base: e.Base})
	}
	data, err := json.MarshalIndent(k, "", " ")
	if err != nil {
		return fmt.Errorf("write the proposals: %w", err)
	}
	if err := replace(filepath.Join(dir, StateFile), data); err != nil {
		return fmt.Errorf("write the proposals: %w", err)
	}
	return nil
}

const overlayHead = `# The rules that were approved on top of the policy file. This file is written, and
# never read: use supervisor-network proposals to change what it shows.
`

// overlay is the approved rules as a policy file.
func overlay(st *state) []byte {
	doc := &policy.Document{Network: make(map[string]policy.Rule)}
	for i := range st.entries {
		if e := &st.entries[i]; e.Status == Approved {
			doc.Network[free(doc, e.Name, e.ID)] = e.Rule
		}
	}
	return policy.Encode(doc)
}

func saveOverlay(dir string, st *state) error {
	return replace(filepath.Join(dir, OverlayFile), append([]byte(overlayHead), overlay(st)...))
}

// replace puts a file in the place of another so that after a crash one of the two is
// there, whole.
func replace(path string, data []byte) error {
	tmp, err := os.CreateTemp(filepath.Dir(path), "."+filepath.Base(path)+".*")
	if err != nil {
		return err
	}
	defer os.Remove(tmp.Name())
	_, err = tmp.Write(data)
	err = errors.Join(err, tmp.Sync(), tmp.Close())
	if err != nil {
		return err
	}
	if err := os.Rename(tmp.Name(), path); err != nil {
		return err
	}
	dir, err := os.Open(filepath.Dir(path))
	if err != nil {
		return err
	}
	defer dir.Close()
	return dir.Sync()
}
