// Package supervisorv1 is the local contract between supervisor-network and
// supervisor-process, generated from supervisor.proto.
//
// It answers the threat of two programs of different releases that half
// understand each other: every peer says which revisions and features it speaks,
// and what is unknown means deny. It does not authenticate anybody; the control
// packages check the peer's credentials on every connection.
//
// Sockets, all in the run directory that only the two containers share:
//
//	network.sock   NetworkService, served by supervisor-network
//	process.sock   ProcessService, served by supervisor-process
//	handover.sock  one HandoverRequest, one HandoverResponse with descriptors
//
// Order of a start: the process daemon opens its sockets, calls Handshake and
// WatchConfig; the network daemon then calls WatchWorkload and ReportEvents back;
// at phase PREPARED it fetches the listeners and, once it serves them, says so in
// Config.ready; then the workload is executed. After any reconnect both sides
// start again from the Handshake and from full snapshots.
//
// Revisions: 1 is what this file describes. Features: none yet.
//
// The generated code may be used from several goroutines as gRPC documents.
package supervisorv1

//go:generate protoc -I ../../.. --go_out=../../.. --go_opt=module=github.com/splitpod/splitpod --go-grpc_out=../../.. --go-grpc_opt=module=github.com/splitpod/splitpod api/supervisor/v1/supervisor.proto
