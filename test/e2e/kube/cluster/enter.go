// Package cluster runs a real Kubernetes cluster of one node on a development machine:
// etcd, API server, controller manager, scheduler, kubelet, containerd and runc, all
// built from source (../programs), in network, mount and process namespaces of its own.
//
// It answers the threat of a suite that leaves the machine it runs on, or leaves
// something on it: there is no route out of its network namespace, its mounts end with
// its mount namespace, its processes with its first one, and what is left, cgroups and
// one folder, the outer process removes. Nothing of it is for production: it has no
// encryption between its parts and any pod may ask the kubelet.
package cluster

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// inside marks the re-executed program and names its folder; programsEnv, where the
// cluster's programs are.
const (
	inside      = "SPLITPOD_TEST_CLUSTER"
	programsEnv = "SPLITPOD_TEST_CLUSTER_PROGRAMS"
)

// Enter runs the program again in new namespaces, unless it already is there. It
// returns the cluster's folder, and only inside; outside it exits with the inner
// program's code. kube is the folder of this suite. What may need a network, the
// cluster's programs and build, happens outside.
func Enter(kube string, build func(dir string) error) (dir string, err error) {
	if dir := os.Getenv(inside); dir != "" {
		return dir, prepare(dir)
	}
	bin, err := programs(kube)
	if err != nil {
		return "", err
	}
	runtime.LockOSThread() // the inner program dies with this thread
	self, err := os.Executable()
	if err != nil {
		return "", err
	}
	dir, err = os.MkdirTemp("", "splitpod-kube-")
	if err != nil {
		return "", err
	}
	if err := errors.Join(os.Chmod(dir, 0o755), build(dir), makeCgroups(cgroupOf(dir))); err != nil {
		leave(dir)
		return "", err
	}
	cmd := exec.Command(self, os.Args[1:]...)
	cmd.Stdin, cmd.Stdout, cmd.Stderr = os.Stdin, os.Stdout, os.Stderr
	cmd.Env = append(os.Environ(), inside+"="+dir, programsEnv+"="+bin)
	cmd.SysProcAttr = &syscall.SysProcAttr{
		Cloneflags: unix.CLONE_NEWNET | unix.CLONE_NEWNS | unix.CLONE_NEWPID | unix.CLONE_NEWUTS, Pdeathsig: syscall.SIGKILL,
	}
	err = cmd.Run()
	leave(dir)
	var exit *exec.ExitError
	switch {
	case errors.As(err, &exit):
		os.Exit(max(exit.ExitCode(), 1))
	case err != nil:
		return "", fmt.Errorf("enter the cluster's namespaces (needs root): %w", err)
	}
	os.Exit(0)
	return "", nil
}

// leave removes what outlives the namespaces.
func leave(dir string) {
	if err := errors.Join(removeCgroups(cgroupOf(dir)), os.RemoveAll(dir)); err != nil {
		fmt.Fprintf(os.Stderr, "cluster: something is left behind: %v\n", err)
	}
}

// cgroupOf is the name of the cluster's cgroup in every hierarchy.
func cgroupOf(dir string) string { return filepath.Base(dir) }

const cgroups = "/sys/fs/cgroup"

// hierarchies lists the mounted cgroup hierarchies: one a controller with version 1,
// the root itself with version 2.
func hierarchies() []string {
	if _, err := os.Stat(cgroups + "/cgroup.controllers"); err == nil {
		return []string{cgroups}
	}
	found, _ := filepath.Glob(cgroups + "/*")
	return found
}

func makeCgroups(name string) error {
	for _, h := range hierarchies() {
		dir := filepath.Join(h, name)
		if err := os.Mkdir(dir, 0o755); err != nil && !errors.Is(err, fs.ErrExist) {
			return fmt.Errorf("make the cluster's cgroup: %w", err)
		}
		if filepath.Base(h) != "cpuset" {
			continue
		}
		for _, file := range []string{"cpuset.cpus", "cpuset.mems"} { // a child of version 1 starts with none
			data, err := os.ReadFile(filepath.Join(h, file))
			if err == nil {
				err = os.WriteFile(filepath.Join(dir, file), data, 0o644)
			}
			if err != nil {
				return fmt.Errorf("set up the cluster's cpuset: %w", err)
			}
		}
	}
	return nil
}

// removeCgroups removes the cluster's cgroups, innermost first. Their processes have
// been killed; the kernel may need a moment to notice.
func removeCgroups(name string) (err error) {
	for range 100 {
		err = nil
		for _, h := range hierarchies() {
			var dirs []string
			_ = filepath.WalkDir(filepath.Join(h, name), func(path string, d fs.DirEntry, walkErr error) error {
				if walkErr == nil && d.IsDir() {
					dirs = append(dirs, path)
				}
				return nil
			})
			for _, dir := range slices.Backward(dirs) {
				err = errors.Join(err, unix.Rmdir(dir))
			}
		}
		if err == nil {
			return nil
		}
		time.Sleep(50 * time.Millisecond)
	}
	return err
}

// prepare makes the inner namespaces what a node's are: mounts that propagate to
// containers, a /proc of its own, empty folders where programs write by fixed names.
func prepare(dir string) error {
	steps := []struct {
		source, target, kind string
		flags                uintptr
		data                 string
	}{
		{"", "/", "", unix.MS_REC | unix.MS_PRIVATE, ""}, // apart from the machine
		{"", "/", "", unix.MS_REC | unix.MS_SHARED, ""},  // together with the containers
		{"proc", "/proc", "proc", 0, ""},
		{"run", "/run", "tmpfs", 0, "mode=755"},
		{"log", "/var/log", "tmpfs", 0, "mode=755"},
	}
	for _, s := range steps {
		if err := unix.Mount(s.source, s.target, s.kind, s.flags, s.data); err != nil {
			return fmt.Errorf("mount %s: %w", s.target, err)
		}
	}
	for _, sub := range []string{"log", "etcd", "containerd", "kubelet", "cni", "bin", "images"} {
		if err := os.MkdirAll(filepath.Join(dir, sub), 0o755); err != nil {
			return err
		}
	}
	if err := unix.Sethostname([]byte(nodeName)); err != nil {
		return fmt.Errorf("name the node: %w", err)
	}
	return network()
}
