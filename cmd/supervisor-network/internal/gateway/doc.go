// Package gateway has an OpenShell gateway as the control plane of this sandbox: it takes
// the policy from there, says what became of it, and lets the gateway's users into the
// sandbox by relays.
//
// It answers the threats of a gateway that is gone (what is in force stays, and somebody is
// told since when), of one that says what is not understood (a policy with a part that this
// build does not know is refused as a whole), of one that was taken over (it can say what
// the policy is and start sessions in the sandbox, which are confined as the workload is; it
// reaches no address but the sandbox's loopback and learns no credential), and of a token
// that leaks: a token is in a file and in memory, and in no argument, log, error or record.
//
// Everything is asked from here: nothing listens. The connection is made by the operator's
// rules and never by the workload's. A policy from here goes the way of a policy file.
//
// Invariants: one session at a time, and only while the workload runs; relays are bounded,
// end with the workload or this daemon, and none disturbs another or the session.
package gateway
