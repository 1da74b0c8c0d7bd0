{{/*
Pieces of pods. Everything obeys the restricted profile of Kubernetes' pod security standards.
*/}}

{{- define "kalshi-data.podSecurity" -}}
runAsNonRoot: true
runAsUser: {{ .uid | default 10001 | int }}
runAsGroup: {{ .gid | default 10001 | int }}
fsGroup: {{ .gid | default 10001 | int }}
fsGroupChangePolicy: OnRootMismatch
seccompProfile:
  type: RuntimeDefault
{{- end -}}

{{/* (dict "readOnly" true) */}}
{{- define "kalshi-data.containerSecurity" -}}
allowPrivilegeEscalation: false
readOnlyRootFilesystem: {{ .readOnly }}
capabilities:
  drop: [ALL]
{{- end -}}

{{- define "kalshi-data.annotations" -}}
{{- $all := mergeOverwrite (deepCopy .context.Values.podAnnotations) (deepCopy (.annotations | default dict)) -}}
{{- with $all -}}
annotations:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- end -}}

{{/* Where a zone's pods run: only there, so they wait for their zone as long as it is away. */}}
{{- define "kalshi-data.zonePlacement" -}}
affinity:
  nodeAffinity:
    requiredDuringSchedulingIgnoredDuringExecution:
      nodeSelectorTerms:
        - matchExpressions:
            - key: topology.kubernetes.io/zone
              operator: In
              values: [{{ .zone.topologyZone | quote }}]
            {{- with .zone.nodeRole }}
            - key: kalshi-data.io/role
              operator: In
              values: [{{ . | quote }}]
            {{- end }}
{{- with .zone.nodeSelector }}
nodeSelector:
  {{- toYaml . | nindent 2 }}
{{- end }}
tolerations:
  - key: node.kubernetes.io/not-ready
    operator: Exists
    effect: NoExecute
  - key: node.kubernetes.io/unreachable
    operator: Exists
    effect: NoExecute
  {{- with .zone.nodeRole }}
  - key: kalshi-data.io/role
    operator: Equal
    value: {{ . | quote }}
  {{- end }}
  {{- with .zone.tolerations }}
  {{- toYaml . | nindent 2 }}
  {{- end }}
{{- end -}}

{{/* Where everything else runs: anywhere, and soon elsewhere. (dict "context" $ "component" .Values.archiver "stays" false) */}}
{{- define "kalshi-data.centralPlacement" -}}
{{- with .context.Values.nodeRole -}}
affinity:
  nodeAffinity:
    requiredDuringSchedulingIgnoredDuringExecution:
      nodeSelectorTerms:
        - matchExpressions:
            - key: kalshi-data.io/role
              operator: In
              values: [{{ . | quote }}]
{{- end }}
{{- with .component.nodeSelector }}
nodeSelector:
  {{- toYaml . | nindent 2 }}
{{- end }}
tolerations:
  - key: node.kubernetes.io/not-ready
    operator: Exists
    effect: NoExecute
    {{- if not .stays }}
    tolerationSeconds: 30
    {{- end }}
  - key: node.kubernetes.io/unreachable
    operator: Exists
    effect: NoExecute
    {{- if not .stays }}
    tolerationSeconds: 30
    {{- end }}
  {{- with .context.Values.nodeRole }}
  - key: kalshi-data.io/role
    operator: Equal
    value: {{ . | quote }}
  {{- end }}
  {{- with .component.tolerations }}
  {{- toYaml . | nindent 2 }}
  {{- end }}
{{- end -}}

{{- define "kalshi-data.priority" -}}
{{- with (get .context.Values.priorityClasses .kind).name -}}
priorityClassName: {{ . }}
{{- end }}
{{- end -}}

{{- define "kalshi-data.pullSecrets" -}}
{{- with .Values.imagePullSecrets -}}
imagePullSecrets:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- end -}}

{{/* Environment of every container of ours. */}}
{{- define "kalshi-data.env" -}}
- name: HOME
  value: /tmp
- name: TMPDIR
  value: /tmp
- name: POD_NAME
  valueFrom: {fieldRef: {fieldPath: metadata.name}}
- name: POD_NAMESPACE
  valueFrom: {fieldRef: {fieldPath: metadata.namespace}}
{{- with .Values.otlp.endpoint }}
- name: OTEL_EXPORTER_OTLP_ENDPOINT
  value: {{ . | quote }}
{{- end }}
{{- with .Values.extraEnv }}
{{ toYaml . }}
{{- end }}
{{- end -}}

{{/* Startup and liveness: the event loop turns. Readiness: the service does its job. */}}
{{- define "kalshi-data.probes" -}}
startupProbe:
  httpGet: {path: /livez, port: health}
  periodSeconds: 2
  timeoutSeconds: 5
  failureThreshold: 60
livenessProbe:
  httpGet: {path: /livez, port: health}
  periodSeconds: 10
  timeoutSeconds: 10
  failureThreshold: 6
readinessProbe:
  httpGet: {path: /readyz, port: health}
  periodSeconds: 3
  timeoutSeconds: 5
  failureThreshold: 3
{{- end -}}

{{- define "kalshi-data.servicePorts" -}}
- name: health
  containerPort: 8080
- name: metrics
  containerPort: 9090
{{- end -}}

