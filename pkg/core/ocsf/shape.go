package ocsf

import (
	"fmt"
	"strings"

	"github.com/splitpod/splitpod/pkg/core"
)

// class is one OCSF class: what stands in records of it, and in lines.
type class struct {
	index    int
	uid      uint32
	name     string
	category uint32
	group    string
	prefix   string // of its lines
	profiles string // JSON
}

const (
	aboutTraffic = `["security_control","network_proxy","container","host"]`
	aboutProcess = `["security_control","container","host"]`
	aboutDaemon  = `["container","host"]`
	aboutModels  = `["container","host","ai_operation"]`
)

// The classes. They are never changed.
var (
	networkClass   = &class{0, 4001, "Network Activity", 4, "Network Activity", "NET", aboutTraffic}
	httpClass      = &class{1, 4002, "HTTP Activity", 4, "Network Activity", "HTTP", aboutTraffic}
	processClass   = &class{2, 1007, "Process Activity", 1, "System Activity", "PROC", aboutProcess}
	findingClass   = &class{3, 2004, "Detection Finding", 2, "Findings", "FINDING", aboutProcess}
	configClass    = &class{4, 5019, "Device Config State Change", 5, "Discovery", "CONFIG", aboutProcess}
	lifecycleClass = &class{5, 6002, "Application Lifecycle", 6, "Application Activity", "LIFECYCLE", aboutDaemon}
	sshClass       = &class{6, 4007, "SSH Activity", 4, "Network Activity", "SSH", aboutProcess}
	apiClass       = &class{7, 6003, "API Activity", 6, "Application Activity", "API", aboutDaemon}
	baseClass      = &class{8, 0, "Base Event", 0, "Uncategorized", "EVENT", aboutDaemon}
	modelClass     = &class{9, 6003, "API Activity", 6, "Application Activity", "API", aboutModels} // apiClass with a profile more

	classes = [...]*class{networkClass, httpClass, processClass, findingClass, configClass, lifecycleClass, sshClass, apiClass, baseClass, modelClass}
)

// shape is a class with one of its activities.
type shape struct {
	class *class
	head  string // the beginning of a record
	line  string // the beginning of a line, behind the time
}

func (c *class) with(id uint32, activity string) *shape {
	return &shape{c, fmt.Sprintf(`{"class_uid":%d,"class_name":%q,"category_uid":%d,"category_name":%q,"activity_id":%d,"activity_name":%q,"type_uid":%d,"type_name":%q,"time":`,
		c.uid, c.name, c.category, c.group, id, activity, c.uid*100+id, c.name+": "+activity), c.prefix + ":" + strings.ToUpper(activity)}
}

// The shapes. They are never changed.
var (
	networkOpen   = networkClass.with(1, "Open")
	networkClose  = networkClass.with(2, "Close")
	networkFail   = networkClass.with(4, "Fail")
	networkRefuse = networkClass.with(5, "Refuse")

	httpConnect = httpClass.with(1, "Connect")
	httpDelete  = httpClass.with(2, "Delete")
	httpGet     = httpClass.with(3, "Get")
	httpHead    = httpClass.with(4, "Head")
	httpOptions = httpClass.with(5, "Options")
	httpPost    = httpClass.with(6, "Post")
	httpPut     = httpClass.with(7, "Put")
	httpTrace   = httpClass.with(8, "Trace")
	httpPatch   = httpClass.with(9, "Patch")
	httpOther   = httpClass.with(99, "Other")

	processLaunch  = processClass.with(1, "Launch")
	processEnd     = processClass.with(2, "Terminate")
	processOther   = processClass.with(99, "Other")
	findingCreate  = findingClass.with(1, "Create")
	configLog      = configClass.with(1, "Log")
	lifecycleStart = lifecycleClass.with(3, "Start")
	lifecycleStop  = lifecycleClass.with(4, "Stop")
	lifecycleOther = lifecycleClass.with(99, "Other")

	sshOpen   = sshClass.with(1, "Open")
	sshClose  = sshClass.with(2, "Close")
	sshFail   = sshClass.with(4, "Fail")
	sshRefuse = sshClass.with(5, "Refuse")
	sshListen = sshClass.with(7, "Listen")
	sshOther  = sshClass.with(99, "Other")

	apiOther  = apiClass.with(99, "Other")
	modelCall = modelClass.with(99, "Other")
	baseNote  = baseClass.with(99, "Note")
)

