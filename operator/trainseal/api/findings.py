"""Every finding there is: the one list from which pages, metrics and messages are made.

A finding is one observed difference between the seal and what runs. Its id is stable: policies,
alerts and dashboards refer to it. References are techniques of MITRE ATT&CK (``T…``) and MITRE
ATLAS (``AML.T…``).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Literal

Severity = Literal["Info", "Warning", "Critical"]
#: From the least to the most severe.
SEVERITIES: tuple[Severity, ...] = ("Info", "Warning", "Critical")


class FindingId(StrEnum):
    """The ids, as they stand in reports and policies."""

    FILE_CHANGED = "file.changed"
    FILE_CREATED = "file.created"
    FILE_REMOVED = "file.removed"
    FILE_RENAMED = "file.renamed"
    FILE_ATTRIBUTES = "file.attributes"
    IMPORT_CHANGED = "import.changed"
    BYTECODE_WRITTEN = "bytecode.written"
    BYTECODE_MISMATCH = "bytecode.mismatch"
    TREE_CHANGED = "tree.changed"
    EXEC_FOREIGN = "exec.foreign"
    EXEC_MEMORY = "exec.memory"
    EXEC_DELETED = "exec.deleted"
    MAP_FOREIGN = "map.foreign"
    MAP_MEMORY = "map.memory"
    MAP_DELETED = "map.deleted"
    MAP_WRITABLE = "map.writable"
    ENV_LOADER = "env.loader"
    PROCESS_ENTERED = "process.entered"
    PROCESS_UNRECORDED = "process.unrecorded"
    PROCESS_TRACED = "process.traced"
    PROCESS_STOPPED = "process.stopped"
    PROCESS_MEMORY_OPENED = "process.memory-opened"
    GPU_FOREIGN = "gpu.foreign"
    POD_CHANGED = "pod.changed"
    POD_FOREIGN = "pod.foreign"
    POD_IMAGE = "pod.image"
    POD_EPHEMERAL = "pod.ephemeral"
    ACCESS_BROKE_GLASS = "access.broke-glass"
    POD_DUPLICATE = "pod.duplicate"
    RANK_DIFFERS = "rank.differs"
    POD_KILLED = "pod.killed"
    POD_UNRECORDED = "pod.unrecorded"
    POD_DELETED = "pod.deleted"
    POD_DELETED_BY_REQUESTER = "pod.deleted-by-requester"
    POD_EVICTED = "pod.evicted"
    OBJECT_CHANGED = "object.changed"
    OBJECT_DELETED = "object.deleted"
    NETWORK_OPENED = "network.opened"
    VOLUME_REPLACED = "volume.replaced"
    SECRET_CHANGED = "secret.changed"  # noqa: S105 - a name, no secret
    SECRET_ROTATED = "secret.rotated"  # noqa: S105 - a name, no secret
    CHECKPOINT_REPLACED = "checkpoint.replaced"
    SEAL_BROKEN = "seal.broken"
    WATCH_OVERFLOW = "watch.overflow"
    WATCH_BLIND = "watch.blind"
    WATCH_SILENT = "watch.silent"
    WATCH_MISREPORTED = "watch.misreported"


@dataclass(frozen=True, slots=True)
class FindingKind:
    """What a finding id stands for, in words for who is woken up by it.

    ``evidence`` says what a report carries beside time, place and process; ``remedy`` what to do
    first.
    """

    severity: Severity
    title: str
    meaning: str
    evidence: str
    remedy: str
    references: tuple[str, ...] = ()


_LOOK = "`trainseal drift JOB` shows the process and the person; treat the run's results as void."

FINDINGS: Mapping[FindingId, FindingKind] = {
    FindingId.FILE_CHANGED: FindingKind(
        "Critical",
        "a signed file was changed",
        "A file of the image, of the code or of the config was written while the job runs.",
        "digests of the signed and of the changed file, and how they differ where both are text",
        _LOOK,
        ("T1554", "T1565.001"),
    ),
    FindingId.FILE_CREATED: FindingKind(
        "Warning",
        "a file was created beside the signed ones",
        "A file that the image does not have was made outside the writable mounts.",
        "digest and size of the file",
        "Give the job a scratch mount for its files, or except the path in the policy.",
        ("T1105",),
    ),
    FindingId.FILE_REMOVED: FindingKind(
        "Critical",
        "a signed file was removed",
        "A file of the image, of the code or of the config was deleted or moved away.",
        "name of the file",
        _LOOK,
        ("T1485",),
    ),
    FindingId.FILE_RENAMED: FindingKind(
        "Critical",
        "a file was moved, linked or mounted to where signed files are",
        "A name among the signed files now leads to a file that was written elsewhere: it was "
        "moved or linked there, or something was mounted over it on the node.",
        "digest of what the name leads to, and what was mounted",
        _LOOK,
        ("T1036.005", "T1574"),
    ),
    FindingId.FILE_ATTRIBUTES: FindingKind(
        "Warning",
        "a signed file's owner, mode or times were changed",
        "The file's content is as signed; who may write or run it is not.",
        "mode, owner and times",
        _LOOK,
        ("T1222.002", "T1070.006"),
    ),
    FindingId.IMPORT_CHANGED: FindingKind(
        "Critical",
        "what a process imports or preloads was changed",
        "A file was made or written that a process takes code from when it starts or imports: a "
        "module, a `.pth` file, `sitecustomize`, a shared object, `/etc/ld.so.preload`, "
        "`/etc/nccl.conf`.",
        "digest of the file, and its text where it is short",
        _LOOK,
        ("T1574.006", "T1546.018"),
    ),
    FindingId.BYTECODE_WRITTEN: FindingKind(
        "Info",
        "a byte code cache was written",
        "Python wrote a `.pyc` file beside a signed source; its header matches the source.",
        "name of the source",
        "Build the image with compiled modules, or set PYTHONDONTWRITEBYTECODE in the job.",
    ),
    FindingId.BYTECODE_MISMATCH: FindingKind(
        "Critical",
        "byte code without its source",
        "A `.pyc` file was written whose source is missing, or whose code is not what the source "
        "compiles to: Python would run it instead of the source.",
        "digests of the byte code and of the source",
        _LOOK,
        ("T1574",),
    ),
    FindingId.TREE_CHANGED: FindingKind(
        "Critical",
        "a signed tree is not as its manifest says",
        "Reading a code or config mount again found a file that is changed, missing or not listed.",
        "digest found and digest signed",
        _LOOK,
        ("T1565.001", "T1554"),
    ),
    FindingId.EXEC_FOREIGN: FindingKind(
        "Critical",
        "a program ran that is not of the image",
        "The executable, or the program's text that an interpreter runs, was written after the "
        "container started, or lies in a writable mount.",
        "digest of the file and the command line; of a text the interpreter",
        _LOOK,
        ("T1105", "T1204", "T1059.006"),
    ),
    FindingId.EXEC_MEMORY: FindingKind(
        "Critical",
        "a program ran from memory",
        "The executable is an anonymous file in memory (memfd): it never was in a file system.",
        "name of the memory file and the command line",
        _LOOK,
        ("T1620",),
    ),
    FindingId.EXEC_DELETED: FindingKind(
        "Critical",
        "a program runs whose file is deleted",
        "The executable was removed, or replaced, after the process started.",
        "the path it had and the command line",
        _LOOK,
        ("T1070.004",),
    ),
    FindingId.MAP_FOREIGN: FindingKind(
        "Critical",
        "a process runs code that is not of the image",
        "An executable mapping comes from a file that was written after the container started, or "
        "from a writable mount.",
        "path and digest of the mapped file",
        _LOOK,
        ("T1574.006", "T1129"),
    ),
    FindingId.MAP_MEMORY: FindingKind(
        "Critical",
        "a process runs code from memory",
        "An executable mapping comes from an anonymous file in memory (memfd).",
        "name of the memory file",
        _LOOK,
        ("T1620",),
    ),
    FindingId.MAP_DELETED: FindingKind(
        "Warning",
        "a process runs code whose file is deleted",
        "The file behind an executable mapping was removed or replaced after it was loaded.",
        "the path it had",
        _LOOK,
        ("T1070.004",),
    ),
    FindingId.MAP_WRITABLE: FindingKind(
        "Critical",
        "a signed file is mapped for writing",
        "A process holds a shared writable mapping of a signed file: it can change it without a "
        "write that could be seen.",
        "path of the file, and its digest now",
        _LOOK,
        ("T1055", "T1565.001"),
    ),
    FindingId.ENV_LOADER: FindingKind(
        "Critical",
        "a variable that loads code differs from the seal",
        "A process has a variable such as `LD_PRELOAD` or `PYTHONPATH` that the sealed container "
        "does not have, or with another value.",
        "name and value of the variable, and the sealed value",
        _LOOK,
        ("T1574.006",),
    ),
    FindingId.PROCESS_ENTERED: FindingKind(
        "Info",
        "a process entered the pod by exec",
        "It does not descend from the container's first process; an access record names who "
        "opened it.",
        "name of the access record",
        "Look at what else the session did.",
        ("T1609",),
    ),
    FindingId.PROCESS_UNRECORDED: FindingKind(
        "Critical",
        "a process entered the pod past the API server",
        "It does not descend from the container's first process, and no access record explains "
        "it: it came from the node (nsenter, the container runtime's own tools).",
        "the process and its parents",
        "Find out who was on the node: its logins and its audit log have the person.",
        ("T1611", "T1609"),
    ),
    FindingId.PROCESS_TRACED: FindingKind(
        "Critical",
        "a process is being traced",
        "A debugger or injector is attached to a process of the pod (ptrace).",
        "the tracer",
        _LOOK,
        ("T1055.008",),
    ),
    FindingId.PROCESS_STOPPED: FindingKind(
        "Warning",
        "a process of the trainer is stopped",
        "A signal stopped it (SIGSTOP), and it stood still in two sweeps: the training waits for "
        "it. Who was in the pod just then is named, by time alone; a signal may also come from the "
        "node, or from the trainer itself.",
        "the process, and since when it stands still at the latest",
        "`kill -CONT` lets it go on; `trainseal drift JOB` shows who was in the pod.",
        ("T1489",),
    ),
    FindingId.PROCESS_MEMORY_OPENED: FindingKind(
        "Critical",
        "a process's memory is open for writing",
        "Another process holds `/proc/PID/mem` of a process of the pod, or had it open, if only "
        "for a moment.",
        "the process that holds it, or did",
        _LOOK,
        ("T1055.009",),
    ),
    FindingId.GPU_FOREIGN: FindingKind(
        "Warning",
        "somebody else's process uses the pod's GPU",
        "A process that belongs to no sealed pod runs on a GPU that the pod computes on: somebody "
        "takes the GPU's time and memory, or works beside the training on purpose.",
        "GPU, process and the pod that it belongs to",
        "Stop it, and find out who started it; except by its program what belongs there, such as "
        "the server of CUDA's multi-process service.",
        ("T1496",),
    ),
    FindingId.POD_CHANGED: FindingKind(
        "Critical",
        "a pod is not what its seal says",
        "The live pod's containers, environment, mounts or volumes, or what ties it to its run, "
        "differ from the sealed ones: it was admitted or changed past the webhook. Processor and "
        "memory that a resize on record was let change do not count.",
        "the fields, what was found and what the seal says",
        "Treat the run's results as void. `trainseal doctor` tells whether the webhook is in "
        "order; the API server's audit log has the person.",
        ("T1610", "T1562.001"),
    ),
    FindingId.POD_FOREIGN: FindingKind(
        "Critical",
        "a pod passes itself off as one of the run's",
        "It bears the run's label, by which the Service and the NetworkPolicy select, and none of "
        "the run's Jobs controls it.",
        "the pod, its node and its owner",
        "Delete the pod; the API server's audit log has who made it.",
        ("T1036", "T1610"),
    ),
    FindingId.POD_IMAGE: FindingKind(
        "Warning",
        "a container runs an image by a digest that the seal does not have",
        "The kubelet reports an image ID that is neither the sealed index, nor a manifest, nor a "
        "configuration of it. A runtime that holds the same layers under another index reports "
        "that one too: compare the two images.",
        "container, digest found and digests sealed",
        "Compare the image with the sealed one (`crane manifest`), and look at the node's store.",
        ("T1525", "T1610"),
    ),
    FindingId.POD_EPHEMERAL: FindingKind(
        "Critical",
        "a debug container joined a sealed pod",
        "An ephemeral container shares the pod's network and can share its processes, and nobody "
        "signed what it runs. The webhook refuses them unless a policy's access lets them in: else "
        "it was away, or was bypassed.",
        "names and images of the containers",
        _LOOK,
        ("T1609", "T1610"),
    ),
    FindingId.ACCESS_BROKE_GLASS: FindingKind(
        "Warning",
        "somebody got in by breaking the glass",
        "A policy lets nobody in this way without a BreakGlass, and somebody who had one got in. "
        "What they did there is found, or not, like anybody's. It holds no run, and taints it "
        "until somebody else has reviewed it.",
        "the BreakGlass, its reason and who approved it, how often it was used and when last",
        "Ask what was done; then `trainseal break-glass review JOB`.",
        ("T1609",),
    ),
    FindingId.POD_DUPLICATE: FindingKind(
        "Critical",
        "two pods run with one index",
        "More than one live pod has the same place in the run, so that two workers are one rank.",
        "the pods and their nodes",
        "Find out who made the later one; treat the run's results as void.",
        ("T1036", "T1565"),
    ),
    FindingId.RANK_DIFFERS: FindingKind(
        "Warning",
        "one rank differs from its peers",
        "A pod has containers or environment variables that the others of its role do not have, "
        "or lacks some, or runs the image for another platform; or its container has changed "
        "files, code or variables that load code which those of most others do not have, or lacks "
        "theirs. No exception or addition excuses that.",
        "index, pod, node and what differs",
        "Ask who runs the platform whether it changed meanwhile; else look at that node. A cache "
        "of compiled code belongs into a scratch mount, where it is not compared.",
        ("T1480",),
    ),
    FindingId.POD_KILLED: FindingKind(
        "Warning",
        "a worker was killed",
        "A container ended by a signal from outside, and neither memory, eviction, preemption, the "
        "loss of its node, the Job nor TrainSeal explains it. A person is named where only one had "
        "a session in the pod shortly before.",
        "container, exit code, signal, node, sessions, and how many there were within 24 hours",
        "Compare the nodes and times of all of them; look at who was on those nodes.",
        ("T1489",),
    ),
    FindingId.POD_UNRECORDED: FindingKind(
        "Warning",
        "a pod was deleted past the record",
        "A worker's pod was deleted, nothing explains it, and no access record names a person.",
        "pod, node, time, and how many there were within 24 hours",
        "`trainseal doctor` tells whether the webhook is in order; the audit log has the person.",
        ("T1489", "T1562.001"),
    ),
    FindingId.POD_DELETED: FindingKind(
        "Warning",
        "somebody deleted a worker's pod",
        "A person who did not ask for the job deleted one of its pods.",
        "the pod, the person, the access record",
        "Ask them why.",
        ("T1489",),
    ),
    FindingId.POD_DELETED_BY_REQUESTER: FindingKind(
        "Info",
        "the requester deleted a worker's pod",
        "Who asked for the job deleted one of its pods.",
        "the pod, the person, the access record",
        "Nothing, where it was meant.",
    ),
    FindingId.POD_EVICTED: FindingKind(
        "Info",
        "a worker's pod was evicted",
        "Somebody asked for the pod's eviction: a drained node, a rebalanced cluster.",
        "the pod, the person, the access record",
        "Nothing, where the node was drained.",
    ),
    FindingId.OBJECT_CHANGED: FindingKind(
        "Critical",
        "an object of the run was changed",
        "The run's ConfigMap, Service, NetworkPolicy or Job, or a ResourceClaimTemplate that its "
        "pods name, says something else than was sealed.",
        "the object and the fields",
        "Treat what ran since as unprotected by it; the audit log has the person.",
        ("T1565", "T1562.001"),
    ),
    FindingId.OBJECT_DELETED: FindingKind(
        "Warning",
        "an object of the run was deleted",
        "The run's ConfigMap, Service, NetworkPolicy or Job, or the service account or a "
        "ResourceClaimTemplate that its pods name, is gone, or was made anew later.",
        "the object, its UID and when it was made",
        "The audit log has the person.",
        ("T1485", "T1489"),
    ),
    FindingId.NETWORK_OPENED: FindingKind(
        "Critical",
        "somebody opened the run's network",
        "A NetworkPolicy that is not the run's own lets traffic in to its pods, or in quarantine "
        "out: policies add up, and in the rendezvous nobody has to prove who they are. The webhook "
        "refuses one while a run lives; this one was there before, or came past it. That somebody "
        "came in by it is not said.",
        "the policy, its UID, its rules, the pods it chooses, and who made it where that is on "
        "record",
        "Delete it, or let it choose other pods alone: `{key: trainseal.dev/seal, operator: "
        "DoesNotExist}` in its podSelector. Look at what else ran in the namespace meanwhile.",
        ("T1557", "T1562.007"),
    ),
    FindingId.VOLUME_REPLACED: FindingKind(
        "Warning",
        "a volume of the run was replaced",
        "A PersistentVolumeClaim that the run reads or writes was made after the run had started: "
        "what it goes on from is not what it wrote.",
        "the claim, its UID and when it was made",
        "Find out who made it; compare its checkpoints with those of a backup.",
        ("T1565.001",),
    ),
    FindingId.SECRET_CHANGED: FindingKind(
        "Warning",
        "a Secret that the run reads was changed",
        "A Secret that the pods name is not at the version that was sealed, was made anew or is "
        "gone, and no policy says who alone changes it. A pod that is made anew reads what it says "
        "now.",
        "the Secret, its UID and resource version, found and sealed; never what is in it",
        "The API server's audit log has the person. Name in the policy's `pods.secretRotators` who "
        "changes it by trade.",
        ("T1565", "T1552.007"),
    ),
    FindingId.SECRET_ROTATED: FindingKind(
        "Info",
        "a Secret that the run reads was rotated",
        "A Secret that the pods name is not at the version that was sealed. Policies let nobody "
        "but its rotators change what it says.",
        "the Secret, its UID and resource version, found and sealed; who may change it",
        "Nothing, where a rotation was due. The API server's audit log has the person.",
    ),
    FindingId.CHECKPOINT_REPLACED: FindingKind(
        "Warning",
        "a checkpoint is not what the trainer wrote",
        "A file that has a manifest, of this run or of an earlier one on its volume, has other "
        "content now, and no sealed run's trainer wrote it: it was changed from outside the pods, "
        "or by somebody who came into one.",
        "digest of the manifest, digest found, and the manifest's name",
        "Do not go on from it: take an earlier checkpoint, or a backup; find out who can write to "
        "the volume.",
        ("AML.T0018", "T1565.001"),
    ),
    FindingId.SEAL_BROKEN: FindingKind(
        "Critical",
        "the seal is not the operator's any more",
        "The SealedRun of a run with pods was edited or deleted: its signature does not verify.",
        "what the signature check says",
        "No pod is admitted for it any more. The archive has the seal as it was.",
        ("T1562", "T1070"),
    ),
    FindingId.WATCH_OVERFLOW: FindingKind(
        "Critical",
        "events were lost",
        "More happened than the kernel's queue holds. Everything was compared again at once; what "
        "was done and undone meanwhile may have been missed.",
        "where the events came from",
        "Look for what wrote so much, and why just then.",
        ("T1562",),
    ),
    FindingId.WATCH_BLIND: FindingKind(
        "Warning",
        "a part of the watch does not work here",
        "The node's kernel or the pod's form keeps something from being seen.",
        "what is not seen, and why",
        "See the node's status for what it can see; upgrade its kernel.",
        ("T1562.001",),
    ),
    FindingId.WATCH_SILENT: FindingKind(
        "Critical",
        "the node's agent is silent",
        "Nobody watches the pod: the agent of its node has not renewed its Lease for 15 seconds, "
        "and the node's kubelet has.",
        "when it was last heard of",
        "Look at the agent's pod on that node; treat what the job did meanwhile as unwatched.",
        ("T1562.001",),
    ),
    FindingId.WATCH_MISREPORTED: FindingKind(
        "Critical",
        "a report was dropped: its pod runs elsewhere",
        "A DriftReport came from a node that the pod does not run on, or about a pod that is not "
        "of the run. Its findings count for nothing.",
        "the report, the node that wrote it and where the pod runs",
        "Look at the agent of the node that wrote it: its token may be in other hands.",
        ("T1562", "T1036"),
    ),
}
