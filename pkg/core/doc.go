// Package core holds the names both daemons must mean the same thing by:
// instances and builds, the identity of a connection, verdicts, reasons and
// events.
//
// It answers the threat of two separately rolled-out programs that disagree:
// a reason, an identity status or an event kind has one spelling and one
// meaning, and a value that this build does not know reads as a denial. It does
// not move anything between the daemons; that is the contract in
// api/supervisor/v1 and the control packages.
//
// Callers may rely on every value here being plain data: no I/O, no clock, no
// goroutine, standard library only. The zero value of every verdict, status and
// kind grants nothing.
package core
