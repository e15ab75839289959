package app

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/splitpod/splitpod/cmd/supervisor-network/internal/inject/credentials"
	grants "github.com/splitpod/splitpod/cmd/supervisor-network/internal/inject/exchange"
	"github.com/splitpod/splitpod/pkg/core"
)

// of returns the records with a reason.
func (e *events) of(reason core.Reason) (out []core.Event) {
	e.mu.Lock()
	defer e.mu.Unlock()
	for _, ev := range e.all {
		if ev.Reason == reason {
			out = append(out, ev)
		}
	}
	return out
}

// TestAPolicyThatIsProbablyNotMeantIsOnRecord: with every warning, beside the record that
// it is in force; one without warnings leaves none.
func TestAPolicyThatIsProbablyNotMeantIsOnRecord(t *testing.T) {
	d, seen := viewed(t), &events{}
	d.record.Watch(seen.add)
	for _, text := range []string{"version: 1\n", "version: 1\nnetwork_policies: {nobodys: {endpoints: [{host: a.example.com, port: 443}]}, neither: {endpoints: [{host: b.example.com, port: 443}]}}\n"} {
		if err := d.policies.load(t.Context(), fileOf(text)); err != nil {
			t.Fatal(err)
		}
	}
	got := seen.of(core.EventPolicyValidated)
	if len(seen.of(core.EventPolicyLoaded)) != 2 || len(got) != 1 {
		t.Fatalf("%+v", got)
	}
	if ev := got[0]; ev.Severity != core.SeverityMedium || ev.Stage != core.StageConfig || !strings.Contains(ev.Detail, "nobodys") || !strings.Contains(ev.Detail, "neither") {
		t.Errorf("%+v", ev)
	}
}

// TestEveryChangeOfKeysIsOnRecord: how many there are, those without a value by name, and
// a file that is not valid; never a value.
func TestEveryChangeOfKeysIsOnRecord(t *testing.T) {
	d, seen := viewed(t), &events{}
	d.record.Watch(seen.add)
	dir := t.TempDir()
	put := func(name, text string) {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	bound := ", bindings: [{host: api.test, port: 443}]}\n"
	put("here", "REALvalue12345")
	put("c.yaml", "version: 1\ncredentials:\n  HERE: {file: "+dir+"/here"+bound+"  GONE: {file: "+dir+"/gone"+bound)
	store, _, err := credentials.Open(credentials.Config{File: dir + "/c.yaml", Changed: d.recordKeys})
	if err != nil {
		t.Fatal(err)
	}
	d.recordKeys(store.Current())
	put("gone", "ANOTHERvalue12345")
	store.Reload()
	store.Reload() // nothing has changed
	put("c.yaml", "version: 1\ncredentials: [\n")
	store.Reload()
	loaded, invalid := seen.of(core.EventCredentialsLoaded), seen.of(core.EventCredentialsInvalid)
	if len(loaded) != 2 || len(invalid) != 1 {
		t.Fatalf("%+v\n%+v", loaded, invalid)
	}
	if ev := loaded[0]; ev.Severity != core.SeverityMedium || !strings.Contains(ev.Detail, "2 keys") || !strings.Contains(ev.Detail, "GONE is ") || strings.Contains(ev.Detail, "HERE") {
		t.Errorf("with one that has no value: %+v", ev)
	}
	if ev := loaded[1]; ev.Severity != core.SeverityInfo || strings.Contains(ev.Detail, "GONE") {
		t.Errorf("when it has one: %+v", ev)
	}
	if ev := invalid[0]; ev.Kind != core.EventFinding || ev.Severity != core.SeverityHigh || !strings.Contains(ev.Detail, "c.yaml:") {
		t.Errorf("of no valid file: %+v", ev)
	}
	for _, ev := range append(loaded, invalid...) {
		if strings.Contains(ev.Detail, "value12345") {
			t.Errorf("a value is on record: %+v", ev)
		}
	}
}

func TestATokenThatWasGrantedIsACallOnRecord(t *testing.T) {
	d, seen := viewed(t), &events{}
	d.record.Watch(seen.add)
	d.granted(grants.Grant{Name: "crm", Endpoint: "https://tokens.example.com/oauth/token?tenant=secret", Took: time.Second})
	got := seen.of(core.EventTokenGranted)
	if len(got) != 1 {
		t.Fatalf("%+v", got)
	}
	if ev := got[0]; ev.Stage != core.StageAPI || ev.Host != "tokens.example.com" || ev.Port != 443 || ev.Method != "POST" || ev.Path != "/oauth/token" || ev.Detail != "grant crm" || ev.Duration != time.Second {
		t.Errorf("%+v", ev)
	}
}

func TestTheCAIsOnRecord(t *testing.T) {
	d, seen := viewed(t), &events{}
	d.record.Watch(seen.add)
	if err := d.openCA(); err != nil {
		t.Fatal(err)
	}
	if got := seen.of(core.EventCAEnabled); len(got) != 1 || !strings.HasPrefix(got[0].Detail, "sha256 ") || !strings.Contains(got[0].Detail, d.ca.Certificate().NotAfter.UTC().Format(time.RFC3339)) {
		t.Errorf("%+v", got)
	}
}
