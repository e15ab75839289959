package glob

import (
	"fmt"
	"strings"
)

// Selector is a host pattern of a middleware or a credential binding. The zero
// value matches nothing.
type Selector struct {
	machine *machine
}

// maxHost bounds selectors; no DNS name is longer.
const maxHost = 253

// CompileSelector reads a host selector: labels between dots, `*` inside a label
// for any part of that label, `**` as a whole label for one or more labels.
// Upper-case letters are the same as lower-case ones.
func CompileSelector(pattern string) (*Selector, error) {
	if err := checkSelector(pattern); err != nil {
		return nil, err
	}
	var b builder
	for i, label := range strings.Split(lower(pattern), ".") {
		if i > 0 {
			b.step(one('.'))
		}
		if label == "**" {
			b.step(all())
			b.loop(all())
			continue
		}
		for _, c := range []byte(label) {
			if c == '*' {
				b.loop(allBut('.'))
			} else {
				b.step(one(symbol(c)))
			}
		}
	}
	m, err := b.machine()
	if err != nil {
		return nil, err
	}
	return &Selector{machine: m}, nil
}

func checkSelector(pattern string) error {
	if len(pattern) > maxHost {
		return &SyntaxError{maxHost, fmt.Sprintf("a host selector may have %d characters", maxHost)}
	}
	for i := range len(pattern) {
		if c := pattern[i]; c <= ' ' || c >= 0x7f || strings.IndexByte(`{}[]?\/,`, c) >= 0 {
			return &SyntaxError{i, "only letters, digits, - and _ may stand here, with * for a part of a label and ** for labels"}
		}
	}
	at := 0
	for label := range strings.SplitSeq(pattern, ".") {
		if label == "" {
			return &SyntaxError{at, "a label is empty; remove the extra dot"}
		}
		if label != "**" && strings.Contains(label, "**") {
			return &SyntaxError{at, "** must be a whole label; write * for a part of one"}
		}
		at += len(label) + 1
	}
	return nil
}

// Match reports whether a host fits. A host with an empty label or a trailing dot
// never does.
func (s *Selector) Match(host string) bool {
	if s.machine == nil || host == "" {
		return false
	}
	var w walk
	s.machine.begin(&w)
	previous := byte('.')
	for i := range len(host) {
		c := lowerByte(host[i])
		if c == '.' && previous == '.' || !w.step(symbol(c)) {
			return false
		}
		previous = c
	}
	return previous != '.' && w.matched()
}

func lowerByte(c byte) byte {
	if 'A' <= c && c <= 'Z' {
		return c + 'a' - 'A'
	}
	return c
}

// lower lower-cases ASCII letters only, as host names compare.
func lower(s string) string {
	for i := range len(s) {
		if lowerByte(s[i]) != s[i] {
			return lowered(s)
		}
	}
	return s
}

func lowered(s string) string {
	b := []byte(s)
	for i := range b {
		b[i] = lowerByte(b[i])
	}
	return string(b)
}
