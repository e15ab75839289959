package aggregate

import (
	"slices"

	"github.com/splitpod/splitpod/pkg/core"
)

// Group is what kind of denial something is: a closed set, fit for a metric.
type Group string

// The groups, in their stable spelling.
const (
	GroupUnknown     Group = "unknown"
	GroupConnect     Group = "connect_policy"
	GroupForward     Group = "forward_policy"
	GroupL7          Group = "l7_policy"
	GroupL7Parse     Group = "l7_parse_rejection"
	GroupSSRF        Group = "ssrf"
	GroupBypass      Group = "bypass"
	GroupPolicyStale Group = "policy_stale"
	GroupIdentity    Group = "identity"
	GroupLimits      Group = "limits"
)

var groupNames = [...]Group{
	GroupUnknown, GroupConnect, GroupForward, GroupL7, GroupL7Parse, GroupSSRF, GroupBypass, GroupPolicyStale, GroupIdentity, GroupLimits,
}

// index is the group's place in groupNames.
func (g Group) index() int { return slices.Index(groupNames[:], g) }

// groupOf is the group of a denial.
func groupOf(ev *core.Event) Group {
	switch ev.Reason {
	case core.ReasonSSRFDenied:
		return GroupSSRF
	case core.ReasonPolicyChanged, core.ReasonNotReady:
		return GroupPolicyStale
	case core.ReasonIdentityUnavailable:
		return GroupIdentity
	case core.ReasonTooManyConnections, core.ReasonTooManyBodies, core.ReasonHeaderTooLarge, core.ReasonBodyTooLarge, core.ReasonRequestTimeout:
		return GroupLimits
	case core.ReasonBadRequest, core.ReasonInvalidTarget, core.ReasonAuthorityMismatch, core.ReasonInvalidGraphQL,
		core.ReasonInvalidJSONRPC, core.ReasonUnsupportedProtocol, core.ReasonUnsupportedScheme:
		return GroupL7Parse
	}
	switch ev.Stage {
	case core.StageSSRF:
		return GroupSSRF
	case core.StageBypass:
		return GroupBypass
	case core.StageConnect:
		return GroupConnect
	case core.StageForward:
		return GroupForward
	case core.StageRequest:
		return GroupL7
	default:
		return GroupUnknown
	}
}
