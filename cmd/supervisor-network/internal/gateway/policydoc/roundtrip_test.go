package policydoc

import (
	"cmp"
	"fmt"
	"math/rand/v2"
	"net/netip"
	"path"
	"slices"
	"strings"
	"testing"

	gocmp "github.com/google/go-cmp/cmp"
	"go.yaml.in/yaml/v3"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/testing/protocmp"

	gatewayv1 "github.com/splitpod/splitpod/api/gateway/v1"
	"github.com/splitpod/splitpod/pkg/core/policy"
	"github.com/splitpod/splitpod/pkg/core/strictyaml"
)

// compare reads a policy and compares what was read with it, field by field. It reports
// whether the policy is valid.
func compare(t *testing.T, p *gatewayv1.SandboxPolicy) bool {
	t.Helper()
	f, again := Read("p", p), Read("p", p)
	if (f.Doc == nil) != (f.Err != nil) || f.Digest != again.Digest || fmt.Sprint(f.Err) != fmt.Sprint(again.Err) {
		t.Fatalf("document %v, error %v; and again %v", f.Doc, f.Err, again.Err)
	}
	if data, err := Write(p); err == nil {
		checkTexts(t, p, data)
	}
	if f.Err != nil {
		return false
	}
	if diff := gocmp.Diff(usual(p), back(f.Doc), protocmp.Transform()); diff != "" {
		data, _ := Write(p)
		t.Fatalf("another policy was read (-sent +read):\n%s\n%s", diff, data)
	}
	return true
}

// checkTexts checks that every text of the policy is in the file, exactly, whether or not the
// file is valid.
func checkTexts(t *testing.T, p *gatewayv1.SandboxPolicy, data []byte) {
	t.Helper()
	if strings.ContainsFunc(string(data), func(c rune) bool { return c != '\n' && (c < ' ' || c > '~') }) {
		t.Fatalf("something is not visible ASCII:\n%q", data)
	}
	var doc yaml.Node
	if err := yaml.Unmarshal(data, &doc); err != nil {
		t.Fatalf("%v\n%s", err, data)
	}
	written := make(map[string]bool)
	var collect func(*yaml.Node)
	collect = func(n *yaml.Node) {
		if n.Kind == yaml.ScalarNode && n.Tag == "!!str" {
			written[n.Value] = true
		}
		for _, c := range n.Content {
			collect(c)
		}
	}
	collect(&doc)
	walk(p.ProtoReflect(), func(m protoreflect.Message) {
		m.Range(func(fd protoreflect.FieldDescriptor, v protoreflect.Value) bool {
			var texts []string
			switch {
			case fd.IsMap():
				v.Map().Range(func(k protoreflect.MapKey, _ protoreflect.Value) bool { texts = append(texts, k.String()); return true })
			case fd.Kind() == protoreflect.StringKind && fd.IsList():
				for i := range v.List().Len() {
					texts = append(texts, v.List().Get(i).String())
				}
			case fd.Kind() == protoreflect.StringKind:
				texts = append(texts, v.String())
			}
			for _, s := range texts {
				if !written[s] {
					t.Fatalf("%q of %s is not in the file:\n%s", s, fd.Name(), data)
				}
			}
			return true
		})
	})
}

// usual is a policy in the form that a Document has: with defaults, and without what says
// the same in two ways.
func usual(p *gatewayv1.SandboxPolicy) *gatewayv1.SandboxPolicy {
	p = proto.CloneOf(p)
	if fs := p.Filesystem; fs != nil {
		for _, list := range [][]string{fs.ReadOnly, fs.ReadWrite} {
			for i := range list {
				list[i] = path.Clean(list[i])
			}
		}
	}
	p.Landlock = &gatewayv1.LandlockPolicy{Compatibility: cmp.Or(p.Landlock.GetCompatibility(), "best_effort")}
	p.Process = &gatewayv1.ProcessPolicy{RunAsUser: p.Process.GetRunAsUser(), RunAsGroup: p.Process.GetRunAsGroup()}
	for key, r := range p.NetworkPolicies {
		r.Name = cmp.Or(r.Name, key)
		for _, e := range r.Endpoints {
			usualEndpoint(e)
			e.AdvisorProposed = e.AdvisorProposed || slices.ContainsFunc(r.Binaries, (*gatewayv1.NetworkBinary).GetHarness)
		}
	}
	return p
}

