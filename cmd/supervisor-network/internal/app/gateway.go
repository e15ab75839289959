package app

import (
	"context"
	"fmt"
	"net"
	"strconv"
	"strings"

	"github.com/splitpod/splitpod/cmd/supervisor-network/internal/gateway"
	"github.com/splitpod/splitpod/cmd/supervisor-network/internal/policyfile"
	"github.com/splitpod/splitpod/pkg/core"
)

// openGateway prepares the control plane, if there is one.
func (d *daemon) openGateway() error {
	if d.cfg.Gateway == "" {
		return nil
	}
	address, clear, err := d.cfg.GatewayAddress()
	if err != nil {
		return fmt.Errorf("--gateway: %w", err)
	}
	named := func(host string, port uint16) bool {
		return strings.EqualFold(net.JoinHostPort(host, strconv.Itoa(int(port))), address)
	}
	d.gateway, err = gateway.Open(gateway.Options{
		Address: address, Clear: clear, SandboxID: d.cfg.GatewaySandbox, Token: d.cfg.GatewayToken, ServiceAccount: d.cfg.GatewayServiceAccountToken,
		CA: d.cfg.GatewayCA, Cert: d.cfg.GatewayCert, Key: d.cfg.GatewayKey, ServerName: d.cfg.GatewayServerName,
		Poll: d.cfg.GatewayPoll, Idle: d.cfg.IdleTimeout,
		Dial: d.dialer.Operator(named), Apply: d.apply, Enter: d.enter, Event: d.record.Own, Log: d.log,
	})
	if err != nil {
		return fmt.Errorf("--gateway: %w", err)
	}
	return nil
}

// enter connects into the sandbox of an instance.
func (d *daemon) enter(ctx context.Context, instance core.InstanceID, target core.RelayTarget, port uint16) (gateway.Stream, error) {
	r, err := d.hub.OpenRelay(ctx, instance, target, port)
	if err != nil {
		return nil, err
	}
	return r, nil
}

// tellGateway says what is known of the workload.
func (d *daemon) tellGateway(w core.Workload) {
	if d.gateway != nil {
		d.gateway.Workload(w)
	}
}

// follow has the policy come from where it is, until ctx ends.
func (d *daemon) follow(ctx context.Context, digest string) {
	if d.gateway != nil {
		d.gateway.Run(ctx)
		return
	}
	policyfile.Watch(ctx, d.cfg.Policy, digest, d.log, d.reload)
}
