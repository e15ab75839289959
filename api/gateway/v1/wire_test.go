package gatewayv1_test

import (
	"testing"

	"google.golang.org/protobuf/encoding/protowire"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/testing/protocmp"

	"github.com/google/go-cmp/cmp"

	gatewayv1 "github.com/splitpod/splitpod/api/gateway/v1"
)

// wire builds a message as another implementation would: by number, without our descriptors.
type wire []byte

func (w wire) number(field protowire.Number, n uint64) wire {
	return protowire.AppendVarint(protowire.AppendTag(w, field, protowire.VarintType), n)
}

func (w wire) bytes(field protowire.Number, b []byte) wire {
	return protowire.AppendBytes(protowire.AppendTag(w, field, protowire.BytesType), b)
}

func (w wire) text(field protowire.Number, s string) wire { return w.bytes(field, []byte(s)) }

// entry is one entry of a map of messages.
func (w wire) entry(field protowire.Number, key string, value wire) wire {
	return w.bytes(field, wire{}.text(1, key).bytes(2, value))
}

// TestRawBytesAreReadAsTheGatewayMeansThem has what is easily counted wrong.
func TestRawBytesAreReadAsTheGatewayMeansThem(t *testing.T) {
	endpoint := func(w wire) wire { return wire{}.entry(5, "r", wire{}.bytes(2, w)) }
	policy := func(e *gatewayv1.NetworkEndpoint) *gatewayv1.SandboxPolicy {
		return &gatewayv1.SandboxPolicy{NetworkPolicies: map[string]*gatewayv1.NetworkPolicyRule{
			"r": {Endpoints: []*gatewayv1.NetworkEndpoint{e}}}}
	}
	glob := wire{}.text(1, "g")
	globs := map[string]*gatewayv1.L7QueryMatcher{"k": {Glob: "g"}}
	for name, c := range map[string]struct {
		bytes wire
		want  proto.Message
	}{
		"a relay's label is number 5": {wire{}.text(1, "c").bytes(3, wire{}.text(1, "::1").number(2, 80)).text(5, "label"),
			&gatewayv1.RelayOpen{ChannelId: "c", ServiceId: "label",
				Target: &gatewayv1.RelayOpen_Tcp{Tcp: &gatewayv1.TcpRelayTarget{Host: "::1", Port: 80}}}},
		"a relay to SSH is an empty message": {wire{}.bytes(2, nil),
			&gatewayv1.RelayOpen{Target: &gatewayv1.RelayOpen_Ssh{Ssh: &gatewayv1.SshRelayTarget{}}}},
		"an empty frame of data is one": {wire{}.bytes(2, nil),
			&gatewayv1.RelayFrame{Payload: &gatewayv1.RelayFrame_Data{Data: []byte{}}}},
		"the session": {wire{}.bytes(4, wire{}.text(1, "c")),
			&gatewayv1.GatewayMessage{Payload: &gatewayv1.GatewayMessage_RelayOpen{RelayOpen: &gatewayv1.RelayOpen{ChannelId: "c"}}}},
		"filesystem, landlock, process": {wire{}.number(1, 1).bytes(2, wire{}.number(1, 1).text(2, "/a").text(3, "/b")).
			bytes(3, wire{}.text(1, "best_effort")).bytes(4, wire{}.text(1, "u").text(2, "g")),
			&gatewayv1.SandboxPolicy{Version: 1,
				Filesystem: &gatewayv1.FilesystemPolicy{IncludeWorkdir: true, ReadOnly: []string{"/a"}, ReadWrite: []string{"/b"}},
				Landlock:   &gatewayv1.LandlockPolicy{Compatibility: "best_effort"},
				Process:    &gatewayv1.ProcessPolicy{RunAsUser: "u", RunAsGroup: "g"}}},
		"a policy in the answer, and what moved": {wire{}.bytes(1, wire{}.number(1, 1)).number(2, 7).text(3, "h").number(5, 1<<63).
			number(6, 2).number(7, 3).number(8, 9).text(10, "w").text(11, "retain_last_valid"),
			&gatewayv1.GetSandboxConfigResponse{Policy: &gatewayv1.SandboxPolicy{Version: 1}, Version: 7, PolicyHash: "h",
				ConfigRevision: 1 << 63, PolicySource: gatewayv1.PolicySource_POLICY_SOURCE_GLOBAL, GlobalPolicyVersion: 3,
				ProviderEnvRevision: 9, Workspace: "w", PolicyValidationFailureMode: "retain_last_valid"}},
		"a packed list of numbers": {wire{}.bytes(9, protowire.AppendVarint(protowire.AppendVarint(nil, 80), 443)),
			&gatewayv1.NetworkEndpoint{Ports: []uint32{80, 443}}},
		"a list of numbers that is not packed": {wire{}.number(9, 80).number(9, 443),
			&gatewayv1.NetworkEndpoint{Ports: []uint32{80, 443}}},
		"a flag that may be unset": {wire{}.number(1, 0), &gatewayv1.McpOptions{StrictToolNames: new(bool)}},
		"a dynamic credential": {wire{}.text(5, "bearer").text(6, "h").bytes(10, wire{}.text(1, "u").text(2, "a").text(3, "s").number(4, 60).text(6, "j").text(7, "t")),
			&gatewayv1.ProviderProfileCredential{AuthStyle: "bearer", HeaderName: "h", TokenGrant: &gatewayv1.ProviderCredentialTokenGrant{
				TokenEndpoint: "u", Audience: "a", Scopes: []string{"s"}, CacheTtlSeconds: 60, JwtSvidAudience: "j", ClientAssertionType: "t"}}},
		"where a secret may go": {wire{}.text(6, "PLAIN").entry(5, "K", wire{}.bytes(1, wire{}.text(1, "h").number(2, 443).text(3, "/**")).text(2, "i").text(3, "w")),
			&gatewayv1.GetSandboxProviderEnvironmentResponse{NonSecretEnvironmentKeys: []string{"PLAIN"},
				StaticCredentialBindings: map[string]*gatewayv1.StaticCredentialBinding{"K": {CredentialIdentity: "i", WorkloadCredentialHandle: "w",
					Endpoints: []*gatewayv1.StaticCredentialEndpointBinding{{Host: "h", Port: 443, Path: "/**"}}}}}},
		"a model route": {wire{}.text(4, "k").number(8, 1).text(9, ""),
			&gatewayv1.ResolvedRoute{ApiKey: "k", ModelInPath: true, RequestPathOverride: new(string)}},
		"port, and ports": {endpoint(wire{}.text(1, "h").number(2, 80).number(9, 443)),
			policy(&gatewayv1.NetworkEndpoint{Host: "h", Port: 80, Ports: []uint32{443}})},
		"rules are nested and deny_rules are not": {
			endpoint(wire{}.bytes(7, wire{}.bytes(1, wire{}.text(1, "GET").entry(4, "k", glob).entry(9, "k", glob))).
				bytes(10, wire{}.text(1, "PUT").entry(4, "k", glob).entry(9, "k", glob))),
			policy(&gatewayv1.NetworkEndpoint{
				Rules:     []*gatewayv1.L7Rule{{Allow: &gatewayv1.L7Allow{Method: "GET", Query: globs, Params: globs}}},
				DenyRules: []*gatewayv1.L7DenyRule{{Method: "PUT", Query: globs, Params: globs}}})},
		"marks of the gateway": {endpoint(wire{}.number(18, 1).number(26, 1)),
			policy(&gatewayv1.NetworkEndpoint{AdvisorProposed: true, ProviderCredentialed: true})},
	} {
		t.Run(name, func(t *testing.T) {
			got := c.want.ProtoReflect().New().Interface()
			if err := proto.Unmarshal(c.bytes, got); err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(c.want, got, protocmp.Transform()); diff != "" {
				t.Error(diff)
			}
		})
	}
}

