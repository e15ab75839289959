package ocsf

import (
	"bytes"
	"encoding/json"
	"fmt"
	"math"
	"net/netip"
	"strings"
	"testing"
	"time"
	"unicode/utf8"

	"github.com/splitpod/splitpod/pkg/core"
)

var here = Context{Build: core.Build{Component: "supervisor-network", Version: "0.1.0<&>"}, Hostname: "pod-\"7\"", Instance: "0123456789abcdef0123456789abcdef",
	Sandbox: "demo", SandboxUID: "6b1f0f0e-7f0d-4f55-9a59-000000000001", Image: "example/agent:1", Proxy: netip.MustParseAddrPort("127.0.0.1:3128")}

// expect is the reference's line, with what only this package escapes escaped.
func expect(e *core.Event, c Context) string {
	var b strings.Builder
	for _, r := range string(reference(e, c)) {
		if r != '\n' && (hidden(r) || r == 0x7f) {
			fmt.Fprintf(&b, `\u%04x`, r)
		} else {
			b.WriteRune(r)
		}
	}
	return b.String()
}

// strange strings, each a way in which a record could be broken or forged.
var strange = []string{
	"", "plain", "api", "a\nb", "\r\n", "\x1b[31mred", "\x00\x01\x1f\x7f", `"},{"`, `back\slash`, "\b\f\t", "<script>&amp;", "\xff\xfe", "\xe2\x80", "half\xc3",
	"\u2028\u2029", "\u202egnp.exe", "\u0085\u009b31m", "\u200b\ufeff\u061c", "ünïcödé", "\U0001f512", "\ufffd", strings.Repeat("x", 300) + "\n",
	"192.0.2.7", "2001:db8::1", "fe80::1%eth0", "::", "1.2.3", "10.example", "1", ":", "9a",
}

// everyField sets each field of an event to something, with one string for all.
func everyField(s string) core.Event {
	return core.Event{
		Kind: core.EventConnection, Time: time.UnixMilli(1790000000123), RequestID: core.RequestID(s), Instance: core.InstanceID(s),
		Stage: core.Stage(s), Severity: core.SeverityHigh, Verdict: core.Allow, Reason: core.Reason(s), Detail: s, Host: s, Port: 443,
		TraceParent: s, Source: netip.MustParseAddrPort("[::ffff:10.200.0.2]:40112"), Application: core.Application(s),
		Protocol: s, Method: s, Path: s, Status: 200, Address: s, Rule: s, Process: core.ProcessRef{PID: 7, StartTime: 1}, UID: math.MaxUint32,
		Program: core.Program{Path: s, SHA256: s}, Ancestors: []core.Program{{Path: s, SHA256: s}, {Path: s}}, ExitCode: -1,
		BytesUp: math.MaxUint64, BytesDn: 1, Duration: 1500 * time.Millisecond, Count: math.MaxUint64, Generation: math.MaxUint64,
		Model: s, Provider: s, TokensIn: math.MaxUint64, TokensOut: 1,
	}
}

func same(t *testing.T, e *core.Event, c Context) {
	t.Helper()
	got := NewEncoder(c).Append(nil, e)
	if want := expect(e, c); string(got) != want {
		t.Fatalf("the encoder and encoding/json disagree\n got %s\nwant %s", got, want)
	}
	if !json.Valid(got) || !utf8.Valid(got) {
		t.Fatalf("not JSON: %q", got)
	}
	if bytes.Count(got, []byte("\n")) != 1 || got[len(got)-1] != '\n' {
		t.Fatalf("not one line: %q", got)
	}
	for _, r := range string(got[:len(got)-1]) {
		if r < ' ' || r == 0x7f || hidden(r) {
			t.Fatalf("%U stands in the record as it is: %q", r, got)
		}
	}
}

