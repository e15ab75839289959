package identity

import (
	"context"
	"errors"
	"fmt"
	"os"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/splitpod/splitpod/pkg/core"
)

// Config says where to look. The files stay the caller's and must stay open.
type Config struct {
	Diag *os.File // of OpenDiag, opened in the workload's network namespace
	Proc *os.File // a proc(5) mount
	Root *os.File // the workload's root directory
	// Tree, if not 0, is the pid whose tree counts, in a proc mount that shows others
	// too. Otherwise everything below Proc counts but pid 1.
	Tree int
}

// Resolver answers who owns a connection. Make it with Open. Safe for concurrent
// use.
type Resolver struct {
	cfg  Config
	fs   procfs
	diag diag
	tree int

	trust   trust
	last    atomic.Pointer[pass]
	looking sync.Mutex // held during a pass
	recent  recent
}

// Open makes a Resolver.
func Open(cfg Config) (*Resolver, error) {
	r := &Resolver{cfg: cfg, tree: cfg.Tree}
	var err error
	if r.diag.fd, err = number(cfg.Diag); err != nil {
		return nil, fmt.Errorf("identify: %w", err)
	}
	if r.fs.fd, err = number(cfg.Proc); err != nil {
		return nil, fmt.Errorf("identify: %w", err)
	}
	r.diag.buf = make([]byte, 8192)
	return r, nil
}

// number reads a descriptor's number without changing its mode.
func number(f *os.File) (fd int, err error) {
	raw, err := f.SyscallConn()
	if err != nil {
		return 0, err
	}
	err = raw.Control(func(n uintptr) { fd = int(n) })
	return fd, err
}

// attempts bounds how often a process that changes while it is looked at is looked
// at again.
const attempts = 4

// Identify says who owns the client's end of a connection. It never fails: what
// cannot be said is a status that denies.
func (r *Resolver) Identify(ctx context.Context, t core.Tuple) core.Identity {
	asked := time.Now()
	inode, err := r.diag.lookup(t)
	if err != nil {
		return failure(err)
	}
	for range attempts {
		if err = ctx.Err(); err != nil {
			break
		}
		var who core.Identity
		if who, err = r.owner(ctx, inode, asked); err == nil {
			return who
		}
		if !errors.Is(err, errChanged) && !gone(err) {
			break
		}
		asked = time.Now()
	}
	return failure(err)
}

func failure(err error) core.Identity {
	status := core.IdentityFailed
	switch {
	case errors.Is(err, errNoSocket), errors.Is(err, errNoOwner):
		status = core.IdentityNotFound
	case errors.Is(err, errAmbiguous):
		status = core.IdentityAmbiguous
	case errors.Is(err, errProgramChanged), errors.Is(err, errDeleted):
		status = core.IdentityChanged
	}
	return core.Identity{Status: status, Detail: err.Error()}
}

var (
	errNoOwner   = errors.New("no process of the workload holds the connection any more")
	errAmbiguous = errors.New("the connection is shared by different programs")
	errDeleted   = errors.New("the program's file was deleted or replaced while it runs")
)

// owner finds the one program behind a socket: by the last pass where that is sound,
// else by a pass that started after the question.
func (r *Resolver) owner(ctx context.Context, inode uint64, asked time.Time) (core.Identity, error) {
	if p := r.last.Load(); p != nil && len(p.holders[inode]) == 0 {
		for _, pid := range r.recent.list() {
			before, ok := p.known[pid]
			if !ok || !r.fs.holds(pid, inode) {
				continue
			}
			now, err := r.fs.read(pid)
			if err == nil && now.sameProgram(&before) {
				return r.describe(ctx, now)
			}
		}
	}
	p, err := r.passSince(asked)
	if err != nil {
		return core.Identity{}, err
	}
	return r.agreed(ctx, p, p.holders[inode])
}

// passSince returns a pass that started after asked; those who wait share one.
func (r *Resolver) passSince(asked time.Time) (*pass, error) {
	r.looking.Lock()
	defer r.looking.Unlock()
	if p := r.last.Load(); p != nil && p.started.After(asked) {
		return p, nil
	}
	p, err := r.look()
	if err != nil {
		return nil, err
	}
	r.last.Store(p)
	return p, nil
}

