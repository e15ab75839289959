package confine

import (
	"errors"
	"fmt"
	"os"
	"slices"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/splitpod/splitpod/cmd/supervisor-process/internal/confine/landlock"
	"github.com/splitpod/splitpod/cmd/supervisor-process/internal/confine/seccomp"
)

// Plan is as whom and where a program runs. The zero Plan is refused.
type Plan struct {
	UID, GID uint32
	Groups   []uint32 // supplementary groups, exactly; may be empty
	Dir      string   // working directory, absolute
	Files    landlock.Rules
	// Workspace says that Dir is where the program is meant to write: if it cannot, that
	// is reported, or refused where Files.Hard is set.
	Workspace bool
	// Told says that what this thread was started by has the daemon told of refused calls
	// (seccomp.Tell).
	Told bool
}

// Step is one step of confinement and why it stands where it stands.
type Step struct {
	Name   string
	Reason string
	do     func(*work) error
}

// work is a Plan being applied.
type work struct {
	Plan
	files landlock.Report
}

// Steps is the order. The session (setsid) is made by the fork before it, so that
// no terminal of the supervisor is left.
var Steps = []Step{
	{"descriptors", "first, so that whatever fails later leaks nothing into an executed program", closeDescriptors},
	{"umask", "before anything could create a file", setUmask},
	{"rlimits", "while the hard limits may still be set; no core dumps, because they hold memory", setLimits},
	{"bounding set", "needs CAP_SETPCAP, which the next steps take away; an empty set makes file capabilities worthless", dropBounding},
	{"securebits", "needs CAP_SETPCAP; uid 0 means nothing any more, for this process and all its children", lockSecurebits},
	{"groups", "needs CAP_SETGID, which changing the uid takes away", setGroups},
	{"gid", "needs CAP_SETGID too, and comes before the uid for the same reason", setGID},
	{"uid", "after everything that needs an id change; drops the remaining capabilities of a root process", setUID},
	{"capabilities", "whatever the change of uid left: permitted, effective, inheritable and ambient", clearCapabilities},
	{"no_new_privs", "after the last privileged step; set-user-id programs gain nothing from here on", setNoNewPrivs},
	{"working directory", "as the final identity, so that the supervisor's rights open no directory", changeDir},
	{"landlock", "as the final identity, so that what the user cannot open is not opened for it; needs no_new_privs", restrictFiles},
	{"workspace", "as the final identity and under Landlock, which together say who may write", checkWorkspace},
	{"signals", "a blocked or ignored signal would be inherited", resetSignals},
	{"seccomp", "after everything that needs a call the program may not make; needs no_new_privs", filterCalls},
	{"verification", "last: what the kernel says, not what the calls returned", verify},
}

// StepError says which step failed.
type StepError struct {
	Step string
	Err  error
}

// Error implements error.
func (e *StepError) Error() string { return fmt.Sprintf("confine: %s: %v", e.Step, e.Err) }

// Unwrap implements errors.Unwrap.
func (e *StepError) Unwrap() error { return e.Err }

// Applied is the proof that a Plan was applied to the calling thread. Only Apply
// makes one that is valid.
type Applied struct {
	Files landlock.Report // which files it may use
	ok    bool
}

// Valid reports whether Apply made it.
func (a Applied) Valid() bool { return a.ok }

// Apply confines the calling thread, which must be locked to its goroutine. It
// cannot be undone. On error the thread is in between and must end.
func Apply(p Plan) (Applied, error) {
	if p.UID == 0 || p.GID == 0 || p.UID == ^uint32(0) || p.GID == ^uint32(0) || slices.Contains(p.Groups, 0) || !strings.HasPrefix(p.Dir, "/") {
		return Applied{}, &StepError{"plan", errors.New("uid, gid and groups are neither 0 nor 4294967295, and the directory is absolute")}
	}
	w := work{Plan: p}
	for _, s := range Steps {
		if err := s.do(&w); err != nil {
			return Applied{}, &StepError{s.Name, err}
		}
	}
	return Applied{Files: w.files, ok: true}, nil
}

func closeDescriptors(*work) error {
	return os.NewSyscallError("close_range(CLOEXEC)", unix.CloseRange(3, ^uint(0), unix.CLOSE_RANGE_CLOEXEC))
}

func setUmask(*work) error {
	unix.Umask(0o022)
	return nil
}

func setLimits(*work) error {
	return os.NewSyscallError("setrlimit(CORE)", unix.Setrlimit(unix.RLIMIT_CORE, &unix.Rlimit{}))
}

func dropBounding(*work) error {
	last, err := lastCapability()
	if err != nil {
		return err
	}
	for c := 0; c <= last; c++ {
		if err := unix.Prctl(unix.PR_CAPBSET_DROP, uintptr(c), 0, 0, 0); err != nil {
			return os.NewSyscallError(fmt.Sprintf("prctl(PR_CAPBSET_DROP, %d)", c), err)
		}
	}
	return nil
}

// lastCapability asks the kernel instead of /proc, which may not be there.
func lastCapability() (int, error) {
	for c := range 64 {
		if _, err := unix.PrctlRetInt(unix.PR_CAPBSET_READ, uintptr(c), 0, 0, 0); err != nil {
			if c == 0 {
				return 0, os.NewSyscallError("prctl(PR_CAPBSET_READ)", err)
			}
			return c - 1, nil
		}
	}
	return 63, nil
}

// Securebits of capabilities(7).
const securebits = 1<<0 | 1<<1 | // SECBIT_NOROOT and its lock
	1<<5 | // SECBIT_KEEP_CAPS_LOCKED
	1<<6 | 1<<7 // SECBIT_NO_CAP_AMBIENT_RAISE and its lock

