{{/*
Zones: zoneDefaults under each entry of zones. Yields {"zones": [...]} as YAML, of the enabled ones:
    {{- $zones := (include "kalshi-data.zones" . | fromYaml).zones }}
Each has `held`: true when rollout.released does not name it, `account`: never empty, and `connections`: how many its slots take (`own`),
those of all zones of its account (`account`), what the account may hold (`max`), how many zones use it (`zones`), and the zone's `share`
of it: its slots and an equal part of what all slots leave. An account of its own is the zone's whole.
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
{{- range $zone := $zones -}}
{{- $own := 0 -}}
{{- range list "orderbook" "ticker" "trade" "lifecycle" -}}{{- $own = add $own (int (get $zone.slots .)) -}}{{- end -}}
{{- $_ := set $zone "connections" (dict "own" (int $own)) -}}
{{- end -}}
{{- range $zone := $zones -}}
{{- $sum := 0 -}}
{{- $max := 1000000 -}}
{{- $sharing := 0 -}}
{{- range $zones -}}
{{- if eq .account $zone.account -}}
{{- $sum = add $sum .connections.own -}}
{{- $max = min $max (int .slots.connections_max) -}}
{{- $sharing = add1 $sharing -}}
{{- end -}}
{{- end -}}
{{- $share := add $zone.connections.own (div (sub $max $sum) $sharing) -}}
{{- $_ := set $zone "connections" (dict "own" $zone.connections.own "account" $sum "max" $max "zones" $sharing "share" $share) -}}
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
