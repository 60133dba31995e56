"""A valid object of each kind, made anew on each call, so that a test can break one thing."""

from __future__ import annotations

from typing import Any

API_VERSION = "trainseal.dev/v1alpha1"
DIGEST = "sha256:" + "0123456789abcdef" * 4
TIME = "2026-11-23T12:00:00Z"

Object = dict[str, Any]


def _object(kind: str, name: str, spec: Object, namespace: str | None = "default") -> Object:
    metadata = {"name": name} | ({"namespace": namespace} if namespace else {})
    return {"apiVersion": API_VERSION, "kind": kind, "metadata": metadata, "spec": spec}


def training_job(name: str = "char-lm") -> Object:
    """Every field of the kind is there, and every sort of value a pod template may hold."""
    spec = {
        "engine": "Job",
        "code": [
            {
                "name": "trainer",
                "mountPath": "/workspace",
                "oci": {"reference": f"registry.example/research/code@{DIGEST}"},
            }
        ],
        "config": {
            "mountPath": "/etc/training",
            "parameters": {
                "learning_rate": 0.0003,
                "batch_size": 64,
                "warmup": 0,
                "tiny": 1e-300,
                "schedule": {"kind": "cosine", "restarts": [1, 2.5, None, True, "x"], "": {}},
                "größe": "☃ 𝄞",
            },
        },
        "data": [
            {
                "name": "corpus",
                "mountPath": "/data/corpus",
                "volume": {"persistentVolumeClaim": {"claimName": "corpus"}},
                "path": "v1/text",
            },
            {
                "name": "cache",
                "mountPath": "/data/cache",
                "volume": {"emptyDir": {"medium": "Memory", "sizeLimit": "1Gi"}},
            },
        ],
        "checkpoints": {
            "mountPath": "/checkpoints",
            "volume": {"persistentVolumeClaim": {"claimName": "ckpt"}},
            "path": "runs/char-lm",
            "complete": {"marker": ".done"},
            "format": ["safetensors", "dcp"],
            "resume": {
                "from": {"run": "char-lm-0", "select": "LatestUntainted"},
                "mountPath": "/resumed",
            },
        },
        "scratch": [{"mountPath": "/tmp", "medium": "Memory", "sizeLimit": "512Mi"}],
        "roles": [
            {"name": "launcher", "replicas": 1, "template": pod_template()},
            {"name": "worker", "replicas": {"min": 2, "max": 8}, "template": pod_template()},
        ],
        "scheduling": {
            "queueName": "research",
            "priorityClassName": "low",
            "nodeSelector": {"pool": "gpu"},
            "tolerations": [{"key": "gpu", "operator": "Exists", "tolerationSeconds": 5}],
            "affinity": {
                "podAntiAffinity": {"preferredDuringSchedulingIgnoredDuringExecution": []}
            },
            "topologySpreadConstraints": [{"maxSkew": 1, "topologyKey": "rack"}],
            "schedulingGates": [{"name": "platform.example/checked"}],
        },
        "validity": {"notAfter": "2027-03-01T00:00:00Z", "maxRuns": 3, "cluster": "a-uid"},
        "suspend": False,
        "signatures": [{"bundle": {"mediaType": "bundle", "dsseEnvelope": {"payload": "e30="}}}],
    }
    return _object("TrainingJob", name, spec)


def launched_job(name: str = "sweep-1") -> Object:
    """A job that names a template."""
    spec = {
        "templateRef": {"name": "pretrain", "digest": DIGEST},
        "parameters": {"optim.lr": 0.0003, "seed": 17, "amp": True, "optim.name": "adam"},
        "replicas": {"worker": 4},
        "codeReferences": [
            {"name": "trainer", "reference": f"registry.example/research/code@{DIGEST}"}
        ],
        "resumeFrom": {"run": "sweep-0", "select": "LatestUntainted"},
        "scheduling": {"queueName": "research"},
        "suspend": False,
    }
    return _object("TrainingJob", name, spec)


