package kube_test

import (
	"encoding/json"
	"fmt"
	"io"
	"os"
	"os/exec"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/splitpod/splitpod/test/e2e/kube/cluster"
)

// stream is a running kubectl with both its ends: an attached terminal, or a program
// inside the sandbox.
type stream struct {
	s   *space
	cmd *exec.Cmd
	in  io.WriteCloser

	mu  sync.Mutex
	out strings.Builder // guarded by mu
}

func (st *stream) Write(p []byte) (int, error) {
	st.mu.Lock()
	defer st.mu.Unlock()
	return st.out.Write(p)
}

func (st *stream) String() string {
	st.mu.Lock()
	defer st.mu.Unlock()
	return st.out.String()
}

// last is the last JSON line that has a field.
func (st *stream) last(field string) (v map[string]any) {
	for line := range strings.Lines(st.String()) {
		var found map[string]any
		if json.Unmarshal([]byte(line), &found) == nil {
			if _, ok := found[field]; ok {
				v = found
			}
		}
	}
	return v
}

// number is a field of the last line that has it, -1 without one.
func (st *stream) number(field string) int {
	if v, ok := st.last(field)[field].(float64); ok {
		return int(v)
	}
	return -1
}

// open starts kubectl; it ends with the test.
func (s *space) open(args ...string) *stream {
	s.t.Helper()
	st := &stream{s: s, cmd: kube.Command(append([]string{"kubectl", "-n", s.name}, args...)...)}
	st.cmd.Stdout, st.cmd.Stderr = st, st
	in, err := st.cmd.StdinPipe()
	if err != nil {
		s.t.Fatal(err)
	}
	st.in = in
	if err := st.cmd.Start(); err != nil {
		s.t.Fatal(err)
	}
	ended := make(chan struct{})
	go func() { defer close(ended); _ = st.cmd.Wait() }()
	s.t.Cleanup(func() { _ = st.cmd.Process.Kill(); <-ended })
	return st
}

// start runs a program inside the sandbox that goes on by itself.
func (s *space) start(pod string, command ...string) *stream {
	s.t.Helper()
	st := s.open(append([]string{"exec", "-i", pod, "-c", "workload", "--", binary, "exec", "--"}, command...)...)
	s.eventually("the first word of "+command[1], func() bool { return st.last("pid") != nil })
	return st
}

// finish asks a program inside the sandbox to end and waits for its last word.
func (st *stream) finish() {
	st.s.t.Helper()
	fmt.Fprintln(st.in, "end")
	st.s.eventually("the last word", func() bool { return st.last("final")["final"] == true })
}

// patch changes the image of one container of a running pod.
func (s *space) patch(pod, list, image string) {
	s.t.Helper()
	s.in("patch", "pod", pod, "--type=json", "-p",
		fmt.Sprintf(`[{"op": "replace", "path": "/spec/%s/0/image", "value": %q}]`, list, registry+image))
}

// TestANetworkImageIsChangedUnderAWorkload: Kubernetes restarts that container alone.
// The workload keeps its process and its standard files; its connections wait and
// succeed; the CA stays; no refusal is lost. Then the same backwards. It runs by itself,
// for the waiting times that it prints.
func TestANetworkImageIsChangedUnderAWorkload(t *testing.T) { changeNetworkImage(t, 0) }

// TestLongTunnelsAreDrained is the same with tunnels, which are ended after the drain
// time.
func TestLongTunnelsAreDrained(t *testing.T) {
	t.Parallel()
	changeNetworkImage(t, 20)
}

