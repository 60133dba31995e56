"""A job made from a signed template: what the template leaves open is filled in. Pure.

Laws, each tested:

* what a template does not leave open is in the made job as it was signed, byte for byte;
* parameters reach the trainer through the config alone: nothing is put into a command, a variable
  or any other string;
* a value that makes configuration into code cannot be given: names such as ``_target_`` are no
  parameter's path, and a string is one of a closed list or a mere name.

A template is judged whole each time: nobody need have looked when it was made.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from pydantic import JsonValue

from trainseal.api.model import JsonObject, json_object, json_objects
from trainseal.api.trainingjob import ReplicaRange, SubmittedJob
from trainseal.api.trainingtemplate import CodeChoice, Parameter, TrainingTemplate
from trainseal.provenance.canonical import KIND
from trainseal.provenance.document import MAX_SAFE_INTEGER

Json = Mapping[str, JsonValue]
#: Where Hydra looks for what to do, rather than for values.
_STEERS = frozenset({"hydra", "defaults"})
#: A string without a list of values: nothing that a loader, a shell or a path would act on.
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")
#: A number or truth value as text, by the grammar of JSON (RFC 8259, 3 and 6).
_SCALAR = re.compile(r"true|false|-?(0|[1-9][0-9]*)(\.[0-9]+)?([eE][+-]?[0-9]+)?")
_LONGEST_SCALAR = 64
_BY_DIGEST = re.compile(r"(?P<repository>[^@]+)@sha256:[0-9a-f]{64}")


@dataclass(frozen=True, slots=True)
class StoredTemplate:
    """A TrainingTemplate as the cluster has it; None where there is none of that name.

    ``why`` says why it could not be read; then nothing is known of it.
    """

    manifest: Json | None
    why: str = ""


@dataclass(frozen=True, slots=True)
class Fault:
    """Why a template, or a job of it, is refused. ``place`` is the field's path."""

    reason: str
    place: str
    found: str
    wanted: str
    remedy: str


class FaultyLaunchError(ValueError):
    """No job can be made; carries every reason."""

    def __init__(self, faults: Sequence[Fault]) -> None:
        self.faults = tuple(faults)
        super().__init__("; ".join(f"{f.place}: found {f.found}" for f in faults))


def template_faults(template: TrainingTemplate) -> tuple[Fault, ...]:
    """What makes a template one that no job can be made from."""
    return tuple(_template_faults(template))


def admits(parameter: Parameter, value: JsonValue) -> bool:
    """Whether a run may set the parameter to this."""
    return _beyond(value, parameter) is None


def as_declared(value: JsonValue, parameter: Parameter) -> JsonValue:
    """What a run gives for a parameter: of a number or truth value, also its text.

    Katib puts what it tries into the strings of a trial's manifest, and leaves it text.
    """
    if parameter.type == "string" or not isinstance(value, str):
        return value
    if len(value) > _LONGEST_SCALAR or not _SCALAR.fullmatch(value):
        return value
    read: JsonValue = json.loads(value)
    return read


def made_from(template: Json, job: Json) -> JsonObject:
    """The whole job that a TrainingJob with a ``templateRef`` stands for, as the API server has it.

    ``template`` is the TrainingTemplate of its namespace and name; whether its digest is the one
    that the job names, and whether it is signed, is for the caller. Raises InvalidObjectError,
    FaultyLaunchError.
    """
    read, submitted = TrainingTemplate.parse(template), SubmittedJob.parse(job)
    faults = [*_template_faults(read), *_launch_faults(read, submitted)]
    if faults:
        raise FaultyLaunchError(faults)
    asked = submitted.spec
    # The values as they were sent: a model's are not always written as they were.
    spec = json_object(job.get("spec"))
    made = dict(json_object(json_object(template.get("spec")).get("job")))
    if asked.parameters:
        config = dict(json_object(made.get("config")))
        declared = read.spec.parameters or {}
        given = {
            path: as_declared(value, declared[path])
            for path, value in json_object(spec.get("parameters")).items()
        }
        config["parameters"] = _with(json_object(config.get("parameters")), given)
        made["config"] = config
    if asked.replicas:
        made["roles"] = [
            {**role, "replicas": asked.replicas[name]}
            if (name := str(role.get("name"))) in asked.replicas
            else role
            for role in json_objects(made.get("roles"))
        ]
    if asked.code_references:
        newer = {c.name: c.reference for c in asked.code_references}
        made["code"] = [
            {**mount, "oci": {"reference": newer[name]}}
            if (name := str(mount.get("name"))) in newer
            else mount
            for mount in json_objects(made.get("code"))
        ]
    if "resumeFrom" in spec and read.spec.resume is not None:
        place = {"mountPath": read.spec.resume.mount_path}
        resume = {"from": spec["resumeFrom"], **place}
        made["checkpoints"] = {**json_object(made.get("checkpoints")), "resume": resume}
    made |= {k: spec[k] for k in ("scheduling", "suspend") if k in spec}
    return {
        "apiVersion": job["apiVersion"],
        "kind": KIND,
        "metadata": _with_a_name(json_object(job.get("metadata"))),
        "spec": made,
        **({"status": job["status"]} if "status" in job else {}),
    }


