package oci

import (
	"crypto/sha256"
	"debug/buildinfo"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"os"
	"runtime/debug"
	"strings"
)

// SBOM is a bill of materials of one static Go binary, in SPDX 2.3, from what the
// linker recorded in it: what was linked, not what a file of dependencies lists.
func SBOM(name, version, path string) ([]byte, error) {
	info, err := buildinfo.ReadFile(path)
	if err != nil {
		return nil, fmt.Errorf("read the build information of %s: %w", path, err)
	}
	data, err := os.ReadFile(path)
	if err != nil {
		return nil, err
	}
	sum := sha256.Sum256(data)
	digest := hex.EncodeToString(sum[:])
	root := spdxPackage{
		Name: name, ID: "SPDXRef-binary", Version: version, Download: "NOASSERTION", Analyzed: false,
		License: "NOASSERTION", Declared: "NOASSERTION", Copyright: "NOASSERTION", Purpose: "APPLICATION",
		Checksums: []spdxChecksum{{"SHA256", digest}}, References: []spdxReference{purl(info.Main.Path, version)},
	}
	doc := spdx{
		Version: "SPDX-2.3", License: "CC0-1.0", ID: "SPDXRef-DOCUMENT", Name: name,
		Namespace:     "https://github.com/splitpod/splitpod/sbom/" + name + "/" + digest,
		Creation:      spdxCreation{Created: epoch, Creators: []string{"Tool: splitpod-images"}},
		Packages:      []spdxPackage{root, goPackage(0, "stdlib", strings.TrimPrefix(info.GoVersion, "go"), "")},
		Relationships: []spdxRelationship{{"SPDXRef-DOCUMENT", "DESCRIBES", root.ID}, {root.ID, "DEPENDS_ON", "SPDXRef-module-0"}},
	}
	for i, m := range info.Deps {
		p := modulePackage(i+1, m)
		doc.Packages = append(doc.Packages, p)
		doc.Relationships = append(doc.Relationships, spdxRelationship{root.ID, "DEPENDS_ON", p.ID})
	}
	return json.MarshalIndent(doc, "", " ")
}

// modulePackage describes what was really linked: a replacement where there is one.
func modulePackage(n int, m *debug.Module) spdxPackage {
	if m.Replace != nil {
		m = m.Replace
	}
	return goPackage(n, m.Path, m.Version, m.Sum)
}

func goPackage(n int, path, version, sum string) spdxPackage {
	p := spdxPackage{
		Name: path, ID: fmt.Sprintf("SPDXRef-module-%d", n), Version: version, Download: "NOASSERTION",
		License: "NOASSERTION", Declared: "NOASSERTION", Copyright: "NOASSERTION", Purpose: "LIBRARY",
		References: []spdxReference{purl(path, version)},
	}
	if sum != "" {
		p.Comment = "go.sum " + sum
	}
	return p
}

func purl(path, version string) spdxReference {
	return spdxReference{"PACKAGE-MANAGER", "purl", "pkg:golang/" + path + "@" + version}
}

type spdx struct {
	Version       string             `json:"spdxVersion"`
	License       string             `json:"dataLicense"`
	ID            string             `json:"SPDXID"`
	Name          string             `json:"name"`
	Namespace     string             `json:"documentNamespace"`
	Creation      spdxCreation       `json:"creationInfo"`
	Packages      []spdxPackage      `json:"packages"`
	Relationships []spdxRelationship `json:"relationships"`
}

type spdxCreation struct {
	Created  string   `json:"created"`
	Creators []string `json:"creators"`
}

type spdxPackage struct {
	Name       string          `json:"name"`
	ID         string          `json:"SPDXID"`
	Version    string          `json:"versionInfo"`
	Download   string          `json:"downloadLocation"`
	Analyzed   bool            `json:"filesAnalyzed"`
	License    string          `json:"licenseConcluded"`
	Declared   string          `json:"licenseDeclared"`
	Copyright  string          `json:"copyrightText"`
	Purpose    string          `json:"primaryPackagePurpose"`
	Comment    string          `json:"comment,omitempty"`
	Checksums  []spdxChecksum  `json:"checksums,omitempty"`
	References []spdxReference `json:"externalRefs,omitempty"`
}

type spdxChecksum struct {
	Algorithm string `json:"algorithm"`
	Value     string `json:"checksumValue"`
}

type spdxReference struct {
	Category string `json:"referenceCategory"`
	Type     string `json:"referenceType"`
	Locator  string `json:"referenceLocator"`
}

type spdxRelationship struct {
	From string `json:"spdxElementId"`
	Type string `json:"relationshipType"`
	To   string `json:"relatedSpdxElement"`
}
