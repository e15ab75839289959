package main

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"io"
	"os"
	"os/exec"
	"path"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/splitpod/splitpod/deploy/k8s/images/oci"
	"github.com/splitpod/splitpod/test/need"
)

const root = "../../.."

// TestTwoBuildsHaveOneDigest makes the daemons and their images twice, from copies of the
// source in folders of different names, with another umask; one of them is a clone with
// a tag and a file more, of which nothing may show.
func TestTwoBuildsHaveOneDigest(t *testing.T) {
	need.Program(t, "git")
	architectures := arches
	if testing.Short() {
		architectures = arches[:1]
	}
	digests := make(map[string][]string)
	for i := range 2 {
		source := filepath.Join(t.TempDir(), strings.Repeat("x", 1+7*i))
		for _, part := range []string{"cmd", "api", "pkg", "deploy/k8s/images"} {
			if err := os.CopyFS(filepath.Join(source, part), os.DirFS(filepath.Join(root, part))); err != nil {
				t.Fatal(err)
			}
		}
		for _, file := range []string{"go.mod", "go.sum", "Makefile"} {
			data, err := os.ReadFile(filepath.Join(root, file))
			if err == nil {
				err = os.WriteFile(filepath.Join(source, file), data, 0o600)
			}
			if err != nil {
				t.Fatal(err)
			}
		}
		if i == 1 {
			git := "git init -q && git add go.mod && git -c user.name=x -c user.email=x@x.test commit -qm x && git tag v9.9.9"
			in(t, source, git)
		}
		in(t, source, "umask 077 && make dist COMMIT=0123456789abcdef ARCHES='"+strings.Join(architectures, " ")+"'")
		for _, d := range daemons {
			out := filepath.Join(source, "images")
			if err := d.write(filepath.Join(source, "dist"), out, "test", "1", "", architectures); err != nil {
				t.Fatal(err)
			}
			for _, file := range []string{d.name + ".tar", d.name + ".digest", d.name + "-amd64.spdx.json"} {
				data, err := os.ReadFile(filepath.Join(out, file))
				if err != nil {
					t.Fatal(err)
				}
				digests[file] = append(digests[file], hash(data))
			}
		}
	}
	if len(digests) != 3*len(daemons) {
		t.Fatalf("only %d files were compared", len(digests))
	}
	for file, d := range digests {
		if d[0] != d[1] {
			t.Errorf("%s differs between two builds", file)
		}
	}
}

// in runs a script in a folder, with what git knows going into binaries unless the
// script prevents it.
func in(t *testing.T, dir, script string) {
	t.Helper()
	cmd := exec.Command("sh", "-c", script)
	cmd.Dir = dir
	cmd.Env = append(os.Environ(), "GOFLAGS=-buildvcs=auto")
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
}

func hash(data []byte) string {
	sum := sha256.Sum256(data)
	return hex.EncodeToString(sum[:])
}

// TestAnImageHoldsWhatItMustAndNothingElse reads an archive as a registry would.
func TestAnImageHoldsWhatItMustAndNothingElse(t *testing.T) {
	for _, d := range daemons {
		var b bytes.Buffer
		digest, err := oci.Write(&b, "test/"+d.name+":1", d.image("amd64", "1", "abc", []byte("binary")), d.image("arm64", "1", "abc", []byte("other")))
		if err != nil {
			t.Fatal(err)
		}
		blobs := readTar(t, b.Bytes())
		for name, data := range blobs {
			if dir, base := path.Split(name); dir == "blobs/sha256/" && base != hash(data) {
				t.Errorf("blob %s has other content", name)
			}
		}
		type descriptor struct {
			MediaType, Digest string
			Platform          struct{ Architecture, OS string }
			Annotations       map[string]string
		}
		var top, list struct{ Manifests []descriptor }
		read := func(d descriptor, v any) {
			t.Helper()
			if err := json.Unmarshal(blobs["blobs/sha256/"+strings.TrimPrefix(d.Digest, "sha256:")], v); err != nil {
				t.Fatal(err)
			}
		}
		if err := json.Unmarshal(blobs["index.json"], &top); err != nil {
			t.Fatal(err)
		}
		if len(top.Manifests) != 1 || top.Manifests[0].Digest != digest || top.Manifests[0].Annotations["io.containerd.image.name"] != "test/"+d.name+":1" {
			t.Fatalf("the archive's index is %+v, the digest %s", top, digest)
		}
		read(top.Manifests[0], &list)
		if len(list.Manifests) != 2 || list.Manifests[0].Platform.Architecture != "amd64" || list.Manifests[1].Platform.Architecture != "arm64" {
			t.Fatalf("the platforms are %+v", list)
		}
		var m struct {
			Config descriptor
			Layers []descriptor
		}
		read(list.Manifests[0], &m)
		var c struct {
			Created string
			Config  struct {
				User       string
				Entrypoint []string
				Labels     map[string]string
			}
			RootFS struct {
				DiffIDs []string `json:"diff_ids"`
			}
		}
		read(m.Config, &c)
		if c.Config.User != d.user || !regexp.MustCompile(`^[0-9]+:[0-9]+$`).MatchString(c.Config.User) ||
			!slices.Equal(c.Config.Entrypoint, []string{"/" + d.name}) || c.Config.Labels["org.opencontainers.image.revision"] != "abc" || c.Created != "1970-01-01T00:00:00Z" {
			t.Errorf("the settings of %s are %+v", d.name, c)
		}
		layer := blobs["blobs/sha256/"+strings.TrimPrefix(m.Layers[0].Digest, "sha256:")]
		z, err := gzip.NewReader(bytes.NewReader(layer))
		if err != nil {
			t.Fatal(err)
		}
		plain, err := io.ReadAll(z)
		if err != nil {
			t.Fatal(err)
		}
		if len(c.RootFS.DiffIDs) != 1 || c.RootFS.DiffIDs[0] != "sha256:"+hash(plain) {
			t.Errorf("the layer is %s, the settings say %v", hash(plain), c.RootFS.DiffIDs)
		}
		files := readTar(t, plain)
		want := map[string][]byte{d.name: []byte("binary")}
		if d.roots {
			want[rootsPath] = roots()
		}
		if diff := cmp.Diff(want, files); diff != "" {
			t.Errorf("%s holds other files:\n%s", d.name, diff)
		}
	}
}

