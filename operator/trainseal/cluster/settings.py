"""What the processes are told by the chart: one ConfigMap, the same for webhook and controller."""

from __future__ import annotations

import fnmatch
from pathlib import Path
from typing import Annotated
from urllib.parse import urlsplit

import yaml
from pydantic import Field, StringConstraints, ValidationError, field_validator

from trainseal.api.model import DnsSubdomain, Model, ShortText, Text, problems_of
from trainseal.api.trainingjob import EngineName
from trainseal.provenance.gpuasks import GpuRules

#: Names of what the controller (and, for the head, the archive) makes in the release's namespace.
SEAL_KEY_SECRET = "trainseal-seal-key"  # noqa: S105 - a name, no secret
TICKET_KEY_SECRET = "trainseal-ticket-key"  # noqa: S105 - a name, no secret
OUTPUT_KEY_SECRET = "trainseal-output-key"  # noqa: S105 - a name, no secret
KEYRING_CONFIG_MAP = "trainseal-keyring"
#: What the chart makes of its values.
CONFIG_MAP = "trainseal-config"
EVIDENCE_HEAD_CONFIG_MAP = "trainseal-evidence-head"
TLS_SECRET = "trainseal-webhook-tls"  # noqa: S105 - a name, no secret

ResourcePattern = Annotated[str, StringConstraints(min_length=1, max_length=253)]


class SettingsError(ValueError):
    """The configuration file is not of its form; the words name file and field."""


class Registries(Model):
    """How registries are spoken to."""

    plain_http: list[Text] = Field(
        default_factory=list, alias="plainHTTP", description="Hosts spoken to without TLS."
    )
    ca_file: Text | None = None


class AlertSettings(Model):
    """Who is told of findings."""

    alertmanager_url: Text = Field(
        default="", alias="alertmanagerURL", description="Base URL. Empty: nobody is told."
    )
    token_file: Text | None = None

    @field_validator("alertmanager_url")
    @classmethod
    def _http(cls, url: str) -> str:
        if url and not (url.startswith(("http://", "https://")) and urlsplit(url).hostname):
            raise ValueError("an http or https URL with a host")
        return url


class AgentSettings(Model):
    """The node agents. Where they are enabled, their silence is a finding."""

    enabled: bool = False


class OtherEngine(Model):
    """An engine of others."""

    enabled: bool = False
    controller: ShortText = ""
    """Who makes of its objects what owns pods."""


class Engines(Model):
    """Engines of others, by the kind of their objects."""

    job_set: OtherEngine = Field(default_factory=OtherEngine)
    py_torch_job: OtherEngine = Field(default_factory=OtherEngine)
    train_job: OtherEngine = Field(
        default_factory=OtherEngine, description="Runs by it are made of JobSets, too."
    )

    @property
    def _others(self) -> dict[EngineName, OtherEngine]:
        """The enabled ones."""
        found: dict[EngineName, OtherEngine] = {
            "JobSet": self.job_set,
            "PyTorchJob": self.py_torch_job,
            "TrainJob": self.train_job,
        }
        return {name: engine for name, engine in found.items() if engine.enabled}

    @property
    def enabled(self) -> tuple[EngineName, ...]:
        """What a run may name."""
        return ("Job", *self._others)

    @property
    def controllers(self) -> list[str]:
        """Those of the enabled ones."""
        return [engine.controller for engine in self._others.values()]

    @property
    def pod_makers(self) -> dict[str, str]:
        """Who makes the pods of owners that are no Jobs, by the owners' kind."""
        return {name: e.controller for name, e in self._others.items() if name == "PyTorchJob"}


class FollowedSecrets(Model):
    """Secrets of one namespace whose metadata the controller may ask for."""

    namespace: DnsSubdomain
    names: list[DnsSubdomain]


class Settings(Model):
    """The configuration file."""

    gpu_resources: list[ResourcePattern] = Field(
        default_factory=lambda: [
            "nvidia.com/*",
            "amd.com/*",
            "gpu.intel.com/*",
            "habana.ai/*",
            "aws.amazon.com/neuron*",
            "google.com/tpu",
            "deviceclass.resource.kubernetes.io/*",
        ]
    )
    gpu_runtime_classes: list[DnsSubdomain] = Field(default_factory=list)
    excluded_namespaces: list[DnsSubdomain] = Field(default_factory=lambda: ["kube-system"])
    agent_namespace: DnsSubdomain = Field(
        default="trainseal-agent", description="Namespace of the nodes' agents."
    )
    pod_creators: list[ShortText] = Field(
        default_factory=lambda: [
            "system:serviceaccount:kube-system:job-controller",
            "system:kube-controller-manager",
        ]
    )
    registries: Registries = Field(default_factory=Registries)
    gate_image: Text = ""
    alerts: AlertSettings = Field(default_factory=AlertSettings)
    agents: AgentSettings = Field(default_factory=AgentSettings)
    manage_certificates: bool = Field(
        default=True, description="False where cert-manager keeps the webhook's certificate."
    )
    floor: bool = Field(
        default=False, description="Whether the API server's own rules, the floor, are installed."
    )
    kueue: bool = Field(
        default=False, description="Whether the controller answers Kueue's admission checks."
    )
    job_parents: list[ShortText] = Field(default_factory=list)
    engines: Engines = Field(default_factory=Engines)
    disruptors: list[ShortText] = Field(default_factory=list)
    followed_secrets: list[FollowedSecrets] = Field(default_factory=list)
    documentation_url: Text = Field(
        default="",
        alias="documentationURL",
        description="Where people read these documents. Empty: named as in the repository.",
    )
    webhook_deadline_seconds: float = Field(default=8.0, gt=0, le=25)

    def is_gpu(self, resource: str) -> bool:
        """Whether an extended resource of this name is a GPU, or gives one."""
        return any(fnmatch.fnmatchcase(resource, p) for p in self.gpu_resources)

    @property
    def gpus(self) -> GpuRules:
        """What of a pod asks for a GPU."""
        return GpuRules(self.is_gpu, frozenset(self.gpu_runtime_classes))

    def follows_secret(self, namespace: str, name: str) -> bool:
        """Whether the controller may ask for the metadata of this Secret."""
        return any(f.namespace == namespace and name in f.names for f in self.followed_secrets)


def load_settings(path: Path) -> Settings:
    """Reads the file; raises SettingsError with the field that is wrong."""
    try:
        value = yaml.safe_load(path.read_text())
        return Settings.model_validate(value or {})
    except (OSError, yaml.YAMLError) as error:
        raise SettingsError(f"{path}: {error}") from None
    except ValidationError as error:
        words = "; ".join(str(p) for p in problems_of(error))
        raise SettingsError(f"{path}: {words}") from None
