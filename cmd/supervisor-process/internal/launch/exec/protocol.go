// Package exec serves `supervisor-process exec`, which runs another program in the sandbox
// for a caller outside of it (kubectl exec), and is that caller's side too.
//
// It answers the threats of a program that is less confined than the workload (every one is
// launched by the same function), of one that keeps its caller's terminal, to read what is
// typed there later (no terminal is passed: a program has one of the sandbox's own, or
// pipes), and of callers that hold every place (one too many is refused, with a word). Who
// may ask, Admit decides before anything is read; what they ask for, nobody judges.
//
// Invariant: the caller's exit code is the program's, and a program whose caller is gone
// gets SIGHUP, as from a terminal that closed.
//
// Sources: unix(7) SOCK_SEQPACKET and SCM_RIGHTS, memfd_create(2), pty(7).
package exec

// Socket is the name of the server's socket in the run directory: a SOCK_SEQPACKET one, which
// the workload cannot see.
const Socket = "exec.sock"

// Exit codes of requests that came to nothing, as the command line's.
const (
	codeFailed = 1
	codeUsage  = 64
)

// request is what a caller asks for, in a memory file beside its standard files.
type request struct {
	Argv [][]byte `json:"argv"` // bytes, because JSON's strings are text
	// Terminal asks for one of the sandbox's own in place of the standard files.
	Terminal bool   `json:"terminal,omitempty"`
	Term     string `json:"term,omitempty"`
	Columns  int    `json:"columns,omitempty"`
	Rows     int    `json:"rows,omitempty"`
}

// message goes both ways behind the request: the terminal's other end (as a descriptor
// beside it), signals and sizes to the program, and at last how it ended.
type message struct {
	Master  bool   `json:"master,omitempty"`
	Columns int    `json:"columns,omitempty"`
	Rows    int    `json:"rows,omitempty"`
	Signal  int    `json:"signal,omitempty"`
	Done    bool   `json:"done,omitempty"`
	Code    int    `json:"code,omitempty"`
	Error   string `json:"error,omitempty"`
}