def training_template(name: str = "pretrain") -> Object:
    """Every field of the kind is there."""
    job = training_job()["spec"]
    whole = {k: v for k, v in job.items() if k not in ("scheduling", "suspend", "signatures")}
    spec = {
        "resume": {"mountPath": "/resumed"},
        "parameters": {
            "optim.lr": {"type": "number", "minimum": 0.00001, "maximum": 0.001},
            "seed": {"type": "integer", "enum": [1, 2, 3]},
            "amp": {"type": "boolean"},
            "optim.name": {"type": "string", "enum": ["adam", "sgd"]},
            "tag": {"type": "string", "maxLength": 16},
        },
        "replicas": {"worker": {"min": 1, "max": 8}},
        "code": {"trainer": {"repository": "registry.example/research/code", "authority": "ci"}},
        "launch": {
            "requesters": [{"user": "bob"}, {"group": "research"}, {"authority": "nightly"}],
            "maxConcurrent": 40,
            "notAfter": "2027-03-01T00:00:00Z",
        },
        "job": whole,
        "revoked": {"reason": "diverges"},
        "signatures": [{"bundle": {"mediaType": "bundle"}}],
    }
    return _object("TrainingTemplate", name, spec)


def pod_template() -> Object:
    """A PodTemplateSpec with fields that no schema of ours names."""
    return {
        "metadata": {"labels": {"app": "trainer"}, "annotations": {"a/b": "c"}},
        "spec": {
            "containers": [
                {
                    "name": "trainer",
                    "image": f"registry.example/research/pytorch@{DIGEST}",
                    "command": ["python", "/workspace/train.py"],
                    "env": [{"name": "A", "value": ""}],
                    "resources": {"limits": {"nvidia.com/gpu": 1, "memory": "1.50Gi"}},
                    "aFieldOfTomorrow": {"deep": [{"er": None}]},
                }
            ],
            "restartPolicy": "Never",
        },
    }


def provenance_policy(name: str = "research") -> Object:
    """Two authorities, a threshold of two for jobs, and every optional part."""
    pem = "-----BEGIN PUBLIC KEY-----\n" + "A" * 64 + "\n-----END PUBLIC KEY-----\n"
    spec = {
        "mode": "Enforce",
        "namespaces": {"include": ["team-*", "default"], "exclude": ["team-x"]},
        "authorities": [
            {"name": "alice", "person": "Alice", "key": {"publicKey": pem}},
            {
                "name": "ci",
                "keyless": {
                    "issuer": "https://issuer.example",
                    "subjectRegExp": "https://ci[.]example/.*",
                    "trustRoot": "private",
                },
            },
        ],
        "requirements": {
            "job": {"authorities": ["alice", "ci"], "threshold": 2},
            "image": {"authorities": ["ci"]},
            "code": {"authorities": ["alice", "ci"]},
        },
        "registries": {"allow": ["registry.example/**"]},
        "validity": {"require": ["notAfter", "maxRuns"]},
        "pods": {
            "allowedSecrets": ["wandb"],
            "secretRotators": ["system:serviceaccount:external-secrets:external-secrets"],
            "additions": [
                {
                    "name": "istio",
                    "reason": "the mesh",
                    "env": [{"name": "MESH", "valuePrefix": "v1-"}],
                    "labels": ["istio.io/rev"],
                    "annotations": ["istio.io/status"],
                    "containers": [
                        {
                            "name": "istio-proxy",
                            "init": True,
                            "images": [f"registry.example/istio/proxyv2@sha256:{'1' * 64}"],
                            "command": ["pilot-agent"],
                            "args": ["proxy", "sidecar"],
                            "env": [{"name": "PILOT_CERT_PROVIDER", "valuePrefix": "istiod"}],
                            "fields": ["POD_NAMESPACE"],
                            "mounts": [{"volume": "istio-*", "path": "/etc/istio"}],
                            "hooks": [["pilot-agent", "wait"]],
                            "capabilities": ["NET_ADMIN"],
                        }
                    ],
                    "volumes": [
                        {
                            "name": "istio-token",
                            "kind": "projected",
                            "configMaps": ["istio-ca-root-cert"],
                            "audiences": ["istio-ca"],
                        },
                        {"name": "csi", "kind": "csi", "drivers": ["csi.example"]},
                    ],
                    "mounts": [{"volume": "istio-*", "path": "/istio", "readOnly": True}],
                }
            ],
        },
        "access": {
            "exec": "BreakGlass",
            "attach": "Deny",
            "portForward": "Record",
            "proxy": "Deny",
            "ephemeralContainers": "Record",
            "resize": "BreakGlass",
            "serviceAccounts": ["system:serviceaccount:ci:smoke-tests"],
            "breakGlass": {
                "maxDurationSeconds": 1800,
                "selfApproval": {"users": ["ann"], "groups": ["oncall"]},
            },
        },
        "data": {"unverified": "Allow"},
        "checkpoints": {
            "mayResume": {"users": ["carol"], "groups": ["on-call"]},
            "formats": ["safetensors", "dcp"],
        },
        "drift": {
            "exceptions": [
                {
                    "name": "compiler-cache",
                    "reason": "triton compiles kernels as it runs",
                    "findings": ["file.created", "map.foreign"],
                    "paths": ["/tmp/triton/**"],
                    "executables": ["/usr/bin/python3.*"],
                }
            ],
            "responses": {"critical": "Freeze", "warning": "Alert", "info": "Record"},
            "freeze": {"maxDurationSeconds": 300, "then": "Quarantine"},
        },
    }
    return _object("ProvenancePolicy", name, spec, None)


