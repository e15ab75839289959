package skill

import (
	"errors"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/splitpod/splitpod/test/need"
)

const target = "/run/splitpod/" + Guide

func TestTheGuideIsLinkedWhereNothingIs(t *testing.T) {
	for name, dirs := range map[string]string{"an empty image": "", "with /etc": "etc", "with our directory": "etc/openshell/skills"} {
		root := t.TempDir()
		if err := errors.Join(os.MkdirAll(filepath.Join(root, dirs), 0o755), Link(root, target), Link(root, target)); err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		if got, err := os.Readlink(filepath.Join(root, Known)); got != target {
			t.Errorf("%s: it leads to %q (%v)", name, got, err)
		}
	}
}

func TestNothingOfTheImageIsOverwrittenOrFollowed(t *testing.T) {
	for name, tt := range map[string]struct {
		make  func(root string) error
		fails bool
	}{
		"a guide of the image's own": {func(root string) error {
			return errors.Join(os.MkdirAll(filepath.Join(root, "etc/openshell/skills"), 0o755), os.WriteFile(filepath.Join(root, Known), []byte("own"), 0o644))
		}, false},
		"a link that leads nowhere": {func(root string) error {
			return errors.Join(os.MkdirAll(filepath.Join(root, "etc/openshell/skills"), 0o755), os.Symlink("/no/such/file", filepath.Join(root, Known)))
		}, false},
		"a directory that is a link": {func(root string) error {
			return errors.Join(os.MkdirAll(filepath.Join(root, "elsewhere"), 0o755), os.MkdirAll(filepath.Join(root, "etc"), 0o755), os.Symlink("../elsewhere", filepath.Join(root, "etc/openshell")))
		}, true},
		"a file in place of a directory": {func(root string) error {
			return os.WriteFile(filepath.Join(root, "etc"), nil, 0o644)
		}, true},
	} {
		root := t.TempDir()
		if err := tt.make(root); err != nil {
			t.Fatal(err)
		}
		before := list(t, root)
		if err := Link(root, target); (err != nil) != tt.fails {
			t.Errorf("%s: %v", name, err)
		}
		if after := list(t, root); after != before {
			t.Errorf("%s: there was\n%s\nand is\n%s", name, before, after)
		}
	}
}

// list shows every path below root with what it holds.
func list(t *testing.T, root string) string {
	t.Helper()
	var b strings.Builder
	err := filepath.WalkDir(root, func(path string, d os.DirEntry, err error) error {
		data, _ := os.ReadFile(path)
		to, _ := os.Readlink(path)
		b.WriteString(path + " " + d.Type().String() + " " + to + " " + string(data) + "\n")
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return b.String()
}

// TestTheGuideSaysWhatAgentsNeed: the words that the interface's answers use.
func TestTheGuideSaysWhatAgentsNeed(t *testing.T) {
	for _, want := range []string{
		"policy_denied", "http://policy.local/v1/policy/current", "http://policy.local/v1/denials", "http://policy.local/v1/proposals",
		"/wait?timeout=", "approved", "policy_reloaded", "wildcard", "metadata", "feature_disabled",
	} {
		if !strings.Contains(Text(), want) {
			t.Errorf("the guide does not say %q", want)
		}
	}
}

// TestTheGuideHasTheWordsOfCurl for a host that is refused. They are all that an agent is
// told of it, so its description, by which agents find a guide, has them as well.
func TestTheGuideHasTheWordsOfCurl(t *testing.T) {
	proxy := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusForbidden) }))
	defer proxy.Close()
	out, err := exec.Command(need.Program(t, "curl"), "-q", "-sS", "--noproxy", "", "--proxy", proxy.URL, "https://refused.test/").CombinedOutput()
	_, said, _ := strings.Cut(strings.TrimSpace(string(out)), ") ")
	if err == nil || said == "" || strings.Count(Text(), said) != 2 {
		t.Errorf("curl says %q (%v)", out, err)
	}
}