func lockSecurebits(*work) error {
	return os.NewSyscallError("prctl(PR_SET_SECUREBITS)", unix.Prctl(unix.PR_SET_SECUREBITS, securebits, 0, 0, 0))
}

// The raw system calls act on this thread; those of package syscall would act on
// every thread of the process, which is about to be replaced anyway.

func setGroups(p *work) error {
	groups := p.Groups
	if len(groups) > 65536 {
		return errors.New("too many groups")
	}
	return os.NewSyscallError("setgroups", rawSetgroups(groups))
}

func setGID(p *work) error {
	_, _, errno := unix.RawSyscall(unix.SYS_SETRESGID, uintptr(p.GID), uintptr(p.GID), uintptr(p.GID))
	return syscallError("setresgid", errno)
}

func setUID(p *work) error {
	_, _, errno := unix.RawSyscall(unix.SYS_SETRESUID, uintptr(p.UID), uintptr(p.UID), uintptr(p.UID))
	return syscallError("setresuid", errno)
}

func syscallError(name string, errno unix.Errno) error {
	if errno == 0 {
		return nil
	}
	return os.NewSyscallError(name, errno)
}

func clearCapabilities(*work) error {
	hdr := unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}
	var data [2]unix.CapUserData
	if err := unix.Capset(&hdr, &data[0]); err != nil {
		return os.NewSyscallError("capset", err)
	}
	return os.NewSyscallError("prctl(PR_CAP_AMBIENT_CLEAR_ALL)", unix.Prctl(unix.PR_CAP_AMBIENT, unix.PR_CAP_AMBIENT_CLEAR_ALL, 0, 0, 0))
}

func setNoNewPrivs(*work) error {
	return os.NewSyscallError("prctl(PR_SET_NO_NEW_PRIVS)", unix.Prctl(unix.PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0))
}

func changeDir(p *work) error {
	if err := unix.Chdir(p.Dir); err != nil {
		return fmt.Errorf("%w: --workdir %s as uid %d: %w", ErrConfiguration, p.Dir, p.UID, os.NewSyscallError("chdir", err))
	}
	return nil
}

// ErrConfiguration says that somebody asked for what this image cannot give.
var ErrConfiguration = errors.New("the configuration does not fit the image")

// IsConfiguration reports whether an error of Apply is a mistake in the configuration
// or the policy, and none of this machine.
func IsConfiguration(err error) bool {
	return errors.Is(err, ErrConfiguration) || errors.Is(err, landlock.ErrUnenforceable)
}

func restrictFiles(p *work) (err error) {
	p.files, err = landlock.Apply(p.Plan.Files)
	return err
}

func filterCalls(p *work) error { return seccomp.Apply(p.Told) }

// verify reads back what the steps promised.
func verify(p *work) error {
	var r, e, s int
	if r, e, s = unix.Getresuid(); !all(p.UID, r, e, s) {
		return fmt.Errorf("uids are %d %d %d, want %d", r, e, s, p.UID)
	}
	if r, e, s = unix.Getresgid(); !all(p.GID, r, e, s) {
		return fmt.Errorf("gids are %d %d %d, want %d", r, e, s, p.GID)
	}
	groups, err := unix.Getgroups()
	if err != nil {
		return os.NewSyscallError("getgroups", err)
	}
	want := slices.Sorted(slices.Values(p.Groups))
	if got := slices.Sorted(slices.Values(groups)); !slices.EqualFunc(got, want, func(g int, w uint32) bool { return g == int(w) }) {
		return fmt.Errorf("groups are %v, want %v", got, want)
	}
	if v, err := unix.PrctlRetInt(unix.PR_GET_NO_NEW_PRIVS, 0, 0, 0, 0); err != nil || v != 1 {
		return fmt.Errorf("no_new_privs is %d (%v), want 1", v, err)
	}
	if v, err := unix.PrctlRetInt(unix.PR_GET_SECCOMP, 0, 0, 0, 0); err != nil || v != unix.SECCOMP_MODE_FILTER {
		return fmt.Errorf("the seccomp mode is %d (%v), want %d", v, err, unix.SECCOMP_MODE_FILTER)
	}
	if _, _, errno := unix.RawSyscall(unix.SYS_SETRESUID, 0, 0, 0); errno == 0 {
		return errors.New("uid 0 can be taken again")
	}
	return verifyCapabilities()
}

func all(want uint32, got ...int) bool {
	return !slices.ContainsFunc(got, func(g int) bool { return uint32(g) != want })
}

func verifyCapabilities() error {
	hdr := unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}
	var data [2]unix.CapUserData
	if err := unix.Capget(&hdr, &data[0]); err != nil {
		return os.NewSyscallError("capget", err)
	}
	if data != [2]unix.CapUserData{} {
		return fmt.Errorf("capabilities are left: %+v", data)
	}
	last, err := lastCapability()
	if err != nil {
		return err
	}
	for c := 0; c <= last; c++ {
		bound, err := unix.PrctlRetInt(unix.PR_CAPBSET_READ, uintptr(c), 0, 0, 0)
		ambient, aerr := unix.PrctlRetInt(unix.PR_CAP_AMBIENT, unix.PR_CAP_AMBIENT_IS_SET, uintptr(c), 0, 0)
		if err != nil || aerr != nil || bound != 0 || ambient != 0 {
			return errors.New("capability " + strconv.Itoa(c) + " is still in the bounding or ambient set")
		}
	}
	return nil
}
