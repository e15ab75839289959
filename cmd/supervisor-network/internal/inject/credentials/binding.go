package credentials

import (
	"fmt"
	"slices"
	"strings"

	"github.com/splitpod/splitpod/pkg/core/policy/glob"
)

// Binding is a set of endpoints.
type Binding struct {
	Host  string // selector: * in a label, ** for labels
	Ports []uint16
	Path  string // scope; "" is every path
	host  *glob.Selector
	path  *glob.Scope
}

// compile makes a Binding that can match.
func (b Binding) compile() (Binding, error) {
	var err error
	if b.host, err = glob.CompileSelector(b.Host); err != nil {
		return b, fmt.Errorf("host %q: %w", b.Host, err)
	}
	b.path = glob.CompileScope(b.Path)
	if err := b.path.Err(); err != nil {
		return b, fmt.Errorf("path %q: %w", b.Path, err)
	}
	return b, nil
}

// At reports whether some request to host and port can match.
func (b Binding) At(host string, port uint16) bool {
	return b.host != nil && slices.Contains(b.Ports, port) && b.host.Match(host)
}

// Match reports whether a request matches; its path is canonical and redacted.
func (b Binding) Match(host string, port uint16, path string) bool {
	return b.At(host, port) && b.path.Match(path)
}

// weight orders bindings that match the same request: first by host, then by path.
func (b Binding) weight() (host, path int) {
	return len(b.Host) - strings.Count(b.Host, "*"), b.path.Specificity()
}

// String is host:port,port/path.
func (b Binding) String() string {
	ports := make([]string, len(b.Ports))
	for i, p := range b.Ports {
		ports[i] = fmt.Sprint(p)
	}
	return b.Host + ":" + strings.Join(ports, ",") + b.Path
}

func matching(bs []Binding, host string, port uint16, path string) bool {
	return slices.ContainsFunc(bs, func(b Binding) bool { return b.Match(host, port, path) })
}
