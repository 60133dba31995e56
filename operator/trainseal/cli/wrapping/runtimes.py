"""The runtime of a TrainJob as the cluster has it."""

from __future__ import annotations

from trainseal.api.model import JsonObject
from trainseal.cli.failures import UNDETERMINED
from trainseal.cli.wrapping.fields import Field, field_of
from trainseal.cli.wrapping.trainjob import runtime_of
from trainseal.cli.wrapping.wrap import RUNTIME_VERSION, RUNTIMES, missing_runtime
from trainseal.provenance.document import Document, Position


async def from_cluster(
    workload: Field, namespace: str, kubeconfig: str | None, context: str | None
) -> Field:
    """What the cluster has under the name. Raises Failure, also where there is no cluster."""
    from kubernetes.aio.config import ConfigException

    from trainseal.cluster.api import KubeError, NotFoundError, connect, path_of

    kind, name = runtime_of(workload)
    if kind not in RUNTIMES:
        raise missing_runtime(workload, f"{kind} is no kind of runtime")
    plural = f"{kind.lower()}s"
    try:
        async with connect(kubeconfig, context) as kube:
            place = namespace if kind == "TrainingRuntime" else None
            found = await kube.get(path_of(RUNTIME_VERSION, plural, place, name))
    except ConfigException as error:
        raise missing_runtime(workload, f"and there is no cluster to ask ({error})") from None
    except NotFoundError:
        raise missing_runtime(workload, "nor in the cluster") from None
    except KubeError as error:
        why = f"the cluster did not give it: {error.message or error.reason}"
        raise missing_runtime(workload, why, UNDETERMINED) from None
    value: JsonObject = {**found, "apiVersion": RUNTIME_VERSION, "kind": kind}
    return field_of(Document(value, f"the cluster's {kind} {name}", Position(0, 0)))
