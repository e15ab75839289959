package kube_test

import (
	"fmt"
	"strings"
	"testing"
)

// TestACredentialOfASecret: the pod's workload holds a placeholder that works where it is
// bound, the value is in nothing that the workload or an operator reads, and a changed
// Secret needs no restart.
func TestACredentialOfASecret(t *testing.T) {
	t.Parallel()
	s := newSpace(t)
	secret := func(value string) {
		s.apply(`apiVersion: v1
kind: Secret
metadata: {name: agent-credentials, namespace: ` + s.name + `}
stringData:
  token: ` + value + `
  credentials.yaml: |
    version: 1
    credentials:
      TOKEN: {file: /etc/splitpod-credentials/token, bindings: [{host: api.demo.test, port: 80}]}
`)
	}
	secret("first-canary-value")
	s.install(values("Pod", "credentials: {secret: agent-credentials}\n", "agent", "lines"))
	s.ready("box")

	call := []string{"sh", "-c", `echo "$TOKEN"; curl -sS -m 120 -o /dev/null -w '%{http_code}\n' -H "Authorization: Bearer $TOKEN" http://api.demo.test/`}
	out, code := s.inside("box", call...)
	placeholder, status, _ := strings.Cut(out, "\n")
	if code != 0 || !strings.Contains(placeholder, "TOKEN") || status != "200\n" {
		t.Errorf("exit code %d, %q", code, out)
	}
	pod := s.get("pod/box", "{.status.podIP}")
	s.eventually("the use of the credential", func() bool {
		return metric(pod, "9901", "splitpod_credential_uses_total", `key="TOKEN"`) == 1
	})
	seen, _ := s.inside("box", "sh", "-c", "env; ls -R /etc/splitpod-credentials 2>&1; cat /proc/[0-9]*/environ | tr '\\0' '\\n'")
	described := s.in("get", "pod", "box", "-o", "yaml")
	for name, text := range map[string]string{"the workload": seen, "the network daemon's log": s.logs("box", "supervisor-network"), "the workload's log": s.logs("box", "workload"), "the pod": described} {
		if strings.Contains(text, "canary") {
			t.Errorf("%s has the value", name)
		}
	}
	if strings.Contains(seen, "credentials.yaml") {
		t.Errorf("the workload sees the credentials' folder: %s", seen)
	}

	secret("second-canary-value")
	touched := 0
	s.eventually("the changed secret", func() bool {
		touched++ // a changed pod is looked at by the kubelet at once, not within minutes
		s.in("annotate", "--overwrite", "pod", "box", fmt.Sprintf("splitpod.test/touched=%d", touched))
		out, err := kube.Kubectl("-n", s.name, "exec", "box", "-c", "supervisor-network", "--", "/supervisor-network", "credentials", "list", "--json")
		return err == nil && strings.Contains(strings.ReplaceAll(out, " ", ""), `"revision":2`)
	})
	if out, _ := s.inside("box", call...); !strings.HasSuffix(out, "\n200\n") {
		t.Errorf("after the change: %q", out)
	}
	if n := s.restarts("box", "supervisor-network"); n != "0" {
		t.Errorf("the network daemon was restarted %s times", n)
	}
}
