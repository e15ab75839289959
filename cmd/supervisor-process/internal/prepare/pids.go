package prepare

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// PIDLimit is how many processes the container's cgroup below root may have, in version 2 or
// 1 of cgroups, or why there is no limit. One of a cgroup above it, as the kubelet sets for
// the whole pod, is not to be seen from inside a container.
func PIDLimit(root string) (int, error) {
	own := []string{"sys/fs/cgroup/pids.max"}
	if path, found := pidsVersion1(root); found {
		own = append(own, filepath.Join(pidsHierarchy, path, "pids.max"), filepath.Join(pidsHierarchy, "pids.max"))
	}
	var text []byte
	var err error
	for _, path := range own {
		if text, err = os.ReadFile(filepath.Join(root, path)); err == nil {
			break
		}
	}
	if err != nil {
		return 0, fmt.Errorf("the container's limit of processes cannot be read: %w", err)
	}
	n, err := strconv.Atoi(strings.TrimSpace(string(text)))
	if err != nil || n <= 0 {
		return 0, fmt.Errorf("the container has no limit of processes of its own (pids.max is %q), and one of the whole pod cannot be seen from here; set one with --pids or the container runtime", strings.TrimSpace(string(text)))
	}
	return n, nil
}

// pidsHierarchy is where version 1 counts processes.
const pidsHierarchy = "sys/fs/cgroup/pids"

// pidsVersion1 is our own cgroup there, if it is that version which counts.
func pidsVersion1(root string) (path string, found bool) {
	own, err := os.ReadFile(filepath.Join(root, "proc/self/cgroup"))
	if err != nil {
		return "", false
	}
	for line := range strings.Lines(string(own)) {
		_, rest, _ := strings.Cut(strings.TrimSpace(line), ":")
		controllers, path, _ := strings.Cut(rest, ":")
		if slices.Contains(strings.Split(controllers, ","), "pids") {
			return path, true
		}
	}
	return "", false
}

// LimitPIDs makes a cgroup that takes at most limit processes. Who writes 0 to procs
// joins it, with all it will start. It needs a writable cgroup file system, which few
// pods have; the error says what was missing. remove closes procs and removes the cgroup
// again, once its processes are gone.
//
// Source: Documentation/admin-guide/cgroup-v2.rst, "PID"; cgroup-v1/pids.rst.
func LimitPIDs(root, name string, limit int) (procs *os.File, remove func() error, err error) {
	base, err := pidsCgroup(root)
	if err != nil {
		return nil, nil, fmt.Errorf("limit the workload's processes: %w", err)
	}
	dir := filepath.Join(base, name)
	if err := os.Mkdir(dir, 0o755); err != nil {
		return nil, nil, fmt.Errorf("limit the workload's processes: %w", err)
	}
	err = os.WriteFile(filepath.Join(dir, "pids.max"), []byte(strconv.Itoa(limit)), 0)
	if err == nil {
		procs, err = os.OpenFile(filepath.Join(dir, "cgroup.procs"), os.O_WRONLY, 0)
	}
	if err != nil {
		return nil, nil, errors.Join(fmt.Errorf("limit the workload's processes: %w", err), unix.Rmdir(dir))
	}
	return procs, func() error { return errors.Join(procs.Close(), unix.Rmdir(dir)) }, nil
}

// pidsCgroup is the directory of our own cgroup in the hierarchy that counts
// processes, ready to have children.
func pidsCgroup(root string) (string, error) {
	if _, err := os.Stat(filepath.Join(root, "proc/self/cgroup")); err != nil {
		return "", err
	}
	if path, found := pidsVersion1(root); found {
		dir := filepath.Join(root, pidsHierarchy, path)
		if _, err := os.Stat(dir); errors.Is(err, os.ErrNotExist) {
			return filepath.Join(root, pidsHierarchy), nil // the container's part of it alone is mounted
		}
		return dir, nil
	}
	base := filepath.Join(root, "sys/fs/cgroup")
	if has, err := lists(filepath.Join(base, "cgroup.controllers"), "pids"); err != nil || !has {
		return "", errors.Join(errors.New("this cgroup has no pids controller"), err)
	}
	if has, err := lists(filepath.Join(base, "cgroup.subtree_control"), "pids"); has || err != nil {
		return base, err
	}
	return base, delegate(base)
}

// delegate lets a cgroup v2 have children that count processes: its own processes
// move to a child first, because only leaves may have any.
func delegate(base string) error {
	ours := filepath.Join(base, "splitpod-supervisor")
	if err := os.Mkdir(ours, 0o755); err != nil && !errors.Is(err, os.ErrExist) {
		return err
	}
	pids, err := os.ReadFile(filepath.Join(base, "cgroup.procs"))
	if err != nil {
		return err
	}
	for pid := range strings.Lines(string(pids)) {
		if err := os.WriteFile(filepath.Join(ours, "cgroup.procs"), []byte(pid), 0); err != nil {
			return err
		}
	}
	return os.WriteFile(filepath.Join(base, "cgroup.subtree_control"), []byte("+pids"), 0)
}

// lists reports whether a file has the word.
func lists(path, word string) (bool, error) {
	text, err := os.ReadFile(path)
	return slices.Contains(strings.Fields(string(text)), word), err
}
