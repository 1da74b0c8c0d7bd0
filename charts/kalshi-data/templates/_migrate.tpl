{{/*
One database's migration: an ordinary Job of the release (a hook would run after the pods that wait for it), under a name that
changes with its spec, as a Job's spec cannot be changed. It is also made for a zone that is held: schemas grow first, and code of
the version before works on them.
(dict "context" $ "database" "a" "zone" "a" "file" "gatherer.yaml" "kind" "gatherer" "configMap" "..." "secret" "<who migrates>"
      "mount" "store" "existing" .existingSecrets "roles" (list "owner" "writer") "placement" "<yaml>" "ca" false "server" "<image>")
*/}}
{{- define "kalshi-data.migration" -}}
{{- $labels := dict "context" .context "component" "migrate" "zone" .zone -}}
{{- $spec := include "kalshi-data.migrationSpec" . -}}
apiVersion: batch/v1
kind: Job
metadata:
  name: {{ include "kalshi-data.fullname" .context }}-migrate-{{ .database }}-{{ $spec | sha256sum | trunc 8 }}
  labels:
    {{- include "kalshi-data.labels" $labels | nindent 4 }}
    kalshi-data.io/database: {{ .database | toYaml }}
spec:
  {{- $spec | nindent 2 }}
{{- end -}}

{{- define "kalshi-data.migrationSpec" -}}
{{- $root := .context -}}
{{- $values := $root.Values.migrations -}}
backoffLimit: {{ $values.backoffLimit | int }}
template:
  metadata:
    labels:
      {{- include "kalshi-data.podLabels" (dict "context" .context "component" "migrate" "zone" .zone) | nindent 6 }}
      kalshi-data.io/database: {{ .database | toYaml }}
    annotations:
      {{- /* Another server's image: its extension may have to follow. */}}
      kalshi-data.io/server: {{ .server | quote }}
      {{- with $root.Values.podAnnotations }}
      {{- toYaml . | nindent 6 }}
      {{- end }}
  spec:
    {{- /* So that the pods of a Job that has failed stay, and say why. */}}
    restartPolicy: Never
    serviceAccountName: kalshi-data-migrate
    automountServiceAccountToken: false
    enableServiceLinks: false
    terminationGracePeriodSeconds: 600
    {{- include "kalshi-data.priority" (dict "context" $root "kind" "other") | nindent 4 }}
    {{- include "kalshi-data.pullSecrets" $root | nindent 4 }}
    {{- .placement | nindent 4 }}
    securityContext:
      {{- include "kalshi-data.podSecurity" dict | nindent 6 }}
    containers:
      - name: migrate
        image: {{ include "kalshi-data.image" (dict "context" $root "image" $values.image) | quote }}
        imagePullPolicy: {{ $root.Values.image.pullPolicy }}
        args:
          - migrate
          - --database
          - {{ .kind }}
          - --config
          - /etc/kalshi-data/{{ .file }}
          - --roles
          - /run/secrets/kalshi-data/roles
          {{- /* A day: a database that is away for hours uses up no attempt. */}}
          - --wait-s
          - "86400"
        env:
          {{- include "kalshi-data.env" $root | nindent 10 }}
        resources:
          {{- toYaml $values.resources | nindent 10 }}
        securityContext:
          {{- include "kalshi-data.containerSecurity" (dict "readOnly" $root.Values.readOnlyRootFilesystem) | nindent 10 }}
        volumeMounts:
          - {name: config, mountPath: /etc/kalshi-data, readOnly: true}
          - {name: tmp, mountPath: /tmp}
          - {name: superuser, mountPath: /run/secrets/kalshi-data/{{ .mount }}, readOnly: true}
          - {name: roles, mountPath: /run/secrets/kalshi-data/roles, readOnly: true}
          {{- if .ca }}
          {{- include "kalshi-data.caMount" $root | nindent 10 }}
          {{- end }}
    volumes:
      - name: config
        configMap: {name: {{ .configMap }}}
      - name: tmp
        emptyDir: {sizeLimit: 256Mi}
      {{- include "kalshi-data.secretVolume" (dict "name" "superuser" "secret" .secret) | nindent 6 }}
      - name: roles
        projected:
          defaultMode: 288
          sources:
            {{- $given := . }}
            {{- range $role := .roles }}
            - secret:
                name: {{ include "kalshi-data.roleSecret" (dict "context" $root "database" $given.database "role" $role "existing" $given.existing) }}
                items:
                  - {key: username, path: {{ $role }}/username}
                  - {key: password, path: {{ $role }}/password}
            {{- end }}
      {{- if .ca }}
      {{- include "kalshi-data.caVolume" $root | nindent 6 }}
      {{- end }}
{{- end -}}
