{{/*
What is written to the services' configuration files: only what the chart decides; everything else has the default of
libs/runtime/sections.py or of the service's settings. Each definition yields the text of one file.
*/}}

{{- define "kalshi-data.configCommon" -}}
{{- dict
    "health" (dict "port" 8080)
    "metrics" (dict "port" 9090)
    "log" (dict "format" .Values.log.format "level" .Values.log.level) | toYaml -}}
{{- end -}}

{{/* A database of the release as a service's file names it: (dict "host" "h" "port" 5432 "database" "d" "secret" "store") */}}
{{- define "kalshi-data.configStore" -}}
{{- $mount := printf "/run/secrets/kalshi-data/%s" .secret -}}
{{- dict
    "host" .host
    "port" (int .port)
    "database" .database
    "user_file" (printf "%s/username" $mount)
    "password_file" (printf "%s/password" $mount) | toYaml -}}
{{- end -}}

{{- define "kalshi-data.exchangeUrl" -}}
{{- $given := get .context.Values.exchange .key -}}
{{- if $given -}}
{{- $given -}}
{{- else if .context.Values.simulator.enabled -}}
{{- printf "%s://%s:8700/trade-api%s" .scheme (include "kalshi-data.object" (dict "context" .context "component" "simulator")) .path -}}
{{- end -}}
{{- end -}}

{{/* gatherer.yaml of one zone: (dict "context" $ "zone" $zone) */}}
{{- define "kalshi-data.gathererConfig" -}}
{{- $zone := .zone -}}
{{- $exchange := dict
    "environment" .context.Values.exchange.environment
    "api_key_id_file" "/run/secrets/kalshi-data/exchange/api-key-id"
    "private_key_file" "/run/secrets/kalshi-data/exchange/private-key.pem" -}}
{{- with include "kalshi-data.exchangeUrl" (dict "context" .context "key" "restUrl" "scheme" "http" "path" "/v2") -}}
{{- $_ := set $exchange "rest_url" . -}}
{{- end -}}
{{- with include "kalshi-data.exchangeUrl" (dict "context" .context "key" "wsUrl" "scheme" "ws" "path" "/ws/v2") -}}
{{- $_ := set $exchange "ws_url" . -}}
{{- end -}}
{{- $grace := int $zone.connectors.terminationGracePeriodSeconds -}}
{{- $volume := include "kalshi-data.bytes" $zone.database.storage.size | int64 -}}
{{- $spool := include "kalshi-data.bytes" $zone.connectors.spool.sizeLimit | int64 -}}
{{- $connector := dict
    "shard" "${POD_NAME}"
    "template_hash" "${POD_TEMPLATE_HASH:-}"
    "grace_s" (max (div $grace 2) (sub $grace 80))
    "storage_bytes_max" (div (mul $volume (int $zone.database.storage.usedPercentMax)) 100)
    "state_dir" "/var/lib/kalshi-data/spool"
    "spool" (dict "bytes_max" (div (mul $spool 4) 5)) -}}
{{- $store := include "kalshi-data.configStore" (dict
    "host" (include "kalshi-data.object" (dict "context" .context "component" "database" "zone" $zone.name))
    "port" 5432 "database" $zone.database.name "secret" "store") | fromYaml -}}
{{- $registry := dict -}}
{{- $poller := dict -}}
{{- /* Of an account that several zones use, each has a part: of its connections, and of its reads (the services' own shares are of all). */}}
{{- if gt (int $zone.connections.zones) 1 -}}
{{- $_ := set $connector "extra_connections_max" (max 0 (min 4 (sub $zone.connections.share (add1 $zone.connections.own)))) -}}
{{- $_ := set $registry "read_share" (round (divf 0.4 $zone.connections.zones) 4) -}}
{{- $_ := set $poller "read_share" (round (divf 0.5 $zone.connections.zones) 4) -}}
{{- end -}}
{{- $file := dict
    "zone" $zone.name
    "account" $zone.account
    "exchange" (mergeOverwrite $exchange (deepCopy $zone.exchange.settings))
    "store" (set $store "pool_size_max" 12)
    "slots" (set (deepCopy $zone.slots) "connections_max" (int $zone.connections.share))
    "connector" (mergeOverwrite $connector (deepCopy $zone.connectors.settings)) -}}
{{- range $section, $given := dict
    "capture" $zone.capture "batches" $zone.batches
    "registry" (mergeOverwrite $registry (deepCopy $zone.registry.settings))
    "poller" (mergeOverwrite $poller (deepCopy $zone.poller.settings)) -}}
{{- with $given -}}{{- $_ := set $file $section . -}}{{- end -}}
{{- end -}}
{{- mergeOverwrite (include "kalshi-data.configCommon" .context | fromYaml) $file | toYaml -}}
{{- end -}}

