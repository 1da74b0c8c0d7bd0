{{/*
A PostgreSQL of the release: a zone's database or the in-chart production. Both obey the contract of the public images:
POSTGRES_USER, POSTGRES_DB, POSTGRES_PASSWORD_FILE, PGDATA below the mount, arguments for `postgres`.
(dict "context" $ "component" "database" "zone" "a" "values" $zone.database "secret" "<superuser's Secret>"
      "placement" "<yaml>" "held" false)
*/}}
{{- define "kalshi-data.database" -}}
{{- $root := .context -}}
{{- $values := .values -}}
apiVersion: apps/v1
kind: StatefulSet
metadata:
  name: {{ include "kalshi-data.object" . }}
  labels:
    {{- include "kalshi-data.labels" . | nindent 4 }}
spec:
  replicas: 1
  serviceName: {{ include "kalshi-data.object" . }}
  revisionHistoryLimit: 3
  {{- /* Else a pod that never becomes ready would be waited for, and neither a better version nor the one before take its place. */}}
  podManagementPolicy: Parallel
  {{- /* A partition above the only pod's number holds it at its version, also when it is deleted. */}}
  updateStrategy:
    type: RollingUpdate
    rollingUpdate: {partition: {{ ternary 1 0 (.held | default false) }}}
  persistentVolumeClaimRetentionPolicy: {whenDeleted: Retain, whenScaled: Retain}
  selector:
    matchLabels:
      {{- include "kalshi-data.selector" . | nindent 6 }}
  template:
    metadata:
      labels:
        {{- include "kalshi-data.otherPodLabels" . | nindent 8 }}
      {{- include "kalshi-data.annotations" (dict "context" $root "annotations" $values.podAnnotations) | nindent 6 }}
    spec:
      serviceAccountName: kalshi-data-{{ .component }}
      automountServiceAccountToken: false
      enableServiceLinks: false
      terminationGracePeriodSeconds: {{ $values.terminationGracePeriodSeconds | int }}
      {{- include "kalshi-data.priority" (dict "context" $root "kind" "capture") | nindent 6 }}
      {{- include "kalshi-data.pullSecrets" $root | nindent 6 }}
      {{- .placement | nindent 6 }}
      securityContext:
        {{- include "kalshi-data.podSecurity" $values | nindent 8 }}
      containers:
        - name: postgres
          image: {{ include "kalshi-data.otherImage" (dict "context" $root "image" $values.image) | quote }}
          imagePullPolicy: {{ $values.image.pullPolicy | default $root.Values.image.pullPolicy }}
          args:
            - postgres
            {{- include "kalshi-data.databaseParameters" $values | nindent 12 }}
          env:
            - {name: POSTGRES_USER, value: {{ $values.superuser | quote }}}
            - {name: POSTGRES_DB, value: {{ $values.name | default $values.database | quote }}}
            - {name: POSTGRES_PASSWORD_FILE, value: /run/secrets/kalshi-data/superuser/password}
            - {name: PGDATA, value: /var/lib/postgresql/data/pgdata}
            {{- if $values.timescaledb }}
            {{- /* The image tunes for the node and only at initdb; the chart tunes for the limits, always. */}}
            - {name: NO_TS_TUNE, value: "true"}
            - {name: TIMESCALEDB_TELEMETRY, value: "off"}
            {{- end }}
          ports:
            - {name: postgres, containerPort: 5432}
          {{- /* Over TCP: while initdb runs its own server, that one listens on a socket only. A recovery may take long. */}}
          startupProbe:
            exec: {command: [pg_isready, -q, -h, 127.0.0.1]}
            periodSeconds: 2
            timeoutSeconds: 5
            failureThreshold: 1800
          {{- /* 1: starting, stopping or full; only silence (2) is death. */}}
          livenessProbe:
            exec: {command: [/bin/sh, -c, "pg_isready -q -h 127.0.0.1; test $? -lt 2"]}
            periodSeconds: 10
            timeoutSeconds: 10
            failureThreshold: 6
          readinessProbe:
            exec:
              command:
                - /bin/sh
                - -c
                - PGPASSWORD="$(cat "$POSTGRES_PASSWORD_FILE")" psql -XAtqh 127.0.0.1 -U "$POSTGRES_USER" -d "$POSTGRES_DB" -c 'SELECT 1'
            periodSeconds: 5
            timeoutSeconds: 5
            failureThreshold: 3
          lifecycle:
            preStop:
              {{- /* The server still serves while this checkpoint runs, so that the one of the shutdown is short. SIGINT is
              PostgreSQL's fast shutdown; its SIGTERM would wait for every client to leave. */}}
              exec:
                command:
                  - /bin/sh
                  - -c
                  - PGPASSWORD="$(cat "$POSTGRES_PASSWORD_FILE")" psql -XAtqh 127.0.0.1 -U "$POSTGRES_USER" -d "$POSTGRES_DB" -c CHECKPOINT; kill -INT 1
          resources:
            {{- toYaml $values.resources | nindent 12 }}
          securityContext:
            {{- include "kalshi-data.containerSecurity" (dict "readOnly" true) | nindent 12 }}
          volumeMounts:
            - {name: data, mountPath: /var/lib/postgresql/data}
            - {name: superuser, mountPath: /run/secrets/kalshi-data/superuser, readOnly: true}
            - {name: shm, mountPath: /dev/shm}
            - {name: run, mountPath: /var/run/postgresql}
            - {name: tmp, mountPath: /tmp}
      volumes:
        {{- include "kalshi-data.secretVolume" (dict "name" "superuser" "secret" .secret) | nindent 8 }}
        - name: shm
          emptyDir: {medium: Memory, sizeLimit: {{ $values.shmSize }}}
        - name: run
          emptyDir: {sizeLimit: 16Mi}
        - name: tmp
          emptyDir: {sizeLimit: 256Mi}
  volumeClaimTemplates:
    - metadata:
        name: data
        labels:
          {{- include "kalshi-data.selector" . | nindent 10 }}
      spec:
        accessModes: [ReadWriteOnce]
        {{- with include "kalshi-data.className" (dict "context" $root "storage" $values.storage) }}
        storageClassName: {{ . }}
        {{- end }}
        resources:
          requests: {storage: {{ $values.storage.size }}}
