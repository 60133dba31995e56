{{/* Names are fixed, not derived from the release: the webhook configurations, the roles that
name single objects, and the identities that seals trust exist once a cluster. */}}

{{- define "trainseal.labels" -}}
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version | replace "+" "_" }}
{{ include "trainseal.selectorLabels" . }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/part-of: trainseal
app.kubernetes.io/managed-by: {{ .Release.Service }}
{{- end }}

{{- define "trainseal.selectorLabels" -}}
app.kubernetes.io/name: trainseal
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end }}

{{- define "trainseal.image" -}}
{{ required "image.reference is required: the TrainSeal image, by digest (registry.example/trainseal@sha256:…)" .Values.image.reference }}
{{- end }}

{{- define "trainseal.excludedNamespaces" -}}
{{- /* Without agents nobody makes theirs: whoever made a namespace of that name would be free of rules. */ -}}
{{- $ours := list .Release.Namespace -}}
{{- if .Values.agent.enabled }}{{ $ours = append $ours .Values.agent.namespace }}{{ end -}}
{{ concat .Values.excludedNamespaces $ours | uniq | toJson }}
{{- end }}

{{- /* CEL: the end of a refusal, which names the page that helps, as provenance/helppages.py does. */ -}}
{{- define "trainseal.see" -}}
{{- $url := .root.Values.documentation.url -}}
{{- $page := "docs/how-to/refused.md" -}}
{{- if contains "{page}" $url -}}
{{- $page = replace "{page}" "how-to/refused" $url -}}
{{- else if $url -}}
{{- $page = printf "%s/how-to/refused/" (trimSuffix "/" $url) -}}
{{- end -}}
{{ printf "; see %s#%s" $page .section | toJson }}
{{- end }}

{{- /* Where CONNECT and evictions are asked about. */ -}}
{{- define "trainseal.accessNamespaces" -}}
matchExpressions:
  - key: kubernetes.io/metadata.name
    operator: NotIn
    values: {{ include "trainseal.excludedNamespaces" . }}
  {{- with .Values.access.namespaces }}
  - key: kubernetes.io/metadata.name
    operator: In
    values: {{ toJson . }}
  {{- end }}
{{- end }}

{{- /* Controllers of other engines that are switched on, as a list in JSON. */ -}}
{{- define "trainseal.engineControllers" -}}
{{- $found := list -}}
{{- range .Values.engines }}{{ if .enabled }}{{ $found = append $found .controller }}{{ end }}{{ end -}}
{{ toJson $found }}
{{- end }}

{{- /* CEL: is a Job (`of`) one that the controller of another engine makes and changes? */ -}}
{{- define "trainseal.cel.byItsEngine" -}}
{{- $root := .root -}}
{{- $tests := list -}}
{{- with $root.Values.engines.jobSet }}{{ if .enabled -}}
{{- $tests = append $tests (printf "request.userInfo.username == %s && %s.metadata.?ownerReferences.orValue([]).exists(o, o.?controller.orValue(false) && o.apiVersion.startsWith('jobset.x-k8s.io/') && o.kind == 'JobSet')" (toJson .controller) $.of) -}}
{{- end }}{{ end -}}
{{ if $tests }}({{ join " || " $tests }}) && 'trainseal.dev/seal' in {{ .of }}.metadata.?labels.orValue({}){{ else }}false{{ end }}
{{- end }}

{{- /* CEL: is a JobSet one that the controller of another engine makes and changes? */ -}}
{{- define "trainseal.cel.jobSetByItsEngine" -}}
{{- with .Values.engines.trainJob }}{{ if .enabled -}}
object != null && request.userInfo.username == {{ toJson .controller }}
&& object.metadata.?ownerReferences.orValue([]).exists(o, o.?controller.orValue(false)
&& o.apiVersion.startsWith('trainer.kubeflow.org/') && o.kind == 'TrainJob' && o.name == object.metadata.?name.orValue(''))
&& 'trainseal.dev/seal' in object.metadata.?labels.orValue({})
{{- else }}false{{ end }}{{ end }}
{{- end }}

