// Package identity says which program of the workload owns a TCP connection.
//
// It answers the threats of a program that claims another one's name (argv[0] counts
// for nothing, the kernel's path and the file's content do), of a connection shared
// by different programs (said, never guessed), of a program whose file is replaced,
// and of a recycled pid. The connection is found by an exact question to the kernel
// (sock_diag), its owners only among the workload's own processes.
//
// How owners are found. A full pass over the workload's descriptors, every thread's
// included, yields an index: every process with its program, and every socket that
// was held. The next connection is answered without a pass when a process of that
// index, still running the same program and without a child that is new, holds a
// socket that is not in the index. That is sound for everything that is inherited: a
// process that was there before the socket cannot have inherited it, and a program
// that was executed before cannot share a descriptor table with its parent.
// Everything else makes a new pass, which goes on until no process is new. Whether such a
// process holds the socket is first tried where its sockets were before; those who ask at
// one time share a list of what it holds. A process that asks again is held by its folder
// in proc(5), with those it descends from, for as long as it asks once a second; while all
// of them run what they ran it is who it was. That there is no new process is told by the pid
// that was given out last, while it is read once in a hundredth of a second: pids come round.
// What is used began after the question.
//
// Left over: a program that is handed a connected socket by another one (SCM_RIGHTS
// to a process that was there before, pidfd_getfd, a descriptor in flight, or moved from
// number to number and from thread to thread while it is looked for) uses the rights of
// whichever is found first, until a pass sees both. So does one that connects, writes and
// executes another program before it is looked at. A known process vouches not for its
// children, but still for what a child that has ended left behind, for one that it made its
// parent's (CLONE_PARENT), and for unseenLasts for one that has its pid and cannot be seen
// yet. An orphan's ancestors are what the kernel says now. An interpreter is identified, not
// its script.
//
// Callers may rely on this: everything but core.IdentityKnown denies; nothing here
// reads a process that is not below Config.Proc's pid namespace (or Config.Tree);
// memory and work are bounded, and a bound that is reached denies.
//
// Sources: sock_diag(7), proc_pid_fd(5), proc_pid_stat(5), proc_pid_exe(5).
package identity
