// Package nft is the fence in the workload's network namespace: nftables rules that
// refuse, count and log every packet that does not stay on loopback.
//
// It answers the threat of a program that goes around the proxy: whatever protocol
// or address family it uses, it is refused at once, counted without a limit by
// class, and logged with a limit. It is not what keeps packets in: the namespace has
// no interface but lo, so that a fence that were missing would open nothing. It does
// not look into what the proxy is told.
//
// Invariant: Install changes everything or nothing; Verify fails when the kernel
// holds anything but what Install wanted, and nothing of the workload runs before it
// succeeded.
//
// Sources: nft(8), Documentation/networking/nf_conntrack-sysctl.rst is not needed:
// no connection is tracked.
package nft
