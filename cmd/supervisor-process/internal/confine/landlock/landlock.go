// Package landlock limits which files a program may use, whatever its user may.
//
// It answers the threats of a program that reads or changes files nobody meant to
// give it, and of one that signals or speaks (over abstract sockets) with processes
// outside its own sandbox. It handles every file right and scope the kernel has; not
// the network, which the namespace and its fence decide about. It cannot take a
// subdirectory out of a directory that is allowed, and a descriptor that is open
// already is not judged again.
//
// Invariant: Apply restricts the calling thread completely or fails; it never
// applies an empty set of rules, which would forbid everything or nothing, and never
// follows a symbolic link to what it grants, outside /proc: another program of the
// sandbox could have put it there.
//
// Like every other step of confinement it is done to one thread, the one that executes
// the program. The library's own Restrict signals every thread of the process and waits
// for each, which those that are about to vanish are not worth.
//
// Sources: Documentation/userspace-api/landlock.rst, openat2(2).
package landlock

import (
	"errors"
	"fmt"
	"os"
	"strings"

	"github.com/landlock-lsm/go-landlock/landlock"
	ll "github.com/landlock-lsm/go-landlock/landlock/syscall"
	"golang.org/x/sys/unix"
)

// Rules are the paths a program may use, with everything below them. No symbolic link
// is on the way to one.
type Rules struct {
	ReadOnly  []string `json:"read_only"`
	ReadWrite []string `json:"read_write"`
	// Hard fails when anything cannot be enforced: a path, or a kernel older than
	// HardABI. Otherwise what is missing is reported.
	Hard bool `json:"hard"`
}

// HardABI is the least kernel support for Rules.Hard: file rights with truncation and
// device ioctls, and both scopes (Linux 6.12).
const HardABI = 6

// Unlimited is what a kernel of this ABI does not limit of what Rules.Hard demands, in the
// words of an operator; nil: it limits everything.
//
// Source: Documentation/userspace-api/landlock.rst, "Previous limitations".
func Unlimited(abi int) (out []string) {
	for _, limit := range []struct {
		since int
		what  string
	}{
		{1, "which files are used"},
		{3, "emptying files that are granted for reading"},
		{5, "ioctl requests to devices that are granted for reading"},
		{6, "signals and abstract sockets to other sessions and beyond"},
	} {
		if abi < limit.since {
			out = append(out, limit.what)
		}
	}
	return out
}

// Report is what was really applied.
type Report struct {
	ABI       int      `json:"abi"` // of the kernel; 0: no Landlock, and nothing was applied
	ReadOnly  int      `json:"read_only"`
	ReadWrite int      `json:"read_write"`
	Skipped   []string `json:"skipped,omitempty"` // paths with their reason, as many as fit maxSkipped
	Unnamed   int      `json:"unnamed,omitempty"` // more that were skipped
}

// maxSkipped bounds the text of Report.Skipped, in bytes.
const maxSkipped = 16 << 10

// Skip adds something that is not granted, and why.
func (r *Report) Skip(what string, why error) {
	text := fmt.Sprintf("%s: %v", what, why)
	used := len(text)
	for _, s := range r.Skipped {
		used += len(s)
	}
	if used > maxSkipped {
		r.Unnamed++
		return
	}
	r.Skipped = append(r.Skipped, text)
}

// ErrUnenforceable says that the policy asks for what cannot be had here.
var ErrUnenforceable = errors.New("the policy cannot be enforced")

// configs are the library's, by ABI.
var configs = []landlock.Config{
	{}, landlock.V1, landlock.V2, landlock.V3, landlock.V4, landlock.V5, landlock.V6, landlock.V7, landlock.V8, landlock.V9, landlock.V10, landlock.V11,
}

// Rights of a path that is no directory.
const (
	fileRead  = ll.AccessFSExecute | ll.AccessFSReadFile
	fileWrite = fileRead | ll.AccessFSWriteFile | ll.AccessFSTruncate | ll.AccessFSIoctlDev | ll.AccessFSResolveUnix
	dirRead   = fileRead | ll.AccessFSReadDir
)

// Version is the kernel's Landlock ABI; 0: it has none, or does not let us use it.
func Version() int {
	v, err := ll.LandlockGetABIVersion()
	if err != nil {
		return 0
	}
	return v
}