func shapeOf(e *core.Event) *shape {
	switch e.Kind {
	case core.EventConnection:
		if e.Stage == core.StageAPI && e.Verdict == core.Allow {
			return apiOther
		}
		if e.Method != "" {
			return httpShape(e.Method)
		}
		return networkShape(e)
	case core.EventBypass:
		return networkRefuse
	case core.EventWorkload:
		return processShape(e.Reason)
	case core.EventFinding:
		return findingCreate
	case core.EventLifecycle:
		return lifecycleShape(e)
	case core.EventInference:
		return modelCall
	default: // of a kind that only another build knows
		return baseNote
	}
}

func networkShape(e *core.Event) *shape {
	switch {
	case e.Verdict != core.Allow && rejected(e.Reason):
		return networkRefuse
	case e.Verdict != core.Allow:
		return networkOpen // refused to open
	}
	switch e.Reason {
	case core.ReasonAllowed:
		return networkOpen
	case core.ReasonClientClosed, core.ReasonIdle, core.ReasonShutdown, core.ReasonPolicyChanged:
		return networkClose
	default:
		return networkFail
	}
}

func httpShape(method string) *shape {
	switch method {
	case "GET":
		return httpGet
	case "POST":
		return httpPost
	case "HEAD":
		return httpHead
	case "PUT":
		return httpPut
	case "DELETE":
		return httpDelete
	case "PATCH":
		return httpPatch
	case "OPTIONS":
		return httpOptions
	case "TRACE":
		return httpTrace
	case "CONNECT":
		return httpConnect
	default:
		return httpOther
	}
}

func processShape(r core.Reason) *shape {
	switch r {
	case core.EventLaunched:
		return processLaunch
	case core.EventExited:
		return processEnd
	default:
		return processOther
	}
}

func lifecycleShape(e *core.Event) *shape {
	switch {
	case e.Stage == core.StageConfig:
		return configLog
	case e.Stage == core.StageSSH:
		return sshShape(e.Reason)
	case e.Stage == core.StageAPI:
		return apiOther
	case e.Stage == core.StageGateway:
		return gatewayShape(e.Reason)
	case e.Reason == core.EventStarted:
		return lifecycleStart
	case e.Reason == core.EventStopped:
		return lifecycleStop
	default:
		return lifecycleOther
	}
}

func gatewayShape(r core.Reason) *shape {
	switch r {
	case core.EventGatewayClosed, core.EventRelayClosed:
		return networkClose
	case core.EventGatewayLost, core.EventGatewayFailed, core.EventRelayFailed:
		return networkFail
	case core.EventRelayRefused:
		return networkRefuse
	default:
		return networkOpen
	}
}

func sshShape(r core.Reason) *shape {
	switch r {
	case core.EventSSHOpened:
		return sshOpen
	case core.EventSSHClosed:
		return sshClose
	case core.EventSSHFailed:
		return sshFail
	case core.EventSSHRefused, core.EventSSHUnsupported:
		return sshRefuse
	case core.EventSSHListening:
		return sshListen
	default:
		return sshOther
	}
}

// apiWell reports whether a call of an API was answered with what it asked for.
func apiWell(e *core.Event) bool {
	switch e.Kind {
	case core.EventConnection:
		return e.Reason == core.ReasonAllowed && e.Status < 400
	case core.EventInference: // a reason says why it broke off behind its status
		return uneventful(e.Reason) && e.Status/100 == 2
	default:
		return e.Reason == core.EventAdminDecided || e.Reason == core.EventTokenGranted
	}
}

// uneventful reports whether a reason says nothing.
func uneventful(r core.Reason) bool { return r == "" || r == core.ReasonAllowed }

// sshDisposition is what was done with somebody who came by SSH, where something was.
func sshDisposition(s *shape, e *core.Event) string {
	switch s {
	case sshOpen:
		return dispositionAllowed
	case sshRefuse:
		refused := *e
		refused.Verdict = core.Deny
		return dispositionOf(&refused)
	default:
		return ""
	}
}

// stateOf is a configuration's new state: the last word of the reason, and its number
// in OCSF.
func stateOf(r core.Reason) (id uint64, word string) {
	word = string(r[strings.LastIndexByte(string(r), '_')+1:])
	switch word {
	case "loaded", "enabled":
		return 2, word
	case "disabled":
		return 1, word
	default:
		return 99, word
	}
}
