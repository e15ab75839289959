package identity

import (
	"bytes"
	"hash/maphash"
	"path"
	"slices"
	"strconv"
	"sync"
	"time"
	"unicode/utf8"

	"github.com/splitpod/splitpod/pkg/core"
)

// Limits of what explains a denial.
const (
	maxCommandPaths = 16
	maxCommandLines = 4  // being read at a time
	maxExplained    = 64 // processes
	maxCommands     = 8  // of one line
	commandWait     = 20 * time.Millisecond
)

// commands reads argument vectors. These are in the processes' own memory, and a process
// can make its readers wait; so nobody waits for long, and only a few readers can be
// stuck at a time. What was read once explains the process while it and its ancestors run
// the same programs.
type commands struct {
	turns chan struct{} // of maxCommandLines places

	seed maphash.Seed

	mu   sync.Mutex
	read map[uint64][]string // guarded by mu; by who it is, at most maxExplained
}

func newCommands() commands {
	return commands{turns: make(chan struct{}, maxCommandLines), seed: maphash.MakeSeed(), read: make(map[uint64][]string)}
}

// paths collects the absolute paths among the arguments of a line of processes, without
// the programs of the identity itself. Without an answer in time there are none. They are
// not changed any more.
func (c *commands) paths(fs procfs, line []process, who core.Identity) []string {
	key := c.key(&who)
	c.mu.Lock()
	paths, ok := c.read[key]
	c.mu.Unlock()
	if ok {
		return paths
	}
	if paths, ok = c.ask(fs, line[:min(len(line), maxCommands)], who); !ok {
		return nil
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if len(c.read) >= maxExplained {
		clear(c.read)
	}
	c.read[key] = paths
	return paths
}

// key stands for a process with its program and those behind it.
func (c *commands) key(who *core.Identity) uint64 {
	var h maphash.Hash
	h.SetSeed(c.seed)
	maphash.WriteComparable(&h, who.Process)
	maphash.WriteComparable(&h, who.Program)
	for _, p := range who.Ancestors {
		maphash.WriteComparable(&h, p)
	}
	return h.Sum64()
}

func (c *commands) ask(fs procfs, line []process, who core.Identity) (paths []string, ok bool) {
	select {
	case c.turns <- struct{}{}:
	default:
		return nil, false
	}
	answer := make(chan []string, 1)
	go func() {
		defer func() { <-c.turns }()
		var all []string
		buf := make([]byte, cmdlineBytes)
		for _, p := range line {
			text, err := fs.file(strconv.Itoa(p.pid)+"/cmdline", buf)
			if err == nil {
				all = append(all, absolute(text)...)
			}
		}
		answer <- all
	}()
	timer := time.NewTimer(commandWait)
	defer timer.Stop()
	select {
	case all := <-answer:
		return others(all, who), true
	case <-timer.C:
		return nil, false
	}
}

// absolute lists the absolute paths among arguments.
func absolute(text []byte) (out []string) {
	for arg := range bytes.SplitSeq(text, []byte{0}) {
		if len(arg) > 1 && arg[0] == '/' && len(arg) <= core.MaxFieldBytes && utf8.Valid(arg) && path.Clean(string(arg)) == string(arg) {
			out = append(out, string(arg))
		}
	}
	return out
}

// others are the paths that are not programs of the identity already.
func others(paths []string, who core.Identity) (out []string) {
	for _, p := range paths {
		program := p == who.Program.Path || slices.ContainsFunc(who.Ancestors, func(a core.Program) bool { return a.Path == p })
		if !program && !slices.Contains(out, p) && len(out) < maxCommandPaths {
			out = append(out, p)
		}
	}
	return out
}
