package main

import (
	"archive/tar"
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/splitpod/splitpod/deploy/k8s/images/oci"
	"github.com/splitpod/splitpod/test/need"
)

// settings are what an image says about itself, and its files.
type settings struct {
	Architecture string
	User         string
	Entrypoint   []string
	Labels       map[string]string
	Files        map[string]string
}

// TestEnginesMakeTheSameImage: the Containerfiles, built by buildah and by both of
// Docker's builders, make what is packed without an engine. Files, owners, modes,
// user, entry point and labels are compared; times and layers differ.
func TestEnginesMakeTheSameImage(t *testing.T) {
	need.Root(t)
	dir, arch := t.TempDir(), runtime.GOARCH
	place := filepath.Join(dir, "context", "dist")
	if err := os.MkdirAll(filepath.Join(place, arch), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(place, "ca-certificates.crt"), roots(), 0o644); err != nil {
		t.Fatal(err)
	}
	var names []string
	want := make(map[string]settings)
	for _, d := range daemons {
		binary := []byte("this stands for " + d.name)
		if err := os.WriteFile(filepath.Join(place, arch, d.name), binary, 0o755); err != nil {
			t.Fatal(err)
		}
		names = append(names, d.name)
		want[d.name] = packed(t, d.image(arch, "1", "", binary))
	}
	for engine, build := range map[string]func(t *testing.T, dir, arch string, names []string) map[string]string{"buildah": buildah, "docker": docker} {
		t.Run(engine, func(t *testing.T) {
			archives := build(t, dir, arch, names)
			if len(archives) < len(names) {
				t.Fatalf("only %d images", len(archives))
			}
			for path, name := range archives {
				got := saved(t, path)
				delete(got.Labels, "io.buildah.version") // buildah signs its work
				if diff := cmp.Diff(want[name], got); diff != "" {
					t.Errorf("%s is not what is packed (-packed +built):\n%s", filepath.Base(path), diff)
				}
			}
		})
	}
}

// packed reads back what is packed without an engine.
func packed(t *testing.T, image oci.Image) settings {
	t.Helper()
	s := settings{Architecture: image.Architecture, User: image.User, Entrypoint: image.Entrypoint, Labels: image.Labels, Files: make(map[string]string)}
	for _, f := range image.Files {
		s.Files[strings.TrimSuffix(f.Name, "/")] = entry(f.Name[len(f.Name)-1] == '/', f.Mode, 0, 0, f.Data)
	}
	return s
}

// buildah builds and returns the archives with the daemon that is in each.
func buildah(t *testing.T, dir, arch string, names []string) map[string]string {
	program := need.Program(t, "buildah")
	store := []string{"--root", t.TempDir(), "--runroot", t.TempDir(), "--storage-driver", "vfs"}
	out := make(map[string]string)
	for _, name := range names {
		path := filepath.Join(dir, name+"-buildah.tar")
		run(t, program, append(store, "build", "--isolation", "chroot", "-f", name+".Containerfile", "--build-arg", "TARGETARCH="+arch, "--build-arg", "VERSION=1", "-t", name, dir+"/context")...)
		run(t, program, append(store, "push", name, "docker-archive:"+path)...)
		out[path] = name
	}
	return out
}

// docker starts a daemon in namespaces of its own.
func docker(t *testing.T, dir, arch string, names []string) map[string]string {
	need.NetNS(t)
	programs, err := exec.Command("../../../test/docker.sh").Output()
	if err != nil {
		t.Fatalf("bring Docker's programs: %v", err)
	}
	work := filepath.Join(dir, "docker")
	if err := os.Mkdir(work, 0o755); err != nil {
		t.Fatal(err)
	}
	run(t, "unshare", append([]string{"--mount", "--net", "--", "testdata/docker.sh", strings.TrimSpace(string(programs)), work, dir + "/context", arch}, names...)...)
	out := make(map[string]string)
	for _, name := range names {
		out[work+"/"+name+"-classic.tar"], out[work+"/"+name+"-buildkit.tar"] = name, name
	}
	return out
}

func run(t *testing.T, program string, argv ...string) {
	t.Helper()
	if out, err := exec.Command(program, argv...).CombinedOutput(); err != nil {
		t.Fatalf("%s %s: %v\n%s", program, strings.Join(argv, " "), err, out)
	}
}

// saved reads an archive as docker save writes it.
func saved(t *testing.T, path string) settings {
	t.Helper()
	data, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	blobs := make(map[string][]byte)
	walkTar(t, data, func(e tarEntry) { blobs[e.name] = e.data })
	var list []struct {
		Config string
		Layers []string
	}
	if err := json.Unmarshal(blobs["manifest.json"], &list); err != nil || len(list) != 1 {
		t.Fatalf("%s: %v, %d images", path, err, len(list))
	}
	var c struct {
		Architecture string
		Config       struct {
			User       string
			Entrypoint []string
			Labels     map[string]string
		}
	}
	if err := json.Unmarshal(blobs[list[0].Config], &c); err != nil {
		t.Fatal(err)
	}
	s := settings{Architecture: c.Architecture, User: c.Config.User, Entrypoint: c.Config.Entrypoint, Labels: c.Config.Labels, Files: make(map[string]string)}
	for _, layer := range list[0].Layers {
		walkTar(t, blobs[layer], func(e tarEntry) {
			s.Files[strings.TrimSuffix(strings.TrimPrefix(e.name, "/"), "/")] = entry(e.dir, e.mode, e.uid, e.gid, e.data)
		})
	}
	return s
}

// tarEntry is one entry of an archive.
type tarEntry struct {
	name     string
	dir      bool
	mode     int64 // permissions, setuid and the like; Docker writes the type, too
	uid, gid int
	data     []byte
}

func walkTar(t *testing.T, data []byte, each func(tarEntry)) {
	t.Helper()
	for r := tar.NewReader(bytes.NewReader(data)); ; {
		h, err := r.Next()
		if err == io.EOF {
			return
		}
		if err != nil {
			t.Fatal(err)
		}
		content, err := io.ReadAll(r)
		if err != nil {
			t.Fatal(err)
		}
		each(tarEntry{h.Name, h.Typeflag == tar.TypeDir, h.Mode & 0o7777, h.Uid, h.Gid, content})
	}
}

// entry is what is compared of one file.
func entry(dir bool, mode int64, uid, gid int, data []byte) string {
	if dir {
		return fmt.Sprintf("directory %o %d:%d", mode, uid, gid)
	}
	return fmt.Sprintf("file %o %d:%d %s", mode, uid, gid, hash(data))
}
