package kube_test

import (
	"fmt"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/splitpod/splitpod/test/e2e/kube/cluster"
)

// TestExitCodesOfAJob: what the workload says is what the Job and the container say,
// and the network daemon ends after it.
func TestExitCodesOfAJob(t *testing.T) {
	t.Parallel()
	for name, tc := range map[string]struct {
		command []string
		code    string
		job     string // its condition
	}{
		"success":             {[]string{"true"}, "0", "Complete"},
		"its-own-code":        {[]string{"sh", "-c", "exit 7"}, "7", "Failed"},
		"a-signal":            {[]string{"sh", "-c", "kill -9 $$$$"}, "137", "Failed"}, // Kubernetes makes one $ of two
		"no-such-program":     {[]string{"/no/such/program"}, "127", "Failed"},
		"a-request-then-done": {[]string{"agent", "get", "http://api.demo.test/"}, "0", "Complete"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := newSpace(t)
			s.install(values("Job", "", tc.command...))
			s.in("wait", "--for=condition="+tc.job, "--timeout=240s", "job/box")
			const path = `{.items[0].status.containerStatuses[0].state.terminated.exitCode}`
			if code := s.get("pods", path); code != tc.code {
				t.Errorf("the container's exit code is %s, want %s", code, tc.code)
			}
		})
	}
}

// container is a container's id at its runtime.
func (s *space) container(pod, name string) string {
	s.t.Helper()
	for _, list := range []string{"containerStatuses", "initContainerStatuses"} {
		if id := s.get("pod/"+pod, fmt.Sprintf(`{range .status.%s[?(@.name=="%s")]}{.containerID}{end}`, list, name)); id != "" {
			return strings.TrimPrefix(id, "containerd://")
		}
	}
	s.t.Fatalf("pod %s has no container %s", pod, name)
	return ""
}

// TestAKilledContainer: the workload's is restarted, the network daemon is not, and
// serves the new instance within two seconds of its start.
func TestAKilledContainer(t *testing.T) {
	t.Parallel()
	for _, victim := range []string{"workload", "supervisor-network"} {
		t.Run(victim, func(t *testing.T) {
			t.Parallel()
			s := newSpace(t)
			s.install(values("Pod", "", "agent", "lines"))
			s.ready("box")
			before := s.workloadPID("box")
			if err := kube.Kill(s.container("box", victim), "SIGKILL"); err != nil {
				t.Fatal(err)
			}
			s.eventually("the restart", func() bool { return s.restarts("box", victim) == "1" })
			s.ready("box")
			if out, code := s.inside("box", "agent", "get", "http://api.demo.test/"); code != 0 {
				t.Errorf("an allowed request after the restart: %s", out)
			}
			other := map[string]string{"workload": "supervisor-network", "supervisor-network": "workload"}[victim]
			if n := s.restarts("box", other); n != "0" {
				t.Errorf("%s was restarted %s times", other, n)
			}
			if after := s.workloadPID("box"); (before == after) != (victim == "supervisor-network") {
				t.Errorf("the workload's start was %s, is %s", before, after)
			}
		})
	}
}

// workloadPID names the main program's process: its id in the sandbox and its start.
func (s *space) workloadPID(pod string) string {
	s.t.Helper()
	var last string
	s.eventually("the workload's first line", func() bool { // a pod may be ready before
		for line := range strings.Lines(s.logs(pod, "workload")) {
			if strings.HasPrefix(line, `{"pid"`) && strings.Contains(line, "started") {
				last = strings.TrimSpace(line)
			}
		}
		return last != ""
	})
	return last
}

