// Package mount gives the workload its own view of the files that belong to this
// system: a run directory with nothing but public files, and a /proc with nothing
// but the workload's processes.
//
// It answers the threats of a workload that speaks on the sockets between the two
// daemons, that looks into a daemon's memory, environment or descriptors through
// /proc, and of an image that puts a symbolic link where we mount. It does not
// restrict the image's own files.
//
// Invariant: everything here works on a mount namespace of its own, and nothing of it
// shows outside. When Setup returns without an error, /proc is the new pid namespace's
// unless Result says otherwise; when Cover does, the run directory is covered.
//
// Sources: mount_namespaces(7), openat2(2) RESOLVE_NO_SYMLINKS, proc(5).
package mount

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"
)

// Result says what is weaker than it should be.
type Result struct {
	SharedProc bool // /proc is still the container's
	Findings   []string
}

// Setup builds the view in the current mount namespace, which must be new, as pid 1
// of a new pid namespace, all but the run directory.
func Setup() (Result, error) {
	var r Result
	if err := unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, ""); err != nil {
		return r, pathError("make mounts private", "/", err)
	}
	err := mountProc()
	if errors.Is(err, unix.EPERM) {
		r.SharedProc = true
		r.Findings = append(r.Findings, "the workload sees the numbers and command lines of this daemon's processes (not their memory, files or environment), because the container's /proc is masked and the pod has its own user namespace; set procMount: Unmasked for this container")
	} else if err != nil {
		return r, err
	}
	r.Findings = append(r.Findings, freshQueues()...)
	return r, nil
}

const harmless = unix.MS_NOSUID | unix.MS_NODEV | unix.MS_NOEXEC

func mountProc() error {
	target, err := open("/proc")
	if err != nil {
		return err
	}
	defer target.Close()
	// Through the old /proc, which shows this process by its outer number.
	if err := unix.Mount("proc", "/proc", "proc", harmless, ""); err != nil {
		return pathError("mount the workload's own process table", "/proc", err)
	}
	self, err := os.Readlink("/proc/self")
	if err != nil || self != "1" {
		return fmt.Errorf("the new /proc calls this process %q instead of 1 (%v)", self, err)
	}
	return nil
}

// open opens a directory for use as a mount point, following no symbolic link on
// the way: the image may have put one anywhere.
func open(path string) (*os.File, error) {
	fd, err := unix.Openat2(unix.AT_FDCWD, path, &unix.OpenHow{
		Flags: unix.O_PATH | unix.O_DIRECTORY | unix.O_CLOEXEC, Resolve: unix.RESOLVE_NO_SYMLINKS,
	})
	if err != nil {
		return nil, pathError("open without following links", path, err)
	}
	return os.NewFile(uintptr(fd), path), nil
}

// Cover covers the run directory, an absolute path, by a small read-only file system with
// nothing but public files: relative paths, mode 0444. Setup comes before it.
func Cover(runDir string, public map[string][]byte) error {
	below, err := open(runDir)
	if err != nil {
		return err
	}
	defer below.Close()
	at := fmt.Sprintf("/proc/self/fd/%d", below.Fd())
	if err := unix.Mount("splitpod", at, "tmpfs", harmless, "mode=0755,size=16m,nr_inodes=64"); err != nil {
		return pathError("cover the run directory", runDir, err)
	}
	// From here on the path leads to the new file system.
	top, err := open(runDir)
	if err != nil {
		return err
	}
	defer top.Close()
	for name, data := range public {
		if err := writePublic(top, name, data); err != nil {
			return fmt.Errorf("write %s: %w", filepath.Join(runDir, name), err)
		}
	}
	at = fmt.Sprintf("/proc/self/fd/%d", top.Fd())
	if err := unix.Mount("", at, "", unix.MS_REMOUNT|unix.MS_RDONLY|harmless, ""); err != nil {
		return pathError("make the cover read-only", runDir, err)
	}
	return verifyCover(runDir)
}

// Over puts a public file of the covered run directory in the place of a file of the
// image's, which no link is on the way to, and which cannot be written to any more.
func Over(runDir, name, path string) error {
	var at [2]string
	for i, p := range []string{filepath.Join(runDir, name), path} {
		fd, err := unix.Openat2(unix.AT_FDCWD, p, &unix.OpenHow{Flags: unix.O_PATH | unix.O_CLOEXEC, Resolve: unix.RESOLVE_NO_SYMLINKS})
		if err != nil {
			return pathError("open without following links", p, err)
		}
		defer unix.Close(fd)
		var st unix.Stat_t
		if err := unix.Fstat(fd, &st); err != nil {
			return pathError("fstat", p, err)
		}
		if st.Mode&unix.S_IFMT != unix.S_IFREG {
			return pathError("mount over", p, errors.New("it is no regular file"))
		}
		at[i] = fmt.Sprintf("/proc/self/fd/%d", fd)
	}
	if err := unix.Mount(at[0], at[1], "", unix.MS_BIND, ""); err != nil {
		return pathError("mount over", path, err)
	}
	return nil
}

// writePublic writes one file below dir, which nobody else can write to yet.
func writePublic(dir *os.File, name string, data []byte) error {
	if !filepath.IsLocal(name) || name != filepath.Clean(name) || name == "." {
		return errors.New("it is no path below the directory")
	}
	for i := range name {
		if name[i] != '/' {
			continue
		}
		if err := unix.Mkdirat(int(dir.Fd()), name[:i], 0o755); err != nil && !errors.Is(err, unix.EEXIST) {
			return os.NewSyscallError("mkdirat", err)
		}
	}
	fd, err := unix.Openat(int(dir.Fd()), name, unix.O_WRONLY|unix.O_CREAT|unix.O_EXCL|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0o444)
	if err != nil {
		return os.NewSyscallError("openat", err)
	}
	f := os.NewFile(uintptr(fd), name)
	_, err = f.Write(data)
	return errors.Join(err, f.Chmod(0o444), f.Close())
}

// verifyCover asks the kernel what the path leads to now.
func verifyCover(path string) error {
	var st unix.Statfs_t
	if err := unix.Statfs(path, &st); err != nil {
		return pathError("statfs", path, err)
	}
	const need = unix.ST_RDONLY | unix.ST_NOSUID | unix.ST_NODEV | unix.ST_NOEXEC
	if st.Type != unix.TMPFS_MAGIC || st.Flags&need != need {
		return fmt.Errorf("%s is not covered: type %#x, flags %#x", path, st.Type, st.Flags)
	}
	return nil
}

// freshQueues mounts the message queues of the new ipc namespace over those of the
// old one, where the image has a place for them.
func freshQueues() []string {
	const path = "/dev/mqueue"
	target, err := open(path)
	if err != nil {
		return nil
	}
	defer target.Close()
	if err := unix.Mount("mqueue", fmt.Sprintf("/proc/self/fd/%d", target.Fd()), "mqueue", harmless, ""); err != nil {
		return []string{fmt.Sprintf("%s still shows the container's message queues: %v", path, err)}
	}
	return nil
}

func pathError(what, path string, err error) error {
	return &os.PathError{Op: what, Path: path, Err: err}
}
