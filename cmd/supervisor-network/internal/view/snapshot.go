package view

import (
	"time"

	"github.com/splitpod/splitpod/pkg/core"
)

// Snapshot is what a person sees. Every string in it is visible, whoever chose it.
type Snapshot struct {
	Time  time.Time `json:"time"`
	Since time.Time `json:"since"` // of Totals
	State
	Totals       Totals     `json:"totals"`
	Rates        Rates      `json:"rates"`  // a second, over the last ten
	Recent       Series     `json:"recent"` // the last minute
	Hour         Series     `json:"hour"`
	Denied       Top        `json:"denied"`
	Destinations Top        `json:"destinations"`
	Proposals    *Proposals `json:"proposals,omitempty"` // nil: nothing here makes any
}

// State is what is true now. Counts are of now, but for Refused and Dropped.
type State struct {
	Build       string  `json:"build"`
	Instance    string  `json:"instance"`
	Ready       bool    `json:"ready"`
	Learning    bool    `json:"learning"` // public destinations are allowed although no rule allows them
	Checks      []Check `json:"checks"`
	Policy      Policy  `json:"policy"`
	Peer        *Peer   `json:"peer,omitempty"` // nil: this daemon works alone
	Connections int64   `json:"connections"`    // accepted ones
	Live        int64   `json:"live"`           // allowed connections and requests under way
	Tunnels     int64   `json:"tunnels"`        // those of them that are relayed unread
	Active      Active  `json:"active"`         // the same, by name
	Decides     bool    `json:"decides"`        // proposals can be decided on the page
	Refused     uint64  `json:"refused"`        // connections above the limit, since the start
	Dropped     uint64  `json:"dropped"`        // records that a log missed, since the start
}

// Check is one condition of readiness.
type Check struct {
	Name   string `json:"name"`
	OK     bool   `json:"ok"`
	Detail string `json:"detail"`
}

// Policy is the one in force.
type Policy struct {
	Generation core.Generation `json:"generation"`
	Digest     string          `json:"digest"` // SHA-256 of its file
	Quarantine bool            `json:"quarantine"`
}

// Peer is the process daemon.
type Peer struct {
	Attached bool   `json:"attached"`
	Build    string `json:"build"`
	Workload string `json:"workload"` // its phase
	Serving  bool   `json:"serving"`  // its listeners are served
}

// Totals count since the start.
type Totals struct {
	Allowed  uint64 `json:"allowed"`
	Failed   uint64 `json:"failed"` // allowed, and then something went wrong
	Denied   uint64 `json:"denied"`
	Bypassed uint64 `json:"bypassed"` // direct connections that the fence refused
}

// Rates are Totals a second.
type Rates struct {
	Allowed  float64 `json:"allowed"`
	Failed   float64 `json:"failed"`
	Denied   float64 `json:"denied"`
	Bypassed float64 `json:"bypassed"`
}

// Series are counts by time, the oldest first. The last one is of a step that is not
// over.
type Series struct {
	StepSeconds int       `json:"step_seconds"`
	End         time.Time `json:"end"` // of the last step
	Allowed     []uint64  `json:"allowed"`
	Failed      []uint64  `json:"failed"`
	Denied      []uint64  `json:"denied"`
	Bypassed    []uint64  `json:"bypassed"`
}

// Top lists what came most often in the last 50 to 60 minutes. The counts of Rows and
// Others add up to Total.
type Top struct {
	Rows   []Row  `json:"rows"`
	Others uint64 `json:"others"`
	Total  uint64 `json:"total"`
}

// Row is one name. Its counts are at least what there was: a name that had to make room
// for others in between starts anew.
type Row struct {
	Host     string    `json:"host"` // empty: the request did not say
	Port     uint16    `json:"port"`
	Reason   string    `json:"reason,omitempty"`  // of a refusal
	Program  string    `json:"program,omitempty"` // of a refusal, if it is known
	Count    uint64    `json:"count"`
	Failed   uint64    `json:"failed"`
	Sent     uint64    `json:"sent"` // bytes, by the workload
	Received uint64    `json:"received"`
	Last     time.Time `json:"last"`
	Request  string    `json:"request"` // id of the last one, in records
}

func (r *row) shown() Row {
	return Row{
		Host: clip(r.host, maxName-1), Port: r.port, Reason: clip(string(r.reason), 64), Program: clip(r.program, maxName-1),
		Count: r.count, Failed: r.failed, Sent: r.sent, Received: r.received, Last: r.last.UTC(), Request: string(r.request),
	}
}

// rateOver is how many seconds Rates are an average of.
const rateOver = 10

// Snapshot is the window now, beside a state and what is proposed.
func (w *Window) Snapshot(state State, proposals *Proposals) *Snapshot {
	now := time.Now()
	t := w.sample(now)
	s := &Snapshot{
		Time: now.UTC(), Since: w.since.UTC(), State: state.visible(), Proposals: proposals.visible(),
		Totals: Totals{t[allowed], t[failed], t[denied], t[bypassed]},
		Denied: w.denied.list(), Destinations: w.destinations.list(),
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	s.Rates, s.Recent, s.Hour = w.recent.rate(rateOver), w.recent.columns(), w.hour.columns()
	return s
}

// visible is the state with every text escaped: builds and details name the other
// daemon, and errors about files.
func (s State) visible() State {
	const limit = 300
	s.Build, s.Instance, s.Policy.Digest = clip(s.Build, limit), clip(s.Instance, limit), clip(s.Policy.Digest, limit)
	checks := make([]Check, 0, len(s.Checks))
	for _, c := range s.Checks {
		checks = append(checks, Check{clip(c.Name, limit), c.OK, clip(c.Detail, limit)})
	}
	s.Checks, s.Active = checks, s.Active.visible()
	if s.Peer != nil {
		p := *s.Peer
		p.Build, p.Workload = clip(p.Build, limit), clip(p.Workload, limit)
		s.Peer = &p
	}
	return s
}
