package kube_test

import (
	"encoding/json"
	"fmt"
	"strconv"
	"strings"
	"testing"

	"github.com/splitpod/splitpod/test/e2e/kube/cluster"
	"github.com/splitpod/splitpod/test/world"
)

// binary is where the process daemon is in a workload's container.
const binary = "/splitpod/supervisor-process"

// inside runs a command inside the sandbox, as an operator does.
func (s *space) inside(pod string, command ...string) (out string, code int) {
	s.t.Helper()
	return s.insideBy(binary, pod, command...)
}

func (s *space) insideBy(binary, pod string, command ...string) (out string, code int) {
	s.t.Helper()
	out, err := kube.Kubectl(append([]string{"-n", s.name, "exec", pod, "-c", "workload", "--", binary, "exec", "--"}, command...)...)
	return out, cluster.ExitCode(err)
}

// TestEveryShapeOfPod runs the same cases in every pod that the chart can make.
func TestEveryShapeOfPod(t *testing.T) {
	t.Parallel()
	for name, more := range map[string]string{
		"sidecar":         "",
		"two-containers":  "topology: containers\n",
		"copied-binary":   "delivery: copy\n",
		"in-the-image":    "delivery: image\nprocess: {path: /usr/bin/supervisor-process}\n",
		"the-nodes-users": "hostUsers: true\n",
		"preflight":       "process: {preflight: true}\n",
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := newSpace(t)
			v, path := values("Pod", more, "agent", "lines"), binary
			if name == "in-the-image" {
				v, path = strings.Replace(v, registry+`agent, tag: "1"`, registry+`agent, tag: with-a`, 1), "/usr/bin/supervisor-process"
			}
			s.install(v)
			s.ready("box")
			p := &subject{space: s, path: path}
			p.reachesWhatItMay()
			p.reachesNothingElse()
			p.seesNothingElse()
			p.leavesRecordsAndMetrics()
		})
	}
}

// subject is a pod whose workload is looked at from inside.
type subject struct {
	*space
	path string // of the process daemon
}

func (p *subject) run(command ...string) (string, int) {
	p.t.Helper()
	return p.insideBy(p.path, "box", command...)
}

func (p *subject) reachesWhatItMay() {
	p.t.Helper()
	for _, command := range [][]string{
		{"agent", "get", "http://api.demo.test/"},
		{"curl", "-sSf", "-m", "120", "http://api.demo.test/"},
	} {
		if out, code := p.run(command...); code != 0 || !strings.Contains(out, "200") && !strings.Contains(out, "hello from api.demo.test") {
			p.t.Errorf("%v: exit code %d, %s", command, code, out)
		}
	}
	if kube.DNS.Asked("api.demo.test") == 0 {
		p.t.Error("the cluster's name server was not asked for an allowed name")
	}
}

func (p *subject) reachesNothingElse() {
	p.t.Helper()
	for name, command := range map[string][]string{
		"a host no rule names":       {"agent", "get", "http://other.demo.test/"},
		"a program no rule names":    {"sh", "-c", "http_proxy=$HTTP_PROXY busybox wget -q -O- http://api.demo.test/"},
		"a name of this test alone":  {"agent", "get", "http://" + p.name + ".invalid/"},
		"the API server":             {"curl", "-sSfk", "-m", "10", "https://" + cluster.NodeAddress + ":6443/version"},
		"the API server's name":      {"curl", "-sSfk", "-m", "10", "https://kubernetes.default.svc/version"},
		"the kubelet":                {"curl", "-sSfk", "-m", "10", "https://" + cluster.NodeAddress + ":10250/pods"},
		"a name, without the proxy":  {"curl", "-sSf", "-m", "10", "--noproxy", "*", "http://api.demo.test/"},
		"a namespace of its own":     {"busybox", "unshare", "-U", "true"},
		"the daemons' own addresses": {"curl", "-sSf", "-m", "10", "http://127.0.0.1:9901/metrics"},
	} {
		out, code := p.run(command...)
		if code == 0 && !strings.Contains(out, `"status":403`) {
			p.t.Errorf("%s: exit code %d, %s", name, code, out)
		}
	}
	if n := kube.DNS.Asked(p.name + ".invalid"); n > 0 {
		p.t.Errorf("a denied name was looked up %d times", n)
	}
	pod := p.get("pod/box", "{.status.podIP}")
	targets := []string{
		"tcp/" + world.Address + ":80", "tcp/[" + world.Address6 + "]:80", "tcp/" + world.Address + ":3128", "tcp/169.254.169.254:80",
		"tcp/" + cluster.NodeAddress + ":6443", "tcp/" + cluster.NodeAddress + ":10250", "tcp/10.96.0.1:443", "tcp/" + pod + ":9901",
		"tcp/" + pod + ":9902", "tcp/127.0.0.1:9901", "udp/" + cluster.NodeAddress + ":53", "udp/" + world.Address + ":443",
	}
	out, _ := p.run(append([]string{"agent", "dial"}, targets...)...)
	seen := 0
	for line := range strings.Lines(out) {
		var r struct{ Outcome string }
		if json.Unmarshal([]byte(line), &r) != nil {
			continue
		}
		seen++
		if r.Outcome != "refused" { // what is dropped would time out
			p.t.Errorf("a direct connection was not refused: %s", line)
		}
	}
	if seen != len(targets) {
		p.t.Errorf("%d of %d direct connections were tried: %s", seen, len(targets), out)
	}
}

