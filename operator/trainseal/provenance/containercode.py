"""What a container of a signed template would run that nobody signed; one part of ``podrules``.

Its variables, working directory, commands, and the file that the kubelet mounts for its last
message: all as the kubelet expands them and as a shell reads them. Words, not processes: what a
signed script computes is signed.
"""

from __future__ import annotations

import re
from collections.abc import Generator, Iterator, Mapping

from pydantic import JsonValue

from trainseal.provenance.codewords import CodeWords
from trainseal.provenance.commandlines import finds_code, loads_code
from trainseal.provenance.differences import Json, mapping
from trainseal.provenance.downward import FIELDS, signed_value
from trainseal.provenance.expansion import UNSIGNED, ExpandsTooFarError, expand
from trainseal.provenance.places import resolve, within
from trainseal.provenance.refusals import Refusal, TemplateContext
from trainseal.provenance.scriptwords import script_words
from trainseal.provenance.shellscript import TooInvolvedError
from trainseal.provenance.surroundings import Budget, Value


def runs_unsigned(
    container: Json, metadata: Json, context: TemplateContext, budget: Budget, path: str
) -> Iterator[Refusal]:
    """Every refusal of what a container runs; ``metadata`` is that of its template."""
    yield from _termination_message(container.get("terminationMessagePath"), context, path)
    yield from _working_directory(container, context, path)
    try:
        variables = yield from _environment(container, metadata, context, budget, f"{path}.env")
        for place, argv, is_whole in _commands(container):
            values = [Value(_expanded(word, variables, budget)) for word in argv]
            reader = _reader(variables, container, budget)
            found = reader.argv(values) if is_whole else reader.arguments(values)
            yield from _runs(found, context, f"{path}.{place}")
    except (ExpandsTooFarError, TooInvolvedError) as error:
        yield Refusal(
            "CommandTooInvolved",
            path,
            f"a command or a variable that cannot be read: {error}",
            "put it into a script in a signed code mount",
        )


def _reader(variables: Mapping[str, str], container: Json, budget: Budget) -> CodeWords:
    return CodeWords.in_container(variables, _directory(container), script_words, budget)


def _expanded(text: str, variables: Mapping[str, str], budget: Budget) -> str:
    value = expand(text, variables)
    if value != text:
        budget.spend(len(value))
    return value


def _environment(
    container: Json, metadata: Json, context: TemplateContext, budget: Budget, path: str
) -> Generator[Refusal, None, dict[str, str]]:
    """Judges the variables; returns their values, ``UNSIGNED`` where one is not in what was signed.

    In their order, since a later one may refer to those before it.
    """
    variables: dict[str, str] = {}
    directory = _directory(container)
    env = container.get("env")
    for index, entry in enumerate(env if isinstance(env, list) else ()):
        place = f"{path}[{index}]"
        if not isinstance(entry, Mapping):
            yield Refusal("Malformed", place, "not a variable", "give name and value")
            continue
        name, source, given = str(entry.get("name", "")), entry.get("valueFrom"), entry.get("value")
        value = _expanded(given, variables, budget) if isinstance(given, str) else ""
        yield from _leads_to_code(name, value, context, directory, place)
        if isinstance(source, Mapping):
            yield from _value_source(source, metadata, context, f"{place}.valueFrom", name)
            value = value or _value_from(source, metadata)
        variables[name] = value
    for script_of, script in _shell_variables(variables):
        found = script_words(_reader(variables, container, budget), Value(script))
        yield from _runs(found, context, f"{path}[{script_of}]")
    return variables


def _leads_to_code(
    name: str, value: str, context: TemplateContext, directory: str, path: str
) -> Iterator[Refusal]:
    """A variable that loads code from a place that others write to, or from one not signed."""
    loads = loads_code(name)
    if not loads and not finds_code(name):
        return
    if UNSIGNED in value:
        yield _unsigned(path, f"{name} is made of a value that comes from a Secret")
        return
    # A cache in a directory of the pod's own holds what the pod itself put there.
    places = context.writable if loads else context.kept
    inside = next((p for p in _parts(value) if within(p, places, directory)), None)
    if inside is not None:
        yield Refusal(
            "WritableCode",
            path,
            f"{name} names {inside}, in a writable mount",
            "code comes from code mounts or the image",
        )


def _parts(value: str) -> Iterator[str]:
    """The places in a list of them, or of options; what a loader expands counts as the root."""
    for part in filter(None, re.split(r"[:;, =]", value)):
        yield re.sub(r"^\$(\{[A-Z]+\}|[A-Z]+)", "/", part)
        if part.startswith("-") and "/" in part:
            yield part[part.index("/") :]


def _shell_variables(variables: Mapping[str, str]) -> Iterator[tuple[str, str]]:
    """Variables that shells take for a script of theirs, wherever they stand among the others."""
    for name, value in variables.items():
        if name in ("BASH_ENV", "ENV") and "$" in value:
            yield name, f". {value}"
        elif name.startswith("BASH_FUNC_"):  # a function, defined when a shell starts
            yield name, value


