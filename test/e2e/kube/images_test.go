package kube_test

import (
	"crypto/sha256"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/splitpod/splitpod/deploy/k8s/images/oci"
	"github.com/splitpod/splitpod/test/e2e/kube/cluster"
)

// registry is the prefix of every image of the tests. Nothing is ever pulled.
const registry = "splitpod.test/"

// releases are two builds of each daemon, so that an image can be changed for another.
var releases = []string{"a", "b"}

// root is the repository.
const root = "../../.."

// keepDist opens the folder of what was linked, outside the repository and kept for the
// next run: go build leaves alone what is up to date. It is this run's until the
// returned function is called.
func keepDist(fallback string) (dir string, leave func(), err error) {
	cache, err := os.UserCacheDir()
	if err != nil {
		return fallback, func() {}, os.MkdirAll(fallback, 0o755)
	}
	source, err := filepath.Abs(root)
	if err != nil {
		return "", nil, err
	}
	sum := sha256.Sum256([]byte(source))
	dir = filepath.Join(cache, "splitpod", fmt.Sprintf("kube-dist-%x", sum[:8]))
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return "", nil, err
	}
	now := time.Now()
	_ = os.Chtimes(dir, now, now) // programs/build.sh removes what is old
	lock, err := os.OpenFile(filepath.Join(dir, ".lock"), os.O_CREATE|os.O_RDWR, 0o644)
	if err != nil {
		return "", nil, err
	}
	if err := unix.Flock(int(lock.Fd()), unix.LOCK_EX); err != nil {
		return "", nil, os.NewSyscallError("flock", err)
	}
	return dir, func() { lock.Close() }, nil
}

// buildImages packs the daemons in two releases, the agent and the pause image.
func buildImages(dir string) error {
	built, leave, err := keepDist(filepath.Join(dir, "dist"))
	if err != nil {
		return fmt.Errorf("keep what is built: %w", err)
	}
	defer leave()
	out := filepath.Join(dir, "images")
	for _, release := range releases {
		dist := filepath.Join(built, release)
		for _, daemon := range []string{"supervisor-network", "supervisor-process"} {
			flags := fmt.Sprintf("-s -w -X github.com/splitpod/splitpod/cmd/%s/internal/app.version=%s", daemon, release)
			if err := goBuild(filepath.Join(dist, goarch(), daemon), "./cmd/"+daemon, "-ldflags", flags); err != nil {
				return err
			}
		}
		cmd := exec.Command("go", "run", "./deploy/k8s/images", "-dist", dist, "-out", filepath.Join(out, release),
			"-repository", strings.TrimSuffix(registry, "/"), "-version", release, "-arch", goarch())
		cmd.Dir = root
		if text, err := cmd.CombinedOutput(); err != nil {
			return fmt.Errorf("pack the daemons: %w: %s", err, text)
		}
	}
	if err := buildFuture(dir, built); err != nil {
		return err
	}
	if err := fetchDefinitions(dir); err != nil {
		return err
	}
	agent := filepath.Join(built, "agent")
	if err := goBuild(agent, "./test/e2e/kube/agent", "-ldflags", "-s -w"); err != nil {
		return err
	}
	data, err := os.ReadFile(agent)
	if err != nil {
		return err
	}
	files, err := agentFiles(data)
	if err != nil {
		return err
	}
	for _, release := range append(slices.Clone(releases), future) { // FROM agent, COPY supervisor-process
		daemon, err := os.ReadFile(filepath.Join(built, release, goarch(), "supervisor-process"))
		if err != nil {
			return err
		}
		with := append(slices.Clone(files), oci.File{Name: "usr/bin/supervisor-process", Mode: 0o755, Data: daemon})
		if err := pack(filepath.Join(out, "agent-with-"+release+".tar"), registry+"agent:with-"+release, oci.Image{Files: with, Env: []string{"PATH=/usr/bin:/bin"}}); err != nil {
			return err
		}
	}
	if err := pack(filepath.Join(out, "agent.tar"), registry+"agent:1", oci.Image{Files: files, Env: []string{"PATH=/usr/bin:/bin"}}); err != nil {
		return err
	}
	return pack(filepath.Join(out, "pause.tar"), cluster.Pause,
		oci.Image{Files: []oci.File{{Name: "agent", Mode: 0o755, Data: data}}, Entrypoint: []string{"/agent", "pause"}})
}

// future is a release whose contract has nothing in common with this one.
const future = "future"

