package view

import (
	"cmp"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/splitpod/splitpod/pkg/core"
)

// Limits of what is known by name.
const (
	parts    = 6                // that the hour is counted in
	partStep = 10 * time.Minute // of each
	places   = 128              // names in each part
	listed   = 20               // names that are shown
	maxName  = 256              // bytes of a host or program that are told apart
)

// name is what is counted on its own.
type name struct {
	host    string
	program string
	reason  core.Reason
	port    uint16
}

// tally is what is counted of a name.
type tally struct {
	count, failed  uint64
	sent, received uint64
}

func (t *tally) add(more tally) {
	t.count += more.count
	t.failed += more.failed
	t.sent += more.sent
	t.received += more.received
}

// top counts names in a fixed number of places. It is the Space-Saving algorithm
// (Metwally, Agrawal, El Abbadi: Efficient Computation of Frequent and Top-k Elements
// in Data Streams, 2005), once for each part of the hour: without a free place, a new
// name takes that of the one with the least weight and inherits the weight. So a name
// that is more than one of 128 events of a part is there, however many others come,
// and no choice of names can keep it out. What a name's tally says was counted under
// that name, and so is a lower bound.
type top struct {
	mu    sync.Mutex // held for one name, or a copy
	parts [parts]part
	at    int64 // the newest part, in steps since 1970
}

type part struct {
	total uint64
	index map[name]int
	rows  []row
}

type row struct {
	name
	tally
	weight  uint64 // what decides who goes
	last    time.Time
	request core.RequestID
}

func (t *top) add(k name, n tally, e *core.Event) {
	t.mu.Lock()
	defer t.mu.Unlock()
	p := &t.parts[t.at%parts]
	p.total += n.count
	r := p.find(k)
	r.add(n)
	r.weight += n.count
	r.last, r.request = e.Time, ""
	if e.RequestID.Valid() {
		r.request = e.RequestID
	}
}

// find returns the row of a name, which it makes if need be.
func (p *part) find(k name) *row {
	if i, ok := p.index[k]; ok {
		return &p.rows[i]
	}
	// What is kept must not hold on to the buffers that it was read in.
	k.host, k.program, k.reason = strings.Clone(k.host), strings.Clone(k.program), core.Reason(strings.Clone(string(k.reason)))
	if p.index == nil {
		p.index = make(map[name]int, places)
	}
	i := len(p.rows)
	if i < places {
		p.rows = append(p.rows, row{name: k})
	} else {
		i = p.least()
		delete(p.index, p.rows[i].name)
		p.rows[i] = row{name: k, weight: p.rows[i].weight}
	}
	p.index[k] = i
	return &p.rows[i]
}

func (p *part) least() (i int) {
	for j := range p.rows {
		if p.rows[j].weight < p.rows[i].weight {
			i = j
		}
	}
	return i
}

// move forgets the parts that are over for an hour.
func (t *top) move(now time.Time) {
	t.mu.Lock()
	defer t.mu.Unlock()
	to := stepOf(now, partStep)
	for at := max(t.at+1, to-parts+1); at <= to; at++ {
		t.parts[at%parts] = part{}
	}
	t.at = max(t.at, to)
}

// list merges the parts.
func (t *top) list() Top {
	out := Top{Rows: []Row{}}
	merged := make(map[name]row)
	for _, r := range t.copied(&out.Total) {
		m, ok := merged[r.name]
		if !ok || r.last.After(m.last) {
			m.last, m.request = r.last, r.request
		}
		m.name = r.name
		m.tally.add(r.tally)
		merged[r.name] = m
	}
	rows := make([]row, 0, len(merged))
	for _, r := range merged {
		rows = append(rows, r)
	}
	slices.SortFunc(rows, func(a, b row) int {
		return cmp.Or(cmp.Compare(b.count, a.count), b.last.Compare(a.last), strings.Compare(a.host, b.host),
			cmp.Compare(a.port, b.port), strings.Compare(a.program, b.program), cmp.Compare(a.reason, b.reason))
	})
	out.Others = out.Total
	for _, r := range rows[:min(len(rows), listed)] {
		out.Others -= r.count
		out.Rows = append(out.Rows, r.shown())
	}
	return out
}

// copied are the rows of all parts.
func (t *top) copied(total *uint64) (rows []row) {
	t.mu.Lock()
	defer t.mu.Unlock()
	for i := range t.parts {
		*total += t.parts[i].total
		rows = append(rows, t.parts[i].rows...)
	}
	return rows
}

// cut bounds a name. Two that differ only behind are one.
func cut(s string) string { return s[:min(len(s), maxName)] }
