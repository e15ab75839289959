package seccomp

// group is a set of system calls that are treated alike for one reason.
type group struct {
	why   string
	names string // separated by spaces; those an architecture does not have are skipped there
}

// allowed is what every program may call, whatever its arguments. What stands in no
// table here is refused.
var allowed = []group{
	{"reading, writing and waiting, first because they are called most", `
		read write readv writev pread64 pwrite64 preadv pwritev preadv2 pwritev2 close lseek poll ppoll select pselect6
		epoll_create epoll_create1 epoll_ctl epoll_ctl_old epoll_wait epoll_wait_old epoll_pwait epoll_pwait2
		futex futex_waitv futex_wake futex_wait futex_requeue get_robust_list set_robust_list rseq membarrier
		sendto recvfrom sendmsg recvmsg sendmmsg recvmmsg splice tee sendfile copy_file_range
		pipe pipe2 dup dup2 dup3 fcntl close_range eventfd eventfd2 signalfd signalfd4
		timerfd_create timerfd_settime timerfd_gettime inotify_init inotify_init1 inotify_add_watch inotify_rm_watch`},
	{"memory", `
		brk mmap munmap mremap mprotect madvise msync mincore mlock mlock2 mlockall munlock munlockall remap_file_pages
		pkey_alloc pkey_free pkey_mprotect mseal map_shadow_stack cachestat fadvise64 readahead`},
	{"processes, threads and signals of one's own", `
		fork vfork execve exit exit_group wait4 waitid getpid getppid gettid set_tid_address tkill tgkill kill
		rt_sigaction rt_sigprocmask rt_sigpending rt_sigreturn rt_sigsuspend rt_sigtimedwait rt_sigqueueinfo
		rt_tgsigqueueinfo sigaltstack pause restart_syscall process_mrelease
		getpgid setpgid getpgrp getsid setsid getpriority setpriority getrlimit setrlimit getrusage times
		sched_yield sched_getaffinity sched_setaffinity sched_getparam sched_setparam sched_getscheduler
		sched_setscheduler sched_getattr sched_setattr sched_get_priority_max sched_get_priority_min
		sched_rr_get_interval ioprio_get ioprio_set getcpu arch_prctl get_thread_area set_thread_area`},
	{"who and where one is; a change of ids is refused by the kernel, for want of a capability", `
		getuid geteuid getgid getegid getresuid getresgid getgroups setuid setgid setreuid setregid setresuid setresgid
		setfsuid setfsgid setgroups capget capset uname sysinfo umask getcwd chdir fchdir`},
	{"time; the clock cannot be set", `
		gettimeofday time clock_gettime clock_getres clock_nanosleep nanosleep adjtimex alarm getitimer setitimer
		timer_create timer_settime timer_gettime timer_getoverrun timer_delete`},
	{"files; Landlock and the file system decide", `
		open openat openat2 creat access faccessat faccessat2 stat lstat fstat newfstatat fstatat statx statfs fstatfs ustat
		getdents getdents64 readlink readlinkat link linkat symlink symlinkat unlink unlinkat rename renameat renameat2
		mkdir mkdirat rmdir mknod mknodat chmod fchmod fchmodat fchmodat2 chown fchown fchownat lchown
		truncate ftruncate fallocate flock fsync fdatasync sync syncfs sync_file_range utime utimes utimensat futimesat
		getxattr lgetxattr fgetxattr setxattr lsetxattr fsetxattr listxattr llistxattr flistxattr
		removexattr lremovexattr fremovexattr getxattrat setxattrat listxattrat removexattrat
		io_setup io_submit io_cancel io_destroy io_getevents io_pgetevents fanotify_mark sysfs`},
	{"sockets, once they are made", `
		bind connect listen accept accept4 getsockname getpeername getsockopt shutdown`},
	{"System V and POSIX communication, inside the namespace of its own", `
		shmget shmat shmctl shmdt semget semop semtimedop semctl msgget msgsnd msgrcv msgctl
		mq_open mq_unlink mq_timedsend mq_timedreceive mq_notify mq_getsetattr`},
	{"confining oneself further, and random numbers", `
		landlock_create_ruleset landlock_add_rule landlock_restrict_self getrandom`},
}

