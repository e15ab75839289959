package policydoc

import (
	"flag"
	"fmt"
	"maps"
	"os"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
	"google.golang.org/protobuf/encoding/prototext"
	"google.golang.org/protobuf/encoding/protowire"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"

	gatewayv1 "github.com/splitpod/splitpod/api/gateway/v1"
	"github.com/splitpod/splitpod/pkg/core/policy"
	"github.com/splitpod/splitpod/pkg/core/strictyaml"
)

var update = flag.Bool("update", false, "write the golden file")

// parse reads a policy from its text form.
func parse(t testing.TB, text string) *gatewayv1.SandboxPolicy {
	t.Helper()
	p := &gatewayv1.SandboxPolicy{}
	if err := prototext.Unmarshal([]byte(text), p); err != nil {
		t.Fatal(err)
	}
	return p
}

func complete(t testing.TB) *gatewayv1.SandboxPolicy {
	t.Helper()
	text, err := os.ReadFile("testdata/complete.textproto")
	if err != nil {
		t.Fatal(err)
	}
	return parse(t, string(text))
}

// withEndpoint is a policy of one endpoint, in the rule r.
func withEndpoint(t testing.TB, fields string) *gatewayv1.SandboxPolicy {
	t.Helper()
	return parse(t, `version: 1 network_policies { key: "r" value { binaries { path: "/x" } endpoints { host: "a.example.com" `+fields+` } } }`)
}

