{{/*
The spec of a RayCluster: that of the service, of the jobs cluster and of a run.
`dict "root" $ "component" "serving" "cluster" .Values.serving`
*/}}
{{- define "equipoise.rayCluster" -}}
{{- $root := .root -}}
{{- $autoscale := dig "autoscaler" "enabled" false .cluster -}}
rayVersion: {{ $root.Values.rayVersion | quote }}
authOptions:
  # Written out: an empty authOptions makes a secret and leaves the token off.
  mode: {{ $root.Values.auth.ray.mode }}
  {{- if eq $root.Values.auth.ray.mode "token" }}
  secretName: {{ include "equipoise.raySecret" $root }}
  {{- end }}
{{- if $autoscale }}
enableInTreeAutoscaling: true
autoscalerOptions:
  version: v2
  idleTimeoutSeconds: {{ int .cluster.autoscaler.idleTimeoutSeconds }}
  upscalingMode: {{ .cluster.autoscaler.upscalingMode }}
  resources:
    requests: {cpu: 100m, memory: 512Mi}
    limits: {cpu: 500m, memory: 512Mi}
  securityContext: {{- include "equipoise.containerSecurity" $root | nindent 4 }}
  env:
    - {name: HOME, value: /tmp}
  volumeMounts:
    - {name: tmp, mountPath: /tmp}
{{- end }}
{{- /* A run's driver dies with its head; KubeRay then starts the RayJob on a new cluster. */}}
{{- if ne .component "run" }}
{{- include "equipoise.gcsFaultTolerance" $root }}
{{- end }}
headGroupSpec:
  rayStartParams: {}
  # Replicas, trials and workers run in the groups below, never beside the scheduler.
  resources: {CPU: "0"}
  template:
    metadata:
      labels: {{- include "equipoise.selector" (dict "root" $root "component" .component) | nindent 8 }}
    spec:
      serviceAccountName: {{ include "equipoise.fullname" $root }}-ray
      # The autoscaler in this pod asks the API server for workers; nothing else here does.
      automountServiceAccountToken: {{ $autoscale }}
      securityContext: {{- include "equipoise.podSecurity" $root | nindent 8 }}
      {{- include "equipoise.pullSecrets" $root | nindent 6 }}
      {{- with .cluster.head.priorityClassName }}
      priorityClassName: {{ . }}
      {{- end }}
      {{- with .cluster.head.nodeSelector }}
      nodeSelector: {{- toYaml . | nindent 8 }}
      {{- end }}
      {{- with .cluster.head.tolerations }}
      tolerations: {{- toYaml . | nindent 8 }}
      {{- end }}
      containers:
        - name: ray-head
          image: {{ include "equipoise.image" $root }}
          imagePullPolicy: {{ $root.Values.image.pullPolicy }}
          ports:
            - {name: gcs-server, containerPort: 6379}
            - {name: dashboard, containerPort: 8265}
            - {name: client, containerPort: 10001}
            - {name: metrics, containerPort: 8080}
            - {name: serve, containerPort: 8000}
          {{- include "equipoise.rayContainer" (dict "root" $root "resources" .cluster.head.resources "gpu" false) | nindent 10 }}
            {{- if eq .component "run" }}
            - {name: run-config, mountPath: /etc/equipoise/run, readOnly: true}
            {{- end }}
            {{- include "equipoise.keysMount" . | nindent 12 }}
      volumes: {{- include "equipoise.volumes" $root | nindent 8 }}
        {{- if eq .component "run" }}
        - name: run-config
          configMap: {name: {{ include "equipoise.runName" $root }}}
        {{- end }}
        {{- include "equipoise.keysVolume" . | nindent 8 }}
workerGroupSpecs:
{{- $component := .component }}
{{- range $name, $given := .cluster.workerGroups }}
{{- if $given }}
{{- $group := merge (deepCopy $given) (include "equipoise.groupDefaults" $given | fromYaml) }}
  - groupName: {{ $name }}
    replicas: {{ int $group.replicas }}
    minReplicas: {{ int $group.minReplicas }}
    maxReplicas: {{ int $group.maxReplicas }}
    rayStartParams: {}
    # One timing at a time on each machine.
    resources: {measured_slot: "1"}
    {{- if $group.spot }}
    labels: {ray.io/market-type: spot}
    {{- end }}
    template:
      metadata:
        labels: {{- include "equipoise.selector" (dict "root" $root "component" $component) | nindent 10 }}
      spec: {{- include "equipoise.workerPod" (dict "root" $root "component" $component "name" $name "group" $group) | nindent 8 }}
{{- end }}
{{- end }}
{{- end -}}