// namespaceFlags are the clone(2) and unshare(2) flags that make namespaces: time,
// mount, cgroup, uts, ipc, user, pid and network.
const namespaceFlags = 0x80 | 0x20000 | 0x2000000 | 0x4000000 | 0x8000000 | 0x10000000 | 0x20000000 | 0x40000000

// rule allows a call when all its conditions hold. Several rules for one call are
// alternatives.
type rule struct {
	call       string
	conditions []condition
	why        string
}

// condition compares an argument, all 64 bits of it.
type condition struct {
	arg   uint32
	op    string // "==", "!=", "<=", ">=", or "no bit of"
	value uint64
}

// upTo32 goes with every comparison that says what an argument is not, where the
// kernel looks at 32 bits only: with something in the upper half the filter would
// see another value than the kernel.
const upTo32 = 0xffffffff

// protocolUDP is the last protocol of the Internet that programs need. Those behind it
// (SCTP, DCCP, UDP-Lite, L2TP, SMC, MPTCP) are parts of the kernel that it loads because
// somebody asks for a socket, and that have been ways into it. Libraries that prefer
// MPTCP go on with TCP.
const protocolUDP = 17

// unusualTypes are the bits of the socket types above raw ones. With protocol 0 they mean
// the same protocols, where one of those is loaded.
const unusualTypes = 0xc

var conditional = []rule{
	{"socket", []condition{{0, "==", 1}}, "AF_UNIX"},
	{"socket", []condition{{0, "==", 2}, {1, "no bit of", unusualTypes}, {2, "<=", protocolUDP}}, "AF_INET: TCP, UDP, ping; the fence decides"},
	{"socket", []condition{{0, "==", 10}, {1, "no bit of", unusualTypes}, {2, "<=", protocolUDP}}, "AF_INET6; the fence decides"},
	{"socket", []condition{{0, "==", 10}, {1, "no bit of", unusualTypes}, {2, "==", 58}}, "ping over IPv6"},
	{"socket", []condition{{0, "==", 16}, {2, "==", 0}}, "NETLINK_ROUTE, which getifaddrs(3) reads"},
	{"socketpair", []condition{{0, "==", 1}}, "AF_UNIX"},
	{"setsockopt", []condition{{1, "!=", 6}, {1, "<=", upTo32}}, "any option but TCP's"},
	{"setsockopt", []condition{{2, "!=", 31}, {2, "<=", upTo32}}, "and of those not TCP_ULP, which makes another protocol (TLS, SMC) of a connection"},
	{"clone", []condition{{0, "no bit of", namespaceFlags &^ 0xff}}, "no new namespace; the low byte is the signal at exit"},
	{"unshare", []condition{{0, "no bit of", namespaceFlags}}, "no new namespace"},
	{"execveat", []condition{{4, "no bit of", 0x1000}}, "not a file without a path (AT_EMPTY_PATH)"},
	{"ioctl", []condition{{1, "!=", 0x5412}, {1, "!=", 0x541c}, {1, "!=", 0x5423}, {1, "<=", upTo32}}, "no typing into a terminal (TIOCSTI, TIOCLINUX), and no other line discipline (TIOCSETD), which the kernel loads for whoever asks"},
	{"ioctl", []condition{{1, ">=", 0xffffffff80000000}}, "requests of C libraries that pass a negative int"},
	{"prlimit64", []condition{{0, "==", 0}}, "limits of one's own: another session's program can be ended by its limits"},
	{"prlimit64", []condition{{2, "==", 0}}, "only asking"},
	{"personality", []condition{{0, "==", 0}}, "Linux"},
	{"personality", []condition{{0, "==", 8}}, "Linux as 32 bits"},
	{"personality", []condition{{0, "==", 0xffffffff}}, "only asking"},
	{"personality", []condition{{0, "==", 0xffffffffffffffff}}, "only asking, with a negative int"},
	{"prctl", []condition{{0, "!=", 22}, {0, "<=", upTo32}}, "not PR_SET_SECCOMP"},
	{"seccomp", []condition{{0, "!=", 1}, {0, "<=", upTo32}}, "not SECCOMP_SET_MODE_FILTER"},
}

