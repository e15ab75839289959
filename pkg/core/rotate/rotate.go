// Package rotate keeps a daemon's records in files: a new one every day (UTC) and
// whenever one is full, the newest few of them kept.
//
// It answers the threat of a log that fills the disk: the files together are bounded.
// It does not protect old records from a workload that makes many new ones; what must
// be kept is collected from there in time.
//
// Invariant: a write goes into one file as a whole, a file is never written to by
// name through a link, and nothing but files of this name's form is ever removed.
package rotate

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"
)

// DefaultKeep and DefaultMaxBytes bound the files of one daemon to 192 MiB.
const (
	DefaultKeep     = 3
	DefaultMaxBytes = 64 << 20
)

// Options say where and how much. Only Dir and Name have no default.
type Options struct {
	Dir      string // exists; belongs to this daemon alone
	Name     string // files are NAME.2006-01-02.jsonl and NAME.2006-01-02.1.jsonl
	Keep     int    // files that are kept, the present one included; 0: DefaultKeep
	MaxBytes int64  // above which another file is begun; 0: DefaultMaxBytes
	Now      func() time.Time
}

// Writer writes to the present file. Make it with Open. Safe for concurrent use.
type Writer struct {
	o   Options
	dir *os.Root

	mu   sync.Mutex
	file *os.File // guarded by mu; nil when none is open
	part part     // guarded by mu; the present file
	size int64    // guarded by mu
}

// part is a file's day and its number in it.
type part struct {
	day   string
	index int
}

const extension = ".jsonl"

func (p part) name(of string) string {
	if p.index == 0 {
		return of + "." + p.day + extension
	}
	return of + "." + p.day + "." + strconv.Itoa(p.index) + extension
}

func (p part) compare(q part) int {
	if c := strings.Compare(p.day, q.day); c != 0 {
		return c
	}
	return p.index - q.index
}

// parse is name's inverse.
func parse(of, file string) (part, bool) {
	rest, ok := strings.CutPrefix(file, of+".")
	rest, isLog := strings.CutSuffix(rest, extension)
	if !ok || !isLog {
		return part{}, false
	}
	day, index, numbered := strings.Cut(rest, ".")
	p := part{day: day}
	if numbered {
		n, err := strconv.Atoi(index)
		if err != nil || n < 1 {
			return part{}, false
		}
		p.index = n
	}
	if _, err := time.Parse(time.DateOnly, day); err != nil || p.name(of) != file {
		return part{}, false
	}
	return p, true
}

// Open goes on in the newest file of today, so that a restart continues it. A
// directory that cannot be written to is an error now and not at the first record.
func Open(o Options) (*Writer, error) {
	if o.Keep < 1 {
		o.Keep = DefaultKeep
	}
	if o.MaxBytes < 1 {
		o.MaxBytes = DefaultMaxBytes
	}
	if o.Now == nil {
		o.Now = time.Now
	}
	dir, err := os.OpenRoot(o.Dir)
	if err != nil {
		return nil, fmt.Errorf("directory of records: %w", err)
	}
	w := &Writer{o: o, dir: dir, part: part{day: today(o.Now())}}
	parts, err := w.parts()
	if err == nil {
		if n := len(parts); n > 0 && parts[n-1].day == w.part.day {
			w.part = parts[n-1]
		}
		err = w.open()
	}
	if err != nil {
		dir.Close()
		return nil, err
	}
	return w, nil
}

func today(t time.Time) string { return t.UTC().Format(time.DateOnly) }

// Write writes whole lines, all of them into one file; with an error, the first so many
// bytes of them, whole as well.
func (w *Writer) Write(p []byte) (int, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if err := w.turn(int64(len(p))); err != nil {
		return 0, err
	}
	n, err := w.file.Write(p)
	if err != nil {
		whole := bytes.LastIndexByte(p[:n], '\n') + 1
		if w.file.Truncate(w.size+int64(whole)) == nil {
			n = whole // a part of a line would spoil the next one too
		}
	}
	w.size += int64(n)
	return n, err
}

// turn makes the present file the one that n bytes belong into. Preconditions: mu is
// held.
func (w *Writer) turn(n int64) error {
	w.look()
	switch day := today(w.o.Now()); {
	case day > w.part.day: // a clock that goes back does not reopen yesterday
		w.close()
		w.part = part{day: day}
	case w.size > 0 && w.size+n > w.o.MaxBytes:
		w.close()
		w.part.index++
	case w.file != nil:
		return nil
	}
	return w.open()
}

// look sees what became of the present file. Who needs room removes it, of which there is
// none while it is open, or empties it. Preconditions: mu is held.
func (w *Writer) look() {
	if w.file == nil {
		return
	}
	info, err := w.file.Stat()
	if err != nil {
		return // a write says so, too
	}
	if st, ok := info.Sys().(*syscall.Stat_t); ok && st.Nlink == 0 {
		w.close()
		return
	}
	w.size = info.Size()
}

// open opens the present file, behind what is in it, and removes what is too many.
// Preconditions: mu is held.
func (w *Writer) open() error {
	name := w.part.name(w.o.Name)
	w.size = 0
	if info, err := w.dir.Lstat(name); err == nil {
		if !info.Mode().IsRegular() { // before it is opened: a FIFO would wait for a reader
			return fmt.Errorf("file of records %s: it is no regular file", name)
		}
		w.size = info.Size()
	}
	f, err := w.dir.OpenFile(name, os.O_WRONLY|os.O_APPEND|os.O_CREATE, 0o640)
	if err != nil {
		return fmt.Errorf("file of records: %w", err)
	}
	w.file = f
	return w.prune()
}

func (w *Writer) prune() error {
	parts, err := w.parts()
	if err != nil {
		return err
	}
	var errs []error
	for _, p := range parts[:max(0, len(parts)-w.o.Keep)] {
		if p != w.part {
			errs = append(errs, w.dir.Remove(p.name(w.o.Name)))
		}
	}
	return errors.Join(errs...)
}

// parts lists the files there are, oldest first.
func (w *Writer) parts() ([]part, error) {
	d, err := w.dir.Open(".")
	if err != nil {
		return nil, fmt.Errorf("directory of records: %w", err)
	}
	defer d.Close()
	names, err := d.Readdirnames(-1)
	if err != nil {
		return nil, fmt.Errorf("directory of records: %w", err)
	}
	var out []part
	for _, name := range names {
		if p, ok := parse(w.o.Name, name); ok {
			out = append(out, p)
		}
	}
	slices.SortFunc(out, part.compare)
	return out, nil
}

func (w *Writer) close() {
	if w.file != nil {
		_ = w.file.Close() // every write was reported
	}
	w.file, w.size = nil, 0
}

// Close closes the present file.
func (w *Writer) Close() error {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.close()
	return w.dir.Close()
}