{{- /* CEL: who asks is no account of a namespace that is left alone: who could borrow one of those
administrates the cluster. Our controller's is one. */ -}}
{{- define "trainseal.cel.notThePlatforms" -}}
!{{ include "trainseal.excludedNamespaces" . | replace "\"" "'" }}.exists(n, request.userInfo.username.startsWith('system:serviceaccount:' + n + ':'))
{{- end }}

{{/* CEL: does the resource name `r` ask for a GPU? */}}
{{- define "trainseal.cel.isGPU" -}}
{{- $tests := list "r.startsWith('deviceclass.resource.kubernetes.io/')" -}}
{{- range .Values.gpuResources -}}
{{- if hasSuffix "*" . -}}
{{- $tests = append $tests (printf "r.startsWith('%s')" (trimSuffix "*" .)) -}}
{{- else -}}
{{- $tests = append $tests (printf "r == '%s'" .) -}}
{{- end -}}
{{- end -}}
{{ join " || " $tests }}
{{- end }}

{{- /* CEL: does a pod's spec ask for a GPU, in any container or by a claim, or have a runtime give it
one, by its RuntimeClass or a variable? `spec` names it. provenance/gpuasks.py says the same. */ -}}
{{- define "trainseal.cel.asksForGPU" -}}
(size({{ .spec }}.?resourceClaims.orValue([])) > 0
{{- with .root.Values.gpuRuntimeClasses }}
|| {{ $.spec }}.?runtimeClassName.orValue('') in {{ toJson . }}
{{- end }}
|| [dyn([{{ .spec }}]), {{ .spec }}.?containers.orValue([]), {{ .spec }}.?initContainers.orValue([]),
{{ .spec }}.?ephemeralContainers.orValue([])].exists(holders, holders.exists(holder,
[holder.?resources.?limits.orValue({}), holder.?resources.?requests.orValue({})]
.exists(amounts, amounts.exists(r, {{ include "trainseal.cel.isGPU" .root }}))
|| holder.?env.orValue([]).exists(e, e.name == 'NVIDIA_VISIBLE_DEVICES'
&& (e.?valueFrom.hasValue() || !(e.?value.orValue('') in ['', 'none', 'void']))))))
{{- end }}

{{- /* CEL: do annotations have a runtime with CDI hand a container devices? `of` has metadata. */ -}}
{{- define "trainseal.cel.takesDevices" -}}
{{ .of }}.?metadata.?annotations.orValue({}).exists(a, a.startsWith('cdi.k8s.io/'))
{{- end }}

{{- /* The floor leaves alone what the webhook leaves alone. */ -}}
{{- define "trainseal.floor.namespaces" -}}
matchPolicy: Equivalent
namespaceSelector:
  matchExpressions:
    - key: kubernetes.io/metadata.name
      operator: NotIn
      values: {{ include "trainseal.excludedNamespaces" . }}
{{- end }}

{{- /* CEL variables: `audited`, where policies mean the namespace and all of them only audit. */ -}}
{{- define "trainseal.floor.audited" -}}
- name: policies
  expression: >-
    params.?data.orValue({}).map(k, params.data[k].split('\n')).filter(p,
    request.namespace.matches(p[1]) && !request.namespace.matches(p[2]))
- name: audited
  expression: size(variables.policies) > 0 && variables.policies.all(p, p[0] == 'Audit')
{{- end }}

{{- /* CEL: is a pod that is made one of a lane that every policy which enforces opens there, of its
repositories? Wants the variable `policies`. Owned by a Job it is none. */ -}}
{{- define "trainseal.cel.inLane" -}}
oldObject == null
&& object.metadata.?labels['trainseal.dev/lane'].orValue('') != ''
&& object.metadata.labels.all(k, k == 'trainseal.dev/lane' || !(k.startsWith('trainseal.dev/')
|| k.startsWith('batch.kubernetes.io/') || k in ['controller-uid', 'job-name']
|| k.startsWith('training.kubeflow.org/')))
&& !{{ include "trainseal.cel.takesDevices" (dict "of" "object") }}
&& object.metadata.?ownerReferences.orValue([]).all(o, o.apiVersion == 'apps/v1'
&& o.kind in ['StatefulSet', 'ReplicaSet'])
&& variables.policies.exists(p, p[0] != 'Audit')
&& variables.policies.all(p, p[0] == 'Audit'
|| p.exists(line, line.startsWith('Lane ' + object.metadata.labels['trainseal.dev/lane'] + ' ')
&& request.namespace.matches(line.split(' ')[2]))
&& p.exists(line, line.startsWith('Images ')
&& (object.spec.containers + object.spec.?initContainers.orValue([])).all(c,
c.?image.orValue('').matches(line.split(' ')[1]))))
{{- end }}