// quietly refuses of conditional what is told of no more than of refused.
var quietly = []rule{
	{"socket", []condition{{0, "==", 2}}, "MPTCP, and others that libraries try before TCP"},
	{"socket", []condition{{0, "==", 10}}, "the same over IPv6"},
	{"socket", []condition{{0, "==", 16}}, "netlink, which programs try for what they can do without, and init needs for the fence"},
}

// missing answer ENOSYS, so that programs fall back to what is allowed.
var missing = []group{
	{"its flags lie behind a pointer; C libraries fall back to clone", "clone3"},
}

// refused answer EPERM. Together with advised they are listed so that the tables cover
// every call there is; one that is in no table is from the future and answers ENOSYS.
var refused = []group{
	{"what programs try in passing, to see if it is there", `
		pidfd_open pidfd_send_signal io_uring_setup io_uring_enter io_uring_register vmsplice name_to_handle_at
		statmount listmount lsm_get_self_attr lsm_set_self_attr lsm_list_modules`},
	{"code that no file holds; browsers and virtual machines use it where it is", "memfd_create"},
	{"memory of other nodes and processes", `
		migrate_pages move_pages mbind set_mempolicy set_mempolicy_home_node get_mempolicy`},
	{"never implemented, or not any more", `
		afs_syscall getpmsg putpmsg security tuxcall vserver create_module query_module get_kernel_syms nfsservctl
		uselib _sysctl lookup_dcookie`},
	{"numbers of 32-bit machines that the tables of others repeat", `
		clock_gettime64 clock_settime64 clock_adjtime64 clock_getres_time64 clock_nanosleep_time64 timer_gettime64
		timer_settime64 timerfd_gettime64 timerfd_settime64 utimensat_time64 pselect6_time64 ppoll_time64
		io_pgetevents_time64 recvmmsg_time64 mq_timedsend_time64 mq_timedreceive_time64 semtimedop_time64
		rt_sigtimedwait_time64 futex_time64 sched_rr_get_interval_time64 arch_specific_syscall`},
}

// advice is a group whose refusal is told (Tell), with what to do instead. None of these
// calls is one that ordinary programs make often.
type advice struct {
	group
	instead string
}

// advised answer EPERM like refused.
var advised = []advice{
	{group{"other processes' memory and descriptors", `
		ptrace process_vm_readv process_vm_writev process_madvise pidfd_getfd kcmp`}, "look at it from outside of the sandbox"},
	{group{"namespaces and mounts", `
		setns mount umount2 pivot_root chroot fsopen fsconfig fsmount fspick move_mount open_tree open_tree_attr
		mount_setattr`}, ownSandbox},
	{group{"large and often attacked parts of the kernel", `
		bpf perf_event_open userfaultfd keyctl add_key request_key fanotify_init uretprobe modify_ldt`}, switchOff},
	{group{"memory that the kernel itself does not see", "memfd_secret"}, switchOff},
	{group{"files by handle, past every path", "open_by_handle_at"}, "open it by its path"},
	{group{"the machine", `
		init_module finit_module delete_module kexec_load kexec_file_load reboot swapon swapoff acct quotactl quotactl_fd
		syslog iopl ioperm settimeofday clock_settime clock_adjtime sethostname setdomainname vhangup`}, switchOff},
}

// advisedByArgument are the calls of conditional whose refusal is told, but for what
// quietly says.
var advisedByArgument = []advice{
	{group{"a socket that is in no network namespace, or that programs do not need", "socket"}, "only Unix sockets, TCP, UDP and ping are there"},
	{group{"a namespace of its own", "clone unshare"}, ownSandbox},
	{group{"a file without a path", "execveat"}, "execute it by its path"},
	{group{"typing into a terminal for somebody else, or another protocol on it", "ioctl"}, "write to the program's standard input"},
}

// What to do without several of them.
const (
	ownSandbox = "switch the program's own sandbox off (--no-sandbox, for instance): this one is around it"
	switchOff  = "switch off what needs it"
)
