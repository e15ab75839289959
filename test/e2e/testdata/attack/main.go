// Command attack tries, as a workload, what the sandbox must refuse: system calls that
// no ordinary program makes. It prints a line "bad …" for each that is not refused in
// the way it should be, and at last how many it tried.
package main

import (
	"errors"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"unsafe"

	"golang.org/x/sys/unix"
)

var tried int

// refused reports a try that did not end with one of the errors.
func refused(what string, err error, want ...error) {
	tried++
	for _, w := range want {
		if errors.Is(err, w) {
			return
		}
	}
	fmt.Printf("bad %s: %v, want %v\n", what, err, want)
}

// call makes a system call with arguments that mean nothing.
func call(number uintptr, args ...uintptr) error {
	var a [6]uintptr
	copy(a[:], args)
	_, _, errno := unix.Syscall6(number, a[0], a[1], a[2], a[3], a[4], a[5])
	if errno == 0 {
		return nil
	}
	return errno
}

func socket(family, kind, protocol int) error {
	fd, err := unix.Socket(family, kind, protocol)
	if err == nil {
		unix.Close(fd)
	}
	return err
}

const perm = unix.EPERM

func families() {
	allowed := []int{unix.AF_UNIX, unix.AF_INET, unix.AF_INET6, unix.AF_NETLINK}
	for family := range 64 {
		for _, kind := range []int{unix.SOCK_STREAM, unix.SOCK_DGRAM, unix.SOCK_RAW, unix.SOCK_SEQPACKET} {
			if !slices.Contains(allowed, family) {
				refused(fmt.Sprintf("socket(%d, %d)", family, kind), socket(family, kind, 0), perm)
			}
		}
	}
	refused("socket(high bits)", call(unix.SYS_SOCKET, 1<<32|unix.AF_VSOCK, unix.SOCK_STREAM, 0), perm)
	for protocol := 1; protocol < 32; protocol++ {
		refused(fmt.Sprintf("netlink protocol %d", protocol), socket(unix.AF_NETLINK, unix.SOCK_RAW, protocol), perm)
	}
	for _, protocol := range []int{1, 6, 17, 255} {
		refused(fmt.Sprintf("raw protocol %d", protocol), socket(unix.AF_INET, unix.SOCK_RAW, protocol), perm)
	}
	for _, family := range []int{unix.AF_INET, unix.AF_INET6} {
		for protocol := 18; protocol < 512; protocol++ {
			if protocol != unix.IPPROTO_ICMPV6 {
				refused(fmt.Sprintf("protocol %d of family %d", protocol, family), socket(family, unix.SOCK_STREAM, protocol), perm)
			}
		}
		for kind := unix.SOCK_RDM; kind <= unix.SOCK_PACKET; kind++ {
			refused(fmt.Sprintf("type %d of family %d", kind, family), socket(family, kind, 0), perm)
		}
	}
	if err := socket(unix.AF_NETLINK, unix.SOCK_RAW, unix.NETLINK_ROUTE); err != nil {
		fmt.Println("bad: reading the routes does not work:", err)
	}
}

func iouring() {
	refused("io_uring_setup", call(unix.SYS_IO_URING_SETUP, 8, uintptr(unsafe.Pointer(&[256]byte{}))), perm)
	refused("io_uring_enter", call(unix.SYS_IO_URING_ENTER, 0), perm)
	refused("io_uring_register", call(unix.SYS_IO_URING_REGISTER, 0), perm)
}

// otherABI numbers calls as x32 does, which only amd64 has.
func otherABI() {
	if runtime.GOARCH != "amd64" {
		return
	}
	const x32 = 0x40000000
	for _, number := range []uintptr{unix.SYS_SOCKET, unix.SYS_GETPID, 512, 520, 545, unix.SYS_MOUNT} {
		refused(fmt.Sprintf("x32 call %d", number), call(x32|number, unix.AF_VSOCK, unix.SOCK_STREAM), unix.ENOSYS)
	}
}

func namespaces() {
	for name, flag := range map[string]uintptr{
		"user": unix.CLONE_NEWUSER, "mount": unix.CLONE_NEWNS, "net": unix.CLONE_NEWNET, "pid": unix.CLONE_NEWPID,
		"ipc": unix.CLONE_NEWIPC, "uts": unix.CLONE_NEWUTS, "cgroup": unix.CLONE_NEWCGROUP, "time": unix.CLONE_NEWTIME,
	} {
		refused("unshare "+name, call(unix.SYS_UNSHARE, flag), perm)
		refused("unshare hidden "+name, call(unix.SYS_UNSHARE, unix.CLONE_FILES|flag), perm)
		if flag != unix.CLONE_NEWTIME { // a signal's number in clone
			refused("clone "+name, call(unix.SYS_CLONE, flag|uintptr(unix.SIGCHLD)), perm)
		}
	}
	refused("clone3", call(unix.SYS_CLONE3, 0, 0), unix.ENOSYS)
	for _, ns := range []string{"net", "mnt", "pid", "user"} {
		fd, err := unix.Open("/proc/1/ns/"+ns, unix.O_RDONLY, 0)
		refused("open init's "+ns, err, unix.EACCES, perm)
		refused("setns "+ns, call(unix.SYS_SETNS, uintptr(max(fd, 0)), 0), perm)
	}
}