func usualEndpoint(e *gatewayv1.NetworkEndpoint) {
	e.Host = strings.ToLower(e.Host)
	if len(e.Ports) == 0 {
		e.Ports = []uint32{e.Port}
	}
	var ports []uint32
	for _, n := range e.Ports {
		if !slices.Contains(ports, n) {
			ports = append(ports, n)
		}
	}
	e.Port, e.Ports = 0, ports
	for i, s := range e.AllowedIps {
		if a, err := netip.ParseAddr(s); err == nil {
			s = netip.PrefixFrom(a, a.BitLen()).String()
		}
		e.AllowedIps[i] = netip.MustParsePrefix(s).String()
	}
	if e.Tls != "skip" {
		e.Tls = "" // of old spellings of the default
	}
	e.Enforcement = cmp.Or(e.Enforcement, "audit")
	e.PersistedQueries = cmp.Or(e.PersistedQueries, "deny")
	e.GraphqlMaxBodyBytes = cmp.Or(e.GraphqlMaxBodyBytes, 65536)
	switch e.Protocol {
	case "mcp":
		strict := e.Mcp == nil || e.Mcp.StrictToolNames == nil || *e.Mcp.StrictToolNames
		e.Mcp = &gatewayv1.McpOptions{StrictToolNames: &strict, AllowAllKnownMcpMethods: proto.Bool(e.Mcp.GetAllowAllKnownMcpMethods())}
		fallthrough
	case "json-rpc":
		e.JsonRpcMaxBodyBytes = cmp.Or(e.JsonRpcMaxBodyBytes, 65536)
	}
	e.ProviderCredentialed = false // which was checked
	requests := e.Protocol == "rest" || e.Protocol == "websocket"
	for _, r := range e.Rules {
		if requests {
			r.Allow.Method = strings.ToUpper(r.Allow.Method)
		}
		usualPatterns(r.Allow.Query)
	}
	for _, r := range e.DenyRules {
		if requests {
			r.Method = strings.ToUpper(r.Method)
		}
		usualPatterns(r.Query)
	}
}

func usualPatterns(of map[string]*gatewayv1.L7QueryMatcher) {
	for _, m := range of {
		if len(m.Any) == 1 {
			m.Glob, m.Any = m.Any[0], nil
		}
	}
}

// back is a document as a policy.
func back(d *policy.Document) *gatewayv1.SandboxPolicy {
	p := &gatewayv1.SandboxPolicy{
		Version:  uint32(d.Version),
		Landlock: &gatewayv1.LandlockPolicy{Compatibility: string(d.Landlock.Compatibility)},
		Process:  &gatewayv1.ProcessPolicy{RunAsUser: d.Process.RunAsUser, RunAsGroup: d.Process.RunAsGroup},
	}
	if fs := d.Filesystem; fs.Present {
		p.Filesystem = &gatewayv1.FilesystemPolicy{IncludeWorkdir: fs.IncludeWorkdir, ReadOnly: fs.ReadOnly, ReadWrite: fs.ReadWrite}
	}
	p.NetworkPolicies = make(map[string]*gatewayv1.NetworkPolicyRule)
	for key, r := range d.Network {
		rule := &gatewayv1.NetworkPolicyRule{Name: r.Name}
		for i := range r.Endpoints {
			rule.Endpoints = append(rule.Endpoints, backEndpoint(&r.Endpoints[i]))
		}
		for _, b := range r.Binaries {
			rule.Binaries = append(rule.Binaries, &gatewayv1.NetworkBinary{Path: b.Path, Harness: b.AdvisorProposed})
		}
		p.NetworkPolicies[key] = rule
	}
	return p
}

