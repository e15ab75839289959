package kube_test

import (
	"strings"
	"testing"
)

// TestAReleaseThatFitsNotIsRefused: the contract of one daemon has nothing in common
// with the other's. Nothing is started, the pod is not ready, and its status names the
// image to upgrade.
func TestAReleaseThatFitsNotIsRefused(t *testing.T) {
	t.Parallel()
	for name, tc := range map[string]struct{ from, to, say string }{
		"a process daemon of the future": {registry + `agent, tag: "1"`, registry + `agent, tag: with-future`, "upgrade the supervisor-network image"},
		"a network daemon of the future": {`supervisor-network, tag: a`, `supervisor-network, tag: future`, "upgrade the supervisor-process image"},
	} {
		t.Run(strings.ReplaceAll(name, " ", "-"), func(t *testing.T) {
			t.Parallel()
			s := newSpace(t)
			v := values("Pod", "delivery: image\nprocess: {path: /usr/bin/supervisor-process}\n", "sh", "-c", "echo the workload was started")
			v = strings.Replace(v, tc.from, tc.to, 1)
			if !strings.Contains(tc.to, "agent") {
				v = strings.Replace(v, registry+`agent, tag: "1"`, registry+`agent, tag: with-a`, 1)
			}
			s.install(v)
			var said string
			s.eventually("the reason in the pod's status", func() bool {
				said = s.get("pod/box", `{.status.containerStatuses[0].state.terminated.message}{.status.containerStatuses[0].lastState.terminated.message}`)
				return strings.Contains(said, tc.say)
			})
			if !strings.Contains(said, "future") || !strings.Contains(said, "supervisor-process a") && !strings.Contains(said, "supervisor-network a") {
				t.Errorf("the reason does not name both builds: %s", said)
			}
			if ready := s.get("pod/box", `{.status.conditions[?(@.type=="Ready")].status}`); ready != "False" {
				t.Errorf("the pod's readiness is %s", ready)
			}
			if strings.Contains(s.logs("box", "workload"), "the workload was started") {
				t.Error("the workload was started")
			}
		})
	}
}