{{- define "kalshi-data.productionHost" -}}
{{- if .Values.production.enabled -}}
{{- include "kalshi-data.object" (dict "context" . "component" "production") -}}
{{- else -}}
{{- .Values.production.host -}}
{{- end -}}
{{- end -}}

{{- define "kalshi-data.productionPort" -}}
{{- ternary 5432 (int .Values.production.port) .Values.production.enabled -}}
{{- end -}}

{{- define "kalshi-data.productionTls" -}}
{{- .Values.production.tls.mode | default (ternary "prefer" "verify-full" .Values.production.enabled) -}}
{{- end -}}

{{/* Whether a bundle of authorities is mounted: "true" or nothing. */}}
{{- define "kalshi-data.productionCa" -}}
{{- if and .Values.production.tls.caConfigMap (eq (include "kalshi-data.productionTls" .) "verify-full") -}}
true
{{- end -}}
{{- end -}}

{{- define "kalshi-data.configProduction" -}}
{{- $store := include "kalshi-data.configStore" (dict
    "host" (include "kalshi-data.productionHost" .)
    "port" (include "kalshi-data.productionPort" .)
    "database" .Values.production.database "secret" "production") | fromYaml -}}
{{- $_ := set $store "tls" (include "kalshi-data.productionTls" .) -}}
{{- if include "kalshi-data.productionCa" . -}}
{{- $_ := set $store "tls_ca_file" "/etc/kalshi-data-ca/ca.pem" -}}
{{- end -}}
{{- $store | toYaml -}}
{{- end -}}

{{/* deduplicator.yaml: deduplicator, archiver, production's migration. */}}
{{- define "kalshi-data.deduplicatorConfig" -}}
{{- $root := . -}}
{{- $gatherers := list -}}
{{- range (include "kalshi-data.zones" . | fromYaml).zones -}}
{{- $store := include "kalshi-data.configStore" (dict
    "host" (include "kalshi-data.object" (dict "context" $root "component" "database" "zone" .name))
    "port" 5432 "database" .database.name "secret" (printf "gatherer-%s" .name)) | fromYaml -}}
{{- $gatherers = append $gatherers (dict "zone" .name "store" $store) -}}
{{- end -}}
{{- $archiver := dict
    "root" (include "kalshi-data.archiveRoot" .)
    "work_dir" "/var/lib/kalshi-data/work" -}}
{{- $s3 := dict -}}
{{- with include "kalshi-data.s3Endpoint" . -}}{{- $_ := set $s3 "endpoint_url" . -}}{{- end -}}
{{- with .Values.archive.region -}}{{- $_ := set $s3 "region" . -}}{{- end -}}
{{- if include "kalshi-data.s3Secret" . -}}
{{- $_ := set $s3 "access_key_id_file" "/run/secrets/kalshi-data/s3/access-key-id" -}}
{{- $_ := set $s3 "secret_access_key_file" "/run/secrets/kalshi-data/s3/secret-access-key" -}}
{{- end -}}
{{- with $s3 -}}{{- $_ := set $archiver "s3" . -}}{{- end -}}
{{- $file := dict
    "gatherers" $gatherers
    "production" (include "kalshi-data.configProduction" . | fromYaml)
    "archiver" (mergeOverwrite $archiver (deepCopy .Values.archiver.settings)) -}}
{{- with .Values.deduplicator.settings -}}{{- $_ := set $file "deduplicator" . -}}{{- end -}}
{{- mergeOverwrite (include "kalshi-data.configCommon" . | fromYaml) $file | toYaml -}}
{{- end -}}