{{/* The pod of a worker group. */}}
{{- define "equipoise.workerPod" -}}
{{- $group := .group -}}
serviceAccountName: {{ include "equipoise.fullname" .root }}-ray
automountServiceAccountToken: false
securityContext: {{- include "equipoise.podSecurity" .root | nindent 2 }}
{{- include "equipoise.pullSecrets" .root }}
{{- with $group.priorityClassName }}
priorityClassName: {{ . }}
{{- end }}
{{- with merge (deepCopy (default dict $group.nodeSelector)) (include "equipoise.spotLabels" $group.spot | fromYaml) }}
nodeSelector: {{- toYaml . | nindent 2 }}
{{- end }}
{{- with concat (default list $group.tolerations) (include "equipoise.groupTolerations" $group | fromYamlArray) }}
tolerations: {{- toYaml . | nindent 2 }}
{{- end }}
{{- if $group.spread }}
topologySpreadConstraints:
{{- range $key := list "topology.kubernetes.io/zone" "kubernetes.io/hostname" }}
  - maxSkew: 1
    topologyKey: {{ $key }}
    whenUnsatisfiable: ScheduleAnyway
    labelSelector:
      matchLabels:
        {{- include "equipoise.selector" (dict "root" $.root "component" $.component) | nindent 8 }}
        ray.io/group: {{ $.name }}
{{- end }}
{{- end }}
containers:
  - name: ray-worker
    image: {{ $group.gpu | ternary (include "equipoise.gpuImage" .root) (include "equipoise.image" .root) }}
    imagePullPolicy: {{ .root.Values.image.pullPolicy }}
    ports:
      - {name: metrics, containerPort: 8080}
      - {name: serve, containerPort: 8000}
    {{- include "equipoise.rayContainer" (dict "root" .root "resources" $group.resources "gpu" $group.gpu) | nindent 4 }}
      {{- include "equipoise.keysMount" . | nindent 6 }}
volumes: {{- include "equipoise.volumes" .root | nindent 2 }}
  {{- include "equipoise.keysVolume" . | nindent 2 }}
{{- end -}}

{{/* The hashed API keys, in the pods of the service alone; a key in the clear is mounted in none of them. */}}
{{- define "equipoise.keysMount" -}}
{{- if and (eq .component "serving") .root.Values.auth.apiKeys.enabled }}
- {name: api-keys, mountPath: /etc/equipoise/keys, readOnly: true}
{{- end }}
{{- end -}}

{{- define "equipoise.keysVolume" -}}
{{- if and (eq .component "serving") .root.Values.auth.apiKeys.enabled }}
- name: api-keys
  secret:
    secretName: {{ include "equipoise.apiKeysSecret" .root }}
    items: [{key: keys.json, path: keys.json}]
    defaultMode: 0440
{{- end }}
{{- end -}}

{{/* What head and workers have in common. */}}
{{- define "equipoise.rayContainer" -}}
securityContext: {{- include "equipoise.containerSecurity" .root | nindent 2 }}
env: {{- include "equipoise.rayEnv" .root | nindent 2 }}
  {{- if not .gpu }}
  - {name: DS_ACCELERATOR, value: cpu}
  {{- end }}
{{- with .root.Values.envSecrets }}
envFrom:
{{- range . }}
  - secretRef: {name: {{ . }}}
{{- end }}
{{- end }}
resources: {{- toYaml .resources | nindent 2 }}
volumeMounts: {{- include "equipoise.volumeMounts" .root | nindent 2 }}
{{- end -}}

{{/* The keys that a group of one's own may leave out. */}}
{{- define "equipoise.groupDefaults" -}}
minReplicas: 0
replicas: {{ default 0 .minReplicas }}
gpu: false
spot: ""
nodeSelector: {}
tolerations: []
spread: false
priorityClassName: ""
{{- end -}}

{{/* Node labels of a platform's spot machines. */}}
{{- define "equipoise.spotLabels" -}}
{{- if eq . "karpenter" }}
karpenter.sh/capacity-type: spot
{{- else if eq . "gke" }}
cloud.google.com/gke-spot: "true"
{{- else if eq . "eks" }}
eks.amazonaws.com/capacityType: SPOT
{{- else }}
{}
{{- end }}
{{- end -}}

{{/* Taints that a group bears by what it is: GPU nodes and GKE's spot nodes are tainted by their platforms. */}}
{{- define "equipoise.groupTolerations" -}}
{{- if .gpu }}
- {key: nvidia.com/gpu, operator: Exists, effect: NoSchedule}
{{- end }}
{{- if eq .spot "gke" }}
- {key: cloud.google.com/gke-spot, operator: Equal, value: "true", effect: NoSchedule}
{{- end }}
{{- if not (or .gpu (eq .spot "gke")) }}
[]
{{- end }}
{{- end -}}

{{- define "equipoise.gcsFaultTolerance" -}}
{{- with .Values.gcsFaultTolerance }}
{{- if eq .backend "redis" }}
gcsFaultToleranceOptions:
  backend: redis
  redisAddress: {{ .redis.address }}
  {{- if .redis.passwordSecret }}
  redisPassword:
    valueFrom: {secretKeyRef: {name: {{ .redis.passwordSecret }}, key: {{ .redis.passwordKey }}}}
  {{- end }}
{{- else if eq .backend "rocksdb" }}
gcsFaultToleranceOptions:
  backend: rocksdb
  {{- if .rocksdb.existingClaim }}
  storage: {claimName: {{ .rocksdb.existingClaim }}}
  {{- else }}
  storage: {size: {{ .rocksdb.size }}}
  {{- end }}
{{- end }}
{{- end }}
{{- end -}}
