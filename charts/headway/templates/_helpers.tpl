{{/* Name of everything the chart makes. 54 characters leave room for our suffixes. */}}
{{- define "headway.operator" -}}
{{- printf "%s-operator" (.Release.Name | trunc 45 | trimSuffix "-") -}}
{{- end -}}

{{/* The Secret that the operator makes itself: authority, certificate key and job secret. */}}
{{- define "headway.endpointSecret" -}}
{{- printf "%s-endpoint" (.Release.Name | trunc 45 | trimSuffix "-") -}}
{{- end -}}

{{- define "headway.selector" -}}
app.kubernetes.io/name: headway-operator
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end -}}

{{- define "headway.labels" -}}
{{ include "headway.selector" . }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/part-of: headway
app.kubernetes.io/managed-by: {{ .Release.Service }}
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version | replace "+" "_" }}
{{- end -}}

{{- define "headway.image" -}}
{{- with .Values.image -}}
{{- if .digest -}}
{{ .repository }}@{{ .digest }}
{{- else -}}
{{ .repository }}:{{ .tag | default $.Chart.AppVersion }}
{{- end -}}
{{- end -}}
{{- end -}}