{{- /* A binding for the whole cluster. Without the parameter the policy does not apply: a release
namespace that somebody deleted must not stop every pod of the cluster. */ -}}
{{- define "trainseal.floor.binding" -}}
apiVersion: admissionregistration.k8s.io/v1
kind: ValidatingAdmissionPolicyBinding
metadata:
  name: {{ .name }}
  labels:
    {{- include "trainseal.labels" .root | nindent 4 }}
spec:
  policyName: {{ .name }}
  # Audit: what is refused stands in the API server's audit log, too.
  validationActions: [Deny, Audit]
  {{- if .params }}
  paramRef:
    name: trainseal-floor
    namespace: {{ .root.Release.Namespace }}
    parameterNotFoundAction: Allow
  {{- end }}
{{- end }}

{{- /* CEL: a variable (object, oldObject) bears the label by which Job controllers select the pods
of Jobs without a selector of their own. */ -}}
{{- define "trainseal.cel.isOfAJob" -}}
'batch.kubernetes.io/controller-uid' in {{ . }}.metadata.?labels.orValue({})
{{- end }}

{{- define "trainseal.cel.jobUID" -}}
{{ . }}.metadata.?labels['batch.kubernetes.io/controller-uid'].orValue('')
{{- end }}

{{- define "trainseal.cel.controllers" -}}
{{ . }}.metadata.?ownerReferences.orValue([]).filter(o, o.?controller.orValue(false)).map(o, o.uid)
{{- end }}

{{- /* CEL: do labels of ours stand as they were? */ -}}
{{- define "trainseal.cel.ourLabelsStay" -}}
[[object, oldObject], [oldObject, object]].all(pair,
pair[0].metadata.?labels.orValue({}).all(k, !k.startsWith('trainseal.dev/')
|| pair[1].metadata.?labels[k].orValue('') == pair[0].metadata.labels[k]))
{{- end }}

{{- /* CEL: do labels by which engines of others know what is theirs stand as they were? */ -}}
{{- define "trainseal.cel.marksStay" -}}
[[object, oldObject], [oldObject, object]].all(pair,
pair[0].metadata.?labels.orValue({}).all(k, !k.startsWith('jobset.sigs.k8s.io/')
|| pair[1].metadata.?labels[k].orValue('') == pair[0].metadata.labels[k]))
{{- end }}

{{- /* CEL: does a JobSet bear a label of ours, or would its Jobs, or their pods? */ -}}
{{- define "trainseal.cel.jobSetIsOurs" -}}
{{ . }}.metadata.?labels.orValue({}).exists(k, k.startsWith('trainseal.dev/'))
|| {{ . }}.spec.?replicatedJobs.orValue([]).exists(r,
[r.template.?metadata.?labels.orValue({}), r.template.spec.template.?metadata.?labels.orValue({})]
.exists(labels, labels.exists(k, k.startsWith('trainseal.dev/'))))
{{- end }}

