{{/* Name of everything in the release: its own, which tells what it is. */}}
{{- define "raft-operator.name" -}}
{{- if contains "raft-operator" .Release.Name -}}
{{ .Release.Name | trunc 50 | trimSuffix "-" }}
{{- else -}}
{{ printf "%s-raft-operator" (.Release.Name | trunc 36 | trimSuffix "-") }}
{{- end -}}
{{- end -}}

{{/* What never changes. NetworkPolicies of RaftClusters know the operator by its app.kubernetes.io/name, in its namespace. */}}
{{- define "raft-operator.selector" -}}
app.kubernetes.io/name: raft-operator
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end -}}

{{- define "raft-operator.labels" -}}
{{ include "raft-operator.selector" . }}
app.kubernetes.io/component: operator
app.kubernetes.io/part-of: raft-log-replicator
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
{{- end -}}

{{/* By digest where one is given: a tag may move. */}}
{{- define "raft-operator.image" -}}
{{- if .Values.image.digest -}}
{{ printf "%s@%s" .Values.image.repository .Values.image.digest }}
{{- else -}}
{{ printf "%s:%s" .Values.image.repository (.Values.image.tag | default .Chart.AppVersion) }}
{{- end -}}
{{- end -}}

{{- define "raft-operator.nodeImage" -}}
{{ .Values.defaultImages.node | default (printf "raft-node:%s" .Chart.AppVersion) }}
{{- end -}}

{{- define "raft-operator.replicatorImage" -}}
{{ .Values.defaultImages.replicator | default (printf "raft-replicator:%s" .Chart.AppVersion) }}
{{- end -}}

{{/* What restricted Pod Security asks of a pod, and of a container. */}}
{{- define "raft-operator.podSecurity" -}}
runAsNonRoot: true
runAsUser: 65532
runAsGroup: 65532
seccompProfile:
  type: RuntimeDefault
{{- end -}}

{{- define "raft-operator.containerSecurity" -}}
allowPrivilegeEscalation: false
readOnlyRootFilesystem: true
capabilities:
  drop: [ALL]
{{- end -}}

{{/* Where `helm test` makes its RaftCluster: where the operator looks. */}}
{{- define "raft-operator.testNamespace" -}}
{{ first .Values.watchNamespaces | default .Release.Namespace }}
{{- end -}}

{{- define "raft-operator.testCluster" -}}
{{ printf "%s-test" (include "raft-operator.name" . | trunc 35 | trimSuffix "-") }}
{{- end -}}

{{/* All that the operator does in namespaces with RaftClusters, and no more. */}}
{{- define "raft-operator.rules" -}}
- apiGroups: [raftlog.io]
  resources: [raftclusters]
  verbs: [list, watch]
- apiGroups: [raftlog.io]
  resources: [raftclusters/status]
  verbs: [patch]
# Objects that it owns hold up their RaftCluster's deletion, where deletion in the foreground is asked for.
- apiGroups: [raftlog.io]
  resources: [raftclusters/finalizers]
  verbs: [update]
# Server-side apply is a patch, which creates what is not there.
- apiGroups: [""]
  resources: [configmaps, serviceaccounts, services]
  verbs: [get, list, watch, create, patch]
- apiGroups: [apps]
  resources: [statefulsets]
  verbs: [get, list, watch, create, patch]
# A RaftCluster may ask for these, and later may not.
- apiGroups: [apps]
  resources: [deployments]
  verbs: [get, list, watch, create, patch, delete]
- apiGroups: [networking.k8s.io]
  resources: [networkpolicies]
  verbs: [get, list, watch, create, patch, delete]
- apiGroups: [policy]
  resources: [poddisruptionbudgets]
  verbs: [get, list, watch, create, patch, delete]
# A claim is looked up by name before it is used, and one whose member left by scaling down is deleted, as the StatefulSet itself
# deletes none when it is scaled.
- apiGroups: [""]
  resources: [persistentvolumeclaims]
  verbs: [get, list, watch, patch, delete]
- apiGroups: [""]
  resources: [pods]
  verbs: [list, watch, patch, delete]
- apiGroups: [""]
  resources: [pods/eviction]
  verbs: [create]
# Why a StatefulSet makes no pods.
- apiGroups: [""]
  resources: [events]
  verbs: [list]
- apiGroups: [events.k8s.io]
  resources: [events]
  verbs: [create, patch]
{{- end -}}
