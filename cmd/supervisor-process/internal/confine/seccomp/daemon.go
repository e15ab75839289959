package seccomp

import (
	"errors"
	"fmt"
	"slices"

	"github.com/elastic/go-seccomp-bpf/arch"
	"golang.org/x/net/bpf"
	"golang.org/x/sys/unix"
)

// daemonRefused is what the daemon itself gives up once the sandbox exists: it starts
// no program any more (init does), makes no mount, and looks into no process by other
// means than /proc.
var daemonRefused = []group{
	{"starting programs", "execve execveat fork vfork"},
	{"mounts and namespaces but entering one", `
		mount umount2 pivot_root chroot fsopen fsconfig fsmount fspick move_mount open_tree open_tree_attr mount_setattr unshare`},
	{"other processes' memory and descriptors", "ptrace process_vm_readv process_vm_writev process_madvise pidfd_getfd kcmp"},
	{"large and often attacked parts of the kernel", `
		bpf perf_event_open userfaultfd io_uring_setup io_uring_enter io_uring_register keyctl add_key request_key vmsplice
		fanotify_init modify_ldt lookup_dcookie open_by_handle_at memfd_secret`},
	{"the machine", `
		init_module finit_module delete_module kexec_load kexec_file_load reboot swapon swapoff acct quotactl quotactl_fd
		syslog iopl ioperm settimeofday clock_settime clock_adjtime sethostname setdomainname vhangup`},
	{"another identity", "setuid setreuid setresuid setgroups setresgid setregid setgid setfsgid"},
}

// daemonProgram assembles the daemon's filter: everything but daemonRefused, and no
// other ABI.
func daemonProgram(on *arch.Info) ([]bpf.Instruction, error) {
	lists, err := lists(on, []part{{daemonRefused, eperm}}, allow)
	if err != nil {
		return nil, err
	}
	return slices.Concat(native(on, nosys), lists), nil
}

// ApplyToDaemon filters every thread of this process. It cannot be undone, and what
// this process starts afterwards, which is nothing, would inherit it.
func ApplyToDaemon() error {
	on, err := arch.GetInfo("")
	if err != nil {
		return fmt.Errorf("seccomp: %w", err)
	}
	instructions, err := daemonProgram(on)
	if err != nil {
		return err
	}
	raw, err := bpf.Assemble(instructions)
	if err != nil {
		return fmt.Errorf("seccomp: %w", err)
	}
	if err := unix.Prctl(unix.PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0); err != nil {
		return fmt.Errorf("seccomp: no_new_privs: %w", err)
	}
	thread, err := load(raw, unix.SECCOMP_FILTER_FLAG_TSYNC)
	if err == nil && thread != 0 {
		err = errors.New("seccomp: a thread cannot take the filter")
	}
	return err
}
