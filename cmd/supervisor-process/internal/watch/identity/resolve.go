package identity

import (
	"fmt"
	"os"
	"path"

	"golang.org/x/sys/unix"
)

// maxResolve bounds the paths of one question.
const maxResolve = 10_000

// Resolve says where paths of the policy lead in the workload's file system, following
// every symbolic link as the workload would. Paths that lead to themselves, or do not
// exist, are not in the result.
func (r *Resolver) Resolve(paths []string) map[string][]string {
	out := make(map[string][]string)
	for _, p := range paths[:min(len(paths), maxResolve)] {
		if to := r.follow(p); to != "" && to != p {
			out[p] = []string{to}
		}
	}
	return out
}

// follow returns the path the kernel would show for a program at p, "" if there is
// none.
func (r *Resolver) follow(p string) string {
	if !path.IsAbs(p) {
		return ""
	}
	fd, err := unix.Openat2(r.root, p, &unix.OpenHow{
		Flags: unix.O_PATH | unix.O_CLOEXEC, Resolve: unix.RESOLVE_IN_ROOT | unix.RESOLVE_NO_MAGICLINKS,
	})
	if err != nil {
		return ""
	}
	defer unix.Close(fd)
	to, err := os.Readlink(fmt.Sprintf("/proc/self/fd/%d", fd))
	if err != nil || !path.IsAbs(to) {
		return ""
	}
	return to
}

// atItsPath reports whether a process runs the very file that its path leads to in
// the workload's root. It does not in a mount namespace of its own where another
// file is mounted over that path.
func (r *Resolver) atItsPath(p *process) bool {
	fd, err := unix.Openat2(r.root, p.exe, &unix.OpenHow{
		Flags: unix.O_PATH | unix.O_CLOEXEC, Resolve: unix.RESOLVE_IN_ROOT | unix.RESOLVE_NO_SYMLINKS,
	})
	if err != nil {
		return false
	}
	defer unix.Close(fd)
	var st unix.Stat_t
	return unix.Fstat(fd, &st) == nil && uint64(st.Dev) == p.file.dev && st.Ino == p.file.ino
}
