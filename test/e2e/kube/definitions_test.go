package kube_test

import (
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
)

// definitions are the custom resources that the chart renders: the file, below its
// module, in which their authors publish each one. programs/definitions pins the
// modules.
var definitions = map[string]struct{ module, file string }{
	"sandboxes.agents.x-k8s.io":             {"sigs.k8s.io/agent-sandbox", "k8s/crds/agents.x-k8s.io_sandboxes.yaml"},
	"podmonitors.monitoring.coreos.com":     {"github.com/prometheus-operator/prometheus-operator", "example/prometheus-operator-crd/monitoring.coreos.com_podmonitors.yaml"},
	"prometheusrules.monitoring.coreos.com": {"github.com/prometheus-operator/prometheus-operator", "example/prometheus-operator-crd/monitoring.coreos.com_prometheusrules.yaml"},
}

// fetchDefinitions copies the definitions into the cluster's folder, from inside of
// which no module can be fetched any more.
func fetchDefinitions(dir string) error {
	to := filepath.Join(dir, "definitions")
	if err := os.Mkdir(to, 0o755); err != nil {
		return err
	}
	for name, d := range definitions {
		cmd := exec.Command("go", "mod", "download", "-json", d.module)
		cmd.Dir = "programs/definitions"
		out, err := cmd.Output()
		if err != nil {
			return fmt.Errorf("fetch the module of %s: %w: %s", name, err, out)
		}
		var module struct{ Dir string }
		if err := json.Unmarshal(out, &module); err != nil {
			return fmt.Errorf("read where the module of %s is: %w", name, err)
		}
		data, err := os.ReadFile(filepath.Join(module.Dir, d.file))
		if err != nil {
			return err
		}
		if err := os.WriteFile(filepath.Join(to, name+".yaml"), data, 0o644); err != nil {
			return err
		}
	}
	return nil
}

// define installs the definitions and waits until the API server serves them. They are
// created, not applied: one of them is too large for the annotation that apply keeps.
func define(t *testing.T, s *space) {
	t.Helper()
	for name := range definitions {
		s.kubectl("create", "-f", filepath.Join(kube.Dir, "definitions", name+".yaml"))
		t.Cleanup(func() { _, _ = kube.Kubectl("delete", "crd", name, "--wait=false") })
		s.eventually(name+" to be served", func() bool {
			status, err := kube.Kubectl("get", "crd", name, "-o", `jsonpath={.status.conditions[?(@.type=="Established")].status}`)
			return err == nil && status == "True" // an error until there is a condition
		})
	}
}
