{{- define "splitpod.name" -}}
{{- .Values.nameOverride | default .Chart.Name | trunc 63 | trimSuffix "-" -}}
{{- end -}}

{{- define "splitpod.fullname" -}}
{{- if .Values.fullnameOverride -}}
{{- .Values.fullnameOverride | trunc 63 | trimSuffix "-" -}}
{{- else if contains (include "splitpod.name" .) .Release.Name -}}
{{- .Release.Name | trunc 63 | trimSuffix "-" -}}
{{- else -}}
{{- printf "%s-%s" .Release.Name (include "splitpod.name" .) | trunc 63 | trimSuffix "-" -}}
{{- end -}}
{{- end -}}

{{- define "splitpod.selector" -}}
app.kubernetes.io/name: {{ include "splitpod.name" . }}
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end -}}

{{- define "splitpod.labels" -}}
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/component: sandbox
{{ include "splitpod.selector" . }}
{{- end -}}

{{/* An image's reference; a digest wins over a tag. Arguments: image, the tag if none is given. */}}
{{- define "splitpod.image" -}}
{{- $image := index . 0 -}}
{{- if $image.digest -}}
{{- printf "%s@%s" $image.repository $image.digest -}}
{{- else -}}
{{- with $image.tag | default (index . 1) -}}{{- printf "%s:%s" $image.repository . -}}{{- else -}}{{- $image.repository -}}{{- end -}}
{{- end -}}
{{- end -}}

{{/* Settings as flags: camelCase names become the daemon's. */}}
{{- define "splitpod.flags" -}}
{{- range $name, $value := . }}
{{- if not (kindIs "invalid" $value) }}
- {{ printf "--%s=%s" (kebabcase $name) (kindIs "float64" $value | ternary (printf "%d" (int64 $value)) (toString $value)) | quote }}
{{- end }}
{{- end }}
{{- end -}}

{{- define "splitpod.policyName" -}}
{{- .Values.policy.configMap.name | default (printf "%s-policy" (include "splitpod.fullname" .)) -}}
{{- end -}}

{{- define "splitpod.binary" -}}
{{- eq .Values.delivery "image" | ternary .Values.process.path "/splitpod/supervisor-process" -}}
{{- end -}}

{{/* What values together must not say; the schema knows only one at a time. */}}
{{- define "splitpod.check" -}}
{{- if not .Values.workload.image.repository }}{{ fail "workload.image.repository: which image is sandboxed?" }}{{ end -}}
{{- if not .Values.workload.command }}{{ fail "workload.command: which program of the image is run? A pod does not know the image's entrypoint" }}{{ end -}}
{{- if and .Values.policy.inline .Values.policy.configMap.name }}{{ fail "policy: give inline or configMap.name, not both" }}{{ end -}}
{{- if not (or .Values.policy.inline .Values.policy.configMap.name .Values.gateway.url) }}{{ fail "policy: give inline or configMap.name, or gateway.url; without a policy nothing can be allowed" }}{{ end -}}
{{- if and .Values.gateway.url (or .Values.policy.inline .Values.policy.configMap.name) }}{{ fail "gateway.url: the gateway has the policy; take out policy.inline and policy.configMap.name" }}{{ end -}}
{{- if and .Values.gateway.url (not .Values.gateway.sandbox) }}{{ fail "gateway.sandbox: which sandbox of the gateway is this?" }}{{ end -}}
{{- if and .Values.gateway.url (not .Values.gateway.secret) (or .Values.gateway.token (hasPrefix "https:" .Values.gateway.url)) }}{{ fail "gateway.secret: which Secret has the token or the certificate authority?" }}{{ end -}}
{{- if and (eq .Values.kind "Job") (eq .Values.topology "containers") }}{{ fail "topology containers: a Job would never end, because the network daemon does not; use sidecar" }}{{ end -}}
{{- if eq (int .Values.ports.network) (int .Values.ports.process) }}{{ fail "ports: network and process are two ports of one pod; give them different numbers" }}{{ end -}}
{{- range list "name" "instance" "component" -}}
{{- if hasKey ($.Values.pod.labels | default dict) (printf "app.kubernetes.io/%s" .) }}{{ fail (printf "pod.labels: app.kubernetes.io/%s is what the chart finds its pods by; nameOverride changes the name" .) }}{{ end -}}
{{- end -}}
{{- end -}}