func TestEncoderWritesWhatEncodingJSONWould(t *testing.T) {
	for kind := core.EventUnspecified; kind <= core.EventInference+1; kind++ {
		for _, reason := range []core.Reason{"", core.ReasonAllowed, core.ReasonPolicyDenied, core.EventAdminDecided, core.EventTokenGranted, core.EventAdminTokenWrong, core.EventLaunched, core.EventExited} {
			for _, verdict := range []core.Verdict{core.Deny, core.Allow, 9} {
				for _, stage := range []core.Stage{"", core.StageConnect, core.StageBypass, core.StageSSRF, core.StageListen, core.StageAPI, core.StageGateway, "made Up"} {
					for severity := core.SeverityUnknown; severity <= core.SeverityCritical+1; severity++ {
						for _, e := range []core.Event{everyField("get"), {}} {
							e.Kind, e.Reason, e.Verdict, e.Stage, e.Severity = kind, reason, verdict, stage, severity
							same(t, &e, here)
							e.Method = ""
							same(t, &e, here)
						}
					}
				}
			}
		}
	}
}

func TestEncoderEscapesEveryStringOfAnEvent(t *testing.T) {
	for _, s := range strange {
		e := everyField(s)
		same(t, &e, here)
		e.Kind = core.EventInference
		same(t, &e, here)
		same(t, &e, Context{Build: core.Build{Component: s, Version: s}, Hostname: s, Instance: core.InstanceID(s),
			Sandbox: s, SandboxUID: s, Image: s, Proxy: netip.MustParseAddrPort("[fe80::1%a\nb]:1")})
	}
}

// FuzzEncoder holds the encoder equal to encoding/json for any event, in one line
// without a control byte.
func FuzzEncoder(f *testing.F) {
	for i, s := range strange {
		f.Add(s, strange[len(strange)-1-i], uint8(i), uint8(i/2), uint64(i), int64(i)-3)
	}
	f.Fuzz(func(t *testing.T, s, other string, kind, few uint8, n uint64, d int64) {
		e := core.Event{
			Kind: core.EventKind(kind % 8), Severity: core.Severity(few % 8), Verdict: core.Verdict(few % 3), Time: time.UnixMilli(d),
			RequestID: core.RequestID(other), Instance: core.InstanceID(s), Stage: core.Stage(other), Reason: core.Reason(s), Detail: other,
			Host: s, Port: uint16(n), Protocol: other, Method: s, Path: other, Status: int(few), Address: s, Rule: other,
			Process: core.ProcessRef{PID: int(d), StartTime: n}, UID: uint32(n), Program: core.Program{Path: other, SHA256: s},
			Ancestors: make([]core.Program, few%4), ExitCode: int(d), BytesUp: n, BytesDn: n / 2, Duration: time.Duration(d),
			Count: n, Generation: core.Generation(n), TraceParent: s, Application: core.Application(other),
			Model: s, Provider: other, TokensIn: n, TokensOut: n / 2,
			Source: netip.AddrPortFrom(netip.AddrFrom16([16]byte{few, kind, 15: kind}).WithZone(other), uint16(n)),
		}
		for i := range e.Ancestors {
			e.Ancestors[i] = core.Program{Path: s[:len(s)/(i+1)], SHA256: other}
		}
		same(t, &e, here)
	})
}

func TestEncodingDoesNotAllocate(t *testing.T) {
	e := everyField("api.example.com")
	x := NewEncoder(here)
	b := make([]byte, 0, 8192)
	for _, e.Kind = range []core.EventKind{core.EventConnection, core.EventInference} {
		if n := testing.AllocsPerRun(100, func() { b = x.Append(b[:0], &e) }); n != 0 {
			t.Errorf("%v allocations for a record of a %s", n, e.Kind)
		}
	}
}

func TestEightBytesAtATimeSeeWhatOneByOneSees(t *testing.T) {
	for c := range 256 {
		for at := range 8 {
			for _, around := range []string{"abcdefgh", "~ ~ ~ ~ ", "{{{{{{{{", "!#%'*;=?", "\x00\x1f\"\\<>&\x7f", "\xff\x80\xff\x80\xff\x80\xff\x80"} {
				s := []byte(around)
				s[at] = byte(c)
				all := true
				for _, c := range s {
					all = all && c < utf8.RuneSelf && plain[c]
				}
				if got := plain8(eight(string(s))); got && !all || !got && all {
					t.Fatalf("plain8(%q) is %t", s, got)
				}
			}
		}
	}
}