{{/* A Secret's two items as files: (dict "name" "exchange" "secret" "s" "items" (list "username" "password")) */}}
{{- define "kalshi-data.secretVolume" -}}
- name: {{ .name }}
  secret:
    secretName: {{ .secret }}
    defaultMode: 288
    items:
      {{- range .items | default (list "username" "password") }}
      - {key: {{ . }}, path: {{ . }}}
      {{- end }}
{{- end -}}

{{- define "kalshi-data.caVolume" -}}
{{- if include "kalshi-data.productionCa" . -}}
- name: production-ca
  configMap:
    name: {{ .Values.production.tls.caConfigMap }}
    items:
      - {key: {{ .Values.production.tls.caKey }}, path: ca.pem}
{{- end -}}
{{- end -}}

{{- define "kalshi-data.caMount" -}}
{{- if include "kalshi-data.productionCa" . -}}
- {name: production-ca, mountPath: /etc/kalshi-data-ca, readOnly: true}
{{- end -}}
{{- end -}}

{{- define "kalshi-data.health" -}}
- {name: health, port: 8080, targetPort: health, protocol: TCP}
- {name: metrics, port: 9090, targetPort: metrics, protocol: TCP}
{{- end -}}

{{/* The Service of a component's probes and metrics; also of pods that are not ready, for those who ask why.
(dict "context" $ "component" "archiver" "zone" "") */}}
{{- define "kalshi-data.healthService" -}}
apiVersion: v1
kind: Service
metadata:
  name: {{ include "kalshi-data.object" . }}
  labels:
    {{- include "kalshi-data.labels" . | nindent 4 }}
spec:
  publishNotReadyAddresses: true
  selector:
    {{- include "kalshi-data.selector" . | nindent 4 }}
  ports:
    {{- include "kalshi-data.health" . | nindent 4 }}
    {{- with .ports }}
    {{- toYaml . | nindent 4 }}
    {{- end }}
{{- end -}}

{{/* A Deployment of one of our services.
(dict "context" $ "component" "registry" "zone" "a" "file" "gatherer.yaml" "configMap" "..." "values" $zone.registry
      "placement" "<yaml>" "volumes" "<yaml>" "mounts" "<yaml>" "env" "<yaml>" "priority" "other" "spec" "<yaml of the Deployment's spec>"
      "grace" 30 "ports" "<yaml>" "token" false "podSpec" "<yaml>") */}}
{{- define "kalshi-data.deployment" -}}
{{- $root := .context -}}
apiVersion: apps/v1
kind: Deployment
metadata:
  name: {{ include "kalshi-data.object" . }}
  labels:
    {{- include "kalshi-data.labels" . | nindent 4 }}
spec:
  {{- .spec | nindent 2 }}
  {{- /* Helm 4 gives up at the deadline; a first installation waits for volumes, migrations, a whole catalogue. */}}
  progressDeadlineSeconds: 3600
  revisionHistoryLimit: 3
  selector:
    matchLabels:
      {{- include "kalshi-data.selector" . | nindent 6 }}
  template:
    metadata:
      labels:
        {{- /* A simulator that starts again is another exchange: not for a version alone. */}}
        {{- include (ternary "kalshi-data.otherPodLabels" "kalshi-data.podLabels" (eq .component "simulator")) . | nindent 8 }}
      {{- include "kalshi-data.annotations" (dict "context" $root "annotations" .values.podAnnotations) | nindent 6 }}
    spec:
      serviceAccountName: kalshi-data-{{ .component }}
      automountServiceAccountToken: {{ .token | default false }}
      enableServiceLinks: false
      terminationGracePeriodSeconds: {{ .grace | int }}
      {{- include "kalshi-data.priority" (dict "context" $root "kind" (.priority | default "other")) | nindent 6 }}
      {{- include "kalshi-data.pullSecrets" $root | nindent 6 }}
      {{- .placement | nindent 6 }}
      {{- with .podSpec }}
      {{- . | nindent 6 }}
      {{- end }}
      securityContext:
        {{- include "kalshi-data.podSecurity" dict | nindent 8 }}
      containers:
        - name: {{ .component }}
          image: {{ include "kalshi-data.image" (dict "context" $root "image" .values.image) | quote }}
          imagePullPolicy: {{ $root.Values.image.pullPolicy }}
          args: [run, {{ .component }}, --config, /etc/kalshi-data/{{ .file }}]
          env:
            {{- include "kalshi-data.env" $root | nindent 12 }}
            {{- with .env }}
            {{- . | nindent 12 }}
            {{- end }}
          ports:
            {{- include "kalshi-data.servicePorts" . | nindent 12 }}
            {{- with .ports }}
            {{- . | nindent 12 }}
            {{- end }}
          {{- include "kalshi-data.probes" . | nindent 10 }}
          resources:
            {{- toYaml .values.resources | nindent 12 }}
          securityContext:
            {{- include "kalshi-data.containerSecurity" (dict "readOnly" $root.Values.readOnlyRootFilesystem) | nindent 12 }}
          volumeMounts:
            - {name: config, mountPath: /etc/kalshi-data, readOnly: true}
            - {name: tmp, mountPath: /tmp}
            {{- with .mounts }}
            {{- . | nindent 12 }}
            {{- end }}
      volumes:
        - name: config
          configMap: {name: {{ .configMap }}}
        - name: tmp
          emptyDir: {sizeLimit: 256Mi}
        {{- with .volumes }}
        {{- . | nindent 8 }}
        {{- end }}
{{- end -}}