{{- define "kalshi-data.archiveRoot" -}}
{{- if .Values.archive.root -}}
{{- .Values.archive.root -}}
{{- else if .Values.s3server.enabled -}}
{{- printf "s3://%s/archive" .Values.s3server.bucket -}}
{{- end -}}
{{- end -}}

{{- define "kalshi-data.s3Endpoint" -}}
{{- if .Values.archive.endpoint -}}
{{- .Values.archive.endpoint -}}
{{- else if .Values.s3server.enabled -}}
{{- printf "http://%s:7070" (include "kalshi-data.object" (dict "context" . "component" "s3")) -}}
{{- end -}}
{{- end -}}

{{- define "kalshi-data.operatorConfig" -}}
{{- $operator := dict
    "namespace" .Release.Namespace
    "name" "${POD_NAME:-operator}"
    "peering" (include "kalshi-data.fullname" .)
    "owner" (include "kalshi-data.object" (dict "context" . "component" "operator")) -}}
{{- mergeOverwrite (include "kalshi-data.configCommon" . | fromYaml)
    (dict "operator" (mergeOverwrite $operator (deepCopy .Values.operator.settings))) | toYaml -}}
{{- end -}}

{{/*
Whose keys the simulator knows: the zones', enabled or not, and those of zones that may come. Its pod must not change when one comes, for it would
be another exchange afterwards. By name, as {"zones": [{"name", "exchange", "item"}]}; item: the
Secret's key with what verifies signatures.
*/}}
{{- define "kalshi-data.simulatedZones" -}}
{{- $known := dict -}}
{{- range .Values.simulator.spareZones -}}
{{- $_ := set $known . (dict "name" . "exchange" (dict "existingSecret" "") "item" "private-key.pem") -}}
{{- end -}}
{{- range .Values.zones -}}
{{- $exchange := mergeOverwrite (deepCopy $.Values.zoneDefaults.exchange) (deepCopy (.exchange | default dict)) -}}
{{- $item := ternary $.Values.simulator.publicKeyItem "private-key.pem" (not (empty $exchange.existingSecret)) -}}
{{- $_ := set $known .name (dict "name" .name "exchange" $exchange "item" $item) -}}
{{- end -}}
{{- $zones := list -}}
{{- range keys $known | sortAlpha -}}
{{- $zones = append $zones (get $known .) -}}
{{- end -}}
{{- dict "zones" $zones | toYaml -}}
{{- end -}}

{{- define "kalshi-data.simulatorConfig" -}}
{{- $keys := list -}}
{{- range (include "kalshi-data.simulatedZones" . | fromYaml).zones -}}
{{- $keys = append $keys (dict
    "key_id_file" (printf "/run/secrets/kalshi-data/exchange-%s/api-key-id" .name)
    "public_key_file" (printf "/run/secrets/kalshi-data/exchange-%s/%s" .name .item)
    "zone" .name) -}}
{{- end -}}
{{- $simulator := dict "host" "0.0.0.0" "port" 8700 "journal_dir" "/var/lib/kalshi-data/journal" "keys" $keys -}}
{{- mergeOverwrite (include "kalshi-data.configCommon" . | fromYaml)
    (dict "simulator" (mergeOverwrite $simulator (deepCopy .Values.simulator.settings))) | toYaml -}}
{{- end -}}