// TestAPolicyChangeRestartsNothing: a changed ConfigMap takes effect in the running
// pod, an invalid one changes nothing and is reported.
func TestAPolicyChangeRestartsNothing(t *testing.T) {
	t.Parallel()
	s := newSpace(t)
	v := values("Deployment", "", "agent", "lines")
	s.install(v)
	s.in("rollout", "status", "deploy/box", "--timeout=240s")
	pod := s.get("pods", "{.items[0].metadata.name}")
	other := func() bool {
		out, _ := s.inside(pod, "agent", "get", "http://other.demo.test/")
		return strings.Contains(out, `"status":200`)
	}
	if other() {
		t.Fatal("the host is allowed already")
	}
	wider := strings.Replace(v, "{host: api.demo.test, port: 80}", "{host: api.demo.test, port: 80}\n          - {host: other.demo.test, port: 80}", 1)
	start := time.Now()
	s.helm(wider, "upgrade", "box", chart)
	s.eventually("the new policy to allow", other)
	t.Logf("a changed ConfigMap took effect after %.1f s", time.Since(start).Seconds())
	s.helm(strings.Replace(wider, "version: 1\n", "version: 1\n    surprise: true\n", 1), "upgrade", "box", chart)
	s.eventually("the report of an invalid policy", func() bool { return count(s.logs(pod, "supervisor-network"), "policy_invalid") > 0 })
	if !other() {
		t.Error("an invalid policy replaced the valid one")
	}
	s.helm(v, "upgrade", "box", chart)
	s.eventually("the first policy to deny again", func() bool {
		out, _ := s.inside(pod, "agent", "get", "http://other.demo.test/")
		return strings.Contains(out, `"status":403`)
	})
	if now := s.get("pods", "{.items[*].metadata.name}"); now != pod {
		t.Errorf("the pods were %s, are %s", pod, now)
	}
	for _, c := range []string{"workload", "supervisor-network"} {
		if n := s.restarts(pod, c); n != "0" {
			t.Errorf("%s was restarted %s times", c, n)
		}
	}
}

// TestDeletionLeavesNothing: no process, no namespace, no mount and no cgroup of a
// deleted pod is left on the node. The fence's rules are in its network namespace and
// end with it.
func TestDeletionLeavesNothing(t *testing.T) {
	s := newSpace(t)
	s.install(values("Pod", "", "agent", "lines"))
	s.ready("box")
	uid := s.get("pod/box", "{.metadata.uid}")
	pids, err := kube.Processes(uid)
	if err != nil || len(pids) < 4 {
		t.Fatalf("the pod's processes are %v, %v", pids, err)
	}
	namespaces := make(map[string]bool)
	for _, pid := range pids {
		for _, kind := range []string{"net", "mnt", "pid", "ipc", "user"} {
			if name, err := os.Readlink(fmt.Sprintf("/proc/%d/ns/%s", pid, kind)); err == nil {
				if own, _ := os.Readlink("/proc/self/ns/" + kind); own != name {
					namespaces[name] = true
				}
			}
		}
	}
	if len(namespaces) < 6 || len(kube.Traces(uid)) == 0 {
		t.Fatalf("the pod has only %d namespaces and %d traces", len(namespaces), len(kube.Traces(uid)))
	}
	if _, err := kube.Run("", "helm", "-n", s.name, "uninstall", "box", "--wait"); err != nil {
		t.Fatal(err)
	}
	s.in("wait", "--for=delete", "pod/box", "--timeout=240s")
	if !cluster.Eventually(func() bool { return len(kube.Traces(uid)) == 0 && len(left(namespaces)) == 0 }) {
		t.Errorf("left behind: %v\n%v", left(namespaces), kube.Traces(uid))
	}
}

// left lists the processes that are in one of the namespaces.
func left(namespaces map[string]bool) (found []string) {
	entries, _ := os.ReadDir("/proc")
	for _, e := range entries {
		for _, kind := range []string{"net", "mnt", "pid", "ipc", "user"} {
			if name, err := os.Readlink("/proc/" + e.Name() + "/ns/" + kind); err == nil && namespaces[name] {
				found = append(found, e.Name()+" "+name)
			}
		}
	}
	return found
}