// TestWhatIsNotHereIsKeptAsUnknown: a number that is reserved, or newer, is not lost.
func TestWhatIsNotHereIsKeptAsUnknown(t *testing.T) {
	for name, c := range map[string]struct {
		bytes wire
		into  proto.Message
	}{
		"number 8 of a rule":     {wire{}.text(8, "x"), &gatewayv1.L7Allow{}},
		"number 8 of a denial":   {wire{}.text(8, "x"), &gatewayv1.L7DenyRule{}},
		"a newer field":          {wire{}.number(27, 1), &gatewayv1.NetworkEndpoint{}},
		"what a middleware does": {wire{}.text(2, "m"), &gatewayv1.NetworkMiddlewareConfig{}},
		"number 4 of a relay":    {wire{}.text(4, "x"), &gatewayv1.RelayOpen{}},
	} {
		if err := proto.Unmarshal(c.bytes, c.into); err != nil {
			t.Errorf("%s: %v", name, err)
		}
		if got := c.into.ProtoReflect().GetUnknown(); string(got) != string(c.bytes) {
			t.Errorf("%s: %x is unknown, want %x", name, got, c.bytes)
		}
	}
}

// TestMethodsHaveTheGatewaysPaths: a wrong one is Unimplemented, and nothing else says so.
func TestMethodsHaveTheGatewaysPaths(t *testing.T) {
	want := []string{
		"/openshell.v1.OpenShell/GetSandboxConfig",
		"/openshell.v1.OpenShell/ConnectSupervisor",
		"/openshell.v1.OpenShell/RelayStream",
		"/openshell.v1.OpenShell/RefreshSandboxToken",
		"/openshell.v1.OpenShell/ReportPolicyStatus",
		"/openshell.v1.OpenShell/GetSandboxProviderEnvironment",
		"/openshell.v1.OpenShell/PushSandboxLogs",
		"/openshell.v1.OpenShell/ReportMainProcessExit",
		"/openshell.v1.OpenShell/UpdateConfig",
		"/openshell.v1.OpenShell/SubmitPolicyAnalysis",
		"/openshell.v1.OpenShell/GetDraftPolicy",
		"/openshell.v1.OpenShell/IssueSandboxToken",
		"/openshell.inference.v1.Inference/GetInferenceBundle",
	}
	got := []string{
		gatewayv1.OpenShell_GetSandboxConfig_FullMethodName,
		gatewayv1.OpenShell_ConnectSupervisor_FullMethodName,
		gatewayv1.OpenShell_RelayStream_FullMethodName,
		gatewayv1.OpenShell_RefreshSandboxToken_FullMethodName,
		gatewayv1.OpenShell_ReportPolicyStatus_FullMethodName,
		gatewayv1.OpenShell_GetSandboxProviderEnvironment_FullMethodName,
		gatewayv1.OpenShell_PushSandboxLogs_FullMethodName,
		gatewayv1.OpenShell_ReportMainProcessExit_FullMethodName,
		gatewayv1.OpenShell_UpdateConfig_FullMethodName,
		gatewayv1.OpenShell_SubmitPolicyAnalysis_FullMethodName,
		gatewayv1.OpenShell_GetDraftPolicy_FullMethodName,
		gatewayv1.OpenShell_IssueSandboxToken_FullMethodName,
		gatewayv1.Inference_GetInferenceBundle_FullMethodName,
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
}