def _with_a_name(metadata: JsonObject) -> JsonObject:
    """Of one that the API server has not named yet, a name of the length that it will have."""
    kept = {k: v for k, v in metadata.items() if k != "generateName"}
    return kept if kept.get("name") else {**kept, "name": f"{metadata.get('generateName')}00000"}


def _with(parameters: JsonObject, given: JsonObject) -> JsonObject:
    made = dict(parameters)
    for path, value in given.items():
        *way, last = path.split(".")
        at = made
        for part in way:
            # A copy of what lies on the way: the template's own stays as it is.
            at[part] = inner = dict(json_object(at.get(part)))
            at = inner
        at[last] = value
    return made


# The template ---------------------------------------------------------------------------------


def _template_faults(template: TrainingTemplate) -> Iterator[Fault]:
    spec, job = template.spec, template.spec.job
    parameters = spec.parameters or {}
    values = job.config.parameters if job.config else {}
    if parameters and job.config is None:
        yield _faulty(
            "spec.parameters", f"{len(parameters)} parameters and no spec.job.config",
            "a config, by which parameters reach the trainer",
        )  # fmt: skip
    for path, parameter in parameters.items():
        place = f"spec.parameters[{path}]"
        own = list(_parameter_faults(place, path, parameter))
        yield from own
        for other in parameters:
            if other.startswith(f"{path}."):
                yield _faulty(place, f"{other} beside it", "no parameter within another")
        default, blocked = _value_at(values, path)
        if blocked:
            yield _faulty(
                f"spec.job.config.parameters.{blocked}", "a value that is no mapping",
                f"a mapping, on the way to {path}",
            )  # fmt: skip
        elif default is not None and not own and (problem := _beyond(default, parameter)):
            yield _faulty(f"spec.job.config.parameters.{path}", *problem)
    sizes = {role.name: role.replicas for role in job.roles}
    for name, bounds in (spec.replicas or {}).items():
        size = sizes.get(name)
        if size is None:
            yield _faulty(
                f"spec.replicas[{name}]", "no role of this name", f"one of {_list(sizes)}"
            )
        elif isinstance(size, ReplicaRange) or not bounds.min <= size <= bounds.max:
            found = f"{size.min} to {size.max}" if isinstance(size, ReplicaRange) else str(size)
            yield _faulty(
                f"spec.job.roles[{name}].replicas", found,
                f"a number from {bounds.min} to {bounds.max}, as spec.replicas says",
            )  # fmt: skip
    if spec.resume is not None and (job.checkpoints is None or job.checkpoints.resume is not None):
        yield _faulty(
            "spec.resume", "no checkpoints in spec.job, or a resume of their own",
            "spec.job.checkpoints, without resume",
        )  # fmt: skip
    mounts = [mount.name for mount in job.code or ()]
    for name in spec.code or {}:
        if name not in mounts:
            yield _faulty(f"spec.code[{name}]", "no code of this name", f"one of {_list(mounts)}")


def _parameter_faults(place: str, path: str, parameter: Parameter) -> Iterator[Fault]:
    if path.split(".")[0] in _STEERS:
        yield _faulty(place, f"a path below {path.split('.')[0]}", "no parameter that steers Hydra")
    numeric, least, most = (
        parameter.type in ("number", "integer"),
        parameter.minimum,
        parameter.maximum,
    )
    if (least is None) != (most is None) or (least is not None and not numeric):
        yield _faulty(place, "one bound, or bounds of no number", "minimum and maximum of a number")
    elif least is not None and most is not None and least > most:
        yield _faulty(place, f"minimum {least:g} above maximum {most:g}", "bounds in order")
    if numeric and parameter.enum is None and least is None:
        yield _faulty(place, "a number without bounds", "minimum and maximum, or enum")
    if parameter.type == "string" and (parameter.enum is None) == (parameter.max_length is None):
        yield _faulty(place, "a string with neither or both", "enum or maxLength")
    if parameter.type != "string" and parameter.max_length is not None:
        yield _faulty(place, "maxLength", "none: it is no string")
    for value in parameter.enum or ():
        if not _is_of(value, parameter.type):
            yield _faulty(f"{place}.enum", _show(value), f"values of type {parameter.type}")
        elif isinstance(value, str) and "${" in value:
            yield _faulty(f"{place}.enum", _show(value), "no interpolation: it is code to a loader")


def _value_at(values: Json, path: str) -> tuple[JsonValue, str]:
    """What is at a path, None where nothing is; and what on the way is no mapping."""
    *way, last = path.split(".")
    at: Json = values
    for depth, part in enumerate(way):
        inner = at.get(part, {})
        if not isinstance(inner, dict):
            return None, ".".join(way[: depth + 1])
        at = inner
    return at.get(last), ""


def _faulty(place: str, found: str, wanted: str) -> Fault:
    return Fault("InvalidTemplate", place, found, wanted, "correct the template and sign it again")


# What a job of it asks for --------------------------------------------------------------------


