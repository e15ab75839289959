package identity

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"math"
	"os"
	"slices"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// procfs is one mount of proc(5), read through its root descriptor.
type procfs struct {
	fd int
}

// process is what is known of one process at one moment.
type process struct {
	pid     int
	start   uint64 // clock ticks since boot
	parent  int
	threads int
	zombie  bool   // its main thread has ended
	exe     string // as the kernel shows it; empty when it cannot be said (any more)
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
	statBytes     = 1024
	childrenBytes = 4096
	cmdlineBytes  = 4096
)

// read reads one process. It is gone when the error is ENOENT or ESRCH.
func (fs procfs) read(pid int) (process, error) {
	p, err := fs.stat(pid)
	if err != nil {
		return p, err
	}
	if p.zombie && p.threads <= 1 {
		return p, fmt.Errorf("pid %d has ended: %w", pid, unix.ESRCH)
	}
	if err := fs.readExe(&p); err != nil && !(p.zombie && gone(err)) {
		return p, err
	}
	return p, nil
}

// stat reads of one process all but its program.
func (fs procfs) stat(pid int) (process, error) { return fs.statAt(strconv.Itoa(pid)+"/stat", pid) }

func (fs procfs) statAt(name string, pid int) (process, error) {
	p := process{pid: pid}
	var buf [statBytes]byte
	text, err := fs.file(name, buf[:])
	if err != nil {
		return p, err
	}
	return p, p.parseStat(text)
}

// parseStat reads the fields behind the command name, which may contain anything, as far as
// the start time.
func (p *process) parseStat(stat []byte) error {
	i := bytes.LastIndexByte(stat, ')')
	field := 0
	for f := range bytes.FieldsSeq(stat[i+1:]) {
		var err error
		switch field {
		case 0:
			p.zombie = f[0] == 'Z' || f[0] == 'X'
		case 1:
			p.parent, err = strconv.Atoi(string(f))
		case 17:
			p.threads, err = strconv.Atoi(string(f))
		case 19:
			p.start, err = strconv.ParseUint(string(f), 10, 64)
		}
		if err != nil {
			return fmt.Errorf("stat of pid %d: %w", p.pid, err)
		}
		if field++; field > 19 {
			break
		}
	}
	if i < 0 || field != 20 {
		return fmt.Errorf("stat of pid %d is malformed", p.pid)
	}
	return nil
}

