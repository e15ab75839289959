package app

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"time"

	"golang.org/x/sys/unix"

	"github.com/splitpod/splitpod/cmd/supervisor-network/internal/observe"
)

// leastRoom is what the state directory needs to have left: a file in it is replaced as a
// whole, so that there has to be room for it twice.
const leastRoom = 1 << 20

// stateRoom watches how much room the state directory has. Without any the daemon decides
// as before: the policy, the CA and what was approved are in memory. What is new is not
// kept, neither proposals nor decisions about them, and each of them says so by itself.
type stateRoom struct {
	free func() (uint64, error) // bytes
}

// roomOf also sees that a directory is not any more what it was: the ledger in it, which
// this daemon has open, is gone or another.
func roomOf(dir string) stateRoom {
	ledger := filepath.Join(dir, inboxFile)
	was, _ := os.Lstat(ledger) // without one there is nothing to compare
	return stateRoom{free: func() (uint64, error) {
		var st unix.Statfs_t
		if err := unix.Statfs(dir, &st); err != nil {
			return 0, fmt.Errorf("the state directory: statfs %s: %w", dir, err)
		}
		if st.Flags&unix.ST_RDONLY != 0 {
			return 0, fmt.Errorf("the state directory %s is read-only: proposals and decisions are not kept", dir)
		}
		if is, err := os.Lstat(ledger); was != nil && (err != nil || !os.SameFile(was, is)) {
			return 0, fmt.Errorf("the state directory %s was emptied or replaced: put it back; a restart without it makes another CA, which workloads that run do not trust, and has no approved rules", dir)
		}
		if st.Files > 0 && st.Ffree == 0 {
			return 0, nil // no room for another file
		}
		return st.Bavail * uint64(st.Bsize), nil
	}}
}

// enough is nil when a file of state can be replaced.
func (r stateRoom) enough() (free uint64, err error) {
	free, err = r.free()
	if err == nil && free < leastRoom {
		err = errors.New("the state directory is full: proposals and decisions are not kept")
	}
	return free, err
}

// check is a condition of readiness: it stops nothing that runs.
func (r stateRoom) check() observe.Check {
	free, err := r.enough()
	detail := fmt.Sprintf("%d KiB free", free>>10)
	if err != nil {
		detail += "; " + err.Error()
	}
	return observe.Check{Name: "state", OK: err == nil, Detail: detail}
}

// watch says in the log when the room is gone and when it is there again, until ctx ends.
func (r stateRoom) watch(ctx context.Context, log *slog.Logger) {
	tick := time.NewTicker(2 * time.Second)
	defer tick.Stop()
	full := false
	for {
		free, err := r.enough()
		switch {
		case err != nil && !full:
			log.Error("no room for state", slog.Any("error", err), slog.Uint64("free_bytes", free))
		case err == nil && full:
			log.Info("there is room for state again", slog.Uint64("free_bytes", free))
		}
		full = err != nil
		select {
		case <-tick.C:
		case <-ctx.Done():
			return
		}
	}
}
