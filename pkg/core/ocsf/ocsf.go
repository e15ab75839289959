// Package ocsf writes core events as OCSF 1.8.0 JSON, one object a line: the
// record both daemons print.
//
// It answers the threat of a forged record: every string is a JSON string, so a
// host, a path or a program name with newlines, terminal escapes or marks that turn
// the direction of text stays inside its line and reads as what it is. It does not
// decide what is recorded.
//
// The encoder is written out by hand, because every request pays for a record; a
// test holds it equal to encoding/json over structs.
//
// Source: OCSF schema 1.8.0, classes network_activity (4001), http_activity
// (4002), process_activity (1007), detection_finding (2004), application_lifecycle
// (6002). What the schema has no place for is under "unmapped".
package ocsf

import (
	"fmt"

	"github.com/splitpod/splitpod/pkg/core"
)

// Version is the schema version every record names.
const Version = "1.8.0"

// Context is what every record of one daemon instance has in common.
type Context struct {
	Build    core.Build
	Hostname string // of the pod; may be empty
	Instance core.InstanceID
}

// Reasons of workload events.
const (
	ReasonLaunched core.Reason = "launched"
	ReasonExited   core.Reason = "exited"
)

// shape is a class with one of its activities: the beginning of a record.
type shape struct{ head string }

func newShape(class uint32, name string, category uint32, group string, activity uint32, does string) *shape {
	return &shape{fmt.Sprintf(`{"class_uid":%d,"class_name":%q,"category_uid":%d,"category_name":%q,"activity_id":%d,"activity_name":%q,"type_uid":%d,"type_name":%q,"time":`,
		class, name, category, group, activity, does, class*100+activity, name+": "+does)}
}

// The shapes. They are never changed.
var (
	networkOpen    = newShape(4001, "Network Activity", 4, "Network Activity", 1, "Open")
	networkRefuse  = newShape(4001, "Network Activity", 4, "Network Activity", 5, "Refuse")
	httpOther      = newShape(4002, "HTTP Activity", 4, "Network Activity", 99, "Other")
	processLaunch  = newShape(1007, "Process Activity", 1, "System Activity", 1, "Launch")
	processEnd     = newShape(1007, "Process Activity", 1, "System Activity", 2, "Terminate")
	processOther   = newShape(1007, "Process Activity", 1, "System Activity", 99, "Other")
	findingCreate  = newShape(2004, "Detection Finding", 2, "Findings", 1, "Create")
	lifecycleOther = newShape(6002, "Application Lifecycle", 6, "Application Activity", 99, "Other")
)

func shapeOf(e *core.Event) *shape {
	switch {
	case e.Kind == core.EventConnection && e.Method != "":
		return httpOther
	case e.Kind == core.EventConnection || e.Kind == core.EventBypass:
		if e.Verdict == core.Allow {
			return networkOpen
		}
		return networkRefuse
	case e.Kind == core.EventFinding:
		return findingCreate
	case e.Kind != core.EventWorkload:
		return lifecycleOther
	}
	switch e.Reason {
	case ReasonLaunched:
		return processLaunch
	case ReasonExited:
		return processEnd
	default:
		return processOther
	}
}

// severityText are the severity's two members, by number.
var severityText = [...]string{
	`,"severity_id":0,"severity":"Unknown"`, `,"severity_id":1,"severity":"Informational"`, `,"severity_id":2,"severity":"Low"`,
	`,"severity_id":3,"severity":"Medium"`, `,"severity_id":4,"severity":"High"`, `,"severity_id":5,"severity":"Critical"`,
}

func ruleType(e *core.Event) string {
	switch e.Stage {
	case core.StageBypass:
		return "nftables"
	case core.StageSSRF:
		return "ssrf"
	case core.StageListen:
		return "http-parser"
	default:
		return "opa"
	}
}