// always are the calls that are refused whatever their arguments.
func always() {
	calls := map[string]uintptr{
		"mount": unix.SYS_MOUNT, "umount2": unix.SYS_UMOUNT2, "pivot_root": unix.SYS_PIVOT_ROOT, "chroot": unix.SYS_CHROOT,
		"fsopen": unix.SYS_FSOPEN, "fsconfig": unix.SYS_FSCONFIG, "fsmount": unix.SYS_FSMOUNT, "fspick": unix.SYS_FSPICK,
		"move_mount": unix.SYS_MOVE_MOUNT, "open_tree": unix.SYS_OPEN_TREE, "mount_setattr": unix.SYS_MOUNT_SETATTR,
		"bpf": unix.SYS_BPF, "perf_event_open": unix.SYS_PERF_EVENT_OPEN, "userfaultfd": unix.SYS_USERFAULTFD,
		"kexec_load": unix.SYS_KEXEC_LOAD, "kexec_file_load": unix.SYS_KEXEC_FILE_LOAD, "init_module": unix.SYS_INIT_MODULE,
		"finit_module": unix.SYS_FINIT_MODULE, "delete_module": unix.SYS_DELETE_MODULE, "keyctl": unix.SYS_KEYCTL,
		"add_key": unix.SYS_ADD_KEY, "request_key": unix.SYS_REQUEST_KEY, "open_by_handle_at": unix.SYS_OPEN_BY_HANDLE_AT,
		"name_to_handle_at": unix.SYS_NAME_TO_HANDLE_AT, "quotactl": unix.SYS_QUOTACTL, "acct": unix.SYS_ACCT, "swapon": unix.SYS_SWAPON,
		"swapoff": unix.SYS_SWAPOFF, "reboot": unix.SYS_REBOOT, "syslog": unix.SYS_SYSLOG, "settimeofday": unix.SYS_SETTIMEOFDAY,
		"clock_settime": unix.SYS_CLOCK_SETTIME, "sethostname": unix.SYS_SETHOSTNAME, "vhangup": unix.SYS_VHANGUP,
		"ptrace": unix.SYS_PTRACE, "process_vm_readv": unix.SYS_PROCESS_VM_READV, "process_vm_writev": unix.SYS_PROCESS_VM_WRITEV,
		"process_madvise": unix.SYS_PROCESS_MADVISE, "pidfd_open": unix.SYS_PIDFD_OPEN, "pidfd_getfd": unix.SYS_PIDFD_GETFD,
		"pidfd_send_signal": unix.SYS_PIDFD_SEND_SIGNAL, "kcmp": unix.SYS_KCMP, "memfd_create": unix.SYS_MEMFD_CREATE,
		"memfd_secret": unix.SYS_MEMFD_SECRET, "fanotify_init": unix.SYS_FANOTIFY_INIT, "vmsplice": unix.SYS_VMSPLICE,
		"move_pages": unix.SYS_MOVE_PAGES, "migrate_pages": unix.SYS_MIGRATE_PAGES,
	}
	for _, name := range slices.Sorted(maps.Keys(calls)) {
		refused(name, call(calls[name]), perm)
	}
	refused("execveat without a path", call(unix.SYS_EXECVEAT, 0, uintptr(unsafe.Pointer(&[1]byte{})), 0, 0, unix.AT_EMPTY_PATH), perm)
	refused("personality", call(unix.SYS_PERSONALITY, 0x0040000), perm)
	refused("ioctl TIOCSTI", call(unix.SYS_IOCTL, 0, unix.TIOCSTI, uintptr(unsafe.Pointer(&[1]byte{}))), perm)
	refused("ioctl TIOCLINUX", call(unix.SYS_IOCTL, 0, 0x541c, uintptr(unsafe.Pointer(&[1]byte{2}))), perm)
	refused("ioctl TIOCSTI with high bits", call(unix.SYS_IOCTL, 0, 1<<32|unix.TIOCSTI, 0), perm)
	refused("setsockopt TCP_ULP", call(unix.SYS_SETSOCKOPT, 0, unix.SOL_TCP, unix.TCP_ULP, uintptr(unsafe.Pointer(&[4]byte{'t', 'l', 's'})), 4), perm)
	refused("ioctl TIOCSETD", call(unix.SYS_IOCTL, 0, unix.TIOCSETD, uintptr(unsafe.Pointer(&[1]int32{27}))), perm)
	refused("mknod", unix.Mknod("/tmp/attack-device", unix.S_IFBLK|0o600, 1<<8), perm, unix.EACCES)
	refused("chown to root", unix.Fchownat(unix.AT_FDCWD, "/tmp", 0, 0, 0), perm, unix.EACCES)
	refused("setuid(0)", call(unix.SYS_SETUID, 0), perm)
	refused("setgroups", call(unix.SYS_SETGROUPS, 1, uintptr(unsafe.Pointer(&[1]uint32{0}))), perm)
}

