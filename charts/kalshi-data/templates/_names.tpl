{{/*
Names and labels. `context` is the chart's root; `zone` a zone's merged values (see _zones.tpl).
*/}}

{{- define "kalshi-data.name" -}}
{{- .Values.nameOverride | default .Chart.Name -}}
{{- end -}}

{{/* Prefix of every object. _check.tpl refuses one that is too long for what stands behind it. */}}
{{- define "kalshi-data.fullname" -}}
{{- if .Values.fullnameOverride -}}
{{- .Values.fullnameOverride -}}
{{- else -}}
{{- $name := include "kalshi-data.name" . -}}
{{- if contains $name .Release.Name -}}
{{- .Release.Name -}}
{{- else -}}
{{- printf "%s-%s" .Release.Name $name -}}
{{- end -}}
{{- end -}}
{{- end -}}

{{/* <fullname>-<component>[-<zone>]: (dict "context" $ "component" "registry" "zone" "a") */}}
{{- define "kalshi-data.object" -}}
{{- include "kalshi-data.fullname" .context }}-{{ .component }}{{ with .zone }}-{{ . }}{{ end -}}
{{- end -}}

{{/* What never changes: selectors, volume claims. */}}
{{- define "kalshi-data.selector" -}}
app.kubernetes.io/name: {{ include "kalshi-data.name" .context }}
app.kubernetes.io/instance: {{ .context.Release.Name | toYaml }}
{{- with .component }}
app.kubernetes.io/component: {{ . }}
{{- end }}
{{- with .zone }}
kalshi-data.io/zone: {{ . | quote }}
{{- end }}
{{- end -}}

{{/* What pods of somebody else's software bear: no version of ours, for a new one must not replace a database's pod. */}}
{{- define "kalshi-data.otherPodLabels" -}}
{{ include "kalshi-data.selector" . }}
app.kubernetes.io/managed-by: {{ .context.Release.Service }}
app.kubernetes.io/part-of: kalshi-data
{{- end -}}

{{/* What our pods bear. Not the chart's version: a chart that changes nothing about a pod must not replace it. */}}
{{- define "kalshi-data.podLabels" -}}
{{ include "kalshi-data.otherPodLabels" . }}
app.kubernetes.io/version: {{ .context.Chart.AppVersion | quote }}
{{- end -}}

{{/* What every object bears. */}}
{{- define "kalshi-data.labels" -}}
{{ include "kalshi-data.podLabels" . }}
helm.sh/chart: {{ printf "%s-%s" .context.Chart.Name .context.Chart.Version | replace "+" "_" | trunc 63 | trimSuffix "-" }}
{{- end -}}

{{/* Name of a role's Secret: (dict "context" $ "database" "a" "role" "writer" "existing" .existingSecrets) */}}
{{- define "kalshi-data.roleSecret" -}}
{{- get (.existing | default dict) .role | default (printf "%s-%s-%s" (include "kalshi-data.fullname" .context) .database .role) -}}
{{- end -}}

{{/* A zone's database as its Gatherer names it: (dict "context" $ "zone" $zone) */}}
{{- define "kalshi-data.gathererDatabase" -}}
host: {{ include "kalshi-data.object" (dict "context" .context "component" "database" "zone" .zone.name) }}
port: 5432
name: {{ .zone.database.name | toYaml }}
secretName: {{ include "kalshi-data.roleSecret" (dict "context" .context "database" .zone.name "role" "planner" "existing" .zone.database.existingSecrets) }}
{{- end -}}

{{- define "kalshi-data.exchangeSecret" -}}
{{- .zone.exchange.existingSecret | default (printf "%s-%s-exchange" (include "kalshi-data.fullname" .context) .zone.name) -}}
{{- end -}}

{{- define "kalshi-data.s3Secret" -}}
{{- if .Values.archive.existingSecret -}}
{{- .Values.archive.existingSecret -}}
{{- else if .Values.s3server.enabled -}}
{{- include "kalshi-data.fullname" . }}-s3
{{- end -}}
{{- end -}}

{{/* The reference of an image of ours: (dict "context" $ "image" .Values.archiver.image) */}}
{{- define "kalshi-data.image" -}}
{{- $common := .context.Values.image -}}
{{- $own := .image | default dict -}}
{{- include "kalshi-data.reference" (dict
    "registry" ($own.registry | default $common.registry)
    "repository" ($own.repository | default $common.repository)
    "tag" ($own.tag | default $common.tag | default .context.Chart.AppVersion)
    "digest" ($own.digest | default (ternary "" $common.digest (or (hasKey $own "repository") (hasKey $own "tag"))))) -}}
{{- end -}}

{{/* The reference of an image that is not the common one: (dict "context" $ "image" .Values.production.image "registry" "") */}}
{{- define "kalshi-data.otherImage" -}}
{{- $common := .context.Values.image -}}
{{- include "kalshi-data.reference" (dict
    "registry" (.image.registry | default .registry)
    "repository" .image.repository
    "tag" (.image.tag | default $common.tag | default .context.Chart.AppVersion)
    "digest" .image.digest) -}}
{{- end -}}

{{- define "kalshi-data.reference" -}}
{{- with .registry }}{{ trimSuffix "/" . }}/{{ end }}{{ .repository }}{{ if .digest }}@{{ .digest }}{{ else }}:{{ .tag }}{{ end -}}
{{- end -}}
