// Package launch starts the sandbox's init and, through it, every session of the
// workload; it signals them, reaps them and says how they ended.
//
// It answers the threats of a workload that outlives its supervisor (init dies with
// the daemon, and the kernel ends every process of init's pid namespace with it), of
// orphans that pile up (init reaps whatever is given to it) and of a program that
// runs less confined than another (there is one way to start one). It does not build
// the fence; the caller's setup does, inside init.
//
// Three programs are this one binary started again:
//
//	daemon ── socketpair ── init setup → init serve (pid 1) ── fork ── stage → the program
//
// "setup" runs the caller's steps with all privileges and then executes "serve",
// which keeps only what forking sessions needs. The stage confines itself and
// becomes the program.
//
// Invariant: init is the only one that waits for children; the socketpair is its
// life line: when it closes, init ends. A message that is not understood ends the
// sandbox.
//
// Sources: pid_namespaces(7), prctl(2) PR_SET_PDEATHSIG, unix(7) SCM_RIGHTS.
package launch
