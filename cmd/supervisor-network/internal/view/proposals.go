package view

import (
	"slices"
	"time"
)

// Limits of what is shown of proposals, most of which the workload may have written.
const (
	maxProposals = 32
	maxLines     = 32 // changes, and notes, of each
	maxText      = 300
)

// Proposals are what waits for a person's decision. Nothing here decides.
type Proposals struct {
	Pending []Proposal `json:"pending"`
	Others  int        `json:"others"` // pending ones that are not listed
}

// Proposal is one of them, as it is reviewed.
type Proposal struct {
	ID        string    `json:"id"`
	Source    string    `json:"source"` // who made it
	Rule      string    `json:"rule"`   // its name
	Rationale string    `json:"rationale"`
	Created   time.Time `json:"created"`
	Notes     []string  `json:"notes"` // what a reviewer should know
	// Changes are what approving it does, a line each that begins with + for what is
	// gained and - for what is lost.
	Changes []string `json:"changes"`
	More    bool     `json:"more"` // there are more changes than are listed
	// Hash is what approving it has to be given. It is empty unless everything that
	// would change is listed in full.
	Hash string `json:"hash,omitempty"`
}

// visible bounds and escapes. It accepts nil.
func (p *Proposals) visible() *Proposals {
	if p == nil {
		return nil
	}
	out := &Proposals{Pending: make([]Proposal, 0, len(p.Pending)), Others: p.Others + max(len(p.Pending)-maxProposals, 0)}
	for _, one := range p.Pending[:min(len(p.Pending), maxProposals)] {
		more, hash := one.More || len(one.Changes) > maxLines, one.Hash
		if more || len(one.Changes) == 0 || slices.ContainsFunc(one.Changes, func(l string) bool { return clip(l, maxText) != Visible(l) }) {
			hash = ""
		}
		out.Pending = append(out.Pending, Proposal{
			ID: clip(one.ID, maxText), Source: clip(one.Source, maxText), Rule: clip(one.Rule, maxText), Rationale: clip(one.Rationale, maxText),
			Created: one.Created, Notes: lines(one.Notes), Changes: lines(one.Changes), More: more, Hash: clip(hash, maxText),
		})
	}
	return out
}

func lines(in []string) []string {
	out := make([]string, 0, len(in))
	for _, l := range in[:min(len(in), maxLines)] {
		out = append(out, clip(l, maxText))
	}
	return out
}