{{/* doctor.yaml: what `helm test` looks at. */}}
{{- define "kalshi-data.doctorConfig" -}}
{{- $root := . -}}
{{- $zones := list -}}
{{- $forbidden := list -}}
{{- $closed := not (include "kalshi-data.metricsOpen" .) -}}
{{- range (include "kalshi-data.zones" . | fromYaml).zones -}}
{{- $zone := . -}}
{{- $health := list -}}
{{- range list "registry" "connector" "poller" -}}
{{- $host := include "kalshi-data.object" (dict "context" $root "component" . "zone" $zone.name) -}}
{{- $health = append $health (printf "http://%s:8080" $host) -}}
{{- if $closed -}}
{{- $forbidden = append $forbidden (dict "name" (printf "metrics of %s %s" . $zone.name) "host" $host "port" 9090) -}}
{{- end -}}
{{- end -}}
{{- $zones = append $zones (dict
    "zone" $zone.name
    "topology_zone" $zone.topologyZone
    "account" $zone.account
    "slots" $zone.slots
    "health" $health
    "store" (mergeOverwrite
        (include "kalshi-data.doctorUser" (dict "database" $zone.name "existing" $zone.database.existingSecrets) | fromYaml)
        (dict
            "host" (include "kalshi-data.object" (dict "context" $root "component" "database" "zone" $zone.name))
            "port" 5432 "database" $zone.database.name))) -}}
{{- end -}}
{{- $central := list -}}
{{- range list "deduplicator" "archiver" "operator" "simulator" -}}
{{- if (get $root.Values .).enabled -}}
{{- $host := include "kalshi-data.object" (dict "context" $root "component" .) -}}
{{- $central = append $central (printf "http://%s:8080" $host) -}}
{{- if $closed -}}
{{- $forbidden = append $forbidden (dict "name" (printf "metrics of %s" .) "host" $host "port" 9090) -}}
{{- end -}}
{{- end -}}
{{- end -}}
{{- $production := include "kalshi-data.configProduction" . | fromYaml -}}
{{- $production = mergeOverwrite (omit $production "user_file" "password_file")
    (include "kalshi-data.doctorUser" (dict "database" "production" "existing" .Values.production.existingSecrets) | fromYaml) -}}
{{- if .Values.simulator.enabled -}}
{{- $forbidden = append $forbidden (dict "name" "the simulated exchange" "port" 8700
    "host" (include "kalshi-data.object" (dict "context" . "component" "simulator"))) -}}
{{- end -}}
{{- if .Values.s3server.enabled -}}
{{- $forbidden = append $forbidden (dict "name" "the S3 server" "port" 7070
    "host" (include "kalshi-data.object" (dict "context" . "component" "s3"))) -}}
{{- end -}}
{{- dict "cluster" (dict
    "namespace" .Release.Namespace
    "zones" $zones
    "production" $production
    "health" $central
    "forbidden" (ternary $forbidden list .Values.networkPolicy.enabled)
    "storage_class" (include "kalshi-data.className" (dict "context" . "storage" .Values.zoneDefaults.database.storage))) | toYaml -}}
{{- end -}}

{{/* As whom the doctor asks: the user's name stands in a Secret of the site's own, and is known of one that the chart makes. */}}
{{- define "kalshi-data.doctorUser" -}}
{{- $mount := printf "/run/secrets/kalshi-data/status-%s" .database -}}
{{- if .existing.status -}}
user_file: {{ $mount }}/username
{{- else -}}
user: kd_status
{{- end }}
secret_file: {{ $mount }}/password
{{- end -}}

{{/* StorageClass of a volume, empty for the cluster's default: (dict "context" $ "storage" .storage) */}}
{{- define "kalshi-data.className" -}}
{{- .storage.className | default (ternary .context.Values.storageClass.name "" .context.Values.storageClass.create) -}}
{{- end -}}

{{/* Names of ConfigMaps, by content: a held pod never meets another's configuration. */}}
{{- define "kalshi-data.zoneConfigMap" -}}
{{- printf "%s-%s" (include "kalshi-data.object" (dict "context" .context "component" "config" "zone" .zone.name))
    (include "kalshi-data.gathererConfig" . | sha256sum | trunc 8) -}}
{{- end -}}

{{- define "kalshi-data.centralConfig" -}}
deduplicator.yaml: |
  {{- include "kalshi-data.deduplicatorConfig" . | nindent 2 }}
{{- if .Values.operator.enabled }}
operator.yaml: |
  {{- include "kalshi-data.operatorConfig" . | nindent 2 }}
{{- end }}
{{- if .Values.tests.enabled }}
doctor.yaml: |
  {{- include "kalshi-data.doctorConfig" . | nindent 2 }}
{{- end }}
{{- end -}}

{{- define "kalshi-data.centralConfigMap" -}}
{{- printf "%s-%s" (include "kalshi-data.object" (dict "context" . "component" "config" "zone" "central"))
    (include "kalshi-data.centralConfig" . | sha256sum | trunc 8) -}}
{{- end -}}

{{- define "kalshi-data.simulatorConfigMap" -}}
{{- printf "%s-%s" (include "kalshi-data.object" (dict "context" . "component" "config" "zone" "simulator"))
    (include "kalshi-data.simulatorConfig" . | sha256sum | trunc 8) -}}
{{- end -}}
