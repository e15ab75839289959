package prepare

import (
	"errors"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"go.yaml.in/yaml/v3"
)

type manifestContainer struct {
	Name            string
	SecurityContext struct {
		RunAsNonRoot             bool  `yaml:"runAsNonRoot"`
		AllowPrivilegeEscalation *bool `yaml:"allowPrivilegeEscalation"`
		ReadOnlyRootFilesystem   bool  `yaml:"readOnlyRootFilesystem"`
		Capabilities             struct{ Add, Drop []string }
	} `yaml:"securityContext"`
}

type manifestPod struct {
	Kind string
	Spec struct {
		Automount      *bool               `yaml:"automountServiceAccountToken"`
		InitContainers []manifestContainer `yaml:"initContainers"`
		Containers     []manifestContainer
	}
}

// TestThePodsGrantExactlyWhatIsNeeded compares every manifest with Capabilities: one
// more or one less fails here before it surprises somebody.
func TestThePodsGrantExactlyWhatIsNeeded(t *testing.T) {
	files, err := filepath.Glob("../../../../deploy/k8s/manifests/*.yaml")
	if err != nil || len(files) < 4 {
		t.Fatalf("only %d manifests: %v", len(files), err)
	}
	for _, file := range files {
		pod := readPod(t, file)
		if pod.Spec.Automount == nil || *pod.Spec.Automount {
			t.Errorf("%s: the service account's token is mounted", file)
		}
		seen := 0
		for _, c := range slices.Concat(pod.Spec.InitContainers, pod.Spec.Containers) {
			switch c.Name {
			case "workload":
				seen++
				grantsExactly(t, file, c)
			default:
				seen++
				grantsNothing(t, file, c)
			}
			if !c.SecurityContext.ReadOnlyRootFilesystem {
				t.Errorf("%s: the root of %s is writable", file, c.Name)
			}
		}
		if seen < 2 {
			t.Errorf("%s has only %d containers", file, seen)
		}
	}
}

func readPod(t *testing.T, file string) (pod manifestPod) {
	t.Helper()
	text, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	for d := yaml.NewDecoder(strings.NewReader(string(text))); ; {
		var object manifestPod
		if err := d.Decode(&object); errors.Is(err, io.EOF) {
			break
		} else if err != nil && object.Kind == "Pod" {
			t.Fatal(err)
		}
		if object.Kind == "Pod" {
			pod = object
		}
	}
	return pod
}

func grantsExactly(t *testing.T, file string, c manifestContainer) {
	t.Helper()
	var want []string
	for _, c := range Capabilities {
		want = append(want, c.Name)
	}
	got := slices.Clone(c.SecurityContext.Capabilities.Add)
	slices.Sort(want)
	slices.Sort(got)
	if !slices.Equal(got, want) || !slices.Equal(c.SecurityContext.Capabilities.Drop, []string{"ALL"}) {
		t.Errorf("%s: the process daemon gets %v, it asks for %v", file, got, want)
	}
}

func grantsNothing(t *testing.T, file string, c manifestContainer) {
	t.Helper()
	s := c.SecurityContext
	if !s.RunAsNonRoot || s.AllowPrivilegeEscalation == nil || *s.AllowPrivilegeEscalation || len(s.Capabilities.Add) > 0 || !slices.Equal(s.Capabilities.Drop, []string{"ALL"}) {
		t.Errorf("%s: %s has a privilege: %+v", file, c.Name, s)
	}
}
