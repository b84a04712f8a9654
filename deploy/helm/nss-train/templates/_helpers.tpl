{{- define "nss-train.name" -}}
{{- printf "%s-%s" .Release.Name "nss-train" | trunc 40 | trimSuffix "-" -}}
{{- end -}}

{{/* Labels that never change, for selectors: (dict "root" $ "part" "cpu") */}}
{{- define "nss-train.selector" -}}
app.kubernetes.io/name: nss-train
app.kubernetes.io/instance: {{ .root.Release.Name }}
app.kubernetes.io/component: {{ .part }}
{{- end -}}

{{- define "nss-train.labels" -}}
{{ include "nss-train.selector" . }}
app.kubernetes.io/version: {{ .root.Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .root.Release.Service }}
helm.sh/chart: {{ printf "%s-%s" .root.Chart.Name .root.Chart.Version }}
{{- end -}}

{{/* What the Prometheus operator adds to the series of this release's exporter, and to no other's. */}}
{{- define "nss-train.series" -}}
namespace="{{ .Release.Namespace }}",service="{{ include "nss-train.name" . }}-metrics"
{{- end -}}

{{- define "nss-train.image" -}}
{{- $target := index .root.Values.image .target -}}
{{- .root.Values.image.repository -}}
{{- if $target.digest -}}@{{ $target.digest }}{{- else -}}:{{ $target.tag }}{{- end -}}
{{- end -}}

{{- define "nss-train.podSecurity" -}}
runAsNonRoot: true
runAsUser: 10001
runAsGroup: 10001
fsGroup: 10001
fsGroupChangePolicy: OnRootMismatch
seccompProfile: {type: RuntimeDefault}
{{- end -}}

{{- define "nss-train.containerSecurity" -}}
allowPrivilegeEscalation: false
readOnlyRootFilesystem: true
capabilities: {drop: [ALL]}
{{- end -}}

{{/* Environment of every container: (dict "root" $ "queue" "cuda") */}}
{{- define "nss-train.environment" -}}
{{- range $name, $value := .root.Values.settings }}
- {name: NSS_TRAIN_{{ $name }}, value: {{ $value | quote }}}
{{- end }}
- {name: NSS_TRAIN_QUEUE_CUDA, value: {{ .queue | quote }}}
{{- $queues := dict }}
{{- range $shape := .root.Values.cuda.shapes }}
{{- if $shape.memoryGiB }}{{ $_ := set $queues $shape.queue $shape.memoryGiB }}{{ end }}
{{- end }}
{{- if $queues }}
- {name: NSS_TRAIN_CUDA_QUEUES, value: {{ $queues | toJson | quote }}}
{{- end }}
- {name: NSS_TRAIN_DRAIN_GRACE_S, value: {{ .root.Values.drain.graceSeconds | quote }}}
{{- if .root.Values.secrets.authority }}
- {name: SSL_CERT_FILE, value: /etc/nss-train/ca.crt}
{{- end }}
{{- end -}}

{{/* Mounts that every container has; secrets are files, which with-secrets.sh reads. */}}
{{- define "nss-train.mounts" -}}
- {name: home, mountPath: /var/lib/nss-train}
- {name: tmp, mountPath: /tmp}
- {name: secrets, mountPath: /run/secrets, readOnly: true}
{{- if .Values.secrets.authority }}
- {name: authority, mountPath: /etc/nss-train, readOnly: true}
{{- end }}
{{- end -}}

{{- define "nss-train.volumes" -}}
- {name: home, emptyDir: {sizeLimit: {{ .size }}}}
- {name: tmp, emptyDir: {sizeLimit: 1Gi}}
- name: secrets
  secret: {secretName: {{ .secret }}, defaultMode: 0440}
{{- with .root.Values.secrets.authority }}
- name: authority
  secret: {secretName: {{ . }}, defaultMode: 0444, items: [{key: ca.crt, path: ca.crt}]}
{{- end }}
{{- end -}}

