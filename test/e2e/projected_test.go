package e2e_test

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/splitpod/splitpod/test/need"
)

// projectedVolume is a volume as the kubelet mounts a ConfigMap: each key a link through
// ..data, which is swapped. The workload's mount is read-only.
type projectedVolume struct{ kubelet, mount string }

func newProjectedVolume(t *testing.T) projectedVolume {
	t.Helper()
	dir, err := os.MkdirTemp("/srv", "splitpod-volume-") // not below /tmp, which every program may read
	must(t, err)
	t.Cleanup(func() { os.RemoveAll(dir) })
	must(t, os.Chmod(dir, 0o755))
	v := projectedVolume{kubelet: filepath.Join(dir, "kubelet"), mount: filepath.Join(dir, "volume")}
	for _, d := range []string{v.kubelet, v.mount} {
		must(t, os.Mkdir(d, 0o755))
	}
	must(t, unix.Mount("tmpfs", v.kubelet, "tmpfs", 0, "mode=0777"))
	t.Cleanup(func() { _ = unix.Unmount(v.kubelet, unix.MNT_DETACH) })
	must(t, unix.Mount(v.kubelet, v.mount, "", unix.MS_BIND, ""))
	must(t, unix.Mount("", v.mount, "", unix.MS_BIND|unix.MS_REMOUNT|unix.MS_RDONLY, ""))
	t.Cleanup(func() { _ = unix.Unmount(v.mount, unix.MNT_DETACH) })
	must(t, os.Symlink("..data/key", filepath.Join(v.kubelet, "key")))
	return v
}

// update replaces the content in one step and removes the former one.
func (v projectedVolume) update(t *testing.T, version, content string) {
	t.Helper()
	former, _ := os.Readlink(filepath.Join(v.kubelet, "..data"))
	must(t, os.Mkdir(filepath.Join(v.kubelet, version), 0o755))
	must(t, os.WriteFile(filepath.Join(v.kubelet, version, "key"), []byte(content), 0o644))
	must(t, os.Symlink(version, filepath.Join(v.kubelet, "..data_tmp")))
	must(t, os.Rename(filepath.Join(v.kubelet, "..data_tmp"), filepath.Join(v.kubelet, "..data")))
	if former != "" {
		must(t, os.RemoveAll(filepath.Join(v.kubelet, former)))
	}
}

// TestAnUpdatedVolumeIsReadByTheNextProgram, also where the policy names one file of it and
// every path must be enforced; the program that runs reads it where the policy names the
// volume, and is told of that where it does not.
func TestAnUpdatedVolumeIsReadByTheNextProgram(t *testing.T) {
	need.Landlock(t, 6)
	for name, tt := range map[string]struct {
		path         string
		running      string // what the running program reads after the update
		told         bool
		nextSessions string
	}{
		"the volume": {"", "second", false, "second"},
		"one file":   {"/key", "refused", true, "second"},
	} {
		t.Run(name, func(t *testing.T) {
			p := newPair(t, "version: 1\n"+who)
			v := newProjectedVolume(t)
			v.update(t, "..first", "first")
			p.policy("version: 1\n" + who + "landlock: {compatibility: hard_requirement}\nfilesystem_policy: {read_only: [" + v.mount + tt.path + "]}\n")
			p.startNetwork()
			p.process = start(t, append(p.processArgs([]string{"--workdir", "/"}),
				"sh", "-c", "trap 'cat "+v.mount+"/key || echo refused' USR1; cat "+v.mount+"/key; echo; while :; do sleep 0.05; done")...)
			eventually(t, "the first version", func() bool { return strings.Contains(p.process.out.String(), "first\n") })
			p.takesExec()
			v.update(t, "..second", "second")

			out, err := exec.Command(binary(t, "supervisor-process"), "exec", "--run-dir", p.dir+"/run", "--", "cat", v.mount+"/key").CombinedOutput()
			if string(out) != tt.nextSessions {
				t.Errorf("the next program reads %q (%v), want %q", out, err, tt.nextSessions)
			}
			must(t, p.process.cmd.Process.Signal(unix.SIGUSR1))
			eventually(t, "what the running program reads: "+tt.running, func() bool {
				_, after, _ := strings.Cut(p.process.out.String(), "first\n")
				return strings.Contains(after, tt.running)
			})
			records, err := os.ReadFile(p.dir + "/process.records")
			must(t, err)
			if told := strings.Contains(string(records), "name "+v.mount+" to let them"); told != tt.told {
				t.Errorf("told of it: %v, want %v; %s", told, tt.told, records)
			}
		})
	}
}

// TestALinkOnAVolumeGrantsNothingAfterARestart: a workload that may write above its working
// directory, and puts a link in its place for the one after it.
func TestALinkOnAVolumeGrantsNothingAfterARestart(t *testing.T) {
	need.Root(t)
	need.Landlock(t, 1)
	dir, err := os.MkdirTemp("/srv", "splitpod-volume-")
	must(t, err)
	t.Cleanup(func() { os.RemoveAll(dir) })
	for _, sub := range []string{"volume", "volume/project", "hidden"} {
		must(t, os.Mkdir(filepath.Join(dir, sub), 0o755))
		must(t, os.Chown(filepath.Join(dir, sub), 1000, 1000))
	}
	must(t, os.Chmod(dir, 0o755))
	policy := policyFile(t, "version: 1\nprocess: {run_as_user: \"1000\", run_as_group: \"1000\"}\nfilesystem_policy: {read_write: ["+dir+"/volume]}\n")
	records := filepath.Join(t.TempDir(), "records")
	run := func(script string) string {
		_, out, errs := command(t, "supervisor-process", "run", "--policy", policy, "--run-dir", t.TempDir(), "--admin-listen", "", "--records", records,
			"--workdir", dir+"/volume/project", "--", "sh", "-c", script)
		return out + errs
	}
	if out := run("cd .. && mv project before && ln -s " + dir + "/hidden project && echo linked"); !strings.Contains(out, "linked") {
		t.Fatalf("output %q", out)
	}
	if out := run("echo x > " + dir + "/hidden/file && echo written; echo end"); !strings.Contains(out, "end\n") || strings.Contains(out, "written") {
		t.Errorf("output %q", out)
	}
	text, err := os.ReadFile(records)
	must(t, err)
	if !strings.Contains(string(text), dir+"/volume/project: a symbolic link") {
		t.Errorf("nothing says why the working directory is not writable: %s", tail(string(text)))
	}
}