def trust_root(name: str = "private") -> Object:
    """An inline root."""
    return _object(
        "TrustRoot", name, {"trustedRoot": {"mediaType": "root", "tlogs": [{"x": None}]}}, None
    )


def public_root(name: str = "public-good") -> Object:
    """The public good's copy."""
    return _object("TrustRoot", name, {"publicGood": {}}, None)


def sealed_run(name: str = "char-lm-1") -> Object:
    """One run of one role."""
    spec = {
        "job": {"name": "char-lm", "uid": "u-1", "digest": DIGEST},
        "cluster": "a-uid",
        "run": 1,
        "engine": "Job",
        "requester": {"username": "carol", "uid": "u-2", "time": TIME},
        "policies": [{"name": "research", "digest": DIGEST, "mode": "Enforce"}],
        "artifacts": [
            {
                "artifact": "job",
                "name": "char-lm",
                "subject": DIGEST,
                "outcome": "verified",
                "reason": "Signed",
                "message": "signed by Alice",
                "signers": [
                    {
                        "authority": "alice",
                        "person": "Alice",
                        "identity": "key 1",
                        "issuer": "none",
                        "signedAt": TIME,
                    }
                ],
            }
        ],
        "images": [
            {
                "reference": f"registry.example/pytorch@{DIGEST}",
                "digest": DIGEST,
                "platforms": [{"platform": "linux/amd64", "manifest": DIGEST, "config": DIGEST}],
            }
        ],
        "code": [
            {
                "name": "trainer",
                "reference": f"registry.example/code@{DIGEST}",
                "treeDigest": DIGEST,
                "bundle": DIGEST,
            }
        ],
        "configDigest": DIGEST,
        "roles": [
            {
                "name": "worker",
                "replicas": 2,
                "objectName": "char-lm-worker",
                "template": pod_template(),
            }
        ],
        "earlier": [
            {
                "inNamespace": "default",
                "sealedRun": "char-lm-0",
                "checkpoints": 2,
                "newest": "m-1",
            }
        ],
        "sealedAt": TIME,
    }
    return _object("SealedRun", name, spec)


def drift_report(name: str = "char-lm-worker-0") -> Object:
    """On one pod."""
    spec = {
        "reporter": "Agent",
        "pod": {"name": "char-lm-worker-0", "uid": "u"},
        "node": "n1",
        "sealedRun": "char-lm-1",
    }
    return _object("DriftReport", name, spec)


