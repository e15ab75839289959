package identity

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"path"
	"slices"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/splitpod/splitpod/pkg/core"
)

// procfs is one mount of proc(5), read through its root descriptor.
type procfs struct{ fd int }

// process is what is known of one process at one moment.
type process struct {
	pid     int
	start   uint64 // clock ticks since boot
	parent  int
	threads int
	exe     string // as the kernel shows it
	file    fingerprint
}

// fingerprint changes when a file's content does.
type fingerprint struct {
	dev, ino     uint64
	size         int64
	mtime, ctime unix.Timespec
}

// sameProgram reports whether p runs what q ran, as the same process.
func (p *process) sameProgram(q *process) bool {
	return p.pid == q.pid && p.start == q.start && p.exe == q.exe && p.file == q.file
}

// Limits of reading.
const (
	statBytes    = 4096
	cmdlineBytes = 4096
)

// read reads one process. It is gone when the error is ENOENT or ESRCH.
func (fs procfs) read(pid int) (process, error) {
	p := process{pid: pid}
	stat, err := fs.file(pid, "stat", statBytes)
	if err != nil {
		return p, err
	}
	if err := p.parseStat(stat); err != nil {
		return p, err
	}
	return p, fs.readExe(&p)
}

// parseStat reads the fields behind the command name, which may contain anything.
func (p *process) parseStat(stat []byte) error {
	i := bytes.LastIndexByte(stat, ')')
	fields := strings.Fields(string(stat[i+1:]))
	if i < 0 || len(fields) < 20 {
		return fmt.Errorf("stat of pid %d is malformed", p.pid)
	}
	var err1, err2, err3 error
	p.parent, err1 = strconv.Atoi(fields[1])
	p.threads, err2 = strconv.Atoi(fields[17])
	p.start, err3 = strconv.ParseUint(fields[19], 10, 64)
	return errors.Join(err1, err2, err3)
}

func (fs procfs) readExe(p *process) error {
	name := strconv.Itoa(p.pid) + "/exe"
	buf := make([]byte, unix.PathMax)
	n, err := unix.Readlinkat(fs.fd, name, buf)
	if err != nil {
		return &os.PathError{Op: "readlink", Path: name, Err: err}
	}
	p.exe = string(buf[:n])
	var st unix.Stat_t
	if err := unix.Fstatat(fs.fd, name, &st, 0); err != nil {
		return &os.PathError{Op: "stat", Path: name, Err: err}
	}
	p.file = fingerprintOf(&st)
	return nil
}

func fingerprintOf(st *unix.Stat_t) fingerprint {
	return fingerprint{uint64(st.Dev), st.Ino, st.Size, st.Mtim, st.Ctim}
}

// deleted reports whether the program's file is not (or no longer) at its path.
func (p *process) deleted() bool { return strings.HasSuffix(p.exe, " (deleted)") }

// file reads the start of a file of a process.
func (fs procfs) file(pid int, name string, most int) ([]byte, error) {
	name = strconv.Itoa(pid) + "/" + name
	fd, err := unix.Openat(fs.fd, name, unix.O_RDONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, &os.PathError{Op: "open", Path: name, Err: err}
	}
	defer unix.Close(fd)
	buf := make([]byte, most)
	n, err := unix.Read(fd, buf)
	if err != nil {
		return nil, &os.PathError{Op: "read", Path: name, Err: err}
	}
	return buf[:n], nil
}

// open opens the program's file itself, whatever is at its path now.
func (fs procfs) open(p *process) (*os.File, error) {
	name := strconv.Itoa(p.pid) + "/exe"
	fd, err := unix.Openat(fs.fd, name, unix.O_RDONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, &os.PathError{Op: "open", Path: name, Err: err}
	}
	f := os.NewFile(uintptr(fd), name)
	var st unix.Stat_t
	if err := unix.Fstat(fd, &st); err != nil || fingerprintOf(&st) != p.file {
		f.Close()
		return nil, errors.Join(errChanged, err)
	}
	return f, nil
}

var errChanged = errors.New("the process changed while it was looked at")

// gone reports whether an error means that a process has ended.
func gone(err error) bool {
	return errors.Is(err, unix.ENOENT) || errors.Is(err, unix.ESRCH)
}

// numbers lists the names below a folder that are decimal numbers.
func (fs procfs) numbers(folder string) ([]int, error) {
	fd, err := unix.Openat(fs.fd, folder, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, &os.PathError{Op: "open", Path: folder, Err: err}
	}
	f := os.NewFile(uintptr(fd), folder)
	defer f.Close()
	names, err := f.Readdirnames(-1)
	if err != nil && !errors.Is(err, io.EOF) {
		return nil, err
	}
	out := make([]int, 0, len(names))
	for _, n := range names {
		if v, err := strconv.Atoi(n); err == nil {
			out = append(out, v)
		}
	}
	return out, nil
}

// sockets calls found for every socket inode below a descriptor folder, newest
// descriptor first, until it returns false.
func (fs procfs) sockets(folder string, found func(inode uint64) bool) error {
	fds, err := fs.numbers(folder)
	if err != nil {
		return err
	}
	slices.SortFunc(fds, func(a, b int) int { return b - a })
	buf := make([]byte, 64)
	for _, n := range fds {
		l, err := unix.Readlinkat(fs.fd, folder+"/"+strconv.Itoa(n), buf)
		if err != nil {
			continue // closed meanwhile
		}
		text, ok := strings.CutPrefix(string(buf[:l]), "socket:[")
		if !ok {
			continue
		}
		inode, err := strconv.ParseUint(strings.TrimSuffix(text, "]"), 10, 64)
		if err == nil && !found(inode) {
			return nil
		}
	}
	return nil
}

// holds reports whether a process has a descriptor of the socket.
func (fs procfs) holds(pid int, inode uint64) bool {
	has := false
	_ = fs.sockets(strconv.Itoa(pid)+"/fd", func(n uint64) bool {
		has = n == inode
		return !has
	})
	return has
}

// commandPaths are the absolute paths among a process's arguments.
func (fs procfs) commandPaths(pid int) []string {
	text, err := fs.file(pid, "cmdline", cmdlineBytes)
	if err != nil {
		return nil
	}
	var out []string
	for arg := range bytes.SplitSeq(text, []byte{0}) {
		if len(arg) > 1 && arg[0] == '/' && len(arg) <= core.MaxFieldBytes && path.Clean(string(arg)) == string(arg) {
			out = append(out, string(arg))
		}
	}
	return out
}

// owner is the uid a process runs as.
func (fs procfs) owner(pid int) (uint32, error) {
	var st unix.Stat_t
	if err := unix.Fstatat(fs.fd, strconv.Itoa(pid), &st, 0); err != nil {
		return 0, &os.PathError{Op: "stat", Path: strconv.Itoa(pid), Err: err}
	}
	return st.Uid, nil
}