---
apiVersion: v1
kind: Service
metadata:
  name: {{ include "kalshi-data.object" . }}
  labels:
    {{- include "kalshi-data.labels" . | nindent 4 }}
spec:
  selector:
    {{- include "kalshi-data.selector" . | nindent 4 }}
  ports:
    - {name: postgres, port: 5432, targetPort: postgres, protocol: TCP}
{{- end -}}

{{/*
-c NAME=VALUE, from the memory limit and the volume's size: a quarter of the memory is shared buffers, a tenth one worker's
maintenance at most, a sixteenth all sorts together; the log ahead may take a tenth of the volume.
*/}}
{{- define "kalshi-data.databaseParameters" -}}
{{- $memory := div (include "kalshi-data.bytes" .resources.limits.memory | int64) 1048576 -}}
{{- $volume := div (include "kalshi-data.bytes" .storage.size | int64) 1048576 -}}
{{- $all := dict
    "listen_addresses" "*"
    "max_connections" (int .maxConnections)
    "shared_buffers" (printf "%dMB" (div $memory 4))
    "effective_cache_size" (printf "%dMB" (div (mul $memory 7) 10))
    "maintenance_work_mem" (printf "%dMB" (min 1024 (max 16 (div $memory 14))))
    "work_mem" (printf "%dMB" (min 64 (max 4 (div $memory (mul 4 (int .maxConnections))))))
    "max_wal_size" (printf "%dMB" (min 8192 (max 128 (div $volume 10))))
    "min_wal_size" (printf "%dMB" (min 1024 (max 80 (div $volume 40))))
    "wal_compression" "on"
    "checkpoint_timeout" "15min"
    "checkpoint_completion_target" "0.9"
    "random_page_cost" "1.1"
    "effective_io_concurrency" 200
    "max_locks_per_transaction" 256
    "idle_in_transaction_session_timeout" "10min"
    "tcp_keepalives_idle" 30
    "tcp_keepalives_interval" 10
    "tcp_keepalives_count" 3 -}}
{{- if .timescaledb -}}
{{- $all = mergeOverwrite $all (dict
    "shared_preload_libraries" "timescaledb"
    "timescaledb.telemetry_level" "off"
    "timescaledb.max_background_workers" 8
    "max_worker_processes" 20) -}}
{{- end -}}
{{- range $name, $value := mergeOverwrite $all (deepCopy .parameters) }}
- -c
- {{ printf "%s=%v" $name $value | quote }}
{{- end }}
{{- end -}}
