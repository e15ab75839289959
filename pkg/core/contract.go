package core

// Contract revisions this tree speaks, see api/supervisor/v1.
const (
	MinRevision = 1
	MaxRevision = 1
)

// Mode says what a process daemon instance does. The zero value is refused.
type Mode uint8

// The modes.
const (
	ModeUnspecified Mode = iota
	ModeSandbox          // namespaces, fence, listeners and a workload
	ModeAttach           // only answers Identify for processes that already run
)

// Peer is what a handshake established about the other daemon.
type Peer struct {
	Build    Build
	Instance InstanceID
	Mode     Mode     // of a process daemon; ModeUnspecified for a network daemon
	Revision uint32   // agreed contract revision
	Features []string // that both sides speak
}

// StaticPolicy is the part of a policy that is applied once, when the workload is
// launched.
type StaticPolicy struct {
	ReadOnly       []string // absolute, normalised
	ReadWrite      []string
	IncludeWorkdir bool
	HardLandlock   bool   // refuse to start when the kernel cannot enforce all of it
	RunAsUser      string // name or decimal; empty: the image's "sandbox"
	RunAsGroup     string
}

// Config is the whole of what the network daemon tells the process daemon. It is
// a snapshot, never a difference.
type Config struct {
	Generation      Generation
	NetworkInstance InstanceID
	PolicyDigest    string // lower-case hex SHA-256
	Static          StaticPolicy
	Environment     map[string]string // for every session; placeholders only
	CAPEM           []byte            // public; empty: no interception
	RootsPEM        []byte            // for images without root certificates
	ProxyPort       uint16            // never 0
	Binaries        []string          // policy paths to resolve in the workload's mount namespace
	AgentProposals  bool              // agents may propose changes of the policy, and are told how
	Ready           Readiness
}

// Readiness is the network daemon's word that it serves a generation to one
// process instance. The zero value is not ready.
type Readiness struct {
	Process    InstanceID
	Generation Generation
}

// Phase is where a workload is in its life. The zero value is not prepared.
type Phase uint8

// The phases.
const (
	PhasePreparing Phase = iota
	PhasePrepared        // fence verified, listeners ready to be handed over
	PhaseRunning
	PhaseExited
)

var phaseText = [...]string{"preparing", "prepared", "running", "exited"}

// String is the stable text form.
func (p Phase) String() string {
	if int(p) < len(phaseText) {
		return phaseText[p]
	}
	return "preparing"
}

// Exit is how a workload ended. Code is its status, or 128 plus Signal.
type Exit struct {
	Code   int
	Signal int // 0: it exited by itself
}

// Workload is the whole of what the process daemon tells the network daemon.
type Workload struct {
	Instance      InstanceID
	Phase         Phase
	EntrypointPID int
	Exit          Exit // meaningful in PhaseExited
	// Resolved maps a policy binary path to the different paths it leads to.
	Resolved           map[string][]string
	ResolvedGeneration Generation // of the Config whose binaries were resolved
}

// DefaultProxyPort is where the workload finds the proxy.
const DefaultProxyPort = 3128

// RelayTarget says where a connection that is relayed over the contract leads. The
// zero value is refused.
type RelayTarget uint8

// The relay targets.
const (
	RelayUnspecified RelayTarget = iota
	RelaySSH                     // the sandbox's SSH server
	RelayLoopback                // a TCP port of the workload's loopback
)
