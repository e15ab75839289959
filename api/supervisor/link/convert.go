package link

import (
	"errors"
	"fmt"
	"net/netip"
	"time"

	pb "github.com/splitpod/splitpod/api/supervisor/v1"
	"github.com/splitpod/splitpod/pkg/core"
)

// BuildFromProto takes a build in; nil is the empty build.
func BuildFromProto(b *pb.Build) core.Build {
	return core.Build{Component: b.GetComponent(), Version: b.GetVersion(), Commit: b.GetCommit()}
}

// BuildToProto renders a build.
func BuildToProto(b core.Build) *pb.Build {
	return &pb.Build{Component: b.Component, Version: b.Version, Commit: b.Commit}
}

func modeFromProto(m pb.Mode) core.Mode {
	switch m {
	case pb.Mode_MODE_SANDBOX:
		return core.ModeSandbox
	case pb.Mode_MODE_ATTACH:
		return core.ModeAttach
	default:
		return core.ModeUnspecified
	}
}

// ConfigToProto renders a configuration snapshot.
func ConfigToProto(c core.Config) *pb.Config {
	landlock := pb.LandlockCompatibility_LANDLOCK_COMPATIBILITY_BEST_EFFORT
	if c.Static.HardLandlock {
		landlock = pb.LandlockCompatibility_LANDLOCK_COMPATIBILITY_HARD_REQUIREMENT
	}
	return &pb.Config{
		Generation:        uint64(c.Generation),
		NetworkInstanceId: string(c.NetworkInstance),
		PolicyDigest:      c.PolicyDigest,
		StaticPolicy: &pb.StaticPolicy{
			ReadOnly:       c.Static.ReadOnly,
			ReadWrite:      c.Static.ReadWrite,
			IncludeWorkdir: c.Static.IncludeWorkdir,
			Landlock:       landlock,
			RunAsUser:      c.Static.RunAsUser,
			RunAsGroup:     c.Static.RunAsGroup,
		},
		ChildEnvironment: c.Environment,
		CaPem:            c.CAPEM,
		RootsPem:         c.RootsPEM,
		ProxyPort:        uint32(c.ProxyPort),
		Binaries:         c.Binaries,
		AgentProposals:   c.AgentProposals,
		Ready: &pb.Readiness{
			ProcessInstanceId: string(c.Ready.Process),
			Generation:        uint64(c.Ready.Generation),
		},
	}
}

// WorkloadFromProto takes a workload snapshot in; an unknown phase is PhasePreparing.
func WorkloadFromProto(w *pb.Workload) core.Workload {
	out := core.Workload{
		Instance:           core.InstanceID(w.GetProcessInstanceId()),
		Phase:              phaseFromProto(w.GetPhase()),
		EntrypointPID:      int(w.GetEntrypointPid()),
		Exit:               core.Exit{Code: int(w.GetExit().GetCode()), Signal: int(w.GetExit().GetSignal())},
		Resolved:           make(map[string][]string),
		ResolvedGeneration: core.Generation(w.GetResolved().GetGeneration()),
	}
	for path, list := range w.GetResolved().GetPaths() {
		out.Resolved[path] = list.GetPaths()
	}
	return out
}

func phaseFromProto(p pb.WorkloadPhase) core.Phase {
	switch p {
	case pb.WorkloadPhase_WORKLOAD_PHASE_PREPARED:
		return core.PhasePrepared
	case pb.WorkloadPhase_WORKLOAD_PHASE_RUNNING:
		return core.PhaseRunning
	case pb.WorkloadPhase_WORKLOAD_PHASE_EXITED:
		return core.PhaseExited
	default:
		return core.PhasePreparing
	}
}

// AddressToProto renders an address; v4-mapped IPv6 becomes IPv4.
func AddressToProto(a netip.AddrPort) *pb.Address {
	return &pb.Address{Ip: a.Addr().Unmap().AsSlice(), Port: uint32(a.Port())}
}

// IdentityFromProto takes an identity in. An unknown status is unspecified, and a
// known identity without a program is a failure: both deny.
func IdentityFromProto(r *pb.IdentifyResponse) core.Identity {
	id := core.Identity{
		Status:       statusFromProto(r.GetStatus()),
		Detail:       r.GetDetail(),
		Process:      core.ProcessRef{PID: int(r.GetPid()), StartTime: r.GetStartTime()},
		UID:          r.GetUid(),
		Program:      programFromProto(r.GetProgram()),
		Ancestors:    programsFromProto(r.GetAncestors()),
		CommandPaths: r.GetCommandPaths(),
	}
	if id.Status == core.IdentityKnown && id.Program.Path == "" {
		return core.Identity{Status: core.IdentityFailed, Detail: "the process daemon named no program"}
	}
	return id
}