func filters() {
	const setModeFilter, setModeStrict = 1, 0
	program := []uint16{0, 0}
	refused("seccomp filter", call(unix.SYS_SECCOMP, setModeFilter, 0, uintptr(unsafe.Pointer(&program[0]))), perm)
	refused("seccomp listener", call(unix.SYS_SECCOMP, setModeFilter, unix.SECCOMP_FILTER_FLAG_NEW_LISTENER, uintptr(unsafe.Pointer(&program[0]))), perm)
	refused("prctl filter", call(unix.SYS_PRCTL, unix.PR_SET_SECCOMP, 2, uintptr(unsafe.Pointer(&program[0]))), perm)
	refused("prctl strict", call(unix.SYS_PRCTL, unix.PR_SET_SECCOMP, 1), perm)
	refused("prctl strict, hidden", call(unix.SYS_PRCTL, 1<<32|unix.PR_SET_SECCOMP, 1), perm)
}

// identity tries to look like another program.
func identity() {
	const setMM, exeFile, mmMap = 35, 13, 14
	fd, err := unix.Open("/usr/bin/curl", unix.O_RDONLY, 0)
	if err != nil {
		fmt.Println("bad: open curl:", err)
	}
	refused("PR_SET_MM_EXE_FILE", call(unix.SYS_PRCTL, setMM, exeFile, uintptr(fd)), perm, unix.EINVAL)
	refused("PR_SET_MM_MAP", call(unix.SYS_PRCTL, setMM, mmMap, uintptr(unsafe.Pointer(&[256]byte{})), 104), perm, unix.EINVAL)
	parent := strconv.Itoa(os.Getppid())
	_, err = os.OpenFile("/proc/"+parent+"/mem", os.O_RDWR, 0)
	refused("write the parent's memory", err, unix.EACCES, perm)
	_, err = os.OpenFile("/proc/self/mem", os.O_WRONLY, 0)
	refused("write to its own mem file", err, unix.EACCES, perm)
}

// init1 tries to change the sandbox's init, pid 1.
func init1() {
	var limit [2]uint64
	for what, err := range map[string]error{
		"prlimit":            call(unix.SYS_PRLIMIT64, 1, unix.RLIMIT_NOFILE, uintptr(unsafe.Pointer(&limit))),
		"setpriority":        call(unix.SYS_SETPRIORITY, unix.PRIO_PROCESS, 1, 19),
		"sched_setscheduler": call(unix.SYS_SCHED_SETSCHEDULER, 1, 3, uintptr(unsafe.Pointer(&[1]int32{}))),
		"sched_setaffinity":  call(unix.SYS_SCHED_SETAFFINITY, 1, 8, uintptr(unsafe.Pointer(&[1]uint64{1}))),
		"kill":               unix.Kill(1, unix.SIGKILL),
		"kill, term":         unix.Kill(1, unix.SIGTERM),
	} {
		refused(what, err, perm)
	}
	for _, name := range []string{"oom_score_adj", "mem", "environ", "maps", "root", "fd", "cwd", "ns/net", "exe"} {
		for _, flag := range []int{os.O_RDONLY, os.O_WRONLY} {
			f, err := os.OpenFile("/proc/1/"+name, flag, 0)
			if name == "oom_score_adj" && flag == os.O_RDONLY {
				continue // a number that is no secret
			}
			if name == "fd" && flag == os.O_RDONLY && err == nil {
				_, err = f.Readdirnames(1)
			}
			refused("/proc/1/"+name, err, unix.EACCES, perm, unix.EISDIR)
		}
	}
}

