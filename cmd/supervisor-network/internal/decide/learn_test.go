package decide

import (
	"testing"
	"testing/synctest"
	"time"

	"github.com/splitpod/splitpod/pkg/core"
	"github.com/splitpod/splitpod/pkg/core/policy"
	"github.com/splitpod/splitpod/test/jump"
)

func TestLearningAllowsPublicDestinationsAndEndsByItself(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := compile(t, example, Options{LearnUntil: time.Now().Add(time.Hour)})
		ask := func(who *core.Identity, host string) (Permit, *Denial) {
			return s.Connection(t.Context(), Question{Who: who, Host: host, Port: 443})
		}
		for range 2 { // the second time, the denial is remembered
			p, d := ask(known("/opt/agent"), "new.example.com")
			if d != nil || !p.Valid() || !p.Learned() || p.Rule() != LearnedRule || p.AddressMode() != AddressPublic || p.Inspected() || len(p.endpoints) != 0 {
				t.Errorf("%+v, %v", p, d)
			}
		}
		if p, d := ask(known("/usr/bin/git"), "api.github.com"); d != nil || p.Learned() || p.Rule() != "github" {
			t.Errorf("what a rule allows is %+v, %v", p, d)
		}
		if _, d := ask(&core.Identity{Status: core.IdentityAmbiguous}, "new.example.com"); d == nil || d.Reason != core.ReasonIdentityUnavailable {
			t.Errorf("a program that is not known: %v", d)
		}
		time.Sleep(time.Hour)
		if p, d := ask(known("/opt/agent"), "new.example.com"); d == nil || p.Valid() {
			t.Error("it is allowed when the time is over")
		}
	})
}

func TestNothingIsLearnedByDefault(t *testing.T) {
	s := compile(t, example, Options{})
	if _, d := s.Connection(t.Context(), Question{Who: known("/opt/agent"), Host: "new.example.com", Port: 443}); d == nil {
		t.Error("it is allowed")
	}
}

// What the workload proposed has public addresses, where the same rule of a file has
// internal ones.
func TestAProposedHostIsPublicOnly(t *testing.T) {
	for _, host := range []string{"wiki.corp.example", "10.1.2.3"} {
		for _, proposed := range []bool{false, true} {
			doc := &policy.Document{Network: map[string]policy.Rule{"r": {Binaries: []policy.Binary{{Path: "/b"}},
				Endpoints: []policy.Endpoint{{Host: host, Ports: []uint16{443}, AdvisorProposed: proposed}}}}}
			s, err := Compile(t.Context(), doc, Options{Generation: 1})
			if err != nil {
				t.Fatal(err)
			}
			p, d := s.Connection(t.Context(), Question{Who: known("/b"), Host: host, Port: 443})
			if want := map[bool]AddressMode{false: AddressDeclared, true: AddressPublic}[proposed]; d != nil || p.AddressMode() != want {
				t.Errorf("%s, proposed %v: mode %v, %v", host, proposed, p.AddressMode(), d)
			}
		}
	}
}

// A clock that is set back does not give more time, one that is set forward does not
// give it either.
func TestLearningIsOverByEitherClock(t *testing.T) {
	begun := time.Now()
	until := begun.Add(time.Hour)
	for _, c := range []struct {
		name   string
		passed time.Duration // by the monotonic clock
		set    time.Duration // how the wall clock was moved besides
		want   bool
	}{
		{"within", 59 * time.Minute, 0, true},
		{"at the end", time.Hour, 0, false},
		{"set back", 59 * time.Minute, -5 * time.Hour, true},
		{"set back, and the time has passed", time.Hour, -5 * time.Hour, false},
		{"set forward past the end", time.Minute, 5 * time.Hour, false},
		{"a machine that slept", 0, time.Hour, false},
	} {
		if got := Learning(jump.By(begun.Add(c.passed), c.set), until); got != c.want {
			t.Errorf("%s: learning is %v", c.name, got)
		}
	}
}
