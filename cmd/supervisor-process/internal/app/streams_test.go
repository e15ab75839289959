package app

import (
	"errors"
	"fmt"
	"io"
	"strings"
	"testing"
)

// TestALineOfOursStartsALine: the workload could hide it behind what it leaves unfinished.
func TestALineOfOursStartsALine(t *testing.T) {
	var out strings.Builder
	s := &stream{out: &out}
	theirs := workloads{s}
	for _, write := range []struct {
		to   io.Writer
		text string
	}{{s, "one\n"}, {theirs, "$ "}, {theirs, ""}, {s, "two\n"}, {s, "three\n"}, {theirs, "a\nb"}, {theirs, "c\n"}, {s, "four\n"}, {theirs, "end"}} {
		if n, err := fmt.Fprint(write.to, write.text); n != len(write.text) || err != nil {
			t.Errorf("%q: %d, %v", write.text, n, err)
		}
	}
	if want := "one\n$ \ntwo\nthree\na\nbc\nfour\nend"; out.String() != want {
		t.Errorf("got %q, want %q", out.String(), want)
	}
}

// full takes so many bytes and no more.
type full int

func (f *full) Write(b []byte) (int, error) {
	n := min(len(b), int(*f))
	*f -= full(n)
	if n < len(b) {
		return n, errors.New("full")
	}
	return n, nil
}

// TestWhatWasNotWrittenIsNotCounted: the log counts its lines by it.
func TestWhatWasNotWrittenIsNotCounted(t *testing.T) {
	room := full(2)
	s := &stream{out: &room}
	if n, err := (workloads{s}).Write([]byte("$ ")); n != 2 || err != nil {
		t.Errorf("%d, %v", n, err)
	}
	if n, err := s.Write([]byte("one\n")); n != 0 || err == nil {
		t.Errorf("%d, %v", n, err)
	}
	room = 3
	if n, err := s.Write([]byte("one\n")); n != 2 || err == nil {
		t.Errorf("%d, %v", n, err)
	}
}
