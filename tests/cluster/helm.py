"""Helm, 3 and 4: the same words, but for what only one of them knows."""

import os
import re
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from tests.cluster.errors import CommandFailed
from tests.cluster.shell import run

WAIT_S = 420.0


@dataclass(frozen=True, slots=True)
class Helm:
    """One helm program. `major`: 3 or 4."""

    program: str
    major: int
    version: str

    async def __call__(self, *words: str, timeout_s: float = WAIT_S) -> str:
        """Run helm. Raises CommandFailed."""
        return await run(self.program, *words, timeout_s=timeout_s)

    async def install(
        self, release: str, namespace: str, chart: Path, values: Sequence[Path],
        *, wait_s: float = WAIT_S,
    ) -> None:  # fmt: skip
        """Install from nothing and wait until everything is ready. Raises CommandFailed."""
        await self(
            "install", release, str(chart), "--namespace", namespace, "--create-namespace", "--wait",
            f"--timeout={wait_s:.0f}s", *_files(values), timeout_s=wait_s + 20,
        )  # fmt: skip

    async def upgrade(
        self, release: str, namespace: str, chart: Path, values: Sequence[Path], *, wait_s: float = WAIT_S
    ) -> None:  # fmt: skip
        """Upgrade and wait until everything is ready. Raises CommandFailed."""
        await self(
            "upgrade", release, str(chart), "--namespace", namespace, "--wait", f"--timeout={wait_s:.0f}s",
            *_files(values), timeout_s=wait_s + 20,
        )  # fmt: skip

    async def test(self, release: str, namespace: str, *, timeout_s: float = 180.0) -> str:
        """Run the release's tests; return their words. Raises CommandFailed when one fails."""
        words = ("test", release, "--namespace", namespace)
        return await self(*words, f"--timeout={timeout_s:.0f}s", timeout_s=timeout_s + 20)

    async def uninstall(self, release: str, namespace: str, *, timeout_s: float = 180.0) -> None:
        """Uninstall; pods take their own time to go. Raises CommandFailed."""
        words = ("uninstall", release, "--namespace", namespace, "--ignore-not-found")
        await self(*words, f"--timeout={timeout_s:.0f}s", timeout_s=timeout_s + 20)


def _files(values: Sequence[Path]) -> list[str]:
    return [f"--values={path}" for path in values]


async def find_helms() -> list[Helm]:
    """Return one program of each major version, the older first: HELM3, HELM4, `helm` on PATH, Go's folder.

    Raises:
        CommandFailed: there is none.
    """
    go = Path(
        os.environ.get("GOBIN") or Path(os.environ.get("GOPATH") or Path.home() / "go", "bin")
    )
    candidates = [
        os.environ.get("HELM3"),
        os.environ.get("HELM4"),
        shutil.which("helm"),
        str(go / "helm"),
    ]
    found: dict[int, Helm] = {}
    for program in filter(None, candidates):
        if shutil.which(program) is None:
            continue
        version = (await run(program, "version", "--short")).strip()
        major = major_of(version)
        if major is not None:
            found.setdefault(major, Helm(program, major, version))
    if not found:
        raise CommandFailed("no helm: put one on PATH, or name it in HELM3 or HELM4")
    return [found[major] for major in sorted(found)]


def major_of(version: str) -> int | None:
    """Read the major version out of `helm version --short`; None when that is not what it is."""
    match = re.match(r"v(\d+)\.", version)
    return int(match[1]) if match else None
