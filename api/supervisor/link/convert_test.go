package link

import (
	"reflect"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	pb "github.com/splitpod/splitpod/api/supervisor/v1"
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

// TestAKindThatIsOneDaemonsAloneDoesNotCross under a number that another build may give
// a meaning; the others arrive as what they were.
func TestAKindThatIsOneDaemonsAloneDoesNotCross(t *testing.T) {
	for kind := core.EventUnspecified; kind <= core.EventLifecycle; kind++ {
		sent := eventToProto(1, &core.Event{Kind: kind})
		if name := strings.ToLower(strings.TrimPrefix(sent.GetKind().String(), "EVENT_KIND_")); name != kind.String() {
			t.Errorf("a %s is sent as %s", kind, name)
		}
		if got := eventFromProto(core.NewInstanceID(), sent); got.Kind != kind {
			t.Errorf("a %s arrives as a %s", kind, got.Kind)
		}
	}
	for _, kind := range []core.EventKind{core.EventInference, core.EventInference + 1, 255} {
		if sent := eventToProto(1, &core.Event{Kind: kind}).GetKind(); sent != pb.EventKind_EVENT_KIND_UNSPECIFIED {
			t.Errorf("kind %d is sent as %s", kind, sent)
		}
	}
}
