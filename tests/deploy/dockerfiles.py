"""A Dockerfile as data: its stages, and the instructions of each."""

import json
from pathlib import Path
from typing import NamedTuple

from tests.deploy.locks import ROOT

DOCKERFILE = ROOT / "Dockerfile"


class Instruction(NamedTuple):
    """One instruction: its word in capitals, and the rest with continued lines joined."""

    word: str
    rest: str

    def exec_form(self) -> list[str]:
        """Return the words of an exec form.

        Raises:
            ValueError: it is no JSON list, and a shell would stand between.
        """
        words = json.loads(self.rest)
        if not isinstance(words, list):
            raise ValueError(self.rest)  # noqa: TRY004 - the text is wrong, not its type
        return [str(word) for word in words]


class Stage(NamedTuple):
    """What FROM starts from, the stage's name ("" without one) and its instructions."""

    base: str
    name: str
    instructions: tuple[Instruction, ...]

    def all(self, word: str) -> list[str]:
        """Return what follows each instruction of this word."""
        return [found.rest for found in self.instructions if found.word == word]


def stages(path: Path) -> list[Stage]:
    """Return the stages in order."""
    found: list[Stage] = []
    for word, rest in _instructions(path):
        if word == "FROM":
            base, _, name = rest.partition(" AS ")
            found.append(Stage(base.strip(), name.strip(), ()))
        else:
            stage = found[-1]
            found[-1] = stage._replace(instructions=(*stage.instructions, Instruction(word, rest)))
    return found


def lineage(path: Path, name: str) -> list[Instruction]:
    """Return every instruction a stage's image is made of: those of the stages it stands on first."""
    stage = {stage.name: stage for stage in stages(path)}.get(name)
    if stage is None:
        return []
    return [*lineage(path, stage.base), *stage.instructions]


def last(instructions: list[Instruction], word: str) -> Instruction:
    """Return the instruction of this word that counts."""
    return [found for found in instructions if found.word == word][-1]


def copied(path: Path) -> set[str]:
    """Return the paths that a Dockerfile takes from its folder."""
    taken: set[str] = set()
    for stage in stages(path):
        for rest in stage.all("COPY"):
            words = rest.split()
            if not words[0].startswith("--from="):
                taken.update(word for word in words[:-1] if not word.startswith("--"))
    return taken


def _instructions(path: Path) -> list[Instruction]:
    text = "\n".join(
        line for line in path.read_text(encoding="utf-8").splitlines() if not line.startswith("#")
    )
    found = []
    for line in text.replace("\\\n", " ").splitlines():
        if line.strip():
            word, _, rest = line.strip().partition(" ")
            found.append(Instruction(word.upper(), " ".join(rest.split())))
    return found
