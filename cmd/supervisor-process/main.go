// Command supervisor-process is the process half of Splitpod: it builds the
// workload's namespaces and fence, starts the workload in them as a user without
// any privilege, tells the network daemon which program owns a connection, and
// ends with the workload.
//
// The life of a workload is one straight line, written once in internal/app:
//
//	prepare → isolate → confine → launch → watch → report
//
// prepare looks what the kernel, the pod and the image offer; isolate builds the
// namespaces and the fence and verifies them; confine drops identity and
// privilege, one step after the other, in the process that becomes the workload;
// launch starts, signals and reaps; watch answers who owns a connection and sees
// what the fence refused; report records and delivers events.
//
// The program starts itself again for two of these: as init of the workload's
// namespaces, and once for every session as the stage that confines itself and
// becomes the workload. Both are hooks that run before main does, in internal/app/inside
// and internal/launch/stage; the file server of an SSH session is the third, below.
package main

import (
	"context"
	"os"

	"github.com/splitpod/splitpod/cmd/supervisor-process/internal/command"
	"github.com/splitpod/splitpod/cmd/supervisor-process/internal/launch/filetransfer"
)

func main() {
	if code, ok := filetransfer.Reexec(os.Args); ok {
		os.Exit(code)
	}
	os.Exit(command.Main(context.Background(), os.Args[1:], os.Stdout, os.Stderr))
}
