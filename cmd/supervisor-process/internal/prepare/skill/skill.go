// Package skill holds the guide that agents in the sandbox are given when they may
// propose changes of the policy, and makes it appear where agents look for it.
//
// It answers the threat of an agent that, refused and told nothing, tries every other
// way. It does not answer who decides about a proposal, and grants nothing.
//
// Invariant: nothing that the image brought is overwritten or followed. The guide
// itself lies in the run directory's cover, which the workload cannot change; the
// image's file system gets at most a link to it.
package skill

import (
	_ "embed" // the guide
	"errors"
	"fmt"
	"os"
	"path"
	"strings"

	"golang.org/x/sys/unix"
)

// Guide is where the guide lies below the run directory, as agents lay out skills.
const Guide = "skills/policy-advisor/SKILL.md"

// Known is where the network daemon's refusals send agents.
const Known = "/etc/openshell/skills/policy_advisor.md"

//go:embed policy_advisor.md
var text string

// Text is the guide, Markdown.
func Text() string { return text }

// errLink is a symbolic link or a file where a directory is expected.
var errLink = errors.New("the image has something else there")

// Link makes Known below root lead to target, unless the image has something there
// already. It makes directories that are missing, and follows no link.
func Link(root, target string) error {
	dir, name := path.Split(strings.Trim(Known, "/"))
	at, err := unix.Open(root, unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return &os.PathError{Op: "open", Path: root, Err: err}
	}
	defer func() { unix.Close(at) }()
	for part := range strings.SplitSeq(strings.Trim(dir, "/"), "/") {
		next, err := enter(at, part)
		if err != nil {
			return fmt.Errorf("link %s: %s: %w", Known, part, err)
		}
		unix.Close(at)
		at = next
	}
	if err := unix.Symlinkat(target, at, name); err != nil && !errors.Is(err, unix.EEXIST) {
		return fmt.Errorf("link %s: %w", Known, os.NewSyscallError("symlinkat", err))
	}
	return nil
}

// enter opens a directory, which it makes if nothing is there.
func enter(at int, name string) (int, error) {
	if err := unix.Mkdirat(at, name, 0o755); err != nil && !errors.Is(err, unix.EEXIST) {
		return -1, os.NewSyscallError("mkdirat", err)
	}
	fd, err := unix.Openat2(at, name, &unix.OpenHow{
		Flags: unix.O_RDONLY | unix.O_DIRECTORY | unix.O_CLOEXEC, Resolve: unix.RESOLVE_NO_SYMLINKS | unix.RESOLVE_BENEATH,
	})
	if errors.Is(err, unix.ELOOP) || errors.Is(err, unix.ENOTDIR) {
		return -1, errLink
	}
	return fd, os.NewSyscallError("openat2", err)
}
