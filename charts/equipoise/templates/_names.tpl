{{/* The stem of every name. KubeRay appends up to 16 characters to a RayService's. */}}
{{- define "equipoise.fullname" -}}
{{- if .Values.fullnameOverride -}}
{{- .Values.fullnameOverride | trunc 40 | trimSuffix "-" -}}
{{- else -}}
{{- $name := default .Chart.Name .Values.nameOverride -}}
{{- if contains $name .Release.Name -}}
{{- .Release.Name | trunc 40 | trimSuffix "-" -}}
{{- else -}}
{{- printf "%s-%s" .Release.Name $name | trunc 40 | trimSuffix "-" -}}
{{- end -}}
{{- end -}}
{{- end -}}

{{/*
What selects the pods of a component; `dict "root" $ "component" "serving"`. Not app.kubernetes.io/name: on Ray's
pods that is KubeRay's, whose services select by it.
*/}}
{{- define "equipoise.selector" -}}
app.kubernetes.io/part-of: equipoise
app.kubernetes.io/instance: {{ .root.Release.Name }}
app.kubernetes.io/component: {{ .component }}
{{- end -}}

{{/* Labels of an object; `dict "root" $ "component" "serving"`. */}}
{{- define "equipoise.labels" -}}
{{ include "equipoise.selector" . }}
app.kubernetes.io/name: equipoise
app.kubernetes.io/version: {{ .root.Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .root.Release.Service }}
helm.sh/chart: {{ printf "%s-%s" .root.Chart.Name .root.Chart.Version }}
{{- end -}}

{{- define "equipoise.image" -}}
{{- $tag := default (printf "%s-cpu" .Chart.AppVersion) .Values.image.tag -}}
{{- printf "%s:%s" .Values.image.repository $tag -}}
{{- end -}}

{{- define "equipoise.gpuImage" -}}
{{- $tag := default (printf "%s-gpu" .Chart.AppVersion) .Values.image.gpuTag -}}
{{- printf "%s:%s" .Values.image.repository $tag -}}
{{- end -}}

{{- define "equipoise.claim" -}}
{{- default (printf "%s-data" (include "equipoise.fullname" .)) .Values.storage.pvc.existingClaim -}}
{{- end -}}

{{- define "equipoise.raySecret" -}}
{{- default (printf "%s-ray-token" (include "equipoise.fullname" .)) .Values.auth.ray.existingSecret -}}
{{- end -}}

{{- define "equipoise.apiKeysSecret" -}}
{{- default (printf "%s-api-keys" (include "equipoise.fullname" .)) .Values.auth.apiKeys.existingSecret -}}
{{- end -}}

{{/* The folder of the chart's run; it is below the mounted volume. */}}
{{- define "equipoise.runFolder" -}}
{{- default (printf "%s/runs/%s" .Values.storage.mountPath (dig "name" "run" .Values.run.config)) .Values.run.folder -}}
{{- end -}}

{{/* A changed config is another run, and a finished RayJob does not start again. */}}
{{- define "equipoise.runName" -}}
{{- printf "%s-%s" (include "equipoise.fullname" . | trunc 36 | trimSuffix "-") (printf "%s %s" (toJson .Values.run.config) (include "equipoise.runFolder" .) | sha256sum | trunc 8) -}}
{{- end -}}

{{/* The run folder that the exporter reads. */}}
{{- define "equipoise.exporterRun" -}}
{{- if .Values.exporter.run -}}
{{- .Values.exporter.run -}}
{{- else if hasSuffix "/bundle" (trimSuffix "/" .Values.serving.bundle) -}}
{{- .Values.serving.bundle | trimSuffix "/" | trimSuffix "/bundle" -}}
{{- else if .Values.serving.bundle -}}
{{- .Values.serving.bundle -}}
{{- else -}}
{{- include "equipoise.runFolder" . -}}
{{- end -}}
{{- end -}}

{{- define "equipoise.kueueLabels" -}}
{{- with .Values.kueue.queue }}
kueue.x-k8s.io/queue-name: {{ . }}
{{- end }}
{{- with .Values.kueue.priorityClass }}
kueue.x-k8s.io/priority-class: {{ . }}
{{- end }}
{{- end -}}
