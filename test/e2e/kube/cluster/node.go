package cluster

import (
	"fmt"
	"os"
	"path/filepath"
)

const nodeName = "splitpod-node"

// Pause is the image of every pod's first container; it must be imported before the
// first pod starts.
const Pause = "splitpod.test/pause:1"

func (c *Cluster) socket() string { return filepath.Join(c.Dir, "containerd", "containerd.sock") }

// startNode starts containerd and the kubelet.
func (c *Cluster) startNode() error {
	if err := c.writeNodeFiles(); err != nil {
		return err
	}
	if err := c.launch("containerd", c.bin+"/containerd", "--config", c.Dir+"/containerd.toml", "--log-level", "info"); err != nil {
		return err
	}
	return c.awaitProgram("containerd", func() error {
		_, err := c.Run("", "ctr", "-a", c.socket(), "version")
		return err
	})
}

// startKubelet runs the kubelet in a mount namespace of its own, in which the kernel
// settings it insists on look as it wants them. Volumes still propagate.
func (c *Cluster) startKubelet() error {
	script := "mount --make-private /proc"
	for name, value := range map[string]string{"vm/overcommit_memory": "1", "kernel/panic": "10", "kernel/panic_on_oops": "1"} {
		file := filepath.Join(c.Dir, filepath.Base(name))
		if err := os.WriteFile(file, []byte(value+"\n"), 0o644); err != nil {
			return err
		}
		script += fmt.Sprintf(" && mount --bind %s /proc/sys/%s", file, name)
	}
	err := c.launch("kubelet", "unshare", "--mount", "--propagation", "unchanged", "sh", "-c", script+` && exec "$@"`, "sh",
		c.bin+"/kubelet", "--config="+c.Dir+"/kubelet.yaml", "--kubeconfig="+c.kubeconfig(), "--root-dir="+c.Dir+"/kubelet",
		"--cert-dir="+c.Dir+"/kubelet-certs", "--node-ip="+NodeAddress, "--hostname-override="+nodeName)
	if err != nil {
		return err
	}
	return c.awaitProgram("kubelet", func() error {
		_, err := c.Kubectl("wait", "--for=condition=Ready", "--timeout=1s", "node/"+nodeName)
		return err
	})
}

func (c *Cluster) writeNodeFiles() error {
	for name, text := range map[string]string{
		"containerd.toml": `version = 3
root = "` + c.Dir + `/containerd/root"
state = "` + c.Dir + `/containerd/state"
disabled_plugins = ["io.containerd.nri.v1.nri", "io.containerd.tracing.processor.v1.otlp"]
[grpc]
  address = "` + c.socket() + `"
[plugins."io.containerd.cri.v1.images"]
  snapshotter = "overlayfs"
  [plugins."io.containerd.cri.v1.images".pinned_images]
    sandbox = "` + Pause + `"
[plugins."io.containerd.cri.v1.runtime"]
  restrict_oom_score_adj = true
  disable_hugetlb_controller = true
  tolerate_missing_hugetlb_controller = true
  disable_apparmor = true
  [plugins."io.containerd.cri.v1.runtime".cni]
    bin_dirs = ["` + cniPlugins + `"]
    conf_dir = "` + c.Dir + `/cni"
  [plugins."io.containerd.cri.v1.runtime".containerd]
    default_runtime_name = "runc"
    [plugins."io.containerd.cri.v1.runtime".containerd.runtimes.runc]
      runtime_type = "io.containerd.runc.v2"
      [plugins."io.containerd.cri.v1.runtime".containerd.runtimes.runc.options]
        SystemdCgroup = false
        BinaryName = "` + c.bin + `/runc"
`,
		"cni/pods.conflist": `{"cniVersion": "1.0.0", "name": "pods", "plugins": [
  {"type": "bridge", "bridge": "cni0", "isGateway": true, "ipam": {
    "type": "host-local", "dataDir": "` + c.Dir + `/cni/leases", "ranges": [[{"subnet": "10.88.0.0/16"}]], "routes": [{"dst": "0.0.0.0/0"}]}}]}
`,
		"resolv.conf": "nameserver " + NodeAddress + "\n",
		"kubelet.yaml": `apiVersion: kubelet.config.k8s.io/v1beta1
kind: KubeletConfiguration
authentication: {anonymous: {enabled: true}, webhook: {enabled: false}}
authorization: {mode: AlwaysAllow}
cgroupDriver: cgroupfs
cgroupRoot: /` + cgroupOf(c.Dir) + `
failCgroupV1: false
failSwapOn: false
oomScoreAdj: 0
maxOpenFiles: 20000
enforceNodeAllocatable: [none]
makeIPTablesUtilChains: false
containerRuntimeEndpoint: unix://` + c.socket() + `
clusterDNS: [` + NodeAddress + `]
clusterDomain: cluster.local
resolvConf: ` + c.Dir + `/resolv.conf
podLogsDir: /var/log/pods
containerLogMaxSize: 200Mi
volumePluginDir: ` + c.Dir + `/kubelet/plugins-exec
syncFrequency: 2s
volumeStatsAggPeriod: 2s
nodeStatusUpdateFrequency: 4s
serializeImagePulls: false
evictionHard: {memory.available: 50Mi, nodefs.available: 1%, imagefs.available: 1%}
imageGCHighThresholdPercent: 100
registryPullQPS: 0
eventRecordQPS: 0
crashLoopBackOff: {maxContainerRestartPeriod: 2s}
`,
	} {
		if err := os.WriteFile(filepath.Join(c.Dir, name), []byte(text), 0o644); err != nil {
			return err
		}
	}
	return nil
}
