// Package propose makes rules of denials: for every destination that a program was
// refused, the narrowest rule that would have allowed what it asked for, with what a
// reviewer should know about it.
//
// It answers the threat of a reviewer who is led: by a path that is a pattern, by a
// name that is also another destination's, by a wide rule that looks narrow, by a
// rule that would change nothing. It does not answer a workload that asks for what
// it should not have; nothing here is approved by anybody but a person.
//
// Invariant: the same summaries give the same proposals in the same order; no name is
// looked up; a text of the workload becomes a pattern for exactly itself, or, where
// it looks like an identifier, for its place in a path.
package propose

import (
	"cmp"
	"fmt"
	"math"
	"net/netip"
	"path"
	"slices"
	"strings"
	"time"

	"github.com/splitpod/splitpod/cmd/supervisor-network/internal/aggregate"
	"github.com/splitpod/splitpod/cmd/supervisor-network/internal/authority"
	"github.com/splitpod/splitpod/cmd/supervisor-network/internal/decide"
	"github.com/splitpod/splitpod/cmd/supervisor-network/internal/relay/address"
	"github.com/splitpod/splitpod/pkg/core"
	"github.com/splitpod/splitpod/pkg/core/policy"
)

// Source says who made a proposal.
type Source string

// The sources.
const (
	Mechanistic Source = "mechanistic" // this package, of denials
	Agent       Source = "agent"       // the workload, through policy.local
)

// Proposal is one rule that is asked for.
type Proposal struct {
	Source     Source
	Name       string // of the rule
	Rule       policy.Rule
	Key        aggregate.Key // mechanistic: what was denied
	Stage      core.Stage    // mechanistic: of the first denial
	Confidence float64       // mechanistic: 0.1 to 0.95, how sure it is that this is wanted
	Rationale  string        // for people; of an agent, its own words
	Notes      []Note
	Hits       uint64
	First      time.Time
	Last       time.Time
}

// Skip is a destination for which no rule is proposed, and why.
type Skip struct {
	Key aggregate.Key
	Why string
}

// Options are what the mapping depends on beside the summaries.
type Options struct {
	// AnyBinary is for a daemon that does not identify programs: rules then have none.
	AnyBinary bool
}

// Map makes proposals of denials, the surest first.
func Map(denials []aggregate.Summary, opt Options) ([]Proposal, []Skip) {
	var out []Proposal
	var skipped []Skip
	for i := range denials {
		s := &denials[i]
		if why := unfixable(s, opt); why != "" {
			skipped = append(skipped, Skip{s.Key, why})
			continue
		}
		out = append(out, proposal(s, opt))
	}
	slices.SortStableFunc(out, func(a, b Proposal) int {
		return cmp.Or(cmp.Compare(b.Confidence, a.Confidence), cmp.Compare(a.Key.Host, b.Key.Host),
			cmp.Compare(a.Key.Port, b.Key.Port), cmp.Compare(a.Key.Binary, b.Key.Binary))
	})
	return out, skipped
}

// tally is how often a key was denied, by what could be done about it.
type tally struct{ policy, ssrf, bypass, other uint64 }

func tallyOf(s *aggregate.Summary) tally {
	t := tally{other: s.OtherCauses}
	for _, c := range s.Causes {
		switch {
		case c.Stage == core.StageBypass:
			t.bypass += c.Count
		case c.Reason == core.ReasonSSRFDenied || c.Stage == core.StageSSRF:
			t.ssrf += c.Count
		case c.Reason == core.ReasonPolicyDenied:
			t.policy += c.Count
		default:
			t.other += c.Count
		}
	}
	return t
}

// NeedsAddresses explains a destination that the policy allows by name and that is
// refused for its addresses: another rule of the same kind would change nothing.
const NeedsAddresses = "the policy allows the name, and it leads to addresses that are not public: " +
	"only an endpoint with allowed_ips that names these addresses would open them, and no address that serves a machine's own network or a cloud's metadata is ever opened"

// unfixable says why no rule is proposed for a key; "" if one is.
func unfixable(s *aggregate.Summary, opt Options) string {
	t := tallyOf(s)
	switch {
	case t.policy == 0 && t.ssrf > 0:
		return NeedsAddresses
	case t.policy == 0 && t.bypass > 0:
		return "the program connects past the proxy; it has to be told of the proxy, a rule does not help"
	case t.policy == 0:
		return "it was not refused by a rule, and none would change that"
	case !opt.AnyBinary && (!strings.HasPrefix(s.Binary, "/") || path.Clean(s.Binary) != s.Binary):
		return "it is not known which program asked"
	}
	if asked := len(s.Samples) > 0 || s.Unsampled > 0; asked && len(matchers(s.Samples)) == 0 {
		return "it asked for paths that no rule can name; a rule for the whole host is not proposed in their place"
	}
	return neverAllowed(s.Host, s.Port)
}

