{{/*
What is wrong with the values, alone or beside what the cluster has, all at once; the schema (values.schema.json) has said what each value may be.
*/}}
{{- define "kalshi-data.check" -}}
{{- $faults := list -}}
{{- $zones := (include "kalshi-data.zones" . | fromYaml).zones | default list -}}
{{- if not $zones -}}
{{- $faults = append $faults "zones: name at least one enabled zone" -}}
{{- end -}}
{{- $fullname := include "kalshi-data.fullname" . -}}
{{- if not (regexMatch "^[a-z]([-a-z0-9]*[a-z0-9])?$" $fullname) -}}
{{- $faults = append $faults (printf "%s: Services cannot be named after it; begin with a letter and leave dots out (the release's name, or fullnameOverride)" $fullname) -}}
{{- end -}}
{{- /* Pods of a Job bear its name as a label. */}}
{{- $longest := printf "%s-migrate-production-00000000" $fullname -}}
{{- if gt (len $longest) 63 -}}
{{- $faults = append $faults (printf "%s is longer than 63 characters; shorten the release's name (fullnameOverride)" $longest) -}}
{{- end -}}
{{- $names := list -}}
{{- $accounts := list -}}
{{- range $zone := $zones -}}
{{- if or (has $zone.name $names) (has $zone.name (list "production" "central" "simulator")) -}}
{{- $faults = append $faults (printf "zones: the name %s is taken; give each zone its own" $zone.name) -}}
{{- end -}}
{{- $names = append $names $zone.name -}}
{{- $accounts = append $accounts $zone.account -}}
{{- if not $zone.topologyZone -}}
{{- $faults = append $faults (printf "zones: %s: topologyZone is missing" $zone.name) -}}
{{- end -}}
{{- $longest := printf "%s-connector-%s" $fullname $zone.name -}}
{{- if gt (len $longest) 52 -}}
{{- $faults = append $faults (printf "zones: %s is longer than 52 characters; shorten the release's name (fullnameOverride) or the zone's" $longest) -}}
{{- end -}}
{{- with include "kalshi-data.fixedGatherer" (dict "context" $ "zone" $zone) -}}
{{- $faults = append $faults . -}}
{{- end -}}
{{- with include "kalshi-data.crowdedDatabase" $zone -}}
{{- $faults = append $faults . -}}
{{- end -}}
{{- $extra := int ($zone.connectors.settings.extra_connections_max | default 0) -}}
{{- $room := sub $zone.connections.share (add1 $zone.connections.own) | int -}}
{{- /* Of too few for the slots themselves is told below. */}}
{{- if and (gt (int $zone.connections.zones) 1) (ge $room 0) (gt $extra $room) -}}
{{- $faults = append $faults (printf "zones: %s: connectors.settings.extra_connections_max of %d is above the %d that the zone's share of account %s leaves beside its slots and one to move; lower it or slots" $zone.name $extra $room $zone.account) -}}
{{- end -}}
{{- end -}}
{{- range $account := uniq $accounts -}}
{{- $zone := dict -}}
{{- range $zones -}}{{- if eq .account $account -}}{{- $zone = . -}}{{- end -}}{{- end -}}
{{- $sharing := int $zone.connections.zones -}}
{{- $needed := add $zone.connections.account $sharing | int -}}
{{- $allowed := int $zone.connections.max -}}
{{- if gt $needed $allowed -}}
{{- $moving := ternary "one to move" (printf "one to move in each of its %d zones" $sharing) (eq $sharing 1) -}}
{{- $faults = append $faults (printf "zones: the slots of account %s and %s are %d connections, above its connections_max of %d; lower slots or give zones accounts of their own" $account $moving $needed $allowed) -}}
{{- end -}}
{{- end -}}
{{- $simulated := eq .Values.exchange.environment "simulator" -}}
{{- if and .Values.simulator.enabled (not $simulated) -}}
{{- $faults = append $faults "simulator.enabled: nobody would use it; set exchange.environment: simulator" -}}
{{- end -}}
{{- if and $simulated (not .Values.simulator.enabled) (not (and .Values.exchange.restUrl .Values.exchange.wsUrl)) -}}
{{- $faults = append $faults "exchange.environment: simulator needs simulator.enabled, or exchange.restUrl and exchange.wsUrl of another one" -}}
{{- end -}}
{{- if and (not .Values.production.enabled) (not .Values.production.host) -}}
{{- $faults = append $faults "production.host: name the external database's host, or set production.enabled for one in the chart" -}}
{{- end -}}
{{- if and (not .Values.production.enabled) (not .Values.production.existingSecrets.superuser) -}}
{{- $faults = append $faults "production.existingSecrets.superuser: name the Secret (username, password) of a user who may create roles in the external database" -}}
{{- end -}}
{{- if and .Values.production.enabled .Values.production.host -}}
{{- $faults = append $faults "production.host: is for an external database; leave it out or set production.enabled: false" -}}
{{- end -}}
{{- if and .Values.production.enabled (has .Values.production.tls.mode (list "require" "verify-full")) -}}
{{- $faults = append $faults (printf "production.tls.mode: %s: the database in the chart has no TLS, nobody would reach it; leave it out, or name an external database (production.host)" .Values.production.tls.mode) -}}
{{- end -}}
{{- if and .Values.archiver.enabled (not (include "kalshi-data.archiveRoot" .)) -}}
{{- $faults = append $faults "archive.root: name a bucket (s3://bucket/prefix), or set s3server.enabled for a server in the chart, or archiver.enabled: false" -}}
{{- end -}}
{{- range .Values.rollout.released -}}
{{- if not (has . $names) -}}
{{- $faults = append $faults (printf "rollout.released: there is no enabled zone %s" .) -}}
{{- end -}}
{{- end -}}
{{- if $faults -}}
{{- fail (printf "these values cannot work:\n  %s\n" (join "\n  " $faults)) -}}
{{- end -}}
{{- end -}}

