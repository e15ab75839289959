package cluster

import (
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"
)

// Cluster is a running one.
type Cluster struct {
	Dir string // everything it writes
	DNS *DNS

	bin      string
	programs []*program
}

// Start starts a cluster in the namespaces that Enter made. images are OCI archives
// to import; the pause image is one of them.
func Start(dir string, images ...string) (c *Cluster, err error) {
	c = &Cluster{Dir: dir, bin: os.Getenv(programsEnv)}
	if c.DNS, err = startDNS(); err != nil {
		return c, err
	}
	if err := c.startNode(); err != nil { // first: importing takes longer than an API server
		return c, err
	}
	imported := make(chan error, 1)
	go func() { imported <- c.Import(images...) }()
	if err := c.startControl(); err != nil {
		return c, err
	}
	if err := <-imported; err != nil {
		return c, err
	}
	if err := c.startKubelet(); err != nil {
		return c, err
	}
	return c, c.awaitProgram("kube-controller-manager", func() error {
		_, err := c.Kubectl("get", "serviceaccount", "default")
		return err
	})
}

// Import makes images known to the node.
func (c *Cluster) Import(archives ...string) error {
	for _, archive := range archives {
		if out, err := c.Run("", "ctr", "-a", c.socket(), "-n", "k8s.io", "images", "import", archive); err != nil {
			return fmt.Errorf("import %s: %w\n%s", archive, err, out)
		}
	}
	return nil
}

// Close deletes every pod and ends the programs. What they leave ends with the
// namespaces.
func (c *Cluster) Close() {
	for _, p := range c.programs {
		_ = p.cmd.Process.Kill()
		<-p.ended
	}
}

// Dump writes what somebody needs who was not there: pods, events, the containers'
// logs, the ends of the programs' logs.
func (c *Cluster) Dump(w io.Writer, namespace string) {
	for _, args := range [][]string{
		{"get", "pods", "-o", "wide"}, {"get", "events", "--sort-by=.lastTimestamp"}, {"describe", "pods"},
	} {
		out, err := c.Kubectl(append([]string{"-n", namespace}, args...)...)
		fmt.Fprintf(w, "--- kubectl %s\n%s\n", strings.Join(args, " "), out)
		if err != nil {
			fmt.Fprintln(w, err)
		}
	}
	logs, _ := filepath.Glob("/var/log/pods/" + namespace + "_*/*/*.log")
	for _, log := range logs {
		fmt.Fprintf(w, "--- %s\n%s\n", strings.TrimPrefix(log, "/var/log/pods/"), tail(log, 30))
	}
	for _, p := range c.programs {
		fmt.Fprintf(w, "--- %s\n%s\n", p.name, tail(p.log, 10))
	}
}

// Metrics is the text a pod serves on a port.
func (c *Cluster) Metrics(podIP, port string) (string, error) {
	return c.Run("", "curl", "-sS", "-m", "30", "http://"+podIP+":"+port+"/metrics")
}

// Traces lists what containers leave on a node while they live: mounts and network
// namespaces, by a part of their names.
func (c *Cluster) Traces(part string) (found []string) {
	mounts, _ := os.ReadFile("/proc/self/mountinfo")
	for line := range strings.Lines(string(mounts)) {
		if strings.Contains(line, part) {
			found = append(found, "mount "+strings.TrimSpace(line))
		}
	}
	for _, h := range hierarchies() {
		_ = filepath.WalkDir(filepath.Join(h, cgroupOf(c.Dir)), func(path string, d os.DirEntry, err error) error {
			if err == nil && d.IsDir() && strings.Contains(d.Name(), part) {
				found = append(found, "cgroup "+path)
			}
			return nil
		})
	}
	return found
}

// Eventually waits until found says yes, for at most four minutes. It asks less and less
// often: a start of kubectl costs a processor 0.1 s, and many that wait must not keep the
// pods from starting.
func Eventually(found func() bool) bool {
	pause := 100 * time.Millisecond
	for deadline := time.Now().Add(4 * time.Minute); time.Now().Before(deadline); time.Sleep(pause) {
		if found() {
			return true
		}
		pause = min(pause*3/2, time.Second)
	}
	return false
}

// Kill sends a signal to the first process of a container, as a node does.
func (c *Cluster) Kill(container, signal string) error {
	_, err := c.Run("", "ctr", "-a", c.socket(), "-n", "k8s.io", "tasks", "kill", "-s", signal, container)
	return err
}

// Processes are those in the cgroups of a pod.
func (c *Cluster) Processes(uid string) (pids []int, err error) {
	seen := make(map[int]bool)
	for _, h := range hierarchies() {
		err = errors.Join(err, filepath.WalkDir(filepath.Join(h, cgroupOf(c.Dir)), func(path string, d os.DirEntry, err error) error {
			if err != nil || d.Name() != "cgroup.procs" || !strings.Contains(path, uid) {
				return nil
			}
			data, _ := os.ReadFile(path)
			for _, word := range strings.Fields(string(data)) {
				if pid, err := strconv.Atoi(word); err == nil && !seen[pid] {
					seen[pid] = true
					pids = append(pids, pid)
				}
			}
			return nil
		}))
	}
	return pids, err
}

// LimitMemory leaves a running container so many bytes more than it has. The kubelet
// gives the container's next instance its own limit again.
func (c *Cluster) LimitMemory(container string, more uint64) error {
	for _, h := range hierarchies() {
		usage, limit := "memory.usage_in_bytes", "memory.limit_in_bytes"
		switch {
		case h == cgroups:
			usage, limit = "memory.current", "memory.max"
		case filepath.Base(h) != "memory":
			continue
		}
		found := ""
		_ = filepath.WalkDir(filepath.Join(h, cgroupOf(c.Dir)), func(path string, d os.DirEntry, err error) error {
			if err == nil && d.IsDir() && d.Name() == container {
				found = path
			}
			return nil
		})
		data, err := os.ReadFile(filepath.Join(found, usage))
		if err != nil {
			return fmt.Errorf("the memory of container %s: %w", container, err)
		}
		used, err := strconv.ParseUint(strings.TrimSpace(string(data)), 10, 64)
		if err != nil {
			return err
		}
		return os.WriteFile(filepath.Join(found, limit), []byte(strconv.FormatUint(used+more, 10)), 0o644)
	}
	return errors.New("no hierarchy of cgroups counts memory")
}

// EmptyDir is where the node keeps an emptyDir of a pod.
func (c *Cluster) EmptyDir(uid, volume string) string {
	return filepath.Join(c.Dir, "kubelet", "pods", uid, "volumes", "kubernetes.io~empty-dir", volume)
}

// LogFiles names the logs of every instance of every container of a namespace's pods,
// as the kubelet keeps them: pods/NAMESPACE_POD_UID/CONTAINER/INSTANCE.log.
func (c *Cluster) LogFiles(namespace string) []string {
	files, _ := filepath.Glob("/var/log/pods/" + namespace + "_*/*/*.log*")
	return files
}

// LogText is what a container wrote into a log of LogFiles: without the columns that
// the runtime puts before each line (time, stream, tag).
func LogText(log string) string {
	var b strings.Builder
	for line := range strings.Lines(log) {
		if columns := strings.SplitN(line, " ", 4); len(columns) == 4 {
			b.WriteString(columns[3])
		}
	}
	return b.String()
}