// agreed describes the owners of a socket if they are the same program with the same
// programs behind it.
func (r *Resolver) agreed(ctx context.Context, p *pass, pids []int) (core.Identity, error) {
	if len(pids) == 0 {
		return core.Identity{}, errNoOwner
	}
	var first core.Identity
	for i, pid := range pids {
		who, err := r.describe(ctx, p.known[pid])
		if err != nil {
			return core.Identity{}, err
		}
		if i == 0 {
			first = who
			r.recent.add(pid)
			continue
		}
		if !samePrograms(first, who) {
			return core.Identity{}, fmt.Errorf("%w: %s (pid %d) and %s (pid %d)", errAmbiguous,
				first.Program.Path, first.Process.PID, who.Program.Path, who.Process.PID)
		}
	}
	return first, nil
}

// samePrograms compares what a policy can see: the program, and the set of programs
// that are it or its ancestors.
func samePrograms(a, b core.Identity) bool {
	if a.Program != b.Program {
		return false
	}
	set := func(who core.Identity) []string {
		out := []string{who.Program.Path}
		for _, p := range who.Ancestors {
			out = append(out, p.Path)
		}
		slices.Sort(out)
		return slices.Compact(out)
	}
	return slices.Equal(set(a), set(b))
}

// describe turns a process into an identity, and checks that it still is what it was
// when that is done.
func (r *Resolver) describe(ctx context.Context, p process) (core.Identity, error) {
	if p.deleted() {
		return core.Identity{}, fmt.Errorf("%w: %s", errDeleted, p.exe)
	}
	sum, err := r.trust.check(ctx, r.fs, &p)
	if err != nil {
		return core.Identity{}, err
	}
	who := core.Identity{
		Status: core.IdentityKnown, Process: core.ProcessRef{PID: p.pid, StartTime: p.start},
		Program: core.Program{Path: p.exe, SHA256: sum}, CommandPaths: r.fs.commandPaths(p.pid),
	}
	if who.UID, err = r.fs.owner(p.pid); err != nil {
		return core.Identity{}, err
	}
	if err := r.ancestors(ctx, &who, p); err != nil {
		return core.Identity{}, err
	}
	now, err := r.fs.read(p.pid)
	if err != nil {
		return core.Identity{}, err
	}
	if !now.sameProgram(&p) {
		return core.Identity{}, errChanged
	}
	who.CommandPaths = r.others(who)
	return who, nil
}

// ancestors adds the programs of the parents. One whose file was deleted, or that is
// gone already, cannot grant anything and is left out.
func (r *Resolver) ancestors(ctx context.Context, who *core.Identity, p process) error {
	for steps := 0; p.pid != r.tree && p.parent > 1; steps++ {
		if steps >= core.MaxAncestors {
			return fmt.Errorf("the process has more than %d ancestors", core.MaxAncestors)
		}
		parent, err := r.fs.read(p.parent)
		if gone(err) {
			return errChanged // it has another parent now
		}
		if err != nil {
			return err
		}
		if !parent.deleted() {
			sum, err := r.trust.check(ctx, r.fs, &parent)
			if err != nil {
				return err
			}
			who.Ancestors = append(who.Ancestors, core.Program{Path: parent.exe, SHA256: sum})
			if steps < 8 {
				who.CommandPaths = append(who.CommandPaths, r.fs.commandPaths(parent.pid)...)
			}
		}
		p = parent
	}
	return nil
}

// maxCommandPaths bounds what explains a denial.
const maxCommandPaths = 16

// others are the command-line paths that are not programs of the identity already.
func (r *Resolver) others(who core.Identity) []string {
	var out []string
	for _, path := range who.CommandPaths {
		program := path == who.Program.Path || slices.ContainsFunc(who.Ancestors, func(a core.Program) bool { return a.Path == path })
		if !program && !slices.Contains(out, path) && len(out) < maxCommandPaths {
			out = append(out, path)
		}
	}
	return out
}

// recent are the pids that connected last, newest first.
type recent struct {
	mu   sync.Mutex
	pids []int // guarded by mu; replaced, never changed
}

// maxRecent bounds how many processes are tried before a pass.
const maxRecent = 16

func (l *recent) list() []int {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.pids
}

func (l *recent) add(pid int) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if len(l.pids) > 0 && l.pids[0] == pid {
		return
	}
	next := []int{pid}
	for _, old := range l.pids {
		if old != pid && len(next) < maxRecent {
			next = append(next, old)
		}
	}
	l.pids = next
}