// buildFuture builds both daemons from a copy of the source in which the contract's
// revision is another one, and packs the network daemon.
func buildFuture(dir, built string) error {
	source, dist := filepath.Join(dir, "future"), filepath.Join(built, future)
	for _, part := range []string{"cmd", "api", "pkg"} {
		if err := os.CopyFS(filepath.Join(source, part), os.DirFS(filepath.Join(root, part))); err != nil {
			return err
		}
	}
	for from, to := range map[string]string{"go.mod": "go.mod", "go.sum": "go.sum", "pkg/core/contract.go": "pkg/core/contract.go"} {
		data, err := os.ReadFile(filepath.Join(root, from))
		if err != nil {
			return err
		}
		text := regexp.MustCompile(`(?m)^(\t(?:Min|Max)Revision = ).*$`).ReplaceAll(data, []byte("${1}77"))
		if changed := string(text) != string(data); changed != strings.HasSuffix(from, ".go") {
			return fmt.Errorf("the contract's revision is not where it was: %s", from)
		}
		if err := os.WriteFile(filepath.Join(source, to), text, 0o644); err != nil {
			return err
		}
	}
	for _, daemon := range []string{"supervisor-network", "supervisor-process"} {
		flags := fmt.Sprintf("-s -w -X github.com/splitpod/splitpod/cmd/%s/internal/app.version=%s", daemon, future)
		if err := goBuildIn(source, filepath.Join(dist, goarch(), daemon), "./cmd/"+daemon, "-ldflags", flags); err != nil {
			return err
		}
	}
	cmd := exec.Command("go", "run", "./deploy/k8s/images", "-dist", dist, "-out", filepath.Join(dir, "images", future),
		"-repository", strings.TrimSuffix(registry, "/"), "-version", future, "-arch", goarch())
	cmd.Dir = root
	if text, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("pack the daemons: %w: %s", err, text)
	}
	return nil
}

// archives are the packed images.
func archives(dir string) []string {
	found, _ := filepath.Glob(filepath.Join(dir, "images", "*", "*.tar"))
	more, _ := filepath.Glob(filepath.Join(dir, "images", "*.tar"))
	return append(more, found...)
}

func goarch() string {
	out, err := exec.Command("go", "env", "GOARCH").Output()
	if err != nil {
		return "amd64"
	}
	return strings.TrimSpace(string(out))
}

func goBuild(to, pkg string, args ...string) error { return goBuildIn(root, to, pkg, args...) }

func goBuildIn(source, to, pkg string, args ...string) error {
	cmd := exec.Command("go", append(append([]string{"build", "-trimpath", "-o", to}, args...), pkg)...)
	cmd.Dir = source
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("build %s: %w: %s", pkg, err, out)
	}
	return nil
}

func pack(path, name string, image oci.Image) error {
	image.Architecture = goarch()
	f, err := os.Create(path)
	if err != nil {
		return err
	}
	defer f.Close()
	_, err = oci.Write(f, name, image)
	return err
}

// agentFiles are an agent's image: a shell, curl with the libraries it needs, and the
// tests' own program; users, as every image has them.
func agentFiles(agent []byte) ([]oci.File, error) {
	files := []oci.File{
		{Name: "usr/", Mode: 0o755}, {Name: "usr/bin/", Mode: 0o755}, {Name: "bin/", Mode: 0o755}, {Name: "etc/", Mode: 0o755},
		{Name: "tmp/", Mode: 0o1777}, {Name: "proc/", Mode: 0o555}, {Name: "sys/", Mode: 0o555}, {Name: "dev/", Mode: 0o755},
		{Name: "run/", Mode: 0o755}, {Name: "var/", Mode: 0o755}, {Name: "home/", Mode: 0o755},
		{Name: "usr/bin/agent", Mode: 0o755, Data: agent},
		{Name: "etc/passwd", Mode: 0o644, Data: []byte("root:x:0:0::/:/bin/sh\nagent:x:1000:1000::/home:/bin/sh\n")},
		{Name: "etc/group", Mode: 0o644, Data: []byte("root:x:0:\nagent:x:1000:\n")},
	}
	busybox, err := os.ReadFile("/bin/busybox")
	if err != nil {
		return nil, fmt.Errorf("the agent's image needs busybox-static (test/setup.sh): %w", err)
	}
	files = append(files, oci.File{Name: "bin/busybox", Mode: 0o755, Data: busybox})
	for _, applet := range strings.Fields("sh ls cat env sleep grep id wc tr head mount nc kill ps ip touch dd true false echo wget") {
		files = append(files, oci.File{Name: "bin/" + applet, Link: "busybox"})
	}
	libraries, err := exec.Command("ldd", "/usr/bin/curl").Output()
	if err != nil {
		return nil, fmt.Errorf("find curl's libraries: %w", err)
	}
	made := map[string]bool{"usr/": true, "usr/bin/": true, "bin/": true}
	for _, word := range append(strings.Fields(string(libraries)), "/usr/bin/curl") {
		if !strings.HasPrefix(word, "/") {
			continue
		}
		data, err := os.ReadFile(word)
		if err != nil {
			return nil, err
		}
		name := strings.TrimPrefix(word, "/")
		for i, c := range name {
			if c == '/' && !made[name[:i+1]] {
				made[name[:i+1]] = true
				files = append(files, oci.File{Name: name[:i+1], Mode: 0o755})
			}
		}
		files = append(files, oci.File{Name: name, Mode: 0o755, Data: data})
	}
	return files, nil
}
