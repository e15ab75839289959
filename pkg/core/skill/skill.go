// Package skill is what an agent in the workload is told about refusals: a text that
// the process daemon puts into the workload, about routes that the network daemon
// serves.
//
// It answers nothing: the text is advice for a program that wants to be good, and no
// rule depends on anybody reading it.
package skill

import _ "embed"

// Path is where the text is in the workload. Policies and agents written for OpenShell
// expect it there.
const Path = "/etc/openshell/skills/policy_advisor.md"

// Advisor is the text, in Markdown.
//
//go:embed policy_advisor.md
var Advisor string
