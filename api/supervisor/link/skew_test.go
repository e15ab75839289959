package link

import (
	"reflect"
	"testing"

	"google.golang.org/protobuf/encoding/protowire"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"

	"github.com/google/go-cmp/cmp"

	pb "github.com/splitpod/splitpod/api/supervisor/v1"
	"github.com/splitpod/splitpod/pkg/core"
)

// ofTheFuture is a value that no enum has today.
const ofTheFuture = 77

// unknownEnums says, for every enum of the contract, what an unknown value of it reads
// as where it arrives. All deny, refuse or mean less. RelayTarget is read by the process
// daemon's control package: TestRelaysCarryBytesBothWays refuses one to come.
var unknownEnums = map[protoreflect.Name]func(t *testing.T){
	"Mode": func(t *testing.T) {
		if m := modeFromProto(ofTheFuture); m != core.ModeUnspecified {
			t.Errorf("mode %v", m)
		}
	},
	"LandlockCompatibility": func(t *testing.T) {
		c, err := ConfigFromProto(&pb.Config{Generation: 1, NetworkInstanceId: string(core.NewInstanceID()), StaticPolicy: &pb.StaticPolicy{Landlock: ofTheFuture}})
		if err != nil || !c.Static.HardLandlock {
			t.Errorf("not a hard requirement: %v", err)
		}
	},
	"WorkloadPhase": func(t *testing.T) {
		if p := phaseFromProto(ofTheFuture); p != core.PhasePreparing {
			t.Errorf("phase %v", p)
		}
	},
	"IdentityStatus": func(t *testing.T) {
		id := IdentityFromProto(&pb.IdentifyResponse{Status: ofTheFuture, Program: &pb.Program{Path: "/bin/x"}})
		if id.Status != core.IdentityUnspecified {
			t.Errorf("status %v", id.Status)
		}
	},
	"EventKind": func(t *testing.T) {
		if e := eventFromProto(core.NewInstanceID(), &pb.Event{Kind: ofTheFuture}); e.Kind != core.EventUnspecified {
			t.Errorf("kind %v", e.Kind)
		}
	},
	"Verdict": func(t *testing.T) {
		if e := eventFromProto(core.NewInstanceID(), &pb.Event{Verdict: ofTheFuture}); e.Verdict == core.Allow {
			t.Error("it allows")
		}
	},
}

// TestUnknownEnumValuesDeny: an enum that somebody adds needs a line above.
func TestUnknownEnumValuesDeny(t *testing.T) {
	enums := pb.File_api_supervisor_v1_supervisor_proto.Enums()
	for i := range enums.Len() {
		name := enums.Get(i).Name()
		if name == "RelayTarget" {
			continue
		}
		t.Run(string(name), func(t *testing.T) {
			check := unknownEnums[name]
			if check == nil {
				t.Fatal("nobody says what an unknown value reads as")
			}
			check(t)
		})
	}
	if enums.Len() != len(unknownEnums)+1 {
		t.Errorf("%d enums, %d lines", enums.Len(), len(unknownEnums))
	}
}

// TestUnknownFieldsAreIgnored: every message of the contract, with a field of the
// future at each level, is read as without.
func TestUnknownFieldsAreIgnored(t *testing.T) {
	config := ConfigToProto(core.Config{
		Generation: 3, NetworkInstance: core.NewInstanceID(), Static: core.StaticPolicy{ReadOnly: []string{"/usr"}, RunAsUser: "1000"},
		Binaries: []string{"/bin/x"}, Ready: core.Readiness{Process: core.NewInstanceID(), Generation: 2},
	})
	workload := WorkloadToProto(core.Workload{Instance: core.NewInstanceID(), Phase: core.PhaseExited, Exit: core.Exit{Code: 3}, ResolvedGeneration: 3,
		Resolved: map[string][]string{"/bin/x": {"/bin/y"}}})
	identity := &pb.IdentifyResponse{Id: 1, Status: pb.IdentityStatus_IDENTITY_STATUS_KNOWN, Pid: 4, Program: &pb.Program{Path: "/bin/x"}, Ancestors: []*pb.Program{{Path: "/bin/sh"}}}
	event := eventToProto(1, &core.Event{Kind: core.EventBypass, Verdict: core.Deny, Reason: core.ReasonPolicyDenied, Host: "x.test", Program: core.Program{Path: "/bin/x"}})
	hello := &pb.HandshakeRequest{MinRevision: 1, MaxRevision: 2, Build: &pb.Build{Component: "supervisor-process"}, InstanceId: string(core.NewInstanceID()), Mode: pb.Mode_MODE_SANDBOX}

	from := core.NewInstanceID()
	for name, tc := range map[string]struct {
		message proto.Message
		read    func(proto.Message) (any, error)
	}{
		"Config":           {config, func(m proto.Message) (any, error) { return ConfigFromProto(m.(*pb.Config)) }},
		"Workload":         {workload, func(m proto.Message) (any, error) { return WorkloadFromProto(m.(*pb.Workload)), nil }},
		"IdentifyResponse": {identity, func(m proto.Message) (any, error) { return IdentityFromProto(m.(*pb.IdentifyResponse)), nil }},
		"Event":            {event, func(m proto.Message) (any, error) { return eventFromProto(from, m.(*pb.Event)), nil }},
		"HandshakeRequest": {hello, func(m proto.Message) (any, error) { return Agree(core.Build{}, 1, 1, m.(*pb.HandshakeRequest)) }},
	} {
		t.Run(name, func(t *testing.T) {
			want, err := tc.read(tc.message)
			if err != nil {
				t.Fatal(err)
			}
			future := proto.Clone(tc.message)
			added := addUnknown(future.ProtoReflect())
			wire, err := proto.Marshal(future)
			if err != nil {
				t.Fatal(err)
			}
			plain, err := proto.Marshal(tc.message)
			if err != nil {
				t.Fatal(err)
			}
			if len(wire) <= len(plain) {
				t.Fatal("nothing was added")
			}
			arrived := tc.message.ProtoReflect().New().Interface()
			if err := proto.Unmarshal(wire, arrived); err != nil {
				t.Fatal(err)
			}
			got, err := tc.read(arrived)
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(want, got, cmp.Exporter(func(reflect.Type) bool { return true })); diff != "" {
				t.Errorf("with %d fields more it reads differently:\n%s", added, diff)
			}
		})
	}
}

// addUnknown adds a field that does not exist to a message and all in it, and says to
// how many.
func addUnknown(m protoreflect.Message) int {
	n := 1
	field := protowire.AppendTag(nil, 1999, protowire.BytesType)
	m.SetUnknown(protowire.AppendString(field, "of the future"))
	m.Range(func(f protoreflect.FieldDescriptor, v protoreflect.Value) bool {
		switch {
		case f.IsMap():
			if f.MapValue().Message() != nil {
				v.Map().Range(func(_ protoreflect.MapKey, v protoreflect.Value) bool {
					n += addUnknown(v.Message())
					return true
				})
			}
		case f.Message() == nil:
		case f.IsList():
			for i := range v.List().Len() {
				n += addUnknown(v.List().Get(i).Message())
			}
		default:
			n += addUnknown(v.Message())
		}
		return true
	})
	return n
}