{{- /* CEL: does a TrainJob or a runtime bear a label of ours, or would what is made of it? A runtime of a
run is known by its name as well, which a TrainJob says. */ -}}
{{- define "trainseal.cel.trainJobIsOurs" -}}
[{{ . }}.metadata.?labels.orValue({}), {{ . }}.?spec.?labels.orValue({}),
{{ . }}.?spec.?template.?metadata.?labels.orValue({})]
.exists(labels, labels.exists(k, k.startsWith('trainseal.dev/')))
|| {{ . }}.?spec.?podTemplateOverrides.orValue([]).exists(p,
p.?metadata.?labels.orValue({}).exists(k, k.startsWith('trainseal.dev/')))
|| {{ . }}.?spec.?template.?spec.?replicatedJobs.orValue([]).exists(r,
[r.?template.?metadata.?labels.orValue({}), r.?template.?spec.?template.?metadata.?labels.orValue({})]
.exists(labels, labels.exists(k, k.startsWith('trainseal.dev/'))))
|| {{ . }}.?spec.?runtimeRef.?name.orValue('').startsWith('trainseal-')
|| request.resource.resource == 'trainingruntimes'
&& {{ . }}.metadata.?name.orValue({{ . }}.metadata.?generateName.orValue('')).startsWith('trainseal-')
{{- end }}

{{- /* CEL: does a TrainJob (`of`) itself ask for GPUs? What its runtime asks for its JobSet asks for. */ -}}
{{- define "trainseal.cel.trainJobAsks" -}}
[{{ .of }}.?spec.?trainer.?resourcesPerNode.?limits.orValue({}),
{{ .of }}.?spec.?trainer.?resourcesPerNode.?requests.orValue({})]
.exists(amounts, amounts.exists(r, {{ include "trainseal.cel.isGPU" .root }}))
{{- end }}

{{- /* CEL: would pods of a JobSet (`of`) ask for GPUs? */ -}}
{{- define "trainseal.cel.jobSetAsks" -}}
{{ .of }}.spec.?replicatedJobs.orValue([]).exists(r,
{{ include "trainseal.cel.takesDevices" (dict "of" "r.template.spec.template") }}
|| {{ include "trainseal.cel.asksForGPU" (dict "spec" "r.template.spec.template.spec" "root" .root) }})
{{- end }}

{{- /* CEL: the templates of the pods of a PyTorchJob. */ -}}
{{- define "trainseal.cel.pyTorchJobPods" -}}
{{ . }}.spec.?pytorchReplicaSpecs.orValue({}).map(k, {{ . }}.spec.pytorchReplicaSpecs[k].template)
{{- end }}

{{- /* CEL: does a PyTorchJob bear a label of ours, or would its pods? */ -}}
{{- define "trainseal.cel.pyTorchJobIsOurs" -}}
{{ . }}.metadata.?labels.orValue({}).exists(k, k.startsWith('trainseal.dev/'))
|| {{ include "trainseal.cel.pyTorchJobPods" . }}.exists(t,
t.?metadata.?labels.orValue({}).exists(k, k.startsWith('trainseal.dev/')))
{{- end }}

{{- /* CEL: would pods of a PyTorchJob (`of`) ask for GPUs? */ -}}
{{- define "trainseal.cel.pyTorchJobAsks" -}}
{{ include "trainseal.cel.pyTorchJobPods" .of }}.exists(t,
{{ include "trainseal.cel.takesDevices" (dict "of" "t") }}
|| {{ include "trainseal.cel.asksForGPU" (dict "spec" "t.spec" "root" .root) }})
{{- end }}

{{- /* CEL: does a pod bear the label by which the training operator selects pods of PyTorchJobs? */ -}}
{{- define "trainseal.cel.isOfAPyTorchJob" -}}
{{ . }}.metadata.?labels['training.kubeflow.org/operator-name'].orValue('') == 'pytorchjob-controller'
{{- end }}

{{- /* CEL: is a pod made for a run by whoever makes the pods of its owner's kind? */ -}}
{{- define "trainseal.cel.madeForARun" -}}
'trainseal.dev/seal' in object.metadata.?labels.orValue({})
&& object.metadata.?ownerReferences.orValue([]).exists(o, o.?controller.orValue(false)
&& (o.apiVersion == 'batch/v1' && o.kind == 'Job'
&& request.userInfo.username in {{ toJson .Values.podCreators }}
{{- with .Values.engines.pyTorchJob }}{{ if .enabled }}
|| o.apiVersion == 'kubeflow.org/v1' && o.kind == 'PyTorchJob'
&& request.userInfo.username == {{ toJson .controller }}
{{- end }}{{ end }}))
{{- end }}

