"""`kalshi-data volume grow --zone Z SIZE`: one zone's volume, larger, while it runs."""

import argparse
import asyncio
import sys
from collections.abc import Sequence

from libs.kube.client import open_kube
from libs.kube.errors import KubeError
from libs.runtime.clock import Clock, SystemClock
from services.volume.grow import Growth, VolumeRefused, VolumeUnfinished
from services.volume.size import to_bytes

EXIT_OK, EXIT_UNFINISHED, EXIT_USAGE = 0, 1, 2
WAIT_S = 900.0
NEXT = """
Now write it into the values, or the next upgrade is refused (a StatefulSet's claims cannot be changed back):
  zones: [{{name: {zone}, database: {{storage: {{size: {size}}}}}}}]
and upgrade: with it the connectors' limit (storage_bytes_max) follows the volume.
"""


def main(argv: Sequence[str], clock: Clock | None = None) -> int:
    """Grow a volume.

    Returns:
        0 it has its new size; 1 the cluster has not done its part, or the API refuses; 2 wrong words, or it cannot be grown so.
    """
    arguments = _parser().parse_args(argv)
    try:
        to_bytes(arguments.size)
        asyncio.run(_grow(arguments, clock or SystemClock()))
    except (ValueError, VolumeRefused) as error:
        sys.stderr.write(f"volume: {error}\n")
        return EXIT_USAGE
    except (KubeError, VolumeUnfinished) as error:
        sys.stderr.write(f"volume: {error}\n")
        return EXIT_UNFINISHED
    sys.stdout.write(NEXT.format(zone=arguments.zone, size=arguments.size))
    return EXIT_OK


async def _grow(arguments: argparse.Namespace, clock: Clock) -> None:
    async with open_kube(arguments.kubeconfig, namespace=arguments.namespace) as kube:
        growth = Growth(kube, arguments.release, arguments.zone, arguments.size, clock, _say)
        await growth.run(arguments.wait_s)


def _say(line: str) -> None:
    sys.stdout.write(f"{line}\n")


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="kalshi-data volume", description="The volume of a zone's database."
    )
    verbs = parser.add_subparsers(metavar="VERB", required=True)
    grow = verbs.add_parser("grow", help="make it larger while it runs; it never gets smaller")
    grow.add_argument("size", metavar="SIZE", help="the new size, such as 300Gi")
    grow.add_argument("--zone", required=True, help="the zone's short name")
    grow.add_argument("--release", default="kalshi-data", help="default: kalshi-data")
    grow.add_argument("--namespace", default="", help="default: that of the kubeconfig")
    grow.add_argument("--kubeconfig", default="", help="default: as kubectl's")
    grow.add_argument(
        "--wait-s",
        type=float,
        default=WAIT_S,
        help=f"longest to wait for the disk, seconds; default: {WAIT_S:g}",
    )
    return parser
