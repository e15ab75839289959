// Package gatewayv1 is what a sandbox needs of an OpenShell gateway's API, generated from
// three files: openshell.proto is the service that gives the configuration and holds the
// session, inference.proto the one that gives model routes, sandbox.proto the policy.
//
// It answers the threat of a policy that is half understood because one side counts a field
// differently: numbers and types are the gateway's, and tests hold them against raw bytes.
// It does not make a message safe to use. The gateway may be newer than these files, and
// what it says in a field that is not here is kept with the message as unknown: who turns a
// policy into rules has to look for that, and refuse it.
//
// The gateway is the server of every call. The generated servers are for tests.
//
// The generated code may be used from several goroutines as gRPC documents.
package gatewayv1

//go:generate protoc -I ../../.. --go_out=../../.. --go_opt=module=github.com/splitpod/splitpod --go-grpc_out=../../.. --go-grpc_opt=module=github.com/splitpod/splitpod api/gateway/v1/openshell.proto api/gateway/v1/inference.proto api/gateway/v1/sandbox.proto
