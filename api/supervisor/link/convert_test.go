package link

import (
	"reflect"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/splitpod/splitpod/pkg/core"
)

// TestConfigurationsArriveWhole: a field that somebody adds and forgets to carry would
// be a policy that is not what it was.
func TestConfigurationsArriveWhole(t *testing.T) {
	sent := core.Config{
		Generation: 3, NetworkInstance: core.NewInstanceID(), PolicyDigest: "digest",
		Static: core.StaticPolicy{ReadOnly: []string{"/usr"}, ReadWrite: []string{"/tmp"}, IncludeWorkdir: true, HardLandlock: true,
			RunAsUser: "user", RunAsGroup: "group"},
		Environment: map[string]string{"TOKEN": "openshell:resolve:env:TOKEN"}, CAPEM: []byte("ca"), RootsPEM: []byte("roots"), ProxyPort: 4000,
		Binaries: []string{"/bin/x"}, AgentProposals: true, Ready: core.Readiness{Process: core.NewInstanceID(), Generation: 2},
	}
	for _, v := range []reflect.Value{reflect.ValueOf(sent), reflect.ValueOf(sent.Static), reflect.ValueOf(sent.Ready)} {
		for i := range v.NumField() {
			if v.Field(i).IsZero() {
				t.Errorf("the test does not set %s.%s", v.Type(), v.Type().Field(i).Name)
			}
		}
	}
	got, err := ConfigFromProto(ConfigToProto(sent))
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(sent, got); diff != "" {
		t.Errorf("what arrives differs (-sent +arrived):\n%s", diff)
	}
}
