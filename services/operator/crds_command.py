"""`kalshi-data crds apply`: bring the cluster's definition of a Gatherer to this version, as a hook before an upgrade does.

Applied on the server's side: Helm installs what lies in crds/ once and never touches it again.
"""

import argparse
import asyncio
import itertools
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Final

import yaml

from libs.kube.client import Json, Kube, open_kube
from libs.kube.errors import KubeError, KubeUnavailable
from libs.kube.objects import apply_definition, is_established

DIRECTORY: Final = Path(__file__).parents[2] / "charts" / "kalshi-data" / "crds"
"""Where they lie in a checkout, and in the image."""
MANAGER: Final = "kalshi-data-crds"
LOOK_S: Final = 1.0
EXIT_FAILED, EXIT_USAGE = 1, 2


def main(argv: Sequence[str]) -> int:
    """Parse, apply, wait until the API serves the kinds.

    Returns:
        0, 1 when the API does not take them in time, 2 when there is nothing to apply.
    """
    arguments = _parser().parse_args(argv)
    try:
        definitions = read_definitions(arguments.directory)
    except (OSError, yaml.YAMLError) as error:
        return _complain(str(error), EXIT_USAGE)
    if not definitions:
        return _complain(f"{arguments.directory}: no definitions lie there", EXIT_USAGE)
    try:
        asyncio.run(_apply(definitions, arguments.kubeconfig, arguments.timeout))
    except (KubeError, TimeoutError) as error:
        return _complain(str(error) or f"not done within {arguments.timeout:g} s", EXIT_FAILED)
    return 0


def read_definitions(directory: Path) -> list[Json]:
    """Return every object of every *.yaml in a directory, by file name.

    Raises:
        OSError: the directory cannot be read.
        yaml.YAMLError: a file is no YAML.
    """
    found: list[Json] = []
    for path in sorted(directory.iterdir()):
        if path.suffix == ".yaml":
            text = path.read_text(encoding="utf-8")
            found += [one for one in yaml.safe_load_all(text) if one]
    return found


async def apply_all(kube: Kube, definitions: Sequence[Json]) -> None:
    """Apply them and wait until the API serves every kind; an API that is away is waited for.

    Raises:
        KubeError: it does not take one of them.
    """
    for definition in definitions:
        for attempt in itertools.count():
            if attempt:
                await asyncio.sleep(LOOK_S)
            if await _is_applied(kube, definition):
                break
        sys.stdout.write(f"{definition['metadata']['name']}: applied\n")


async def _is_applied(kube: Kube, definition: Json) -> bool:
    try:
        await apply_definition(kube, definition, manager=MANAGER)
        return await is_established(kube, definition["metadata"]["name"])
    except KubeUnavailable as error:
        sys.stderr.write(f"crds: waiting: {error}\n")
        return False


async def _apply(definitions: Sequence[Json], kubeconfig: str, timeout_s: float) -> None:
    async with asyncio.timeout(timeout_s), open_kube(kubeconfig) as kube:
        await apply_all(kube, definitions)


def _complain(fault: str, status: int) -> int:
    sys.stderr.write(f"crds: {fault}\n")
    return status


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="kalshi-data crds")
    apply = parser.add_subparsers(metavar="apply", required=True).add_parser(
        "apply", help="apply this version's definitions to the cluster, on the server's side"
    )
    apply.add_argument(
        "--from",
        dest="directory",
        type=Path,
        default=DIRECTORY,
        metavar="DIR",
        help=f"every *.yaml of it; default: {DIRECTORY}",
    )
    apply.add_argument(
        "--kubeconfig",
        default="",
        metavar="FILE",
        help="default: the pod's service account, else what kubectl takes",
    )
    apply.add_argument(
        "--timeout", type=float, default=120.0, metavar="SECONDS", help="for all of it; default 120"
    )
    return parser
