package kube_test

import (
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/splitpod/splitpod/test/world"
)

// TestThirtyPodsTogether: they start on one node at one time, all become ready, and each
// is a sandbox of its own.
func TestThirtyPodsTogether(t *testing.T) {
	s := newSpace(t)
	const pods = 30
	small := "resources: {requests: {cpu: 10m, memory: 16Mi}, limits: {memory: 128Mi}}\n"
	v := values("Deployment", fmt.Sprintf("replicas: %d\nnetwork: {%s}\n", pods, strings.TrimSpace(small)), "agent", "lines")
	v = strings.Replace(v, "  stdin: true\n", "  "+small, 1)
	start := time.Now()
	s.install(v)
	s.in("rollout", "status", "deploy/box", "--timeout=480s")
	names := strings.Fields(s.get("pods", "{.items[*].metadata.name}"))
	if len(names) != pods {
		t.Fatalf("there are %d pods", len(names))
	}
	t.Logf("%d pods were ready after %.1f s; the seconds each took: %v", pods, time.Since(start).Seconds(), s.startTimes())
	var wg sync.WaitGroup
	slots := make(chan struct{}, 4)
	for _, pod := range names {
		wg.Go(func() {
			slots <- struct{}{}
			defer func() { <-slots }()
			out, _ := s.inside(pod, "sh", "-c", "agent get http://api.demo.test/; agent get http://other.demo.test/; agent dial tcp/"+world.Address+":80")
			for _, want := range []string{`{"status":200}`, `{"status":403}`, `"outcome":"refused"`} {
				if !strings.Contains(out, want) {
					t.Errorf("%s: no %s in %s", pod, want, out)
				}
			}
		})
	}
	wg.Wait()
	for _, c := range []string{"containerStatuses", "initContainerStatuses"} {
		if n := strings.ReplaceAll(s.get("pods", "{.items[*].status."+c+"[*].restartCount}"), " ", ""); n != strings.Repeat("0", pods) {
			t.Errorf("restarts: %s", n)
		}
	}
	end := time.Now()
	s.in("delete", "deploy", "box", "--cascade=foreground", "--timeout=240s")
	t.Logf("%d pods were gone after %.1f s", pods, time.Since(end).Seconds())
}

// startTimes are the whole seconds from each pod's creation to its readiness.
func (s *space) startTimes() (seconds []int) {
	s.t.Helper()
	text := s.get("pods", `{range .items[*]}{.metadata.creationTimestamp} {.status.conditions[?(@.type=="Ready")].lastTransitionTime}{"\n"}{end}`)
	for line := range strings.Lines(text) {
		var at [2]time.Time
		for i, word := range strings.Fields(line) {
			when, err := time.Parse(time.RFC3339, word)
			if err != nil {
				s.t.Error(err)
			}
			at[i] = when
		}
		seconds = append(seconds, int(at[1].Sub(at[0]).Seconds()))
	}
	slices.Sort(seconds)
	return seconds
}
