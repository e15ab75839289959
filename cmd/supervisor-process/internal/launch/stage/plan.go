package stage

import "github.com/splitpod/splitpod/cmd/supervisor-process/internal/confine/landlock"

// Plan is what a stage needs.
type Plan struct {
	Argv   [][]byte       `json:"argv"` // bytes, because JSON's strings are text
	Env    [][]byte       `json:"env"`
	Dir    string         `json:"dir"`
	UID    uint32         `json:"uid"`
	GID    uint32         `json:"gid"`
	Groups []uint32       `json:"groups"`
	Files  landlock.Rules `json:"files"`
	// Workspace says that Dir is meant to be written to.
	Workspace bool `json:"workspace,omitempty"`
	// Told says that the daemon is told of refused calls.
	Told bool `json:"told,omitempty"`
	// Terminal makes standard input the controlling terminal.
	Terminal bool `json:"terminal,omitempty"`
	// Builtin, if not empty, is the program of this binary to become in place of Argv.
	Builtin string `json:"builtin,omitempty"`
	// Limited says that there is a cgroup to join.
	Limited bool `json:"limited,omitempty"`
}

// Bytes makes a list that JSON carries byte for byte.
func Bytes(list []string) [][]byte {
	out := make([][]byte, len(list))
	for i, s := range list {
		out[i] = []byte(s)
	}
	return out
}

// Strings is the reverse of Bytes.
func Strings(list [][]byte) []string {
	out := make([]string, len(list))
	for i, b := range list {
		out[i] = string(b)
	}
	return out
}

// Word is what the stage says on its pipe: what was applied, or why nothing was
// executed, or both.
type Word struct {
	Applied *landlock.Report `json:"applied,omitempty"`
	Error   string           `json:"error,omitempty"`
	Code    int              `json:"code,omitempty"` // see launch.LaunchError
}

// Exit codes of a program that was not executed, as shells use them, and sysexits.h.
const (
	CodeConfiguration = 78
	CodeConfine       = 125
	CodeNotUsable     = 126
	CodeNotFound      = 127
)

// DefaultPath is where programs are looked for when the container says nothing.
const DefaultPath = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
