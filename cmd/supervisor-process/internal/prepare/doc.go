// Package prepare finds out, before anything is built, what the kernel, the pod and
// the image offer: capabilities, the account the workload will have, and its files. It makes
// the few things that the workload needs and nothing else gives it: directories, and a limit
// of processes.
//
// It answers the threats of a sandbox that is built half because a privilege was
// missing (everything missing is named at once and nothing starts), of an image
// whose account files make its own user root, endless or somebody else, and of one whose
// links make a directory of the policy another one. It confines nothing.
//
// Sources: capabilities(7), passwd(5), group(5), cgroups(7).
package prepare
