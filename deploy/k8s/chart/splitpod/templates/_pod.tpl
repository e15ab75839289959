{{- define "splitpod.podMetadata" -}}
labels: # nothing that a new chart version changes: that must not restart a sandbox
  {{- include "splitpod.selector" . | nindent 2 }}
  app.kubernetes.io/component: sandbox
  {{- with .Values.pod.labels }}{{ toYaml . | nindent 2 }}{{ end }}
annotations:
  kubectl.kubernetes.io/default-container: workload
  {{- if and .Values.policy.restartOnChange .Values.policy.inline }}
  checksum/policy: {{ .Values.policy.inline | sha256sum }}
  {{- end }}
  {{- with .Values.pod.annotations }}{{ toYaml . | nindent 2 }}{{ end }}
{{- end -}}

{{- define "splitpod.podSpec" -}}
{{- include "splitpod.check" . -}}
hostUsers: {{ .Values.hostUsers }}{{ if not .Values.hostUsers }} # capabilities count only inside the pod{{ end }}
automountServiceAccountToken: false # the workload has no business with the API server
enableServiceLinks: false # nor with a list of the namespace's services
shareProcessNamespace: false # nor with the other container's processes
{{- with .Values.pod.serviceAccountName }}
serviceAccountName: {{ . }}
{{- end }}
{{- with .Values.imagePullSecrets }}
imagePullSecrets: {{- toYaml . | nindent 2 }}
{{- end }}
{{- if ne .Values.kind "Deployment" }}
restartPolicy: {{ eq .Values.kind "Job" | ternary "Never" .Values.pod.restartPolicy }}
{{- end }}
terminationGracePeriodSeconds: {{ .Values.pod.terminationGracePeriodSeconds }}
{{- with .Values.pod.runtimeClassName }}
runtimeClassName: {{ . }}
{{- end }}
{{- with .Values.pod.priorityClassName }}
priorityClassName: {{ . }}
{{- end }}
{{- with .Values.pod.dnsConfig }}
dnsConfig: {{- toYaml . | nindent 2 }}
{{- end }}
{{- with .Values.pod.nodeSelector }}
nodeSelector: {{- toYaml . | nindent 2 }}
{{- end }}
{{- with .Values.pod.tolerations }}
tolerations: {{- toYaml . | nindent 2 }}
{{- end }}
{{- with .Values.pod.affinity }}
affinity: {{- toYaml . | nindent 2 }}
{{- end }}
{{- $inits := or .Values.process.preflight (eq .Values.delivery "copy") (eq .Values.topology "sidecar") }}
{{- if $inits }}
initContainers:
  {{- if .Values.process.preflight }}
  - name: preflight # says what the node lacks, and stops the start
    image: {{ include "splitpod.image" (list .Values.images.process .Chart.AppVersion) }}
    imagePullPolicy: {{ .Values.images.process.pullPolicy }}
    args: [preflight]
    terminationMessagePolicy: FallbackToLogsOnError
    resources: {requests: {cpu: 50m, memory: 64Mi}, limits: {memory: 128Mi}}
    securityContext: {{- include "splitpod.processSecurity" . | nindent 6 }}
      readOnlyRootFilesystem: true
    volumeMounts:
      - {name: preflight, mountPath: /tmp}
  {{- end }}
  {{- if eq .Values.delivery "copy" }}
  - name: copy # brings supervisor-process into the workload's container
    image: {{ include "splitpod.image" (list .Values.images.process .Chart.AppVersion) }}
    imagePullPolicy: {{ .Values.images.process.pullPolicy }}
    args: [copy-self, /splitpod]
    resources: {requests: {cpu: 50m, memory: 32Mi}, limits: {memory: 64Mi}}
    securityContext: {{- include "splitpod.noPrivilege" . | nindent 6 }}
    volumeMounts:
      - {name: supervisor-process, mountPath: /splitpod}
  {{- end }}
  {{- if eq .Values.topology "sidecar" }}
  {{- include "splitpod.networkContainer" . | nindent 2 }}
  {{- end }}
{{- end }}
containers:
  {{- if eq .Values.topology "containers" }}
  {{- include "splitpod.networkContainer" . | nindent 2 }}
  {{- end }}
  {{- include "splitpod.workloadContainer" . | nindent 2 }}
