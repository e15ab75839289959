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

	"golang.org/x/sys/unix"

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
	root int // descriptor of cfg.Root
	diag diag
	tree int
	// descriptors is how many a pass looks at: maxDescriptors, but in tests.
	descriptors int

	births   births
	trust    trust
	commands commands
	last     atomic.Pointer[pass]
	looking  sync.Mutex // held during a pass
	recent   recent
}

// Open makes a Resolver.
func Open(cfg Config) (*Resolver, error) {
	r := &Resolver{cfg: cfg, tree: cfg.Tree, descriptors: maxDescriptors, trust: trust{hashing: make(chan struct{}, maxHashing)}, commands: newCommands()}
	var err error
	if r.diag.fd, err = number(cfg.Diag); err != nil {
		return nil, fmt.Errorf("identify: %w", err)
	}
	if r.fs.fd, err = number(cfg.Proc); err != nil {
		return nil, fmt.Errorf("identify: %w", err)
	}
	loadavg, err := unix.Openat(r.fs.fd, "loadavg", unix.O_RDONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, fmt.Errorf("identify: %w", &os.PathError{Op: "open", Path: "loadavg", Err: err})
	}
	r.births.loadavg = loadavg
	if r.root, err = number(cfg.Root); err != nil {
		return nil, fmt.Errorf("identify: %w", err)
	}
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
	s, err := r.diag.lookup(t)
	if err != nil {
		return failure(err)
	}
	for range attempts {
		if err = ctx.Err(); err != nil {
			break
		}
		var who core.Identity
		if who, err = r.owner(ctx, s.inode, asked); err == nil {
			who.UID = s.uid
			return who
		}
		if !errors.Is(err, errChanged) && !gone(err) {
			break
		}
		asked = time.Now()
	}
	return failure(err)
}

// End ends a connection of the workload at the workload's side, whatever state it is
// in. One that is gone already is no error.
func (r *Resolver) End(t core.Tuple) error {
	if err := r.diag.destroy(t); err != nil && !errors.Is(err, errNoSocket) {
		return fmt.Errorf("end %s: %w", t, err)
	}
	return nil
}

func failure(err error) core.Identity {
	status := core.IdentityFailed
	switch {
	case errors.Is(err, errNoSocket), errors.Is(err, errNoOwner):
		status = core.IdentityNotFound
	case errors.Is(err, errAmbiguous):
		status = core.IdentityAmbiguous
	case errors.Is(err, errProgramChanged), errors.Is(err, errDeleted), errors.Is(err, errElsewhere):
		status = core.IdentityChanged
	}
	return core.Identity{Status: status, Detail: err.Error()}
}

var (
	errNoOwner   = errors.New("no process of the workload holds the connection any more")
	errAmbiguous = errors.New("the connection is shared by different programs")
	errDeleted   = errors.New("the program's file was deleted or replaced while it runs, or its path is too long")
	errElsewhere = errors.New("the program is not the file at its path in the workload's file system")
	errOutside   = fmt.Errorf("%w, one of them outside the process tree", errAmbiguous)
)

// passLasts is for how long a pass says that nobody had a socket's inode. These are numbers
// of 32 bits, and come round after so many sockets and pipes of the node.
const passLasts = 10 * time.Second

// owner finds the one program behind a socket: by the last pass where that is sound,
// else by a pass that started after the question.
func (r *Resolver) owner(ctx context.Context, inode uint64, asked time.Time) (core.Identity, error) {
	if p := r.last.Load(); p != nil && asked.Sub(p.started) < passLasts && len(p.holders[inode]) == 0 {
		for _, c := range r.recent.all() {
			before, ok := p.known[c.pid]
			if !ok || !c.holds(r.fs, inode, asked, maxHeld) {
				continue
			}
			if who, sure, err := r.vouched(ctx, c, p, &before); sure {
				r.recent.add(c.pid)
				return who, err
			}
		}
	}
	p, err := r.passSince(asked)
	if err != nil {
		return core.Identity{}, err
	}
	return r.agreed(ctx, p, p.holders[inode])
}

