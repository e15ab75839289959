// Package seccomp limits which system calls a program may make.
//
// It answers the threats of a flaw in a part of the kernel that programs do not need,
// of another ABI of the same machine (32-bit, x32) that a list by number would miss,
// and of socket families that are in no network namespace. It does not look at what
// pointers point to, and not at paths: Landlock does.
//
// Invariant: the tables are an allow-list. A call that is listed as refused answers
// EPERM, or ENOSYS where it is told (Tell) and nobody listens; one that nobody listed
// answers ENOSYS, as on an older kernel; another ABI answers ENOSYS to every call.
//
// Sources: seccomp(2), seccomp_unotify(2), Documentation/userspace-api/seccomp_filter.rst, socket(2),
// clone(2), ioctl_tty(2).
package seccomp

import (
	"fmt"
	"os"
	"slices"
	"strings"

	seccomp "github.com/elastic/go-seccomp-bpf"
	"github.com/elastic/go-seccomp-bpf/arch"
	"golang.org/x/net/bpf"
	"golang.org/x/sys/unix"
)

// The answers of a filter.
const (
	allow = seccomp.ActionAllow
	eperm = seccomp.ActionErrno | seccomp.Action(unix.EPERM)
	nosys = seccomp.ActionErrno | seccomp.Action(unix.ENOSYS)
)

// answers are those to what is refused.
type answers struct {
	refused seccomp.Action
	told    seccomp.Action // to what there is advice for
	missing seccomp.Action
}

// Of several filters the kernel takes the answer that stands first in this list: EPERM and
// ENOSYS, a notice, a tracer, allow. So the workload's own filter names a tracer, of which
// there is none, where another filter gives notice. Where none does, the kernel takes that
// for ENOSYS: what is told is refused whether anybody hears of it or not.
var (
	silent = answers{eperm, eperm, nosys}
	told   = answers{eperm, seccomp.ActionTrace, nosys}
	notice = answers{allow, seccomp.ActionUserNotify, allow}
)

// names lists the calls of groups that a machine has.
func names(groups []group, on *arch.Info) (out []string) {
	for _, g := range groups {
		for name := range strings.FieldsSeq(g.names) {
			if _, ok := on.SyscallNames[name]; ok {
				out = append(out, name)
			}
		}
	}
	return out
}

// groups are those of a table of advice.
func groups(table []advice) (out []group) {
	for _, a := range table {
		out = append(out, a.group)
	}
	return out
}

// part is a table with the answer to its calls.
type part struct {
	groups []group
	answer seccomp.Action
}

// program assembles a filter of the workload for a machine.
func program(on *arch.Info, a answers) ([]bpf.Instruction, error) {
	lists, err := lists(on, []part{{allowed, allow}, {missing, a.missing}, {refused, a.refused}, {groups(advised), a.told}}, a.missing)
	if err != nil {
		return nil, err
	}
	return slices.Concat(native(on, a.missing), withArguments(on, a), lists), nil
}

// x32 marks the numbers of an ABI that shares its machine word with x86-64.
const x32 = 0x40000000

// native has one answer to every other ABI of the machine, and goes on with the number
// of the call loaded.
func native(on *arch.Info, other seccomp.Action) []bpf.Instruction {
	out := []bpf.Instruction{
		bpf.LoadAbsolute{Off: offsetMachine, Size: 4},
		bpf.JumpIf{Cond: bpf.JumpEqual, Val: uint32(on.ID), SkipTrue: 1},
		bpf.RetConstant{Val: uint32(other)},
		bpf.LoadAbsolute{Off: offsetCall, Size: 4},
	}
	if on == arch.X86_64 {
		out = append(out, bpf.JumpIf{Cond: bpf.JumpLessThan, Val: x32, SkipTrue: 1}, bpf.RetConstant{Val: uint32(other)})
	}
	return out
}

// lists answers by number alone. The library's policies do that too, but only for the
// machine they are assembled on; its program, which resolves long jumps, does not mind.
func lists(on *arch.Info, parts []part, otherwise seccomp.Action) ([]bpf.Instruction, error) {
	p := seccomp.NewProgram()
	for _, part := range parts {
		calls := names(part.groups, on)
		match, next := p.NewLabel(), p.NewLabel()
		for i, name := range calls {
			call := seccomp.SyscallWithConditions{Num: uint32(on.SyscallNames[name])}
			call.Assemble(&p, i < len(calls)-1, match, next)
		}
		p.SetLabel(match)
		p.Ret(part.answer)
		p.SetLabel(next)
	}
	p.Ret(otherwise)
	out, err := p.Assemble()
	if err != nil {
		return nil, fmt.Errorf("seccomp: %w", err)
	}
	return out, nil
}

// Apply filters the calling thread and whatever it executes. It needs no_new_privs. With
// tell, another filter of this thread gives notice (Tell).
func Apply(tell bool) error {
	a := silent
	if tell {
		a = told
	}
	_, err := install(a, 0)
	return err
}

// Tell has every call of the calling thread, and of whatever it executes and starts, that
// Apply with tell refuses wait until somebody who reads the file answers it. What that
// file is closed for is refused. It needs CAP_SYS_ADMIN, or no_new_privs.
func Tell() (*os.File, error) {
	fd, err := install(notice, unix.SECCOMP_FILTER_FLAG_NEW_LISTENER)
	if err != nil {
		return nil, err
	}
	if err := unix.SetNonblock(fd, true); err != nil {
		unix.Close(fd)
		return nil, os.NewSyscallError("fcntl(O_NONBLOCK)", err)
	}
	return os.NewFile(uintptr(fd), "refused calls"), nil
}

func install(a answers, flags uintptr) (int, error) {
	on, err := arch.GetInfo("")
	if err != nil {
		return 0, fmt.Errorf("seccomp: %w", err)
	}
	instructions, err := program(on, a)
	if err != nil {
		return 0, err
	}
	raw, err := bpf.Assemble(instructions)
	if err != nil {
		return 0, fmt.Errorf("seccomp: %w", err)
	}
	return load(raw, flags)
}
