"""skaffold and the cluster tests deploy the same thing: what is proved on a cluster is what a developer gets."""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from tests.cluster.faults import Testbed
from tests.cluster.images import RECIPES, SERVICES, Builder, Images
from tests.cluster.values import CHART, DEVELOPMENT
from tests.deploy.dockerfiles import DOCKERFILE, copied
from tests.deploy.locks import ROOT
from tests.deploy.skaffolds import artifacts, release, with_profiles


class Build(NamedTuple):
    """One image as it is built: folder, Dockerfile in it, target ("" for the last), names of build arguments."""

    folder: Path
    dockerfile: str
    target: str
    arguments: frozenset[str]


class Recorder(Testbed):
    """A cluster that only notes what it is to build."""

    def __init__(self) -> None:
        super().__init__("")
        self.built: dict[str, Build] = {}

    async def image(
        self, reference: str, context: Path, arguments: Sequence[str], timeout_s: float
    ) -> None:
        said = dict(zip(arguments[::2], arguments[1::2], strict=True))
        named = frozenset(
            value.partition("=")[0]
            for option, value in zip(arguments[::2], arguments[1::2], strict=True)
            if option == "--build-arg"
        )
        build = Build(context, said.get("--file", "Dockerfile"), said.get("--target", ""), named)
        self.built[reference.partition(":")[0]] = build


@pytest.fixture
async def built() -> tuple[dict[str, Build], Images]:
    """What the cluster tests build, and what they tell the chart of it."""
    recorder = Recorder()
    images = await Builder(recorder, "", "", lambda _: None).all()
    return recorder.built, images


async def test_the_same_images_are_built_the_same_way(
    built: tuple[dict[str, Build], Images],
) -> None:
    """Names, folders, Dockerfiles, targets and build arguments are skaffold's."""
    theirs = {
        name: Build(
            ROOT / artifact["context"],
            artifact["docker"]["dockerfile"],
            artifact["docker"].get("target", ""),
            frozenset(artifact["docker"].get("buildArgs", {})),
        )
        for name, artifact in artifacts(with_profiles("kind")).items()
    }
    assert built[0] == theirs
    assert len(theirs) == 3


async def test_the_same_chart_is_told_the_same_of_them(
    built: tuple[dict[str, Build], Images],
) -> None:
    """Chart and values file are skaffold's, and every value about an image is one that skaffold sets too."""
    found = release(with_profiles("kind"))
    assert ROOT / found["chartPath"] == CHART
    assert [ROOT / file for file in found["valuesFiles"]] == [DEVELOPMENT]
    ours = dict(_flat(built[1].values()))
    assert ours.keys() <= found["setValueTemplates"].keys()
    for key, value in ours.items():
        if key.endswith(".repository"):
            assert f"IMAGE_REPO_{value.replace('-', '_')}" in found["setValueTemplates"][key]


def test_the_tag_says_all_that_is_in_the_image() -> None:
    """A change of any file that reaches the image is another tag, so that no node runs an earlier tree."""
    (services,) = [recipe for recipe in RECIPES if recipe.name == SERVICES]
    only_in_development = {"images/kalshi-data-reload"}
    copies = copied(DOCKERFILE) - only_in_development
    assert set(services.contents) >= {DOCKERFILE.name} | copies
    assert all((ROOT / entry).exists() for entry in services.contents)


def _flat(values: dict[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    for key, value in values.items():
        if isinstance(value, dict):
            yield from _flat(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", value
