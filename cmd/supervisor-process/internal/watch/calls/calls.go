// Package calls answers the system calls that the workload's filters refuse, and counts
// who made them.
//
// It answers the threat of a program that tries what it may not, unseen. The kernel holds
// each such call of the sandbox until it is answered (SECCOMP_RET_USER_NOTIF), and the
// answer is always EPERM. It decides nothing: the filters do (package seccomp), and a call
// that nobody answers any more is refused by the kernel.
//
// Invariant: a loop of refused calls costs little. For each kind of call few programs are
// looked at in a second; after a thousand calls in a second each waits for a millisecond;
// what is kept has a limit; and every call is counted that was there to be answered.
//
// Sources: seccomp_unotify(2), proc_pid_status(5).
package calls

import (
	"bytes"
	"context"
	"encoding/binary"
	"fmt"
	"os"
	"strconv"
	"strings"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"github.com/splitpod/splitpod/cmd/supervisor-process/internal/confine/seccomp"
)

// Limits.
const (
	maxLooks    = 20   // in a second, at programs that make one kind of call
	maxAnswers  = 1000 // in a second; each one more waits
	pause       = time.Millisecond
	maxPrograms = 32 // beyond which calls are only counted by what they are
	reportEvery = time.Minute
)

// Refusal is one or more refused calls.
type Refusal struct {
	Call    string
	Instead string // what to do
	Program string // empty: unknown, or of several
	PID     int    // of the last one, as the workload sees it; 0: unknown
	Count   uint64
}

// Listener answers. Make it with Listen.
type Listener struct {
	file *os.File
	proc string
	pace pace

	mu   sync.Mutex
	seen map[key]*tally // guarded by mu
}

// key is what is counted together.
type key struct{ call, program string }

type tally struct {
	Refusal
	told time.Time // when it was reported last; zero: never
}

// Listen makes a Listener of a file of seccomp.Tell, which is the Listener's from here on.
func Listen(f *os.File) *Listener {
	return &Listener{file: f, proc: "/proc", seen: make(map[key]*tally)}
}

// Serve answers until ctx ends, or until there is nobody left who could call. Calls that
// come later are refused by the kernel.
func (l *Listener) Serve(ctx context.Context) error {
	defer l.file.Close()
	stop := context.AfterFunc(ctx, func() { l.file.Close() })
	defer stop()
	raw, err := l.file.SyscallConn()
	if err != nil {
		return fmt.Errorf("read refused calls: %w", err)
	}
	for {
		var call notice
		var readErr error
		err := raw.Read(func(fd uintptr) bool {
			call, readErr = receive(int(fd))
			return readErr != unix.EAGAIN
		})
		switch {
		case ctx.Err() != nil || readErr == errNobody:
			return nil
		case err != nil:
			return fmt.Errorf("read refused calls: %w", err)
		case readErr == unix.ENOENT || readErr == unix.EINTR: // it does not wait any more
			continue
		case readErr != nil:
			return fmt.Errorf("read refused calls: %w", os.NewSyscallError("ioctl(NOTIF_RECV)", readErr))
		}
		if err := l.handle(raw.Control, call); err != nil {
			return err
		}
	}
}

// handle looks at who called, answers, and counts. Who could be answered waited, and was
// nobody else, while it was looked at.
func (l *Listener) handle(control func(func(uintptr)) error, call notice) error {
	name, instead := seccomp.Advise(call.number, call.args)
	looks, wait := l.pace.next(time.Now(), name)
	if wait {
		time.Sleep(pause)
	}
	var program string
	var pid int
	if looks {
		program, pid = l.look(call.pid)
	}
	var answered error
	if err := control(func(fd uintptr) { answered = refuse(int(fd), call.id) }); err != nil {
		return nil // closed
	}
	switch {
	case answered == unix.ENOENT: // interrupted, or killed; it is not known who that was
		program, pid = "", 0
	case answered != nil:
		return fmt.Errorf("answer refused calls: %w", os.NewSyscallError("ioctl(NOTIF_SEND)", answered))
	}
	l.count(name, instead, program, pid)
	return nil
}

// look reads which program a thread runs, and the pid it has for the workload.
func (l *Listener) look(tid int) (program string, pid int) {
	dir := l.proc + "/" + strconv.Itoa(tid)
	program, err := os.Readlink(dir + "/exe")
	if err != nil {
		return "", 0
	}
	status, err := os.ReadFile(dir + "/status")
	if err != nil {
		return program, 0
	}
	_, line, _ := bytes.Cut(status, []byte("\nNStgid:"))
	line, _, _ = bytes.Cut(line, []byte("\n"))
	fields := strings.Fields(string(line))
	if len(fields) > 0 {
		pid, _ = strconv.Atoi(fields[len(fields)-1])
	}
	return program, pid
}

func (l *Listener) count(name, instead, program string, pid int) {
	l.mu.Lock()
	defer l.mu.Unlock()
	k := key{name, program}
	t := l.seen[k]
	if t == nil && program != "" && len(l.seen) >= maxPrograms {
		k.program, pid = "", 0
		t = l.seen[k]
	}
	if t == nil {
		t = &tally{Refusal: Refusal{Call: name, Instead: instead, Program: k.program}}
		l.seen[k] = t
	}
	t.Count++
	t.PID = pid
}

// Report tells of what is new, and once a minute of what went on; with all, of everything
// that it has not told.
func (l *Listener) Report(now time.Time, all bool, tell func(Refusal)) {
	for _, r := range l.due(now, all) {
		tell(r)
	}
}

func (l *Listener) due(now time.Time, all bool) (out []Refusal) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for k, t := range l.seen {
		if !all && !t.told.IsZero() && now.Sub(t.told) < reportEvery {
			continue
		}
		if t.Count == 0 {
			delete(l.seen, k)
			continue
		}
		out = append(out, t.Refusal)
		t.Count, t.told = 0, now
	}
	return out
}

// pace bounds what is done in a second. The zero value is ready to use.
type pace struct {
	since  time.Time
	n      int
	looked map[string]int // by call
}

// next reports whether the program of the next call is looked at, and whether its answer
// waits.
func (p *pace) next(now time.Time, call string) (looks, waits bool) {
	if now.Sub(p.since) >= time.Second {
		*p = pace{since: now, looked: make(map[string]int)}
	}
	p.n++
	p.looked[call]++
	return p.looked[call] <= maxLooks, p.n > maxAnswers
}

// notice is one call that waits.
type notice struct {
	id     uint64
	pid    int // of the thread, as this daemon sees it; 0: not seen
	number int
	args   [6]uint64
}

// Sizes of struct seccomp_notif and struct seccomp_notif_resp, which are part of what the
// ioctls are called by.
const (
	noticeBytes = 80
	answerBytes = 24
)

// parse reads a struct seccomp_notif with its struct seccomp_data.
func parse(b *[noticeBytes]byte) (n notice) {
	n.id = binary.NativeEndian.Uint64(b[0:])
	n.pid = int(binary.NativeEndian.Uint32(b[8:]))
	n.number = int(binary.NativeEndian.Uint32(b[16:]))
	for i := range n.args {
		n.args[i] = binary.NativeEndian.Uint64(b[32+8*i:])
	}
	return n
}

// refusal is the answer to a call, as a struct seccomp_notif_resp: its error is EPERM, and
// it is not continued.
func refusal(id uint64) (b [answerBytes]byte) {
	binary.NativeEndian.PutUint64(b[0:], id)
	errno := -int32(unix.EPERM)
	binary.NativeEndian.PutUint32(b[16:], uint32(errno))
	return b
}
