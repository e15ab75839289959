// Package prepare finds out, before anything is built, what the kernel, the pod and
// the image offer: capabilities, and the account the workload will have.
//
// It answers the threats of a sandbox that is built half because a privilege was
// missing (everything missing is named at once and nothing starts) and of an image
// whose account files make its own user root, endless or somebody else. It changes
// nothing.
//
// Sources: capabilities(7), passwd(5), group(5).
package prepare
