package identity

import (
	"strconv"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"

	"github.com/splitpod/splitpod/pkg/core"
)

const (
	// maxLine bounds the processes of a line, each of which is held by a descriptor.
	maxLine = 8
	// lineLasts is how long a line is held at least that nobody asks for: most processes
	// end soon, and need not be held then.
	lineLasts = time.Second
)

// line is a process that connects and those it descends from, each held by a descriptor of
// its folder in proc(5), which is empty once that process has ended, whoever gets its pid.
// While all of them run what they ran the identity is what it was: a process gets another
// parent only when the one it has is gone, and what a program's file is at its path does not
// change while the kernel shows the same path and the file has the same fingerprint.
type line struct {
	who     core.Identity
	folders []int     // descriptors
	were    []process // by the same index
	table   int       // descriptor of the folder of the first one's descriptors

	asked atomic.Bool // since tidy looked
}

// hold takes hold of processes that were just described, each the child of the next. It
// fails when they are not any more what they were.
func (fs procfs) hold(processes []process, who core.Identity) (*line, error) {
	table, err := fs.open(strconv.Itoa(processes[0].pid)+"/fd", unix.O_RDONLY|unix.O_DIRECTORY)
	if err != nil {
		return nil, err
	}
	l := &line{who: who, were: processes, table: table}
	for i := range processes {
		if err = l.add(fs, &processes[i]); err != nil {
			break
		}
	}
	if err == nil && !l.unchanged() {
		err = errChanged
	}
	if err != nil {
		l.close()
		return nil, err
	}
	return l, nil
}

// add takes hold of one process.
func (l *line) add(fs procfs, p *process) error {
	folder, err := fs.open(strconv.Itoa(p.pid), unix.O_PATH|unix.O_DIRECTORY)
	if err != nil {
		return err
	}
	l.folders = append(l.folders, folder)
	now, err := procfs{fd: folder}.statAt("stat", p.pid)
	if err == nil && (now.start != p.start || now.parent != p.parent) {
		err = errChanged
	}
	return err
}

func (l *line) close() {
	unix.Close(l.table)
	for _, fd := range l.folders {
		unix.Close(fd)
	}
}

// unchanged reports whether every process of the line is there and runs the same program.
func (l *line) unchanged() bool {
	for i, folder := range l.folders {
		if !l.were[i].runsStill(folder) {
			return false
		}
	}
	return true
}

// runsStill reports whether the process of a folder runs what p ran.
func (p *process) runsStill(folder int) bool {
	var buf [unix.PathMax]byte
	n, err := unix.Readlinkat(folder, "exe", buf[:])
	if err != nil || string(buf[:n]) != p.exe {
		return false
	}
	var st unix.Stat_t
	return unix.Fstatat(folder, "exe", &st, 0) == nil && fingerprintOf(&st) == p.file
}
