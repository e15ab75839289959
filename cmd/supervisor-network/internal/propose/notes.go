package propose

import (
	"fmt"
	"net/netip"
	"path"
	"slices"
	"strings"

	"github.com/splitpod/splitpod/cmd/supervisor-network/internal/authority"
	"github.com/splitpod/splitpod/cmd/supervisor-network/internal/relay/address"
	"github.com/splitpod/splitpod/pkg/core/policy"
)

// Note is something that a reviewer should know about a rule. Codes are stable.
type Note struct {
	Code string `json:"code"`
	Text string `json:"text"`
}

// Review says what is wide or unusual about a rule. It is the same for rules of all
// sources; an empty answer is no recommendation.
func Review(r policy.Rule) []Note {
	var n notes
	for i := range r.Endpoints {
		n.endpoint(&r.Endpoints[i])
	}
	if len(r.Binaries) == 0 {
		n.add("no_binary", "the rule names no program: it allows nothing where programs are identified, and any program where they are not")
	}
	for _, b := range r.Binaries {
		n.binary(b.Path)
	}
	return n
}

type notes []Note

func (n *notes) add(code, format string, args ...any) {
	note := Note{code, fmt.Sprintf(format, args...)}
	if !slices.Contains(*n, note) {
		*n = append(*n, note)
	}
}

func (n *notes) endpoint(e *policy.Endpoint) {
	n.host(e)
	for _, p := range e.Ports {
		n.port(p)
	}
	if len(e.AllowedIPs) > 0 {
		n.add("allowed_ips", "it opens addresses that may be internal; a name that the workload controls can lead to any of them")
	}
	switch {
	case e.TLS == "skip", e.Protocol == policy.ProtocolTCP:
		n.add("opaque", "what is sent to %s is not looked at, and nothing of it is recorded", e.Host)
	case !e.Protocol.Inspected() || e.Protocol == policy.ProtocolSQL:
		n.add("whole_host", "every request to %s is allowed, whatever its method and path", e.Host)
	case !e.Enforce:
		n.add("audit", "its rules are recorded and not enforced: every request to %s is allowed", e.Host)
	default:
		n.requests(e)
	}
}

func (n *notes) host(e *policy.Endpoint) {
	host := e.Host
	switch a, err := netip.ParseAddr(host); {
	case host == "":
		n.add("any_host", "it allows any name")
	case strings.Contains(host, "*"):
		n.add("wildcard_host", "%s stands for hosts that nobody has looked at", host)
	case err == nil:
		n.add("ip_literal", "%s is an address: who is behind it may change, and TLS certificates seldom name it", host)
		if class, why := address.Classify(a); class != address.Public {
			n.add("internal_address", "%s is not public: %s", host, why)
		}
	case !strings.Contains(host, "."), strings.HasSuffix(host, ".local"), strings.HasSuffix(host, ".internal"), strings.HasSuffix(host, ".svc"):
		n.add("internal_name", "%s looks like a name of the internal network", host)
	}
}

// databases are ports whose services hold data and are seldom meant to be reached.
var databases = []uint16{5432, 3306, 6379, 27017, 9200, 11211, 5672}

func (n *notes) port(p uint16) {
	switch {
	case slices.Contains(databases, p):
		n.add("database", "port %d is that of a data store (%s)", p, portNames[p])
	case p > 49152:
		n.add("ephemeral_port", "port %d is in the range that systems give to clients", p)
	case address.ControlPlanePort(p):
		n.add("control_plane", "port %d belongs to the control plane of a cluster and is refused at connect", p)
	}
}

func (n *notes) requests(e *policy.Endpoint) {
	if e.Access == "full" || e.Access == "read-write" {
		n.add("broad_access", "access: %s is more than reading, on every path of %s", e.Access, e.Host)
	}
	if e.MCP != nil && e.MCP.AllowAllKnownMCPMethods {
		n.add("any_method", "every known MCP method of %s is allowed", e.Host)
	}
	for i := range e.Allow {
		n.matcher(e, &e.Allow[i])
	}
	if len(e.Deny) > 0 {
		n.add("takes_away", "its deny_rules take away from what other rules allow")
	}
}

func (n *notes) matcher(e *policy.Endpoint, m *policy.Matcher) {
	switch e.Protocol {
	case policy.ProtocolJSONRPC, policy.ProtocolMCP:
		switch {
		case strings.ContainsAny(m.Method, "*?[{"):
			n.add("any_method", "method %s is a pattern", m.Method)
		case m.Method == "tools/call" && m.Tool == "" && m.Params["name"] == "", strings.ContainsAny(m.Tool+m.Params["name"], "*?[{"):
			n.add("any_tool", "it allows tools that nobody has looked at")
		}
		return
	case policy.ProtocolGraphQL:
		if m.OperationType != "query" {
			n.add("mutation", "operations of type %s change things", m.OperationType)
		}
		return
	}
	if m.Method == "*" {
		n.add("any_method", "any method of %s is allowed", m.Path)
	}
	if m.Path == "*" || strings.Contains(m.Path, "**") {
		n.add("wide_path", "%s stands for more paths than were asked for", m.Path)
	}
}

// runners start other programs, or run what they are given.
var runners = []string{
	"sh", "bash", "dash", "ash", "zsh", "fish", "busybox", "env", "xargs", "find", "make",
	"python", "python3", "node", "deno", "bun", "ruby", "perl", "php", "java", "npm", "npx", "uv", "uvx", "pip",
}

func (n *notes) binary(p string) {
	base, shown := path.Base(p), authority.Quote(p)
	switch {
	case strings.ContainsAny(p, "*"):
		n.add("wildcard_binary", "%s stands for programs that nobody has looked at", shown)
	case slices.Contains(runners, strings.TrimRight(base, "0123456789.")) || slices.Contains(runners, base):
		n.add("runner", "%s runs whatever it is given: everything that it starts may use the rule", base)
	}
	for _, dir := range []string{"/tmp/", "/var/tmp/", "/dev/shm/", "/home/", "/workspace/", "/sandbox/"} {
		if strings.HasPrefix(p, dir) {
			n.add("writable_binary", "%s lies where the workload may be able to replace it", shown)
		}
	}
}