func TestTheCompletePolicyIsWrittenAsAFile(t *testing.T) {
	got, err := Write(complete(t))
	if err != nil {
		t.Fatal(err)
	}
	const golden = "testdata/complete.golden.yaml"
	if *update {
		if err := os.WriteFile(golden, got, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(golden)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(string(want), string(got)); diff != "" {
		t.Error(diff)
	}
}

func TestTheCompletePolicyIsReadFieldByField(t *testing.T) {
	compare(t, complete(t))
}

// TestTheSamePolicyIsTheSameBytes however its maps were filled.
func TestTheSamePolicyIsTheSameBytes(t *testing.T) {
	p := complete(t)
	first := Read("p", p)
	for range 20 {
		q := proto.CloneOf(p)
		q.NetworkPolicies = make(map[string]*gatewayv1.NetworkPolicyRule)
		for _, key := range slices.Backward(slices.Collect(maps.Keys(p.NetworkPolicies))) {
			q.NetworkPolicies[key] = p.NetworkPolicies[key]
		}
		if again := Read("p", q); again.Err != nil || again.Digest != first.Digest {
			t.Fatalf("%v, %s and %s", again.Err, first.Digest, again.Digest)
		}
	}
}

// walk visits every message below m, in a fixed order.
func walk(m protoreflect.Message, visit func(protoreflect.Message)) {
	visit(m)
	for i := range m.Descriptor().Fields().Len() {
		fd := m.Descriptor().Fields().Get(i)
		switch v := m.Get(fd); {
		case !m.Has(fd):
		case fd.IsMap():
			if fd.MapValue().Message() == nil {
				continue
			}
			var keys []string
			v.Map().Range(func(k protoreflect.MapKey, _ protoreflect.Value) bool { keys = append(keys, k.String()); return true })
			for _, k := range slices.Sorted(slices.Values(keys)) {
				walk(v.Map().Get(protoreflect.ValueOfString(k).MapKey()).Message(), visit)
			}
		case fd.Message() == nil:
		case fd.IsList():
			for j := range v.List().Len() {
				walk(v.List().Get(j).Message(), visit)
			}
		default:
			walk(v.Message(), visit)
		}
	}
}

// fieldsBelow are all fields that a message can have, those of messages in it too.
func fieldsBelow(d protoreflect.MessageDescriptor, out map[protoreflect.FullName]bool) {
	for i := range d.Fields().Len() {
		fd := d.Fields().Get(i)
		if out[fd.FullName()] {
			continue
		}
		out[fd.FullName()] = true
		if fd.IsMap() {
			fd = fd.MapValue()
		}
		if fd.Message() != nil {
			fieldsBelow(fd.Message(), out)
		}
	}
}

// TestEveryFieldCountsOrIsRefused takes each field out of the complete policy, which has to
// change what is read, or to be missed. A field that is not in it has to be refused.
func TestEveryFieldCountsOrIsRefused(t *testing.T) {
	missing := make(map[protoreflect.FullName]bool)
	fieldsBelow((&gatewayv1.SandboxPolicy{}).ProtoReflect().Descriptor(), missing)
	if len(missing) < 60 {
		t.Fatalf("only %d fields were found", len(missing))
	}
	whole := Read("p", complete(t))
	if whole.Err != nil {
		t.Fatal(whole.Err)
	}
	type instance struct {
		message int
		field   protoreflect.FieldDescriptor
	}
	var all []instance
	n := 0
	walk(complete(t).ProtoReflect(), func(m protoreflect.Message) {
		m.Range(func(fd protoreflect.FieldDescriptor, _ protoreflect.Value) bool {
			all = append(all, instance{n, fd})
			return true
		})
		n++
	})
	for _, x := range all {
		delete(missing, x.field.FullName())
		p, n := complete(t), 0
		walk(p.ProtoReflect(), func(m protoreflect.Message) {
			if n++; n-1 == x.message {
				m.Clear(x.field)
			}
		})
		if f := Read("p", p); f.Err == nil && cmp.Equal(whole.Doc, f.Doc, apartFromPlaces) {
			t.Errorf("nothing changes without %s of message %d", x.field.FullName(), x.message)
		}
	}
	for name, text := range map[protoreflect.Name]string{
		"network_middlewares":   `version: 1 network_middlewares { key: "m" value { } }`,
		"provider_credentialed": `version: 1 network_policies { key: "r" value { endpoints { host: "a.example.com" port: 1 tls: "skip" provider_credentialed: true } } }`,
	} {
		p := parse(t, text)
		walk(p.ProtoReflect(), func(m protoreflect.Message) {
			if fd := m.Descriptor().Fields().ByName(name); fd != nil && m.Has(fd) {
				delete(missing, fd.FullName())
			}
		})
		if f := Read("p", p); f.Err == nil || !strings.Contains(f.Err.Error(), string(name)) {
			t.Errorf("%s: %v", name, f.Err)
		}
	}
	for name := range missing {
		t.Errorf("nothing shows what becomes of %s", name)
	}
}

// TestWhatIsUnknownIsRefusedWhereverItIs adds a field that nobody knows to each message of
// the complete policy, which has every kind.
func TestWhatIsUnknownIsRefusedWhereverItIs(t *testing.T) {
	total := 0
	walk(complete(t).ProtoReflect(), func(protoreflect.Message) { total++ })
	for i := range total {
		p, n := complete(t), 0
		var kind protoreflect.Name
		walk(p.ProtoReflect(), func(m protoreflect.Message) {
			if n++; n-1 == i {
				kind = m.Descriptor().Name()
				m.SetUnknown(protowire.AppendVarint(protowire.AppendTag(nil, 1000, protowire.VarintType), 1))
			}
		})
		if f := Read("p", p); f.Doc != nil || f.Err == nil || !strings.Contains(f.Err.Error(), fmt.Sprintf("(field 1000 of %s)", kind)) {
			t.Errorf("message %d, a %s: %v", i, kind, f.Err)
		}
	}
}

func TestWhatAFileCannotSayIsRefused(t *testing.T) {
	const rest = `port: 1 protocol: "rest" enforcement: "enforce" `
	const rpc = `port: 1 protocol: "json-rpc" enforcement: "enforce" `
	const r = "network_policies.r.endpoints[0]"
	reserved := withEndpoint(t, rest)
	reserved.NetworkPolicies["r"].Endpoints[0].Rules = []*gatewayv1.L7Rule{{Allow: &gatewayv1.L7Allow{Method: "GET", Path: "**"}}}
	reserved.NetworkPolicies["r"].Endpoints[0].Rules[0].Allow.ProtoReflect().SetUnknown(protowire.AppendString(protowire.AppendTag(nil, 8, protowire.BytesType), "x"))
	bad := withEndpoint(t, rest+`access: "full"`)
	bad.NetworkPolicies["r"].Endpoints[0].Path = "/\xff"
	badKey := parse(t, `version: 1`)
	badKey.NetworkPolicies = map[string]*gatewayv1.NetworkPolicyRule{"\xff": {}}
	for name, c := range map[string]struct {
		policy *gatewayv1.SandboxPolicy
		want   string
	}{
		"no policy":           {nil, "p: there is no policy"},
		"an empty policy":     {&gatewayv1.SandboxPolicy{}, "version: the version is missing"},
		"another version":     {parse(t, "version: 2"), "version: version 2 is not known"},
		"a middleware":        {parse(t, `version: 1 network_middlewares { key: "m" value {} }`), "p: network_middlewares.m: middlewares are not supported"},
		"a port beyond ports": {withEndpoint(t, `port: 80 ports: 443`), "p: " + r + ".port: 80 is not one of ports"},
		"a port out of range": {withEndpoint(t, `port: 65979`), r + ".port: 65979 is out of range"},
		"a port of zero":      {withEndpoint(t, `ports: 0`), r + ".ports[0]: 0 is out of range"},
		"no port":             {withEndpoint(t, ``), r + ".port: the port is missing"},
		"number 8":            {reserved, "p: " + r + ".rules[0].allow: there is something that this build does not know (field 8 of L7Allow)"},
		"text that is none":   {bad, "p: " + r + ".path: the text is not UTF-8"},
		"a name that is none": {badKey, "the text is not UTF-8"},
		"glob and any":        {withEndpoint(t, rest+`rules { allow { method: "GET" path: "**" query { key: "q" value { glob: "a" any: "b" } } } }`), "p: " + r + ".rules[0].allow.query.q: there has to be one of glob and any"},
		"no pattern":          {withEndpoint(t, rest+`deny_rules { method: "GET" path: "**" query { key: "q" value { } } }`), "p: " + r + ".deny_rules[0].query.q: there has to be one of glob and any"},
		"a choice of params":  {withEndpoint(t, rpc+`rules { allow { method: "m" params { key: "q" value { any: "a" } } } }`), r + ".rules[0].allow.params.q: want text, found a map"},
		"params below params": {withEndpoint(t, rpc+`rules { allow { method: "m" params { key: "a.b" value { glob: "a" } } } }`), "p: " + r + `.rules[0].allow.params["a.b"]: a name with a dot`},
		"a rule of nothing":   {withEndpoint(t, rest+`rules { }`), r + ".rules[0].allow: the rule is empty"},
		"a protocol":          {withEndpoint(t, `port: 1 protocol: "quic"`), r + `.protocol: unknown word "quic"`},
		"an enforcement":      {withEndpoint(t, `port: 1 protocol: "rest" access: "full" enforcement: "block"`), r + `.enforcement: unknown word "block"`},
		"an access":           {withEndpoint(t, rest+`access: "most"`), r + `.access: unknown word "most"`},
		"a tls":               {withEndpoint(t, rest+`access: "full" tls: "mutual"`), r + `.tls: unknown word "mutual"`},
		"a compatibility":     {parse(t, `version: 1 landlock { compatibility: "none" }`), `landlock.compatibility: unknown word "none"`},
		"a signing":           {withEndpoint(t, rest+`access: "full" signing_service: "s3" credential_signing: "sigv4a"`), r + `.credential_signing: unknown word "sigv4a"`},
		"persisted queries":   {withEndpoint(t, `port: 1 protocol: "graphql" enforcement: "enforce" access: "full" persisted_queries: "allow"`), r + `.persisted_queries: unknown word "allow"`},
		"limits elsewhere":    {withEndpoint(t, rest+`access: "full" json_rpc_max_body_bytes: 1`), r + ".json_rpc: json_rpc is read with protocol: json-rpc only"},
		"mcp elsewhere":       {withEndpoint(t, rest+`access: "full" mcp {}`), r + ".mcp: mcp is read with protocol: mcp only"},
		"root":                {parse(t, `version: 1 process { run_as_user: "0" }`), "process.run_as_user: 0 is root"},
		"a large text":        {withEndpoint(t, `port: 1 path: "`+strings.Repeat("x", strictyaml.MaxBytes)+`"`), "the policy would be a file of more than 1048576 bytes"},
		"a text that grows":   {withEndpoint(t, `port: 1 path: "`+strings.Repeat("\x01", strictyaml.MaxBytes/2)+`"`), "p:1:1: the file has"},
		"many values":         {withEndpoint(t, strings.Repeat("ports: 1 ", strictyaml.MaxBytes/8)), ".ports[131066]: the policy would be a file of more than 1048576 bytes"},
	} {
		f := Read("p", c.policy)
		if f.Err == nil || f.Doc != nil || !strings.Contains(f.Err.Error(), c.want) {
			t.Errorf("%s: %v, want %s", name, f.Err, c.want)
		}
	}
}

// TestOneOfThePortsIsNotSaidTwice: a gateway repeats the first.
func TestOneOfThePortsIsNotSaidTwice(t *testing.T) {
	f := Read("p", withEndpoint(t, `port: 443 ports: 443 ports: 80`))
	if f.Err != nil {
		t.Fatal(f.Err)
	}
	if diff := cmp.Diff([]uint16{443, 80}, f.Doc.Network["r"].Endpoints[0].Ports); diff != "" {
		t.Error(diff)
	}
}

// TestTheWorkingDirectoryIsWritableOnlyWhereThePolicySaysSo or has no such section.
func TestTheWorkingDirectoryIsWritableOnlyWhereThePolicySaysSo(t *testing.T) {
	for text, want := range map[string]policy.Filesystem{
		``:                                     {IncludeWorkdir: true},
		`filesystem {}`:                        {Present: true},
		`filesystem { include_workdir: true }`: {Present: true, IncludeWorkdir: true},
	} {
		f := Read("p", parse(t, "version: 1 "+text))
		if f.Err != nil || !cmp.Equal(want, f.Doc.Filesystem) {
			t.Errorf("%q: %+v, %v", text, f.Doc.Filesystem, f.Err)
		}
	}
}

var apartFromPlaces = cmp.Options{
	cmpopts.IgnoreTypes(strictyaml.Position{}), cmpopts.EquateEmpty(), cmpopts.EquateComparable(policy.AllowedIP{}.Prefix),
}
