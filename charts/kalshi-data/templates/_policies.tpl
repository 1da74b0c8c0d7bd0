{{/*
NetworkPolicies. (dict "context" $ "name" "dns" "pods" "<selector yaml>" "ingress" "<rules>" "egress" "<rules>")
*/}}
{{- define "kalshi-data.policy" -}}
---
apiVersion: networking.k8s.io/v1
kind: NetworkPolicy
metadata:
  name: {{ include "kalshi-data.fullname" .context }}-{{ .name }}
  labels:
    {{- include "kalshi-data.labels" (dict "context" .context "component" "policy" "zone" .zone) | nindent 4 }}
spec:
  podSelector:
    {{- .pods | nindent 4 }}
  policyTypes:
    {{- if hasKey . "ingress" }}
    - Ingress
    {{- end }}
    {{- if hasKey . "egress" }}
    - Egress
    {{- end }}
  {{- with .ingress }}
  ingress:
    {{- . | nindent 4 }}
  {{- end }}
  {{- with .egress }}
  egress:
    {{- . | nindent 4 }}
  {{- end }}
{{- end -}}

{{/* A selector of our pods: (dict "context" $ "components" (list "registry") "zone" "a" "database" "production") */}}
{{- define "kalshi-data.pods" -}}
matchLabels:
  {{- include "kalshi-data.selector" (dict "context" .context "zone" .zone) | nindent 2 }}
  {{- with .database }}
  kalshi-data.io/database: {{ . }}
  {{- end }}
{{- with .components }}
matchExpressions:
  - {key: app.kubernetes.io/component, operator: In, values: [{{ join ", " . }}]}
{{- end }}
{{- end -}}

{{- define "kalshi-data.peer" -}}
- podSelector:
    {{- include "kalshi-data.pods" . | nindent 4 }}
{{- end -}}

{{/* One rule: (dict "side" "from" "peers" "<yaml list or nothing>" "ports" (list 5432)) */}}
{{- define "kalshi-data.rule" -}}
- ports:
    {{- range .ports }}
    - {protocol: TCP, port: {{ . }}}
    {{- end }}
  {{- with .peers }}
  {{ $.side }}:
    {{- . | nindent 4 }}
  {{- end }}
{{- end -}}

{{/* Port of a URL, by its scheme where it names none. */}}
{{- define "kalshi-data.urlPort" -}}
{{- $url := urlParse . -}}
{{- $named := regexFind ":[0-9]+$" $url.host -}}
{{- if $named -}}
{{- trimPrefix ":" $named -}}
{{- else -}}
{{- ternary 443 80 (has $url.scheme (list "https" "wss")) -}}
{{- end -}}
{{- end -}}

{{/*
Where the exchange is: another one at its ports; the simulator in the chart, or public addresses. Of two addresses of which one is
said, the other is the environment's own.
*/}}
{{- define "kalshi-data.exchangeEgress" -}}
{{- $rest := .Values.exchange.restUrl -}}
{{- $ws := .Values.exchange.wsUrl -}}
{{- $rules := list -}}
{{- if or $rest $ws -}}
{{- $ports := list -}}
{{- range compact (list $rest $ws) -}}{{- $ports = append $ports (include "kalshi-data.urlPort" .) -}}{{- end -}}
{{- $rules = append $rules (include "kalshi-data.rule" (dict "side" "to" "ports" (uniq $ports))) -}}
{{- end -}}
{{- if not (and $rest $ws) -}}
{{- if .Values.simulator.enabled -}}
{{- $rules = append $rules (include "kalshi-data.rule" (dict "side" "to" "ports" (list 8700)
    "peers" (include "kalshi-data.peer" (dict "context" . "components" (list "simulator"))))) -}}
{{- else -}}
{{- $rules = append $rules (include "kalshi-data.rule" (dict "side" "to" "ports" (list 443) "peers" (include "kalshi-data.publicAddresses" .))) -}}
{{- end -}}
{{- end -}}
{{- join "\n" $rules -}}
{{- end -}}

{{- define "kalshi-data.publicAddresses" -}}
- ipBlock:
    cidr: 0.0.0.0/0
    except: {{ toJson .Values.networkPolicy.privateCidrs }}
- ipBlock:
    cidr: ::/0
    except: [fc00::/7, fe80::/10]
{{- end -}}

{{/* Where production is: the one in the chart, or the external one's addresses. */}}
{{- define "kalshi-data.productionEgress" -}}
{{- $peers := "" -}}
{{- if .Values.production.enabled -}}
{{- $peers = include "kalshi-data.peer" (dict "context" . "components" (list "production")) -}}
{{- else -}}
{{- range .Values.production.cidrs -}}
{{- $peers = printf "%s- ipBlock: {cidr: %q}\n" $peers . -}}
{{- end -}}
{{- end -}}
{{- include "kalshi-data.rule" (dict "side" "to" "ports" (list (include "kalshi-data.productionPort" .)) "peers" (trim $peers)) -}}
{{- end -}}

{{/* S3: the server in the chart, another one at its port, or Amazon's; with the agent that hands out the pod's identity. */}}
{{- define "kalshi-data.archiveEgress" -}}
{{- if .Values.archive.endpoint -}}
{{- include "kalshi-data.rule" (dict "side" "to" "ports" (list (include "kalshi-data.urlPort" .Values.archive.endpoint))) }}
{{- else if .Values.s3server.enabled -}}
{{- include "kalshi-data.rule" (dict "side" "to" "ports" (list 7070)
    "peers" (include "kalshi-data.peer" (dict "context" . "components" (list "s3")))) }}
{{- else -}}
{{- include "kalshi-data.rule" (dict "side" "to" "ports" (list 443)) }}
{{- end }}
{{- if not (include "kalshi-data.s3Secret" .) }}
{{ include "kalshi-data.rule" (dict "side" "to" "ports" (list 80) "peers" "- ipBlock: {cidr: 169.254.170.23/32}") }}
{{- end }}
{{- end -}}

{{/* "true" where monitoring.from may mean the pod of `helm test` too: then it proves nothing that metrics answer it. */}}
{{- define "kalshi-data.metricsOpen" -}}
{{- $open := false -}}
{{- range .Values.monitoring.from -}}
{{- /* Of other labels nobody here knows whether our namespace has them. */}}
{{- $space := dig "matchLabels" "kubernetes.io/metadata.name" $.Release.Namespace (.namespaceSelector | default dict) -}}
{{- if or .ipBlock (and (eq $space $.Release.Namespace) (not .podSelector)) -}}{{- $open = true -}}{{- end -}}
{{- end -}}
{{- if $open -}}true{{- end -}}
{{- end -}}
