// Package stage is the last program before the workload's: it confines itself and becomes
// that one.
//
// It answers the threat of a program that runs less confined than it should: it executes
// only with the proof of confinement, and says on a pipe what was applied before it does.
// It does not choose what is applied; the plan comes from the daemon, through init.
//
// Invariant: Run returns only when no program was executed.
//
// Every program of the sandbox waits for a stage to start, so that this package imports
// little, and its hook runs before most of the binary's packages are initialised.
package stage

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"runtime"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/splitpod/splitpod/cmd/supervisor-process/internal/confine"
)

// Name is what this binary is started again as to be a stage.
const Name = "stage"

// The hook: a process of that name is nothing else.
func init() {
	if len(os.Args) == 1 && os.Args[0] == Name {
		os.Exit(run())
	}
}

// Descriptors the stage starts with, beside the program's own three.
const (
	plan   = 3 // a Plan as JSON
	report = 4 // Words as JSON, until the program is executed
	limit  = 5 // cgroup.procs; only where the plan says so
)

// run confines itself and becomes the program. It returns only when that failed.
func run() int {
	runtime.LockOSThread() // what follows is per thread, and execve keeps this one
	pipe := os.NewFile(report, "report")
	unix.CloseOnExec(report)
	unix.CloseOnExec(plan)
	err := become(os.NewFile(plan, "plan"), json.NewEncoder(pipe))
	failure := Word{Error: err.Error(), Code: CodeConfine}
	switch {
	case errors.Is(err, errNotFound):
		failure.Code = CodeNotFound
	case errors.Is(err, errNotUsable):
		failure.Code = CodeNotUsable
	case confine.IsConfiguration(err):
		failure.Code = CodeConfiguration
	}
	_ = json.NewEncoder(pipe).Encode(failure)
	return failure.Code
}

// Why a program was not executed.
var (
	errNotFound  = errors.New("program not found")
	errNotUsable = errors.New("program cannot be executed")
	errHidden    = fmt.Errorf("%w: its folder cannot be looked into", errNotUsable)
)

func become(f *os.File, words *json.Encoder) error {
	var p Plan
	if err := json.NewDecoder(f).Decode(&p); err != nil {
		return fmt.Errorf("read the plan: %w", err)
	}
	if p.Builtin == "" && (len(p.Argv) == 0 || len(p.Argv[0]) == 0) {
		return fmt.Errorf("%w: the command is empty", errNotFound)
	}
	if p.Limited {
		if err := join(os.NewFile(limit, "cgroup.procs")); err != nil {
			return err
		}
	}
	if p.Terminal {
		if err := unix.IoctlSetInt(0, unix.TIOCSCTTY, 0); err != nil {
			return fmt.Errorf("take the terminal: %w", os.NewSyscallError("ioctl(TIOCSCTTY)", err))
		}
	}
	applied, err := confine.Apply(confine.Plan{UID: p.UID, GID: p.GID, Groups: p.Groups, Dir: p.Dir, Files: p.Files, Workspace: p.Workspace, Told: p.Told})
	if err != nil {
		return err
	}
	if err := words.Encode(Word{Applied: &applied.Files}); err != nil {
		return fmt.Errorf("report what was applied: %w", err)
	}
	return execute(applied, p)
}

// join enters a cgroup, with the whole process.
func join(procs *os.File) error {
	defer procs.Close()
	if _, err := procs.WriteString("0"); err != nil {
		return fmt.Errorf("enter the workload's cgroup (--pids): %w", err)
	}
	return nil
}

// execute needs the proof of confinement; it looks the program up with the
// workload's own rights.
func execute(applied confine.Applied, p Plan) error {
	argv, env := Strings(p.Argv), Strings(p.Env)
	if !applied.Valid() {
		return errors.New("BUG: nothing is executed unconfined")
	}
	if p.Builtin != "" {
		// Executed anew, because only this thread is confined.
		err := unix.Exec("/proc/self/exe", []string{p.Builtin}, env)
		return fmt.Errorf("%w: %s of this binary: %v", errNotUsable, p.Builtin, err)
	}
	path, err := lookup(argv[0], env)
	if err != nil {
		return err
	}
	return refusal(path, unix.Exec(path, argv, env))
}

// refusal says why the kernel did not execute a file whose mode lets it.
func refusal(path string, err error) error {
	switch {
	case errors.Is(err, unix.ENOENT):
		return fmt.Errorf("%w: %s is there, but not %s", errNotFound, path, interpreter(path))
	case errors.Is(err, unix.ENOEXEC):
		return fmt.Errorf("%w: %s: %v; it is no program for this machine (%s), and no script whose first line names an interpreter", errNotUsable, path, err, runtime.GOARCH)
	case errors.Is(err, unix.EACCES):
		return fmt.Errorf("%w: %s: %v, although its mode permits it; filesystem_policy leaves out its folder or its interpreter's (read_only is enough), or the volume is mounted noexec", errNotUsable, path, err)
	default:
		return fmt.Errorf("%w: %s: %v", errNotUsable, path, err)
	}
}

// interpreter is what a file needs to be executed, as far as its first line says.
func interpreter(path string) string {
	f, err := os.OpenFile(path, os.O_RDONLY|unix.O_NONBLOCK, 0)
	if err != nil {
		return "its interpreter"
	}
	defer f.Close()
	var buf [256]byte // as much as the kernel reads
	n, _ := f.Read(buf[:])
	line, _, _ := bytes.Cut(buf[:n], []byte("\n"))
	if name, ok := bytes.CutPrefix(line, []byte("#!")); ok {
		return fmt.Sprintf("its interpreter %q", bytes.TrimLeft(name, " \t"))
	}
	return "the loader that it was linked for; the image may have another C library"
}

// lookup finds a program as execvp(3) does. A folder of PATH that the user may not look into
// is no sign that the program is there.
func lookup(name string, env []string) (string, error) {
	if strings.Contains(name, "/") {
		return name, usable(name)
	}
	search := DefaultPath
	for _, e := range env {
		if v, ok := strings.CutPrefix(e, "PATH="); ok {
			search = v
		}
	}
	var found error
	var hidden []string
	for dir := range strings.SplitSeq(search, ":") {
		if dir == "" {
			dir = "."
		}
		path := dir + "/" + name
		switch err := usable(path); {
		case err == nil:
			return path, nil
		case errors.Is(err, errHidden):
			hidden = append(hidden, dir)
		case errors.Is(err, errNotUsable):
			found = err
		}
	}
	switch {
	case found != nil:
		return "", found
	case hidden != nil:
		return "", fmt.Errorf("%w: %s is not in PATH (%s), of which this user may not look into %s", errNotFound, name, search, strings.Join(hidden, ", "))
	default:
		return "", fmt.Errorf("%w: %s is not in PATH (%s)", errNotFound, name, search)
	}
}

func usable(path string) error {
	var st unix.Stat_t
	if err := unix.Stat(path, &st); err != nil {
		if errors.Is(err, unix.ENOENT) || errors.Is(err, unix.ENOTDIR) {
			return fmt.Errorf("%w: %s", errNotFound, path)
		}
		return fmt.Errorf("%w: %s: %v", errHidden, path, err)
	}
	if st.Mode&unix.S_IFMT != unix.S_IFREG {
		return fmt.Errorf("%w: %s is no regular file", errNotUsable, path)
	}
	if err := unix.Access(path, unix.X_OK); err != nil {
		return fmt.Errorf("%w: %s: %v", errNotUsable, path, err)
	}
	return nil
}
