package cluster

import (
	"crypto/rand"
	"crypto/rsa"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"time"
)

// token is the only user's: cluster admin. The API server is reachable from nowhere
// but the cluster's own network namespace.
const token = "splitpod-test"

const apiURL = "https://" + NodeAddress + ":6443"

func (c *Cluster) kubeconfig() string { return filepath.Join(c.Dir, "kubeconfig") }

// startControl starts etcd, the API server and, with them, what needs both.
func (c *Cluster) startControl() error {
	if err := c.writeControlFiles(); err != nil {
		return err
	}
	if err := c.launch("etcd", c.bin+"/etcd", "--data-dir="+c.Dir+"/etcd/data", "--unsafe-no-fsync",
		"--listen-client-urls=http://127.0.0.1:2379", "--advertise-client-urls=http://127.0.0.1:2379",
		"--listen-peer-urls=http://127.0.0.1:2380", "--log-level=warn"); err != nil {
		return err
	}
	if err := c.launch("kube-apiserver", c.bin+"/kube-apiserver",
		"--etcd-servers=http://127.0.0.1:2379", "--secure-port=6443", "--bind-address="+NodeAddress, "--advertise-address="+NodeAddress,
		"--cert-dir="+c.Dir+"/certs", "--token-auth-file="+c.Dir+"/tokens", "--authorization-mode=RBAC", "--allow-privileged",
		"--service-cluster-ip-range=10.96.0.0/16", "--endpoint-reconciler-type=none", "--kubelet-preferred-address-types=InternalIP",
		"--service-account-issuer=https://kubernetes.default.svc", "--service-account-key-file="+c.Dir+"/sa.pub",
		"--service-account-signing-key-file="+c.Dir+"/sa.key", "--enable-admission-plugins=NodeRestriction"); err != nil {
		return err
	}
	if err := c.awaitProgram("kube-apiserver", func() error { return c.healthz(apiURL + "/readyz") }); err != nil {
		return err
	}
	if err := c.launch("kube-controller-manager", c.bin+"/kube-controller-manager", "--kubeconfig="+c.kubeconfig(),
		"--leader-elect=false", "--service-account-private-key-file="+c.Dir+"/sa.key", "--cert-dir="+c.Dir+"/certs",
		"--controllers=*,-node-ipam-controller"); err != nil {
		return err
	}
	return c.launch("kube-scheduler", c.bin+"/kube-scheduler", "--kubeconfig="+c.kubeconfig(), "--leader-elect=false", "--cert-dir="+c.Dir+"/certs")
}

func (c *Cluster) writeControlFiles() error {
	key, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		return err
	}
	public, err := x509.MarshalPKIXPublicKey(&key.PublicKey)
	if err != nil {
		return err
	}
	for name, data := range map[string][]byte{
		"sa.key": pem.EncodeToMemory(&pem.Block{Type: "RSA PRIVATE KEY", Bytes: x509.MarshalPKCS1PrivateKey(key)}),
		"sa.pub": pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: public}),
		"tokens": []byte(token + ",admin,1,\"system:masters\"\n"),
		"kubeconfig": []byte(`apiVersion: v1
kind: Config
clusters: [{name: c, cluster: {server: "` + apiURL + `", insecure-skip-tls-verify: true}}]
users: [{name: u, user: {token: ` + token + `}}]
contexts: [{name: x, context: {cluster: c, user: u}}]
current-context: x
`),
	} {
		if err := os.WriteFile(filepath.Join(c.Dir, name), data, 0o600); err != nil {
			return err
		}
	}
	return nil
}

// healthz asks a part of the cluster whether it is there; its certificate is its own.
func (c *Cluster) healthz(url string) error {
	client := &http.Client{Timeout: 5 * time.Second, Transport: &http.Transport{
		TLSClientConfig: &tls.Config{InsecureSkipVerify: true}, DisableKeepAlives: true}}
	req, err := http.NewRequest(http.MethodGet, url, nil)
	if err != nil {
		return err
	}
	req.Header.Set("Authorization", "Bearer "+token)
	resp, err := client.Do(req)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	body, _ := io.ReadAll(io.LimitReader(resp.Body, 4096))
	if resp.StatusCode != http.StatusOK {
		return fmt.Errorf("%s: %s: %s", url, resp.Status, body)
	}
	return nil
}