def _value_source(
    source: Json, metadata: Json, context: TemplateContext, path: str, name: str
) -> Iterator[Refusal]:
    code = loads_code(name) or finds_code(name)
    for kind, reference in source.items():
        place = f"{path}.{kind}"
        if kind == "fieldRef":
            field = _field_path(reference)
            if code or signed_value(field, metadata) is None:
                yield _unsigned_field(place, name, field, code=code)
        elif kind == "resourceFieldRef":
            if code:
                yield _unsigned_field(place, name, "its resources", code=True)
        elif kind == "secretKeyRef":
            secret = mapping(reference).get("name")
            listed = isinstance(secret, str) and secret in context.allowed_secrets
            if code or not listed:
                yield Refusal(
                    "SecretNotListed",
                    place,
                    f"Secret {secret!r} for variable {name}",
                    "the policy's pods.allowedSecrets must list it, for a variable that loads no "
                    "code",
                )
        else:
            yield Refusal(
                "UnsignedEnvironment",
                place,
                f"the value of {name} is not in what was signed",
                "write the value itself, or put it into the config's parameters",
            )


def _unsigned_field(path: str, name: str, field: str, *, code: bool) -> Refusal:
    if code:
        return Refusal(
            "UnsignedEnvironment",
            path,
            f"{name}, which decides what code is loaded, takes its value from {field}",
            "write the value itself",
        )
    return Refusal(
        "UnsignedEnvironment",
        path,
        f"{name} takes its value from {field}, which can be written after signing",
        f"use one of {', '.join(FIELDS)}, a label or annotation of this template's own metadata, "
        "or the job's completion index",
    )


def _value_from(source: Json, metadata: Json) -> str:
    """A value of the form that the source's has; ``UNSIGNED`` where it can be anything."""
    if "fieldRef" in source:
        value = signed_value(_field_path(source["fieldRef"]), metadata)
        return UNSIGNED if value is None else value
    return "0" if "resourceFieldRef" in source else UNSIGNED


def _field_path(reference: JsonValue) -> str:
    return str(mapping(reference).get("fieldPath") or "")


def _directory(container: Json) -> str:
    directory = container.get("workingDir")
    return directory if isinstance(directory, str) and directory else "/"


def _working_directory(container: Json, context: TemplateContext, path: str) -> Iterator[Refusal]:
    directory = _directory(container)
    if within(directory, context.writable):
        # Python and shells look for code in the directory they start in.
        yield Refusal(
            "WritableCode",
            f"{path}.workingDir",
            f"{directory} is in a writable mount",
            "start in a code mount or a directory of the image",
        )


def _termination_message(
    place: JsonValue, context: TemplateContext, path: str
) -> Iterator[Refusal]:
    """The kubelet mounts a file there, over whatever the image or a mount has."""
    if not isinstance(place, str) or not place:
        return
    found = resolve(place)
    if not found.startswith("/dev/") or within(found, context.mounts):
        yield Refusal(
            "TerminationMessagePath",
            f"{path}.terminationMessagePath",
            f"{place}: a file that the container writes is mounted there",
            "leave it out; its default is /dev/termination-log",
        )


def _commands(container: Json) -> Iterator[tuple[str, list[str], bool]]:
    """Each command with its place; whether it is whole, or the arguments of the image's own."""
    command, args = container.get("command"), container.get("args")
    argv = [str(a) for part in (command, args) if isinstance(part, list) for a in part]
    if argv:
        is_whole = isinstance(command, list) and bool(command)
        yield "command" if is_whole else "args", argv, is_whole
    for hook in ("livenessProbe", "readinessProbe", "startupProbe"):
        yield from _exec_action(container.get(hook), hook)
    lifecycle = container.get("lifecycle")
    if isinstance(lifecycle, Mapping):
        for hook in ("postStart", "preStop"):
            yield from _exec_action(lifecycle.get(hook), f"lifecycle.{hook}")


def _exec_action(handler: JsonValue, place: str) -> Iterator[tuple[str, list[str], bool]]:
    action = handler.get("exec") if isinstance(handler, Mapping) else None
    command = action.get("command") if isinstance(action, Mapping) else None
    if isinstance(command, list):
        yield f"{place}.exec.command", [str(a) for a in command], True


def _runs(found: Iterator[str], context: TemplateContext, path: str) -> Iterator[Refusal]:
    """The first of the places a command runs code from that makes it one nobody may sign."""
    for place in found:
        if UNSIGNED in place:
            yield _unsigned(path, "what it runs comes from a Secret")
            return
        if within(place, context.writable):
            yield Refusal(
                "WritableCode",
                path,
                f"runs {place}, in a writable mount",
                "whoever can write there decides what runs; put the file into a signed code mount",
            )
            return


def _unsigned(path: str, found: str) -> Refusal:
    return Refusal(
        "UnsignedCode",
        path,
        f"{found}, and is not in what was signed",
        "write it out; hand a Secret to the signed code as a variable, not within a command",
    )