func backEndpoint(e *policy.Endpoint) *gatewayv1.NetworkEndpoint {
	out := &gatewayv1.NetworkEndpoint{
		Host: e.Host, Path: e.PathScope, Protocol: string(e.Protocol), Tls: e.TLS, Enforcement: "audit", Access: e.Access,
		AllowEncodedSlash: e.AllowEncodedSlash, PersistedQueries: e.PersistedQueries, GraphqlMaxBodyBytes: e.GraphQLMaxBodyBytes,
		WebsocketCredentialRewrite: e.WebSocketCredentialRewrite, RequestBodyCredentialRewrite: e.RequestBodyCredentialRewrite,
		AllowUninspectedCredentials: e.AllowUninspectedCredentials, CredentialSigning: e.CredentialSigning,
		SigningService: e.SigningService, SigningRegion: e.SigningRegion, AdvisorProposed: e.AdvisorProposed,
	}
	for _, n := range e.Ports {
		out.Ports = append(out.Ports, uint32(n))
	}
	for _, a := range e.AllowedIPs {
		out.AllowedIps = append(out.AllowedIps, a.Prefix.String())
	}
	if e.Enforce {
		out.Enforcement = "enforce"
	}
	if e.CredentialBindingProvider != "" {
		out.CredentialBinding = &gatewayv1.NetworkCredentialBinding{Provider: e.CredentialBindingProvider}
	}
	if e.JSONRPC != nil {
		out.JsonRpcMaxBodyBytes = e.JSONRPC.MaxBodyBytes
	}
	if e.MCP != nil {
		out.JsonRpcMaxBodyBytes = e.MCP.MaxBodyBytes
		out.Mcp = &gatewayv1.McpOptions{StrictToolNames: &e.MCP.StrictToolNames, AllowAllKnownMcpMethods: &e.MCP.AllowAllKnownMCPMethods}
	}
	for id, q := range e.GraphQLPersistedQueries {
		if out.GraphqlPersistedQueries == nil {
			out.GraphqlPersistedQueries = make(map[string]*gatewayv1.GraphqlOperation)
		}
		out.GraphqlPersistedQueries[id] = &gatewayv1.GraphqlOperation{OperationType: q.OperationType, OperationName: q.OperationName, Fields: q.Fields}
	}
	for i := range e.Allow {
		out.Rules = append(out.Rules, &gatewayv1.L7Rule{Allow: backMatcher(&e.Allow[i])})
	}
	for i := range e.Deny {
		m := backMatcher(&e.Deny[i])
		out.DenyRules = append(out.DenyRules, &gatewayv1.L7DenyRule{Method: m.Method, Path: m.Path, Command: m.Command, Query: m.Query,
			OperationType: m.OperationType, OperationName: m.OperationName, Fields: m.Fields, Params: m.Params})
	}
	return out
}

func backMatcher(m *policy.Matcher) *gatewayv1.L7Allow {
	out := &gatewayv1.L7Allow{Method: m.Method, Path: m.Path, Command: m.Command,
		OperationType: m.OperationType, OperationName: m.OperationName, Fields: m.Fields}
	out.Query, out.Params = make(map[string]*gatewayv1.L7QueryMatcher), make(map[string]*gatewayv1.L7QueryMatcher)
	for key, globs := range m.Query {
		out.Query[key] = &gatewayv1.L7QueryMatcher{Any: globs}
		usualPatterns(out.Query)
	}
	for key, g := range m.Params {
		out.Params[key] = &gatewayv1.L7QueryMatcher{Glob: g}
	}
	return out
}

// odd are texts that something in YAML could take for something else.
var odd = []string{
	"true", "no", "null", "~", "1.0", "0443", "1e3", "2026-11-27", "<<", "=", "a: b", "a:", ": ", "# c", "a #c", "&a", "*a", "!t", "!!str x",
	"- x", "? x", "|", ">", "%x", "@x", "`x", "'", "\"", "\\", "\\n", "{a}", "[a]", ",", "---", "...", " lead", "trail ", " ",
	"\u00e9", "\u65e5\u672c", "\U0001f600", "\u3164", "\ufffd", "\U0010ffff", "a\nb", "\t", "\u2028", "\u202e", "\ufeff", "\x00", "\x1b", "\x7f", "\u0085",
	strings.Repeat("long ", 999), strings.Repeat("\u00e9", 2000), "Norway", "y", "on", "version", "x-y_z",
}

// random makes policies of which most are valid.
type random struct{ *rand.Rand }

func (r random) some(n int) bool { return r.IntN(n) == 0 }

func pick[T any](r random, from ...T) T { return from[r.IntN(len(from))] }

// text is a text of any kind, longer or shorter.
func (r random) text() string {
	switch r.IntN(4) {
	case 0:
		return pick(r, odd...)
	case 1:
		return pick(r, odd...) + pick(r, odd...)
	}
	var b strings.Builder
	for range 1 + r.IntN(8) {
		b.WriteRune(rune(pick(r, ' '+r.IntN(95), 0xa1+r.IntN(0xd000), 0x10000+r.IntN(0x1000))))
	}
	return b.String()
}