def _launch_faults(template: TrainingTemplate, job: SubmittedJob) -> Iterator[Fault]:
    asked, name = job.spec, template.metadata.name
    parameters = template.spec.parameters or {}
    for path, value in (asked.parameters or {}).items():
        place = f"spec.parameters[{path}]"
        parameter = parameters.get(path)
        if parameter is None:
            yield Fault(
                "UndeclaredParameter", place, f"a parameter that template {name} does not leave "
                "open", f"one of {_list(parameters)}",
                "leave it out, or have a template signed that leaves it open",
            )  # fmt: skip
        elif problem := _beyond(as_declared(value, parameter), parameter):
            yield _out_of_bounds(place, *problem)
    values = template.spec.job.config.parameters if template.spec.job.config else {}
    for path in parameters:
        if path not in (asked.parameters or {}) and _value_at(values, path)[0] is None:
            yield Fault(
                "ParameterMissing", f"spec.parameters[{path}]", "no value",
                f"one: template {name} has none of its own", "give it",
            )  # fmt: skip
    ranges = template.spec.replicas or {}
    for role, count in (asked.replicas or {}).items():
        place, bounds = f"spec.replicas[{role}]", ranges.get(role)
        if bounds is None:
            yield Fault(
                "UndeclaredReplicas", place, f"a role whose size template {name} does not leave "
                "open", f"one of {_list(ranges)}",
                "leave it out, or have a template signed that leaves it open",
            )  # fmt: skip
        elif not bounds.min <= count <= bounds.max:
            yield _out_of_bounds(place, str(count), f"{bounds.min} to {bounds.max}")
    if asked.resume_from is not None and template.spec.resume is None:
        yield Fault(
            "UndeclaredResume", "spec.resumeFrom", f"run {asked.resume_from.run}",
            f"none: template {name} does not let its runs go on from others",
            "leave it out, or have a template signed with spec.resume",
        )  # fmt: skip
    choices = template.spec.code or {}
    seen: set[str] = set()
    for index, newer in enumerate(asked.code_references or ()):
        place = f"spec.codeReferences[{index}]"
        if newer.name in seen:
            yield _out_of_bounds(place, f"{newer.name} a second time", "each name once")
        seen.add(newer.name)
        yield from _code_faults(place, newer.reference, choices.get(newer.name), name, choices)


def _code_faults(
    place: str,
    reference: str,
    choice: CodeChoice | None,
    name: str,
    choices: Json | Mapping[str, CodeChoice],
) -> Iterator[Fault]:
    if choice is None:
        yield Fault(
            "UndeclaredCode", place, f"code that template {name} does not leave open",
            f"one of {_list(choices)}",
            "leave it out, or have a template signed that leaves it open",
        )  # fmt: skip
        return
    read = _BY_DIGEST.fullmatch(reference)
    if read is None or read["repository"] != choice.repository:
        yield _out_of_bounds(f"{place}.reference", reference, f"{choice.repository}@sha256:…")


def _out_of_bounds(place: str, found: str, wanted: str) -> Fault:
    return Fault(
        "OutOfBounds", place, found, wanted,
        "stay within the template's bounds, or have one signed with others",
    )  # fmt: skip


def _beyond(value: JsonValue, parameter: Parameter) -> tuple[str, str] | None:
    """What was found and what was wanted, where a value is not what a parameter may be."""
    if not _is_of(value, parameter.type):
        return _show(value), _article(parameter.type)
    if parameter.enum is not None and not any(_same(value, one) for one in parameter.enum):
        return _show(value), f"one of {', '.join(map(_show, parameter.enum))}"
    if isinstance(value, str):
        longest = parameter.max_length
        if longest is not None and (len(value) > longest or not _NAME.fullmatch(value)):
            return _show(value), f"a name of at most {longest} characters: letters, digits, . _ -"
    elif parameter.minimum is not None and parameter.maximum is not None:
        assert isinstance(value, int | float)  # noqa: S101 - a bound is a number's
        if not parameter.minimum <= value <= parameter.maximum:
            return _show(value), f"from {parameter.minimum:.12g} to {parameter.maximum:.12g}"
    return None


def _is_of(value: JsonValue, kind: str) -> bool:
    if kind == "boolean" or isinstance(value, bool):
        return kind == "boolean" and isinstance(value, bool)
    if kind == "string":
        return isinstance(value, str)
    if not isinstance(value, int | float) or abs(value) > MAX_SAFE_INTEGER:
        return False
    return kind == "number" or float(value).is_integer()


def _same(one: JsonValue, other: JsonValue) -> bool:
    """Python holds True and 1 for equal."""
    return one == other and isinstance(one, bool) == isinstance(other, bool)


def _article(kind: str) -> str:
    return {"integer": "a whole number", "boolean": "true or false"}.get(kind, f"a {kind}")


def _list(names: Mapping[str, object] | Sequence[str]) -> str:
    return ", ".join(list(names)[:16]) or "none"


def _show(value: object) -> str:
    text = repr(value)
    return text if len(text) <= 60 else text[:57] + "…"
