package prepare

import (
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
)

// PIDLimit is how many processes the container's cgroup may have (cgroup v2
// pids.max below root), or why there is no limit.
func PIDLimit(root string) (int, error) {
	text, err := os.ReadFile(filepath.Join(root, "sys/fs/cgroup/pids.max"))
	if err != nil {
		return 0, fmt.Errorf("the container's limit of processes cannot be read: %w", err)
	}
	n, err := strconv.Atoi(strings.TrimSpace(string(text)))
	if err != nil || n <= 0 {
		return 0, fmt.Errorf("the container has no limit of processes (pids.max is %q); set one for the pod", strings.TrimSpace(string(text)))
	}
	return n, nil
}
