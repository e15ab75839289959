// Command images packs the daemons' static binaries, one image each, as OCI archives
// for amd64 and arm64, with a bill of materials beside them: `make images`.
//
// It answers the threat of an image with more in it than was meant: one binary, for
// the network daemon also the root certificates it verifies origins by, no shell, no
// package manager, a numeric user. It needs no engine, no registry and no network. The
// Containerfiles beside it make the same image for people who have an engine; a test
// compares their settings.
package main

import (
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"github.com/splitpod/splitpod/deploy/k8s/images/oci"
)

// daemon is one image.
type daemon struct {
	name, user, description string
	roots                   bool // it verifies origins
}

// daemons are the images. The process daemon's has a numeric user too: it runs in
// the agent's container, where the pod says which, and copies itself as anybody.
var daemons = []daemon{
	{"supervisor-network", "65532:65532", "Decides what a sandboxed workload may reach", true},
	{"supervisor-process", "0:0", "Runs a workload in a sandbox whose only way out is a proxy", false},
}

// arches are the platforms, in the order of the index.
var arches = []string{"amd64", "arm64"}

func main() {
	dist := flag.String("dist", "dist", "folder with ARCH/NAME binaries (make dist)")
	out := flag.String("out", "dist/images", "folder to write to")
	repository := flag.String("repository", "splitpod", "prefix of the images' names")
	version := flag.String("version", "devel", "tag and version label")
	revision := flag.String("revision", "", "commit, as a label; empty: none")
	only := flag.String("arch", strings.Join(arches, ","), "architectures, separated by commas")
	pem := flag.String("roots", "", "write only the root certificates, to this file, for the Containerfile")
	flag.Parse()
	if *pem != "" {
		exit(os.WriteFile(*pem, roots(), 0o644))
	}
	for _, d := range daemons {
		if err := d.write(*dist, *out, *repository, *version, *revision, strings.Split(*only, ",")); err != nil {
			exit(err)
		}
	}
}

func exit(err error) {
	if err != nil {
		fmt.Fprintf(os.Stderr, "images: %v\n", err)
		os.Exit(1)
	}
	os.Exit(0)
}

// write packs one daemon and says its digest.
func (d daemon) write(dist, out, repository, version, revision string, arches []string) error {
	if err := os.MkdirAll(out, 0o755); err != nil {
		return err
	}
	var images []oci.Image
	for _, arch := range arches {
		path := filepath.Join(dist, arch, d.name)
		data, err := os.ReadFile(path)
		if err != nil {
			return fmt.Errorf("build the binaries first (make dist): %w", err)
		}
		images = append(images, d.image(arch, version, revision, data))
		sbom, err := oci.SBOM(d.name, version, path)
		if err != nil {
			return err
		}
		if err := os.WriteFile(filepath.Join(out, d.name+"-"+arch+".spdx.json"), sbom, 0o644); err != nil {
			return err
		}
	}
	path := filepath.Join(out, d.name+".tar")
	f, err := os.Create(path)
	if err != nil {
		return err
	}
	name := repository + "/" + d.name + ":" + version
	digest, err := oci.Write(f, name, images...)
	if err == nil {
		err = f.Close()
	}
	if err != nil {
		return fmt.Errorf("write %s: %w", path, err)
	}
	fmt.Printf("%s %s@%s\n", path, name, digest)
	return os.WriteFile(filepath.Join(out, d.name+".digest"), []byte(digest+"\n"), 0o644)
}

// image is what the Containerfile of the same name makes.
func (d daemon) image(arch, version, revision string, binary []byte) oci.Image {
	labels := map[string]string{
		"org.opencontainers.image.title":       d.name,
		"org.opencontainers.image.description": d.description,
		"org.opencontainers.image.source":      "https://github.com/splitpod/splitpod",
		"org.opencontainers.image.version":     version,
	}
	if revision != "" {
		labels["org.opencontainers.image.revision"] = revision
	}
	files := []oci.File{{Name: d.name, Mode: 0o755, Data: binary}}
	if d.roots {
		files = append(files, oci.File{Name: "etc/", Mode: 0o755}, oci.File{Name: "etc/ssl/", Mode: 0o755},
			oci.File{Name: "etc/ssl/certs/", Mode: 0o755}, oci.File{Name: rootsPath, Mode: 0o644, Data: roots()})
	}
	return oci.Image{Architecture: arch, User: d.user, Entrypoint: []string{"/" + d.name}, Labels: labels, Files: files}
}