// devices are those that lead out of a container.
func devices() {
	for _, path := range []string{"/dev/mem", "/dev/kmem", "/dev/port", "/dev/net/tun", "/dev/fuse", "/dev/kvm", "/dev/kmsg", "/dev/vsock", "/dev/vhost-net",
		"/dev/loop-control", "/dev/loop0", "/dev/sda", "/dev/vda", "/dev/nvme0n1", "/dev/mapper/control", "/dev/uinput", "/dev/hpet", "/dev/snapshot", "/proc/sysrq-trigger", "/proc/kcore", "/proc/sys/kernel/core_pattern"} {
		_, err := os.OpenFile(path, os.O_RDWR, 0)
		refused(path, err, unix.EACCES, perm, unix.ENOENT, unix.ENXIO, unix.EROFS, unix.ENODEV)
	}
}

// readOnly tries to change what lies below a directory that DAC would let it change.
func readOnly(dir, writable string) {
	file := filepath.Join(dir, "file")
	inside, outside := filepath.Join(dir, "new"), filepath.Join(writable, "new")
	_ = os.WriteFile(outside, []byte("x"), 0o644)
	at, _ := unix.Open(dir, unix.O_PATH|unix.O_DIRECTORY, 0)
	path, _ := unix.Open(file, unix.O_PATH, 0)
	reader, _ := unix.Open(file, unix.O_RDONLY, 0)
	open := func(name string, flags int) error {
		fd, err := unix.Open(name, flags, 0o644)
		if err == nil {
			unix.Close(fd)
		}
		return err
	}
	openat2 := func(flags uint64) error {
		_, err := unix.Openat2(at, "file", &unix.OpenHow{Flags: flags})
		return err
	}
	_ = os.Chdir(dir)
	for what, err := range map[string]error{
		"open for writing": open(file, unix.O_WRONLY), "truncate by open": open(file, unix.O_RDONLY|unix.O_TRUNC), "creat": open(inside, unix.O_CREAT|unix.O_WRONLY),
		"a file without a name": open(dir, unix.O_TMPFILE|unix.O_RDWR), "append": open(file, unix.O_WRONLY|unix.O_APPEND),
		"openat2": openat2(unix.O_RDWR), "openat2 and truncate": openat2(unix.O_TRUNC | unix.O_RDONLY),
		"through /proc/self/cwd": open("/proc/self/cwd/file", unix.O_WRONLY), "through /proc/self/fd": open(fmt.Sprintf("/proc/self/fd/%d", reader), unix.O_WRONLY),
		"an O_PATH descriptor again": open(fmt.Sprintf("/proc/self/fd/%d", path), unix.O_RDWR), "a directory's descriptor": open(fmt.Sprintf("/proc/self/fd/%d/file", at), unix.O_RDWR),
		"/proc/self/root": open("/proc/self/root"+file, unix.O_WRONLY), "dots": open(writable+"/../"+filepath.Base(dir)+"/file", unix.O_WRONLY),
		"truncate": unix.Truncate(file, 0), "unlink": unix.Unlink(file), "rmdir": unix.Rmdir(filepath.Join(dir, "sub")), "mkdir": unix.Mkdir(inside, 0o755),
		"symlink": unix.Symlink("x", inside), "link in": unix.Link(outside, inside), "link out": unix.Link(file, outside+"2"),
		"rename away": unix.Rename(file, outside+"3"), "rename in": unix.Rename(outside, inside), "rename": unix.Rename(file, inside),
		"exchange": unix.Renameat2(unix.AT_FDCWD, file, unix.AT_FDCWD, outside, unix.RENAME_EXCHANGE), "fifo": unix.Mkfifo(inside, 0o600),
		"unix socket": bindUnix(inside), "ftruncate": unix.Ftruncate(reader, 0),
	} {
		refused(what, err, unix.EACCES, unix.EXDEV, unix.EINVAL)
	}
	if data, err := os.ReadFile(file); string(data) != "text" {
		fmt.Printf("bad: the file holds %q (%v)\n", data, err)
	}
}

func bindUnix(path string) error {
	fd, err := unix.Socket(unix.AF_UNIX, unix.SOCK_STREAM, 0)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	return unix.Bind(fd, &unix.SockaddrUnix{Name: path})
}

func main() {
	runtime.LockOSThread()
	switch os.Args[1] {
	case "families":
		families()
	case "iouring":
		iouring()
	case "abi":
		otherABI()
	case "namespaces":
		namespaces()
	case "always":
		always()
	case "filters":
		filters()
	case "identity":
		identity()
	case "init":
		init1()
	case "devices":
		devices()
	case "readonly":
		readOnly(os.Args[2], os.Args[3])
	default:
		fmt.Println("bad: no such attack")
	}
	fmt.Println("tried", tried)
}
