// Package oci writes container images as OCI archives, without a registry, an engine
// or a network.
//
// It answers the threat of an image that is not what the source says: the same files
// and settings always give the same bytes, so whoever builds again can compare one
// digest. Times are the epoch, owners and modes are given, nothing of the machine
// that builds gets in. It does not sign.
//
// Source: the OCI image format specification 1.1 (image-layout, index, manifest,
// config and layer documents).
package oci

import (
	"archive/tar"
	"bytes"
	"cmp"
	"compress/gzip"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"io"
	"slices"
)

// Media types of the parts.
const (
	typeIndex    = "application/vnd.oci.image.index.v1+json"
	typeManifest = "application/vnd.oci.image.manifest.v1+json"
	typeConfig   = "application/vnd.oci.image.config.v1+json"
	typeLayer    = "application/vnd.oci.image.layer.v1.tar+gzip"
)

// File is one entry of an image's only layer. A name that ends with a slash is a
// directory; Link makes a symbolic link.
type File struct {
	Name string // relative to the root, without a leading slash
	Mode int64
	Data []byte
	Link string
}

// Image is one platform's image.
type Image struct {
	Architecture string // as Go names it
	Files        []File
	User         string // uid:gid; empty: root
	Entrypoint   []string
	Env          []string
	Labels       map[string]string
}

// descriptor points at a blob.
type descriptor struct {
	MediaType   string            `json:"mediaType"`
	Digest      string            `json:"digest"`
	Size        int               `json:"size"`
	Platform    *platform         `json:"platform,omitempty"`
	Annotations map[string]string `json:"annotations,omitempty"`
}

type platform struct {
	Architecture string `json:"architecture"`
	OS           string `json:"os"`
}

type index struct {
	SchemaVersion int          `json:"schemaVersion"`
	MediaType     string       `json:"mediaType"`
	Manifests     []descriptor `json:"manifests"`
}

type manifest struct {
	SchemaVersion int          `json:"schemaVersion"`
	MediaType     string       `json:"mediaType"`
	Config        descriptor   `json:"config"`
	Layers        []descriptor `json:"layers"`
}

type config struct {
	Created string `json:"created"`
	platform
	Config struct {
		User       string            `json:"User,omitempty"`
		Env        []string          `json:"Env,omitempty"`
		Entrypoint []string          `json:"Entrypoint,omitempty"`
		Labels     map[string]string `json:"Labels,omitempty"`
	} `json:"config"`
	RootFS struct {
		Type    string   `json:"type"`
		DiffIDs []string `json:"diff_ids"`
	} `json:"rootfs"`
	History []history `json:"history"`
}

type history struct {
	Created   string `json:"created"`
	CreatedBy string `json:"created_by"`
}

const epoch = "1970-01-01T00:00:00Z"

// archive collects blobs by digest.
type archive struct{ blobs map[string][]byte }

func (a *archive) add(mediaType string, data []byte) descriptor {
	sum := sha256.Sum256(data)
	digest := hex.EncodeToString(sum[:])
	a.blobs[digest] = data
	return descriptor{MediaType: mediaType, Digest: "sha256:" + digest, Size: len(data)}
}

func (a *archive) addJSON(mediaType string, v any) (descriptor, error) {
	data, err := json.Marshal(v)
	if err != nil {
		return descriptor{}, fmt.Errorf("encode %s: %w", mediaType, err)
	}
	return a.add(mediaType, data), nil
}

// Write writes one archive that holds the images, one a platform, under a name such
// as registry/repository:tag, and returns the digest of their index: the digest a
// registry would show.
func Write(w io.Writer, name string, images ...Image) (digest string, err error) {
	a := &archive{blobs: make(map[string][]byte)}
	list := index{SchemaVersion: 2, MediaType: typeIndex}
	for _, im := range images {
		d, err := a.image(im)
		if err != nil {
			return "", err
		}
		list.Manifests = append(list.Manifests, d)
	}
	top, err := a.addJSON(typeIndex, list)
	if err != nil {
		return "", err
	}
	top.Annotations = map[string]string{"io.containerd.image.name": name, "org.opencontainers.image.ref.name": name}
	entry, err := json.Marshal(index{SchemaVersion: 2, MediaType: typeIndex, Manifests: []descriptor{top}})
	if err != nil {
		return "", fmt.Errorf("encode the archive's index: %w", err)
	}
	files := []File{
		{Name: "blobs/", Mode: 0o755}, {Name: "blobs/sha256/", Mode: 0o755},
		{Name: "index.json", Mode: 0o644, Data: entry},
		{Name: "oci-layout", Mode: 0o644, Data: []byte(`{"imageLayoutVersion":"1.0.0"}`)},
	}
	for digest, data := range a.blobs {
		files = append(files, File{Name: "blobs/sha256/" + digest, Mode: 0o644, Data: data})
	}
	return top.Digest, writeTar(w, files)
}

// image adds one platform's image and returns its manifest's descriptor.
func (a *archive) image(im Image) (descriptor, error) {
	var layer bytes.Buffer
	if err := writeTar(&layer, im.Files); err != nil {
		return descriptor{}, err
	}
	plain := sha256.Sum256(layer.Bytes())
	var packed bytes.Buffer
	z := gzip.NewWriter(&packed) // no name and no time in its header
	if _, err := z.Write(layer.Bytes()); err != nil {
		return descriptor{}, err
	}
	if err := z.Close(); err != nil {
		return descriptor{}, err
	}
	content := a.add(typeLayer, packed.Bytes())
	c := config{Created: epoch, platform: platform{im.Architecture, "linux"}, History: []history{{epoch, "splitpod deploy/k8s/images"}}}
	c.Config.User, c.Config.Entrypoint, c.Config.Env, c.Config.Labels = im.User, im.Entrypoint, im.Env, im.Labels
	c.RootFS.Type, c.RootFS.DiffIDs = "layers", []string{"sha256:" + hex.EncodeToString(plain[:])}
	settings, err := a.addJSON(typeConfig, c)
	if err != nil {
		return descriptor{}, err
	}
	d, err := a.addJSON(typeManifest, manifest{SchemaVersion: 2, MediaType: typeManifest, Config: settings, Layers: []descriptor{content}})
	d.Platform = &c.platform
	return d, err
}

// writeTar writes the files sorted by name, all owned by root, at the epoch. Nobody's
// order, time or umask shows.
func writeTar(w io.Writer, files []File) error {
	files = slices.SortedFunc(slices.Values(files), func(a, b File) int { return cmp.Compare(a.Name, b.Name) })
	t := tar.NewWriter(w)
	for _, f := range files {
		h := &tar.Header{Name: f.Name, Mode: f.Mode, Size: int64(len(f.Data)), Typeflag: tar.TypeReg, Format: tar.FormatUSTAR}
		switch {
		case f.Link != "":
			h.Typeflag, h.Linkname, h.Size = tar.TypeSymlink, f.Link, 0
		case f.Name[len(f.Name)-1] == '/':
			h.Typeflag = tar.TypeDir
		}
		if len(f.Name) > 100 {
			h.Format = tar.FormatPAX
		}
		if err := t.WriteHeader(h); err != nil {
			return fmt.Errorf("write %s: %w", f.Name, err)
		}
		if h.Typeflag != tar.TypeReg {
			continue
		}
		if _, err := t.Write(f.Data); err != nil {
			return fmt.Errorf("write %s: %w", f.Name, err)
		}
	}
	return t.Close()
}
