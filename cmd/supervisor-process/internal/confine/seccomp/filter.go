// Package seccomp limits which system calls a program may make.
//
// It answers the threats of a flaw in a part of the kernel that programs do not need,
// of another ABI of the same machine (32-bit, x32) that a list by number would miss,
// and of socket families that are in no network namespace. It does not look at what
// pointers point to, and not at paths: Landlock does.
//
// Invariant: the tables are an allow-list. A call that is listed as refused answers
// EPERM, one that nobody listed ENOSYS, as on an older kernel; another ABI answers
// ENOSYS to every call.
//
// Sources: seccomp(2), Documentation/userspace-api/seccomp_filter.rst, socket(2),
// clone(2), ioctl_tty(2).
package seccomp

import (
	"errors"
	"fmt"
	"strings"

	seccomp "github.com/elastic/go-seccomp-bpf"
	"github.com/elastic/go-seccomp-bpf/arch"
	"golang.org/x/net/bpf"
	"golang.org/x/sys/unix"
)

// The answers of the filter.
const (
	allow = seccomp.ActionAllow
	eperm = seccomp.ActionErrno | seccomp.Action(unix.EPERM)
	nosys = seccomp.ActionErrno | seccomp.Action(unix.ENOSYS)
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

// program assembles the filter for the machine this binary is for.
func program() ([]bpf.Instruction, error) {
	on, err := arch.GetInfo("")
	if err != nil {
		return nil, fmt.Errorf("seccomp: %w", err)
	}
	p := seccomp.Policy{DefaultAction: seccomp.ActionErrno, Syscalls: []seccomp.SyscallGroup{
		{Names: names(allowed, on), Action: allow},
		{Names: names(missing, on), Action: nosys},
		{Names: names(refused, on), Action: eperm},
	}}
	rest, err := p.Assemble()
	if err != nil {
		return nil, fmt.Errorf("seccomp: %w", err)
	}
	// The library's last instruction, for every call that no group names and for every
	// other ABI, answers EPERM; what does not exist answers ENOSYS.
	last := len(rest) - 1
	if rest[last] != (bpf.RetConstant{Val: uint32(eperm)}) {
		return nil, errors.New("BUG: the filter does not end with its default")
	}
	rest[last] = bpf.RetConstant{Val: uint32(nosys)}
	return append(withArguments(on), rest...), nil
}

// Apply filters the calling thread and whatever it executes. It needs no_new_privs.
func Apply() error {
	instructions, err := program()
	if err != nil {
		return err
	}
	raw, err := bpf.Assemble(instructions)
	if err != nil {
		return fmt.Errorf("seccomp: %w", err)
	}
	_, err = load(raw, 0)
	return err
}