// tame is a text that patterns take as it is, and one that is not now and then.
func (r random) tame() string {
	if r.some(40) {
		return r.text()
	}
	return strings.Map(func(c rune) rune {
		if strings.ContainsRune(`*?[]{}\`, c) || strictyaml.Clip(string(c)) != string(c) {
			return 'x'
		}
		return c
	}, r.text())
}

func (r random) tames() (out []string) {
	for range 1 + r.IntN(3) {
		out = append(out, r.tame())
	}
	return out
}

func (r random) policy() *gatewayv1.SandboxPolicy {
	p := &gatewayv1.SandboxPolicy{Version: 1}
	if r.some(2) {
		p.Filesystem = &gatewayv1.FilesystemPolicy{IncludeWorkdir: r.some(2), ReadOnly: []string{"/a/" + strings.ReplaceAll(r.tame(), "/", "")}}
		if r.some(2) {
			p.Filesystem.ReadWrite = []string{"/tmp/", "/b//c/./d"}
		}
	}
	if r.some(2) {
		p.Landlock = &gatewayv1.LandlockPolicy{Compatibility: pick(r, "", "best_effort", "hard_requirement")}
	}
	if r.some(2) {
		p.Process = &gatewayv1.ProcessPolicy{RunAsUser: pick(r, "", "sandbox", "1000"), RunAsGroup: pick(r, "", "true", "4294967294")}
	}
	p.NetworkPolicies = make(map[string]*gatewayv1.NetworkPolicyRule)
	for i := range r.IntN(3) {
		rule := &gatewayv1.NetworkPolicyRule{}
		if r.some(3) {
			rule.Name = r.tame()
		}
		for j := range 1 + r.IntN(3) {
			e := r.endpoint()
			e.Host = fmt.Sprintf("H%d-%d.example.com", i, j)
			rule.Endpoints = append(rule.Endpoints, e)
		}
		for range r.IntN(3) {
			rule.Binaries = append(rule.Binaries, &gatewayv1.NetworkBinary{Path: "/bin/" + strings.Map(func(c rune) rune {
				if c == '/' || c == '.' {
					return 'x'
				}
				return c
			}, r.tame()), Harness: r.some(5)})
		}
		p.NetworkPolicies[pick(r, "", "_provider_")+r.tame()] = rule
	}
	return p
}

func (r random) endpoint() *gatewayv1.NetworkEndpoint {
	e := &gatewayv1.NetworkEndpoint{
		Protocol: pick(r, "", "tcp", "rest", "websocket", "graphql", "sql", "json-rpc", "mcp"), AdvisorProposed: r.some(4),
	}
	if r.some(2) {
		e.Port = 1 + r.Uint32N(65535)
	} else {
		e.Ports = []uint32{1 + r.Uint32N(65535), 443, 443}
		e.Port = pick(r, 0, e.Ports[0])
	}
	if r.some(3) {
		e.AllowedIps = []string{"10.0.0.0/8", "2001:db8::1"}
	}
	switch e.Protocol {
	case "", "tcp":
		e.Tls = pick(r, "", "skip", "terminate")
		return e
	case "sql":
		e.Enforcement = pick(r, "", "audit")
	default:
		e.Enforcement = pick(r, "", "audit", "enforce")
	}
	e.ProviderCredentialed = e.Protocol != "sql" && r.some(4)
	e.AllowUninspectedCredentials = r.some(4)
	r.options(e)
	if e.Protocol != "mcp" && e.Protocol != "json-rpc" && r.some(3) {
		e.Access = pick(r, "read-only", "read-write", "full")
	} else {
		for range 1 + r.IntN(2) {
			e.Rules = append(e.Rules, &gatewayv1.L7Rule{Allow: r.matcher(e.Protocol)})
		}
	}
	if r.some(2) {
		m := r.matcher(e.Protocol)
		e.DenyRules = append(e.DenyRules, &gatewayv1.L7DenyRule{Method: m.Method, Path: m.Path, Command: m.Command, Query: m.Query,
			OperationType: m.OperationType, OperationName: m.OperationName, Fields: m.Fields, Params: m.Params})
	}
	return e
}

func (r random) options(e *gatewayv1.NetworkEndpoint) {
	switch e.Protocol {
	case "rest":
		e.AllowEncodedSlash, e.Path = r.some(3), pick(r, "", "/**", "**")
		switch r.IntN(3) {
		case 0:
			e.RequestBodyCredentialRewrite = true
		case 1:
			e.CredentialSigning, e.SigningService, e.SigningRegion = pick(r, "sigv4", "sigv4:body", "sigv4:no_body"), "s3", pick(r, "", "eu-1")
			e.CredentialBinding = &gatewayv1.NetworkCredentialBinding{Provider: r.tame()}
		}
	case "graphql", "websocket":
		e.WebsocketCredentialRewrite, e.GraphqlMaxBodyBytes = r.some(2), pick(r, 0, 1, r.Uint32())
		if r.some(2) {
			e.PersistedQueries = pick(r, "deny", "allow_registered")
			e.GraphqlPersistedQueries = map[string]*gatewayv1.GraphqlOperation{
				r.tame(): {OperationType: pick(r, "query", "mutation"), OperationName: r.text(), Fields: r.tames()}, r.text(): {OperationType: "subscription"}}
		}
	case "json-rpc":
		e.JsonRpcMaxBodyBytes = pick(r, 0, 1, r.Uint32())
	case "mcp":
		e.JsonRpcMaxBodyBytes = pick(r, 0, 1, r.Uint32())
		if r.some(2) {
			e.Mcp = &gatewayv1.McpOptions{StrictToolNames: pick(r, nil, proto.Bool(true), proto.Bool(false)), AllowAllKnownMcpMethods: pick(r, nil, proto.Bool(true), proto.Bool(false))}
		}
	}
}

func (r random) matcher(protocol string) *gatewayv1.L7Allow {
	m := &gatewayv1.L7Allow{}
	switch protocol {
	case "rest", "websocket":
		m.Method, m.Path = pick(r, "GET", "get"), pick(r, "/a/**", "/a b", "/x/*")
		if r.some(2) {
			m.Query = map[string]*gatewayv1.L7QueryMatcher{r.tame(): {Glob: r.tame()}, r.tame(): {Any: r.tames()}}
		}
	case "graphql":
		m.OperationType = pick(r, "query", "mutation", "subscription")
		if r.some(2) {
			m.OperationName, m.Fields = r.tame(), r.tames()
		}
	case "sql":
		m.Command = pick(r, "SELECT", r.tame())
	case "json-rpc":
		m.Method = strings.Trim(r.tame(), `*?[]{}\`)
		m.Params = map[string]*gatewayv1.L7QueryMatcher{strings.ReplaceAll(r.tame(), ".", ""): {Glob: r.tame()}}
	case "mcp":
		m.Method = pick(r, "initialize", "tools/call")
		if m.Method == "tools/call" {
			m.Params = map[string]*gatewayv1.L7QueryMatcher{"name": {Glob: pick(r, "search", r.tame())}}
		}
	}
	return m
}

// TestWhateverIsSentIsWhatIsRead has many policies with texts of all kinds.
func TestWhateverIsSentIsWhatIsRead(t *testing.T) {
	const policies = 400
	valid := 0
	for seed := range uint64(policies) {
		p := random{rand.New(rand.NewPCG(seed, 1))}.policy()
		if compare(t, p) {
			valid++
		}
	}
	t.Logf("%d of %d policies are valid", valid, policies)
	if valid < policies/3 {
		t.Errorf("only %d of %d policies are valid", valid, policies)
	}
}

// TestEveryOddTextIsExact puts each text where any is allowed, and each where none is.
func TestEveryOddTextIsExact(t *testing.T) {
	for _, s := range slices.Concat(odd, []string{strings.Repeat("k", 2000), strings.Repeat("k: ", 50000)}) {
		p := complete(t)
		p.NetworkPolicies["rpc"].Name = s
		p.NetworkPolicies["rpc"].Endpoints[0].Host = s
		p.NetworkPolicies["rpc"].Endpoints[0].Protocol = s
		p.NetworkPolicies["_provider_github"].Endpoints[1].GraphqlPersistedQueries[s] = &gatewayv1.GraphqlOperation{OperationType: "query", OperationName: s, Fields: []string{s}}
		p.NetworkPolicies[s] = p.NetworkPolicies["rpc"]
		compare(t, p)
	}
}

// FuzzRead takes a message as it comes, from a gateway of any version.
func FuzzRead(f *testing.F) {
	seed := func(p *gatewayv1.SandboxPolicy) {
		data, err := proto.MarshalOptions{Deterministic: true}.Marshal(p)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(data)
	}
	seed(complete(f))
	for i := range uint64(20) {
		seed(random{rand.New(rand.NewPCG(i, 2))}.policy())
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		p := &gatewayv1.SandboxPolicy{}
		if len(data) > 1<<14 || proto.Unmarshal(data, p) != nil {
			t.Skip()
		}
		compare(t, p)
	})
}
