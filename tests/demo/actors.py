"""The people of the demo: what they type is shown, run as it stands, and checked."""

from __future__ import annotations

import subprocess
import threading
from collections.abc import Iterator, Mapping, MutableMapping
from dataclasses import dataclass, field
from pathlib import Path

from tests.cluster import ClusterError
from tests.demo.show import Show


class DemoError(ClusterError):
    """Something did not go as the demo promises."""


@dataclass(frozen=True, slots=True)
class Actor:
    """Somebody at a shell: a folder, a kubeconfig, the tools on the PATH.

    ``variables`` are the team's: what one exports, all have.
    """

    name: str
    folder: Path
    environment: Mapping[str, str] = field(repr=False)
    variables: MutableMapping[str, str]
    show: Show

    def export(self, **variables: str) -> None:
        """Sets variables for the commands to come."""
        for name, value in variables.items():
            self.show.command(self.name, f"export {name}={value}")
        self.variables.update(variables)

    def run(self, command: str, *, said: bool = True, status: int = 0, seconds: float = 120) -> str:
        """Runs a command that must end with ``status``; returns its standard output.

        ``said`` False: the answer is not shown. Raises DemoError.
        """
        result = self._run(command, seconds)
        if result.returncode != status:
            raise DemoError(
                f"`{command}` ended with {result.returncode}",
                expected=str(status),
                detail=(result.stderr + result.stdout)[-4000:],
            )
        if said:
            # Tools tell a person on standard error what they print nowhere else.
            self.show.answer(result.stderr + result.stdout)
        return result.stdout

    def refused(self, command: str, *words: str, seconds: float = 60) -> None:
        """Runs a command that the cluster must refuse, in an answer that has these words."""
        result = self._run(command, seconds)
        self.show.answer(result.stderr + result.stdout, "red")
        if result.returncode == 0:
            raise DemoError(
                f"`{command}` was accepted",
                expected="a refusal: what it asks for is not signed as the policy wants",
            )
        answer = " ".join(result.stderr.split())
        if missing := [word for word in words if word not in answer]:
            raise DemoError(
                f"`{command}` was refused for another reason",
                expected=f"a refusal that says {', '.join(map(repr, missing))}",
                detail=result.stderr,
            )

    def follow(self, command: str, *, seconds: float) -> Iterator[str]:
        """Runs a command that prints as it goes; shows and yields each line."""
        self.show.command(self.name, command)
        with subprocess.Popen(
            _shell(command),
            cwd=self.folder,
            env={**self.environment, **self.variables},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            errors="replace",
        ) as process:
            assert process.stdout is not None
            watchdog = threading.Timer(seconds, process.kill)
            watchdog.start()
            try:
                for line in process.stdout:
                    self.show.answer(line)
                    yield line.rstrip("\n")
                ended = process.wait()
            except BaseException:
                process.kill()
                raise
            finally:
                watchdog.cancel()
        if ended:
            late = f"had no end after {seconds:.0f} s" if ended < 0 else f"ended with {ended}"
            raise DemoError(f"`{command}` {late}", expected="success")

    def look(self, command: str, seconds: float = 30) -> str:
        """Runs a command without showing it; returns what it prints, errors included."""
        result = self._silently(command, seconds)
        return result.stdout + result.stderr

    def _run(self, command: str, seconds: float) -> subprocess.CompletedProcess[str]:
        self.show.command(self.name, command)
        with self.show.working(f"{command.split()[0]} …"):
            return self._silently(command, seconds)

    def _silently(self, command: str, seconds: float) -> subprocess.CompletedProcess[str]:
        try:
            return subprocess.run(
                _shell(command),
                cwd=self.folder,
                env={**self.environment, **self.variables},
                stdin=subprocess.DEVNULL,
                capture_output=True,
                text=True,
                errors="replace",
                check=False,
                timeout=seconds,
            )
        except subprocess.TimeoutExpired:
            raise DemoError(
                f"`{command}` had no end after {seconds:.0f} s", expected="an answer"
            ) from None


def _shell(command: str) -> list[str]:
    return ["bash", "--noprofile", "--norc", "-euo", "pipefail", "-c", command]
