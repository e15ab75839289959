package app

import (
	"io"
	"sync"
)

// stream is one that the workload's output goes to, and lines of ours. A line of ours
// starts a line, whatever the workload left unfinished: behind a prompt, or what is made to
// look like one, whoever collects records would not find them.
type stream struct {
	out io.Writer

	mu         sync.Mutex // held while something is written
	unfinished bool       // guarded by mu; the workload's last line
}

// Write writes whole lines of ours.
func (s *stream) Write(lines []byte) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.unfinished {
		if _, err := s.out.Write([]byte{'\n'}); err != nil {
			return 0, err
		}
		s.unfinished = false
	}
	return s.out.Write(lines)
}

// workloads is where the workload's output goes.
type workloads struct{ *stream }

// Write implements io.Writer.
func (w workloads) Write(output []byte) (int, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	n, err := w.out.Write(output)
	if n > 0 {
		w.unfinished = output[n-1] != '\n'
	}
	return n, err
}
