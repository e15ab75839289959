package authority

import (
	"slices"

	"github.com/splitpod/splitpod/pkg/core/policy"
	"github.com/splitpod/splitpod/pkg/core/policy/glob"
)

// place is where and by whom an endpoint can be used.
type place struct {
	binaries []string
	endpoint *policy.Endpoint
	host     *glob.Host
}

func (g *grant) place() place { return place{g.binaries, g.endpoint, g.host} }
func (d *deny) place() place  { return place{d.binaries, d.endpoint, d.host} }

// meets reports whether one connection could belong to both. It errs on the side of
// yes.
func (p place) meets(o place) bool {
	ports := slices.ContainsFunc(p.endpoint.Ports, func(n uint16) bool { return slices.Contains(o.endpoint.Ports, n) })
	if !ports || !p.host.Overlaps(o.host) {
		return false
	}
	for _, a := range p.binaries {
		for _, b := range o.binaries {
			if a == b || glob.PathsOverlap(a, b) {
				return true
			}
		}
	}
	return false
}

// sameRequests reports whether one request could belong to both. It errs on the side
// of yes.
func sameRequests(a, b *policy.Endpoint, x, y *policy.Matcher) bool {
	if !glob.CompileScope(a.PathScope).Overlaps(glob.CompileScope(b.PathScope)) {
		return false
	}
	if x.Path != "" && y.Path != "" && !glob.PathsOverlap(x.Path, y.Path) {
		return false
	}
	return x.Method == "" || y.Method == "" || coversMethod(x.Method, y.Method) || coversMethod(y.Method, x.Method)
}

// shadowed reports whether what a grant lets through unjudged is judged all the same,
// because the connection belongs to an endpoint with rules as well, one that counts.
func (v *view) shadowed(g *grant, counts func(*grant) bool) bool {
	if g.carried != unread {
		return false
	}
	for i := range v.grants {
		o := &v.grants[i]
		if o.carried == judged && counts(o) && o.place().meets(g.place()) {
			return true
		}
	}
	return false
}