// TestAPodThatEndsDrains: after SIGTERM the workload still reaches what it may, because
// the network daemon ends last, and by itself. A node that is drained asks for evictions.
func TestAPodThatEndsDrains(t *testing.T) {
	t.Parallel()
	for name, end := range map[string]func(*space){
		"deleted": func(s *space) { s.in("delete", "pod", "box", "--wait=false") },
		"evicted": func(s *space) {
			eviction := `{"apiVersion": "policy/v1", "kind": "Eviction", "metadata": {"name": "box", "namespace": "` + s.name + `"}}`
			if _, err := kube.Run(eviction, "kubectl", "create", "--raw", "/api/v1/namespaces/"+s.name+"/pods/box/eviction", "-f", "-"); err != nil {
				s.t.Error(err)
			}
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := newSpace(t)
			script := `trap 'sleep 2; agent get http://api.demo.test/; agent get http://other.demo.test/; echo last words; exit 0' TERM; echo waiting; while :; do sleep 0.1; done`
			s.install(values("Pod", "process: {settings: {grace: 60s}}\npod: {terminationGracePeriodSeconds: 120}\n", "sh", "-c", script))
			s.ready("box")
			kept := s.holdLogs()
			s.eventually("the trap", func() bool { return strings.Contains(strings.Join(kept.of(s, "workload"), ""), "waiting") })
			end(s)
			s.in("wait", "--for=delete", "pod/box", "--timeout=240s")
			log := strings.Join(kept.of(s, "workload"), "")
			if !strings.Contains(log, `{"status":200}`) || !strings.Contains(log, `{"status":403}`) || !strings.Contains(log, "last words") {
				t.Errorf("the workload could not finish its work:\n%s", log)
			}
			s.inOrder(strings.Join(kept.of(s, "supervisor-network"), ""), "exited", "stopped") // or else it was killed
		})
	}
}

// inOrder says that records with these reasons are in a log, one after the other.
func (s *space) inOrder(log string, reasons ...string) {
	s.t.Helper()
	next := 0
	for _, r := range records(log) {
		if next < len(reasons) && r.Unmapped.Reason == reasons[next] {
			next++
		}
	}
	if next < len(reasons) {
		s.t.Errorf("the log has no record %q in its place:\n%s", reasons[next], log)
	}
}

// TestAWorkloadWithoutMemory: the kernel ends it, its container restarts, the network
// daemon does not notice.
func TestAWorkloadWithoutMemory(t *testing.T) {
	t.Parallel()
	s := newSpace(t)
	v := strings.Replace(values("Pod", "", "agent", "eat"), "  stdin: true\n", "  resources: {requests: {memory: 64Mi}, limits: {memory: 96Mi}}\n", 1)
	s.install(v)
	s.eventually("the restart", func() bool { return s.restarts("box", "workload") != "0" && s.restarts("box", "workload") != "" })
	const path = `{.status.containerStatuses[0].lastState.terminated.exitCode}`
	if code := s.get("pod/box", path); code != "137" {
		t.Errorf("exit code %s, want 137", code)
	}
	if n := s.restarts("box", "supervisor-network"); n != "0" {
		t.Errorf("the network daemon was restarted %s times", n)
	}
}

// TestAWorkloadThatFillsItsFolder: the kubelet evicts the pod, whole; no neighbour
// loses its disk.
func TestAWorkloadThatFillsItsFolder(t *testing.T) {
	t.Parallel()
	s := newSpace(t)
	v := values("Pod", "", "sh", "-c", "dd if=/dev/zero of=/tmp/full bs=1M count=64; agent lines")
	s.install(strings.Replace(v, "  stdin: true\n", "  scratchSize: 8Mi\n", 1))
	var why string
	s.eventually("the eviction", func() bool {
		why = s.in("get", "events", "--field-selector", "reason=Evicted", "-o", "jsonpath={.items[*].message}")
		return why != ""
	})
	if !strings.Contains(why, "scratch-0") {
		t.Errorf("the pod was evicted for another reason: %s", why)
	}
	s.eventually("the end of both containers", func() bool {
		return len(strings.Fields(s.get("pod/box", "{.status.containerStatuses[*].state.terminated.finishedAt} {.status.initContainerStatuses[*].state.terminated.finishedAt}"))) == 2
	})
}