def access_record(name: str = "char-lm-1-0001") -> Object:
    """One exec."""
    spec = {
        "pod": {"name": "char-lm-worker-0", "uid": "u"},
        "node": "n1",
        "sealedRun": "char-lm-1",
        "action": "Exec",
        "username": "mallory",
        "userUID": "u-3",
        "groups": ["system:authenticated"],
        "credential": {"credential-id": "JTI=1"},
        "command": ["sh", "-c", "true"],
        "container": "trainer",
        "allowed": False,
        "breakGlass": "char-lm-1-0001",
        "time": TIME,
        "truncated": ["command"],
    }
    return _object("AccessRecord", name, spec)


def hold_release(name: str = "char-lm-1-0001") -> Object:
    """One hold, lifted."""
    spec = {
        "sealedRun": "char-lm-1",
        "hold": "0123456789abcdef",
        "user": "carol",
        "reason": "seen, harmless",
    }
    return _object("HoldRelease", name, spec)


def break_glass(name: str = "char-lm-1-0001") -> Object:
    """Ann, for an hour."""
    spec = {
        "sealedRun": "char-lm-1",
        "user": "ann",
        "ways": ["Exec"],
        "reason": "hangs",
        "notAfter": TIME,
        "approvedBy": "carol",
    }
    return _object("BreakGlass", name, spec)


def evidence_item(name: str = "char-lm-worker-0-u-0123456789abcdef") -> Object:
    """Of a changed file, with who changed it."""
    spec = {
        "sealedRun": "char-lm-1",
        "node": "n1",
        "pod": {"name": "char-lm-worker-0", "uid": "u"},
        "container": "trainer",
        "finding": {"id": "file.changed", "key": "0123456789abcdef"},
        "takenAt": TIME,
        "file": {
            "path": "/workspace/train.py",
            "state": "Kept",
            "digest": "sha256:526a8edf78f3663f3610e36fa258009393736c2ab60847077ee86b259c4aa87f",
            "foundDigest": DIGEST,
            "signedDigest": DIGEST,
            "size": 6,
            "mode": "0644",
            "unsteady": True,
            "content": "H4sIAAAAAAACA8spUrBVAADQKx0yBQAAAA==",
            "contentSize": 5,
            "truncated": True,
        },
        "processes": [
            {
                "pid": 12,
                "parent": 1,
                "startedAt": TIME,
                "executable": "/usr/bin/vi",
                "command": ["vi", "--token=(8 characters)"],
                "uid": 0,
                "acting": True,
                "environment": [{"name": "API_KEY", "value": "(8 characters)"}],
                "environmentOmitted": 1,
                "maps": [{"path": "/usr/bin/vi", "rights": "r-xp"}],
                "mapsOmitted": 1,
            },
            {
                "pid": 11,
                "parent": 1,
                "startedAt": TIME,
                "executable": "/bin/sh",
                "ended": True,
            },
        ],
        "processesOmitted": 1,
    }
    return _object("EvidenceItem", name, spec)


def checkpoint(name: str = "char-lm-worker-0-aaaaaaaa-0123456789ab") -> Object:
    """Two files that were completed together."""
    spec = {
        "sealedRun": "char-lm-1",
        "node": "n1",
        "pod": {"name": "char-lm-worker-0", "uid": "u"},
        "volume": {"claim": "ckpt", "path": "runs/char-lm"},
        "completed": "2026-11-23T12:00:00.500000Z",
        "files": [
            {
                "path": "step-20/model.safetensors",
                "size": 4096,
                "digest": DIGEST,
                "changed": "2026-11-23T12:00:00.250000Z",
                "writer": "Trainer",
                "format": "pickle",
                "imports": ["posix.system", "torch._utils._rebuild_tensor_v2"],
                "moreImports": 2,
                "doubt": "a name that it computes while it is loaded",
            },
            {
                "path": "step-20/state.json",
                "size": 12,
                "changed": "2026-11-23T12:00:00.500000Z",
                "writer": "Session",
                "user": "mallory",
            },
        ],
        "removed": ["step-10/model.safetensors"],
        "unlisted": 3,
    }
    return _object("Checkpoint", name, spec)


def run_statement(name: str = "char-lm-1") -> Object:
    """What a run was, and what came of it."""
    return _object("RunStatement", name, {"sealedRun": name})


