// Package sigv4 signs requests to AWS, and to what speaks its protocol, with keys
// that the workload does not have.
//
// It answers the threats of a request that is signed for another service or region
// than the policy names, of a signature that covers something else than what is
// sent, and of one that the workload made itself: what it sent of its own signing is
// removed. It does not answer what the request asks for; that is the policy's.
//
// Invariant: the path, the query and the fields that Sign returns are to be sent as
// they are; the signature covers them.
//
// Not signed, with an error that says so: bodies signed chunk by chunk, presigned
// URLs, and SigV4A. The signer is the AWS SDK's. Source: the AWS General Reference,
// "Create a signed AWS API request", and the S3 API Reference, "Authenticating
// Requests".
package sigv4

import (
	"strings"

	"github.com/splitpod/splitpod/cmd/supervisor-network/internal/inject"
	"github.com/splitpod/splitpod/pkg/core"
)

// MaxBody bounds a body that is read to be signed.
const MaxBody = 10 << 20

func refuse(status int, detail string) *inject.Error {
	return &inject.Error{Status: status, Reason: core.ReasonSigningFailed, Detail: detail}
}

// Mode is an endpoint's credential_signing.
type Mode uint8

// The modes. The zero value signs nothing.
const (
	Off    Mode = iota
	Auto        // as the client's x-amz-content-sha256 says
	Body        // always the body
	NoBody      // never the body
)

// ParseMode reads the policy's word.
func ParseMode(word string) Mode {
	switch word {
	case "sigv4":
		return Auto
	case "sigv4:body":
		return Body
	case "sigv4:no_body":
		return NoBody
	default:
		return Off
	}
}

// regionOf is the region of an AWS host name. The endpoints without one that SDKs use by
// themselves (S3, STS, IAM) are in us-east-1.
func regionOf(host string) (string, bool) {
	name, ok := strings.CutSuffix(strings.TrimSuffix(host, ".cn"), ".amazonaws.com")
	if !ok {
		return "", false
	}
	labels := strings.Split(name, ".")
	last := labels[len(labels)-1]
	if last == "dualstack" && len(labels) > 1 {
		last = labels[len(labels)-2]
	}
	if last = strings.TrimPrefix(last, "s3-"); isRegion(last) { // an old form of S3's hosts
		return last, true
	}
	if global := last == "s3" || name == "sts" || name == "iam"; global && !strings.HasSuffix(host, ".cn") {
		return "us-east-1", true
	}
	return "", false
}

// isRegion reports whether a label is letters, in at least two parts, and a number:
// us-gov-west-1.
func isRegion(label string) bool {
	parts := strings.Split(label, "-")
	if len(parts) < 3 || len(parts[0]) < 2 {
		return false
	}
	for i, part := range parts {
		kind := "abcdefghijklmnopqrstuvwxyz"
		if i == len(parts)-1 {
			kind = "0123456789"
		}
		if part == "" || strings.Trim(part, kind) != "" {
			return false
		}
	}
	return true
}

// isS3 reports whether a service has S3's reading of paths: each byte is escaped
// once, and nothing is normalised.
func isS3(service string) bool { return service == "s3" || strings.HasPrefix(service, "s3-") }