func statusFromProto(s pb.IdentityStatus) core.IdentityStatus {
	switch s {
	case pb.IdentityStatus_IDENTITY_STATUS_KNOWN:
		return core.IdentityKnown
	case pb.IdentityStatus_IDENTITY_STATUS_NOT_FOUND:
		return core.IdentityNotFound
	case pb.IdentityStatus_IDENTITY_STATUS_AMBIGUOUS:
		return core.IdentityAmbiguous
	case pb.IdentityStatus_IDENTITY_STATUS_CHANGED:
		return core.IdentityChanged
	case pb.IdentityStatus_IDENTITY_STATUS_NOT_READY:
		return core.IdentityNotReady
	case pb.IdentityStatus_IDENTITY_STATUS_FAILED:
		return core.IdentityFailed
	default:
		return core.IdentityUnspecified
	}
}

func programFromProto(p *pb.Program) core.Program {
	return core.Program{Path: p.GetPath(), SHA256: p.GetSha256()}
}

func programsFromProto(in []*pb.Program) []core.Program {
	in = in[:min(len(in), core.MaxAncestors)]
	out := make([]core.Program, len(in))
	for i, p := range in {
		out[i] = programFromProto(p)
	}
	return out
}

func programToProto(p core.Program) *pb.Program {
	if p == (core.Program{}) {
		return nil
	}
	return &pb.Program{Path: p.Path, Sha256: p.SHA256}
}

func eventToProto(seq uint64, e *core.Event) *pb.Event {
	out := &pb.Event{
		Sequence: seq, Kind: kindToProto(e.Kind), TimeUnixNano: e.Time.UnixNano(),
		RequestId: string(e.RequestID), Stage: string(e.Stage), Severity: uint32(e.Severity),
		Verdict: pb.Verdict(e.Verdict) + 1, Reason: string(e.Reason), Detail: e.Detail,
		Host: e.Host, Port: uint32(e.Port), Protocol: e.Protocol, Method: e.Method, Path: e.Path,
		Address: e.Address, Rule: e.Rule, Pid: int32(e.Process.PID), StartTime: e.Process.StartTime,
		Uid: e.UID, Program: programToProto(e.Program), ExitCode: int32(e.ExitCode),
		BytesUp: e.BytesUp, BytesDown: e.BytesDn, DurationNano: int64(e.Duration),
		Count: e.Count, Generation: uint64(e.Generation),
		Status: uint32(e.Status), Application: string(e.Application), TraceParent: e.TraceParent,
	}
	for _, a := range e.Ancestors {
		out.Ancestors = append(out.Ancestors, &pb.Program{Path: a.Path, Sha256: a.SHA256})
	}
	return out
}

// eventFromProto takes an event in. What it does not know becomes the zero
// value, which denies and grants nothing; what is too long is cut.
func eventFromProto(from core.InstanceID, e *pb.Event) core.Event {
	out := core.Event{
		Kind: kindFromProto(e.GetKind()), Time: time.Unix(0, e.GetTimeUnixNano()).UTC(),
		RequestID: core.RequestID(e.GetRequestId()), Instance: from,
		Stage: core.ParseStage(e.GetStage()), Severity: core.Severity(min(e.GetSeverity(), uint32(core.SeverityCritical))),
		Reason: core.ParseReason(e.GetReason()), Detail: e.GetDetail(),
		Host: e.GetHost(), Port: portFromProto(e.GetPort()), Protocol: e.GetProtocol(),
		Method: e.GetMethod(), Path: e.GetPath(), Address: e.GetAddress(), Rule: e.GetRule(),
		Process: core.ProcessRef{PID: int(e.GetPid()), StartTime: e.GetStartTime()}, UID: e.GetUid(),
		Program: programFromProto(e.GetProgram()), Ancestors: programsFromProto(e.GetAncestors()),
		ExitCode: int(e.GetExitCode()), BytesUp: e.GetBytesUp(), BytesDn: e.GetBytesDown(),
		Duration: time.Duration(e.GetDurationNano()), Count: e.GetCount(), Generation: core.Generation(e.GetGeneration()),
		Status: httpStatusFromProto(e.GetStatus()), Application: core.ParseApplication(e.GetApplication()),
		TraceParent: core.ParseTraceParent(e.GetTraceParent()),
	}
	if e.GetVerdict() == pb.Verdict_VERDICT_ALLOW {
		out.Verdict = core.Allow
	}
	if !out.RequestID.Valid() {
		out.RequestID = ""
	}
	out.Clip()
	return out
}

// kindToProto renders a kind. The contract has none for those that are one daemon's alone.
func kindToProto(k core.EventKind) pb.EventKind {
	if k > core.EventLifecycle {
		return pb.EventKind_EVENT_KIND_UNSPECIFIED
	}
	return pb.EventKind(k)
}