{{/*
The fault of a zone whose Gatherer in the cluster has other slots or another database, empty without one: the API would refuse them too,
but only after the new configurations and pods. Nothing is looked up where no cluster is asked.
*/}}
{{- define "kalshi-data.fixedGatherer" -}}
{{- $namespace := .context.Release.Namespace -}}
{{- $live := lookup "kalshi-data.io/v1alpha1" "Gatherer" $namespace .zone.name | default dict -}}
{{- $slots := .zone.slots -}}
{{- $changed := list -}}
{{- /* Somebody else's Gatherer is refused by helm itself. */}}
{{- if eq (dig "metadata" "labels" "app.kubernetes.io/instance" "" $live) .context.Release.Name -}}
{{- range list "orderbook" "ticker" "trade" "lifecycle" -}}
{{- $now := dig "spec" "slots" . 0 $live | int -}}
{{- if ne $now (int (get $slots .)) -}}
{{- $changed = append $changed (printf "slots.%s is %d in the cluster, not %d" . $now (int (get $slots .))) -}}
{{- end -}}
{{- end -}}
{{- range $key, $then := include "kalshi-data.gathererDatabase" . | fromYaml -}}
{{- $now := dig "spec" "database" $key "" $live | toString -}}
{{- if ne $now (toString $then) -}}
{{- $changed = append $changed (printf "database.%s is %s in the cluster, not %v" $key $now $then) -}}
{{- end -}}
{{- end -}}
{{- end -}}
{{- if $changed -}}
{{- printf "zones: %s: %s; slots and database of a Gatherer never change: kubectl delete gatherer/%s -n %s, then this upgrade again (capture goes on, the number of connectors stays)" .zone.name (join ", " $changed) .zone.name $namespace -}}
{{- end -}}
{{- end -}}

{{/*
The fault of a zone whose connectors.shards may open more connections than its database takes. Every pod of the zone has a pool of
twelve: registry, poller, a connector that comes and one that goes besides; twenty are for deduplicator, operator, doctor and people.
*/}}
{{- define "kalshi-data.crowdedDatabase" -}}
{{- $shards := int (.connectors.shards | default 0) -}}
{{- $most := int (.database.parameters.max_connections | default .database.maxConnections) -}}
{{- $needed := add (mul 12 (add $shards 4)) 20 | int -}}
{{- if and $shards (gt $needed $most) -}}
{{- $fit := sub (div (sub $most 20) 12) 4 | int -}}
{{- printf "zones: %s: connectors.shards of %d may open %d connections, above the database's maxConnections of %d: at most %d fit; lower it or raise database.maxConnections" .name $shards $needed $most (max 0 $fit) -}}
{{- end -}}
{{- end -}}