func (p *subject) seesNothingElse() {
	p.t.Helper()
	out, _ := p.run("sh", "-c", `
echo "uid: $(id -u)"
echo "caps: $(grep -c 'Cap.*:.*[1-9a-f]' /proc/self/status)"
echo "secrets: $(ls /var/run/secrets /run/secrets 2>/dev/null | wc -l)"
echo "policy: $(ls /etc/splitpod /var/lib/splitpod 2>/dev/null | wc -l)"
echo "sockets: $(ls /run/splitpod 2>/dev/null | grep -c sock)"
echo "daemons: $(cat /proc/[0-9]*/cmdline 2>/dev/null | tr '\0' ' ' | grep -c 'supervisor-networ[k]')"
echo "links: $(grep -c : /proc/net/dev)"
echo "env: $(env | grep -c -e KUBERNETES -e SPLITPOD)"
`)
	want := "uid: 1000\ncaps: 0\nsecrets: 0\npolicy: 0\nsockets: 0\ndaemons: 0\nlinks: 1\nenv: 0\n"
	if out != want {
		p.t.Errorf("the workload sees\n%swant\n%s", out, want)
	}
}

func (p *subject) leavesRecordsAndMetrics() {
	p.t.Helper()
	p.eventually("one refusal in both containers' records", func() bool {
		for _, r := range records(p.logs("box", "supervisor-network")) {
			if r.Unmapped.Reason == "policy_denied" && r.Dst.Domain == "other.demo.test" {
				id := r.Unmapped.RequestID
				return id != "" && strings.Contains(p.logs("box", "workload"), id)
			}
		}
		return false
	})
	p.eventually("the refused system call in both containers' records", func() bool {
		for _, container := range []string{"supervisor-network", "workload"} {
			log := p.logs("box", container)
			if count(log, "syscall_refused") == 0 || !strings.Contains(log, "busybox (pid ") || !strings.Contains(log, "called unshare (a namespace") {
				return false
			}
		}
		return true
	})
	pod := p.get("pod/box", "{.status.podIP}")
	p.eventually("counts of what was refused", func() bool {
		return metric(pod, "9901", "splitpod_denials_total", `reason="policy_denied"`) >= 3 && metric(pod, "9902", "splitpod_bypass_refused_total") >= 8
	})
	for _, port := range []string{"9901", "9902"} {
		p.eventually("the daemon at port "+port+" to say that it is ready", func() bool { return metric(pod, port, "splitpod_ready") == 1 })
	}
}

// record is the part of a record that tests look at.
type record struct {
	Time  int64 // milliseconds
	Count int
	Why   string                  `json:"status_detail"`
	Dst   struct{ Domain string } `json:"dst_endpoint"`

	Unmapped struct {
		Kind, Reason string
		RequestID    string `json:"request_id"`
	}
}

// records are those in a container's log, among other lines.
func records(log string) (out []record) {
	for line := range strings.Lines(log) {
		var r record
		if strings.HasPrefix(line, `{"class_uid"`) && json.Unmarshal([]byte(line), &r) == nil {
			out = append(out, r)
		}
	}
	return out
}

// count is how many records have a reason, with those that stand for several.
func count(log, reason string) (n int) {
	for _, r := range records(log) {
		if r.Unmapped.Reason == reason {
			n += max(r.Count, 1)
		}
	}
	return n
}

// metric reads a value from a pod: the sum of what has the name and every label given
// as name="value"; -1 when there is nothing.
func metric(podIP, port, name string, labels ...string) float64 {
	text, err := kube.Metrics(podIP, port)
	if err != nil {
		return -1
	}
	sum := -1.0
	for line := range strings.Lines(text) {
		rest, ok := strings.CutPrefix(line, name)
		if !ok || rest[0] != ' ' && rest[0] != '{' {
			continue
		}
		for _, l := range labels {
			ok = ok && (strings.Contains(rest, "{"+l) || strings.Contains(rest, ","+l))
		}
		v, err := strconv.ParseFloat(strings.TrimSpace(rest[strings.LastIndex(rest, " "):]), 64)
		if ok && err == nil {
			sum = max(sum, 0) + v
		}
	}
	return sum
}

// restarts is how often a container was.
func (s *space) restarts(pod, container string) string {
	s.t.Helper()
	const path = `{range .status.%s[?(@.name=="%s")]}{.restartCount}{end}`
	return s.get("pod/"+pod, fmt.Sprintf(path+path, "initContainerStatuses", container, "containerStatuses", container))
}