func (fs procfs) readExe(p *process) error {
	name := strconv.Itoa(p.pid) + "/exe"
	var buf [unix.PathMax]byte
	n, err := unix.Readlinkat(fs.fd, name, buf[:])
	if errors.Is(err, unix.ENAMETOOLONG) { // the kernel cannot say it
		n, err = 0, nil
	}
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

// deleted reports whether the program's file is gone from its path, or unknown.
func (p *process) deleted() bool { return p.exe == "" || strings.HasSuffix(p.exe, " (deleted)") }

// open opens a file or folder below the mount.
func (fs procfs) open(name string, how int) (fd int, err error) {
	fd, err = unix.Openat(fs.fd, name, how|unix.O_CLOEXEC, 0)
	if err != nil {
		return fd, &os.PathError{Op: "open", Path: name, Err: err}
	}
	return fd, nil
}

// file reads the start of a file into buf.
func (fs procfs) file(name string, buf []byte) ([]byte, error) {
	fd, err := fs.open(name, unix.O_RDONLY)
	if err != nil {
		return nil, err
	}
	defer unix.Close(fd)
	n, err := unix.Read(fd, buf)
	if err != nil {
		return nil, &os.PathError{Op: "read", Path: name, Err: err}
	}
	return buf[:n], nil
}

// program opens the program's file itself, whatever is at its path now.
func (fs procfs) program(p *process) (*os.File, error) {
	name := strconv.Itoa(p.pid) + "/exe"
	fd, err := fs.open(name, unix.O_RDONLY)
	if err != nil {
		return nil, err
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

// numbers lists the names below a folder that are decimal numbers. It fails with
// errTooMany when there are more than limit.
func (fs procfs) numbers(folder string, limit int) (out []int, err error) {
	err = fs.each(folder, func(_, n int) bool {
		out = append(out, n)
		return len(out) <= limit
	})
	if err == nil && len(out) > limit {
		err = errTooMany
	}
	return out, err
}

// each calls found for every name below a folder that is a decimal number, with a
// descriptor of the folder, until it returns false. It holds few names at a time: a process
// may have as many descriptors as the machine lets it, and a copy of one costs it next to
// nothing.
func (fs procfs) each(folder string, found func(folder, n int) bool) error {
	fd, err := fs.open(folder, unix.O_RDONLY|unix.O_DIRECTORY)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	var buf [4096]byte
	for {
		size, err := unix.Getdents(fd, buf[:])
		if errors.Is(err, unix.EINTR) {
			continue
		}
		if err != nil {
			return &os.PathError{Op: "getdents", Path: folder, Err: err}
		}
		if size == 0 {
			return nil
		}
		for rest := buf[:size]; len(rest) > 0; {
			var n int
			var ok bool
			if n, ok, rest = entry(rest); ok && !found(fd, n) {
				return nil
			}
		}
	}
}

// entry reads the first struct linux_dirent64 of a buffer (getdents64(2)): its name, if
// that is a decimal number, and what follows it.
func entry(b []byte) (n int, ok bool, rest []byte) {
	const length, name = 16, 19
	size := int(binary.NativeEndian.Uint16(b[length:]))
	text, _, _ := bytes.Cut(b[name:size], []byte{0})
	for _, c := range text {
		if c < '0' || c > '9' || n > math.MaxInt32/10 {
			return 0, false, b[size:]
		}
		n = n*10 + int(c-'0')
	}
	return n, len(text) > 0, b[size:]
}

// sockets calls found for every socket inode below a descriptor folder. Each descriptor,
// of whatever kind, takes one of what is left; it fails with errTooMany where none is.
func (fs procfs) sockets(folder string, left *int, found func(inode uint64)) error {
	err := fs.each(folder, func(folder, n int) bool {
		if *left--; *left < 0 {
			return false
		}
		if inode, ok := socketAt(folder, strconv.Itoa(n)); ok {
			found(inode)
		}
		return true
	})
	if err == nil && *left < 0 {
		err = errTooMany
	}
	return err
}

// socketAt is the inode of a descriptor that is a socket, and was not closed meanwhile.
func socketAt(folder int, name string) (inode uint64, ok bool) {
	var buf [64]byte
	l, err := unix.Readlinkat(folder, name, buf[:])
	if err != nil {
		return 0, false
	}
	text, ok := strings.CutPrefix(string(buf[:l]), "socket:[")
	if !ok {
		return 0, false
	}
	inode, err = strconv.ParseUint(strings.TrimSuffix(text, "]"), 10, 64)
	return inode, err == nil
}

// socketNo is a descriptor that is a socket.
type socketNo struct {
	inode uint64
	n     int
}

// inodes are those of the descriptors that are sockets.
func (fs procfs) inodes(folder string, fds []int) (out []socketNo) {
	for _, n := range fds {
		if inode, ok := socketAt(fs.fd, folder+"/"+strconv.Itoa(n)); ok {
			out = append(out, socketNo{inode, n})
		}
	}
	return out
}

// childIsUnknown reports whether a process has a child that known does not have:
// one that may have inherited what its parent opened since. A thread that ends leaves its
// children to the first that is left, which is read last for that; a process whose first
// thread has ended is not known to have none.
func (fs procfs) childIsUnknown(pid int, known map[int]process) bool {
	p, err := fs.stat(pid)
	if err != nil {
		return true
	}
	tasks := []int{pid}
	if p.threads > 1 {
		if tasks, err = fs.numbers(strconv.Itoa(pid)+"/task", maxProcesses); err != nil {
			return true
		}
		slices.Reverse(tasks)
	}
	for _, tid := range tasks {
		var buf [childrenBytes]byte
		text, err := fs.file(fmt.Sprintf("%d/task/%d/children", pid, tid), buf[:])
		if gone(err) && tid != pid {
			continue // the thread has ended
		}
		if err != nil || len(text) == len(buf) {
			return true
		}
		for field := range strings.FieldsSeq(string(text)) {
			pid, err := strconv.Atoi(field)
			before, ok := known[pid]
			if err != nil || !ok || fs.started(pid) != before.start {
				return true
			}
		}
	}
	if len(tasks) == 1 {
		return false
	}
	now, err := fs.stat(pid)
	return err != nil || now.zombie
}

// isParent reports whether p, which was read after the child, is the process that the child
// named as its parent, and not one that got its pid since. One that is older than the child
// had that pid when the child named it.
func (fs procfs) isParent(p, child *process) bool {
	if p.start != child.start {
		return p.start < child.start
	}
	now, err := fs.stat(child.pid)
	return err == nil && now.start == child.start && now.parent == p.pid
}

// started is when a process started; 0 when it cannot be said.
func (fs procfs) started(pid int) uint64 {
	p, err := fs.stat(pid)
	if err != nil {
		return 0
	}
	return p.start
}
