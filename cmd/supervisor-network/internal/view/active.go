package view

import (
	"cmp"
	"slices"
	"strings"
	"time"
)

// Active is what is under way. The daemon gives every row; a Snapshot has those with
// most connections and counts the rest.
type Active struct {
	Rows   []ActiveRow `json:"rows"`
	Others uint64      `json:"others"`
}

// ActiveRow is one destination of one program.
type ActiveRow struct {
	Host    string    `json:"host"`
	Port    uint16    `json:"port"`
	Program string    `json:"program,omitempty"` // if it is known
	Count   uint64    `json:"count"`             // connections and requests
	Unread  uint64    `json:"unread"`            // those of them whose bytes pass unread
	Since   time.Time `json:"since"`             // of the oldest
}

func (a Active) visible() Active {
	slices.SortFunc(a.Rows, func(x, y ActiveRow) int {
		return cmp.Or(cmp.Compare(y.Count, x.Count), x.Since.Compare(y.Since), strings.Compare(x.Host, y.Host),
			cmp.Compare(x.Port, y.Port), strings.Compare(x.Program, y.Program))
	})
	out := Active{Rows: []ActiveRow{}, Others: a.Others}
	for i, r := range a.Rows {
		if i >= listed {
			out.Others += r.Count
			continue
		}
		r.Host, r.Program, r.Since = clip(r.Host, maxName-1), clip(r.Program, maxName-1), r.Since.UTC()
		out.Rows = append(out.Rows, r)
	}
	return out
}
