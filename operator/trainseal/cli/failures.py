"""What went wrong, in words, and with which exit code: for every command, in one place.

0 done, or verified. 1 refuted: the answer was read, and it is no. 2 undetermined: a registry or
the cluster could not be read. 64 (EX_USAGE) wrong use: options, files, manifests, keys. 130
interrupted.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence

import typer

DONE = 0
REFUTED = 1
UNDETERMINED = 2
USAGE = 64
INTERRUPTED = 130


class Failure(Exception):  # noqa: N818 - what a person reads, not what a program catches
    """A command that ends here: what was found, what was expected, what to do."""

    def __init__(
        self, found: str, *, expected: str = "", remedy: str = "", code: int = USAGE
    ) -> None:
        self.found = found
        self.expected = expected
        self.remedy = remedy
        self.code = code
        super().__init__(found)

    def __str__(self) -> str:
        lines = [f"error: {self.found}"]
        if self.expected:
            lines.append(f"  expected: {self.expected}")
        if self.remedy:
            lines.append(f"  to do: {self.remedy}")
        return "\n".join(lines)


def run(
    app: typer.Typer, arguments: Sequence[str] | None = None, program: str = "trainseal"
) -> int:
    """Runs one command line and gives its exit code; says on stderr what went wrong."""
    try:
        # typer's own exit code for a wrong option is 2, which is "undetermined" here.
        result = app(arguments, prog_name=program, standalone_mode=False)
        if result == INTERRUPTED:  # typer has caught it already
            print("interrupted", file=sys.stderr)  # noqa: T201
        return result if isinstance(result, int) else DONE
    except typer.TyperException as error:
        if type(error).__name__ != "NoArgsIsHelpError":  # the help is its message, and printed
            context = getattr(error, "ctx", None)
            usage = f"{context.get_usage()}\n" if context is not None else ""
            print(f"{usage}error: {error.format_message()}", file=sys.stderr)  # noqa: T201
        return USAGE
    except (typer.Abort, KeyboardInterrupt):
        print("interrupted", file=sys.stderr)  # noqa: T201
        return INTERRUPTED
    except BrokenPipeError:
        sys.stderr.close()  # the reader of our output left; nothing more can be said
        return DONE
    except Exception as error:
        failure = explain(error)
        if failure is None:
            raise
        print(failure, file=sys.stderr)  # noqa: T201
        return failure.code


def explain(error: Exception) -> Failure | None:
    """The words for an error of any part; None for one that is a defect of this program."""
    if isinstance(error, Failure):
        return error
    return _of_files(error) or _of_registries(error) or _of_settings(error) or _of_clusters(error)


def _of_files(error: Exception) -> Failure | None:
    from trainseal.provenance.document import ManifestError
    from trainseal.provenance.keys import KeyFormatError, KeyPasswordError
    from trainseal.provenance.manifests import ManifestError as TreeManifestError
    from trainseal.registry.tree_files import TreeFilesError

    if isinstance(error, ManifestError):
        return Failure(
            f"{error.place}: found {error.found}", expected=error.expected, remedy=error.remedy
        )
    if isinstance(error, KeyPasswordError):
        return Failure(
            str(error),
            remedy="type the password, or set TRAINSEAL_KEY_PASSWORD or COSIGN_PASSWORD",
        )
    if isinstance(error, KeyFormatError | TreeManifestError | TreeFilesError):
        return Failure(str(error))
    if isinstance(error, OSError) and error.filename is not None:
        return Failure(f"{error.filename}: {error.strerror}")
    return None


def _of_registries(error: Exception) -> Failure | None:
    from trainseal.provenance.verdicts import Outcome
    from trainseal.registry.credentials import InvalidCredentials
    from trainseal.registry.errors import RegistryError
    from trainseal.registry.references import InvalidReference

    if isinstance(error, RegistryError):
        remedy = error.remedy
        if "ssl" in error.found.lower() or "tls" in error.found.lower():
            remedy = f"{remedy}; a registry without TLS: --plain-http HOST".removeprefix("; ")
        return Failure(
            f"{error.subject}: {error.found}",
            expected=error.expected,
            remedy=remedy,
            code=REFUTED if error.outcome is Outcome.REFUTED else UNDETERMINED,
        )
    if isinstance(error, InvalidReference | InvalidCredentials):
        return Failure(str(error))
    return None


def _of_settings(error: Exception) -> Failure | None:
    from trainseal.cluster.settings import SettingsError

    return Failure(str(error)) if isinstance(error, SettingsError) else None


def _of_clusters(error: Exception) -> Failure | None:
    # Not loaded, not raised: the client library is slow to import.
    if "trainseal.cluster.api" not in sys.modules:
        return None
    from kubernetes.aio.config import ConfigException

    from trainseal.cluster.api import KubeError

    if isinstance(error, ConfigException):
        return Failure(
            f"no cluster to talk to: {error}",
            expected="a kubeconfig, as kubectl finds it",
            remedy="set KUBECONFIG, or give --kubeconfig FILE",
        )
    if not isinstance(error, KubeError):
        return None
    if error.status == 0:
        return Failure(
            f"the cluster's API server did not answer: {error.message}",
            remedy="look whether `kubectl version` gets an answer",
            code=UNDETERMINED,
        )
    if error.status == 401:
        return Failure(
            f"the API server does not know you: {error.message}",
            remedy="sign in to the cluster again",
            code=UNDETERMINED,
        )
    return Failure(_of_webhook(error.message or error.reason), code=REFUTED)


def _of_webhook(message: str) -> str:
    """A denial as its webhook wrote it, one artifact a line."""
    name, found, words = message.partition(" denied the request: ")
    return f"{name} denied the request:\n{words}" if found else message
