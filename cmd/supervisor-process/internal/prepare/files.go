package prepare

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/splitpod/splitpod/pkg/core"
)

// What every program needs, where the image has it. A policy's own entries go first.
var (
	baseReadOnly = []string{
		"/usr", "/bin", "/sbin", "/lib", "/lib32", "/lib64", "/libx32", "/opt", "/etc", "/app", "/nix/store", "/var/log", "/proc",
		"/sys/devices/system/cpu", "/sys/fs/cgroup", "/dev/urandom", "/dev/random", "/dev/zero", "/run/systemd/resolve",
	}
	baseReadWrite = []string{"/tmp", "/var/tmp", "/dev/null", "/dev/full", "/dev/tty", "/dev/pts", "/dev/ptmx", "/dev/shm"}

	gpuMarks     = []string{"/dev/nvidiactl", "/dev/dxg", "/dev/kfd"}
	gpuReadOnly  = []string{"/run/nvidia-persistenced", "/usr/lib/wsl", "/sys/class/kfd", "/sys/devices"}
	gpuReadWrite = []string{"/dev/nvidia*", "/dev/dxg", "/dev/kfd", "/dev/dri", "/dev/infiniband", "/proc"} // CUDA names its threads in /proc
)

// Files are the paths a workload may use.
type Files struct {
	ReadOnly, ReadWrite []string
	Findings            []string // what the policy asks for and is not granted

	command string            // the path that Grant added; empty: none
	named   map[string]string // read-only paths as they were named, by what they led to
}

// PlanFiles adds to a policy's paths what every program needs, as the workload's own
// file system below root has it: never what the policy mentions already, and nothing
// that is not there. runDir holds the public certificates.
func PlanFiles(root string, s core.StaticPolicy, a Account, workdir, runDir string) Files {
	f := Files{ReadOnly: slices.Clone(s.ReadOnly), ReadWrite: slices.Clone(s.ReadWrite)}
	switch {
	case !s.IncludeWorkdir || slices.Contains(f.ReadWrite, workdir):
	case workdir == "/":
		f.Findings = append(f.Findings, "the working directory is /, which include_workdir does not open for writing; set --workdir, or list directories in read_write")
	default:
		f.ReadWrite = append(f.ReadWrite, workdir)
	}
	f.add(root, &f.ReadWrite, baseReadWrite...)
	if a.Home != "/" && owns(filepath.Join(root, a.Home), a.UID) {
		f.addPath(root, &f.ReadWrite, a.Home)
	}
	if slices.ContainsFunc(gpuMarks, func(p string) bool { return exists(filepath.Join(root, p)) }) {
		// A policy's own entry for reading stays one, but for /proc: no program of a GPU
		// starts without writing there.
		f.ReadOnly = slices.DeleteFunc(f.ReadOnly, func(p string) bool { return p == "/proc" })
		f.add(root, &f.ReadWrite, gpuReadWrite...)
		f.add(root, &f.ReadOnly, gpuReadOnly...)
	}
	for _, p := range s.ReadOnly {
		if above := ancestorIn(f.ReadWrite, p); above != "" {
			f.Findings = append(f.Findings, fmt.Sprintf("filesystem_policy.read_only: %s lies below %s, which is writable, and so is it: Landlock cannot take away below what it grants", p, above))
		}
	}
	f.add(root, &f.ReadOnly, baseReadOnly...)
	f.addPath("/", &f.ReadOnly, runDir)
	return f
}

// ancestorIn is the path of the list that p lies below; empty if none.
func ancestorIn(list []string, p string) string {
	for _, above := range list {
		if strings.HasPrefix(p, strings.TrimSuffix(above, "/")+"/") {
			return above
		}
	}
	return ""
}

// Grant adds the workload's own program, wherever the image has it: who names it as
// the command wants it to be executed. name is looked up as execvp(3) does.
func (f *Files) Grant(root, name, search, workdir string) {
	if strings.Contains(name, "/") {
		if !filepath.IsAbs(name) {
			name = filepath.Join(workdir, name)
		}
		f.grant(root, name)
		return
	}
	for _, dir := range filepath.SplitList(search) {
		if p := filepath.Join(dir, name); filepath.IsAbs(p) && isProgram(filepath.Join(root, p)) {
			f.grant(root, p)
			return
		}
	}
}

func (f *Files) grant(root, p string) {
	before := len(f.ReadOnly)
	if f.addPath(root, &f.ReadOnly, p); len(f.ReadOnly) > before {
		f.command = f.ReadOnly[before]
	}
}

// add appends the paths that match, exist, and are in neither list.
func (f *Files) add(root string, to *[]string, patterns ...string) {
	for _, pattern := range patterns {
		paths, err := filepath.Glob(filepath.Join(root, pattern))
		if err != nil {
			continue
		}
		for _, p := range paths {
			f.addPath(root, to, "/"+strings.TrimPrefix(strings.TrimPrefix(p, root), "/"))
		}
	}
}