// changeNetworkImage changes it there and back under a workload that holds so many
// tunnels.
func changeNetworkImage(t *testing.T, held int) {
	s := newSpace(t)
	s.install(values("Pod", "network: {settings: {drainTimeout: 2s}}\n", "agent", "lines"))
	s.ready("box")
	attached := s.open("attach", "-i", "box", "-c", "workload")
	say := func(line string) (pid int) {
		t.Helper()
		s.eventually("an answer on the attached standard output", func() bool {
			if attached.last("line")["line"] == line {
				return true
			}
			fmt.Fprintln(attached.in, line) // again: an answer before the output is attached goes to the log alone
			return false
		})
		return attached.number("pid")
	}
	pid := say("before")
	s.trusts("box")
	kept := s.holdLogs()
	refused := s.start("box", "agent", "denied", "http://other.demo.test/")
	for i, release := range []string{"b", "a"} {
		load := s.start("box", "agent", "load", "api.demo.test:"+echoPort)
		var tunnels *stream
		if held > 0 {
			tunnels = s.start("box", "agent", "tunnels", "api.demo.test:"+echoPort, fmt.Sprint(held))
			s.eventually("the tunnels", func() bool { return tunnels.number("open") == held })
		}
		s.patch("box", "initContainers", "supervisor-network:"+release)
		s.eventually("the container's restart", func() bool { return s.restarts("box", "supervisor-network") == fmt.Sprint(i+1) })
		s.eventually("the new release", func() bool {
			return metric(s.get("pod/box", "{.status.podIP}"), "9901", "splitpod_build_info", fmt.Sprintf("version=%q", release)) == 1
		})
		s.ready("box")
		if tunnels != nil {
			s.eventually("the end of the tunnels", func() bool { return tunnels.number("ended") == held })
		}
		now := load.number("ok")
		s.eventually("progress with the new release", func() bool { return load.number("ok") > now+50 })
		load.finish()
		s.trusts("box")
		kept.hold(s)
		t.Logf("to release %s: %d connections, %d failed, the longest wait was %d ms", release, load.number("ok"), load.number("failed"), load.number("worst_ms"))
		if n := load.number("failed"); n != 0 {
			t.Errorf("%d connections failed, the last one with %v", n, load.last("last")["last"])
		}
	}
	refused.finish()
	if after := say("after"); after != pid {
		t.Errorf("the workload's pid was %d, is %d", pid, after)
	}
	if n := s.restarts("box", "workload"); n != "0" {
		t.Errorf("the workload was restarted %s times", n)
	}
	s.nothingWasLost(refused.number("told"), kept)
	if t.Failed() {
		for _, log := range kept.of(s, "supervisor-network") {
			t.Logf("reasons in one instance's log: %v", reasons(log))
		}
	}
}

// reasons counts the records of a log by their reasons and, where they are not what the
// tests here bring about, by what they say.
func reasons(log string) map[string]int {
	out := make(map[string]int)
	for _, r := range records(log) {
		why := r.Unmapped.Reason
		if why != "allowed" && why != "policy_denied" {
			why += " (" + r.Why + ")"
		}
		out[why] += max(r.Count, 1)
	}
	return out
}

// nothingWasLost compares what the workload was told with what was recorded, by both
// daemons, over every instance of the network daemon.
func (s *space) nothingWasLost(told int, kept logs) {
	s.t.Helper()
	if told < 10 {
		s.t.Errorf("the workload was refused only %d times", told)
	}
	for _, container := range []string{"supervisor-network", "workload"} {
		recorded := 0
		if !cluster.Eventually(func() bool {
			recorded = 0
			for _, log := range kept.of(s, container) {
				recorded += count(log, "policy_denied")
			}
			return recorded >= told
		}) {
			s.t.Errorf("the workload was refused %d times, the records of container %s have %d", told, container, recorded)
		}
	}
}

// logs holds the logs of containers open. The kubelet removes the log of a container
// that is gone when it likes; what is open can still be read to its end.
type logs map[string]*os.File

// holdLogs begins with what there is now; hold adds what is new.
func (s *space) holdLogs() logs {
	l := make(logs)
	s.t.Cleanup(func() {
		for _, f := range l {
			f.Close()
		}
	})
	l.hold(s)
	return l
}

func (l logs) hold(s *space) {
	s.t.Helper()
	for _, name := range kube.LogFiles(s.name) {
		if l[name] != nil {
			continue
		}
		f, err := os.Open(name)
		if err != nil {
			s.t.Errorf("a log went before it was read: %v", err)
			continue
		}
		l[name] = f
	}
}

