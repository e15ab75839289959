package link

import (
	"fmt"
	"slices"

	pb "github.com/splitpod/splitpod/api/supervisor/v1"
	"github.com/splitpod/splitpod/pkg/core"
)

// Agree picks the highest contract revision that own (which speaks ownMin to
// ownMax) and a process daemon's request have in common. Its error names both
// builds and says which image to upgrade.
func Agree(own core.Build, ownMin, ownMax uint32, req *pb.HandshakeRequest) (core.Peer, error) {
	build := BuildFromProto(req.GetBuild())
	peer := core.Peer{
		Build:    build,
		Instance: core.InstanceID(req.GetInstanceId()),
		Mode:     modeFromProto(req.GetMode()),
		Revision: min(req.GetMaxRevision(), ownMax),
	}
	low, high := req.GetMinRevision(), req.GetMaxRevision()
	switch {
	case build.Component != "supervisor-process":
		return core.Peer{}, fmt.Errorf("handshake from %q, expected supervisor-process", build.Component)
	case !peer.Instance.Valid():
		return core.Peer{}, fmt.Errorf("%s sent no instance id", build)
	case peer.Mode == core.ModeUnspecified:
		return core.Peer{}, fmt.Errorf("%s wants a mode that %s does not know: upgrade the supervisor-network image", build, own)
	case low == 0 || high < low:
		return core.Peer{}, fmt.Errorf("%s offers contract revisions %d to %d, which is no range", build, low, high)
	case high < ownMin:
		return core.Peer{}, fmt.Errorf("%s speaks contract revisions %d to %d, but %s needs %d or later: upgrade the supervisor-process image",
			build, low, high, own, ownMin)
	case low > ownMax:
		return core.Peer{}, fmt.Errorf("%s needs contract revision %d or later, but %s speaks only %d to %d: upgrade the supervisor-network image",
			build, low, own, ownMin, ownMax)
	}
	return peer, nil
}

// Common are the features that both sides named, in own's order: what only one knows
// is not used.
func Common(own, peers []string) []string {
	var out []string
	for _, name := range own {
		if slices.Contains(peers, name) {
			out = append(out, name)
		}
	}
	return out
}
