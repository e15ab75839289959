package identity

import (
	"errors"
	"fmt"
	"strconv"
	"time"

	"golang.org/x/sys/unix"
)

// Limits of one pass. A workload that exceeds them is not identified. A descriptor that
// several threads share counts for each of them: it is looked at as often. So many take
// some two seconds, and nobody waits for an answer much longer.
const (
	maxProcesses   = 100_000
	maxDescriptors = 500_000
)

// pass is what one look at all processes of the workload found. Immutable.
type pass struct {
	started time.Time
	era     era              // before the last listing
	known   map[int]process  // every process, by pid
	inside  map[int]bool     // the pids of Config.Tree, when there is one
	holders map[uint64][]int // socket inode → pids that hold it
}

var (
	errTooMany  = errors.New("the workload has too many processes or descriptors to be searched")
	errRestless = errors.New("the workload starts processes faster than they can be searched")
)

// maxRounds bounds the listings of one pass.
const maxRounds = 32

// look makes a pass: it lists the processes again until none is new, so that what
// was inherited during the pass is seen too.
func (r *Resolver) look() (*pass, error) {
	p := &pass{started: time.Now(), known: make(map[int]process), holders: make(map[uint64][]int)}
	left := r.descriptors
	for range maxRounds {
		p.era = r.births.look()
		pids, err := r.fs.numbers(".", maxProcesses)
		if err != nil {
			return nil, err
		}
		fresh := 0
		for _, pid := range pids {
			if _, ok := p.known[pid]; ok || pid == 1 && r.tree == 0 {
				continue
			}
			there, err := r.lookAt(p, pid, &left)
			if err != nil {
				return nil, err
			}
			if there {
				fresh++
			}
		}
		if fresh == 0 {
			p.findInside(r.tree)
			return p, nil
		}
	}
	return nil, errRestless
}

// lookAt adds one process: first what it is, then what it holds, so that a
// descriptor it got before is never missed for the program it is now. Its descriptors are
// taken off what is left.
func (r *Resolver) lookAt(p *pass, pid int, left *int) (there bool, err error) {
	proc, err := r.fs.read(pid)
	if gone(err) {
		return false, nil
	}
	if r.foreign(err) {
		p.known[pid] = proc // a process of another user, which may only exist outside the tree
		return true, nil
	}
	if err != nil {
		return false, fmt.Errorf("look at pid %d: %w", pid, err)
	}
	p.known[pid] = proc
	folders := []string{strconv.Itoa(pid) + "/fd"}
	if proc.threads > 1 { // a thread may have a descriptor table of its own
		tasks, err := r.fs.numbers(strconv.Itoa(pid)+"/task", maxProcesses)
		if err != nil && !gone(err) {
			return false, err
		}
		for _, tid := range tasks {
			if tid != pid {
				folders = append(folders, fmt.Sprintf("%d/task/%d/fd", pid, tid))
			}
		}
	}
	for _, folder := range folders {
		err := r.fs.sockets(folder, left, func(inode uint64) {
			holders := p.holders[inode]
			if len(holders) == 0 || holders[len(holders)-1] != pid {
				p.holders[inode] = append(holders, pid)
			}
		})
		if err != nil && !gone(err) && !r.foreign(err) {
			return true, fmt.Errorf("look at the descriptors of pid %d: %w", pid, err)
		}
	}
	return true, nil
}

// foreign reports whether an error is about a process this daemon may not look at,
// where that is to be expected: outside a sandbox.
func (r *Resolver) foreign(err error) bool {
	return r.tree != 0 && (errors.Is(err, unix.EACCES) || errors.Is(err, unix.EPERM))
}

// findInside finds the tree's root and its descendants.
func (p *pass) findInside(tree int) {
	if tree == 0 {
		return
	}
	p.inside = make(map[int]bool)
	for pid := range p.known {
		for at, steps := pid, 0; at > 1 && steps < 1000; at, steps = p.known[at].parent, steps+1 {
			if at == tree {
				p.inside[pid] = true
				break
			}
		}
	}
}
