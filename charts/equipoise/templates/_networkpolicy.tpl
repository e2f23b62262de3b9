{{/* Head of the policy of one flow; `dict "root" $ "flow" "dns"`. */}}
{{- define "equipoise.policyHead" -}}
apiVersion: networking.k8s.io/v1
kind: NetworkPolicy
metadata:
  name: {{ include "equipoise.fullname" .root }}-{{ .flow }}
  labels:
    {{- include "equipoise.labels" (dict "root" .root "component" "network") | nindent 4 }}
{{- end -}}
