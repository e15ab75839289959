package policy

import "regexp"

// serviceName is what an AWS service or region can look like.
var serviceName = regexp.MustCompile(`^[a-z0-9][a-z0-9-]{0,62}$`)

// credentials reads what becomes of placeholders on their way to the endpoint.
func (er endpointReader) credentials() {
	e := er.e
	e.WebSocketCredentialRewrite = er.flag("websocket_credential_rewrite", false)
	e.RequestBodyCredentialRewrite = er.flag("request_body_credential_rewrite", false)
	e.AllowUninspectedCredentials = er.flag("allow_uninspected_credentials", false)
	e.CredentialSigning = er.word("credential_signing", "sigv4", "sigv4:body", "sigv4:no_body")
	e.SigningService = er.serviceName("signing_service")
	e.SigningRegion = er.serviceName("signing_region")
	er.binding()
	er.checkSigning()
}

func (er endpointReader) serviceName(key string) string {
	s := er.text(key)
	if s != "" && !serviceName.MatchString(s) {
		er.fields[key].fail("%s is not a service or region; write lower-case letters, digits and -", quoted(s))
	}
	return s
}

func (er endpointReader) binding() {
	v, ok := er.fields["credential_binding"]
	if !ok {
		return
	}
	o, ok := v.object("provider")
	if !ok {
		return
	}
	er.e.CredentialBindingProvider = o.text("provider")
	if p, has := o.fields["provider"]; !has || p.emptyText() {
		o.missing("provider", "the provider is missing; name one")
	}
}

func (er endpointReader) checkSigning() {
	e := er.e
	if e.CredentialSigning == "" {
		for _, key := range []string{"signing_service", "signing_region"} {
			if v, ok := er.fields[key]; ok && !er.has("credential_signing") {
				v.fail("%s has no effect without credential_signing; add that or remove this", key)
			}
		}
		return
	}
	if v, ok := er.fields["signing_service"]; !ok || v.emptyText() {
		er.missing("signing_service", "signing needs the service; write for example signing_service: bedrock")
	}
	if e.RequestBodyCredentialRewrite {
		er.fields["credential_signing"].fail("signing and request_body_credential_rewrite exclude each other; keep one")
	}
}
