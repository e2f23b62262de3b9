{{/* Security context of a pod: Pod Security `restricted`. 1000 is the user `ray` of the official images. */}}
{{- define "equipoise.podSecurity" -}}
runAsNonRoot: true
runAsUser: 1000
runAsGroup: 1000
fsGroup: 1000
fsGroupChangePolicy: OnRootMismatch
seccompProfile: {type: RuntimeDefault}
{{- end -}}

{{/* Security context of a container. What it writes goes to mounted volumes. */}}
{{- define "equipoise.containerSecurity" -}}
allowPrivilegeEscalation: false
readOnlyRootFilesystem: true
capabilities: {drop: [ALL]}
{{- end -}}

{{- define "equipoise.pullSecrets" -}}
{{- with .Values.image.pullSecrets }}
imagePullSecrets:
{{- range . }}
  - name: {{ . }}
{{- end }}
{{- end }}
{{- end -}}

{{/* Volumes of a pod that reads bundles and runs. */}}
{{- define "equipoise.volumes" -}}
- name: tmp
  emptyDir: {}
{{- if eq .Values.storage.kind "pvc" }}
- name: data
  persistentVolumeClaim: {claimName: {{ include "equipoise.claim" . }}}
{{- end }}
{{- if and (eq .Values.storage.kind "gcs") .Values.storage.gcs.secret }}
- name: gcs-key
  secret: {secretName: {{ .Values.storage.gcs.secret }}, defaultMode: 0440}
{{- end }}
{{- end -}}

{{- define "equipoise.volumeMounts" -}}
- {name: tmp, mountPath: /tmp}
{{- if eq .Values.storage.kind "pvc" }}
- {name: data, mountPath: {{ .Values.storage.mountPath }}}
{{- end }}
{{- if and (eq .Values.storage.kind "gcs") .Values.storage.gcs.secret }}
- {name: gcs-key, mountPath: /etc/equipoise/gcs, readOnly: true}
{{- end }}
{{- end -}}

{{/* Environment by which pyarrow finds the bucket. */}}
{{- define "equipoise.storageEnv" -}}
{{- if eq .Values.storage.kind "s3" }}
{{- with .Values.storage.s3.region }}
- {name: AWS_REGION, value: {{ . | quote }}}
- {name: AWS_DEFAULT_REGION, value: {{ . | quote }}}
{{- end }}
{{- with .Values.storage.s3.endpoint }}
- {name: AWS_ENDPOINT_URL, value: {{ . | quote }}}
{{- end }}
{{- range $key := ternary (list "AWS_ACCESS_KEY_ID" "AWS_SECRET_ACCESS_KEY") (list) (ne .Values.storage.s3.secret "") }}
- name: {{ $key }}
  valueFrom: {secretKeyRef: {name: {{ $.Values.storage.s3.secret }}, key: {{ $key }}}}
{{- end }}
{{- end }}
{{- if and (eq .Values.storage.kind "gcs") .Values.storage.gcs.secret }}
- {name: GOOGLE_APPLICATION_CREDENTIALS, value: /etc/equipoise/gcs/key.json}
{{- end }}
{{- end -}}

{{/* Environment of every Ray process. KubeRay adds the token. The root file system is read-only. */}}
{{- define "equipoise.rayEnv" -}}
- {name: HOME, value: /tmp}
- {name: HF_HOME, value: /tmp/huggingface}
- {name: PYTHONDONTWRITEBYTECODE, value: "1"}
# Serve's front is HAProxy with direct ingress; every Ray process has to know.
- {name: RAY_SERVE_ENABLE_HA_PROXY, value: "1"}
- {name: RAY_SERVE_THROUGHPUT_OPTIMIZED, value: "1"}
- {name: RAY_TRAIN_V2_ENABLED, value: "1"}
- {name: RAY_USAGE_STATS_ENABLED, value: "0"}
# Ray would run workers at niceness 15, which lets anything else on the node slow a timing.
- {name: RAY_worker_niceness, value: "0"}
{{- if .Values.mlflow.enabled }}
- {name: MLFLOW_TRACKING_URI, value: http://{{ include "equipoise.fullname" . }}-mlflow:5000}
{{- end }}
{{- if and (eq .Values.storage.kind "pvc") (not (hasKey .Values.env "EQUIPOISE_RUNS")) }}
# Where a run goes whose folder nobody named; a head's own disk is lost with it.
- {name: EQUIPOISE_RUNS, value: {{ .Values.storage.mountPath }}/runs}
{{- end }}
{{- include "equipoise.storageEnv" . }}
{{- range $name, $value := .Values.env }}
- {name: {{ $name }}, value: {{ $value | quote }}}
{{- end }}
{{- end -}}
