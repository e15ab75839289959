// Package sealtest has keys, and permission to use them, for tests of what is done with
// both.
//
// It answers the threat of a test that shows nothing: the keys come of a file that the
// daemon could be given, and a Permit of a policy, for there is no other way to one.
package sealtest

import (
	"os"
	"testing"

	"github.com/splitpod/splitpod/cmd/supervisor-network/internal/decide"
	"github.com/splitpod/splitpod/cmd/supervisor-network/internal/inject/credentials"
	"github.com/splitpod/splitpod/cmd/supervisor-network/internal/inject/placeholder"
	"github.com/splitpod/splitpod/pkg/core"
	"github.com/splitpod/splitpod/pkg/core/policy"
)

// Marker is the placeholder of KEY, whose value is REALvalue12345.
const Marker = placeholder.Marker + "KEY"

// Keys is a file that binds KEY, and what signs, to port 443 of a host.
func Keys(t testing.TB, host string) *credentials.Store {
	t.Helper()
	dir := t.TempDir()
	Write(t, dir+"/key", "REALvalue12345")
	text := "version: 1\ncredentials:\n"
	for _, key := range []string{"KEY", "AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"} {
		text += "  " + key + ": {file: " + dir + "/key, bindings: [{host: " + host + ", port: 443}]}\n"
	}
	Write(t, dir+"/c.yaml", text)
	store, _, err := credentials.Open(credentials.Config{File: dir + "/c.yaml"})
	if err != nil {
		t.Fatal(err)
	}
	return store
}

// Permit is permission to connect to api.test:443, by a policy with more to say about that
// endpoint.
func Permit(t testing.TB, endpoint string) (*decide.Snapshot, decide.Permit) {
	t.Helper()
	doc, _, err := policy.Parse("p", []byte("version: 1\nnetwork_policies:\n  a:\n    endpoints: [{host: api.test, port: 443"+endpoint+"}]\n    binaries: [{path: /bin/a}]\n"))
	if err != nil {
		t.Fatal(err)
	}
	snap, err := decide.Compile(t.Context(), doc, decide.Options{Generation: 1, IgnoreBinaries: true})
	if err != nil {
		t.Fatal(err)
	}
	permit, denial := snap.Connection(t.Context(), decide.Question{Who: &core.Identity{}, Host: "api.test", Port: 443})
	if denial != nil {
		t.Fatal(denial)
	}
	return snap, permit
}

// Write makes a file with a text.
func Write(t testing.TB, path, text string) {
	t.Helper()
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
}
