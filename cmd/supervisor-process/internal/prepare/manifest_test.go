package prepare

import (
	"os"
	"slices"
	"strings"
	"testing"

	"go.yaml.in/yaml/v3"
)

// TestThePodGrantsExactlyWhatIsNeeded compares the manifest with Capabilities: one
// more or one less fails here before it surprises somebody.
func TestThePodGrantsExactlyWhatIsNeeded(t *testing.T) {
	text, err := os.ReadFile("../../../../deploy/k8s/manifests/pod.yaml")
	if err != nil {
		t.Fatal(err)
	}
	type container struct {
		Name            string
		SecurityContext struct {
			RunAsNonRoot             bool  `yaml:"runAsNonRoot"`
			AllowPrivilegeEscalation *bool `yaml:"allowPrivilegeEscalation"`
			Capabilities             struct{ Add, Drop []string }
		} `yaml:"securityContext"`
	}
	var pod struct {
		Spec struct {
			HostUsers      *bool       `yaml:"hostUsers"`
			Automount      *bool       `yaml:"automountServiceAccountToken"`
			InitContainers []container `yaml:"initContainers"`
			Containers     []container
		}
	}
	d := yaml.NewDecoder(strings.NewReader(string(text)))
	for range 2 { // the policy, then the pod
		if err := d.Decode(&pod); err != nil {
			t.Fatal(err)
		}
	}
	if len(pod.Spec.InitContainers) != 1 || len(pod.Spec.Containers) != 1 || pod.Spec.HostUsers == nil || *pod.Spec.HostUsers || pod.Spec.Automount == nil || *pod.Spec.Automount {
		t.Fatalf("the pod has another shape: %+v", pod.Spec)
	}
	network, workload := pod.Spec.InitContainers[0].SecurityContext, pod.Spec.Containers[0].SecurityContext
	if !network.RunAsNonRoot || network.AllowPrivilegeEscalation == nil || *network.AllowPrivilegeEscalation ||
		len(network.Capabilities.Add) > 0 || !slices.Equal(network.Capabilities.Drop, []string{"ALL"}) {
		t.Errorf("the network daemon has a privilege: %+v", network)
	}
	var want []string
	for _, c := range Capabilities {
		want = append(want, c.Name)
	}
	got := slices.Clone(workload.Capabilities.Add)
	slices.Sort(want)
	slices.Sort(got)
	if !slices.Equal(got, want) || !slices.Equal(workload.Capabilities.Drop, []string{"ALL"}) {
		t.Errorf("the process daemon gets %v, it asks for %v", got, want)
	}
}
