// Package kube_test runs the images in pods of a real cluster: real API server,
// kubelet, containerd and runc, on one node that the cluster package starts on this
// machine. README.md lists the cases.
package kube_test

import (
	"bytes"
	"flag"
	"fmt"
	"net"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/splitpod/splitpod/test/e2e/kube/cluster"
	"github.com/splitpod/splitpod/test/need"
	"github.com/splitpod/splitpod/test/world"
)

var (
	kube    *cluster.Cluster
	origins *world.Origins
)

func TestMain(m *testing.M) {
	if os.Geteuid() != 0 {
		os.Exit(m.Run()) // each test says what it needs
	}
	os.Exit(inCluster(m))
}

func inCluster(m *testing.M) int {
	failed := func(err error) int {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	dir, err := cluster.Enter(".", buildImages)
	if err != nil {
		return failed(err)
	}
	if origins, err = world.Start(dir); err != nil {
		return failed(err)
	}
	defer origins.Close()
	if err := startEcho(); err != nil {
		return failed(err)
	}
	started := time.Now()
	kube, err = cluster.Start(dir, archives(dir)...)
	if kube != nil {
		defer kube.Close()
	}
	if err != nil {
		return failed(err)
	}
	fmt.Printf("the cluster is ready after %.1f s\n", time.Since(started).Seconds())
	flag.Parse()
	_ = flag.Set("test.parallel", "6") // pods wait more than they compute
	return m.Run()
}

// echoPort is an origin's that says back what it hears, over TCP.
const echoPort = "7000"

func startEcho() error {
	l, err := net.Listen("tcp", net.JoinHostPort(world.Address, echoPort))
	if err != nil {
		return err
	}
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			go func() {
				defer c.Close()
				buf := make([]byte, 4096)
				for {
					n, err := c.Read(buf)
					if err != nil {
						return
					}
					if _, err := c.Write(buf[:n]); err != nil {
						return
					}
				}
			}()
		}
	}()
	return nil
}

// space is a namespace of one test.
type space struct {
	t    *testing.T
	name string
}

// newSpace makes a namespace that ends with the test; on a failure it is dumped
// first.
func newSpace(t *testing.T) *space {
	t.Helper()
	need.Root(t)
	s := &space{t: t, name: strings.ToLower(strings.ReplaceAll(t.Name(), "/", "-"))}
	s.name = s.name[:min(len(s.name), 60)]
	s.kubectl("create", "namespace", s.name)
	if !cluster.Eventually(func() bool {
		_, err := kube.Kubectl("-n", s.name, "get", "serviceaccount", "default")
		return err == nil
	}) {
		t.Fatal("the namespace has no service account")
	}
	t.Cleanup(func() {
		if t.Failed() {
			var dump bytes.Buffer
			kube.Dump(&dump, s.name)
			t.Log(dump.String())
		}
		_, _ = kube.Kubectl("delete", "namespace", s.name, "--wait=false")
	})
	return s
}

// kubectl runs kubectl outside of any namespace, and must work.
func (s *space) kubectl(args ...string) string {
	s.t.Helper()
	out, err := kube.Kubectl(args...)
	if err != nil {
		s.t.Fatal(err)
	}
	return out
}

// in runs kubectl in the test's namespace, and must work.
func (s *space) in(args ...string) string {
	s.t.Helper()
	return s.kubectl(append([]string{"-n", s.name}, args...)...)
}

func (s *space) apply(manifest string) {
	s.t.Helper()
	if _, err := kube.Run(manifest, "kubectl", "-n", s.name, "apply", "-f", "-"); err != nil {
		s.t.Fatal(err)
	}
}

// get reads one field by a JSON path.
func (s *space) get(object, path string) string {
	s.t.Helper()
	return strings.TrimSpace(s.in("get", object, "-o", "jsonpath="+path))
}

// eventually waits for something, and fails the test when it does not come.
func (s *space) eventually(what string, found func() bool) {
	s.t.Helper()
	if !cluster.Eventually(found) {
		s.t.Fatalf("waited in vain for %s", what)
	}
}

// ready waits until a pod is.
func (s *space) ready(pod string) {
	s.t.Helper()
	s.in("wait", "--for=condition=Ready", "--timeout=240s", "pod/"+pod)
}

// logs are a container's; the empty name is the pod's first.
func (s *space) logs(pod, container string) string {
	s.t.Helper()
	out, err := kube.Kubectl("-n", s.name, "logs", pod, "-c", container)
	if err != nil {
		return err.Error()
	}
	return out
}
