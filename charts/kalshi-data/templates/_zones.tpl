{{/*
Zones: zoneDefaults under each entry of zones. Yields {"zones": [...]} as YAML, of the enabled ones:
    {{- $zones := (include "kalshi-data.zones" . | fromYaml).zones }}
Each has `held`: true when rollout.released does not name it, and `account`: never empty.
*/}}
{{- define "kalshi-data.zones" -}}
{{- $zones := list -}}
{{- $released := .Values.rollout.released -}}
{{- range .Values.zones -}}
{{- $zone := mergeOverwrite (deepCopy $.Values.zoneDefaults) (deepCopy .) -}}
{{- if $zone.enabled -}}
{{- $_ := set $zone "account" ($zone.account | default $zone.name) -}}
{{- $_ := set $zone "held" (and (kindIs "slice" $released) (not (has $zone.name $released))) -}}
{{- $zones = append $zones $zone -}}
{{- end -}}
{{- end -}}
{{- dict "zones" $zones | toYaml -}}
{{- end -}}

{{/* Bytes of a Kubernetes quantity (200Gi, 512M, 1024), as an integer. */}}
{{- define "kalshi-data.bytes" -}}
{{- $text := toString . -}}
{{- $units := dict "Ki" 1024 "Mi" 1048576 "Gi" 1073741824 "Ti" 1099511627776 "k" 1000 "M" 1000000 "G" 1000000000 "T" 1000000000000 -}}
{{- $unit := regexFind "[A-Za-z]*$" $text -}}
{{- if and $unit (not (hasKey $units $unit)) -}}
{{- fail (printf "%s: no quantity of bytes; write it as 512Mi, 200Gi or 1Ti" $text) -}}
{{- end -}}
{{- $number := trimSuffix $unit $text -}}
{{- mulf (float64 $number) (float64 (get $units $unit | default 1)) | floor | int64 -}}
{{- end -}}
