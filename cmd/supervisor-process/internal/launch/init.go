package launch

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"runtime"

	"golang.org/x/sys/unix"
)

// Names this binary is started under again. A process list inside the sandbox
// shows nothing but these words.
const (
	nameSetup = "init-setup"
	nameServe = "init"
)

// lifeLine is init's end of the socketpair.
const lifeLine = 3

// Init is what the caller does inside init.
type Init struct {
	// Setup runs first, with every privilege, in the new namespaces, as soon as they
	// are there. It asks for the daemon's data when it needs it, once, which waits until
	// the daemon knows what is wanted, and returns a report and named descriptors for it.
	Setup func(ask func() (Given, error)) (report any, files []Named, err error)
	// Query answers the daemon's questions later on.
	Query func(name string) (any, error)
	// Keep are the capabilities that queries need.
	Keep []int
}

// Given is what the daemon gives to a setup. The files are read from their start, and
// are closed when Setup returns.
type Given struct {
	Data  json.RawMessage
	Files []*os.File
}

// Named is a descriptor with a name.
type Named struct {
	Name string
	File *os.File
}

// Reexec runs what this process was started again for, and returns its exit code;
// ok is false when it is an ordinary start. It is the first thing main does.
func Reexec(args []string, i Init) (code int, ok bool) {
	if len(args) != 1 {
		return 0, false
	}
	switch args[0] {
	case nameSetup:
		return result(i.setup()), true
	case nameServe:
		return result(i.serve()), true
	default:
		return 0, false
	}
}

func result(err error) int {
	if err != nil {
		fmt.Fprintln(os.Stderr, "supervisor-process: init:", err)
		return 1
	}
	return 0
}

// connect makes a connection of a descriptor of the life line, and closes that.
func connect(fd int) (*net.UnixConn, error) {
	f := os.NewFile(uintptr(fd), "life line")
	defer f.Close()
	c, err := net.FileConn(f)
	if err != nil {
		return nil, fmt.Errorf("life line: %w", err)
	}
	u, ok := c.(*net.UnixConn)
	if !ok {
		return nil, errors.New("life line: not a Unix socket")
	}
	return u, nil
}

// setup is the first half of init: everything that needs privileges, then the
// second half is executed without them.
func (i Init) setup() error {
	runtime.LockOSThread() // capabilities are per thread, and execve keeps this one
	if os.Getpid() != 1 {
		return errors.New("this is started by supervisor-process only")
	}
	// The descriptor itself stays open for the second half, so that nothing else can get
	// its number: the garbage collector would close that under the second half's feet.
	mine, err := unix.FcntlInt(lifeLine, unix.F_DUPFD_CLOEXEC, 0)
	if err != nil {
		return os.NewSyscallError("fcntl(F_DUPFD_CLOEXEC)", err)
	}
	unix.CloseOnExec(lifeLine)
	line, err := connect(mine)
	if err != nil {
		return err
	}
	if err := i.prepare(line); err != nil {
		return errors.Join(err, send(line, message{Op: "failed", Error: err.Error()}))
	}
	if err := limitTo(append([]int{unix.CAP_SETUID, unix.CAP_SETGID, unix.CAP_SETPCAP, unix.CAP_KILL}, i.Keep...)); err != nil {
		return errors.Join(err, send(line, message{Op: "failed", Error: err.Error()}))
	}
	line.Close()
	if _, err := unix.FcntlInt(lifeLine, unix.F_SETFD, 0); err != nil {
		return os.NewSyscallError("fcntl(F_SETFD)", err)
	}
	return os.NewSyscallError("execve", unix.Exec("/proc/self/exe", []string{nameServe}, nil))
}

func (i Init) prepare(line *net.UnixConn) error {
	var given []*os.File
	defer func() { closeAll(given) }()
	report, named, err := i.Setup(func() (Given, error) {
		var data json.RawMessage
		var err error
		data, given, err = awaitSetup(line)
		if err != nil {
			return Given{}, err
		}
		return Given{Data: data, Files: given[1:]}, nil
	})
	if err != nil {
		return err
	}
	if given == nil {
		return errors.New("BUG: the setup did not ask what is wanted")
	}
	text, err := json.Marshal(report)
	if err != nil {
		return fmt.Errorf("encode the setup's report: %w", err)
	}
	ready := message{Op: "ready", Data: text}
	var files []*os.File
	for _, n := range named {
		ready.Names = append(ready.Names, n.Name)
		files = append(files, n.File)
	}
	defer closeAll(files)
	return send(line, ready, files...)
}

// awaitSetup waits for the daemon's data, which is in the first of the files.
func awaitSetup(line *net.UnixConn) (json.RawMessage, []*os.File, error) {
	m, given, err := receive(line, make([]byte, maxMessage))
	if err != nil {
		return nil, nil, fmt.Errorf("expected setup: %w", err)
	}
	if m.Op != "setup" || len(given) == 0 {
		closeAll(given)
		return nil, nil, fmt.Errorf("expected setup, got %q with %d descriptors", m.Op, len(given))
	}
	data, err := io.ReadAll(given[0])
	if err != nil {
		closeAll(given)
		return nil, nil, fmt.Errorf("read the setup's data: %w", err)
	}
	return data, given, nil
}

// limitTo takes every other capability out of the bounding set, so that the next
// execve of root keeps only these.
func limitTo(keep []int) error {
	wanted := make(map[int]bool)
	for _, c := range keep {
		wanted[c] = true
	}
	for c := range 64 {
		if wanted[c] {
			continue
		}
		err := unix.Prctl(unix.PR_CAPBSET_DROP, uintptr(c), 0, 0, 0)
		if errors.Is(err, unix.EINVAL) {
			break // beyond the last capability
		}
		if err != nil {
			return os.NewSyscallError("prctl(PR_CAPBSET_DROP)", err)
		}
	}
	return nil
}
