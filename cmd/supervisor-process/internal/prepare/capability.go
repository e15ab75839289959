package prepare

import (
	"fmt"
	"strings"

	"github.com/moby/sys/capability"
	"golang.org/x/sys/unix"
)

// Capability is one that the daemon needs, and what for.
type Capability struct {
	Name string
	Bit  int
	For  string
}

// Capabilities are all the daemon needs to run a sandbox. In a user namespace they
// count only there.
var Capabilities = []Capability{
	{"SYS_ADMIN", unix.CAP_SYS_ADMIN, "the workload's namespaces and mounts"},
	{"NET_ADMIN", unix.CAP_NET_ADMIN, "the fence and lo in the workload's network namespace"},
	{"SETUID", unix.CAP_SETUID, "the drop to the workload's user"},
	{"SETGID", unix.CAP_SETGID, "the drop to the workload's groups"},
	{"SETPCAP", unix.CAP_SETPCAP, "an empty bounding set"},
	{"KILL", unix.CAP_KILL, "signals to the workload"},
	{"SYS_PTRACE", unix.CAP_SYS_PTRACE, "which program owns a connection"},
	{"DAC_READ_SEARCH", unix.CAP_DAC_READ_SEARCH, "what a program's file contains, whatever its mode"},
}

// MissingError lists the capabilities that are not there.
type MissingError struct{ Missing []Capability }

// Error implements error.
func (e *MissingError) Error() string {
	var b strings.Builder
	b.WriteString("capabilities are missing; add them to the container's securityContext:")
	for _, c := range e.Missing {
		fmt.Fprintf(&b, "\n  %s: %s", c.Name, c.For)
	}
	return b.String()
}

// Effective reports which of Capabilities this process has.
func Effective() (map[string]bool, error) {
	c, err := capability.NewPid2(0)
	if err == nil {
		err = c.Load()
	}
	if err != nil {
		return nil, fmt.Errorf("read this process's capabilities: %w", err)
	}
	out := make(map[string]bool)
	for _, want := range Capabilities {
		out[want.Name] = c.Get(capability.EFFECTIVE, capability.Cap(want.Bit))
	}
	return out, nil
}

// CheckCapabilities fails with *MissingError when one is missing.
func CheckCapabilities() error {
	have, err := Effective()
	if err != nil {
		return err
	}
	var missing []Capability
	for _, c := range Capabilities {
		if !have[c.Name] {
			missing = append(missing, c)
		}
	}
	if len(missing) > 0 {
		return &MissingError{missing}
	}
	return nil
}