def stack_request(name: str = "char-lm-1-202611231200") -> Object:
    """The stacks of one run are asked for."""
    return _object("StackRequest", name, {"sealedRun": "char-lm-1", "user": "carol"})


def stack_dump(name: str = "char-lm-worker-0-x-0aa3b1c2") -> Object:
    """The stacks of one pod."""
    pod = {"name": "char-lm-worker-0-x", "uid": "0aa3b1c2-1111-2222-3333-444455556666"}
    return _object("StackDump", name, {"sealedRun": "char-lm-1", "node": "node-1", "pod": pod})


SAMPLES = (
    training_job,
    launched_job,
    training_template,
    provenance_policy,
    trust_root,
    public_root,
    sealed_run,
    drift_report,
    access_record,
    hold_release,
    break_glass,
    evidence_item,
    checkpoint,
    run_statement,
    stack_request,
    stack_dump,
)


def status_of(kind: str) -> Object:
    """A status that says something in each printer column."""
    condition = {
        "type": "Ready",
        "status": "True",
        "reason": "InForce",
        "message": "read and valid",
        "lastTransitionTime": TIME,
        "observedGeneration": 1,
    }
    return {
        "TrainingJob": {
            "observedGeneration": 1,
            "phase": "Running",
            "verified": "verified",
            "message": "2 of 2 pods are ready",
            "jobDigest": DIGEST,
            "sealedRun": "char-lm-1",
            "run": 1,
            "requester": "carol",
            "signers": "Alice, Bob",
            "ready": "2/2",
            "drift": {"critical": 1, "warning": 0, "info": 0, "firstTime": TIME, "lastTime": TIME},
            "drifted": "1 critical",
            "artifacts": sealed_run()["spec"]["artifacts"],
            "roles": [
                {
                    "name": "worker",
                    "replicas": 2,
                    "active": 2,
                    "ready": 2,
                    "succeeded": 0,
                    "failed": 0,
                }
            ],
            "startTime": TIME,
            "conditions": [condition],
        },
        "ProvenancePolicy": {"observedGeneration": 1, "conditions": [condition]},
        "TrustRoot": {"observedGeneration": 1, "conditions": [condition]},
        "SealedRun": {
            "binding": {
                "sealDigest": DIGEST,
                "objects": [
                    {"role": "worker", "kind": "Job", "name": "char-lm-worker", "uid": "u"}
                ],
                "keyID": "key-1",
                "signature": "c2ln",
                "boundAt": TIME,
            },
            "phase": "Bound",
            "message": "bound to 1 object",
            "drift": {"critical": 1, "warning": 0, "info": 0, "firstTime": TIME, "lastTime": TIME},
            "hold": {
                "id": "0123456789abcdef",
                "response": "Suspend",
                "since": TIME,
                "findings": ["0123456789abcdef"],
                "reason": "file.changed",
                "severity": "Critical",
                "message": "a signed file was changed",
            },
            "isolatedSince": TIME,
            "freeze": {"state": "Thawed", "since": TIME, "order": "e30=.c2ln"},
            "lifted": {
                "hold": "0123456789abcdef",
                "release": "char-lm-1-0001",
                "user": "carol",
                "reason": "seen, harmless",
                "time": TIME,
            },
            "handled": ["0123456789abcdef"],
            "taint": {
                "since": TIME,
                "finding": "file.changed",
                "severity": "Critical",
                "message": "a signed file was changed",
                "users": ["mallory"],
            },
            "told": ["0123456789abcdef"],
            "reports": ["u-1"],
            "conditions": [condition],
        },
        "DriftReport": {
            "findings": [
                {
                    "id": "file.changed",
                    "key": "0123456789abcdef",
                    "severity": "Critical",
                    "firstTime": TIME,
                    "lastTime": TIME,
                    "count": 1,
                    "container": "trainer",
                    "path": "/workspace/train.py",
                    "message": "written while sealed",
                    "processes": [{"pid": 12, "executable": "/usr/bin/vi", "command": ["vi"]}],
                    "user": "mallory",
                    "evidence": {"inode": "12"},
                }
            ],
            "dropped": 0,
            "conditions": [condition],
        },
        "Checkpoint": {
            "standing": "Signed",
            "message": "nothing more to say",
            "attested": {
                "cluster": "c-1",
                "sealDigest": DIGEST,
                "job": "char-lm",
                "jobDigest": DIGEST,
                "created": TIME,
                "claimUID": "u-2",
                "persistentVolume": "pv-1",
            },
            "tainted": {
                "finding": "file.changed",
                "since": TIME,
                "message": "a signed file was changed",
            },
            "accepted": {"release": "char-lm-1-0001", "user": "carol", "reason": "seen"},
            "refused": "somebody else must sign them off",
            "signature": {"keyID": "key-1", "signedAt": TIME, "signature": "c2ln"},
            "bundle": {"keyID": "key-2", "signature": "c2ln"},
        },
        "RunStatement": {
            "payload": '{"_type":"https://in-toto.io/Statement/v1"}',
            "keyID": "key-1",
            "signedAt": TIME,
            "signature": "c2ln",
            "outputs": {"keyID": "key-2", "signature": "c2ln"},
            "outcome": "Succeeded",
            "findings": "1 warning",
            "number": 1,
        },
        "StackDump": {
            "request": "char-lm-1-202611231200",
            "takenAt": TIME,
            "processes": [
                {
                    "pid": 12,
                    "parent": 1,
                    "container": "trainer",
                    "executable": "/usr/bin/python3.11",
                    "threads": [
                        {
                            "name": "MainThread",
                            "main": True,
                            "frames": [{"name": "step", "file": "/workspace/train.py", "line": 7}],
                            "framesOmitted": 1,
                        }
                    ],
                    "threadsOmitted": 1,
                },
                {
                    "pid": 13,
                    "parent": 12,
                    "container": "trainer",
                    "executable": "/usr/bin/python3.11",
                    "problem": "no Python stacks: it ended",
                },
            ],
            "processesOmitted": 1,
            "message": "no Python stacks: none",
        },
    }[kind]