// neverAllowed says why no policy can allow a destination; "" if one can.
func neverAllowed(host string, port uint16) string {
	name := strings.TrimSuffix(strings.ToLower(host), ".")
	if strings.Trim(name, "abcdefghijklmnopqrstuvwxyz0123456789.-_:") != "" {
		return "the destination is no host name"
	}
	if address.ControlPlanePort(port) {
		return fmt.Sprintf("port %d belongs to the control plane of the cluster and is never allowed", port)
	}
	if name == "policy.local" {
		return "the name is the network daemon's own, and is served over plain HTTP without any rule"
	}
	if name == decide.InferenceHost {
		return "the name is the network daemon's own, and who may ask it for models only an operator says"
	}
	if policy.MetadataName(name) {
		return "the name serves a cloud's credentials and is never allowed"
	}
	if name == "localhost" || strings.HasSuffix(name, ".localhost") {
		return "the name stands for this machine and is never allowed"
	}
	if a, err := netip.ParseAddr(name); err == nil {
		if class, why := address.Classify(a); class == address.Blocked {
			return "the address is never allowed: " + why
		}
	}
	return ""
}

func proposal(s *aggregate.Summary, opt Options) Proposal {
	t := tallyOf(s)
	p := Proposal{
		Source: Mechanistic, Name: RuleName(s.Host, s.Port), Key: s.Key, Stage: s.Causes[0].Stage, Hits: s.Count,
		First: s.First, Last: s.Last, Confidence: confidence(s, t),
	}
	e := policy.Endpoint{Host: strings.TrimSuffix(strings.ToLower(s.Host), "."), Ports: []uint16{s.Port}}
	if e.Allow = matchers(s.Samples); len(e.Allow) > 0 {
		e.Protocol, e.Enforce = policy.ProtocolREST, true
	}
	p.Rule = policy.Rule{Name: p.Name, Endpoints: []policy.Endpoint{e}}
	if !opt.AnyBinary {
		p.Rule.Binaries = []policy.Binary{{Path: LiteralBinary(s.Binary)}}
	}
	Stamp(&p.Rule)
	p.Rationale = rationale(s, e.Allow)
	p.Notes = Review(p.Rule)
	if t.ssrf > 0 {
		p.Notes = append(p.Notes, Note{"ssrf", fmt.Sprintf("%d of its denials were for its addresses; "+NeedsAddresses, t.ssrf)})
	}
	if s.Unsampled > 0 {
		p.Notes = append(p.Notes, Note{"incomplete", fmt.Sprintf("%d more requests had other methods or paths, which the rule does not allow", s.Unsampled)})
	}
	return p
}

// Stamp marks a rule as proposed by the workload.
func Stamp(r *policy.Rule) {
	for i := range r.Endpoints {
		r.Endpoints[i].AdvisorProposed = true
	}
	for i := range r.Binaries {
		r.Binaries[i].AdvisorProposed = true
	}
}

// confidence is by how often and how usual: 0.1 to 0.95.
func confidence(s *aggregate.Summary, t tally) float64 {
	c := 0.5
	switch n := t.policy + t.ssrf; {
	case n >= 10:
		c += 0.2
	case n >= 3:
		c += 0.1
	}
	if _, known := portNames[s.Port]; known {
		c += 0.15
	}
	if t.ssrf > 0 {
		c -= 0.2
	}
	return math.Round(min(max(c, 0.1), 0.95)*100) / 100
}

// portNames are the ports that services are usually found at.
var portNames = map[uint16]string{
	80: "HTTP", 443: "HTTPS", 8080: "HTTP (alternative)", 8443: "HTTPS (alternative)",
	5432: "PostgreSQL", 3306: "MySQL", 6379: "Redis", 27017: "MongoDB", 9200: "Elasticsearch",
	9092: "Kafka", 2181: "ZooKeeper", 11211: "Memcached", 5672: "AMQP", 6443: "Kubernetes API",
	53: "DNS", 587: "SMTP submission", 993: "IMAPS", 995: "POP3S",
}

// rationale says what was asked for, and repeats nothing that could be a secret.
func rationale(s *aggregate.Summary, rules []policy.Matcher) string {
	program := "an unknown program"
	if strings.HasPrefix(s.Binary, "/") {
		program = authority.Quote(path.Base(s.Binary))
	}
	text := fmt.Sprintf("%s asked for %s:%d", program, authority.Quote(s.Host), s.Port)
	if name, ok := portNames[s.Port]; ok {
		text += " (" + name + ")"
	}
	var asked []string
	for _, m := range rules {
		asked = append(asked, authority.Quote(m.Method)+" "+authority.Quote(m.Path))
	}
	if len(asked) > 0 {
		text += ": " + strings.Join(asked, ", ")
	}
	return text
}