// Apply restricts the calling thread, which must be locked to its goroutine and have
// no_new_privs, and what it executes.
func Apply(r Rules) (Report, error) {
	abi := min(Version(), len(configs)-1)
	switch {
	case r.Hard && abi < HardABI:
		return Report{ABI: abi}, fmt.Errorf("%w: landlock.compatibility: hard_requirement needs ABI %d of the kernel, which has %d; upgrade it, or use best_effort", ErrUnenforceable, HardABI, abi)
	case abi == 0:
		return Report{}, nil
	}
	report, rules, done, err := collect(r, abi)
	defer done()
	if err != nil {
		return report, err
	}
	if len(rules) == 0 {
		return report, fmt.Errorf("%w: filesystem_policy: none of its paths can be used, so that nothing could be allowed", ErrUnenforceable)
	}
	if err := restrict(configs[abi], rules); err != nil {
		return report, fmt.Errorf("landlock: %w", err)
	}
	return report, nil
}

// rule is a file or directory and the rights at it and below.
type rule struct {
	at     *os.File
	rights landlock.AccessFSSet
}

// restrict applies rules to the calling thread; what they do not name is forbidden.
func restrict(config landlock.Config, rules []rule) error {
	set, err := ll.LandlockCreateRuleset(&ll.RulesetAttr{HandledAccessFS: uint64(config.HandledAccessFS), Scoped: uint64(config.Scoped)}, 0)
	if err != nil {
		return os.NewSyscallError("landlock_create_ruleset", err)
	}
	defer unix.Close(set)
	for _, r := range rules {
		beneath := ll.PathBeneathAttr{AllowedAccess: uint64(r.rights & config.HandledAccessFS), ParentFd: int(r.at.Fd())}
		if err := ll.LandlockAddPathBeneathRule(set, &beneath, 0); err != nil {
			return fmt.Errorf("%s: %w", r.at.Name(), os.NewSyscallError("landlock_add_rule", err))
		}
	}
	return os.NewSyscallError("landlock_restrict_self", ll.LandlockRestrictSelf(set, 0))
}

// collect turns paths into rules, which hold until done is called. A path that cannot be
// opened by the program's own user is no use to it.
func collect(r Rules, abi int) (report Report, rules []rule, done func(), err error) {
	report = Report{ABI: abi}
	done = func() {
		for _, r := range rules {
			r.at.Close()
		}
	}
	add := func(field, path string, dir, file landlock.AccessFSSet, count *int) error {
		f, mode, err := open(path)
		if err != nil && r.Hard {
			return fmt.Errorf("%w: filesystem_policy.%s: %s cannot be used: %w", ErrUnenforceable, field, path, err)
		}
		if err != nil {
			report.Skip(path, err)
			return nil
		}
		rights := file
		if mode == unix.S_IFDIR {
			rights = dir
		}
		*count++
		rules = append(rules, rule{f, rights}) // what was opened, whatever is at the path by now
		return nil
	}
	for _, p := range r.ReadOnly {
		if err := add("read_only", p, dirRead, fileRead, &report.ReadOnly); err != nil {
			return report, rules, done, err
		}
	}
	for _, p := range r.ReadWrite {
		if err := add("read_write", p, configs[abi].HandledAccessFS, fileWrite, &report.ReadWrite); err != nil {
			return report, rules, done, err
		}
	}
	return report, rules, done, nil
}

// errLink is a symbolic link that the policy's path did not have when it was looked at.
var errLink = errors.New("a symbolic link is in its place or above it, which was not there when the sandbox was built, or is of the workload's user; name where it leads")

// open opens a path and returns what it is. The kernel's own links below /proc, which
// lead every program somewhere else, are followed.
func open(path string) (*os.File, uint32, error) {
	how := unix.OpenHow{Flags: unix.O_PATH | unix.O_CLOEXEC, Resolve: unix.RESOLVE_NO_SYMLINKS}
	if strings.HasPrefix(path, "/proc/") {
		how.Resolve = 0
	}
	fd, err := unix.Openat2(unix.AT_FDCWD, path, &how)
	if errors.Is(err, unix.ELOOP) {
		return nil, 0, errLink
	}
	if err != nil {
		return nil, 0, err
	}
	f := os.NewFile(uintptr(fd), path)
	var st unix.Stat_t
	if err := unix.Fstat(fd, &st); err != nil {
		f.Close()
		return nil, 0, err
	}
	return f, st.Mode & unix.S_IFMT, nil
}