volumes:
  - name: run # where the two daemons meet; the workload sees an empty folder there
    emptyDir: {medium: Memory, sizeLimit: 16Mi}
  - name: state # the interception CA's key; a restart of the container keeps it
    emptyDir: {medium: Memory, sizeLimit: 16Mi}
  {{- if not .Values.gateway.url }}
  - name: policy
    configMap:
      name: {{ include "splitpod.policyName" . }}
      items: [{key: {{ .Values.policy.configMap.key }}, path: policy.yaml}]
  {{- else }}
  {{- with .Values.gateway.secret }}
  - name: gateway # for the network daemon alone
    secret: {secretName: {{ . }}}
  {{- end }}
  {{- if not .Values.gateway.token }}
  - name: gateway-account # for the network daemon alone
    projected:
      sources: [{serviceAccountToken: {path: token, audience: {{ .Values.gateway.audience }}, expirationSeconds: 3600}}]
  {{- end }}
  {{- end }}
  {{- with .Values.credentials.secret }}
  - name: credentials # for the network daemon alone
    secret: {secretName: {{ . }}}
  {{- end }}
  {{- with .Values.inference.secret }}
  - name: inference # for the network daemon alone
    secret: {secretName: {{ . }}}
  {{- end }}
  {{- with .Values.adminToken.secret }}
  - name: admin-token # for the network daemon alone
    secret: {secretName: {{ . }}}
  {{- end }}
  {{- if eq .Values.delivery "volume" }}
  - name: supervisor-process
    image:
      reference: {{ include "splitpod.image" (list .Values.images.process .Chart.AppVersion) }}
      pullPolicy: {{ .Values.images.process.pullPolicy }}
  {{- else if eq .Values.delivery "copy" }}
  - name: supervisor-process
    emptyDir: {sizeLimit: 64Mi}
  {{- end }}
  {{- if .Values.process.preflight }}
  - name: preflight
    emptyDir: {medium: Memory, sizeLimit: 1Mi}
  {{- end }}
  {{- range $i, $path := .Values.workload.scratch }}
  - name: scratch-{{ $i }}
    emptyDir: {sizeLimit: {{ $.Values.workload.scratchSize }}}
  {{- end }}
  {{- with .Values.network.volumes }}{{ toYaml . | nindent 2 }}{{ end }}
  {{- with .Values.workload.volumes }}{{ toYaml . | nindent 2 }}{{ end }}
{{- end -}}

{{/* What both daemons' records call the sandbox; the workload does not get it. */}}
{{- define "splitpod.identity" -}}
{{- $root := index . 0 -}}{{- $daemon := index . 1 -}}
- {name: SPLITPOD_{{ $daemon }}_SANDBOX_NAME, valueFrom: {fieldRef: {fieldPath: metadata.name}}}
- {name: SPLITPOD_{{ $daemon }}_SANDBOX_UID, valueFrom: {fieldRef: {fieldPath: metadata.uid}}}
- {name: SPLITPOD_{{ $daemon }}_SANDBOX_IMAGE, value: {{ include "splitpod.image" (list $root.Values.workload.image "") | quote }}}
{{- end -}}

{{/* A container that nothing is granted to: the restricted level of Pod Security. */}}
{{- define "splitpod.noPrivilege" -}}
runAsNonRoot: true
runAsUser: 65532
runAsGroup: 65532
allowPrivilegeEscalation: false
readOnlyRootFilesystem: true
capabilities: {drop: [ALL]}
seccompProfile: {type: RuntimeDefault}
{{- end -}}

{{- define "splitpod.networkContainer" -}}
- name: supervisor-network
  image: {{ include "splitpod.image" (list .Values.images.network .Chart.AppVersion) }}
  imagePullPolicy: {{ .Values.images.network.pullPolicy }}
  {{- if eq .Values.topology "sidecar" }}
  restartPolicy: Always # a native sidecar: starts first, ends last
  {{- end }}
  args:
    - serve
    {{- if not .Values.gateway.url }}
    - --policy=/etc/splitpod/policy.yaml
    {{- else }}
    - --gateway={{ .Values.gateway.url }}
    - --gateway-sandbox={{ .Values.gateway.sandbox }}
    {{- if .Values.gateway.token }}
    - --gateway-token=/etc/splitpod-gateway/{{ .Values.gateway.token }}
    {{- else }}
    - --gateway-service-account-token=/var/run/splitpod-gateway/token
    {{- end }}
    {{- if hasPrefix "https:" .Values.gateway.url }}
    - --gateway-ca=/etc/splitpod-gateway/{{ .Values.gateway.ca }}
    {{- if .Values.gateway.clientCertificate }}
    - --gateway-cert=/etc/splitpod-gateway/tls.crt
    - --gateway-key=/etc/splitpod-gateway/tls.key
    {{- end }}
    {{- end }}
    {{- end }}
    {{- if .Values.credentials.secret }}
    - --credentials=/etc/splitpod-credentials/{{ .Values.credentials.key }}
    {{- end }}
    {{- if .Values.inference.secret }}
    - --inference-routes=/etc/splitpod-inference/{{ .Values.inference.key }}
    {{- end }}
    - --admin-listen=:{{ .Values.ports.network }}
    {{- if .Values.adminToken.secret }}
    - --admin-token=/etc/splitpod-admin/{{ .Values.adminToken.key }}
    {{- end }}
    {{- with include "splitpod.flags" .Values.network.settings | trim }}{{ . | nindent 4 }}{{ end }}
  env: {{- include "splitpod.identity" (list . "NETWORK") | nindent 4 }}
  terminationMessagePolicy: FallbackToLogsOnError # why it ended stands in the pod's status
  ports:
    - {name: metrics-network, containerPort: {{ .Values.ports.network }}}
  startupProbe: # alive, not ready: readiness needs the process daemon, which starts after it
    httpGet: {path: /livez, port: metrics-network}
    {{- toYaml .Values.probes.startup | nindent 4 }}
  livenessProbe:
    httpGet: {path: /livez, port: metrics-network}
    {{- toYaml .Values.probes.liveness | nindent 4 }}
  readinessProbe:
    httpGet: {path: /readyz, port: metrics-network}
    {{- toYaml .Values.probes.readiness | nindent 4 }}
  resources: {{- toYaml .Values.network.resources | nindent 4 }}
  securityContext: {{- include "splitpod.noPrivilege" . | nindent 4 }}
  volumeMounts:
    - {name: run, mountPath: /run/splitpod}
    - {name: state, mountPath: /var/lib/splitpod}
    {{- if not .Values.gateway.url }}
    - {name: policy, mountPath: /etc/splitpod, readOnly: true}
    {{- else }}
    {{- if .Values.gateway.secret }}
    - {name: gateway, mountPath: /etc/splitpod-gateway, readOnly: true}
    {{- end }}
    {{- if not .Values.gateway.token }}
    - {name: gateway-account, mountPath: /var/run/splitpod-gateway, readOnly: true}
    {{- end }}
    {{- end }}
    {{- if .Values.credentials.secret }}
    - {name: credentials, mountPath: /etc/splitpod-credentials, readOnly: true}
    {{- end }}
    {{- if .Values.inference.secret }}
    - {name: inference, mountPath: /etc/splitpod-inference, readOnly: true}
    {{- end }}
    {{- if .Values.adminToken.secret }}
    - {name: admin-token, mountPath: /etc/splitpod-admin, readOnly: true}
    {{- end }}
    {{- with .Values.network.volumeMounts }}{{ toYaml . | nindent 4 }}{{ end }}
{{- end -}}