{{- /* CEL: do labels and annotations stand as they were by which Kueue is told what to do? */ -}}
{{- define "trainseal.cel.queueMarksStay" -}}
[[object, oldObject], [oldObject, object]].all(pair,
pair[0].metadata.?labels.orValue({}).all(k, !k.startsWith('kueue.x-k8s.io/')
|| pair[1].metadata.?labels[k].orValue('') == pair[0].metadata.labels[k])
&& pair[0].metadata.?annotations.orValue({}).all(k, !k.startsWith('kueue.x-k8s.io/')
|| pair[1].metadata.?annotations[k].orValue('') == pair[0].metadata.annotations[k]))
{{- end }}

{{- define "trainseal.podSecurityContext" -}}
runAsNonRoot: true
runAsUser: 65532
runAsGroup: 65532
fsGroup: 65532
seccompProfile: {type: RuntimeDefault}
{{- end }}

{{- define "trainseal.containerSecurityContext" -}}
allowPrivilegeEscalation: false
readOnlyRootFilesystem: true
capabilities: {drop: [ALL]}
{{- end }}

{{- define "trainseal.agentAccount" -}}
system:serviceaccount:{{ .Values.agent.namespace }}:trainseal-agent
{{- end }}

{{- /* CEL: the node of the pod that the requester's token was made for, or nothing. */ -}}
{{- define "trainseal.cel.tokensNode" -}}
request.userInfo.?extra['authentication.kubernetes.io/node-name'].orValue([''])[0]
{{- end }}

{{- define "trainseal.pullSecrets" -}}
{{- with .Values.image.pullSecrets }}
imagePullSecrets:
{{- range . }}
  - name: {{ . }}
{{- end }}
{{- end }}
{{- end }}

{{/* What both processes share: identity, configuration, a writable /tmp, registry authorities. */}}
{{- define "trainseal.env" -}}
- name: POD_NAME
  valueFrom: {fieldRef: {fieldPath: metadata.name}}
- name: POD_NAMESPACE
  valueFrom: {fieldRef: {fieldPath: metadata.namespace}}
{{- if .Values.registries.credentialsSecret }}
- name: DOCKER_CONFIG
  value: /etc/trainseal-registry-credentials
{{- end }}
{{- end }}

{{- define "trainseal.volumeMounts" -}}
- name: config
  mountPath: /etc/trainseal
  readOnly: true
- name: tmp
  mountPath: /tmp
{{- if .Values.registries.caConfigMap }}
- name: registry-ca
  mountPath: /etc/trainseal-registry-ca
  readOnly: true
{{- end }}
{{- if .Values.registries.credentialsSecret }}
- name: registry-credentials
  mountPath: /etc/trainseal-registry-credentials
  readOnly: true
{{- end }}
{{- end }}

{{- define "trainseal.volumes" -}}
- name: config
  configMap:
    name: trainseal-config
- name: tmp
  emptyDir: {sizeLimit: 256Mi}
{{- with .Values.registries.caConfigMap }}
- name: registry-ca
  configMap:
    name: {{ . }}
    items: [{key: ca.crt, path: ca.crt}]
{{- end }}
{{- with .Values.registries.credentialsSecret }}
- name: registry-credentials
  secret:
    secretName: {{ . }}
    items: [{key: .dockerconfigjson, path: config.json}]
{{- end }}
{{- end }}

{{/* Replicas on different nodes and zones where there are such; never unschedulable for it. */}}
{{- define "trainseal.spread" -}}
topologySpreadConstraints:
{{- range list "kubernetes.io/hostname" "topology.kubernetes.io/zone" }}
  - maxSkew: 1
    topologyKey: {{ . }}
    whenUnsatisfiable: ScheduleAnyway
    labelSelector:
      matchLabels:
        {{- include "trainseal.selectorLabels" $.root | nindent 8 }}
        app.kubernetes.io/component: {{ $.component }}
{{- end }}
{{- end }}
