package approve

import (
	"maps"
	"slices"

	"github.com/splitpod/splitpod/cmd/supervisor-network/internal/propose"
	"github.com/splitpod/splitpod/pkg/core/policy"
	"github.com/splitpod/splitpod/pkg/core/strictyaml"
)

// Merge is a policy with further rules, by name, checked as a whole. None of the names
// may be taken. The rules count as proposed by the workload, whoever approved them.
func Merge(base *policy.Document, rules map[string]policy.Rule) (*policy.Document, error) {
	out := *base
	out.Network = maps.Clone(base.Network)
	if out.Network == nil {
		out.Network = make(map[string]policy.Rule)
	}
	maps.Copy(out.Network, rules)
	// What is checked is the text that a file of it would have, so that no rule of the
	// schema is forgotten.
	read, _, err := policy.ParseComposed("the policy with the rule", policy.Encode(&out))
	if err != nil {
		return nil, err
	}
	for name := range rules {
		r := read.Network[name]
		unplace(&r)
		propose.Stamp(&r)
		out.Network[name] = r
	}
	return &out, nil
}

// unplace removes positions, which are none in the operator's file.
func unplace(r *policy.Rule) {
	r.At = strictyaml.Position{}
	for i := range r.Endpoints {
		e := &r.Endpoints[i]
		e.At = strictyaml.Position{}
		for j := range e.Allow {
			e.Allow[j].At = strictyaml.Position{}
		}
		for j := range e.Deny {
			e.Deny[j].At = strictyaml.Position{}
		}
		for j := range e.AllowedIPs {
			e.AllowedIPs[j].At = strictyaml.Position{}
		}
	}
	for i := range r.Binaries {
		r.Binaries[i].At = strictyaml.Position{}
	}
}

// free is a rule name that the policy does not have.
func free(doc *policy.Document, name, id string) string {
	for {
		if _, taken := doc.Network[name]; !taken {
			return name
		}
		name += "_" + id[:min(len(id), 8)]
	}
}

// Suspended is an approved rule that is not in force because it does not fit the
// policy file as it is now.
type Suspended struct {
	ID, Name, Why string
}

// Effective is what is to decide: a policy file with the approved rules that fit it.
type Effective struct {
	Document  *policy.Document
	Suspended []Suspended // approved, and left out
	joined    []string    // ids of the rules that are in it
}

// Effective joins the approved rules to a policy file. Rules that do not fit it are
// left out and returned.
func (s *Store) Effective(base *policy.Document) Effective {
	st := s.current()
	e := Effective{}
	e.Document, e.Suspended = effective(base, st)
	for i := range st.entries {
		id := st.entries[i].ID
		out := slices.ContainsFunc(e.Suspended, func(x Suspended) bool { return x.ID == id })
		if st.entries[i].Status == Approved && !out {
			e.joined = append(e.joined, id)
		}
	}
	return e
}

// Applied tells the Store what decides from now on, and so which rules are in force.
func (s *Store) Applied(e Effective) {
	s.mu.Lock()
	defer s.mu.Unlock()
	clear(s.inForce)
	for _, id := range e.joined {
		s.inForce[id] = true
	}
	s.announce()
}

func effective(base *policy.Document, st *state) (*policy.Document, []Suspended) {
	var approved []*Entry
	all := make(map[string]policy.Rule)
	for i := range st.entries {
		e := &st.entries[i]
		if e.Status != Approved {
			continue
		}
		approved = append(approved, e)
		name := free(base, e.Name, e.ID)
		for _, taken := all[name]; taken; _, taken = all[name] {
			name = free(base, name+"_"+e.ID[:8], e.ID)
		}
		all[name] = e.Rule
	}
	if len(approved) == 0 {
		return base, nil
	}
	if doc, err := Merge(base, all); err == nil {
		return doc, nil
	}
	var suspended []Suspended
	doc := base
	for _, e := range approved { // in the order they were made
		next, err := Merge(doc, map[string]policy.Rule{free(doc, e.Name, e.ID): e.Rule})
		if err != nil {
			suspended = append(suspended, Suspended{e.ID, e.Name, err.Error()})
			continue
		}
		doc = next
	}
	return doc, suspended
}
