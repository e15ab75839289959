package cluster

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"
)

// programs builds what a cluster is made of, or finds it built, and returns its folder.
func programs(kube string) (string, error) {
	cmd := exec.Command(filepath.Join(kube, "programs", "build.sh"))
	cmd.Stderr = os.Stderr
	out, err := cmd.Output()
	if err != nil {
		return "", fmt.Errorf("build the cluster's programs: %w", err)
	}
	return strings.TrimSpace(string(out)), nil
}

// cniPlugins is where Debian's containernetworking-plugins are.
const cniPlugins = "/usr/lib/cni"

// program is a running part of the cluster.
type program struct {
	name  string
	cmd   *exec.Cmd
	log   string
	ended chan struct{}
}

// launch starts a program with its output in dir/log/NAME.log.
func (c *Cluster) launch(name string, argv ...string) error {
	log := filepath.Join(c.Dir, "log", name+".log")
	f, err := os.OpenFile(log, os.O_CREATE|os.O_WRONLY|os.O_APPEND, 0o644)
	if err != nil {
		return err
	}
	defer f.Close()
	p := &program{name: name, cmd: exec.Command(argv[0], argv[1:]...), log: log, ended: make(chan struct{})}
	p.cmd.Stdout, p.cmd.Stderr = f, f
	p.cmd.Env = c.env()
	if err := p.cmd.Start(); err != nil {
		return fmt.Errorf("start %s: %w", name, err)
	}
	go func() {
		defer close(p.ended)
		_ = p.cmd.Wait()
	}()
	c.programs = append(c.programs, p)
	return nil
}

// env is the environment of every program: the built ones come first, no proxy.
func (c *Cluster) env() []string {
	return []string{"PATH=" + c.bin + ":/usr/local/bin:/usr/bin:/bin:/usr/sbin:/sbin", "HOME=" + c.Dir,
		"KUBECONFIG=" + c.kubeconfig(), "HELM_CACHE_HOME=" + c.Dir + "/helm", "GOGC=200"}
}

// awaitProgram waits until ready says yes, and gives up when the program ends or
// after four minutes.
func (c *Cluster) awaitProgram(name string, ready func() error) error {
	deadline := time.Now().Add(4 * time.Minute)
	for {
		err := ready()
		if err == nil {
			return nil
		}
		for _, p := range c.programs {
			if p.name != name {
				continue
			}
			select {
			case <-p.ended:
				return fmt.Errorf("%s ended at once:\n%s", name, tail(p.log, 40))
			default:
			}
		}
		if time.Now().After(deadline) {
			return fmt.Errorf("%s is not ready: %w\n%s", name, err, c.tailOf(name, 40))
		}
		time.Sleep(50 * time.Millisecond)
	}
}

func (c *Cluster) tailOf(name string, lines int) string {
	return tail(filepath.Join(c.Dir, "log", name+".log"), lines)
}

// tail is the end of a file.
func tail(path string, lines int) string {
	data, err := os.ReadFile(path)
	if err != nil {
		return err.Error()
	}
	all := strings.Split(strings.TrimRight(string(data), "\n"), "\n")
	return strings.Join(all[max(0, len(all)-lines):], "\n")
}

// Run runs one of the cluster's programs and returns what it printed; the error has
// what it printed on standard error.
func (c *Cluster) Run(stdin string, argv ...string) (string, error) {
	cmd := c.Command(argv...)
	cmd.Stdin = strings.NewReader(stdin)
	var errOut bytes.Buffer
	cmd.Stderr = &errOut
	out, err := cmd.Output()
	if err != nil {
		return string(out), fmt.Errorf("%s: %w\n%s", strings.Join(argv, " "), err, errOut.String())
	}
	return string(out), nil
}

// Command prepares one of the cluster's programs: kubectl, helm, ctr.
func (c *Cluster) Command(argv ...string) *exec.Cmd {
	path := filepath.Join(c.bin, argv[0])
	if _, err := os.Stat(path); err != nil {
		path = argv[0]
	}
	cmd := exec.Command(path, argv[1:]...)
	cmd.Env = c.env()
	cmd.WaitDelay = 10 * time.Second
	return cmd
}

// Kubectl runs kubectl.
func (c *Cluster) Kubectl(args ...string) (string, error) {
	return c.Run("", append([]string{"kubectl"}, args...)...)
}

// ExitCode is a program's exit code from the error of Run; -1 for anything else.
func ExitCode(err error) int {
	if err == nil {
		return 0
	}
	if exit, ok := errors.AsType[*exec.ExitError](err); ok {
		return exit.ExitCode()
	}
	return -1
}
