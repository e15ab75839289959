package policy

import (
	"regexp"

	"github.com/splitpod/splitpod/pkg/core/strictyaml"
)

// serviceName is what an AWS service or region can look like.
var serviceName = regexp.MustCompile(`^[a-z0-9][a-z0-9-]{0,62}$`)

// credentials reads what becomes of placeholders on their way to the endpoint.
func (er endpointReader) credentials() {
	e := er.e
	e.WebSocketCredentialRewrite = er.Flag("websocket_credential_rewrite", false)
	e.RequestBodyCredentialRewrite = er.Flag("request_body_credential_rewrite", false)
	e.AllowUninspectedCredentials = er.Flag("allow_uninspected_credentials", false)
	e.CredentialSigning = er.Word("credential_signing", "sigv4", "sigv4:body", "sigv4:no_body")
	e.SigningService = er.serviceName("signing_service")
	e.SigningRegion = er.serviceName("signing_region")
	er.binding()
	er.checkSigning()
}

func (er endpointReader) serviceName(key string) string {
	s := er.Text(key)
	if s != "" && !serviceName.MatchString(s) {
		er.Fields[key].Fail("%s is not a service or region; write lower-case letters, digits and -", strictyaml.Quoted(s))
	}
	return s
}

func (er endpointReader) binding() {
	v, ok := er.Fields["credential_binding"]
	if !ok {
		return
	}
	o, ok := v.Object("provider")
	if !ok {
		return
	}
	er.e.CredentialBindingProvider = o.Text("provider")
	if p, has := o.Fields["provider"]; !has || p.IsEmptyText() {
		o.FailKey("provider", "the provider is missing; name one")
	}
}

func (er endpointReader) checkSigning() {
	e := er.e
	if e.CredentialSigning == "" {
		for _, key := range []string{"signing_service", "signing_region"} {
			if v, ok := er.Fields[key]; ok && !er.Has("credential_signing") {
				v.Fail("%s has no effect without credential_signing; add that or remove this", key)
			}
		}
		return
	}
	if v, ok := er.Fields["signing_service"]; !ok || v.IsEmptyText() {
		er.FailKey("signing_service", "signing needs the service; write for example signing_service: bedrock")
	}
	if e.RequestBodyCredentialRewrite {
		er.Fields["credential_signing"].Fail("signing and request_body_credential_rewrite exclude each other; keep one")
	}
}

// checkCredentialed refuses an endpoint that the control plane has credentials for where
// nobody looks at requests.
func (er endpointReader) checkCredentialed() {
	looks := er.e.Protocol.Inspected() && er.e.Protocol != ProtocolSQL
	if er.Flag("provider_credentialed", false) && !looks && !er.e.AllowUninspectedCredentials {
		er.Fields["provider_credentialed"].Fail("there are credentials for this endpoint, and its requests are not inspected; write a protocol such as rest, or allow_uninspected_credentials: true")
	}
}
