// Package interop drives a real S3 server with the real AWS SDK through this
// daemon's signer. It is a module of its own: the server brings along more than the
// rest of the project together. Run it with: go test . (in this folder).
package interop

import (
	"bufio"
	"bytes"
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	v4 "github.com/aws/aws-sdk-go-v2/aws/signer/v4"
	"github.com/aws/aws-sdk-go-v2/service/s3"
	"github.com/versity/versitygw/backend/meta"
	"github.com/versity/versitygw/backend/posix"
	"github.com/versity/versitygw/embedgw"

	"github.com/splitpod/splitpod/cmd/supervisor-network/internal/decide"
	"github.com/splitpod/splitpod/cmd/supervisor-network/internal/http1"
	"github.com/splitpod/splitpod/cmd/supervisor-network/internal/inject/secret"
	"github.com/splitpod/splitpod/cmd/supervisor-network/internal/inject/sigv4"
	"github.com/splitpod/splitpod/pkg/core"
	"github.com/splitpod/splitpod/pkg/core/policy"
)

const (
	accessKey = "REALACCESSKEY"
	secretKey = "real-secret-key-canary"
	region    = "us-east-1"
)

// gateway runs an S3 server that verifies signatures.
func gateway(t *testing.T) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	address := l.Addr().String()
	_ = l.Close()
	store, err := posix.New(t.TempDir(), meta.XattrMeta{}, posix.PosixOpts{})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() {
		ended <- embedgw.RunVersityGW(ctx, store, &embedgw.Config{RootUserAccess: accessKey, RootUserSecret: secretKey, Region: region, Ports: []string{address}, Quiet: true, MaxConnections: 100, MaxRequests: 100, MultipartMaxParts: 100})
	}()
	t.Cleanup(func() { cancel(); <-ended })
	deadline := time.Now().Add(time.Minute)
	for {
		c, err := net.Dial("tcp", address)
		if err == nil {
			_ = c.Close()
			return address
		}
		select {
		case err := <-ended:
			ended <- err
			t.Fatalf("the gateway ended: %v", err)
		case <-time.After(20 * time.Millisecond):
		}
		if time.Now().After(deadline) {
			t.Fatal("the gateway does not listen")
		}
	}
}

func permit(t *testing.T) decide.Permit {
	t.Helper()
	doc, _, err := policy.Parse("p", []byte("version: 1\nnetwork_policies:\n  a:\n    endpoints: [{host: s3.test, port: 443}]\n    binaries: [{path: /bin/a}]\n"))
	if err != nil {
		t.Fatal(err)
	}
	snapshot, err := decide.Compile(t.Context(), doc, decide.Options{Generation: 1, IgnoreBinaries: true})
	if err != nil {
		t.Fatal(err)
	}
	p, denial := snapshot.Connection(t.Context(), decide.Question{Who: &core.Identity{}, Host: "s3.test", Port: 443})
	if denial != nil {
		t.Fatal(denial)
	}
	return p
}

// edge signs what comes in, as this daemon does, and hands it to the gateway.
type edge struct {
	*httptest.Server
	mu    sync.Mutex // guards modes
	modes []string   // what clients said about their bodies
}

func newEdge(t *testing.T, upstream string, mode sigv4.Mode) *edge {
	t.Helper()
	e := &edge{}
	p, signer := permit(t), sigv4.New(nil)
	keys := sigv4.Keys{AccessKey: secret.New(accessKey), Secret: secret.New(secretKey)}
	e.Server = httptest.NewTLSServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		e.mu.Lock()
		e.modes = append(e.modes, r.Header.Get("X-Amz-Content-Sha256"))
		e.mu.Unlock()
		var fields http1.Fields
		for name, values := range r.Header {
			for _, v := range values {
				fields = append(fields, http1.Field{Name: name, Value: v})
			}
		}
		framing := http1.Framing{}
		if r.ContentLength > 0 {
			framing = http1.Framing{Kind: http1.Length, Length: r.ContentLength}
		} else if len(r.TransferEncoding) > 0 {
			framing = http1.Framing{Kind: http1.Chunked}
		}
		plan, err := sigv4.Plan(mode, fields, framing)
		if err != nil {
			http.Error(w, err.Error(), http.StatusBadRequest)
			return
		}
		body, _ := io.ReadAll(r.Body)
		path, query, _ := strings.Cut(r.RequestURI, "?")
		if query != "" {
			query = "?" + query
		}
		signed, err := signer.Sign(r.Context(), p, keys, "s3", region, sigv4.Request{
			Method: r.Method, Host: upstream, Path: path, Query: query, Fields: fields, Framing: framing,
		}, plan, body)
		if err != nil {
			http.Error(w, err.Error(), http.StatusBadRequest)
			return
		}
		send(w, r, upstream, signed, framing, body)
	}))
	t.Cleanup(e.Close)
	return e
}

// send writes the request as it was signed: no client library of HTTP touches it.
func send(w http.ResponseWriter, r *http.Request, upstream string, s sigv4.Signed, framing http1.Framing, body []byte) {
	c, err := net.Dial("tcp", upstream)
	if err != nil {
		http.Error(w, err.Error(), http.StatusBadGateway)
		return
	}
	defer c.Close()
	var b bytes.Buffer
	fmt.Fprintf(&b, "%s %s%s HTTP/1.1\r\nHost: %s\r\nConnection: close\r\n", r.Method, s.Path, s.Query, upstream)
	for _, f := range s.Fields {
		if f.Name != "Connection" && f.Name != "Content-Length" {
			fmt.Fprintf(&b, "%s: %s\r\n", f.Name, f.Value)
		}
	}
	if framing.Kind == http1.Chunked {
		fmt.Fprintf(&b, "Transfer-Encoding: chunked\r\n\r\n%x\r\n%s\r\n0\r\n\r\n", len(body), body)
	} else {
		fmt.Fprintf(&b, "Content-Length: %d\r\n\r\n%s", len(body), body)
	}
	_, _ = c.Write(b.Bytes())
	answer, err := http.ReadResponse(bufio.NewReader(c), r)
	if err != nil {
		http.Error(w, err.Error(), http.StatusBadGateway)
		return
	}
	defer answer.Body.Close()
	for name, values := range answer.Header {
		w.Header()[name] = values
	}
	w.WriteHeader(answer.StatusCode)
	_, _ = io.Copy(w, answer.Body)
}

