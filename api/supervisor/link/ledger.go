package link

import (
	"errors"
	"fmt"
	"io"
	"os"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/splitpod/splitpod/pkg/core"
)

// ledger is the file of an Inbox: a line for each producer with its instance and the
// two numbers of its mark, each line as long as every other. It is written as a whole
// and in place, with one call for less than a page, which a kill does not tear. It is
// not synced: what ends with the machine ends with both daemons and all their numbers.
//
// It is locked while it is open: a second daemon with the same directories would put its
// sockets in the place of the first one's, take them along when it ends, and write over
// what the first keeps.
type ledger struct {
	file   *os.File
	failed func(error)
	broken bool // the last note was not written
	buf    []byte
}

const (
	lineFormat = "%s %020d %020d\n"
	lineBytes  = 32 + 1 + 20 + 1 + 20 + 1
	maxLedger  = maxProducers * lineBytes
)

// openLedger opens or makes the file and reads it.
func openLedger(path string, failed func(error)) (*ledger, []mark, error) {
	// The directory may belong to the other daemon: neither a link nor a FIFO in it
	// leads this one astray.
	f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE|unix.O_NOFOLLOW|unix.O_NONBLOCK, 0o600)
	if err != nil {
		return nil, nil, err
	}
	if errors.Is(unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB), unix.EWOULDBLOCK) {
		f.Close()
		return nil, nil, fmt.Errorf("%s is in use: this daemon runs already, with the same directory", path)
	}
	marks, err := readMarks(f)
	if err != nil {
		f.Close()
		return nil, nil, fmt.Errorf("%s: %w; without the file events that are sent again are counted again", path, err)
	}
	return &ledger{file: f, failed: failed}, marks, nil
}

func readMarks(f *os.File) ([]mark, error) {
	if info, err := f.Stat(); err != nil || !info.Mode().IsRegular() {
		return nil, errors.Join(err, errors.New("it is no regular file"))
	}
	data, err := io.ReadAll(io.LimitReader(f, maxLedger+1))
	if err != nil {
		return nil, err
	}
	return parseMarks(string(data))
}

// parseMarks reads exactly what appendMarks writes.
func parseMarks(text string) ([]mark, error) {
	if len(text) > maxLedger {
		return nil, fmt.Errorf("it is larger than %d bytes", maxLedger)
	}
	var marks []mark
	for line := range strings.Lines(text) {
		m, err := parseMark(line)
		if err != nil {
			return nil, fmt.Errorf("line %d: %w", len(marks)+1, err)
		}
		marks = append(marks, m)
	}
	return marks, nil
}

func parseMark(line string) (mark, error) {
	bad := errors.New("it does not say who, begun and done")
	if len(line) != lineBytes {
		return mark{}, bad
	}
	begun, err1 := strconv.ParseUint(line[33:53], 10, 64)
	done, err2 := strconv.ParseUint(line[54:74], 10, 64)
	m := mark{core.InstanceID(line[:32]), begun, done}
	if err1 != nil || err2 != nil || !m.from.Valid() || done > begun || fmt.Sprintf(lineFormat, m.from, begun, done) != line {
		return mark{}, bad
	}
	return m, nil
}

func appendMarks(b []byte, marks []mark) []byte {
	for _, m := range marks {
		b = fmt.Appendf(b, lineFormat, m.from, m.begun, m.done)
	}
	return b
}

// note writes the marks down, and tells of the first of several failures. A nil ledger
// notes nothing.
func (l *ledger) note(marks []mark) {
	if l == nil {
		return
	}
	l.buf = appendMarks(l.buf[:0], marks)
	_, err := l.file.WriteAt(l.buf, 0)
	if err != nil && !l.broken {
		l.failed(fmt.Errorf("note which events were taken: %w", err))
	}
	l.broken = err != nil
}
