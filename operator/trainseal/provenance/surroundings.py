"""What is known where a command runs, and what was found out on the way; for ``codewords``."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import NamedTuple

from trainseal.provenance.places import resolve
from trainseal.provenance.programs import Language
from trainseal.provenance.shellscript import TooInvolvedError

#: Stand among what a value carries: what an input said, and what a function was called with.
READ, ARGUMENT = "\2", "\3"
_MOST_READ = 256 * 1024
_MOST_DIRECTORIES = 16


class Value(NamedTuple):
    """A word as a program gets it: its text, and what a substitution in it read."""

    text: str
    carried: tuple[str, ...] = ()


@dataclass(slots=True)
class Budget:
    """How much is read of one template's commands: reading them takes the webhook's time."""

    read: int = 0

    def spend(self, characters: int) -> None:
        """Counts what is read. Raises TooInvolvedError."""
        self.read += characters
        if self.read > _MOST_READ:
            raise TooInvolvedError(f"the template's come to more than {_MOST_READ} characters")


@dataclass(slots=True)
class Surroundings:
    """What is known where a command runs, and what was found out on the way.

    ``inputs``: what the commands of a script read; it counts where ``reads`` says that something
    runs what it reads. ``calls``: what functions were called with, counting by ``calls_run``.
    ``reading``: an interpreter that was given nothing but its standard input.
    """

    variables: dict[str, Value]
    directories: list[str]
    budget: Budget
    inputs: list[Value] = field(default_factory=list)
    reads: bool = False
    calls: list[list[Value]] = field(default_factory=list)
    calls_run: bool = False
    reading: Language | None = None
    nested: int = 0

    def take_reading(self) -> Language | None:
        """The interpreter that reads its standard input, once."""
        found, self.reading = self.reading, None
        return found

    def move(self, directory: str) -> None:
        """Relative paths may start there as well from now on."""
        if len(self.directories) < _MOST_DIRECTORIES:
            self.directories.append(resolve(directory, self.directories[-1]))
