"""The three images of a development cluster: built from this tree, and brought to where pods find them.

The tag says what is in them, so that a node never runs what an earlier tree left under the same name.
"""

import hashlib
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.cluster.faults import Faults
from tests.cluster.waiting import Say

ROOT = Path(__file__).resolve().parents[2]
BUILD_S_MAX = 900.0
SERVICES = "kalshi-data"
DATABASE = "kalshi-data-postgres"
S3 = "kalshi-data-s3"
DIGITS = 12


@dataclass(frozen=True, slots=True)
class Recipe:
    """How one image is built: its context, what is in it, and the builder's arguments."""

    name: str
    context: Path
    contents: tuple[str, ...]
    arguments: tuple[str, ...] = ()

    def tag(self) -> str:
        """Return the tag that says what is in it."""
        return f"t{digest(self.context, self.contents)[:DIGITS]}"


RECIPES = (
    Recipe(
        SERVICES, ROOT,
        ("Dockerfile", "requirements.image.lock", "pyproject.toml", "images/kalshi-data", "charts/kalshi-data/crds", "config", "libs", "migrations", "services"),
        ("--target", "runtime"),
    ),
    Recipe(DATABASE, ROOT / "images/postgres", (".",)),
    Recipe(S3, ROOT / "images/s3", (".",)),
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Images:
    """What pods are told to run: a registry (empty: none) and a tag for each image."""

    registry: str
    tags: dict[str, str]

    def values(self) -> dict[str, Any]:
        """Return the chart's values that say so."""
        database = {"repository": DATABASE, "tag": self.tags[DATABASE]}
        return {
            "image": {
                "registry": self.registry,
                "repository": SERVICES,
                "tag": self.tags[SERVICES],
            },
            "zoneDefaults": {"database": {"image": database}},
            "production": {"image": database},
            "s3server": {"image": {"tag": self.tags[S3]}},
        }

    def with_services(self, tag: str) -> "Images":
        """Return the same with another image of the services."""
        return Images(self.registry, self.tags | {SERVICES: tag})


def digest(root: Path, contents: Iterable[str]) -> str:
    """Return a hash over names, modes and bytes of all files below these paths; caches are none of them."""
    hashed = hashlib.sha256()
    for entry in contents:
        path = root / entry
        files = [path] if path.is_file() else sorted(p for p in path.rglob("*") if p.is_file())
        for file in files:
            if "__pycache__" in file.parts:
                continue
            hashed.update(f"{file.relative_to(root)}\0{file.stat().st_mode & 0o111:o}\0".encode())
            hashed.update(hashlib.sha256(file.read_bytes()).digest())
    return hashed.hexdigest()


class Builder:
    """Brings images to the cluster."""

    def __init__(self, faults: Faults, registry: str, tag: str, say: Say) -> None:
        self._faults = faults
        self._registry = registry
        self._tag = tag
        self._say = say

    async def all(self) -> Images:
        """Build and load every image; where a registry is named they are expected there. Raises CommandFailed."""
        if self._registry:
            return Images(self._registry, dict.fromkeys((SERVICES, DATABASE, S3), self._tag))
        tags = {}
        for recipe in RECIPES:
            tags[recipe.name] = recipe.tag()
            await self.one(recipe, tags[recipe.name])
        return Images("", tags)

    async def services(self, tag: str) -> None:
        """Bring the services' image under another tag, so that it is another version. Raises CommandFailed."""
        if not self._registry:
            await self.one(RECIPES[0], tag)

    async def one(self, recipe: Recipe, tag: str) -> None:
        """Build one and bring it to where the nodes find it. Raises CommandFailed, Skipped."""
        reference = f"{recipe.name}:{tag}"
        self._say(f"building {reference}")
        words = [*recipe.arguments]
        if recipe.name == SERVICES:
            words += ["--build-arg", f"VERSION={tag}"]
        await self._faults.image(reference, recipe.context, words, BUILD_S_MAX)