// addPath appends one path, as add does. What the image or the command names is a path,
// whatever characters are in it, and no pattern.
func (f *Files) addPath(root string, to *[]string, p string) {
	p = filepath.Clean(p)
	if exists(filepath.Join(root, p)) && !slices.Contains(f.ReadOnly, p) && !slices.Contains(f.ReadWrite, p) {
		*to = append(*to, p)
	}
}

// Settle follows the image's symbolic links below root once, before anything of the
// workload runs: a program that gets a path later (by exec, by SSH) gets what it led to
// now, not what the workload has made of it since. A link of the user's own may be what an
// earlier workload left on a volume: it is not followed, so that Landlock refuses the path,
// but where it leads to the command, which this workload is. A link that leads to / opens
// nothing for writing.
func (f *Files) Settle(root string, user uint32) {
	f.named = make(map[string]string)
	others := func(link string) bool { return !isOf(link, user) }
	for i, p := range f.ReadOnly {
		may := others
		if p == f.command {
			may = nil
		}
		to, atomic := settled(root, p, may)
		if to == "" {
			to = p
		}
		if atomic != "" {
			f.Findings = append(f.Findings, fmt.Sprintf("%s is one file of a volume that is updated by replacing its files: programs keep what they started with and cannot read what replaces it; name %s to let them", p, atomic))
		}
		f.ReadOnly[i], f.named[to] = to, p
	}
	var writable []string
	for _, p := range f.ReadWrite {
		to, _ := settled(root, p, others)
		if to == "" {
			to = p
		}
		if to == "/" {
			f.Findings = append(f.Findings, fmt.Sprintf("%s leads to /, which is never opened for writing; name the directories that are meant", p))
			continue
		}
		writable = append(writable, to)
	}
	f.ReadWrite = writable
}

// Now is Files for a program that starts later: where a read-only path led to something that
// is gone, as a projected volume's files are after an update, it is followed again, through
// links that nothing in this container can have made.
func (f *Files) Now(root string) Files {
	now := *f
	now.ReadOnly = slices.Clone(f.ReadOnly)
	for i, p := range now.ReadOnly {
		if name := f.named[p]; name != "" && name != p && !exists(filepath.Join(root, p)) {
			if to, _ := settled(root, name, projected); to != "" && exists(filepath.Join(root, to)) {
				now.ReadOnly[i] = to
			}
		}
	}
	return now
}

// projected reports whether a link is the kubelet's: made by root, on a mount that cannot be
// written through.
func projected(link string) bool {
	var st unix.Stat_t
	var fs unix.Statfs_t
	return unix.Lstat(link, &st) == nil && st.Uid == 0 && unix.Statfs(filepath.Dir(link), &fs) == nil && fs.Flags&unix.ST_RDONLY != 0
}

// atomicLink is the link that the kubelet swaps to update a volume of a ConfigMap, a Secret
// or projected sources in one step.
const atomicLink = "..data"

// maxLinks is how many links the kernel follows on one path (path_resolution(7)).
const maxLinks = 40

// settled is where a path leads to, and the volume it leads through that the kubelet
// updates, if any. What is not there stays as it is, and so does what is below /proc, where
// links lead every program somewhere else. Where may is given, a path with a
// link it does not want followed leads nowhere.
func settled(root, p string, may func(link string) bool) (to, volume string) {
	at, rest, links := "/", strings.Split(strings.Trim(p, "/"), "/"), 0
	for len(rest) > 0 {
		next := filepath.Join(at, rest[0])
		if next == "/proc" {
			return filepath.Join(next, filepath.Join(rest[1:]...)), volume
		}
		to, err := os.Readlink(filepath.Join(root, next))
		if err != nil {
			at, rest = next, rest[1:]
			continue
		}
		if may != nil && !may(filepath.Join(root, next)) {
			return "", ""
		}
		if links++; links > maxLinks {
			return p, ""
		}
		if rest[0] == atomicLink {
			volume = at
		}
		if filepath.IsAbs(to) {
			at = "/"
		}
		rest = append(strings.Split(strings.Trim(to, "/"), "/"), rest[1:]...)
	}
	return at, volume
}

func exists(path string) bool {
	_, err := os.Lstat(path)
	return err == nil
}

// isOf reports whether something, a link itself, is the user's, or cannot be looked at.
func isOf(path string, uid uint32) bool {
	var st unix.Stat_t
	return unix.Lstat(path, &st) != nil || st.Uid == uid
}

// owns reports whether path is a directory of the user.
func owns(path string, uid uint32) bool {
	var st unix.Stat_t
	return unix.Lstat(path, &st) == nil && st.Mode&unix.S_IFMT == unix.S_IFDIR && st.Uid == uid
}