{{- define "nss-train.preparedClaim" -}}
{{- if .Values.preparedModels.create -}}
{{ include "nss-train.name" . }}-prepared
{{- else -}}
{{ .Values.preparedModels.existingClaim }}
{{- end -}}
{{- end -}}

{{/* The pod of a worker: (dict "root" $ "part" "cpu" "queue" "cpu" "training" "cuda" "shape" {...} "arguments" [...]) */}}
{{- define "nss-train.workerPod" -}}
{{- $root := .root -}}
{{- $prepared := include "nss-train.preparedClaim" $root -}}
serviceAccountName: {{ include "nss-train.name" $root }}-worker
automountServiceAccountToken: false
enableServiceLinks: false
# A training that leaves keeps its state within the grace of the drain.
terminationGracePeriodSeconds: {{ add $root.Values.drain.graceSeconds $root.Values.drain.marginSeconds }}
{{- with $root.Values.imagePullSecrets }}
imagePullSecrets: {{ toYaml . | nindent 2 }}
{{- end }}
{{- with .shape.nodeSelector }}
nodeSelector: {{ toYaml . | nindent 2 }}
{{- end }}
{{- with .shape.tolerations }}
tolerations: {{ toYaml . | nindent 2 }}
{{- end }}
securityContext: {{ include "nss-train.podSecurity" $root | nindent 2 }}
containers:
  - name: worker
    image: {{ include "nss-train.image" (dict "root" $root "target" .target) }}
    imagePullPolicy: {{ $root.Values.image.pullPolicy }}
    args: {{ concat (list "nss-train" "worker" "--queues" .queue "--name" (printf "%s@%%h" .queue)) .arguments | toJson }}
    env: {{ include "nss-train.environment" (dict "root" $root "queue" .training) | nindent 6 }}
    securityContext: {{ include "nss-train.containerSecurity" $root | nindent 6 }}
    resources:
      requests: {{ toYaml .shape.resources.requests | nindent 8 }}
      limits: {{ toYaml .shape.resources.limits | nindent 8 }}
        {{- with .shape.gpus }}
        {{ $.shape.gpuResource | default "nvidia.com/gpu" }}: {{ . }}
        {{- end }}
    # Ready, and no longer pending for the scaler, when the worker's heart beats.
    startupProbe:
      exec: {command: [healthcheck.sh, "1"]}
      periodSeconds: 5
      timeoutSeconds: 5
      failureThreshold: 60
    readinessProbe:
      exec: {command: [healthcheck.sh, "1"]}
      periodSeconds: 30
      timeoutSeconds: 5
    livenessProbe:
      exec: {command: [healthcheck.sh, {{ $root.Values.livenessMinutes | quote }}]}
      periodSeconds: 60
      timeoutSeconds: 10
    volumeMounts: {{ include "nss-train.mounts" $root | nindent 6 }}
      - {name: shm, mountPath: /dev/shm}
      {{- if $root.Values.models.existingClaim }}
      - {name: models, mountPath: /var/lib/nss-train/models, readOnly: true}
      {{- end }}
      {{- if $prepared }}
      - {name: prepared, mountPath: /var/lib/nss-train/prepared}
      {{- end }}
volumes: {{ include "nss-train.volumes" (dict "root" $root "size" $root.Values.scratch.sizeLimit "secret" $root.Values.secrets.worker) | nindent 2 }}
  - {name: shm, emptyDir: {medium: Memory, sizeLimit: {{ $root.Values.scratch.sharedMemory }}}}
  {{- with $root.Values.models.existingClaim }}
  - name: models
    persistentVolumeClaim: {claimName: {{ . }}, readOnly: true}
  {{- end }}
  {{- if $prepared }}
  - name: prepared
    persistentVolumeClaim: {claimName: {{ $prepared }}}
  {{- end }}
{{- end -}}
