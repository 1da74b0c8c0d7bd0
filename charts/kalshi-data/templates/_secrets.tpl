{{/*
Secrets that nobody named: made once, taken over from the cluster afterwards, and kept when the release goes, since a new password
on an old volume locks everyone out. Without a cluster (helm template) every rendering makes new ones.
*/}}
{{- define "kalshi-data.generated" -}}
{{- $live := (lookup "v1" "Secret" .context.Release.Namespace .name | default dict).data | default dict -}}
---
apiVersion: v1
kind: Secret
metadata:
  name: {{ .name }}
  labels:
    {{- include "kalshi-data.labels" (dict "context" .context "component" "secret" "zone" .zone) | nindent 4 }}
  annotations:
    helm.sh/resource-policy: keep
type: Opaque
data:
  {{- range $key, $value := .data }}
  {{ $key }}: {{ get $live $key | default ($value | b64enc) }}
  {{- end }}
{{- end -}}

{{/* (dict "context" $ "database" "a" "zone" "a" "role" "writer" "superuser" "postgres") */}}
{{- define "kalshi-data.generatedRole" -}}
{{- include "kalshi-data.generated" (dict
    "context" .context "zone" .zone
    "name" (include "kalshi-data.roleSecret" (dict "context" .context "database" .database "role" .role))
    "data" (dict
        "username" (ternary .superuser (printf "kd_%s" .role) (eq .role "superuser"))
        "password" (randAlphaNum 32))) -}}
{{- end -}}

{{/* An RSA key for the simulated exchange, which takes its public part from the same Secret. */}}
{{- define "kalshi-data.generatedKey" -}}
{{- $pair := genSelfSignedCert (printf "simulator-%s" .zone.name) nil nil 36500 -}}
{{- include "kalshi-data.generated" (dict
    "context" .context "zone" .zone.name
    "name" (include "kalshi-data.exchangeSecret" .)
    "data" (dict "api-key-id" (printf "simulator-%s" .zone.name) "private-key.pem" $pair.Key)) -}}
{{- end -}}