{{/* What the process daemon is granted; the workload gets none of it. */}}
{{- define "splitpod.processSecurity" -}}
runAsUser: 0
runAsGroup: 0
{{- if not .Values.hostUsers }}
procMount: Unmasked # so that the workload can have a /proc of its own
{{- end }}
seccompProfile: {type: RuntimeDefault}
capabilities:
  drop: [ALL]
  add:
    - SYS_ADMIN       # the workload's namespaces and mounts
    - NET_ADMIN       # the fence and lo in the workload's network namespace
    - SETUID          # the drop to the workload's user
    - SETGID          # the drop to the workload's groups
    - SETPCAP         # an empty bounding set
    - KILL            # signals to the workload
    - SYS_PTRACE      # which program owns a connection
    - DAC_READ_SEARCH # what a program's file contains, whatever its mode
{{- end -}}

{{- define "splitpod.workloadContainer" -}}
- name: workload # the process daemon, in the workload's image; the workload is its child
  image: {{ include "splitpod.image" (list .Values.workload.image "") }}
  imagePullPolicy: {{ .Values.workload.image.pullPolicy }}
  command:
    - {{ include "splitpod.binary" . }}
    - run
    - --admin-listen=:{{ .Values.ports.process }}
    - --workdir={{ .Values.workload.workdir }}
    {{- with include "splitpod.flags" .Values.process.settings | trim }}{{ . | nindent 4 }}{{ end }}
    - --
  args: {{- toYaml (concat .Values.workload.command (.Values.workload.args | default list)) | nindent 4 }}
  env: {{- include "splitpod.identity" (list . "PROCESS") | nindent 4 }}
    {{- with .Values.workload.env }}{{ toYaml . | nindent 4 }}{{ end }}
  {{- if .Values.workload.stdin }}
  stdin: true
  {{- end }}
  {{- if .Values.workload.tty }}
  tty: true
  {{- end }}
  terminationMessagePolicy: FallbackToLogsOnError
  ports:
    - {name: metrics-process, containerPort: {{ .Values.ports.process }}}
  readinessProbe:
    httpGet: {path: /readyz, port: metrics-process}
    {{- toYaml .Values.probes.readiness | nindent 4 }}
  resources: {{- toYaml .Values.workload.resources | nindent 4 }}
  securityContext: {{- include "splitpod.processSecurity" . | nindent 4 }}
    readOnlyRootFilesystem: {{ not .Values.workload.writableRoot }}
  volumeMounts:
    - {name: run, mountPath: /run/splitpod}
    {{- if ne .Values.delivery "image" }}
    - {name: supervisor-process, mountPath: /splitpod, readOnly: true}
    {{- end }}
    {{- range $i, $path := .Values.workload.scratch }}
    - {name: scratch-{{ $i }}, mountPath: {{ $path }}}
    {{- end }}
    {{- with .Values.workload.volumeMounts }}{{ toYaml . | nindent 4 }}{{ end }}
{{- end -}}