// client is the AWS SDK with keys that are placeholders.
func client(e *edge, options ...func(*s3.Options)) *s3.Client {
	return s3.New(s3.Options{
		Region: region, BaseEndpoint: &e.URL, UsePathStyle: true, HTTPClient: e.Client(), RetryMaxAttempts: 1, RequestChecksumCalculation: aws.RequestChecksumCalculationWhenSupported,
		Credentials: aws.CredentialsProviderFunc(func(context.Context) (aws.Credentials, error) {
			return aws.Credentials{AccessKeyID: "openshell:resolve:env:AWS_ACCESS_KEY_ID", SecretAccessKey: "openshell:resolve:env:AWS_SECRET_ACCESS_KEY"}, nil
		}),
	}, options...)
}

// TestTheSDKThroughTheSigner stores, lists, reads and deletes objects with keys that
// only the edge has, under names that paths make difficult.
func TestTheSDKThroughTheSigner(t *testing.T) {
	upstream := gateway(t)
	e := newEdge(t, upstream, sigv4.Auto)
	c := client(e)
	ctx, bucket := t.Context(), aws.String("bucket")
	if _, err := c.CreateBucket(ctx, &s3.CreateBucketInput{Bucket: bucket}); err != nil {
		t.Fatal(err)
	}
	names := []string{"plain", "a b/c d.txt", "100%/x", "(1)+$&'!*,=:@;x", "ü/日本", "a%2Fb"}
	for _, name := range names {
		if _, err := c.PutObject(ctx, &s3.PutObjectInput{Bucket: bucket, Key: &name, Body: strings.NewReader("content of " + name), Metadata: map[string]string{"note": "two  spaces"}}); err != nil {
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
	}
	list, err := c.ListObjectsV2(ctx, &s3.ListObjectsV2Input{Bucket: bucket, Prefix: aws.String("a b/"), Delimiter: aws.String("/")})
	if err != nil || len(list.Contents) != 1 {
		t.Errorf("list: %v", err)
	}
	for _, name := range names {
		if _, err := c.DeleteObject(ctx, &s3.DeleteObjectInput{Bucket: bucket, Key: &name}); err != nil {
			t.Errorf("delete %q: %v", name, err)
		}
	}
	e.mu.Lock()
	defer e.mu.Unlock()
	if !slices.Contains(e.modes, "STREAMING-UNSIGNED-PAYLOAD-TRAILER") {
		t.Errorf("the SDK did not send a trailer: %v", e.modes)
	}
}

func TestEveryModeIsAccepted(t *testing.T) {
	upstream := gateway(t)
	unsigned := func(o *s3.Options) {
		o.APIOptions = append(o.APIOptions, v4.SwapComputePayloadSHA256ForUnsignedPayloadMiddleware)
	}
	whenRequired := func(o *s3.Options) { o.RequestChecksumCalculation = aws.RequestChecksumCalculationWhenRequired }
	for i, c := range []struct {
		name string
		mode sigv4.Mode
		how  []func(*s3.Options)
	}{
		{"the whole body", sigv4.Auto, []func(*s3.Options){whenRequired}},
		{"unsigned by the client", sigv4.Auto, []func(*s3.Options){whenRequired, unsigned}},
		{"always the body", sigv4.Body, []func(*s3.Options){whenRequired}},
		{"never the body", sigv4.NoBody, []func(*s3.Options){whenRequired}},
	} {
		client := client(newEdge(t, upstream, c.mode), c.how...)
		bucket, key := aws.String(fmt.Sprintf("bucket-%d", i)), aws.String("key")
		_, err1 := client.CreateBucket(t.Context(), &s3.CreateBucketInput{Bucket: bucket})
		_, err2 := client.PutObject(t.Context(), &s3.PutObjectInput{Bucket: bucket, Key: key, Body: strings.NewReader("x")})
		if err1 != nil || err2 != nil {
			t.Errorf("%s: %v, %v", c.name, err1, err2)
		}
	}
}

// TestTheGatewayVerifies makes sure that the other tests can fail.
func TestTheGatewayVerifies(t *testing.T) {
	upstream := gateway(t)
	url := "http://" + upstream
	direct := s3.New(s3.Options{Region: region, BaseEndpoint: &url, UsePathStyle: true, RetryMaxAttempts: 1, RequestChecksumCalculation: aws.RequestChecksumCalculationWhenSupported,
		Credentials: aws.CredentialsProviderFunc(func(context.Context) (aws.Credentials, error) {
			return aws.Credentials{AccessKeyID: accessKey, SecretAccessKey: "wrong"}, nil
		})})
	if _, err := direct.CreateBucket(t.Context(), &s3.CreateBucketInput{Bucket: aws.String("b-1")}); err == nil || !strings.Contains(err.Error(), "SignatureDoesNotMatch") {
		t.Errorf("a wrong secret: %v", err)
	}
}