def put(obj: Object, path: str, value: object) -> None:
    """Sets a field (``spec.roles.0.name``); takes it away where the value is None."""
    *parents, last = path.split(".")
    target: Any = obj
    for part in parents:
        target = target[int(part)] if part.isdigit() else target[part]
    if value is None:
        del target[last]
    else:
        target[last] = value


#: Kind, field of its status, and a value that is none of its values or beyond its bounds.
STATUS_FAULTS: list[tuple[str, str, object]] = [
    ("TrainingJob", "phase", "Odd"),
    ("TrainingJob", "verified", "yes"),
    ("TrainingJob", "message", "m" * 4097),
    ("TrainingJob", "run", 2**31),
    ("TrainingJob", "observedGeneration", 2**53),
    ("TrainingJob", "artifacts.0.artifact", "artifact"),
    ("TrainingJob", "artifacts.0.outcome", "ok"),
    ("TrainingJob", "roles.0.ready", -1),
    ("TrainingJob", "conditions.0.status", "Maybe"),
    ("TrainingJob", "conditions.0.reason", "two words"),
    ("ProvenancePolicy", "conditions.0.message", "m" * 4097),
    ("TrustRoot", "observedGeneration", -1),
    ("SealedRun", "binding.objects.0.kind", "Pod"),
    ("SealedRun", "hold.response", "Alert"),
    ("SealedRun", "freeze.state", "Cold"),
    ("SealedRun", "told", ["0123456789abcdef"] * 4097),
    ("SealedRun", "reports", ["u" * 37]),
    ("DriftReport", "findings.0.severity", "Fatal"),
    ("DriftReport", "findings.0.count", 0),
    ("DriftReport", "findings.0.evidence", {"n" * 65: "x"}),
    ("DriftReport", "dropped", 2**53),
    ("StackDump", "request", "Not A Name"),
    ("StackDump", "processes.0.pid", -1),
    ("StackDump", "processes.0.threads.0.frames.0.line", 0),
    ("StackDump", "processesOmitted", 2**31),
]
