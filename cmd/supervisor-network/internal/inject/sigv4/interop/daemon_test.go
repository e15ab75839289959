package interop

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/s3"

	"github.com/splitpod/splitpod/test/need"
	"github.com/splitpod/splitpod/test/world"
)

var (
	origins *world.Origins
	binary  string // the gateway changes the working directory
)

func TestMain(m *testing.M) {
	if os.Geteuid() != 0 {
		os.Exit(m.Run())
	}
	code := 1
	var err error
	if binary, err = filepath.Abs("../../../../../../bin/supervisor-network"); err == nil {
		err = world.Enter()
	}
	if err == nil {
		var dir string
		if dir, err = os.MkdirTemp("", "splitpod-interop-"); err == nil {
			if origins, err = world.Start(dir); err == nil {
				code = m.Run()
				origins.Close()
			}
			os.RemoveAll(dir)
		}
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
	}
	os.Exit(code)
}

// secured puts TLS in front of the gateway, on an address that is not loopback.
func secured(t *testing.T, gateway string) (port string) {
	t.Helper()
	cert, err := origins.Certificate(nil)
	if err != nil {
		t.Fatal(err)
	}
	l, err := tls.Listen("tcp", world.Address+":0", &tls.Config{Certificates: []tls.Certificate{cert}})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			go func() {
				defer c.Close()
				up, err := net.Dial("tcp", gateway)
				if err != nil {
					return
				}
				defer up.Close()
				go func() { _, _ = io.Copy(up, c); _ = up.(*net.TCPConn).CloseWrite() }()
				_, _ = io.Copy(c, up)
			}()
		}
	}()
	_, port, _ = net.SplitHostPort(l.Addr().String())
	return port
}

// daemon starts the network daemon alone and returns a client that goes through it.
func daemon(t *testing.T, port string) *http.Client {
	t.Helper()
	dir := t.TempDir()
	bound := fmt.Sprintf("bindings: [{host: api.demo.test, port: %s}]", port)
	for name, text := range map[string]string{
		"id": accessKey, "secret": secretKey,
		"policy.yaml":      "version: 1\nnetwork_policies:\n  s3:\n    endpoints: [{host: api.demo.test, port: " + port + ", protocol: rest, access: full, enforcement: enforce, credential_signing: sigv4, signing_service: s3, signing_region: " + region + "}]\n    binaries: [{path: \"/**\"}]\n",
		"credentials.yaml": "version: 1\ncredentials:\n  AWS_ACCESS_KEY_ID: {file: " + dir + "/id, " + bound + "}\n  AWS_SECRET_ACCESS_KEY: {file: " + dir + "/secret, " + bound + "}\n",
	} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	cmd := exec.Command(binary, "serve", "--policy", dir+"/policy.yaml", "--credentials", dir+"/credentials.yaml", "--listen", "127.0.0.1:13139", "--identity", "ignore",
		"--admin-listen", "", "--state-dir", dir+"/state", "--run-dir", dir, "--ca-out", dir+"/ca.pem", "--upstream-roots", origins.CAFile)
	var log strings.Builder
	cmd.Stdout, cmd.Stderr = &log, &log
	if err := cmd.Start(); err != nil {
		t.Fatalf("build the daemons first (make build): %v", err)
	}
	t.Cleanup(func() {
		_ = cmd.Process.Signal(syscall.SIGTERM)
		_ = cmd.Wait()
		if strings.Contains(log.String(), secretKey) || strings.Contains(log.String(), accessKey) {
			t.Error("a record or the log contains a key")
		}
		if t.Failed() {
			t.Log(log.String()[max(0, log.Len()-4000):])
		}
	})
	for deadline := time.Now().Add(time.Minute); ; time.Sleep(20 * time.Millisecond) {
		c, err := net.Dial("tcp", "127.0.0.1:13139")
		if err == nil {
			c.Close()
			break
		}
		if time.Now().After(deadline) {
			t.Fatal("the daemon does not listen")
		}
	}
	ca, err := os.ReadFile(dir + "/ca.pem")
	if err != nil {
		t.Fatal(err)
	}
	roots := x509.NewCertPool()
	roots.AppendCertsFromPEM(ca)
	return &http.Client{Transport: &http.Transport{Proxy: http.ProxyURL(&url.URL{Scheme: "http", Host: "127.0.0.1:13139"}), TLSClientConfig: &tls.Config{RootCAs: roots}}}
}

// TestTheSDKThroughTheDaemon: what an agent does with S3, with keys that it does not
// have, and the names that cannot be judged.
func TestTheSDKThroughTheDaemon(t *testing.T) {
	need.Root(t)
	port := secured(t, gateway(t))
	endpoint := "https://api.demo.test:" + port
	c := s3.New(s3.Options{
		Region: region, BaseEndpoint: &endpoint, UsePathStyle: true, HTTPClient: daemon(t, port), RetryMaxAttempts: 1, RequestChecksumCalculation: aws.RequestChecksumCalculationWhenSupported,
		Credentials: aws.CredentialsProviderFunc(func(context.Context) (aws.Credentials, error) {
			return aws.Credentials{AccessKeyID: "openshell:resolve:env:AWS_ACCESS_KEY_ID", SecretAccessKey: "openshell:resolve:env:AWS_SECRET_ACCESS_KEY"}, nil
		}),
	})
	ctx, bucket := t.Context(), aws.String("bucket")
	if _, err := c.CreateBucket(ctx, &s3.CreateBucketInput{Bucket: bucket}); err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"plain", "a b/c d.txt", "100%/x", "(1)+$&'!*,=:@;x", "ü/日本"} {
		if _, err := c.PutObject(ctx, &s3.PutObjectInput{Bucket: bucket, Key: &name, Body: strings.NewReader("content of " + name)}); err != nil {
			t.Errorf("put %q: %v", name, err)
			continue
		}
		got, err := c.GetObject(ctx, &s3.GetObjectInput{Bucket: bucket, Key: &name})
		if err != nil {
			t.Errorf("get %q: %v", name, err)
			continue
		}
		if text, _ := io.ReadAll(got.Body); string(text) != "content of "+name {
			t.Errorf("%q holds %q", name, text)
		}
		if _, err := c.DeleteObject(ctx, &s3.DeleteObjectInput{Bucket: bucket, Key: &name}); err != nil {
			t.Errorf("delete %q: %v", name, err)
		}
	}
	list, err := c.ListObjectsV2(ctx, &s3.ListObjectsV2Input{Bucket: bucket, Prefix: aws.String("a b/"), Delimiter: aws.String("/")})
	if err != nil || len(list.Contents) != 0 {
		t.Errorf("list: %v", err)
	}
	for _, name := range []string{"a//b", "a/../b"} {
		if _, err := c.PutObject(ctx, &s3.PutObjectInput{Bucket: bucket, Key: &name, Body: strings.NewReader("x")}); err == nil || !strings.Contains(err.Error(), "400") {
			t.Errorf("put %q, which cannot be judged: %v", name, err)
		}
	}
}
