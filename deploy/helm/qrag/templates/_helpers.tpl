{{- define "qrag.name" -}}
{{- if contains .Chart.Name .Release.Name -}}
{{- .Release.Name | trunc 52 | trimSuffix "-" -}}
{{- else -}}
{{- printf "%s-%s" .Release.Name .Chart.Name | trunc 52 | trimSuffix "-" -}}
{{- end -}}
{{- end -}}

{{- define "qrag.selector" -}}
app.kubernetes.io/name: {{ .Chart.Name }}
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end -}}

{{- define "qrag.labels" -}}
{{ include "qrag.selector" . }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version }}
{{- end -}}

{{- define "qrag.monitoringLabels" -}}
{{ include "qrag.labels" . }}
{{- with .Values.monitoring.labels }}
{{ toYaml . }}
{{- end }}
{{- end -}}

{{- /* Where there are no keys: the names of the Service, of the Ingress, and those that were given. */ -}}
{{- define "qrag.allowedHosts" -}}
{{- $name := include "qrag.name" . -}}
{{- $inNamespace := printf "%s.%s" $name .Release.Namespace -}}
{{- $hosts := list $name $inNamespace (printf "%s.svc" $inNamespace) (printf "%s.svc.cluster.local" $inNamespace) -}}
{{- if .Values.ingress.enabled -}}
{{- $hosts = append $hosts .Values.ingress.host -}}
{{- end -}}
{{- concat $hosts .Values.auth.allowedHosts | join "," -}}
{{- end -}}

{{- /* The Secret with the keys; empty where strangers are let in. */ -}}
{{- define "qrag.secret" -}}
{{- if .Values.auth.existingSecret -}}
{{- if or .Values.auth.keys .Values.auth.metricsKey .Values.auth.continuationKey -}}
{{- fail "The keys are those of the Secret auth.existingSecret: put api-keys, metrics-key and continuation-key there, and leave auth.keys, auth.metricsKey and auth.continuationKey empty." -}}
{{- end -}}
{{- .Values.auth.existingSecret -}}
{{- else if .Values.auth.keys -}}
{{- include "qrag.name" . -}}
{{- else if not .Values.auth.allowAnonymous -}}
{{- fail "Give keys in auth.keys, or a Secret in auth.existingSecret. Say auth.allowAnonymous=true where something else keeps strangers away." -}}
{{- end -}}
{{- end -}}
