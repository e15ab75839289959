package seccomp

import (
	"slices"

	seccomp "github.com/elastic/go-seccomp-bpf"
	"github.com/elastic/go-seccomp-bpf/arch"
	"golang.org/x/net/bpf"
)

// Offsets in struct seccomp_data (seccomp(2)) on a little-endian machine.
const (
	offsetCall      = 0
	offsetMachine   = 4
	offsetArguments = 16
)

// withArguments is the part of the filter for the calls of conditional. It is made
// here and not by the library, whose comparison of an argument leaves the argument
// where the next call's number is expected. Here the part of one call never goes on
// to another: it answers, one way or the other. It starts and ends with the number
// loaded.
func withArguments(on *arch.Info, a answers) []bpf.Instruction {
	var out []bpf.Instruction
	for i := 0; i < len(conditional); {
		call, body := conditional[i].call, []bpf.Instruction(nil)
		for ; i < len(conditional) && conditional[i].call == call; i++ {
			body = append(body, alternative(conditional[i].conditions, allow)...)
		}
		for _, r := range quietly {
			if r.call == call {
				body = append(body, alternative(r.conditions, a.refused)...)
			}
		}
		otherwise := a.refused
		if slices.Contains(names(groups(advisedByArgument), on), call) {
			otherwise = a.told
		}
		body = append(body, bpf.RetConstant{Val: uint32(otherwise)})
		if number, ok := on.SyscallNames[call]; ok {
			out = append(out, bpf.JumpIf{Cond: bpf.JumpNotEqual, Val: uint32(number), SkipTrue: uint8(len(body))})
			out = append(out, body...)
		}
	}
	return out
}

// step is an instruction whose jump, if any, leads behind the alternative when the
// condition it stands for does not hold.
type step struct {
	load  uint32 // offset to load; or
	jump  bpf.JumpTest
	value uint32
	skip  uint8 // jump over so many instructions: the condition holds; 0: it does not hold
}

// alternative answers when every condition holds, and goes on behind itself when one does
// not.
func alternative(conditions []condition, answer seccomp.Action) []bpf.Instruction {
	var steps []step
	for _, c := range conditions {
		steps = append(steps, c.steps()...)
	}
	out := make([]bpf.Instruction, 0, len(steps)+1)
	for i, s := range steps {
		switch {
		case s.load != 0:
			out = append(out, bpf.LoadAbsolute{Off: s.load, Size: 4})
		case s.skip != 0:
			out = append(out, bpf.JumpIf{Cond: s.jump, Val: s.value, SkipTrue: s.skip})
		default:
			out = append(out, bpf.JumpIf{Cond: s.jump, Val: s.value, SkipTrue: uint8(len(steps) - i)})
		}
	}
	return append(out, bpf.RetConstant{Val: uint32(answer)})
}

// steps compares the upper, then the lower half of an argument.
func (c condition) steps() []step {
	low := step{load: offsetArguments + 8*c.arg}
	high := step{load: low.load + 4}
	up, down := uint32(c.value>>32), uint32(c.value)
	switch c.op {
	case "==":
		return []step{high, {jump: bpf.JumpNotEqual, value: up}, low, {jump: bpf.JumpNotEqual, value: down}}
	case "!=":
		return []step{high, {jump: bpf.JumpNotEqual, value: up, skip: 2}, low, {jump: bpf.JumpEqual, value: down}}
	case "<=":
		return []step{high, {jump: bpf.JumpGreaterThan, value: up}, {jump: bpf.JumpNotEqual, value: up, skip: 2}, low, {jump: bpf.JumpGreaterThan, value: down}}
	case ">=":
		return []step{high, {jump: bpf.JumpLessThan, value: up}, {jump: bpf.JumpNotEqual, value: up, skip: 2}, low, {jump: bpf.JumpLessThan, value: down}}
	case "no bit of":
		return []step{high, {jump: bpf.JumpBitsSet, value: up}, low, {jump: bpf.JumpBitsSet, value: down}}
	default:
		panic("BUG: unknown comparison " + c.op)
	}
}
