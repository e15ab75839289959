package identity

import (
	"bytes"
	"path"
	"slices"
	"time"
	"unicode/utf8"

	"github.com/splitpod/splitpod/pkg/core"
)

// Limits of what explains a denial.
const (
	maxCommandPaths = 16
	maxCommandLines = 4 // being read at a time
	commandWait     = 20 * time.Millisecond
)

// commands reads argument vectors. These are in the processes' own memory, and a process
// can make its readers wait; so nobody waits for long, and only a few readers can be
// stuck at a time.
type commands chan struct{}

// paths collects the absolute paths among the arguments of the processes, without
// the programs of the identity itself. Without an answer in time there are none.
func (c commands) paths(fs procfs, pids []int, who core.Identity) []string {
	select {
	case c <- struct{}{}:
	default:
		return nil
	}
	answer := make(chan []string, 1)
	go func() {
		defer func() { <-c }()
		var all []string
		buf := make([]byte, cmdlineBytes)
		for _, pid := range pids {
			text, err := fs.file(pid, "cmdline", buf)
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
		return others(all, who)
	case <-timer.C:
		return nil
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
