package kube_test

import (
	"fmt"
	"testing"
	"time"
)

// TestNumbers prints what an operator asks; it asserts only that there is an answer.
func TestNumbers(t *testing.T) {
	s := newSpace(t)
	v := values("Pod", "", "sh", "-c", "agent get http://api.demo.test/; agent lines")
	before := time.Now()
	s.install(v)
	s.eventually("the first request", func() bool { return count(s.logs("box", "supervisor-network"), "allowed") > 0 })
	at := make(map[string]time.Time)
	for _, r := range records(s.logs("box", "supervisor-network")) {
		if at[r.Unmapped.Reason].IsZero() {
			at[r.Unmapped.Reason] = time.UnixMilli(r.Time)
		}
	}
	since := func(from, to time.Time) string { return fmt.Sprintf("%.0f ms", to.Sub(from).Seconds()*1000) }
	t.Logf("helm install to the first allowed request: %s", since(before, at["allowed"]))
	t.Logf("  helm, scheduler, kubelet, runtime, until the network daemon runs: %s", since(before, at["started"]))
	t.Logf("  startup probe and the second container, until the process daemon is attached: %s", since(at["started"], at["process_attached"]))
	t.Logf("  sandbox, hand-over, confinement, until the workload runs (ours): %s", since(at["process_attached"], at["launched"]))
	t.Logf("  until its first request is answered (ours and its own): %s", since(at["launched"], at["allowed"]))
	s.ready("box")
	pod := s.get("pod/box", "{.status.podIP}")
	memory := func(what string) {
		t.Helper()
		network, process := metric(pod, "9901", "process_resident_memory_bytes"), metric(pod, "9902", "process_resident_memory_bytes")
		if network <= 0 || process <= 0 {
			t.Error("the daemons' memory is not in their metrics")
		}
		t.Logf("memory %s: network daemon %.1f MiB, process daemon %.1f MiB", what, network/(1<<20), process/(1<<20))
	}
	memory("idle")
	tunnels := s.start("box", "agent", "tunnels", "api.demo.test:"+echoPort, "1000")
	s.eventually("a thousand tunnels", func() bool { return tunnels.number("open") == 1000 })
	memory("with 1000 tunnels")
}