// vouched describes a process that holds a socket, which others that are known do not, if it
// is what it was during the pass and nobody else can have the socket.
func (r *Resolver) vouched(ctx context.Context, c *connector, p *pass, before *process) (who core.Identity, sure bool, err error) {
	now := r.births.look()
	if l := c.unchanged(); l != nil {
		if l.were[0].sameProgram(before) && c.hasNoNewChild(r.fs, p, now) {
			who = l.who
			who.CommandPaths = r.commands.paths(r.fs, l.were, who)
			return who, true, nil
		}
		return core.Identity{}, false, nil
	}
	running, err := r.fs.read(c.pid)
	if err != nil || !running.sameProgram(before) || !c.hasNoNewChild(r.fs, p, now) {
		return core.Identity{}, false, nil
	}
	who, processes, err := r.describe(ctx, running)
	if err == nil && len(processes) == len(who.Ancestors)+1 && len(processes) <= maxLine {
		if l, err := r.fs.hold(processes, who); err == nil {
			c.keep(l)
		}
	}
	return who, true, err
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
		if r.tree != 0 && !p.inside[pid] {
			return core.Identity{}, errOutside
		}
		known := p.known[pid]
		who, _, err := r.describe(ctx, known)
		if err == nil {
			err = r.still(&known) // it was looked at when the pass came by
		}
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

// describe turns a process into an identity, and returns those it was made of: the process
// and its ancestors. Where a file had to be hashed for it, which takes a while, it checks that
// the process still is what it was.
func (r *Resolver) describe(ctx context.Context, p process) (who core.Identity, line []process, err error) {
	hashed := r.trust.hashed.Load()
	if p.deleted() {
		return core.Identity{}, nil, fmt.Errorf("%w: %s", errDeleted, p.exe)
	}
	if !r.atItsPath(&p) {
		return core.Identity{}, nil, fmt.Errorf("%w: %s", errElsewhere, p.exe)
	}
	sum, err := r.trust.check(ctx, r.fs, &p)
	if err != nil {
		return core.Identity{}, nil, err
	}
	who = core.Identity{
		Status: core.IdentityKnown, Process: core.ProcessRef{PID: p.pid, StartTime: p.start},
		Program: core.Program{Path: p.exe, SHA256: sum},
	}
	line, err = r.ancestors(ctx, &who, p)
	if err != nil {
		return core.Identity{}, nil, err
	}
	if r.trust.hashed.Load() != hashed {
		if err := r.still(&p); err != nil {
			return core.Identity{}, nil, err
		}
	}
	who.CommandPaths = r.commands.paths(r.fs, line, who)
	return who, line, nil
}

// still checks that a process runs what it ran.
func (r *Resolver) still(p *process) error {
	now, err := r.fs.read(p.pid)
	if err == nil && !now.sameProgram(p) {
		err = errChanged
	}
	return err
}

// ancestors adds the programs of the parents and returns the whole line, which begins with
// the process itself. A parent whose file is not at its path (any more) cannot grant anything
// and is left out of the programs.
func (r *Resolver) ancestors(ctx context.Context, who *core.Identity, p process) (line []process, err error) {
	line = append(line, p)
	for p.pid != r.tree && p.parent > 1 {
		if len(line) > core.MaxAncestors {
			return nil, fmt.Errorf("the process has more than %d ancestors", core.MaxAncestors)
		}
		parent, err := r.fs.read(p.parent)
		if gone(err) {
			return nil, errChanged // it has another parent now
		}
		if err != nil {
			return nil, err
		}
		if !r.fs.isParent(&parent, &p) {
			return nil, errChanged // it has another parent now, and that pid is another process's
		}
		line = append(line, parent)
		if !parent.deleted() && r.atItsPath(&parent) {
			sum, err := r.trust.check(ctx, r.fs, &parent)
			if err != nil {
				return nil, err
			}
			who.Ancestors = append(who.Ancestors, core.Program{Path: parent.exe, SHA256: sum})
		}
		p = parent
	}
	return line, nil
}