// of is what the instances of one container have written until now, in no order.
func (l logs) of(s *space, container string) (all []string) {
	s.t.Helper()
	l.hold(s)
	for name, f := range l {
		if !strings.Contains(name, "/"+container+"/") {
			continue
		}
		data, err := io.ReadAll(io.NewSectionReader(f, 0, 1<<30))
		if err != nil {
			s.t.Fatal(err)
		}
		all = append(all, cluster.LogText(string(data)))
	}
	return all
}

// TestAProcessImageIsChangedUnderANetworkDaemon: the workload restarts once, the
// network daemon goes on and serves the new instance soon. Then the
// same backwards.
func TestAProcessImageIsChangedUnderANetworkDaemon(t *testing.T) {
	s := newSpace(t)
	v := values("Pod", "delivery: image\nprocess: {path: /usr/bin/supervisor-process}\n", "sh", "-c", "agent get http://api.demo.test/; agent lines")
	s.install(strings.Replace(v, registry+`agent, tag: "1"`, registry+`agent, tag: with-a`, 1))
	s.ready("box")
	for i, release := range []string{"b", "a"} {
		s.patch("box", "containers", "agent:with-"+release)
		s.eventually("the container's restart", func() bool { return s.restarts("box", "workload") == fmt.Sprint(i+1) })
		s.ready("box")
		pod := s.get("pod/box", "{.status.podIP}")
		s.eventually("release "+release, func() bool {
			return metric(pod, "9902", "splitpod_build_info", fmt.Sprintf("version=%q", release)) == 1
		})
		s.eventually("the first request of the new instance", func() bool { return count(s.logs("box", "supervisor-network"), "allowed") == i+2 })
		took := s.attachToFirst(s.logs("box", "supervisor-network"))
		t.Logf("to release %s: the network daemon served the new instance %d ms after it attached", release, took.Milliseconds())
		if took > 30*time.Second { // of which an idle machine needs two
			t.Errorf("it took %s", took)
		}
	}
	if n := s.restarts("box", "supervisor-network"); n != "0" {
		t.Errorf("the network daemon was restarted %s times", n)
	}
}

// attachToFirst is the time from the last attachment to the first connection after it.
func (s *space) attachToFirst(log string) time.Duration {
	s.t.Helper()
	attached, first := int64(0), int64(0)
	for _, r := range records(log) {
		switch r.Unmapped.Reason {
		case "process_attached":
			attached, first = r.Time, 0
		case "allowed":
			if first == 0 {
				first = r.Time
			}
		}
	}
	if attached == 0 || first == 0 {
		s.t.Fatal("the log has no attachment, or no connection after it")
	}
	return time.Duration(first-attached) * time.Millisecond
}

// TestADeploymentRollsOneImage: a new pod with one new image and one old one works,
// either way round, and the old pod goes when the new one is ready.
func TestADeploymentRollsOneImage(t *testing.T) {
	t.Parallel()
	s := newSpace(t)
	v := values("Deployment", "", "agent", "lines")
	s.install(v)
	s.in("rollout", "status", "deploy/box", "--timeout=240s")
	for _, daemon := range []string{"network", "process"} {
		next := strings.Replace(v, "supervisor-"+daemon+", tag: a", "supervisor-"+daemon+", tag: b", 1)
		s.helm(next, "upgrade", "box", chart, "--wait", "--timeout", "240s")
		var pod string
		s.eventually("the old pod's end", func() bool {
			pod = s.get("pods", "{.items[*].metadata.name}")
			return len(strings.Fields(pod)) == 1
		})
		if out, code := s.inside(pod, "agent", "get", "http://api.demo.test/"); code != 0 || !strings.Contains(out, "200") {
			t.Errorf("with a new %s image: %s", daemon, out)
		}
		ip := s.get("pod/"+pod, "{.status.podIP}")
		for port, component := range map[string]string{"9901": "network", "9902": "process"} {
			want := map[bool]string{true: "b", false: "a"}[component == daemon]
			s.eventually(fmt.Sprintf("%s of release %s, after rolling %s", component, want, daemon), func() bool {
				return metric(ip, port, "splitpod_build_info", fmt.Sprintf("version=%q", want)) == 1
			})
		}
	}
}
