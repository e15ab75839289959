package identity

import (
	"errors"
	"fmt"
	"strconv"
	"time"
)

// Limits of one pass. A workload that exceeds them is not identified.
const (
	maxProcesses = 100_000
	maxSockets   = 1_000_000
)

// pass is what one look at all processes of the workload found. Immutable.
type pass struct {
	started time.Time
	known   map[int]process  // every process, by pid
	holders map[uint64][]int // socket inode → pids that hold it
}

var errTooMany = errors.New("the workload has too many processes or sockets to be searched")

// look makes a pass.
func (r *Resolver) look() (*pass, error) {
	p := &pass{started: time.Now(), known: make(map[int]process), holders: make(map[uint64][]int)}
	pids, err := r.members()
	if err != nil {
		return nil, err
	}
	if len(pids) > maxProcesses {
		return nil, errTooMany
	}
	total := 0
	for _, pid := range pids {
		n, err := r.lookAt(p, pid)
		if err != nil {
			return nil, err
		}
		if total += n; total > maxSockets {
			return nil, errTooMany
		}
	}
	return p, nil
}

// lookAt adds one process: first what it is, then what it holds, so that a
// descriptor it got before is never missed for the program it is now.
func (r *Resolver) lookAt(p *pass, pid int) (sockets int, err error) {
	proc, err := r.fs.read(pid)
	if gone(err) {
		return 0, nil
	}
	if err != nil {
		return 0, fmt.Errorf("look at pid %d: %w", pid, err)
	}
	p.known[pid] = proc
	folders := []string{strconv.Itoa(pid) + "/fd"}
	if proc.threads > 1 { // a thread may have a descriptor table of its own
		tasks, err := r.fs.numbers(strconv.Itoa(pid) + "/task")
		if err != nil && !gone(err) {
			return 0, err
		}
		for _, tid := range tasks {
			if tid != pid {
				folders = append(folders, fmt.Sprintf("%d/task/%d/fd", pid, tid))
			}
		}
	}
	for _, folder := range folders {
		err := r.fs.sockets(folder, func(inode uint64) bool {
			holders := p.holders[inode]
			if len(holders) == 0 || holders[len(holders)-1] != pid {
				p.holders[inode] = append(holders, pid)
			}
			sockets++
			return true
		})
		if err != nil && !gone(err) {
			return sockets, fmt.Errorf("look at the descriptors of pid %d: %w", pid, err)
		}
	}
	return sockets, nil
}

// members lists the pids that count: all of the workload's pid namespace but its
// init, or the tree below Config.Tree.
func (r *Resolver) members() ([]int, error) {
	pids, err := r.fs.numbers(".")
	if err != nil {
		return nil, err
	}
	if r.tree == 0 {
		out := pids[:0]
		for _, pid := range pids {
			if pid != 1 {
				out = append(out, pid)
			}
		}
		return out, nil
	}
	return r.below(pids), nil
}

// below keeps the tree's root and its descendants.
func (r *Resolver) below(pids []int) []int {
	parent := make(map[int]int, len(pids))
	for _, pid := range pids {
		if stat, err := r.fs.file(pid, "stat", statBytes); err == nil {
			p := process{pid: pid}
			if p.parseStat(stat) == nil {
				parent[pid] = p.parent
			}
		}
	}
	var out []int
	for _, pid := range pids {
		for at, steps := pid, 0; at > 1 && steps < 1000; at, steps = parent[at], steps+1 {
			if at == r.tree {
				out = append(out, pid)
				break
			}
		}
	}
	return out
}
