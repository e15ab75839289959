package credentials

import (
	"fmt"
	"strings"
	"time"
)

// States of what needs nothing done.
const (
	Usable = "usable"
	Asked  = "fetched when it is needed" // of a grant
)

// Listing is what may be shown of one key: everything but its value.
type Listing struct {
	Key      string    `json:"key"`
	Bindings []string  `json:"bindings"` // "anywhere" for a key without
	Source   string    `json:"source"`   // path of the secret's file
	Placed   bool      `json:"in_environment"`
	Changed  time.Time `json:"changed,omitzero"` // when the value was written
	Expires  time.Time `json:"expires,omitzero"` // zero: never
	State    string    `json:"state"`            // usable, expired, or why there is no value
	Revision uint64    `json:"revision"`
	Uses     uint64    `json:"uses"` // since the daemon started
	LastUse  time.Time `json:"last_use,omitzero"`
}

// List lists the keys in the order of the file, then the token grants.
func (s *Snapshot) List() []Listing {
	if s == nil {
		return nil
	}
	out := make([]Listing, 0, len(s.names)+len(s.grants))
	for _, name := range s.names {
		out = append(out, s.keys[name].listing(s.now()))
	}
	for _, g := range s.grants {
		l := Listing{Key: "grant " + g.Name, Source: g.TokenEndpoint, State: Asked}
		for _, b := range g.Bindings {
			l.Bindings = append(l.Bindings, b.String())
		}
		out = append(out, l)
	}
	return out
}

func (k *held) listing(now time.Time) Listing {
	l := Listing{
		Key: k.Name, Source: k.File, Placed: k.Environment, Changed: k.changed, Expires: k.expires,
		State: Usable, Revision: k.revision, Uses: k.usage.count.Load(),
	}
	for _, b := range k.Bindings {
		l.Bindings = append(l.Bindings, b.String())
	}
	if k.Anywhere {
		l.Bindings = []string{"anywhere"}
	}
	switch {
	case k.problem != "":
		l.State = k.problem
	case k.expired(now):
		l.State = "expired"
	case strings.ContainsAny(k.value.Expose(), "\r\n\x00"):
		l.State = "the value contains CR, LF or NUL"
	}
	if last := k.usage.last.Load(); last != 0 {
		l.LastUse = time.Unix(0, last)
	}
	return l
}

// String is one line for a person.
func (l Listing) String() string {
	return fmt.Sprintf("%s\t%s\t%s\t%s\t%d uses", l.Key, strings.Join(l.Bindings, " "), l.Source, l.State, l.Uses)
}