func kindFromProto(k pb.EventKind) core.EventKind {
	if k < 0 || k > pb.EventKind_EVENT_KIND_LIFECYCLE {
		return core.EventUnspecified
	}
	return core.EventKind(k)
}

func portFromProto(p uint32) uint16 {
	if p > 65535 {
		return 0
	}
	return uint16(p)
}

// httpStatusFromProto takes an HTTP status in; one that is none becomes zero.
func httpStatusFromProto(s uint32) int {
	if s > 999 {
		return 0
	}
	return int(s)
}

// ModeToProto renders a mode.
func ModeToProto(m core.Mode) pb.Mode {
	switch m {
	case core.ModeSandbox:
		return pb.Mode_MODE_SANDBOX
	case core.ModeAttach:
		return pb.Mode_MODE_ATTACH
	default:
		return pb.Mode_MODE_UNSPECIFIED
	}
}

// ConfigFromProto takes a configuration snapshot in. It fails when something
// without which nothing may start is missing.
func ConfigFromProto(c *pb.Config) (core.Config, error) {
	static := c.GetStaticPolicy()
	out := core.Config{
		Generation:      core.Generation(c.GetGeneration()),
		NetworkInstance: core.InstanceID(c.GetNetworkInstanceId()),
		PolicyDigest:    c.GetPolicyDigest(),
		Static: core.StaticPolicy{
			ReadOnly:       static.GetReadOnly(),
			ReadWrite:      static.GetReadWrite(),
			IncludeWorkdir: static.GetIncludeWorkdir(),
			HardLandlock:   static.GetLandlock() != pb.LandlockCompatibility_LANDLOCK_COMPATIBILITY_BEST_EFFORT,
			RunAsUser:      static.GetRunAsUser(),
			RunAsGroup:     static.GetRunAsGroup(),
		},
		Environment: c.GetChildEnvironment(),
		CAPEM:       c.GetCaPem(),
		RootsPEM:    c.GetRootsPem(),
		ProxyPort:   portFromProto(c.GetProxyPort()),
		Binaries:    c.GetBinaries(),

		AgentProposals: c.GetAgentProposals(),
		Ready: core.Readiness{
			Process:    core.InstanceID(c.GetReady().GetProcessInstanceId()),
			Generation: core.Generation(c.GetReady().GetGeneration()),
		},
	}
	if out.ProxyPort == 0 {
		out.ProxyPort = core.DefaultProxyPort
	}
	switch {
	case out.Generation == 0:
		return core.Config{}, errors.New("configuration without a generation")
	case static == nil:
		return core.Config{}, errors.New("configuration without a static policy")
	case !out.NetworkInstance.Valid():
		return core.Config{}, errors.New("configuration without a network instance")
	}
	return out, nil
}

// WorkloadToProto renders a workload snapshot.
func WorkloadToProto(w core.Workload) *pb.Workload {
	out := &pb.Workload{
		ProcessInstanceId: string(w.Instance),
		Phase:             pb.WorkloadPhase(w.Phase) + 1,
		EntrypointPid:     int32(w.EntrypointPID),
	}
	if w.Phase == core.PhaseExited {
		out.Exit = &pb.Exit{Code: int32(w.Exit.Code), Signal: int32(w.Exit.Signal)}
	}
	if w.ResolvedGeneration != 0 {
		paths := make(map[string]*pb.PathList, len(w.Resolved))
		for path, list := range w.Resolved {
			paths[path] = &pb.PathList{Paths: list}
		}
		out.Resolved = &pb.ResolvedBinaries{Generation: uint64(w.ResolvedGeneration), Paths: paths}
	}
	return out
}

// AddressFromProto takes an address in.
func AddressFromProto(a *pb.Address) (netip.AddrPort, error) {
	ip, ok := netip.AddrFromSlice(a.GetIp())
	if !ok {
		return netip.AddrPort{}, fmt.Errorf("address of %d bytes", len(a.GetIp()))
	}
	port := portFromProto(a.GetPort())
	if port == 0 {
		return netip.AddrPort{}, fmt.Errorf("port %d", a.GetPort())
	}
	return netip.AddrPortFrom(ip.Unmap(), port), nil
}

// IdentityToProto renders an identity as the answer to request id.
func IdentityToProto(id uint64, who core.Identity) *pb.IdentifyResponse {
	out := &pb.IdentifyResponse{
		Id: id, Status: pb.IdentityStatus(who.Status), Detail: who.Detail,
		Pid: int32(who.Process.PID), StartTime: who.Process.StartTime, Uid: who.UID,
		Program: programToProto(who.Program), CommandPaths: who.CommandPaths,
	}
	for _, a := range who.Ancestors {
		out.Ancestors = append(out.Ancestors, &pb.Program{Path: a.Path, Sha256: a.SHA256})
	}
	return out
}