// readTar returns the files of an archive, and no directory.
func readTar(t *testing.T, data []byte) map[string][]byte {
	t.Helper()
	out := make(map[string][]byte)
	for r := tar.NewReader(bytes.NewReader(data)); ; {
		h, err := r.Next()
		if err == io.EOF {
			return out
		}
		if err != nil {
			t.Fatal(err)
		}
		if h.Uid != 0 || h.Gid != 0 || h.ModTime.Unix() != 0 || h.Mode&0o022 != 0 {
			t.Errorf("%s has owner %d:%d, time %s, mode %o", h.Name, h.Uid, h.Gid, h.ModTime, h.Mode)
		}
		if h.Typeflag == tar.TypeReg {
			if out[h.Name], err = io.ReadAll(r); err != nil {
				t.Fatal(err)
			}
		}
	}
}

// TestTheContainerfilesMakeTheSameImage compares what they say with what is packed.
func TestTheContainerfilesMakeTheSameImage(t *testing.T) {
	for _, d := range daemons {
		data, err := os.ReadFile(d.name + ".Containerfile")
		if err != nil {
			t.Fatal(err)
		}
		text := strings.ReplaceAll(string(data), "\\\n", " ")
		image := d.image("amd64", "${VERSION}", "", nil)
		want := []string{"FROM scratch", "COPY dist/${TARGETARCH}/" + d.name + " /" + d.name, "USER " + d.user, `ENTRYPOINT ["/` + d.name + `"]`}
		if d.roots {
			want = append(want, "COPY dist/ca-certificates.crt /"+rootsPath)
		}
		for _, line := range want {
			if !strings.Contains("\n"+text, "\n"+line+"\n") {
				t.Errorf("%s.Containerfile lacks %q", d.name, line)
			}
		}
		labels := make(map[string]string)
		for _, m := range regexp.MustCompile(`(org\.opencontainers\.image\.[a-z]+)="([^"]*)"`).FindAllStringSubmatch(text, -1) {
			labels[m[1]] = m[2]
		}
		if diff := cmp.Diff(image.Labels, labels); diff != "" {
			t.Errorf("the labels of %s differ:\n%s", d.name, diff)
		}
	}
}

// TestTheSBOMListsWhatIsLinked takes this test's own binary.
func TestTheSBOMListsWhatIsLinked(t *testing.T) {
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	data, err := oci.SBOM("x", "1", self)
	if err != nil {
		t.Fatal(err)
	}
	var doc struct {
		Version  string `json:"spdxVersion"`
		Packages []struct {
			ID        string `json:"SPDXID"`
			Name      string
			Version   string                      `json:"versionInfo"`
			Checksums []struct{ Checksum string } `json:"checksums"`
			Refs      []struct {
				Locator string `json:"referenceLocator"`
			} `json:"externalRefs"`
		}
		Relationships []struct {
			From string `json:"spdxElementId"`
			To   string `json:"relatedSpdxElement"`
		}
	}
	if err := json.Unmarshal(data, &doc); err != nil {
		t.Fatal(err)
	}
	locators, ids := "", make(map[string]bool)
	for _, p := range doc.Packages {
		if p.ID == "" || ids[p.ID] || p.Version == "" || len(p.Refs) != 1 {
			t.Errorf("package %+v", p)
		}
		ids[p.ID] = true
		locators += p.Refs[0].Locator + "\n"
	}
	for _, r := range doc.Relationships {
		if !ids[r.To] || r.From != "SPDXRef-DOCUMENT" && !ids[r.From] {
			t.Errorf("a relationship with something that is not there: %+v", r)
		}
	}
	if doc.Version != "SPDX-2.3" || !strings.Contains(locators, "pkg:golang/golang.org/x/crypto/x509roots/fallback@v") || !strings.Contains(locators, "pkg:golang/stdlib@1.") {
		t.Errorf("the bill of materials lacks what is linked:\n%s", locators)
	}
}

// TestTheRootsAreRead: a file without them would refuse every origin.
func TestTheRootsAreRead(t *testing.T) {
	if n := bytes.Count(roots(), []byte("BEGIN CERTIFICATE")); n < 80 {
		t.Errorf("only %d root certificates", n)
	}
}
