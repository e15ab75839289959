// Package confine turns a process into the workload's: it gives up every privilege
// in one fixed order and checks that each one is gone, right before the program is
// executed.
//
// It answers the threat of a workload that keeps something of its supervisor: an
// id, a group, a capability, a descriptor, a way to gain privilege by executing a
// set-user-id program, files and parts of the kernel it does not need. It does not
// answer what the program may do with what it keeps.
//
// Invariant: Apply works on the calling thread (Landlock on all), which must execute
// the program itself without anything in between; when any step or check fails,
// nothing is executed.
//
// Sources: capabilities(7), credentials(7), proc_pid_status(5),
// Documentation/userspace-api/no_new_privs.rst.
package confine
